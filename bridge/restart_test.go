package bridge

import (
	"errors"
	"fmt"
	"maps"
	"testing"
	"testing/synctest"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// PUBCOMP lets the server use a number for another message, so it waits until the disk
// has forgotten the one before, and does not come if the disk cannot.
func TestANumberIsCompleteWhenTheDiskHasForgottenIt(t *testing.T) {
	for name, refusal := range map[string]error{"forgotten": nil, "the disk refuses": errors.New("the disk is broken")} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k, local := &kept{}, newLocal()
				local.keep = k.keep
				asked := make(chan func(error), 10)
				local.forget = func(done func(error)) { asked <- done }
				answers := make(chan string, 1)
				r := newRig(t, downConfig(), local, piped(t, func(n int, _ string, u upstream) {
					c := &commander{upstream: u}
					c.open(true, 0)
					if n > 0 {
						c.stay()
						return
					}
					c.send(2, 9, "command/1/a", "1", func(p *packets.PublishPacket) { p.Dup = true })
					c.want("PUBREC 9")
					c.release(9)
					answers <- c.answer()
				})).start()
				done := <-asked
				synctest.Wait()
				select {
				case a := <-answers:
					t.Errorf("the bridge answers %s before the disk has forgotten", a)
				default:
				}
				done(refusal)
				want := "PUBCOMP 9"
				if refusal != nil {
					want = "nothing"
				}
				if a := <-answers; a != want {
					t.Errorf("the bridge answers %s, want %s", a, want)
				}
				r.end()
			})
		})
	}
}

// QoS 2 is exactly once over restarts of the gateway, whether the server still heard
// that its messages are safe or sends them again, as after a kill.
func TestExactlyOnceOverRestarts(t *testing.T) {
	const window = 20                         // of the server
	for name, reads := range map[string]bool{ // what the bridge answers before it ends
		"an orderly stop": true,
		"a kill":          false,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k, sent := &kept{}, make(chan struct{}, 1)
				local := newLocal()
				local.keep = k.keep
				received := make(map[uint16]bool) // PUBREC came
				dial := piped(t, func(n int, _ string, u upstream) {
					conn := &commander{upstream: u}
					conn.open(n > 0, 0)
					before := maps.Clone(received)
					go func() {
						for id := uint16(1); id <= window; id++ {
							if before[id] {
								conn.release(id)
								continue
							}
							conn.send(2, id, "command/1/a", fmt.Sprint(id), func(p *packets.PublishPacket) { p.Dup = n > 0 })
						}
						sent <- struct{}{}
					}()
					for p := conn.read(); p != nil; p = conn.read() {
						if rec, ok := p.(*packets.PubrecPacket); ok && reads {
							received[rec.MessageID] = true
						}
					}
				})
				r := newRig(t, downConfig(), local, dial).start()
				<-sent
				synctest.Wait()
				r.end()
				synctest.Wait()
				r = newRig(t, downConfig(), local, dial).start()
				<-sent
				synctest.Wait()
				r.end()
				if n := len(k.text()) - window; n != 0 {
					t.Errorf("%d of %d messages were published twice", n, window)
				}
			})
		})
	}
}
