package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"tidegate/adapters"
	"tidegate/bridge"
	"tidegate/broker"
	"tidegate/internal/clock"
	"tidegate/store"
)

// The limits of a connection and of the server. All answers are made within
// milliseconds, so whoever is slower is not there any more.
const (
	maxConns      = 64
	maxDocuments  = 8       // made and sent at once; of 210 KB with 1000 sessions
	maxHeader     = 8 << 10 // bytes; net/http adds 4 KiB
	headerTimeout = 5 * time.Second
	readTimeout   = 5 * time.Second
	writeTimeout  = 10 * time.Second
	idleTimeout   = 30 * time.Second

	// farewell bounds how long Serve waits for answers that are under way.
	farewell = 3 * time.Second
)

// Sources are the parts of the gateway whose state the server shows. They outlive
// it. The server calls nothing but their methods for status.
type Sources struct {
	Name    string    // of the gateway
	Version string    // of the program
	Started time.Time // when it started, as time.Now returned it

	Broker   *broker.Broker
	Bridges  []*bridge.Bridge
	Adapters []*adapters.Supervisor
	Store    *store.Store
	Clock    *clock.Clock
	Events   *Events

	// Ready returns why the gateway is not ready, in words, or nil. It is asked
	// with each status from any goroutine. That the store can be written need
	// not be its concern. A nil Ready: the gateway always is.
	Ready func() error
}

// Server answers the HTTP requests to one gateway.
type Server struct {
	listen   string
	src      Sources
	log      *slog.Logger
	listener net.Listener
	conns    *conns

	documents chan struct{} // holds one for each document under way
	readers   chan struct{} // likewise, of events
}

// New returns a server for the address listen, host:port, which must be a loopback
// address. It starts nothing and opens nothing.
func New(listen string, src Sources, log *slog.Logger) *Server {
	return &Server{
		listen: listen, src: src, log: log, conns: newConns(),
		documents: make(chan struct{}, maxDocuments), readers: make(chan struct{}, maxReaders),
	}
}

// Listen opens the listener, so that its address is known before [Server.Serve].
func (s *Server) Listen() error {
	l, err := net.Listen("tcp", s.listen)
	if err != nil {
		return fmt.Errorf("open the admin listener (admin.listen): %w", err)
	}
	if tcp, ok := l.Addr().(*net.TCPAddr); !ok || !tcp.IP.IsLoopback() {
		l.Close()
		return fmt.Errorf("open the admin listener (admin.listen): %q is reachable from the network, "+
			"but this version has no authentication: use 127.0.0.1 or [::1]", s.listen)
	}
	s.listener = l
	return nil
}

// Addr returns the address of the listener, nil before [Server.Listen].
func (s *Server) Addr() net.Addr {
	if s.listener == nil {
		return nil
	}
	return s.listener.Addr()
}

// Serve answers requests until ctx is done. Then it closes the listener, lets
// answers that are under way finish for at most three seconds, and returns nil once
// nothing of it runs any more. It must be called once, after [Server.Listen].
func (s *Server) Serve(ctx context.Context) error {
	if s.listener == nil {
		return errors.New("serve the admin page: Listen was not called")
	}
	srv := &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ConnState:         s.conns.changed,
		BaseContext:       func(net.Listener) context.Context { return ctx }, // which ends streams of events
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	if err := serve(ctx, srv, s.listener, s.conns); err != nil {
		return fmt.Errorf("serve the admin page on %s: %w", s.listener.Addr(), err)
	}
	return nil
}

// serve has srv answer on l until ctx is done.
func serve(ctx context.Context, srv *http.Server, l net.Listener, open *conns) error {
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	select {
	case err := <-served:
		srv.Close()
		open.wait()
		return err
	case <-ctx.Done():
	}
	shutdown(ctx, srv, open)
	<-served
	open.wait()
	return nil
}

// shutdown must also work after the end of ctx, which is how serve ends.
func shutdown(ctx context.Context, srv *http.Server, open *conns) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
	defer cancel()
	open.closeSilent()
	if err := srv.Shutdown(ctx); err != nil {
		srv.Close() // whoever reads that slowly does without the rest
	}
}
