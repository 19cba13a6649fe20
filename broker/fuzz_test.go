package broker

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"tidegate/broker/auth"
	"tidegate/mqtt"
	"tidegate/mqtt/packet"
	"tidegate/store"
)

// script is a connection whose other side says what is written down, in pieces of
// the sizes that stand before it, and then goes away. What it is told is kept.
type script struct {
	net.Conn // nil: nothing else is called
	sizes    []byte
	in       []byte
	out      bytes.Buffer
}

func (s *script) Read(b []byte) (int, error) {
	if len(s.in) == 0 {
		return 0, io.EOF
	}
	n := len(s.in)
	if len(s.sizes) > 0 {
		n, s.sizes = int(s.sizes[0])+1, s.sizes[1:]
	}
	n = copy(b, s.in[:min(n, len(s.in))])
	s.in = s.in[n:]
	return n, nil
}

func (s *script) Write(b []byte) (int, error)    { return s.out.Write(b) }
func (*script) Close() error                     { return nil }
func (*script) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (*script) SetReadDeadline(time.Time) error  { return nil }
func (*script) SetWriteDeadline(time.Time) error { return nil }

// Each of a fuzzed broker's bounds is small enough to be met.
const (
	fuzzedSessions = 200
	fuzzedRetained = 20
	fuzzedPacket   = 16 << 10
	fuzzedHeap     = 256 << 20 // bytes in use, whatever was sent
	fuzzedRounds   = 2000      // connections that one broker has to bear
)

// fuzzed is a broker for fuzzing. It is replaced when it has borne enough, so that
// what sessions have left behind does not hide the rest.
type fuzzed struct {
	b     *Broker
	left  int
	close func(t testing.TB)
}

func (z *fuzzed) ready(t testing.TB) {
	if z.left > 0 {
		z.left--
		return
	}
	if z.close != nil {
		z.close(t)
	}
	dir, err := os.MkdirTemp("", "fuzz")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	st, err := store.Open(dir, store.Options{Log: log})
	if err != nil {
		t.Fatal(err)
	}
	var cfg Config
	cfg.SetDefaults()
	cfg.Listeners = nil
	cfg.Limits.MaxSessions, cfg.Limits.MaxRetained, cfg.Limits.MaxPacketSize = fuzzedSessions, fuzzedRetained, fuzzedPacket
	hooks := Hooks{Methods: map[string]auth.Method{"m": word(map[string]string{"sesame": "alice"})}}
	b, err := New(cfg, Options{Store: st, Log: log, Hooks: hooks})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- b.Serve(ctx) }()
	z.b, z.left = b, fuzzedRounds
	z.close = func(t testing.TB) {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		b.balance(t)
		if err := st.Close(); err != nil {
			t.Errorf("close the store: %v", err)
		}
		os.RemoveAll(dir)
	}
}

// FuzzConnection plays a whole connection. Whatever a client says, in whatever
// pieces: nothing panics, nothing of it runs on, it is told nothing but lawful
// packets, the first of which is a CONNACK or the step before one, and it cannot
// make more of anything than the bounds allow.
func FuzzConnection(f *testing.F) {
	for _, s := range conversations() {
		f.Add([]byte{0, 0, 3}, s)
		f.Add([]byte(nil), s)
	}
	z := new(fuzzed)
	f.Cleanup(func() {
		if z.close != nil {
			z.close(f)
		}
	})
	f.Fuzz(func(t *testing.T, sizes, in []byte) {
		z.ready(t)
		if len(in) > 4*fuzzedPacket {
			return
		}
		s := &script{sizes: sizes, in: in}
		z.b.ServeConn(s) // returns when all that it has started has ended
		checkTold(t, versionOf(in), s.out.Bytes())
		st := z.b.Status()
		if st.Connections != 0 || st.Sessions > fuzzedSessions || st.Retained > fuzzedRetained {
			t.Errorf("a connection that is over leaves %+v", st)
		}
		if z.left%500 == 0 {
			checkHeap(t)
		}
	})
}

func checkHeap(t *testing.T) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if m.HeapAlloc > fuzzedHeap {
		runtime.GC()
		if runtime.ReadMemStats(&m); m.HeapAlloc > fuzzedHeap {
			t.Errorf("%d MiB are in use", m.HeapAlloc>>20)
		}
	}
}

// versionOf is the version that the CONNECT at the start of in asks for, or 0.
func versionOf(in []byte) packet.Version {
	f, n, _, err := packet.Split(in, packet.MaxSize)
	var p packet.Connect
	if err != nil || n == 0 || f.Type() != packet.TypeConnect {
		return 0
	}
	_ = p.Decode(f) // a wrong one is answered in its version
	return p.Version
}

// checkTold checks what a client was told.
func checkTold(t *testing.T, v packet.Version, out []byte) {
	r := packet.NewReader(bytes.NewReader(out), packet.MaxSize)
	if v == packet.V5 {
		r.Version = v
	}
	for i := 0; ; i++ {
		f, err := r.Next()
		if err == io.EOF {
			return
		}
		if err == nil {
			err = decodeTold(f)
		}
		if err != nil {
			t.Fatalf("packet %d in %x: %v", i, out, err)
		}
		if i == 0 && f.Type() != packet.TypeConnack && f.Type() != packet.TypeAuth {
			t.Fatalf("the first packet is a %s", f.Type())
		}
	}
}

// decodeTold decodes a packet that the broker has sent, of its version.
func decodeTold(f packet.Frame) error {
	var p interface{ Decode(packet.Frame) error }
	switch f.Type() {
	case packet.TypeConnack:
		p = new(packet.Connack)
	case packet.TypePublish:
		p = new(packet.Publish)
	case packet.TypeSuback:
		p = &packet.Suback{Version: f.Version}
	case packet.TypePingresp:
		p = packet.Pingresp{}
	case packet.TypeAuth:
		p = new(packet.Auth)
	case packet.TypeDisconnect:
		p = new(packet.Disconnect5)
	case packet.TypeUnsuback:
		p = new(packet.Ack)
		if f.Version == packet.V5 {
			p = new(packet.Unsuback)
		}
	default:
		p = new(packet.Ack)
	}
	return p.Decode(f)
}

// conversations are what clients have to say: one of each kind of packet, in each
// version, and some of the traps.
func conversations() (list [][]byte) {
	for _, v := range []packet.Version{packet.V31, packet.V311, packet.V5} {
		list = append(list, conversation(v))
	}
	step, again := answerWith("sesame"), packet.Auth{Reason: packet.ReasonReauthenticate, Properties: named("m")}
	connect := packet.Connect{Version: packet.V5, ClientID: "auth", CleanSession: true, Properties: named("m")}
	raw := again.Append(step.Append(connect.Append(nil)))
	list = append(list, step.Append(raw))
	small := packet.Properties(nil).AppendUint(packet.PropMaximumPacketSize, 30).AppendUint(packet.PropReceiveMaximum, 1)
	connect = packet.Connect{Version: packet.V5, ClientID: "small", CleanSession: true, Properties: small}
	sub := packet.Subscribe{Version: packet.V5, ID: 1, Subscriptions: []mqtt.Subscription{{Filter: "#", QoS: 2}, {Filter: "+/" + strings.Repeat("a/", 40)}}}
	pub := packet.Publish{Version: packet.V5, Topic: []byte("a"), Payload: []byte("x"), QoS: 1, ID: 1, Retain: true}
	return append(list, pub.Append(sub.Append(connect.Append(nil))), []byte{0x10, 0xff, 0xff, 0xff, 0x7f}, nil)
}

func conversation(v packet.Version) []byte {
	connect := packet.Connect{
		Version: v, ClientID: "x", KeepAlive: 60, HasUsername: true, Username: "u", Password: []byte("p"),
		Will: &packet.Will{Topic: "will", Payload: []byte("gone"), QoS: 1, Retain: true},
	}
	if v == packet.V5 {
		connect.Properties = packet.Properties(nil).AppendUint(packet.PropSessionExpiry, 60).AppendUint(packet.PropTopicAliasMaximum, 5)
	}
	raw := connect.Append(nil)
	sub := packet.Subscribe{Version: v, ID: 1, Subscriptions: []mqtt.Subscription{{Filter: "a/#", QoS: 2}, {Filter: "$SYS/+"}, {Filter: "$share/g/a"}}}
	raw = sub.Append(raw)
	for q := mqtt.AtMostOnce; q <= mqtt.ExactlyOnce; q++ {
		p := packet.Publish{Version: v, Topic: []byte("a/b"), Payload: []byte("hello"), QoS: q, Retain: q == 1}
		if q > 0 {
			p.ID = uint16(q)
		}
		raw = p.Append(raw)
	}
	for _, typ := range []packet.Type{packet.TypePubrel, packet.TypePuback, packet.TypePubrec, packet.TypePubcomp} {
		a := packet.Ack{Type: typ, ID: 2}
		raw = a.Append(raw)
	}
	unsub := packet.Unsubscribe{Version: v, ID: 3, Filters: []string{"a/#", "b"}}
	raw = packet.Pingreq{}.Append(unsub.Append(raw))
	if v == packet.V5 {
		return (&packet.Disconnect5{Reason: packet.ReasonDisconnectWithWill}).Append(raw)
	}
	return packet.Disconnect{}.Append(raw)
}
