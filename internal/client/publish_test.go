package client

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

func TestPublish(t *testing.T) {
	type step struct{ expect, send string }
	cases := []struct {
		name  string
		m     mqtt.Message
		steps []step
	}{
		{"QoS 0 is done when it is written", message("a", "1", 0), []step{{"30 04 0001 'a' '1'", ""}}},
		{"QoS 1 waits for PUBACK", message("a", "1", 1), []step{{"32 06 0001 'a' 0001 '1'", "40 02 0001"}}},
		{
			"QoS 2 waits for PUBREC and PUBCOMP",
			message("a", "1", 2),
			[]step{{"34 06 0001 'a' 0001 '1'", "50 02 0001"}, {"62 02 0001", "70 02 0001"}},
		},
		{"retain is sent", mqtt.Message{Topic: "a", QoS: 1, Retain: true}, []step{{"33 05 0001 'a' 0001", "40 02 0001"}}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn, p := connect(t, Options{})
				published := result(func() error { return conn.Publish(t.Context(), c.m) })
				for _, s := range c.steps {
					synctest.Wait()
					if len(published) > 0 {
						t.Fatalf("done before the client's %s", s.expect)
					}
					p.expect(s.expect)
					if s.send != "" {
						p.send(s.send)
					}
				}
				if err := <-published; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestPublishRefusesUnlawfulMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := connect(t, Options{})
		for name, m := range map[string]mqtt.Message{
			"a wildcard":     {Topic: "a/#"},
			"QoS 3":          {Topic: "a", QoS: 3},
			"an empty topic": {},
		} {
			if err := c.PublishAsync(t.Context(), m, nil); err == nil {
				t.Errorf("%s was published", name)
			}
		}
	})
}

func TestWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := connect(t, Options{Window: 2})
		var done [3]chan error
		sent := result(func() error {
			for i := range done {
				done[i] = make(chan error, 1)
				if err := c.PublishAsync(t.Context(), message("a", "1", 1), func(err error) { done[i] <- err }); err != nil {
					return err
				}
			}
			return nil
		})
		p.expect("32 06 0001 'a' 0001 '1' 32 06 0001 'a' 0002 '1'")
		synctest.Wait()
		if len(sent) > 0 {
			t.Fatal("a third publish did not wait for the window")
		}
		p.send("40 02 0002")
		if err := <-done[1]; err != nil {
			t.Error(err)
		}
		p.expect("32 06 0001 'a' 0003 '1'")
		if err := <-sent; err != nil {
			t.Error(err)
		}
		p.send("40 02 0001 40 02 0003")
		if err := errors.Join(<-done[0], <-done[2]); err != nil {
			t.Error(err)
		}
	})
}

func TestWindowEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := connect(t, Options{Window: 1})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		first := result(func() error { return c.Publish(ctx, message("a", "1", 1)) })
		p.expect("32 06 0001 'a' 0001 '1'")
		if err := c.Publish(ctx, message("a", "2", 1)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a publish outside the window: %v", err)
		}
		if err := <-first; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a publish that is not acknowledged: %v", err)
		}

		p.send("40 02 0001") // late, and frees the place in the window
		third := result(func() error { return c.Publish(t.Context(), message("a", "3", 1)) })
		p.expect("32 06 0001 'a' 0002 '3'")
		p.send("40 02 0002")
		if err := <-third; err != nil {
			t.Error(err)
		}
	})
}

// What gathers while a write is under way goes out with the next.
func TestWritesAreGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := connect(t, Options{})
		for _, payload := range []string{"1", "2", "3"} {
			if err := c.PublishAsync(t.Context(), message("a", payload, 1), nil); err != nil {
				t.Fatal(err)
			}
			synctest.Wait() // the first write now waits for its reader
		}
		p.expectWrite("32 06 0001 'a' 0001 '1'")
		p.expectWrite("32 06 0001 'a' 0002 '2' 32 06 0001 'a' 0003 '3'")
	})
}

func TestWriterWakesForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := connect(t, Options{})
		c.wake <- struct{}{} // as after a batch that took what two had queued
		synctest.Wait()
		if err := c.PublishAsync(t.Context(), message("a", "1", 0), nil); err != nil {
			t.Fatal(err)
		}
		p.expectWrite("30 04 0001 'a' '1'")
	})
}

// A publish that was given up before it was sent gives its place back.
func TestGivenUpPublishLeavesTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := connect(t, Options{Window: 1})
		large := message("a", strings.Repeat("x", maxBatch), 0)
		for range 2 { // one is being written, one waits
			if err := c.PublishAsync(t.Context(), large, nil); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := c.Publish(ctx, message("a", "1", 1)); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("a publish behind a full buffer: %v", err)
		}
		if _, err := io.CopyN(io.Discard, p.conn, 2*int64(1+3+2+1+maxBatch)); err != nil {
			t.Fatal(err)
		}
		if err := c.PublishAsync(t.Context(), message("a", "2", 1), nil); err != nil {
			t.Fatal(err)
		}
		p.expect("32 06 0001 'a' 0001 '2'")
	})
}

// A broker that does not read holds back those who publish, at every QoS.
func TestUnwrittenBytesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := connect(t, Options{})
		payload := strings.Repeat("x", 1000)
		const count = 500
		sent := result(func() error {
			for range count {
				if err := c.PublishAsync(t.Context(), message("a", payload, 0), nil); err != nil {
					return err
				}
			}
			return nil
		})
		synctest.Wait()
		if len(sent) > 0 {
			t.Fatal("half a megabyte was queued for a broker that reads nothing")
		}
		if waiting := len(c.out.bytes); waiting > maxBatch+2000 {
			t.Errorf("%d bytes wait", waiting)
		}
		reader := packet.NewReader(p.conn, packet.MaxSize)
		for range count {
			if _, err := reader.Next(); err != nil {
				t.Fatal(err)
			}
		}
		if err := <-sent; err != nil {
			t.Error(err)
		}
	})
}

// Identifiers start again behind 65535, and leave out 0 and those in use
// [MQTT-2.3.1-1] [MQTT-2.3.1-2].
func TestPacketIdentifiers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := connect(t, Options{})
		c.lastID = 65534
		c.calls[1] = call{await: packet.TypePuback, done: func(error) {}}
		for _, want := range []string{"32 05 0001 'a' ffff", "32 05 0001 'a' 0002"} {
			if err := c.PublishAsync(t.Context(), mqtt.Message{Topic: "a", QoS: 1}, nil); err != nil {
				t.Fatal(err)
			}
			p.expect(want)
		}
	})
}

// Every done function is called exactly once, whether its message is being
// written, waits to be, or is not acknowledged.
func TestCloseFailsWhatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := connect(t, Options{})
		results := make(chan error, 10)
		for _, q := range []mqtt.QoS{1, 2, 0, 0, 1} {
			if err := c.PublishAsync(t.Context(), message("a", "1", q), func(err error) { results <- err }); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		p.expect("32 06 0001 'a' 0001 '1'")
		p.expect("34 06 0001 'a' 0002 '1' 30") // the rest of this write is not read
		if err := c.PublishAsync(t.Context(), message("a", "1", 0), func(err error) { results <- err }); err != nil {
			t.Fatal(err)
		}
		c.Close()
		if len(results) != 6 {
			t.Fatalf("%d results at the end of Close, want 6", len(results))
		}
		for range 6 {
			if err := <-results; !errors.Is(err, mqtt.ErrClosed) {
				t.Errorf("got %v", err)
			}
		}
	})
}

func TestSubscribe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := connect(t, Options{})
		type answer struct {
			codes []mqtt.QoS
			err   error
		}
		subscribed := result(func() answer {
			codes, err := c.Subscribe(t.Context(), mqtt.Subscription{Filter: "a/#", QoS: 1}, mqtt.Subscription{Filter: "+", QoS: 2})
			return answer{codes, err}
		})
		p.expect("82 0c 0001 0003 'a/#' 01 0001 '+' 02")
		p.send("90 04 0001 01 80")
		r := <-subscribed
		if r.err != nil || len(r.codes) != 2 || r.codes[0] != 1 || r.codes[1] != mqtt.QoSFailure {
			t.Errorf("got %v, %v", r.codes, r.err)
		}

		unsubscribed := result(func() error { return c.Unsubscribe(t.Context(), "a/#", "+") })
		p.expect("a2 0a 0002 0003 'a/#' 0001 '+'")
		p.send("b0 02 0002")
		if err := <-unsubscribed; err != nil {
			t.Error(err)
		}
	})
}

func TestSubscribeFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := connect(t, Options{})
		for name, subs := range map[string][]mqtt.Subscription{
			"no filter":           nil,
			"an unlawful filter":  {{Filter: "a#"}},
			"an unlawful QoS":     {{Filter: "a", QoS: 3}},
			"one of two unlawful": {{Filter: "a"}, {Filter: ""}},
		} {
			if codes, err := c.Subscribe(t.Context(), subs...); err == nil {
				t.Errorf("%s: got %v", name, codes)
			}
		}
		if err := c.Unsubscribe(t.Context(), "a#"); !errors.Is(err, mqtt.ErrInvalidTopic) {
			t.Errorf("unsubscribe: %v", err)
		}

		subscribed := result(func() error {
			_, err := c.Subscribe(t.Context(), mqtt.Subscription{Filter: "a"})
			return err
		})
		p.expect("82 06 0001 0001 'a' 00")
		p.send("90 04 0001 00 00")
		if err := <-subscribed; err == nil || !strings.Contains(err.Error(), "MQTT-3.8.4-5") {
			t.Errorf("two codes for one filter: %v", err)
		}

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		unsubscribed := result(func() error { return c.Unsubscribe(ctx, "a") })
		p.expect("a2 05 0002 0001 'a'")
		if err := <-unsubscribed; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("an UNSUBSCRIBE without an answer: %v", err)
		}
	})
}
