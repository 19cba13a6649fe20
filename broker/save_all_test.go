package broker

import (
	"os"
	"path/filepath"
	"testing"
)

// state.db is lost under the running gateway: sessions, subscriptions and retained
// messages come back from memory, and outlive a restart.
func TestLostStateComesBackFromMemory(t *testing.T) {
	d := newBed(t, nil)
	sub := d.dial("sub", durable)
	sub.subscribe("a", 1)
	sharer := d.dial("sharer", durable)
	sharer.subscribe("$share/g/s", 1)
	sharer.Close()
	sub.Close()
	pub := d.dial("pub", nil)
	pub.retain("r", "kept", 1)
	if err := os.Truncate(filepath.Join(d.dir, "state.db"), 0); err != nil {
		t.Fatal(err)
	}
	pub.publish("a", "queued", 1)
	pub.publish("s", "shared", 1)
	pub.retain("r2", "healed", 1)
	if n := d.st.StateRebuilt(); n != 1 {
		t.Fatalf("state.db was written anew %d times", n)
	}
	d.restart() // which writes all that waits
	sub = d.dial("sub", durable)
	sub.want("a", "queued", 1)
	sharer = d.dial("sharer", durable)
	sharer.want("s", "shared", 1)
	sub.subscribe("r", 1)
	if m := sub.want("r", "kept", 1); !m.Retain {
		t.Error("the message is not retained any more")
	}
	sub.wantNothing()
}
