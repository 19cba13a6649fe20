package bridge

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// listening is the configuration of a bridge that wants filters from upstream.
func listening(filters ...string) Config {
	cfg := testConfig()
	cfg.In = []Rule{{Topics: filters, Prefix: "in/"}}
	return cfg
}

// unsubscribed reads an UNSUBSCRIBE, answers it, and returns its filters.
func (c *commander) unsubscribed() []string {
	p, _ := c.read().(*packets.UnsubscribePacket)
	if p == nil {
		return nil
	}
	answer := packets.NewControlPacket(packets.Unsuback).(*packets.UnsubackPacket)
	answer.MessageID = p.MessageID
	_ = answer.Write(c)
	slices.Sort(p.Topics)
	return p.Topics
}

// reminded returns the filters that the inbox keeps for the next start.
func (l *fakeLocal) reminded() (filters []string) {
	for _, f := range l.Filters("bridge/cloud") {
		if f, ok := strings.CutPrefix(f, "$bridge/cloud/in/"); ok {
			filters = append(filters, f)
		}
	}
	slices.Sort(filters)
	return filters
}

// play is a server that plays one script for each connection.
func play(t *testing.T, scripts ...func(c *commander)) dialFunc {
	return piped(t, func(n int, _ string, u upstream) {
		c := &commander{upstream: u}
		if n < len(scripts) {
			scripts[n](c)
		}
		c.stay()
	})
}

func TestTheServerForgetsWhatNoRuleHasAnyMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local := newLocal()
		r := newRig(t, listening("a/#", "b/#", "c/d"), local, play(t, func(c *commander) { c.open(false, 0) })).start()
		synctest.Wait()
		r.end()
		if got := local.reminded(); !slices.Equal(got, []string{"a/#", "b/#", "c/d"}) {
			t.Errorf("the inbox keeps %q", got)
		}
		heard := make(chan []string, 10)
		r = newRig(t, listening("a/#", "c/#"), local, play(t,
			func(c *commander) { // before the answer it is not forgotten
				c.open(true, 0)
				if p, ok := c.read().(*packets.UnsubscribePacket); ok {
					heard <- p.Topics
				}
				_ = c.Close()
			},
			func(c *commander) {
				_, filters := c.open(true, 0)
				heard <- filters
				heard <- c.unsubscribed()
			},
			func(c *commander) { c.open(true, 0) },
		)).start()
		time.Sleep(time.Minute) // virtual
		if got := local.reminded(); !slices.Equal(got, []string{"a/#", "b/#", "c/#", "c/d"}) {
			t.Errorf("before the next connection the inbox keeps %q", got)
		}
		r.Reconnect()
		time.Sleep(time.Minute) // virtual
		if got := local.reminded(); !slices.Equal(got, []string{"a/#", "c/#"}) {
			t.Errorf("in the end the inbox keeps %q", got)
		}
		if s := r.Status(); s.Connects != 3 || s.State != Up {
			t.Errorf("the status is %+v", s)
		}
		r.end()
		close(heard)
		var all []string
		for filters := range heard {
			slices.Sort(filters)
			all = append(all, fmt.Sprint(filters))
		}
		if want := []string{"[b/# c/d]", "[a/# 1 c/# 1]", "[b/# c/d]"}; !slices.Equal(all, want) {
			t.Errorf("the server heard %q, want %q", all, want)
		}
	})
}

// One that does not answer is asked again over the next connection, and that is said once.
func TestAServerThatDoesNotForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local, asked := newLocal(), 0
		r := newRig(t, listening("a/#", "b/#"), local, play(t, func(c *commander) { c.open(false, 0) })).start()
		synctest.Wait()
		r.end()
		mute := func(c *commander) {
			c.open(true, 0)
			if _, ok := c.read().(*packets.UnsubscribePacket); ok {
				asked++
			}
		}
		r = newRig(t, listening("a/#"), local, play(t, mute, mute)).start()
		time.Sleep(time.Minute) // virtual
		r.Reconnect()
		time.Sleep(time.Minute) // virtual
		r.end()
		if n := r.log.count("cannot unsubscribe"); asked != 2 || n != 1 {
			t.Errorf("the server was asked %d times, the log says %d times that it does not answer", asked, n)
		}
	})
}

// A session that the server began anew has nothing to be forgotten.
func TestAFreshSessionHasNoLeavings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local := newLocal()
		for _, filter := range []string{"a/#", "b/#"} {
			fresh := func(c *commander) {
				c.open(false, 0)
				if p, ok := c.read().(*packets.UnsubscribePacket); ok {
					t.Errorf("the server got %v", p)
				}
			}
			r := newRig(t, listening(filter), local, play(t, fresh, fresh)).start()
			synctest.Wait()
			r.Reconnect()
			time.Sleep(time.Second) // virtual
			r.end()
			if got := local.reminded(); !slices.Equal(got, []string{filter}) {
				t.Errorf("the inbox keeps %q", got)
			}
		}
	})
}

// Each of several servers may have a session of its own, so each connection says it.
func TestEachServerForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local := newLocal()
		r := newRig(t, listening("a/#", "b/#"), local, play(t, func(c *commander) { c.open(false, 0) })).start()
		synctest.Wait()
		r.end()
		cfg, n := listening("a/#"), 0
		cfg.Servers = append(cfg.Servers, "tcp://two")
		forget := func(c *commander) {
			c.open(true, 0)
			if got := c.unsubscribed(); slices.Equal(got, []string{"b/#"}) {
				n++
			}
		}
		r = newRig(t, cfg, local, play(t, forget, forget)).start()
		synctest.Wait()
		r.Reconnect()
		time.Sleep(time.Second) // virtual
		r.end()
		if n != 2 {
			t.Errorf("%d of 2 connections said it", n)
		}
	})
}

// What a refused filter was to bring, an old one still brings: it stays until the server
// takes the new one. What has nothing to do with that goes.
func TestAnOldFilterStaysUntilTheNewOneIsTaken(t *testing.T) {
	for name, refused := range map[string]string{"a wider one": "a/#", "a narrower one": "a/b/c"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				local := newLocal()
				k := &kept{}
				local.keep = k.keep
				r := newRig(t, listening("a/b/+", "old"), local, play(t, func(c *commander) { c.open(false, 0) })).start()
				synctest.Wait()
				r.end()
				heard := make(chan []string, 10)
				r = newRig(t, listening(refused, "new"), local, play(t,
					func(c *commander) {
						c.connected(true)
						c.subscribed(refusing(refused))
						heard <- c.unsubscribed()
						c.send(1, 1, "a/b/c", "on")
						c.want("PUBACK 1")
					},
					func(c *commander) {
						c.open(true, 0)
						heard <- c.unsubscribed()
					},
				)).start()
				time.Sleep(time.Minute) // virtual
				r.Reconnect()
				time.Sleep(time.Minute) // virtual
				r.end()
				close(heard)
				var all []string
				for filters := range heard {
					all = append(all, fmt.Sprint(filters))
				}
				if want := []string{"[old]", "[a/b/+]"}; !slices.Equal(all, want) {
					t.Errorf("the server is to forget %q, want %q", all, want)
				}
				if got := k.text(); !slices.Equal(got, []string{"in/a/b/c on 1"}) {
					t.Errorf("published here: %q", got)
				}
			})
		})
	}
}

func refusing(filter string) func(string) byte {
	return func(f string) byte {
		if f == filter {
			return 0x80
		}
		return 0
	}
}

// If another new one brings all that the old one does, commands would come twice.
func TestAnOldFilterGoesIfAnotherNewOneIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local := newLocal()
		r := newRig(t, listening("a/b"), local, play(t, func(c *commander) { c.open(false, 0) })).start()
		synctest.Wait()
		r.end()
		gone := make(chan []string, 1)
		r = newRig(t, listening("a/#", "+/b"), local, play(t, func(c *commander) {
			c.connected(true)
			c.subscribed(refusing("a/#"))
			gone <- c.unsubscribed()
		})).start()
		time.Sleep(time.Minute) // virtual
		r.end()
		if got := <-gone; !slices.Equal(got, []string{"a/b"}) {
			t.Errorf("the server is to forget %q", got)
		}
	})
}

// One that does not answer SUBSCRIBE may have taken nothing, so nothing is forgotten.
func TestNothingIsForgottenWithoutAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local := newLocal()
		r := newRig(t, listening("a/b"), local, play(t, func(c *commander) { c.open(false, 0) })).start()
		synctest.Wait()
		r.end()
		r = newRig(t, listening("a/#"), local, play(t, func(c *commander) {
			c.connected(true)
			c.read() // SUBSCRIBE
			if p, ok := c.read().(*packets.UnsubscribePacket); ok {
				t.Errorf("the server got %v", p)
			}
		})).start()
		time.Sleep(time.Minute) // virtual
		r.end()
		if got := local.reminded(); !slices.Equal(got, []string{"a/#", "a/b"}) {
			t.Errorf("the inbox keeps %q", got)
		}
	})
}

// A filter as long as MQTT allows has no room for a place before it. The bridge works.
func TestALongFilterIsNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local, long := newLocal(), strings.Repeat("x", 65535)
		r := newRig(t, listening(long, "a/#"), local, play(t, func(c *commander) { c.open(false, 0) })).start()
		synctest.Wait()
		if s := r.Status(); s.State != Up {
			t.Errorf("the status is %+v", s)
		}
		r.end()
		if got := local.reminded(); !slices.Equal(got, []string{"a/#"}) {
			t.Errorf("the inbox keeps %d filters", len(got))
		}
	})
}
