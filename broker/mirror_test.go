package broker

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// state.db is lost, in each way: sessions, their subscriptions, the shares and
// the ledger are there, with all that is queued and nothing that was acknowledged, at QoS 2 either.
func TestSessionsOutliveStateDB(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"it is missing": os.Remove,
		"it is empty":   func(path string) error { return os.Truncate(path, 0) },
		"it is zeroed":  func(path string) error { return os.WriteFile(path, make([]byte, 64<<10), 0o600) },
		"it is junk":    func(path string) error { return os.WriteFile(path, []byte("junk"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			d := newBed(t, nil)
			d.damaged = true
			sub, member := d.dial("sub", durable), d.dial("m", durable)
			sub.subscribe("a", 1)
			sub.subscribe("b", 2)
			member.subscribe("$share/g/c", 1)
			pub := d.dial("pub", nil)
			pub.publish("a", "acknowledged", 1)
			sub.want("a", "acknowledged", 1)
			pub.publish("b", "completed", 2)
			sub.want("b", "completed", 2)
			sub.wantNothing()
			sub.Close()
			member.Close()
			gone := d.dial("gone", durable)
			gone.subscribe("x", 1)
			gone.Close()
			pub.publish("x", "x", 1)
			d.dial("gone", nil).Close() // with what it was owed
			d.waitFor("the end of the connections", func() bool { return d.b.Status().Connections == 1 })
			for i := range 20 {
				for _, topic := range []string{"a", "b", "c"} {
					pub.publish(topic, strconv.Itoa(i), 2)
				}
			}
			d.stop()
			if err := spoil(filepath.Join(d.dir, "state.db")); err != nil {
				t.Fatal(err)
			}
			for range 2 { // also after another start
				d.start()
				d.wantLosses("gone x session_ended 1")
				d.stop()
			}
			d.start()
			sub, member = d.dial("sub", durable), d.dial("m", durable)
			d.dial("other", nil).publish("a", "new", 1)
			for i := range 20 {
				sub.want("a", strconv.Itoa(i), 1)
				sub.want("b", strconv.Itoa(i), 2)
				member.want("c", strconv.Itoa(i), 1)
			}
			sub.want("a", "new", 1)
			sub.wantNothing()
			member.wantNothing()
		})
	}
}

// A session that changes nothing when its client comes back is not written to the
// journal again, and one that has ended does not come back.
func TestMirrorIsWrittenWhenARowHasChanged(t *testing.T) {
	d := newBed(t, nil)
	d.damaged = true
	for _, id := range []string{"gone", "sub"} {
		p := d.dial(id, durable)
		p.subscribe("a", 1)
		p.subscribe("b", 1)
		p.Close()
	}
	d.dial("gone", nil).Close()
	d.flush()
	written := d.st.Wear()
	for range 5 {
		d.dial("sub", durable).Close()
		d.flush()
	}
	if now := d.st.Wear(); now["marks"] != written["marks"] {
		t.Errorf("marks: %+v were written, now %+v", written["marks"], now["marks"])
	}
	d.stop()
	if err := os.Remove(filepath.Join(d.dir, "state.db")); err != nil {
		t.Fatal(err)
	}
	d.start()
	if list := d.b.Sessions(); len(list) != 1 || list[0].ID != "sub" || list[0].Subscriptions != 2 {
		t.Errorf("%+v", list)
	}
}

// The newest file of the journal is cut while the broker runs, and all marks with it:
// they are written again.
func TestMarksAreWrittenAgain(t *testing.T) {
	d := newBed(t, nil)
	d.damaged = true
	p := d.dial("sub", durable)
	p.subscribe("a", 1)
	p.Close()
	gone := d.dial("gone", durable)
	gone.subscribe("x", 1)
	gone.Close()
	d.dial("pub", nil).publish("x", "x", 1)
	d.dial("gone", nil).Close()
	d.flush()
	files, _ := filepath.Glob(filepath.Join(d.dir, "journal", "*.seg"))
	if err := os.Truncate(files[len(files)-1], 2*4096); err != nil {
		t.Fatal(err)
	}
	d.dial("pub", nil).publish("a", "x", 1)
	d.waitFor("the marks", func() bool {
		marks := 0
		err := d.st.Marks(func(key, _ []byte) error { marks++; return nil })
		return err == nil && marks == 2
	})
	d.stop()
	if err := os.Remove(filepath.Join(d.dir, "state.db")); err != nil {
		t.Fatal(err)
	}
	d.start()
	d.wantLosses("gone x session_ended 1")
	d.dial("sub", durable).want("a", "x", 1)
}
