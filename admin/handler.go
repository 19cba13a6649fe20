package admin

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"

	"tidegate/broker"
)

//go:embed page.html
var page string

// handler returns what answers requests.
func (s *Server) handler() http.Handler {
	routes := map[string]http.HandlerFunc{
		"/":               servePage,
		"/api/v1/bridges": s.fewAtOnce(s.src.serveBridges),
		"/api/v1/events":  s.serveEvents,
		"/api/v1/queues":  s.fewAtOnce(s.src.serveQueues),
		"/api/v1/status":  s.fewAtOnce(s.serveStatus),
		"/healthz":        serveHealth,
		"/metrics":        s.fewAtOnce(s.serveMetrics),
		"/readyz":         s.serveReady,
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		protect(w.Header())
		serve, known := routes[r.URL.Path]
		_, isReconnect := reconnects(r.URL.Path)
		switch {
		case !s.serves(r.Host):
			fail(w, http.StatusForbidden, "the host %q is not this gateway: open http://%s/ on its own machine, or tunnel to it with ssh -L", r.Host, s.listener.Addr())
		case isReconnect:
			fail(w, http.StatusForbidden, "nothing can be changed from here: use curl --unix-socket DATA_DIR/%s -X POST http://x%s", socketName, r.URL.EscapedPath())
		case !known:
			fail(w, http.StatusNotFound, "there is no %s: try /, /api/v1/status, /api/v1/bridges, /api/v1/queues, /api/v1/events, /healthz, /readyz or /metrics", r.URL.Path)
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			w.Header().Set("Allow", "GET, HEAD")
			fail(w, http.StatusMethodNotAllowed, "%s can only be read, with GET", r.URL.Path)
		case r.ContentLength != 0:
			w.Header().Set("Connection", "close") // so that nobody reads the body
			fail(w, http.StatusRequestEntityTooLarge, "%s takes no body", r.URL.Path)
		default:
			serve(w, r)
		}
	})
}

// protect keeps browsers from showing the answer to other pages, from guessing what
// it is, and from keeping it.
func protect(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "+
		"img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
}

// serves reports whether requests for host are meant for this server. Any other
// host is the name of a stranger whose page got here by DNS rebinding: to the
// browser it is one site with that page, which could read all it gets.
func (s *Server) serves(host string) bool {
	name := hostname(host)
	listen, _, err := net.SplitHostPort(s.listen)
	if err == nil && listen != "" && strings.EqualFold(name, listen) {
		return true
	}
	ip := net.ParseIP(name)
	return strings.EqualFold(name, "localhost") || ip != nil && ip.IsLoopback()
}

// hostname is a Host header without port and brackets.
func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
}

func servePage(w http.ResponseWriter, _ *http.Request) {
	answer(w, "text/html; charset=utf-8", page)
}

func serveHealth(w http.ResponseWriter, _ *http.Request) { answer(w, plain, "ok\n") }

func (s *Server) serveReady(w http.ResponseWriter, _ *http.Request) {
	if err := s.unready(s.src.Broker.Status()); err != nil {
		w.Header().Set("Content-Type", plain)
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintf(w, "not ready: %v\n", err)
		return
	}
	answer(w, plain, "ok\n")
}

// unready returns why the gateway is not ready, or nil.
func (s *Server) unready(b broker.Status) error {
	if s.src.Ready != nil {
		if err := s.src.Ready(); err != nil {
			return err
		}
	}
	if b.StoreError != "" {
		return errors.New("the store cannot be written, so QoS 1 and 2 messages are not acknowledged: " + b.StoreError)
	}
	return nil
}

// fewAtOnce bounds the memory and the time for documents, however many ask.
func (s *Server) fewAtOnce(serve http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case s.documents <- struct{}{}:
			defer func() { <-s.documents }()
			serve(w, r)
		default:
			w.Header().Set("Retry-After", "1")
			fail(w, http.StatusServiceUnavailable, "%d others are being answered: try again", maxDocuments)
		}
	}
}

func (s *Server) serveStatus(w http.ResponseWriter, _ *http.Request) {
	answerJSON(w, http.StatusOK, s.Status())
}

func (s *Server) serveMetrics(w http.ResponseWriter, _ *http.Request) {
	var b bytes.Buffer
	st := s.Status()
	writeMetrics(&b, &st)
	answer(w, "text/plain; version=0.0.4; charset=utf-8", b.String())
}

const plain = "text/plain; charset=utf-8"

// The errors of writing an answer are those of a client that has gone.

func answer(w http.ResponseWriter, contentType, text string) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	_, _ = io.WriteString(w, text)
}

func answerJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(v)
}

// fail answers with an error as every part of the API does.
func fail(w http.ResponseWriter, code int, format string, args ...any) {
	answerJSON(w, code, struct {
		Error string `json:"error"`
	}{fmt.Sprintf(format, args...)})
}
