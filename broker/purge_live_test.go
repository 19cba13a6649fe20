package broker

import (
	"testing"

	"tidegate/mqtt"
)

// pastABacklog leaves an inbox with a backlog of 300 messages, 6 of them sent, past
// which 20 live ones went: 10 are acknowledged, 5 sent, 5 wait.
func pastABacklog(t *testing.T, d *bed) (in mqtt.Inbox) {
	t.Helper()
	liveInbox(t, d, 20, mqtt.QueueLimits{}).Close()
	number(t, d, 0, 300)
	in = liveInbox(t, d, 20, mqtt.QueueLimits{})
	take(t, d, in.Recv, 0, 5) // and one more is on its way
	for n := 300; n < 320; n++ {
		number(t, d, n, n+1)
		if n < 310 {
			ackAll(in, take(t, d, in.RecvLive, n, n+1))
		}
	}
	take(t, d, in.RecvLive, 310, 315)
	return in
}

// A purge drops the backlog and counts it; what went past it was delivered, or comes
// again after a crash.
func TestPurgeOfABacklogThatLiveMessagesPassed(t *testing.T) {
	interruptions(t, func(t *testing.T, d *bed, interrupt func()) {
		in := pastABacklog(t, d)
		purge(t, d, "up", 294, 16)
		interrupt()
		in.Close()
		in = liveInbox(t, d, 20, mqtt.QueueLimits{})
		ackAll(in, take(t, d, in.Recv, 0, 6))
		ackAll(in, take(t, d, in.Recv, 310, 320))
		if n := d.b.Backlog("up"); n != 0 {
			t.Errorf("%d are left", n)
		}
	})
}

// Bounds do likewise.
func TestBoundsOfABacklogThatLiveMessagesPassed(t *testing.T) {
	interruptions(t, func(t *testing.T, d *bed, interrupt func()) {
		in := pastABacklog(t, d)
		s := d.b.sessions[inboxKey("up")]
		s.mu.Lock()
		s.bounds.MaxMessages, s.bounds.Overflow = 8, mqtt.DropOldest
		s.mu.Unlock()
		number(t, d, 320, 321)
		if lost := d.b.Losses(); len(lost) != 1 || lost[0].Count != 294 {
			t.Errorf("the ledger has %+v", lost)
		}
		interrupt()
		in.Close()
		in = liveInbox(t, d, 20, mqtt.QueueLimits{})
		ackAll(in, take(t, d, in.Recv, 0, 6))
		ackAll(in, take(t, d, in.Recv, 310, 321))
		if n := d.b.Backlog("up"); n != 0 {
			t.Errorf("%d are left", n)
		}
	})
}
