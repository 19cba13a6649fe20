package client

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tidegate/mqtt"
)

// collect opens a connection that hands its messages to a channel.
func collect(t *testing.T, o Options) (*Conn, *peer, <-chan Message) {
	messages := make(chan Message, 100)
	o.Handler = func(m Message) { messages <- m }
	c, p := connect(t, o)
	return c, p, messages
}

func (p *peer) expectNothing() {
	p.t.Helper()
	if err := p.conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		p.t.Fatal(err)
	}
	got := make([]byte, 100)
	if n, err := p.conn.Read(got); err == nil {
		p.t.Fatalf("the client sent %x, want nothing", got[:n])
	}
}

func TestReceive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, p, messages := collect(t, Options{})
		p.send("31 04 0001 'a' '0'")
		p.send("3a 06 0001 'b' 0007 '1'")
		p.expect("40 02 0007")
		p.send("34 06 0001 'c' 0008 '2'")
		p.expect("50 02 0008")
		p.send("62 02 0008")
		p.expect("70 02 0008")
		for _, want := range []Message{
			{Message: mqtt.Message{Topic: "a", Payload: []byte("0"), Retain: true}},
			{Message: message("b", "1", 1), Dup: true, ID: 7},
			{Message: message("c", "2", 2), ID: 8},
		} {
			if got := <-messages; !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
		}
	})
}

func TestQoS2IsHandedOutOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, p, messages := collect(t, Options{})
		p.send("34 06 0001 'a' 0008 '1'")
		p.expect("50 02 0008")
		p.send("3c 06 0001 'a' 0008 '1'") // once more, before its PUBREL
		p.expect("50 02 0008")
		p.send("62 02 0008")
		p.expect("70 02 0008")
		p.send("62 02 0008") // once more, as after a lost PUBCOMP
		p.expect("70 02 0008")
		if len(messages) != 1 {
			t.Fatalf("%d messages, want 1", len(messages))
		}
		p.send("34 06 0001 'a' 0008 '2'") // a new message with the identifier of the old
		p.expect("50 02 0008")
		if len(messages) != 2 {
			t.Errorf("%d messages, want 2", len(messages))
		}
	})
}

func TestManualAck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p, messages := collect(t, Options{ManualAck: true})
		p.send("30 04 0001 'a' '0' 32 06 0001 'a' 0007 '1' 34 06 0001 'a' 0008 '2'")
		p.send("3c 06 0001 'a' 0008 '2'")
		p.expectNothing()
		if len(messages) != 3 {
			t.Fatalf("%d messages, want 3", len(messages))
		}
		for _, want := range []string{"", "40 02 0007", "50 02 0008"} {
			if err := c.Ack(<-messages); err != nil {
				t.Fatal(err)
			}
			p.expect(want)
		}
		c.Close()
		if err := c.Ack(Message{Message: message("a", "1", 1), ID: 7}); !errors.Is(err, mqtt.ErrClosed) {
			t.Errorf("an acknowledgement after the end: %v", err)
		}
	})
}

func TestKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := connect(t, Options{KeepAlive: 30 * time.Second})
		start := time.Now()
		for i := range 3 {
			p.expect("c0 00")
			if at, want := time.Since(start), time.Duration(i+1)*30*time.Second; at != want {
				t.Fatalf("PINGREQ %d after %s, want %s", i+1, at, want)
			}
			p.send("d0 00")
		}
		p.expect("c0 00") // and no answer
		p.expectEnd()
		if at := time.Since(start); at != 150*time.Second {
			t.Errorf("ended after %s, want 2m30s", at)
		}
		<-c.Done()
		if err := c.Err(); !strings.Contains(err.Error(), "no PINGRESP within 30s") {
			t.Errorf("got %v", err)
		}
	})
}

// A broker whose socket takes nothing, as behind a dead link, is noticed too.
func TestKeepAliveOfABrokerThatReadsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := connect(t, Options{KeepAlive: 30 * time.Second})
		start := time.Now()
		<-c.Done()
		if at := time.Since(start); at != time.Minute {
			t.Errorf("ended after %s, want 1m", at)
		}
	})
}

// While the Handler runs nobody reads the PINGRESP, which proves nothing.
func TestKeepAliveWaitsForTheHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		c, p := connect(t, Options{KeepAlive: 30 * time.Second, Handler: func(Message) { <-release }})
		p.send("30 04 0001 'a' '1'")
		for range 10 {
			p.expect("c0 00")
		}
		close(release)
		p.send("d0 00")
		p.expect("c0 00")
		if err := c.Err(); err != nil {
			t.Error(err)
		}
	})
}
