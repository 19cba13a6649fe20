package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"tidegate/mqtt"
	"tidegate/store"
)

// run commits what is due until ctx is done, and then once more all there is. The
// error says what of that is lost.
func (c *committer) run(ctx context.Context, t *turn) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-c.wake:
		case <-timer.C:
		}
		t.begin()
		next := c.step(t)
		t.end()
		timer.Reset(time.Duration(next - c.now()))
	}
	t.begin()
	defer t.end()
	return c.close(t)
}

// step commits if something is due. It returns when to look again.
func (c *committer) step(t *turn) (next int64) {
	c.mu.Lock()
	c.due = c.nextDue()
	due := c.due
	if !c.urgent {
		due = max(due, c.flash.notBefore())
	}
	c.mu.Unlock()
	if due > t.now {
		return min(due, t.now+int64(time.Hour))
	}
	err := c.commit(t)
	begin := max(due, c.ended)
	c.ended = c.now()
	if err != nil {
		c.mu.Lock()
		c.due = t.now + retryAfter
		c.mu.Unlock()
		return t.now + retryAfter
	}
	c.lead.note(c.ended - begin)
	return t.now
}

// nextDue finds the earliest time that something has to be on disk. The caller
// holds mu.
func (c *committer) nextDue() int64 {
	due := c.rowsDue
	if c.disk.refused {
		return min(due, c.disk.next)
	}
	for i := range c.pend.len() {
		if r := *c.pend.at(i); r.state == waiting || r.state == writing {
			due = min(due, r.due)
		}
	}
	return due
}

// close makes the last commit. Who still waits after it is told that it failed. That
// the disk takes nothing is an error only if something is lost by it that somebody
// was told to be safe.
func (c *committer) close(t *turn) (err error) {
	_ = c.commit(t) // health has it
	if reason := c.health(); reason != nil {
		err = c.leave(reason)
	}
	t.tell()
	waiters, then := c.shut()
	for _, w := range waiters {
		w.stored(t, mqtt.ErrClosed)
	}
	for _, fn := range then {
		fn(t, mqtt.ErrClosed)
	}
	return err
}

// leave says what the last commit could not write because of reason.
func (c *committer) leave(reason error) error {
	unconfirmed, confirmed := c.unwritten()
	c.log.Warn("ended while the store takes nothing: messages that were not acknowledged are gone, and those that consumers acknowledged last may arrive twice",
		"messages", unconfirmed, "error", reason)
	if confirmed == 0 {
		return nil
	}
	return fmt.Errorf("%d messages of relaxed queues were acknowledged and are not on disk: %w", confirmed, reason)
}

// unwritten returns how many messages wait for the disk that nobody was told to be
// safe, and how many that somebody was, because they are for relaxed queues only.
func (c *committer) unwritten() (unconfirmed, confirmed int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.pend.len() {
		switch r := *c.pend.at(i); {
		case r.state != waiting && r.state != writing:
		case r.held == 0:
			confirmed++
		default:
			unconfirmed++
		}
	}
	return unconfirmed, confirmed
}

// shut lets nobody wait for memory any more, and returns who waits for the disk.
func (c *committer) shut() (waiters []waiter, then []func(*turn, error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.room != nil {
		close(c.room)
		c.room = nil
	}
	for i := range c.pend.len() {
		waiters = append(waiters, (*c.pend.at(i)).waiters...)
	}
	return waiters, c.then
}

// group is what one commit takes: the batch for the store and what to do when it
// is on disk.
type group struct {
	line    time.Time // when it was gathered
	batch   store.Batch
	records []*record
	queues  []*session
	orphans []uint32
	marks   []store.Row // of batch.Marks
	losses  []store.Row // likewise
	then    []func(*turn, error)
}

// without is what a commit leaves out, because the store does not take it now.
type without struct{ messages, rows bool }

// commit writes everything dirty in one group. Messages for which there is no room
// stay dirty, and the rest is written without them, so that queues can drain; likewise
// rows. When the store refuses that, too, all of it is part of the next try.
func (c *committer) commit(t *turn) error {
	reason := c.admit(t)
	w := without{messages: reason != nil}
	for {
		some, err := c.commitGroup(t, w)
		switch {
		case err == nil:
			c.withhold(t, reason, w.messages)
			return nil
		case errors.Is(err, store.ErrNoState) && !w.rows:
			w.rows = true
		case some:
			w.messages = true
		default:
			c.withhold(t, err, false)
			return err
		}
		reason = err
	}
}

// commitGroup writes everything dirty but what is left out. some says that there are
// messages.
func (c *committer) commitGroup(t *turn, w without) (some bool, err error) {
	g := c.gather(w)
	some = len(g.batch.Records) > 0
	for _, s := range g.queues {
		if s.share == nil {
			g.batch.Queues = append(g.batch.Queues, s.position(c))
		}
	}
	for _, id := range g.orphans {
		g.batch.Queues = append(g.batch.Queues, store.Queue{ID: id, Gone: true})
	}
	g.losses = c.losses.take() // after the positions, which have settled them
	g.marks, g.batch.Marks = g.batch.Marks, slices.Concat(g.batch.Marks, g.losses)
	err = c.save(&g.batch)
	t.begin() // what is sent now is not as old as the commit
	c.flash.spend(t.now, c.store.Written())
	if err != nil {
		c.putBack(t, g)
		return some, err
	}
	for _, s := range g.queues {
		s.saved(t)
	}
	c.finish(t, g)
	if n := c.store.StateRebuilt(); n != c.rebuilt {
		c.rebuilt = n
		t.b.saveAll(t)
	}
	for _, then := range g.then {
		then(t, nil)
	}
	return some, nil
}

// gather takes everything dirty. It holds order, so no record is half noted, and
// no message stands between a share and the member that it was handed over to.
func (c *committer) gather(w without) *group {
	c.order.Lock()
	defer c.order.Unlock()
	g := c.take(w)
	for _, s := range g.queues {
		if s.share != nil {
			g.batch.Queues = append(g.batch.Queues, s.position(c))
		}
	}
	return g
}

// take takes everything dirty, or all that needs no messages: a receipt does not
// get to the disk before its message. Without rows whoever waits for what is no message
// goes on waiting: some wait for a row. The caller holds order.
func (c *committer) take(w without) *group {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy = true
	g := &group{line: c.line(), orphans: c.orphans}
	if w.messages {
		g.batch.Marks = c.marks.takeDeletions()
	} else {
		c.writeAll(g)
		g.batch.Marks = c.marks.take()
	}
	g.queues = c.dirty // messages have added to them
	c.dirty, c.orphans = nil, nil
	c.rowsDue, c.urgent = never, false
	if w.rows {
		c.rowsDue = c.now() + retryAfter
	} else {
		c.writing = c.rows.size
		g.batch.Rows, g.then = c.rows.take(), c.then
		c.then = nil
	}
	for _, s := range g.queues {
		s.moved = false
	}
	c.due = never
	return g
}

// writeAll adds all that waits. The caller holds mu.
func (c *committer) writeAll(g *group) {
	for i := range c.pend.len() {
		if r := *c.pend.at(i); r.state == waiting || r.state == writing {
			c.write(g, r)
		}
	}
}

// write adds r to the group. From here on its owners' acknowledgements have to
// get to the disk as well. The caller holds mu.
func (c *committer) write(g *group, r *record) {
	owners := make([]store.Owner, 0, len(r.owners))
	for i := range r.owners {
		o := &r.owners[i]
		if o.done && r.state == waiting {
			continue
		}
		owners = append(owners, store.Owner{Queue: o.s.queue, Tag: o.tag})
		if r.state == waiting {
			o.s.stored.add(1, int64(r.body.cost()))
			c.movedLocked(o.s)
		}
	}
	r.state = writing
	g.records = append(g.records, r)
	g.batch.Records = append(g.batch.Records, store.Record{Seq: r.seq, Owners: owners, Data: r.body.appendStored(nil, c.now(), g.line)})
}

// putBack makes dirty again what could not be written. What every owner has
// acknowledged meanwhile needs the store no more.
func (c *committer) putBack(t *turn, g *group) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy = false
	for _, r := range g.records {
		if r.left == 0 && r.state == writing {
			c.drop(t, r)
		}
	}
	c.trim()
	c.rows.putBack(g.batch.Rows)
	c.writing = 0
	c.weigh()
	c.marks.putBack(g.marks)
	c.losses.putBack(g.losses)
	c.then = append(g.then, c.then...)
	c.rowsDue = min(c.rowsDue, t.now+retryAfter)
	c.orphans = append(g.orphans, c.orphans...)
	for _, s := range g.queues {
		c.movedLocked(s)
	}
}

// finish keeps the promises that are on disk now.
func (c *committer) finish(t *turn, g *group) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy = false
	for _, r := range g.records {
		r.state = committed
		c.keep(t, r)
	}
	c.writing = 0
	c.weigh()
	c.trim()
	c.ease()
}

// report says once that the disk refuses, and once that it takes again.
func (c *committer) report(err error) {
	c.mu.Lock()
	before := c.failed
	c.failed = err
	c.mu.Unlock()
	switch {
	case err != nil && before == nil && errors.Is(err, store.ErrNoState):
		c.log.Error("cannot write state.db; sessions, subscriptions and retained messages are not acknowledged until it works again", "error", err)
	case err != nil && before == nil:
		c.log.Error("cannot write to the store; QoS 1 and 2 messages are not acknowledged until it works again", "error", err)
	case err == nil && before != nil:
		c.log.Info("the store takes messages again")
	}
}

// health returns why the store cannot be written, or nil.
func (c *committer) health() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed
}

// validQoS guards against a tag that no version of the gateway has written.
func validQoS(q mqtt.QoS) bool { return q == mqtt.AtLeastOnce || q == mqtt.ExactlyOnce }
