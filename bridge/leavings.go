package bridge

import (
	"context"
	"errors"
	"slices"
	"strings"

	"tidegate/mqtt"
)

// A server keeps the session of a bridge with rules for in, and in it each filter that the
// bridge ever subscribed to, also once the rule is gone. So the bridge has to know them:
// they are subscriptions of its inbox, below a place where nothing is published.

// maxListening bounds the filters that a bridge knows beside those of its rules.
const maxListening = 1000

// recall has the bridge know the filters that the sessions of its servers may have: those
// of its rules, and what its inbox says. What that says of out is looked at as well.
func (b *Bridge) recall() {
	if b.listening == nil {
		b.listening = []string{}
		kept := b.local.Filters(places{b.cfg.Name}.inbox())
		for _, f := range kept {
			if f, ok := strings.CutPrefix(f, places{b.cfg.Name}.in()); ok && len(b.listening) < maxListening {
				b.listening = append(b.listening, f)
			}
		}
		b.lookForGone(kept)
	}
	for _, sub := range b.cfg.wanted() {
		if !slices.Contains(b.listening, sub.Filter) {
			b.listening = append(b.listening, sub.Filter)
		}
	}
}

// reminders are what makes the inbox say so, and what is gone from out.
func (b *Bridge) reminders() []mqtt.Subscription {
	at := places{b.cfg.Name}
	return slices.Concat(below(at.in(), b.listening), below(at.out(), b.monitor.snapshot().Gone))
}

// below are subscriptions to filters at a place where nothing is published.
func below(place string, filters []string) (subs []mqtt.Subscription) {
	for _, f := range filters {
		if f = place + f; mqtt.ValidFilter(f) == nil { // it may be too long now
			subs = append(subs, mqtt.Subscription{Filter: f})
		}
	}
	return subs
}

// leavings are the filters that the rules have no more, but for those that alone still bring
// what the server refuses under a new one; why is its answer to the new ones.
func (b *Bridge) leavings(why error) []string {
	refused := new(subscribeError)
	if why != nil && !errors.As(why, &refused) {
		return nil // it may have taken none
	}
	var wanted, taken []string
	for _, sub := range b.cfg.wanted() {
		wanted = append(wanted, sub.Filter)
		if !slices.Contains(refused.filters, sub.Filter) {
			taken = append(taken, sub.Filter)
		}
	}
	return slices.DeleteFunc(slices.Clone(b.listening), func(f string) bool {
		lacks := slices.ContainsFunc(refused.filters, func(r string) bool { return overlap(r, f) })
		twice := slices.ContainsFunc(taken, func(has string) bool { return covers(has, f) })
		return slices.Contains(wanted, f) || lacks && !twice
	})
}

// leave has the server of l forget the leavings, and then the bridge, unless another
// server may have a session of its own. why is what that answered to the subscriptions.
func (b *Bridge) leave(ctx context.Context, l link, why error) {
	gone := b.leavings(why)
	if len(gone) == 0 {
		return
	}
	if l.resumed() {
		if err := l.unlisten(ctx, gone); err != nil {
			if !b.saidKept && ctx.Err() == nil && l.alive().Err() == nil {
				b.saidKept = true
				b.log.Warn("bridge cannot unsubscribe from what no rule of in has any more; each connection tries again", "filters", gone, "error", err)
			}
			return
		}
		b.log.Info("bridge has unsubscribed from what no rule of in has any more", "filters", gone)
	}
	if len(b.cfg.Servers) == 1 {
		b.listening = slices.DeleteFunc(b.listening, func(f string) bool { return slices.Contains(gone, f) })
	}
}
