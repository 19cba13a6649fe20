package bridge

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	packets5 "github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"tidegate/internal/leak"
)

// strange is a server that does some things otherwise than a good one.
type strange struct {
	late    time.Duration // before CONNACK
	consent [2]byte       // CONNACK in 3.1.1 and in 5
	refuses string        // this filter
	deafTo  string        // what it does not answer: CONNECT, SUBSCRIBE or PUBLISH
	puback  byte          // in MQTT 5
	swallow bool          // it acknowledges and delivers nothing
	cuts    bool          // it ends the connection on PUBLISH
	noWill  bool          // it refuses who leaves a will
	text    string        // it says this and knows no MQTT

	got []string // packets that leave something, or disturb somebody
}

func (s *strange) serve(t *testing.T, protocol int) func(net.Conn) {
	var one sync.Mutex // connection at a time: got is not for two
	return func(c net.Conn) {
		one.Lock()
		defer one.Unlock()
		defer c.Close()
		switch {
		case s.text != "":
			_, _ = c.Read(make([]byte, 512))
			fmt.Fprint(c, s.text)
		case protocol == 5:
			s.serve5(upstream5{t, c})
		default:
			s.serve4(upstream{t, c})
		}
	}
}

func (s *strange) serve4(u upstream) {
	connect, _ := u.read().(*packets.ConnectPacket)
	if connect == nil || s.silent(u, "CONNECT") {
		return
	}
	s.note(connect.ClientIdentifier, connect.CleanSession, connect.WillFlag)
	time.Sleep(s.late)
	consent := s.consent[0]
	if s.noWill && connect.WillFlag {
		consent = 5
	}
	u.consent(consent)
	for consent == 0 {
		switch p := u.read().(type) {
		case *packets.SubscribePacket:
			if s.silent(u, "SUBSCRIBE") {
				return
			}
			answer := packets.NewControlPacket(packets.Suback).(*packets.SubackPacket)
			answer.MessageID, answer.ReturnCodes = p.MessageID, s.grant(p.Topics)
			_ = answer.Write(u)
		case *packets.PublishPacket:
			if s.cuts || s.silent(u, "PUBLISH") {
				return
			}
			u.ack(p)
			if !s.swallow {
				back := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
				back.TopicName, back.Payload = p.TopicName, p.Payload
				_ = back.Write(u)
			}
			s.got = append(s.got, fmt.Sprintf("%s retain %v", p.TopicName, p.Retain))
		case *packets.DisconnectPacket:
			s.got = append(s.got, "DISCONNECT")
		case nil:
			return
		}
	}
}

func (s *strange) serve5(u upstream5) {
	connect, _ := u.read().(*packets5.Connect)
	if connect == nil || s.silent(u, "CONNECT") {
		return
	}
	s.note(connect.ClientID, connect.CleanStart && connect.Properties.SessionExpiryInterval == nil, connect.WillFlag)
	time.Sleep(s.late)
	connack := packets5.NewControlPacket(packets5.CONNACK)
	consent := s.consent[1]
	if s.noWill && connect.WillFlag {
		consent = 0x87
	}
	connack.Content.(*packets5.Connack).ReasonCode = consent
	_, _ = connack.WriteTo(u)
	for consent == 0 {
		switch p := u.read().(type) {
		case *packets5.Subscribe:
			if s.silent(u, "SUBSCRIBE") {
				return
			}
			var filters []string
			for _, sub := range p.Subscriptions {
				filters = append(filters, sub.Topic)
				if own := strings.HasSuffix(sub.Topic, "/test"); own == sub.NoLocal {
					u.t.Errorf("No Local is %v for %s", sub.NoLocal, sub.Topic)
				}
			}
			answer := packets5.NewControlPacket(packets5.SUBACK)
			answer.Content.(*packets5.Suback).PacketID, answer.Content.(*packets5.Suback).Reasons = p.PacketID, s.grant(filters)
			_, _ = answer.WriteTo(u)
		case *packets5.Publish:
			if s.cuts || s.silent(u, "PUBLISH") {
				return
			}
			u.ack(p, s.puback)
			if !s.swallow && s.puback == 0 {
				back := packets5.NewControlPacket(packets5.PUBLISH)
				back.Content.(*packets5.Publish).Topic, back.Content.(*packets5.Publish).Payload = p.Topic, p.Payload
				_, _ = back.WriteTo(u)
			}
			s.got = append(s.got, fmt.Sprintf("%s retain %v", p.Topic, p.Retain))
		case *packets5.Disconnect:
			s.got = append(s.got, "DISCONNECT")
		case nil:
			return
		}
	}
}

func (s *strange) note(id string, clean, will bool) {
	s.got = append(s.got, fmt.Sprintf("%s clean %v will %v", id, clean, will))
}

// silent reads on without an answer, if that is how s is, until the connection ends.
func (s *strange) silent(c net.Conn, to string) bool {
	if s.deafTo != to {
		return false
	}
	for b := make([]byte, 512); ; {
		if _, err := c.Read(b); err != nil {
			return true
		}
	}
}

func (s *strange) grant(filters []string) (codes []byte) {
	for _, f := range filters {
		if f == s.refuses {
			codes = append(codes, 0x80)
		} else {
			codes = append(codes, 1)
		}
	}
	return codes
}

func trialOf(protocol int) *Trial {
	cfg := testConfig()
	cfg.Protocol, cfg.Username, cfg.Password = protocol, "pump", "secret"
	cfg.In, cfg.Will = []Rule{{Topics: []string{"command/#", "all/#"}}}, nil // a will, as is usual
	cfg.SetDefaults()
	return &Trial{Config: cfg, Gateway: "pump-house"}
}

// try runs the trial and returns its findings as text, the last of which is
// that which counts.
func try(t *testing.T, trial *Trial, server string) (works bool, all []string) {
	t.Helper()
	works = trial.Run(t.Context(), server, func(f Finding) {
		mark := "FAILED"
		if f.OK {
			mark = "ok"
		}
		all = append(all, fmt.Sprintf("%s %s %s", f.Step, mark, f.Text))
	})
	return works, all
}

func bothProtocols(t *testing.T, test func(t *testing.T, protocol int)) {
	for _, protocol := range []int{4, 5} {
		t.Run(fmt.Sprint("protocol ", protocol), func(t *testing.T) { test(t, protocol) })
	}
}

// A good server passes all steps, is left with nothing, and does not notice the
// bridge's own client id.
func TestTrialOfAGoodServer(t *testing.T) {
	bothProtocols(t, func(t *testing.T, protocol int) {
		synctest.Test(t, func(t *testing.T) {
			s, trial := &strange{}, trialOf(protocol)
			serve := s.serve(t, protocol)
			trial.dial = piped(t, func(_ int, _ string, u upstream) { serve(u) })
			trial.lookup = func(context.Context, string) ([]string, error) { return []string{"192.0.2.7", "2001:db8::7"}, nil }
			works, found := try(t, trial, "tcp://one:1883")
			synctest.Wait()
			version := map[int]string{4: "3.1.1", 5: "5"}[protocol]
			want := []string{
				"dns ok 192.0.2.7, 2001:db8::7", "tcp ok pipe", "connect ok MQTT " + version + ", client id tidegate-pump-house-cloud-test",
				"subscribe ok command/#, all/#, site/gateway/pump-house/test", "echo ok site/gateway/pump-house/test",
				"will ok site/gateway/pump-house/status",
			}
			if !works || !slices.Equal(found, want) {
				t.Errorf("found\n%s", strings.Join(found, "\n"))
			}
			if want := []string{
				"tidegate-pump-house-cloud-test clean true will false", "site/gateway/pump-house/test retain false", "DISCONNECT",
				"tidegate-pump-house-cloud-test clean true will true", "DISCONNECT",
			}; !slices.Equal(s.got, want) {
				t.Errorf("the server got %q", s.got)
			}
		})
	})
}

func TestTrialsOfBrokenServers(t *testing.T) {
	const echo = "site/gateway/pump-house/test"
	refused := func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	for name, c := range map[string]struct {
		server strange
		dial   dialFunc
		dns    error
		works  bool
		want   string // of the last finding, or the one before
		want5  string // "": the same
	}{
		"refuses connections":      {dial: refused, want: "tcp FAILED one:1883 refuses connections: is the broker running there"},
		"DNS knows no such name":   {dns: &net.DNSError{Name: "one", IsNotFound: true}, want: `dns FAILED DNS knows no "one": check the name in servers`},
		"DNS does not answer":      {dns: &net.DNSError{Name: "one", IsTimeout: true}, want: `dns FAILED DNS gives no answer about "one": is the network up?`},
		"bad password":             {server: strange{consent: [2]byte{4, 0x86}}, want: `connect FAILED one:1883 refuses user "pump", bad user name or password: check`},
		"not authorised":           {server: strange{consent: [2]byte{5, 0x87}}, want: `connect FAILED one:1883 refuses user "pump" with client id "tidegate-pump-house-cloud-test", not`},
		"not MQTT at all":          {server: strange{text: "HTTP/1.1 400 Bad Request\r\n\r\n" + strings.Repeat("no ", 100)}, want: "connect FAILED one:1883 does not answer CONNECT with MQTT 3.1.1: is this an MQTT port", want5: "connect FAILED one:1883 does not answer CONNECT with MQTT 5: is this an MQTT port"},
		"never answers CONNECT":    {server: strange{deafTo: "CONNECT"}, want: "connect FAILED one:1883 takes the connection but does not answer CONNECT within 10s"},
		"slow":                     {server: strange{late: 4 * time.Second}, works: true, want: "slow: the bridge gives up after 10s"},
		"too slow":                 {server: strange{late: 11 * time.Second}, want: "connect FAILED one:1883 takes the connection but does not answer CONNECT within 10s"},
		"refuses a subscription":   {server: strange{refuses: "command/#"}, want: `subscribe FAILED the server refuses the subscription to "command/#": it must allow this user to read there`},
		"never answers SUBSCRIBE":  {server: strange{deafTo: "SUBSCRIBE"}, want: "subscribe FAILED tcp://one:1883 does not answer SUBSCRIBE within 10s"},
		"lets nobody see the echo": {server: strange{refuses: echo, swallow: true}, works: true, want: `echo ok acknowledged; whether it arrives is not seen, since this user may not read "` + echo + `"`},
		"drops messages":           {server: strange{swallow: true}, want: `echo FAILED tcp://one:1883 acknowledges a message on "` + echo + `" but does not deliver it back within 10s`},
		"never acknowledges":       {server: strange{deafTo: "PUBLISH"}, want: "echo FAILED tcp://one:1883 accepts but acknowledges nothing for 10s"},
		"cuts on PUBLISH":          {server: strange{cuts: true}, want: "echo FAILED tcp://one:1883 closed the connection; if this repeats, either another client uses the client id"},
		"refuses the will":         {server: strange{noWill: true}, want: `will FAILED with a will on "site/gateway/pump-house/status": one:1883 refuses user "pump" with client id "tidegate-pump-house-cloud-test", not Authorized: check`, want5: `if they may not publish on "site/gateway/pump-house/status", write will: false`},
		"refuses to publish":       {server: strange{puback: 0x87, swallow: true}, want: "echo FAILED", want5: `echo FAILED tcp://one:1883 refuses a message on "` + echo + `": not authorised`},
	} {
		t.Run(name, func(t *testing.T) {
			bothProtocols(t, func(t *testing.T, protocol int) {
				synctest.Test(t, func(t *testing.T) {
					trial, want := trialOf(protocol), c.want
					if protocol == 5 && c.want5 != "" {
						want = c.want5
					}
					server := c.server
					trial.lookup = func(context.Context, string) ([]string, error) { return []string{"192.0.2.7"}, c.dns }
					serve := server.serve(t, protocol)
					if trial.dial = c.dial; trial.dial == nil {
						trial.dial = piped(t, func(_ int, _ string, u upstream) { serve(u) })
					}
					begin := time.Now()
					works, found := try(t, trial, "tcp://one:1883")
					if took := time.Since(begin); took > 22*time.Second {
						t.Errorf("took %v", took)
					}
					time.Sleep(time.Minute) // a slow server's
					if works != c.works || !strings.Contains(strings.Join(found, "\n"), want) {
						t.Errorf("works: %v\n%s\nwant %q", works, strings.Join(found, "\n"), want)
					}
					if works != !strings.Contains(strings.Join(found, "\n"), "FAILED") {
						t.Errorf("works is %v, but\n%s", works, strings.Join(found, "\n"))
					}
				})
			})
		})
	}
}

func TestTrialsOfBrokenSecureServers(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	good := a.issue("server", nil)
	expired := a.issue("expired", func(c *x509.Certificate) { c.NotAfter = time.Now().AddDate(0, 0, -1) })
	elsewhere := a.issue("elsewhere", func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"other.example.com"} })
	trust := a.file("ca.crt")
	for name, c := range map[string]struct {
		pair tls.Certificate
		ca   string
		text string
		want string
	}{
		"good":              {good, trust, "", "tls ok TLS 1.3, the certificate is valid until " + good.Leaf.NotAfter.Format(time.DateOnly)},
		"a wrong authority": {good, other.file("ca.crt"), "", "tls FAILED the certificate of 127.0.0.1:"},
		"expired":           {expired, trust, "", "expired on " + expired.Leaf.NotAfter.Format(time.DateOnly)},
		"a wrong name":      {elsewhere, trust, "", `is for another name than "127.0.0.1"`},
		"no TLS":            {tls.Certificate{}, trust, "220 mail.example.com ESMTP\r\n", "does not speak TLS"},
	} {
		t.Run(name, func(t *testing.T) {
			bothProtocols(t, func(t *testing.T, protocol int) {
				leak.Check(t)
				var cfg *tls.Config
				if c.text == "" {
					cfg = &tls.Config{Certificates: []tls.Certificate{c.pair}}
				}
				trial := trialOf(protocol)
				trial.Config.TLS.CA = c.ca
				s := &strange{text: c.text}
				works, found := try(t, trial, "tls://"+serveOn(t, cfg, s.serve(t, protocol)))
				if all := strings.Join(found, "\n"); works != (name == "good") || !strings.Contains(all, c.want) || strings.Contains(all, "FAILED") == works {
					t.Errorf("works: %v\n%s\nwant %q", works, all, c.want)
				}
			})
		})
	}
}

// A real server, with a bridge that is up, which does not notice.
func TestTrialBesideTheBridge(t *testing.T) {
	bothProtocols(t, func(t *testing.T, protocol int) {
		leak.Check(t)
		server := newMosquitto(t)
		cfg := testConfig()
		cfg.Protocol, cfg.Servers = protocol, []string{"tcp://" + server.Addr}
		cfg.In = []Rule{{Topics: []string{"command/#"}}}
		local := newLocal(numbered(1)...)
		r := newRig(t, cfg, local, new(net.Dialer).DialContext).start()
		<-local.empty()
		trial := &Trial{Config: r.cfg, Gateway: "pump-house"}
		for range 3 {
			if works, found := try(t, trial, cfg.Servers[0]); !works {
				t.Errorf("found\n%s", strings.Join(found, "\n"))
			}
		}
		local.add(numbered(1)...)
		<-local.empty()
		s := r.Status()
		r.end()
		if s.Connects != 1 || s.In != (Downward{}) {
			t.Errorf("the status is %+v", s)
		}
	})
}

// Without rules for out nothing is sent, and without any for in the echo is still
// heard.
func TestTrialOfOneWay(t *testing.T) {
	bothProtocols(t, func(t *testing.T, protocol int) {
		synctest.Test(t, func(t *testing.T) {
			for name, want := range map[string]string{"out": "dns tcp connect subscribe echo will", "in": "dns tcp connect subscribe"} {
				s, trial := &strange{}, trialOf(protocol)
				serve := s.serve(t, protocol)
				trial.dial = piped(t, func(_ int, _ string, u upstream) { serve(u) })
				if name == "out" {
					trial.Config.In = nil
				} else {
					trial.Config.Out = nil
				}
				var steps []string
				works := trial.Run(t.Context(), "tcp://192.0.2.7", func(f Finding) { steps = append(steps, string(f.Step)) })
				synctest.Wait()
				if !works || strings.Join(steps, " ") != want {
					t.Errorf("%s: %v", name, steps)
				}
			}
		})
	})
}
