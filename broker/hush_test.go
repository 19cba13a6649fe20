package broker

import (
	"context"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// counter counts the lines of a log with a text, and remembers an attribute of the
// last one.
type counter struct {
	slog.Handler
	text  string
	lines atomic.Int64
	kept  atomic.Int64
}

func (c *counter) Enabled(context.Context, slog.Level) bool { return true }
func (c *counter) WithAttrs([]slog.Attr) slog.Handler       { return c }
func (c *counter) Handle(_ context.Context, r slog.Record) error {
	if r.Message == c.text {
		c.lines.Add(1)
		r.Attrs(func(a slog.Attr) bool {
			if a.Key == "not_logged_before" {
				c.kept.Store(a.Value.Int64())
			}
			return true
		})
	}
	return nil
}

func TestStrangersDoNotFillTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &counter{text: "refused a connection"}
		d := newBed(t, func(d *bed) { d.cfg.Listeners, d.handler = nil, log })
		knock := func(times int) {
			for range times {
				ours, theirs := net.Pipe()
				go d.b.ServeConn(theirs)
				if _, err := ours.Write([]byte("GET / HTTP/1.1\r\n\r\n")); err == nil {
					_, _ = ours.Read(make([]byte, 1))
				}
				ours.Close()
			}
			synctest.Wait()
		}
		knock(100)
		if n := log.lines.Load(); n != hushAfter {
			t.Errorf("%d lines for 100 refused connections, want %d", n, hushAfter)
		}
		time.Sleep(time.Minute)
		knock(1)
		if n, kept := log.lines.Load(), log.kept.Load(); n != hushAfter+1 || kept != 80 {
			t.Errorf("a minute later: %d lines, the last tells of %d that were not written", n, kept)
		}
		if n := d.b.Status().Refused["protocol"]; n != 101 {
			t.Errorf("%d are counted", n)
		}
	})
}
