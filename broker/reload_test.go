package broker

import (
	"strings"
	"sync"
	"testing"

	"tidegate/broker/auth"
	"tidegate/internal/client"
	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

func TestReloadCountsForTheNextMessage(t *testing.T) {
	d := newBed(t, guarded(rules))
	alice := d.dial("a", as("alice"))
	alice.subscribe("#", 1)
	alice.publish("home/door", "1", 1)
	alice.want("home/door", "1", 1)
	d.reload("user alice\ntopic write home/#\ntopic readwrite fence/#\n")
	alice.publish("home/door", "2", 1)
	alice.wantNothing()
	d.rules("usr alice\n")
	if err := d.b.Reload(); err == nil || !strings.Contains(err.Error(), d.cfg.ACLFile+":1: ") {
		t.Errorf("Reload says %v, want the file and the line", err)
	}
	alice.wantNothing()
	d.reload(rules)
	alice.publish("home/door", "3", 1)
	alice.want("home/door", "3", 1)
	alice.publish("home/door", "4", 0)
	alice.want("home/door", "4", 0)
}

func TestReloadedPasswordsCountForTheNextConnect(t *testing.T) {
	d := newBed(t, guarded(""))
	stays := d.dial("a", as("alice"))
	if err := auth.DeleteUser(d.cfg.PasswordFile, "alice"); err != nil {
		t.Fatal(err)
	}
	d.dial("b", as("alice")).Disconnect()
	if err := d.b.Reload(); err != nil {
		t.Fatal(err)
	}
	d.refused(client.Options{ClientID: "c", Username: "alice", Password: passwordOf("alice")}, packet.RefusedCredentials, packet.ReasonBadUsernameOrPassword)
	stays.wantNothing()
}

// Turning users on must not cost a client what it is owed.
func TestAnonymousSessionsAreKeptWhenUsersAreTurnedOn(t *testing.T) {
	d := newBed(t, nil)
	p := d.dial("same", durable)
	p.subscribe("home/#", 1)
	p.Disconnect()
	d.stop()
	guarded("")(d)
	d.start()
	if !d.dial("same", as("alice", durable)).SessionPresent() {
		t.Error("the session is gone")
	}
}

// Rights change while messages flow and clients come and go; the race detector
// watches.
func TestReloadWhileInUse(t *testing.T) {
	d := newBed(t, guarded(rules))
	sub := d.dial("s", as("bob"))
	sub.subscribe("home/#", 1)
	var busy sync.WaitGroup
	busy.Go(func() {
		for range 50 {
			if err := d.b.Reload(); err != nil {
				t.Error(err)
			}
		}
	})
	for _, user := range []string{"alice", "bob"} {
		busy.Go(func() {
			for range 20 {
				o := client.Options{ClientID: "same"}
				as(user)(&o)
				p, err := client.Dial(d.ctx(), d.b.Addrs()[0].String(), o)
				if err != nil {
					continue // the other one has come before the answer
				}
				_, _ = p.Subscribe(d.ctx(), mqtt.Subscription{Filter: "home/#", QoS: 1})
				p.Close()
			}
		})
	}
	pub := d.dial("p", as("alice"))
	for range 200 {
		pub.publish("home/door", "x", 1)
		sub.want("home/door", "x", 1)
	}
	busy.Wait()
}
