package broker

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tidegate/mqtt/packet"
)

// pki is a certificate authority with its files: ca.crt, server.crt, server.key.
type pki struct {
	t    *testing.T
	dir  string
	key  *ecdsa.PrivateKey
	root *x509.Certificate
	next int64
}

func newPKI(t *testing.T) *pki {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "tls") // short enough for the path of a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := &pki{t: t, dir: dir, key: key, next: 1}
	p.root = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "the root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().AddDate(-1, 0, 0), NotAfter: time.Now().AddDate(10, 0, 0), KeyUsage: x509.KeyUsageCertSign,
	}
	p.write("ca.crt", "CERTIFICATE", p.sign(p.root, &key.PublicKey))
	p.issue("server", nil)
	return p
}

func (p *pki) file(name string) string { return filepath.Join(p.dir, name) }

func (p *pki) sign(c *x509.Certificate, key *ecdsa.PublicKey) []byte {
	p.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, c, p.root, key, p.key)
	if err != nil {
		p.t.Fatal(err)
	}
	return der
}

func (p *pki) write(name, kind string, der []byte) {
	p.t.Helper()
	if err := os.WriteFile(p.file(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// issue writes NAME.crt and NAME.key; change, if not nil, changes the certificate.
// It returns its serial number.
func (p *pki) issue(name string, change func(*x509.Certificate)) int64 {
	p.t.Helper()
	p.next++
	c := &x509.Certificate{
		SerialNumber: big.NewInt(p.next), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().AddDate(0, 0, -2), NotAfter: time.Now().AddDate(1, 0, 0),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:    []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	if change != nil {
		change(c)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		p.t.Fatal(err)
	}
	p.write(name+".crt", "CERTIFICATE", p.sign(c, &key.PublicKey))
	p.write(name+".key", "PRIVATE KEY", der)
	return p.next
}

// client trusts the authority and has a certificate with the common name cn;
// empty: none.
func (p *pki) client(cn string) *tls.Config {
	p.t.Helper()
	pool, err := readRoots(p.file("ca.crt"))
	if err != nil {
		p.t.Fatal(err)
	}
	cfg := &tls.Config{RootCAs: pool, ServerName: "localhost"}
	if cn != "" {
		p.issue(cn, nil)
		cfg.Certificates = []tls.Certificate{p.pair(cn)}
	}
	return cfg
}

func (p *pki) pair(name string) tls.Certificate {
	p.t.Helper()
	cert, err := tls.LoadX509KeyPair(p.file(name+".crt"), p.file(name+".key"))
	if err != nil {
		p.t.Fatal(err)
	}
	return cert
}

func (p *pki) tls() Listener {
	return Listener{Address: "tls://127.0.0.1:0", Cert: p.file("server.crt"), Key: p.file("server.key")}
}

func (p *pki) mutual() Listener {
	l := p.tls()
	l.ClientCA, l.Identity = p.file("ca.crt"), identityCN
	return l
}

func TestCertificatesAtStart(t *testing.T) {
	p := newPKI(t)
	p.issue("other", nil)
	p.issue("old", func(c *x509.Certificate) { c.NotAfter = time.Now().AddDate(0, 0, -1) })
	p.issue("early", func(c *x509.Certificate) { c.NotBefore = time.Now().AddDate(0, 6, 0) })
	p.write("encrypted.key", "ENCRYPTED PRIVATE KEY", []byte("x"))
	p.write("empty.crt", "CERTIFICATE", nil)
	if err := os.WriteFile(p.file("text"), []byte("no PEM"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ cert, key, ca, want string }{
		{"server.crt", "server.key", "ca.crt", ""},
		{"early.crt", "early.key", "", ""}, // a board without a clock
		{"gone.crt", "server.key", "", "gone.crt: no such file"},
		{"server.crt", "gone.key", "", "gone.key: no such file"},
		{"server.crt", "other.key", "", "private key does not match"},
		{"text", "server.key", "", "text with key"},
		{"old.crt", "old.key", "", "old.crt has expired on "},
		{"server.crt", "encrypted.key", "", "openssl pkey -in " + p.file("encrypted.key")},
		{"server.crt", "server.key", "gone", "gone: no such file"},
		{"server.crt", "server.key", "text", "text holds no certificate"},
		{"server.crt", "server.key", "old.crt", "old.crt: has expired"},
		{"server.crt", "server.key", "server.key", "a PRIVATE KEY that is no certificate"},
	} {
		l := Listener{Cert: p.file(c.cert), Key: p.file(c.key)}
		if c.ca != "" {
			l.ClientCA = p.file(c.ca)
		}
		_, err := newTLSServer(l, time.Second, slog.New(slog.DiscardHandler))
		if got := fmt.Sprint(err); (err == nil) != (c.want == "") || !strings.Contains(got, c.want) && c.want != "" {
			t.Errorf("%s, %s, %s: %v, want %q", c.cert, c.key, c.ca, err, c.want)
		}
	}
}

// serial shakes hands and returns which certificate the broker has shown.
func serial(t *testing.T, addr string, cfg *tls.Config) int64 {
	t.Helper()
	c, err := tls.Dial("tcp", addr, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
}

func TestCertificatesAreReadAgainWhileConnectionsStand(t *testing.T) {
	p := newPKI(t)
	d := newBed(t, func(d *bed) { d.cfg.Listeners = []Listener{p.tls()} })
	addr, cfg := d.b.Addrs()[0].String(), p.client("")
	before := newWire(t, d.reach(d.b.URLs()[0], cfg), clean("before"))
	before.connack(packet.Accepted, false)
	renewed := p.issue("server", nil)
	d.waitFor("new certificate", func() bool { return serial(t, addr, cfg) == renewed })
	before.fence()
}

func TestBrokenCertificatesAreNotUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPKI(t) // whose certificates are valid in the time of the test
		var lines countLines
		s, err := newTLSServer(p.tls(), time.Second, slog.New(&lines))
		if err != nil {
			t.Fatal(err)
		}
		shown := func() int64 {
			cfg, err := s.current(nil)
			if err != nil {
				t.Fatal(err)
			}
			return cfg.Certificates[0].Leaf.SerialNumber.Int64()
		}
		old := shown()
		key, err := os.ReadFile(p.file("server.key"))
		if err != nil {
			t.Fatal(err)
		}
		renewed := p.issue("server", func(c *x509.Certificate) { c.NotAfter = time.Now().AddDate(100, 0, 0) })
		renewedKey, _ := os.ReadFile(p.file("server.key"))
		_ = os.WriteFile(p.file("server.key"), key, 0o600) // the new certificate is there, its key is not yet
		if shown() != old || lines.n != 1 {
			t.Error("the files were looked at within a second")
		}
		for range 10 {
			time.Sleep(time.Second)
			if shown() != old {
				t.Error("a certificate is used without its key")
			}
		}
		if lines.n != 2 || !strings.Contains(lines.last, "the old ones stay in use") {
			t.Errorf("%d lines, %q; want one for the start and one for the failure", lines.n, lines.last)
		}
		_ = os.WriteFile(p.file("server.key"), renewedKey, 0o600)
		time.Sleep(time.Second)
		if got := shown(); got != renewed || lines.n != 3 {
			t.Errorf("certificate %d in use, want %d; %d lines", got, renewed, lines.n)
		}
	})
}

// refused shakes hands and reads; in TLS 1.3 only that tells a client that it
// was refused.
func refused(addr string, cfg *tls.Config) error {
	c, err := tls.Dial("tcp", addr, cfg)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	_, err = c.Read(make([]byte, 1))
	return err
}

func TestMutualTLSRefusals(t *testing.T) {
	p, other := newPKI(t), newPKI(t)
	d := newBed(t, func(d *bed) { d.cfg.Listeners = []Listener{p.mutual()} })
	addr := d.b.Addrs()[0].String()
	with := func(cert tls.Certificate) *tls.Config {
		cfg := p.client("")
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
		return cfg
	}
	p.issue("nameless", func(c *x509.Certificate) { c.Subject = pkix.Name{Organization: []string{"x"}} })
	p.issue("old", func(c *x509.Certificate) { c.NotAfter = time.Now().AddDate(0, 0, -1) })
	p.issue("only-server", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
	other.issue("stranger", nil)
	for name, c := range map[string]struct {
		cfg  *tls.Config
		want string
	}{
		"none":           {p.client(""), "certificate required"},
		"another root's": {with(other.pair("stranger")), "unknown certificate authority"},
		"expired":        {with(p.pair("old")), "expired certificate"},
		"of a server":    {with(p.pair("only-server")), "bad certificate"},
		"without a name": {with(p.pair("nameless")), "EOF"},
	} {
		if err := refused(addr, c.cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("certificate %s: %v, want %q", name, err, c.want)
		}
	}
	d.waitFor("five refusals", func() bool { return d.b.Status().ConnectionsRefused == 5 })
}

func TestCertificateNamesTheUser(t *testing.T) {
	p := newPKI(t)
	d := newBed(t, nil)
	for _, c := range []struct {
		l    Listener
		cn   string
		want caller
	}{
		{p.tls(), "pump", caller{}},
		{Listener{Address: "tls://127.0.0.1:0", Cert: p.file("server.crt"), Key: p.file("server.key"), ClientCA: p.file("ca.crt")}, "pump", caller{certified: true}},
		{p.mutual(), "pump", caller{certified: true, user: "pump"}},
		{everyListener(p)[3], "Pumpe süd", caller{certified: true, user: "Pumpe süd"}},
	} {
		ours, theirs := net.Pipe()
		conn := newConn(d.b, d.wrapper(c.l)(theirs))
		read := make(chan error, 1)
		go func() { read <- conn.t.read(&conn.in) }()
		client := tls.Client(ours, p.client(c.cn))
		if strings.HasPrefix(c.l.Address, "wss") {
			_, _ = io.WriteString(client, upgradeTo("/deep/mqtt"))
			if _, err := client.Read(make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
			_, _ = client.Write([]byte{0x82, 0x81, 0, 0, 0, 0, 'x'})
		} else if _, err := client.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := <-read; err != nil {
			t.Fatal(err)
		}
		if got := conn.caller(); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.l.Address, got, c.want)
		}
		go func() { _, _ = io.Copy(io.Discard, ours) }()
		conn.t.Close()
		conn.in.giveBack()
	}
}

func TestTLSBefore12IsRefused(t *testing.T) {
	p := newPKI(t)
	d := newBed(t, func(d *bed) { d.cfg.Listeners = []Listener{p.tls()} })
	cfg := p.client("")
	cfg.MinVersion, cfg.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	if _, err := tls.Dial("tcp", d.b.Addrs()[0].String(), cfg); err == nil || !strings.Contains(err.Error(), "protocol version not supported") {
		t.Errorf("got %v", err)
	}
}

// A client with a ticket must not get in once its root is gone.
func TestTicketsDoNotOutliveTheirRoot(t *testing.T) {
	p, other := newPKI(t), newPKI(t)
	d := newBed(t, func(d *bed) { d.cfg.Listeners = []Listener{p.mutual()} })
	url, cfg := d.b.URLs()[0], p.client("pump")
	cfg.ClientSessionCache = tls.NewLRUClientSessionCache(0)
	for i := range 2 {
		w := newWire(t, d.reach(url, cfg), clean("x"))
		w.connack(packet.Accepted, false)
		if resumed := w.c.(*tls.Conn).ConnectionState().DidResume; resumed != (i == 1) {
			t.Fatalf("connection %d resumed: %v", i, resumed)
		}
		w.disconnect()
	}
	other.root.Subject.CommonName = "another root"
	roots, err := os.ReadFile(other.file("ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.file("ca.crt"), roots, 0o600); err != nil {
		t.Fatal(err)
	}
	d.waitFor("refusal", func() bool {
		err := refusedWithin(d.b.Addrs()[0].String(), cfg)
		return err != nil && !os.IsTimeout(err)
	})
}

// refusedWithin is refused for a connection that may as well be let in.
func refusedWithin(addr string, cfg *tls.Config) error {
	c, err := tls.Dial("tcp", addr, cfg)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	_, err = c.Read(make([]byte, 1))
	return err
}

// A client that makes the broker write and never reads must not hold up whoever
// ends its connection.
func TestCloseDoesNotWaitForTheClient(t *testing.T) {
	p := newPKI(t)
	synctest.Test(t, func(t *testing.T) {
		s, err := newTLSServer(p.tls(), time.Second, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ours, theirs := net.Pipe()
		server := s.wrap(theirs)
		read := make(chan error, 1)
		go func() { _, err := server.Read(make([]byte, 1)); read <- err }()
		c := tls.Client(ours, &tls.Config{InsecureSkipVerify: true})
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = c.Read(make([]byte, 1)) }() // takes the tickets
		if err := <-read; err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		start := time.Now()
		server.Close()
		if took := time.Since(start); took > parting {
			t.Errorf("took %v", took)
		}
		c.Close()
	})
}
