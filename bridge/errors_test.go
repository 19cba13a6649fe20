package bridge

import (
	"context"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

func TestRefusalsSayWhatToDo(t *testing.T) {
	for name, c := range map[string]struct {
		script func(u upstream)
		want   string
	}{
		"bad password":       {func(u upstream) { u.accept(4) }, `one:1883 refuses user "pump", bad user name or password: check username and password_file`},
		"not authorised":     {func(u upstream) { u.accept(5) }, `one:1883 refuses user "pump" with client id "tidegate-pump-house-cloud", not Authorized: check username and password_file, and what the server allows them; if they may not publish on "site/gateway/pump-house/status", write will: false`},
		"client id":          {func(u upstream) { u.accept(2) }, `identifier rejected: set client_id to one that it allows`},
		"unavailable":        {func(u upstream) { u.accept(3) }, `refuses for now, server Unavailable`},
		"protocol":           {func(u upstream) { u.accept(1) }, `refuses MQTT 3.1.1`},
		"unknown code":       {func(u upstream) { u.accept(77) }, `one:1883 does not answer CONNECT with MQTT 3.1.1`},
		"closes":             {func(u upstream) { u.read() }, `one:1883 closes the connection instead of answering CONNECT: is this an MQTT port without TLS`},
		"not MQTT":           {func(u upstream) { u.read(); _, _ = u.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")) }, `is this an MQTT port`},
		"another packet":     {func(u upstream) { u.read(); _ = packets.NewControlPacket(packets.Pingresp).Write(u) }, `does not answer CONNECT with MQTT 3.1.1: is this an MQTT port`},
		"no answer":          {func(u upstream) { u.read(); u.read() }, `takes the connection but does not answer CONNECT within 10s`},
		"does not even read": {func(u upstream) { time.Sleep(time.Minute) }, `takes the connection but does not answer CONNECT within 10s`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := testConfig()
				cfg.Username, cfg.Will = "pump", nil
				r := newRig(t, cfg, newLocal(readings(1)...), piped(t, func(_ int, _ string, u upstream) { c.script(u) })).start()
				time.Sleep(10*time.Second + time.Millisecond) // virtual
				s := r.Status()
				r.end()
				time.Sleep(time.Minute) // the script's
				if !strings.Contains(s.Error, c.want) || s.Connects != 0 {
					t.Errorf("the status is %+v, want %q", s, c.want)
				}
			})
		})
	}
}

// A server that wants a certificate may close the connection before its alert is read.
func TestASecureServerThatClosesMayWantACertificate(t *testing.T) {
	for scheme, want := range map[string]bool{"tcp": false, "tls": true, "wss": true} {
		e := endpoint{scheme: scheme, address: "one:1"}
		for _, err := range []error{handshakeError(e, "MQTT 3.1.1", syscall.ECONNRESET), webSocketError(e, nil, syscall.ECONNRESET)} {
			if strings.Contains(err.Error(), "want a certificate (tls.cert and tls.key)") != want {
				t.Errorf("%s: %v", scheme, err)
			}
		}
	}
}

func TestDialErrorsSayWhatToDo(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"refused":  {syscall.ECONNREFUSED, "one:1883 refuses connections: is the broker running there"},
		"no name":  {&net.DNSError{Name: "one", IsNotFound: true}, `DNS knows no "one": check the name`},
		"no DNS":   {&net.DNSError{Name: "one", IsTimeout: true}, `DNS gives no answer about "one": is the network up?`},
		"no route": {syscall.ENETUNREACH, "there is no route to one:1883: is the network up?"},
		"time-out": {context.DeadlineExceeded, "no answer from one:1883 within 10s: is the uplink up"},
		"other":    {syscall.EPERM, "connect to one:1883"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := dialError("one:1883", c.err); !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("got %q, want %q", err, c.want)
			}
		})
	}
}
