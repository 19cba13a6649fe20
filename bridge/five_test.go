package bridge

import (
	"bytes"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	packets5 "github.com/eclipse/paho.golang/packets"
	paho5 "github.com/eclipse/paho.golang/paho"

	"tidegate/internal/leak"
	"tidegate/mqtt"
)

// upstream5 is one connection of a scripted server that speaks MQTT 5.
type upstream5 struct {
	t testing.TB
	net.Conn
}

// accept reads CONNECT and answers it; change, if not nil, changes the answer.
func (u upstream5) accept(change func(*packets5.Connack)) *packets5.Connect {
	p, _ := u.read().(*packets5.Connect)
	if p == nil {
		return nil
	}
	answer := packets5.NewControlPacket(packets5.CONNACK)
	if change != nil {
		change(answer.Content.(*packets5.Connack))
	}
	_, _ = answer.WriteTo(u)
	return p
}

// read returns the next packet but pings, which it answers, or nil.
func (u upstream5) read() packets5.Packet {
	for {
		p, err := packets5.ReadPacket(u)
		if err != nil {
			return nil
		}
		if p.Type != packets5.PINGREQ {
			return p.Content
		}
		_, _ = packets5.NewControlPacket(packets5.PINGRESP).WriteTo(u)
	}
}

func (u upstream5) ack(p *packets5.Publish, reason byte) {
	answer := packets5.NewControlPacket(packets5.PUBACK)
	answer.Content.(*packets5.Puback).PacketID = p.PacketID
	answer.Content.(*packets5.Puback).ReasonCode = reason
	_, _ = answer.WriteTo(u)
}

// serve accepts and acknowledges everything, and returns it with the aliases
// resolved.
func (u upstream5) serve(change func(*packets5.Connack)) (got []*packets5.Publish) {
	u.accept(change)
	topics := make(map[uint16]string)
	for {
		p, ok := u.read().(*packets5.Publish)
		if !ok {
			return got
		}
		if alias := p.Properties.TopicAlias; alias != nil && p.Topic == "" {
			p.Topic = topics[*alias]
		} else if alias != nil {
			topics[*alias] = p.Topic
		}
		got = append(got, p)
		if p.QoS > 0 {
			u.ack(p, packets5.PubackSuccess)
		}
	}
}

func config5() Config {
	cfg := testConfig()
	cfg.Protocol = 5
	return cfg
}

func piped5(t testing.TB, script func(n int, address string, u upstream5)) dialFunc {
	return piped(t, func(n int, address string, u upstream) { script(n, address, upstream5(u)) })
}

func TestProtocol5CarriesWhatAMessageHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		message := mqtt.Message{
			Topic: "sensor/a", Payload: []byte("x"), QoS: mqtt.AtLeastOnce, Retain: true, Expiry: 90 * time.Second,
			Properties: &mqtt.Properties{
				UTF8: true, ContentType: "text/plain", ResponseTopic: "answer", CorrelationData: []byte{0, 1},
				User: []mqtt.UserProperty{{Name: "k", Value: "1"}, {Name: "k", Value: "2"}},
			},
		}
		local, got := newLocal(message, readings(1)[0]), make(chan []*packets5.Publish, 1)
		r := newRig(t, config5(), local, piped5(t, func(_ int, _ string, u upstream5) { got <- u.serve(nil) })).start()
		<-local.empty()
		r.end()
		list := <-got
		if len(list) != 2 {
			t.Fatalf("the server got %v", list)
		}
		p, props := list[0], list[0].Properties
		if p.Topic != "site/sensor/a" || string(p.Payload) != "x" || !p.Retain || *props.MessageExpiry != 90 ||
			*props.PayloadFormat != 1 || props.ContentType != "text/plain" || props.ResponseTopic != "answer" ||
			!bytes.Equal(props.CorrelationData, []byte{0, 1}) || !slices.Equal(props.User, []packets5.User{{Key: "k", Value: "1"}, {Key: "k", Value: "2"}}) {
			t.Errorf("the server got %v", p)
		}
		if p := list[1].Properties; p.MessageExpiry != nil || p.PayloadFormat != nil || len(p.User) > 0 || list[1].Retain {
			t.Errorf("the plain message became %v", list[1])
		}
	})
}

func TestProtocol5TellsTheServerWhatItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg, connects := config5(), make(chan *packets5.Connect, 1)
		cfg.Username, cfg.Password = "pump", "secret"
		r := newRig(t, cfg, newLocal(), piped5(t, func(_ int, _ string, u upstream5) {
			connects <- u.accept(nil)
			u.read()
		})).start()
		p := <-connects
		r.end()
		if p.ProtocolVersion != 5 || p.ClientID != "tidegate-pump-house-cloud" || p.Username != "pump" || string(p.Password) != "secret" ||
			!p.CleanStart || p.KeepAlive != 30 || *p.Properties.ReceiveMaximum != receive5 || *p.Properties.MaximumPacketSize != 1<<20 {
			t.Errorf("CONNECT is %v", p)
		}
	})
}

func TestProtocol5SendsTopicsAsNumbersIfItMay(t *testing.T) {
	for _, most := range []uint16{0, 2, 1000} {
		synctest.Test(t, func(t *testing.T) {
			var messages []mqtt.Message
			for i := range 900 {
				messages = append(messages, mqtt.Message{Topic: fmt.Sprintf("sensor/%d", i%300), Payload: []byte("x"), QoS: mqtt.AtLeastOnce})
			}
			local, got := newLocal(messages...), make(chan []*packets5.Publish, 1)
			r := newRig(t, config5(), local, piped5(t, func(_ int, _ string, u upstream5) {
				got <- u.serve(func(a *packets5.Connack) { a.Properties.TopicAliasMaximum = &most })
			})).start()
			<-local.empty()
			r.end()
			numbers := make(map[uint16]bool)
			for i, p := range <-got {
				if p.Topic != "site/"+messages[i].Topic {
					t.Fatalf("message %d arrived on %q", i, p.Topic)
				}
				if alias := p.Properties.TopicAlias; alias != nil {
					numbers[*alias] = true
				}
			}
			if want := min(int(most), maxAliases); len(numbers) != want {
				t.Errorf("%d numbers are in use, want %d", len(numbers), want)
			}
		})
	}
}

// What is larger than the server takes is put aside without being sent, and leaves no trace: the
// next one tells the server what its topic's number is.
func TestProtocol5KeepsWithinTheServersPacketSize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most, header = 100, 1 + 1 + 2 + len("site/sensor/b") + 2 + 1 + 3 // with a topic alias
		reading := func(size int) mqtt.Message {
			return mqtt.Message{Topic: "sensor/b", Payload: make([]byte, size), QoS: mqtt.AtLeastOnce}
		}
		local := newLocal(reading(most-header+1), reading(most-header), reading(most-header+len("site/sensor/b")), reading(most))
		got := make(chan []*packets5.Publish, 1)
		r := newRig(t, config5(), local, piped5(t, func(_ int, _ string, u upstream5) {
			got <- u.serve(func(a *packets5.Connack) {
				a.Properties.MaximumPacketSize, a.Properties.TopicAliasMaximum = paho5.Uint32(most), paho5.Uint16(10)
			})
		})).start()
		<-local.empty()
		synctest.Wait()
		r.end()
		var sizes []int
		for _, p := range <-got {
			if sizes = append(sizes, len(p.Payload)); p.Topic != "site/sensor/b" {
				t.Errorf("a message arrives on %q", p.Topic)
			}
		}
		if want := []int{77, 90}; !slices.Equal(sizes, want) || local.dead.left() != 2 {
			t.Errorf("messages of %d bytes arrive, want %d, and %d are put aside, want 2", sizes, want, local.dead.left())
		}
	})
}

func TestRefusalsOfProtocol5SayWhatToDo(t *testing.T) {
	zero := byte(0)
	refuse := func(reason byte) func(*packets5.Connack) {
		return func(a *packets5.Connack) { a.ReasonCode, a.Properties.ReasonString = reason, "says the server" }
	}
	for name, c := range map[string]struct {
		script func(u upstream5)
		want   string
	}{
		"bad password":   {func(u upstream5) { u.accept(refuse(0x86)) }, `one:1883 refuses user "pump", bad user name or password: check both ("says the server"): check username and password_file`},
		"not authorised": {func(u upstream5) { u.accept(refuse(0x87)) }, `one:1883 refuses user "pump" with client id "tidegate-pump-house-cloud", not authorised`},
		"client id":      {func(u upstream5) { u.accept(refuse(0x85)) }, `set client_id to one that it allows`},
		"not version 5":  {func(u upstream5) { u.accept(refuse(0x84)) }, `write protocol: 4`},
		"busy":           {func(u upstream5) { u.accept(refuse(0x89)) }, `refuses for now, server busy`},
		"QoS 0 only":     {func(u upstream5) { u.accept(func(a *packets5.Connack) { a.Properties.MaximumQOS = &zero }); u.read() }, `takes messages at QoS 0 only`},
		"closes":         {func(u upstream5) { u.read() }, `closes the connection instead of answering CONNECT`},
		"answers in 4":   {func(u upstream5) { u.read(); _, _ = u.Write([]byte{0x20, 2, 0, 1}) }, `does the server speak MQTT 5 (else write protocol: 4)`},
		"not MQTT":       {func(u upstream5) { u.read(); _, _ = u.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")) }, `is this an MQTT port`},
		"no answer":      {func(u upstream5) { u.read(); u.read() }, `does not answer CONNECT within 10s`},
		"does not read":  {func(u upstream5) { time.Sleep(time.Minute) }, `does not answer CONNECT within 10s`},
		"taken over": {func(u upstream5) {
			u.accept(nil)
			p := packets5.NewControlPacket(packets5.DISCONNECT)
			p.Content.(*packets5.Disconnect).ReasonCode = 0x8e
			_, _ = p.WriteTo(u)
			u.read()
		}, `another client uses the client id "tidegate-pump-house-cloud": give each its own`},
		"shuts down": {func(u upstream5) {
			u.accept(nil)
			p := packets5.NewControlPacket(packets5.DISCONNECT)
			p.Content.(*packets5.Disconnect).ReasonCode = 0x8b
			_, _ = p.WriteTo(u)
			u.read()
		}, `tcp://one:1883 ended the connection: server shutting down`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := config5()
				cfg.Username = "pump"
				r := newRig(t, cfg, newLocal(), piped5(t, func(_ int, _ string, u upstream5) { c.script(u) })).start()
				time.Sleep(10*time.Second + time.Millisecond) // virtual
				s := r.Status()
				r.end()
				time.Sleep(time.Minute) // the script's
				if !strings.Contains(s.Error, c.want) {
					t.Errorf("the error is %q, want %q", s.Error, c.want)
				}
			})
		})
	}
}

func TestProtocol5LeavesSilentAndStalledServers(t *testing.T) {
	for name, c := range map[string]struct {
		owed int
		want string
	}{
		"silent":                    {0, "was silent for 45s in spite of pings"},
		"acknowledges nothing":      {3, "accepts but acknowledges nothing for 30s"},
		"more than it acknowledges": {300, "accepts but acknowledges nothing for 30s"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, config5(), newLocal(readings(c.owed)...), piped5(t, func(_ int, _ string, u upstream5) {
					u.accept(nil)
					for {
						p, err := packets5.ReadPacket(u)
						if err != nil {
							return
						}
						if p.Type == packets5.PINGREQ && c.owed > 0 {
							_, _ = packets5.NewControlPacket(packets5.PINGRESP).WriteTo(u)
						}
					}
				})).start()
				time.Sleep(46 * time.Second) // virtual
				s := r.Status()
				r.end()
				if !strings.Contains(s.Error, c.want) {
					t.Errorf("the error is %q, want %q", s.Error, c.want)
				}
			})
		})
	}
}

// A connection may end at any byte, with any number of messages under way, and
// leaves nothing behind.
func TestAConnectionOfProtocol5MayEndAnywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const connections = 200
		local, n := newLocal(readings(connections)...), 0
		serve := piped5(t, func(_ int, _ string, u upstream5) { u.serve(nil) })
		r := newRig(t, config5(), local, cutting(serve, connections, &n)).start()
		<-local.empty()
		r.end()
	})
}

// Commands come down in MQTT 5, at QoS 1 and 2, and are acknowledged.
func TestProtocol5BringsCommandsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg, keeper := config5(), &kept{}
		cfg.In = []Rule{{Topics: []string{"command/#"}, QoS: qos(2)}}
		local, answers := newLocal(), make(chan string, 10)
		local.keep = keeper.keep
		r := newRig(t, cfg, local, piped5(t, func(_ int, _ string, u upstream5) {
			if p := u.accept(nil); p.CleanStart || *p.Properties.SessionExpiryInterval != neverExpires {
				t.Errorf("CONNECT is %v", p)
			}
			sub := u.read().(*packets5.Subscribe)
			if s := sub.Subscriptions[0]; s.Topic != "command/#" || s.QoS != 2 || !s.NoLocal || !s.RetainAsPublished {
				t.Errorf("SUBSCRIBE is %v", sub)
			}
			suback := packets5.NewControlPacket(packets5.SUBACK)
			suback.Content.(*packets5.Suback).PacketID, suback.Content.(*packets5.Suback).Reasons = sub.PacketID, []byte{2}
			_, _ = suback.WriteTo(u)
			for id := byte(1); id <= 2; id++ {
				p := packets5.NewControlPacket(packets5.PUBLISH)
				c := p.Content.(*packets5.Publish)
				c.QoS, c.PacketID, c.Topic, c.Payload = id, uint16(id), "command/pump", []byte("on")
				_, _ = p.WriteTo(u)
				answers <- fmt.Sprintf("%T", u.read())
			}
			release := packets5.NewControlPacket(packets5.PUBREL)
			release.Content.(*packets5.Pubrel).PacketID = 2
			_, _ = release.WriteTo(u)
			answers <- fmt.Sprintf("%T", u.read())
			u.read()
		})).start()
		for _, want := range []string{"*packets.Puback", "*packets.Pubrec", "*packets.Pubcomp"} {
			if got := <-answers; got != want {
				t.Errorf("the server got %s, want %s", got, want)
			}
		}
		r.end()
		if got, want := keeper.text(), []string{"command/pump on 1", "command/pump on 2"}; !slices.Equal(got, want) {
			t.Errorf("the local broker got %q, want %q", got, want)
		}
	})
}

func TestStoppingProtocol5WhileTheServerDoesNotRead(t *testing.T) {
	leak.Check(t)
	release := make(chan struct{})
	address := serveOn(t, nil, func(c net.Conn) {
		upstream5{t, c}.accept(nil)
		<-release
	})
	cfg := config5()
	cfg.Servers = []string{"tcp://" + address}
	r := newRig(t, cfg, newLocal(large(200)...), new(net.Dialer).DialContext).start()
	awaitStuck(r)
	r.endsInTime()
	close(release)
}
