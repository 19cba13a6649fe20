package broker

import (
	"context"
	"sync"
	"time"
)

// alarms do things at a time to come: end a session that stayed away, publish a
// will that was held back, look for messages that are too old. There is one of each kind for a session, so their
// number is bounded.
type alarms struct {
	mu   sync.Mutex
	set  map[alarmKey]alarm
	wake chan struct{} // holds one token while an earlier alarm may have been set
}

type alarmKey struct {
	s    *session
	kind alarmKind
}

type alarmKind byte

const (
	sessionExpires alarmKind = iota
	willIsDue
	queueAges
)

type alarm struct {
	at int64 // broker time
	do func(*turn)
}

// put sets the alarm, in place of the one that was set before.
func (a *alarms) put(key alarmKey, at int64, do func(*turn)) {
	a.mu.Lock()
	a.set[key] = alarm{at, do}
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// drop takes the alarm back and reports whether there was one.
func (a *alarms) drop(key alarmKey) (was bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, was = a.set[key]
	delete(a.set, key)
	return was
}

// run does what is due until ctx is done.
func (a *alarms) run(ctx context.Context, t *turn) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.wake:
		case <-timer.C:
		}
		t.begin()
		due, next := a.due(t.now)
		for _, do := range due {
			do(t)
		}
		t.end()
		timer.Reset(time.Duration(next - t.now))
	}
}

// due takes out what is to be done at now, and returns when the next is.
func (a *alarms) due(now int64) (list []func(*turn), next int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	next = now + int64(time.Hour)
	for key, al := range a.set {
		if al.at <= now {
			list = append(list, al.do)
			delete(a.set, key)
		} else {
			next = min(next, al.at)
		}
	}
	return list, next
}
