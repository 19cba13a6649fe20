package broker

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tidegate/mqtt"
	"tidegate/mqtt/packet"
	"tidegate/store"
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
	for range queued {
		slow.ack(packet.TypePuback, slow.wantPublish("a/b", payload, 1).ID)
	}
	slow.fence()
	if again := d.b.Losses(); !reflect.DeepEqual(again, losses) || d.b.Sessions()[0].Queued != 0 {
		t.Errorf("after %d deliveries the ledger has %+v, and %d are queued", queued, again, d.b.Sessions()[0].Queued)
	}
}

func TestLedgerHasABoundAndLosesNoCount(t *testing.T) {
	l := newLossLedger()
	for i := range 3 * maxLosses {
		at := time.Unix(int64(i), 0)
		l.add(nil, lossKey{fmt.Sprint(i), "a", lostMemory}, Loss{Count: 1, Bytes: 1, First: at, Last: at})
	}
	if len(l.ready) > maxLosses+1 {
		t.Errorf("%d rows wait for the disk", len(l.ready))
	}
	var count, bytes uint64
	for _, row := range l.list() {
		count, bytes = count+row.Count, bytes+row.Bytes
	}
	if n := len(l.list()); n != maxLosses+1 || count != 3*maxLosses || bytes != count {
		t.Errorf("%d rows with %d messages and %d bytes", n, count, bytes)
	}
}

// wantLosses wants the ledger to have exactly these rows, as session, filter,
// reason and count.
func (d *bed) wantLosses(rows ...string) {
	d.t.Helper()
	var got []string
	for _, l := range d.b.Losses() {
		got = append(got, fmt.Sprint(l.Session, " ", l.Filter, " ", l.Reason, " ", l.Count))
	}
	if !reflect.DeepEqual(got, rows) {
		d.t.Errorf("the ledger has\n%q, want\n%q", got, rows)
	}
}

// leave makes client id subscribe, with a session that outlives it by so many
// seconds, and go.
func (d *bed) leave(id string, seconds uint32, filters ...string) {
	d.t.Helper()
	p := d.in5(id, kept5(seconds))
	for _, f := range filters {
		p.subscribe(f, 1)
	}
	p.Close()
	synctest.Wait()
}

func TestEveryWayToLoseAMessageStandsInTheLedger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newBed(t, func(d *bed) { d.cfg.Listeners = nil })
		d.leave("away", 5, "away/#")
		d.leave("ended", 1000, "ended/#", "ended/+")
		d.leave("late", 1000, "late/#", "late/+")
		small := d.in5("small", five(packet.Properties(nil).AppendUint(packet.PropMaximumPacketSize, 100)))
		small.subscribe("small", 1)
		silent := d.piped(clean("silent")) // it never acknowledges
		silent.connack(packet.Accepted, false)
		silent.subscribe("silent", 1)
		pub := d.in5("pub", five(nil))
		for range 2 {
			pub.publish("away/x", "x", 1)
			pub.publish("ended/x", "x", 1)
			pub.publish("small", strings.Repeat("x", 200), 1)
			pub.publish("silent", "x", 1)
			silent.next()
			pub.with(mqtt.Message{Topic: "late/x", QoS: 1}, packet.Properties(nil).AppendUint(packet.PropMessageExpiry, 3))
		}
		time.Sleep(6 * time.Second)
		d.in5("late", kept5(1000)).wantNothing()
		d.in5("ended", five(nil)).wantNothing()
		silent.c.Close()
		synctest.Wait()
		want := []string{
			"away away/# session_expired 2", "ended other session_ended 2", "late late/# expired 2",
			"silent silent session_ended 2", "small small packet_size 2",
		}
		d.wantLosses(want...)
		before := d.b.Losses()
		d.restart()
		d.wantLosses(want...)
		if after := d.b.Losses(); !reflect.DeepEqual(after, before) {
			t.Errorf("after a restart the ledger has\n%+v, before\n%+v", after, before)
		}
	})
}

func TestWhatTheDiskHasLostStandsInTheLedger(t *testing.T) {
	d := newBed(t, nil)
	d.damaged = true
	sub := d.dial("sub", durable)
	sub.subscribe("a", 1)
	sub.Close()
	pub := d.dial("pub", nil)
	pub.publish("a", "whole", 1)
	d.stop()
	d.spoil()
	d.start()
	sub = d.dial("sub", durable)
	sub.want("a", "whole", 1)
	sub.wantNothing()
	d.wantLosses("sub a damaged 1")
	d.restart()
	d.wantLosses("sub a damaged 1")
}

// Nobody knows what the newest file of the journal held when it is gone. The ledger
// says so for each queue, and goes on to say so.
func TestMissingNewestFileStandsInTheLedger(t *testing.T) {
	d := newBed(t, nil)
	d.damaged = true
	sub := d.dial("sub", durable)
	sub.subscribe("a", 1)
	sub.Close()
	d.dial("pub", nil).publish("a", "gone", 1)
	d.stop()
	files, _ := filepath.Glob(filepath.Join(d.dir, "journal", "*.seg"))
	if len(files) != 1 {
		t.Fatalf("the journal has %v", files)
	}
	if err := os.Remove(files[0]); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		d.start()
		if l := d.b.Losses(); len(l) != 1 || l[0].Session != "sub" || l[0].Filter != "a" || l[0].Reason != lostDamaged || l[0].Count != 0 || !l[0].AtLeast {
			t.Errorf("the ledger has %+v", l)
		}
		d.stop()
	}
	d.start()
	sub = d.dial("sub", durable)
	d.dial("pub", nil).publish("a", "new", 1)
	sub.want("a", "new", 1)
}

// What an older version has counted, in state.db, goes on, and moves to the journal.
func TestLedgerOfAnOlderVersionMoves(t *testing.T) {
	d := newBed(t, nil)
	d.stop()
	st, err := store.Open(d.dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	old := Loss{Count: 7, Bytes: 70, First: time.Unix(1, 0), Last: time.Unix(2, 0)}
	row := store.Row{Table: lossTable, Key: lossKey{"old", "a", lostDisk}.appendTo(nil), Value: old.appendTo(nil)}
	if err := st.Commit(&store.Batch{Rows: []store.Row{row}}); err != nil {
		t.Fatal(err)
	}
	st.Close()
	for range 3 {
		d.start()
		d.wantLosses("old a max_disk 7")
		d.waitFor("the end of the rows", func() bool {
			left := 0
			return d.st.Rows(lossTable, func(_, _ []byte) error { left++; return nil }) == nil && left == 0
		})
		d.stop()
	}
	d.start()
}

// spoil adds a record that makes no sense to the only queue.
func (d *bed) spoil() {
	d.t.Helper()
	st, err := store.Open(d.dir, store.Options{})
	if err != nil {
		d.t.Fatal(err)
	}
	defer st.Close()
	q := st.Queues()[0]
	q.Pending++
	err = st.Commit(&store.Batch{
		Records: []store.Record{{Seq: st.LastSeq() + 1, Owners: []store.Owner{{Queue: q.ID, Tag: 1 << 16}}, Data: []byte{0xff}}},
		Queues:  []store.Queue{q},
	})
	if err != nil {
		d.t.Fatal(err)
	}
}

// A position on disk must not be ahead of the ledger, whenever the crash comes.
func TestLossIsOnDiskWithThePositionThatLeftItBehind(t *testing.T) {
	d := newBed(t, nil)
	sub := d.dial("sub", durable)
	sub.subscribe("a", 1)
	sub.Close()
	d.waitFor("the end of the connection", func() bool { return d.b.Status().Connections == 0 })
	m := mqtt.Message{Topic: "a", QoS: 1, Expiry: time.Second}
	if err := d.b.Publish(d.ctx(), m); err != nil {
		t.Fatal(err)
	}
	expired := time.Now().Add(m.Expiry + time.Millisecond)
	d.waitFor("the end of the message", func() bool { return time.Now().After(expired) })
	d.dial("sub", durable).wantNothing()
	d.waitFor("the position", func() bool { q := d.st.Queues(); return len(q) == 1 && q[0].Acked > 0 })
	d.crash()
	d.wantLosses("sub a expired 1")
}

// Nor must an acknowledgement, of what an inbox gives up before the disk has it.
func TestWhatAnInboxDropsIsOnDiskBeforeItsPublisherIsTold(t *testing.T) {
	d := newBed(t, nil)
	in := d.inbox("up", "a")
	told := make(chan error, 1)
	if err := d.b.PublishAsync(d.ctx(), mqtt.Message{Topic: "a", QoS: 1}, func(err error) { told <- err }); err != nil {
		t.Fatal(err)
	}
	m, err := in.Recv(d.ctx())
	if err != nil {
		t.Fatal(err)
	}
	in.Drop(m, "not_carried")
	if err := <-told; err != nil {
		t.Fatal(err)
	}
	in.Close()
	d.crash()
	d.wantLosses("up a not_carried 1")
}

// A row that makes room is removed from the store, also when it came back and
// made room again meanwhile: else a restart would count it twice.
func TestRowsThatMadeRoomAreNotInTheStore(t *testing.T) {
	l, at := newLossLedger(), 0
	lose := func(id string) {
		at++
		l.add(nil, lossKey{id, "a", lostMemory}, Loss{Count: 1, Bytes: 1, First: time.Unix(int64(at), 0), Last: time.Unix(int64(at), 0)})
	}
	kept := map[string][]byte{}
	commit := func() {
		for _, row := range l.take() {
			if kept[string(row.Key)] = row.Value; row.Value == nil {
				delete(kept, string(row.Key))
			}
		}
	}
	crowd := func(name string) {
		for i := range maxLosses {
			lose(fmt.Sprint(name, i))
		}
	}
	lose("old")
	commit()
	crowd("x")
	lose("old")
	crowd("y")
	commit()
	after := newLossLedger()
	for key, value := range kept {
		if err := after.restore([]byte(key)[len(lossMark):], value); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := after.list(), l.list(); len(got) != len(want) {
		t.Errorf("the store has %d rows, want %d", len(got), len(want))
	}
}
