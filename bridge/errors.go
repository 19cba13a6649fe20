package bridge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// errStopped is the cause of a link that the bridge itself ends.
var errStopped = errors.New("the bridge stops")

// errNotReading means that a write did not end in time.
var errNotReading = errors.New("write timed out")

// stallError means that a server takes messages and acknowledges none.
type stallError struct {
	server string
	after  time.Duration
}

func (e *stallError) Error() string {
	return fmt.Sprintf("%s accepts but acknowledges nothing for %v: the server is overloaded, or the way back is broken", e.server, e.after)
}

// dialError says why no TCP connection came about, and what to do.
func dialError(address string, err error) error {
	if dns := (*net.DNSError)(nil); errors.As(err, &dns) {
		return failedAt(StepDNS, dnsError(dns))
	}
	return failedAt(StepTCP, tcpError(address, err))
}

func dnsError(err *net.DNSError) error {
	if err.IsNotFound {
		return fmt.Errorf("DNS knows no %q: check the name in servers and the DNS server of this gateway (%w)", err.Name, err)
	}
	return fmt.Errorf("DNS gives no answer about %q: is the network up? (%w)", err.Name, err)
}

func tcpError(address string, err error) error {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%s refuses connections: is the broker running there, and is the port right? (%w)", address, err)
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETDOWN):
		return fmt.Errorf("there is no route to %s: is the network up? (%w)", address, err)
	case isTimeout(err):
		return fmt.Errorf("no answer from %s within %v: is the uplink up, or does a firewall drop the port? (%w)", address, connectTimeout, err)
	}
	return fmt.Errorf("connect to %s: %w", address, err)
}

// handshakeError says why CONNECT got no lawful answer, and what to do.
func handshakeError(e endpoint, version string, err error) error {
	port, allow := "an MQTT port without TLS", "allow this client"
	if e.secure() {
		port, allow = "an MQTT port", "allow this client, or want a certificate (tls.cert and tls.key)"
	}
	if version == "MQTT 5" {
		port += ", and does the server speak MQTT 5 (else write protocol: 4)"
	}
	switch {
	case isAlert(err): // TLS 1.3 refuses a client's certificate only now
		return alertError(e.address, err)
	case isTimeout(err):
		return fmt.Errorf("%s takes the connection but does not answer CONNECT within %v: is this an MQTT port, and is the server healthy? (%w)", e.address, connectTimeout, err)
	case isClosed(err):
		return fmt.Errorf("%s closes the connection instead of answering CONNECT: is this %s, and does the server %s? (%w)", e.address, port, allow, err)
	}
	return fmt.Errorf("%s does not answer CONNECT with %s: is this %s? (%w)", e.address, version, port, err)
}

// lostError says why a link ended, and what to do.
func lostError(server, clientID string, silence time.Duration, err error) error {
	var stalled *stallError
	var bye *farewell
	switch {
	case errors.As(err, &stalled), errors.Is(err, errStopped):
		return err
	case errors.As(err, &bye) && bye.reason == packet.ReasonSessionTakenOver:
		return fmt.Errorf("%s ended the connection, because another client uses the client id %q: give each its own client_id (%w)", server, clientID, err)
	case errors.As(err, &bye):
		return fmt.Errorf("%s ended the connection: %w", server, err)
	case errors.Is(err, errNotReading):
		return fmt.Errorf("%s stopped reading: the uplink is too slow or dead (%w)", server, err)
	case isTimeout(err):
		return fmt.Errorf("%s was silent for %v in spite of pings: the uplink is dead (%w)", server, silence, err)
	case isClosed(err):
		return fmt.Errorf("%s closed the connection; if this repeats, either another client uses the client id %q too, or the server does not allow what is published (%w)", server, clientID, err)
	}
	return fmt.Errorf("connection to %s lost: %w", server, err)
}

// refusedError says which subscriptions the server refused, or nil. granted is
// what it answered for each filter (MQTT 3.1.1, section 3.9.3).
func refusedError(granted map[string]byte) error {
	var refused []string
	for filter, code := range granted {
		if code >= byte(mqtt.QoSFailure) {
			refused = append(refused, filter)
		}
	}
	if len(refused) == 0 {
		return nil
	}
	slices.Sort(refused)
	return &subscribeError{refused}
}

// listenError says why a server neither grants nor refuses subscriptions.
func listenError(server, clientID string, err error) error {
	var refused *subscribeError
	switch {
	case errors.As(err, &refused):
		return err
	case isTimeout(err):
		return fmt.Errorf("%s does not answer SUBSCRIBE within %v: is the server healthy? (%w)", server, connectTimeout, err)
	}
	return lostError(server, clientID, 0, err)
}

// subscribeError means that a server refuses subscriptions.
type subscribeError struct{ filters []string }

func (e *subscribeError) Error() string {
	quoted := make([]string, len(e.filters))
	for i, f := range e.filters {
		quoted[i] = strconv.Quote(f)
	}
	return fmt.Sprintf("the server refuses the subscription to %s: it must allow this user to read there, or take it out of in", strings.Join(quoted, ", "))
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) || errors.As(err, &t) && t.Timeout()
}

// isClosed reports whether the other side ended the connection.
func isClosed(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
