package bridge

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/gorilla/websocket"

	"tidegate/internal/clock"
	"tidegate/internal/leak"
	"tidegate/internal/units"
)

// authority signs certificates; what it has is in files, too.
type authority struct {
	t    *testing.T
	dir  string
	key  *ecdsa.PrivateKey
	root *x509.Certificate
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{t: t, dir: t.TempDir(), key: key}
	a.root = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().AddDate(-2, 0, 0), NotAfter: time.Now().AddDate(10, 0, 0), KeyUsage: x509.KeyUsageCertSign,
	}
	a.write("ca.crt", "CERTIFICATE", a.sign(a.root, key))
	return a
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

func (a *authority) sign(c *x509.Certificate, key *ecdsa.PrivateKey) []byte {
	a.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, c, a.root, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return der
}

func (a *authority) write(name, kind string, der []byte) {
	a.t.Helper()
	if err := os.WriteFile(a.file(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// issue writes NAME.crt and NAME.key for 127.0.0.1; change, if not nil, changes
// the certificate.
func (a *authority) issue(name string, change func(*x509.Certificate)) tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{{127, 0, 0, 1}},
		NotBefore: time.Now().AddDate(-1, 0, 0), NotAfter: time.Now().AddDate(1, 0, 0), KeyUsage: x509.KeyUsageDigitalSignature,
	}
	if change != nil {
		change(c)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name+".key", "PRIVATE KEY", der)
	a.write(name+".crt", "CERTIFICATE", a.sign(c, key))
	pair, err := tls.LoadX509KeyPair(a.file(name+".crt"), a.file(name+".key"))
	if err != nil {
		a.t.Fatal(err)
	}
	return pair
}

// clientPool is what a server trusts that wants certificates.
func (a *authority) clientPool() *x509.CertPool {
	text, _ := os.ReadFile(a.file("ca.crt"))
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	return pool
}

// serveOn hands each connection of a listener to serve until the test has ended,
// and returns where it listens.
func serveOn(t *testing.T, cfg *tls.Config, serve func(net.Conn)) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = l.Addr().String()
	if cfg != nil {
		l = tls.NewListener(l, cfg)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		serving.Wait()
	})
	return address
}

// serveMQTT is a server that accepts and acknowledges everything.
func serveMQTT(t *testing.T) func(net.Conn) {
	return func(c net.Conn) { upstream{t, c}.serve() }
}

// serveWeb is the same in WebSocket. All other paths but /mqtt are unknown.
func serveWeb(t *testing.T) func(net.Conn) {
	return func(c net.Conn) {
		done := make(chan struct{})
		end := sync.OnceFunc(func() { close(done) })
		mux := http.NewServeMux()
		mux.HandleFunc("/mqtt", func(w http.ResponseWriter, r *http.Request) {
			defer end()
			up := websocket.Upgrader{Subprotocols: []string{"mqtt"}}
			ws, err := up.Upgrade(w, r, nil)
			if err != nil {
				return
			}
			defer ws.Close()
			if ws.Subprotocol() != "mqtt" {
				t.Errorf("the subprotocol is %q", ws.Subprotocol())
			}
			upstream{t, &webSocketConn{Conn: c, raw: c, ws: ws}}.serve()
		})
		server := &http.Server{Handler: mux, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0), ConnState: func(_ net.Conn, s http.ConnState) {
			if s == http.StateClosed {
				end()
			}
		}}
		_ = server.Serve(&oneConn{conn: c})
		<-done
	}
}

// oneConn is a listener that has one connection.
type oneConn struct {
	conn net.Conn
	once sync.Once
}

func (l *oneConn) Accept() (c net.Conn, err error) {
	err = net.ErrClosed
	l.once.Do(func() { c, err = l.conn, nil })
	return c, err
}
func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return l.conn.LocalAddr() }

func secureRig(t *testing.T, server string, tls TLS, local *fakeLocal) *rig {
	t.Helper()
	cfg := testConfig()
	cfg.Servers, cfg.TLS = []string{server}, tls
	cfg.Backoff = Backoff{units.Duration(time.Millisecond), units.Duration(2 * time.Millisecond)}
	var dialer net.Dialer
	return newRig(t, cfg, local, dialer.DialContext).start()
}

func TestEveryKindOfServer(t *testing.T) {
	a := newAuthority(t)
	pair := a.issue("server", nil)
	a.issue("gateway", nil)
	plain := &tls.Config{Certificates: []tls.Certificate{pair}}
	mutual := &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: a.clientPool()}
	trust := TLS{CA: a.file("ca.crt")}
	both := TLS{CA: a.file("ca.crt"), Cert: a.file("gateway.crt"), Key: a.file("gateway.key")}
	for name, c := range map[string]struct {
		server *tls.Config
		serve  func(*testing.T) func(net.Conn)
		scheme string
		tls    TLS
	}{
		"tls":                  {plain, serveMQTT, "tls://", trust},
		"tls, both ways":       {mutual, serveMQTT, "tls://", both},
		"WebSocket":            {nil, serveWeb, "ws://", TLS{}},
		"WebSocket in tls":     {plain, serveWeb, "wss://", trust},
		"WebSocket, both ways": {mutual, serveWeb, "wss://", both},
	} {
		t.Run(name, func(t *testing.T) {
			leak.Check(t)
			local := newLocal(numbered(300)...)
			r := secureRig(t, c.scheme+serveOn(t, c.server, c.serve(t)), c.tls, local)
			<-local.empty()
			if s := r.Status(); s.Acknowledged != 300 || s.Connects != 1 {
				t.Errorf("the status is %+v", s)
			}
			r.end()
		})
	}
}

// Each broken server is named for what it is, in words that say what to do.
func TestBrokenSecureServers(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	good, trust := a.issue("server", nil), TLS{CA: a.file("ca.crt")}
	with := func(pair tls.Certificate) *tls.Config { return &tls.Config{Certificates: []tls.Certificate{pair}} }
	mutual := &tls.Config{Certificates: []tls.Certificate{good}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: a.clientPool()}
	other.issue("stranger", nil)
	expired := a.issue("expired", func(c *x509.Certificate) { c.NotAfter = time.Now().AddDate(0, 0, -1) })
	early := a.issue("early", func(c *x509.Certificate) { c.NotBefore = time.Now().AddDate(0, 0, 2) })
	elsewhere := a.issue("elsewhere", func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"other.example.com"} })
	closes := func(*testing.T) func(net.Conn) { return func(net.Conn) {} }
	text := func(*testing.T) func(net.Conn) {
		return func(c net.Conn) { fmt.Fprint(c, "220 mail.example.com ESMTP\r\n"); _, _ = c.Read(make([]byte, 512)) }
	}
	for name, c := range map[string]struct {
		server *tls.Config
		serve  func(*testing.T) func(net.Conn)
		url    string
		tls    TLS
		want   string
	}{
		"wrong authority":        {with(good), serveMQTT, "tls://%s", TLS{CA: other.file("ca.crt")}, "signed by nobody this gateway trusts: write the file with the server's authority at tls.ca"},
		"expired":                {with(expired), serveMQTT, "tls://%s", trust, "expired on " + expired.Leaf.NotAfter.Format(time.DateOnly) + ": whoever runs the server must renew it"},
		"not valid yet":          {with(early), serveMQTT, "tls://%s", trust, "set the clock"},
		"wrong name":             {with(elsewhere), serveMQTT, "tls://%s", trust, `is for another name than "127.0.0.1": write the right name in servers, or at tls.server_name`},
		"no client certificate":  {mutual, serveMQTT, "tls://%s", trust, "does not accept this gateway's certificate, or wants one: check tls.cert and tls.key"},
		"none in WebSocket":      {mutual, serveWeb, "wss://%s", trust, "does not accept this gateway's certificate, or wants one: check tls.cert and tls.key"},
		"strange certificate":    {mutual, serveMQTT, "tls://%s", TLS{a.file("ca.crt"), other.file("stranger.crt"), other.file("stranger.key"), ""}, "check tls.cert and tls.key"},
		"not TLS":                {nil, text, "tls://%s", trust, "does not speak TLS"},
		"closes during TLS":      {nil, closes, "tls://%s", trust, "closes the connection during the TLS handshake"},
		"TLS where none is said": {with(good), serveMQTT, "tcp://%s", TLS{}, "is this an MQTT port without TLS"},
		"no file":                {with(good), serveMQTT, "tls://%s", TLS{CA: a.file("none.crt")}, "read tls.ca"},
		"no certificate in file": {with(good), serveMQTT, "tls://%s", TLS{CA: a.file("server.key")}, "has no certificate in PEM format"},
		"wrong path":             {nil, serveWeb, "ws://%s/elsewhere", TLS{}, "has nothing at /elsewhere: write the path of MQTT behind the port"},
		"not a web server":       {nil, text, "ws://%s", TLS{}, "does not open a WebSocket"},
	} {
		t.Run(name, func(t *testing.T) {
			leak.Check(t)
			s := &streams{dial: new(net.Dialer).DialContext, tls: c.tls}
			client := pahoClient{keepalive: 30 * time.Second, stallTimeout: 30 * time.Second, streams: s, clientID: "gateway"}
			l, err := client.open(t.Context(), fmt.Sprintf(c.url, serveOn(t, c.server, c.serve(t))))
			if err == nil {
				l.close()
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// A certificate may name the server although its URL does not.
func TestServerName(t *testing.T) {
	leak.Check(t)
	a := newAuthority(t)
	pair := a.issue("elsewhere", func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"other.example.com"} })
	address := serveOn(t, &tls.Config{Certificates: []tls.Certificate{pair}}, serveMQTT(t))
	local := newLocal(numbered(1)...)
	r := secureRig(t, "tls://"+address, TLS{CA: a.file("ca.crt"), ServerName: "other.example.com"}, local)
	<-local.empty()
	r.end()
}

// A server that stops reading inside TLS holds nobody up.
func TestStoppingWhileASecureServerDoesNotRead(t *testing.T) {
	leak.Check(t)
	a := newAuthority(t)
	release := make(chan struct{})
	address := serveOn(t, &tls.Config{Certificates: []tls.Certificate{a.issue("server", nil)}}, func(c net.Conn) {
		upstream{t, c}.accept(packets.Accepted)
		<-release
	})
	r := secureRig(t, "tls://"+address, TLS{CA: a.file("ca.crt")}, newLocal(large(200)...))
	awaitStuck(r)
	r.endsInTime()
	close(release)
}

// A board that starts in 1970 without a network time checks certificates at the
// latest time that it knows to have passed.
func TestABoardWithoutAClockConnects(t *testing.T) {
	a := newAuthority(t)
	cert := a.issue("server", nil)
	address := serveOn(t, &tls.Config{Certificates: []tls.Certificate{cert}}, func(conn net.Conn) {
		upstream{t, conn}.serve()
	})
	c, _ := clock.NewTest(t, -30*365*24*time.Hour)
	e, err := parseServer("tls://" + address)
	if err != nil {
		t.Fatal(err)
	}
	s := streams{dial: (&net.Dialer{}).DialContext, tls: TLS{CA: a.file("ca.crt")}, now: c.Floor}
	if _, err := s.open(t.Context(), e); err == nil || !strings.Contains(err.Error(), "set the clock") {
		t.Errorf("in the last century: %v", err)
	}
	c.Raise(time.Now().AddDate(0, -1, 0)) // it has been right a month ago
	conn, err := s.open(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}
