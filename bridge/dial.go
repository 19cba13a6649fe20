package bridge

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"tidegate/internal/quiet"
)

// TLS says how servers with tls:// or wss:// are trusted, and how the gateway
// proves who it is. The files are read for each connection, so that a new
// certificate needs no restart.
type TLS struct {
	CA         string `yaml:"ca"`          // file with the authorities that may sign the server's certificate; "": the system's
	Cert       string `yaml:"cert"`        // file with the gateway's certificate, for servers that want one ...
	Key        string `yaml:"key"`         // ... and with its key
	ServerName string `yaml:"server_name"` // the name the server's certificate must have; "": the one in its URL
}

// config returns what a handshake with host needs.
func (t TLS) config(host string) (*tls.Config, error) {
	cfg := &tls.Config{ServerName: cmp.Or(t.ServerName, host), MinVersion: tls.VersionTLS12}
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, fmt.Errorf("read tls.ca: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls.ca %s has no certificate in PEM format", t.CA)
		}
	}
	if t.Cert != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, fmt.Errorf("tls.cert %s and tls.key %s are no pair that can be used: %w", t.Cert, t.Key, err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

// dialFunc opens a network connection as [net.Dialer.DialContext] does.
type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// streams opens the byte stream that MQTT travels in: TCP, in it TLS if the server
// wants it, and in that WebSocket if the server wants that.
type streams struct {
	dial dialFunc
	tls  TLS
	now  func() time.Time // for certificates; nil: what the system says

	watch func(step Step, text string) // is told of each step that has worked; may be nil
}

// open returns the stream to e. Its errors say what to do.
func (s streams) open(ctx context.Context, e endpoint) (net.Conn, error) {
	conn, err := s.dial(ctx, "tcp", e.address)
	if err != nil {
		return nil, dialError(e.address, err)
	}
	s.passed(StepTCP, conn.RemoteAddr().String())
	conn = quiet.Over(conn)
	raw := conn
	if e.secure() {
		conn, err = s.encrypt(ctx, raw, e)
	}
	if err == nil && e.web() {
		conn, err = s.upgrade(ctx, conn, raw, e)
	}
	if err != nil {
		_ = raw.Close()
		return nil, err
	}
	return conn, nil
}

// agreed says what a handshake led to.
func agreed(s tls.ConnectionState) string {
	return fmt.Sprintf("%s, the certificate is valid until %s", tls.VersionName(s.Version), s.PeerCertificates[0].NotAfter.Format(time.DateOnly))
}

// passed tells whoever watches that a step has worked.
func (s streams) passed(step Step, text string) {
	if s.watch != nil {
		s.watch(step, text)
	}
}

func (s streams) encrypt(ctx context.Context, raw net.Conn, e endpoint) (net.Conn, error) {
	cfg, err := s.tls.config(e.host)
	if err != nil {
		return nil, failedAt(StepTLS, err)
	}
	cfg.Time = s.now
	conn := tls.Client(raw, cfg)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, failedAt(StepTLS, tlsError(e.address, cfg.ServerName, s.time(), cmp.Or(context.Cause(ctx), err)))
	}
	s.passed(StepTLS, agreed(conn.ConnectionState()))
	return encrypted{conn, raw}, nil
}

func (s streams) upgrade(ctx context.Context, conn, raw net.Conn, e endpoint) (net.Conn, error) {
	conn, err := openWebSocket(ctx, conn, raw, e)
	if err == nil {
		s.passed(StepWebSocket, e.path)
	}
	return conn, failedAt(StepWebSocket, err)
}

// time is what certificates are checked against.
func (s streams) time() time.Time {
	if s.now != nil {
		return s.now()
	}
	return time.Now()
}

// encrypted is a TLS connection that is closed without leave-taking: that would
// wait for a server that does not read. MQTT takes leave itself.
type encrypted struct {
	*tls.Conn
	raw net.Conn
}

func (c encrypted) Close() error { return c.raw.Close() }

// tlsError says why the server at address and this gateway do not trust each
// other, and what to do.
func tlsError(address, name string, now time.Time, err error) error {
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var wrongName x509.HostnameError
	var notTLS tls.RecordHeaderError
	switch {
	case errors.As(err, &unknown):
		return fmt.Errorf("the certificate of %s is signed by nobody this gateway trusts: write the file with the server's authority at tls.ca (%w)", address, err)
	case errors.As(err, &wrongName):
		return fmt.Errorf("the certificate of %s is for another name than %q: write the right name in servers, or at tls.server_name (%w)", address, name, err)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return expiredError(address, invalid.Cert, now)
	case errors.As(err, &notTLS):
		return fmt.Errorf("%s does not speak TLS: is it the port for tcp:// or ws://? (%w)", address, err)
	case isAlert(err):
		return alertError(address, err)
	case isTimeout(err):
		return fmt.Errorf("%s takes the connection but does not answer the TLS handshake within %v: is this a port with TLS, and is the server healthy? (%w)", address, connectTimeout, err)
	case isClosed(err):
		return fmt.Errorf("%s closes the connection during the TLS handshake: is this a port with TLS? (%w)", address, err)
	}
	return fmt.Errorf("TLS with %s: %w", address, err)
}

func expiredError(address string, cert *x509.Certificate, now time.Time) error {
	const day = time.DateOnly
	if now.Before(cert.NotBefore) {
		return fmt.Errorf("the certificate of %s is valid from %s on, and the clock of this gateway says %s: set the clock",
			address, cert.NotBefore.Format(day), now.Format(day))
	}
	return fmt.Errorf("the certificate of %s expired on %s: whoever runs the server must renew it, unless the clock of this gateway is wrong, which says %s",
		address, cert.NotAfter.Format(day), now.Format(day))
}

// isAlert reports whether the other side of a TLS connection complained.
func isAlert(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

func alertError(address string, err error) error {
	return fmt.Errorf("%s does not accept this gateway's certificate, or wants one: check tls.cert and tls.key (%w)", address, err)
}
