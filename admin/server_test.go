package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"tidegate/mqtt"
)

func TestPageIsSelfContained(t *testing.T) {
	resp, body := newBed(t, nil).do(http.MethodGet, "/", nil)
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Errorf("the page answers %d %s", resp.StatusCode, resp.Header)
	}
	if len(body) > 12<<10 {
		t.Errorf("the page has %d bytes", len(body))
	}
	if out := regexp.MustCompile(`(?i)//[a-z0-9]|\ssrc=|@import|url\(|import\(`).FindString(body); out != "" {
		t.Errorf("the page loads something from elsewhere: %q", out)
	}
	if raw := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacent|document\.write|eval|srcdoc|\son[a-z]+=`).FindString(body); raw != "" {
		t.Errorf("the page could run what a client sent: %q", raw)
	}
	csp := resp.Header.Get("Content-Security-Policy")
	if !strings.HasPrefix(csp, "default-src 'none';") || !strings.Contains(csp, "connect-src 'self'") || strings.Contains(csp, "http") {
		t.Errorf("the page may load more than it needs: %s", csp)
	}
}

// TestPageKnowsTheDocument finds names in the page's script that the document
// does not have.
func TestPageKnowsTheDocument(t *testing.T) {
	text, err := os.ReadFile("testdata/status.json")
	if err != nil {
		t.Fatal(err)
	}
	fields := regexp.MustCompile(`\.([a-z]+(?:_[a-z]+)+)\b`).FindAllStringSubmatch(page, -1)
	if len(fields) < 15 {
		t.Fatalf("the page shows only %q", fields)
	}
	for _, f := range fields {
		if !strings.Contains(string(text), `"`+f[1]+`":`) {
			t.Errorf("the page shows %s, which the document does not have", f[1])
		}
	}
}

func TestAnswers(t *testing.T) {
	d := newBed(t, nil)
	for _, c := range []struct {
		method, path, body string
		code               int
		text               string
	}{
		{"GET", "/healthz", "", 200, "ok\n"},
		{"GET", "/readyz", "", 200, "ok\n"},
		{"HEAD", "/readyz", "", 200, ""},
		{"HEAD", "/", "", 200, ""},
		{"GET", "/?x=1", "", 200, page},
		{"GET", "/api/v1/clients", "", 404, "there is no /api/v1/clients"},
		{"GET", "/index.html", "", 404, "there is no /index.html"},
		{"GET", "//", "", 404, "there is no //"},
		{"POST", "/nowhere", "", 404, "there is no /nowhere"},
		{"POST", "/api/v1/status", "", 405, "/api/v1/status can only be read"},
		{"DELETE", "/", "", 405, "/ can only be read"},
		{"OPTIONS", "/metrics", "", 405, "/metrics can only be read"},
		{"GET", "/metrics", "hello", 413, "/metrics takes no body"},
	} {
		resp, body := d.do(c.method, c.path, func(r *http.Request) {
			if c.body != "" {
				r.Body, r.ContentLength = io.NopCloser(strings.NewReader(c.body)), int64(len(c.body))
			}
		})
		if resp.StatusCode != c.code || !strings.Contains(body, c.text) {
			t.Errorf("%s %s answers %d %q, want %d %q", c.method, c.path, resp.StatusCode, body, c.code, c.text)
		}
		if c.code >= 400 {
			checkError(t, resp, body)
		}
		if allow := resp.Header.Get("Allow"); (allow != "") != (c.code == 405) {
			t.Errorf("%s %s allows %q", c.method, c.path, allow)
		}
		if resp.Header.Get("X-Content-Type-Options") != "nosniff" || resp.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s %s lacks headers: %v", c.method, c.path, resp.Header)
		}
	}
}

// checkError holds an error against the form that all errors of the API have.
func checkError(t *testing.T, resp *http.Response, body string) {
	t.Helper()
	var e map[string]string
	if err := json.Unmarshal([]byte(body), &e); err != nil || e["error"] == "" || resp.Header.Get("Content-Type") != "application/json" {
		t.Errorf("error %d as %s: %q", resp.StatusCode, resp.Header.Get("Content-Type"), body)
	}
}

func TestOnlyRequestsForThisMachineAreAnswered(t *testing.T) {
	d := newBed(t, nil)
	for host, code := range map[string]int{
		d.admin.Addr().String(): 200,
		"127.0.0.1":             200,
		"127.8.9.10:80":         200,
		"localhost":             200,
		"LocalHost:9999":        200, // through a tunnel
		"[::1]:8080":            200,
		"[::1]":                 200,
		"evil.example":          403,
		"evil.example:8080":     403,
		"localhost.evil":        403,
		"127.0.0.1.evil":        403,
		"192.168.1.10:8080":     403,
		"0.0.0.0":               403,
	} {
		for _, path := range []string{"/", "/api/v1/status", "/nowhere"} {
			resp, body := d.do(http.MethodGet, path, func(r *http.Request) { r.Host = host })
			switch {
			case code == 403 && resp.StatusCode != 403, code == 200 && resp.StatusCode == 403:
				t.Errorf("%s for host %q answers %d", path, host, resp.StatusCode)
			case code == 403:
				checkError(t, resp, body)
			}
		}
	}
}

func TestListenHostIsAnswered(t *testing.T) {
	s := New("gateway.local:8080", Sources{}, quiet)
	if !s.serves("Gateway.local:1") || s.serves("other.local:1") || s.serves("") {
		t.Error("only the name that is listened on is served")
	}
}

func TestListenStaysOnThisMachine(t *testing.T) {
	for _, listen := range []string{"0.0.0.0:0", ":0", "[::]:0"} {
		s := New(listen, Sources{}, quiet)
		if err := s.Listen(); err == nil || !strings.Contains(err.Error(), "reachable from the network") || s.Addr() != nil {
			t.Errorf("%s: %v, listens on %v", listen, err, s.Addr())
		}
	}
	if err := New("127.0.0.1:0", Sources{}, quiet).Serve(t.Context()); err == nil {
		t.Error("Serve without Listen ends without an error")
	}
}

func TestReadyAsksTheListeners(t *testing.T) {
	why := errors.New("listener tcp://127.0.0.1:1883 is not open")
	d := newBed(t, func(src *Sources) { src.Ready = func() error { return why } })
	code, body := d.get("/readyz")
	if code != http.StatusServiceUnavailable || body != "not ready: "+why.Error()+"\n" {
		t.Errorf("readyz answers %d %q", code, body)
	}
	if st := d.status(); st.Ready || len(st.Problems) != 1 {
		t.Errorf("the document says ready %v, problems %q", st.Ready, st.Problems)
	}
	if code, _ := d.get("/healthz"); code != http.StatusOK {
		t.Errorf("healthz answers %d: the gateway is alive", code)
	}
}

func TestNotReadyWhenTheStoreFails(t *testing.T) {
	d := newBed(t, nil)
	sub := d.dial("logger", false)
	if _, err := sub.Subscribe(t.Context(), mqtt.Subscription{Filter: "alarm", QoS: mqtt.AtLeastOnce}); err != nil {
		t.Fatal(err)
	}
	sub.Close()
	if err := d.src.Store.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var publishing sync.WaitGroup
	publishing.Go(func() { // waits for the disk in vain
		_ = d.src.Broker.Publish(ctx, mqtt.Message{Topic: "alarm", Payload: []byte("1"), QoS: mqtt.AtLeastOnce})
	})
	defer publishing.Wait()
	defer cancel()
	st := d.eventually("unready", func(st Status) bool { return !st.Ready })
	if st.Store.Writable || st.Store.Error != "store is closed" || len(st.Problems) == 0 {
		t.Errorf("store %+v, problems %q", st.Store, st.Problems)
	}
	code, body := d.get("/readyz")
	if code != http.StatusServiceUnavailable || !strings.Contains(body, "the store cannot be written") {
		t.Errorf("readyz answers %d %q", code, body)
	}
	if _, text := d.get("/metrics"); !strings.Contains(text, "\ntidegate_store_writable 0\n") || !strings.Contains(text, "\ntidegate_ready 0\n") {
		t.Errorf("metrics say\n%s", own(text))
	}
}

// connect opens a connection and says nothing.
func (d *bed) connect() net.Conn {
	d.t.Helper()
	c, err := net.Dial("tcp", d.admin.Addr().String())
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		d.t.Fatal(err)
	}
	return c
}

const simpleRequest = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"

// answered reports whether a request over c is answered.
func answered(c net.Conn) bool {
	if _, err := io.WriteString(c, simpleRequest); err != nil {
		return false
	}
	line := make([]byte, len("HTTP/1.1 200"))
	_, err := io.ReadFull(c, line)
	return err == nil && string(line) == "HTTP/1.1 200"
}

func TestConnectionsAreBounded(t *testing.T) {
	d := newBed(t, nil)
	var open []net.Conn
	for range maxConns {
		c := d.connect()
		if !answered(c) {
			t.Fatalf("connection %d is not answered", len(open))
		}
		open = append(open, c)
	}
	if answered(d.connect()) {
		t.Errorf("more than %d connections are answered", maxConns)
	}
	open[0].Close()
	deadline, tick := time.After(patience), time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !answered(d.connect()) { // until the server has noticed
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("a connection that ended makes no room")
		}
	}
}

func TestServeEndsAtOnceWhenNothingIsAsked(t *testing.T) {
	d := newBed(t, nil)
	idle, silent := d.connect(), d.connect()
	if !answered(idle) {
		t.Fatal("no answer")
	}
	start := time.Now()
	d.stop()
	if took := time.Since(start); took >= farewell {
		t.Errorf("Serve waited %v for a connection over which nothing was asked", took)
	}
	if _, err := io.Copy(io.Discard, silent); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection is still open")
	}
	if c, err := net.Dial("tcp", d.admin.Addr().String()); err == nil {
		c.Close()
		t.Error("the listener is still open")
	}
}

func TestServeFinishesTheAnswerUnderWay(t *testing.T) {
	asked, release := make(chan struct{}), make(chan struct{})
	d := newBed(t, func(src *Sources) {
		src.Ready = func() error {
			asked <- struct{}{}
			<-release
			return nil
		}
	})
	answers := make(chan int, 1)
	go func() {
		code, _ := d.get("/readyz")
		answers <- code
	}()
	<-asked
	stopped := make(chan struct{})
	go func() {
		d.stop()
		close(stopped)
	}()
	select {
	case <-stopped:
		t.Error("Serve does not wait for the answer")
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	if code := <-answers; code != http.StatusOK {
		t.Errorf("the answer is %d", code)
	}
	<-stopped
}

func TestDocumentsAtOnceAreBounded(t *testing.T) {
	asked, release := make(chan struct{}), make(chan struct{})
	d := newBed(t, func(src *Sources) {
		src.Ready = func() error {
			asked <- struct{}{}
			<-release
			return nil
		}
	})
	answers := make(chan int, maxDocuments)
	for i := range maxDocuments {
		go func() {
			code, _ := d.get([]string{"/metrics", "/api/v1/status"}[i%2])
			answers <- code
		}()
		<-asked
	}
	resp, body := d.do(http.MethodGet, "/api/v1/status", nil)
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("one more is answered %d", resp.StatusCode)
	}
	checkError(t, resp, body)
	if code, _ := d.get("/healthz"); code != http.StatusOK {
		t.Errorf("healthz answers %d meanwhile", code)
	}
	close(release)
	for range maxDocuments {
		if code := <-answers; code != http.StatusOK {
			t.Errorf("one of those that came first is answered %d", code)
		}
	}
	go func() { <-asked }()
	if code, _ := d.get("/metrics"); code != http.StatusOK {
		t.Errorf("metrics answer %d afterwards", code)
	}
}

func TestServeReportsAListenerThatBreaks(t *testing.T) {
	s := New("127.0.0.1:0", Sources{}, quiet)
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	s.listener.Close()
	if err := s.Serve(t.Context()); err == nil || !strings.Contains(err.Error(), "serve the admin page") {
		t.Errorf("Serve ends with %v", err)
	}
}
