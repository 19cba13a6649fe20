package broker

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"tidegate/internal/client"
	"tidegate/mqtt"
	"tidegate/mqtt/packet"
	"tidegate/store"
)

// leaving is a client whose will is held back for ten seconds.
func leaving(o *client.Options) {
	kept5(1000)(o)
	o.Will = &mqtt.Message{Topic: "will", Payload: []byte("gone"), QoS: 1}
	o.WillProperties = packet.Properties(nil).AppendUint(packet.PropWillDelay, 10)
}

// A will that is held back is not lost with the power [MQTT-3.1.2-8], and what has
// become of it before is not forgotten.
func TestHeldBackWillOutlivesAPowerCut(t *testing.T) {
	for name, c := range map[string]struct {
		before func(d *bed) // the power cut
		want   int          // how often the will comes after it
	}{
		"held back":  {func(*bed) {}, 1},
		"published":  {func(*bed) { time.Sleep(10 * time.Second) }, 0},
		"taken back": {func(d *bed) { d.in5("x", kept5(1000)).Close() }, 0},
		"over with its session": {func(d *bed) {
			d.in5("x", five(nil)).Close() // clean start: the session ends, and the will is published
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newBed(t, func(d *bed) { d.cfg.Listeners = nil })
				sub := d.in5("sub", five(nil))
				sub.subscribe("will", 1)
				d.in5("x", leaving).Close()
				time.Sleep(2 * time.Second)
				c.before(d)
				time.Sleep(2 * time.Second)
				d.goBack(d.snapshot())
				sub = d.in5("sub", five(nil))
				sub.subscribe("will", 1)
				time.Sleep(9 * time.Second)
				if len(sub.got) > 0 {
					t.Error("the will came too soon")
				}
				time.Sleep(2 * time.Second)
				if n := len(sub.got); n != c.want {
					t.Errorf("the will came %d times, want %d", n, c.want)
				}
				if n := d.willRows(); n != 0 {
					t.Errorf("the store has %d wills", n)
				}
			})
		})
	}
}

func (d *bed) willRows() (n int) {
	d.t.Helper()
	synctest.Wait()
	time.Sleep(2 * time.Second)
	if err := d.st.Rows(willTable, func(_, _ []byte) error { n++; return nil }); err != nil {
		d.t.Fatal(err)
	}
	return n
}

// A will in the store that makes no sense, or whose session is not there, is no
// reason not to start.
func TestWillsInTheStoreAreChecked(t *testing.T) {
	s := &session{id: "x", willDelay: 10, will: &packet.Will{Topic: "will", QoS: 1}}
	good := s.willRow().Value
	if _, delay, ok := parseWill(good); !ok || delay != 10 {
		t.Fatalf("%x is no will", good)
	}
	for n := range good {
		if _, _, ok := parseWill(good[:n]); ok {
			t.Errorf("%x is a will", good[:n])
		}
	}
	for _, value := range [][]byte{append([]byte{2}, good[1:]...), append(good[:5:5], 0xc0, 0), append(good[:5:5], 0x30, 3, 0, 0, 0)} {
		if _, _, ok := parseWill(value); ok {
			t.Errorf("%x is a will", value)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		d := newBed(t, func(d *bed) { d.cfg.Listeners = nil; d.handler = new(logged).handler() })
		d.in5("x", leaving).Close()
		time.Sleep(2 * time.Second)
		var batch store.Batch
		for i := range 3 {
			batch.Rows = append(batch.Rows, store.Row{Table: willTable, Key: fmt.Append(nil, "nobody", i), Value: good})
		}
		batch.Rows = append(batch.Rows, store.Row{Table: willTable, Key: []byte("x"), Value: []byte("nonsense")})
		if err := d.st.Commit(&batch); err != nil {
			t.Fatal(err)
		}
		d.restart()
		if n := d.willRows(); n != 1 { // it is kept for somebody to look at, until its client has another one
			t.Errorf("the store has %d wills", n)
		}
		if d.b.sessions["x"].will != nil {
			t.Error("nonsense has become a will")
		}
	})
}
