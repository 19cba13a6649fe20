package broker

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

func TestWhatASlowSubscriberIsOwedIsQueuedOrInTheLedger(t *testing.T) {
	d := newBed(t, nil)
	slow := d.wire(clean("slow"))
	slow.connack(packet.Accepted, false)
	slow.subscribe("a/#", 1)
	slow.subscribe("a/b", 1)
	const n = 500
	payload := strings.Repeat("x", 4096)
	for range n { // without an acknowledgement from it, 2 MB for a queue of 256 KiB
		if err := d.b.Publish(d.ctx(), mqtt.Message{Topic: "a/b", Payload: []byte(payload), QoS: 1}); err != nil {
			t.Fatal(err)
		}
	}
	losses := d.b.Losses()
	if len(losses) != 1 {
		t.Fatalf("the ledger has %+v, want one row", losses)
	}
	l := losses[0]
	if l.Session != "slow" || l.Filter != "a/#" || l.Reason != lostMemory || l.First.IsZero() || l.Last.Before(l.First) {
		t.Errorf("the ledger has %+v", l)
	}
	if l.Count == 0 || l.Bytes < l.Count*4096 {
		t.Errorf("%d messages are lost with %d bytes", l.Count, l.Bytes)
	}
	queued := uint64(d.b.Sessions()[0].Queued)
	if queued+l.Count != n {
		t.Errorf("%d queued + %d in the ledger, want %d", queued, l.Count, n)
	}
}

func TestLedgerHasABoundAndLosesNoCount(t *testing.T) {
	var l lossLedger
	for i := range 3 * maxLosses {
		l.add(lossKey{fmt.Sprint(i), "a", lostMemory}, 1, time.Unix(int64(i), 0))
	}
	var count, bytes uint64
	for _, row := range l.list() {
		count, bytes = count+row.Count, bytes+row.Bytes
	}
	if n := len(l.list()); n != maxLosses+1 || count != 3*maxLosses || bytes != count {
		t.Errorf("%d rows with %d messages and %d bytes", n, count, bytes)
	}
}
