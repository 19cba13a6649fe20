package broker

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// tlsServer is what the connections of a tls:// or wss:// listener have in
// common. Its certificates are read again when their files change; connections
// that stand keep what they have agreed on.
type tlsServer struct {
	files   Listener
	timeout time.Duration
	log     *slog.Logger
	base    *tls.Config // has the keys of session tickets, which outlive a change of certificates

	mu      sync.Mutex
	cfg     *tls.Config   // what the files said when they were right last
	read    []fs.FileInfo // the files as they were then
	looked  time.Time     // when they were looked at last
	failure string        // why they cannot be used as they are now; empty: they are in use
}

// lookInterval is how long files are taken for unchanged without a look at them.
const lookInterval = time.Second

// newTLSServer reads the certificates of l.
func newTLSServer(l Listener, timeout time.Duration, log *slog.Logger) (*tlsServer, error) {
	t := &tlsServer{files: l, timeout: timeout, log: log.With("listener", l.Address), looked: time.Now()}
	t.base = &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: t.current}
	if err := t.load(); err != nil {
		return nil, err
	}
	return t, nil
}

// current returns what is to be used for the next handshake.
func (t *tlsServer) current(*tls.ClientHelloInfo) (*tls.Config, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now := time.Now(); now.Sub(t.looked) >= lookInterval {
		t.looked = now
		t.reload()
	}
	return t.cfg, nil
}

// reload reads the files if they have changed. If they are not right, the old
// certificates stay, and the files are read again with every look. The caller
// holds mu.
func (t *tlsServer) reload() {
	if t.failure == "" && slices.EqualFunc(t.read, t.files.stat(), sameFile) {
		return
	}
	err := t.load()
	switch {
	case err == nil:
		t.failure = ""
	case err.Error() != t.failure:
		t.failure = err.Error()
		t.log.Error("the certificates were changed and cannot be used; the old ones stay in use", "error", err)
	}
}

// load reads the files. They are looked at first: what changes while they are
// read is found by the next look.
func (t *tlsServer) load() error {
	read := t.files.stat()
	cfg, err := t.files.tlsConfig()
	if err != nil {
		return err
	}
	t.cfg, t.read = cfg, read
	leaf := cfg.Certificates[0].Leaf
	t.log.Info("uses a certificate", "subject", leaf.Subject.String(), "serial", leaf.SerialNumber.String(), "expires", leaf.NotAfter)
	if now := time.Now(); now.Before(leaf.NotBefore) { // a board without a clock may have started
		t.log.Warn("the certificate is not valid yet: is the clock right?", "valid_from", leaf.NotBefore, "clock", now)
	}
	return nil
}

// stat returns the state of the files, nil for one that cannot be looked at.
func (l Listener) stat() []fs.FileInfo {
	var list []fs.FileInfo
	for _, name := range []string{l.Cert, l.Key, l.ClientCA} {
		info, err := os.Stat(name)
		if err != nil {
			info = nil
		}
		list = append(list, info)
	}
	return list
}

// sameFile reports whether a and b are of the same contents, as far as a look
// can tell.
func sameFile(a, b fs.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// tlsConfig reads the files. Its errors name them.
func (l Listener) tlsConfig() (*tls.Config, error) {
	cert, err := l.keyPair()
	if err != nil {
		return nil, err
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}}
	if l.ClientCA != "" {
		cfg.ClientAuth = tls.RequireAndVerifyClientCert
		cfg.ClientCAs, err = readRoots(l.ClientCA)
	}
	return cfg, err
}

// keyPair reads the certificate, with those that lead to its root, and its key.
func (l Listener) keyPair() (tls.Certificate, error) {
	var none tls.Certificate
	certPEM, err := os.ReadFile(l.Cert)
	if err != nil {
		return none, fmt.Errorf("read the certificate (cert): %w", err)
	}
	keyPEM, err := os.ReadFile(l.Key)
	if err != nil {
		return none, fmt.Errorf("read the certificate's key (key): %w", err)
	}
	if encrypted(keyPEM) {
		return none, fmt.Errorf("the key %s is encrypted, and nobody can type its pass phrase here: decrypt it with openssl pkey -in %[1]s -out FILE", l.Key)
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return none, fmt.Errorf("certificate %s with key %s: %w", l.Cert, l.Key, err)
	}
	if time.Now().After(cert.Leaf.NotAfter) {
		return none, fmt.Errorf("the certificate %s has expired on %s: put a new one there", l.Cert, cert.Leaf.NotAfter.Format(time.DateOnly))
	}
	return cert, nil
}

// encrypted reports whether keyPEM holds a key behind a pass phrase: in PKCS #8
// by its type, in the older format by a header.
func encrypted(keyPEM []byte) bool {
	block, _ := pem.Decode(keyPEM)
	return block != nil && (block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "")
}

// readRoots reads the certificates whose clients are let in.
func readRoots(name string) (*x509.CertPool, error) {
	rest, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read the certificates of clients (client_ca): %w", err)
	}
	pool, valid, last := x509.NewCertPool(), 0, time.Time{}
	for block, rest := pem.Decode(rest); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("client_ca %s: a %s that is no certificate: %w", name, block.Type, err)
		}
		pool.AddCert(cert)
		if last = cert.NotAfter; time.Now().Before(last) {
			valid++
		}
	}
	switch {
	case last.IsZero():
		return nil, fmt.Errorf("client_ca %s holds no certificate in PEM format", name)
	case valid == 0:
		return nil, fmt.Errorf("client_ca %s: has expired on %s, so no client could connect: put a new one there", name, last.Format(time.DateOnly))
	}
	return pool, nil
}

// tlsConn is the server's side of TLS on a connection.
type tlsConn struct {
	*tls.Conn
	t   *tlsServer
	raw *hasty

	// Of the reading goroutine.
	shaken bool
	known  caller
}

func (t *tlsServer) wrap(nc net.Conn) net.Conn {
	raw := &hasty{Conn: nc}
	return &tlsConn{Conn: tls.Server(raw, t.base), t: t, raw: raw}
}

// Read reads what the client has encrypted. The first one shakes hands before.
func (c *tlsConn) Read(b []byte) (int, error) {
	if !c.shaken {
		if err := c.shake(); err != nil {
			return 0, fmt.Errorf("TLS handshake: %w", err)
		}
		c.shaken = true
	}
	return c.Conn.Read(b)
}

// shake lets client and broker agree on keys, and finds out who the client is.
// The connection has set the deadline for what is read.
func (c *tlsConn) shake() error {
	if err := c.SetWriteDeadline(time.Now().Add(c.t.timeout)); err != nil {
		return err
	}
	err := c.Handshake()
	if noTLS := (tls.RecordHeaderError{}); errors.As(err, &noTLS) {
		return fmt.Errorf("the client does not speak TLS, as this listener does: %w", err)
	}
	if err != nil {
		return err
	}
	if err := c.identify(); err != nil {
		return err
	}
	return c.SetWriteDeadline(time.Time{})
}

// identify takes from the client's certificate what the listener wants to know.
func (c *tlsConn) identify() error {
	chains := c.ConnectionState().VerifiedChains
	if len(chains) == 0 {
		return nil
	}
	c.known.certified = true
	if c.t.files.Identity != identityCN {
		return nil
	}
	cert := chains[0][0]
	if c.known.user = cert.Subject.CommonName; c.known.user == "" {
		return fmt.Errorf("the client's certificate with the serial number %s has no common name to be its user name (identity: %s)", cert.SerialNumber, identityCN)
	}
	return nil
}

func (c *tlsConn) caller() caller { return c.known }

// Close tells the client that nothing follows, if that can be written at once,
// and ends the connection. It may be called with locks held.
func (c *tlsConn) Close() error {
	c.raw.closing.Store(true)
	_ = c.raw.SetWriteDeadline(time.Now().Add(parting)) // also of a write under way
	return c.Conn.Close()
}

// parting is how long the end of a connection may wait to be written.
const parting = 50 * time.Millisecond

// hasty is the connection below TLS. Once that closes, no write takes longer than
// parting; package tls would allow its last one five seconds.
type hasty struct {
	net.Conn
	closing atomic.Bool
}

func (h *hasty) SetWriteDeadline(when time.Time) error {
	if latest := time.Now().Add(parting); h.closing.Load() && when.After(latest) {
		when = latest
	}
	return h.Conn.SetWriteDeadline(when)
}
