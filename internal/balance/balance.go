// Package balance holds a broker to its accounts, for the tests of those who embed
// one: what sessions were owed is delivered, queued or in the loss ledger.
package balance

import (
	"fmt"
	"testing"

	"tidegate/broker"
)

// Of returns what is unaccounted for in what a broker says of itself at rest, nil if
// nothing is.
func Of(st *broker.Status, losses []broker.Loss) error {
	sum := st.MessagesDelivered + st.MessagesQueued
	for _, l := range losses {
		sum += int64(l.Count)
	}
	if sum == st.MessagesAccepted {
		return nil
	}
	return fmt.Errorf("%d messages were accepted, %d delivered, %d are queued, and lost are %+v",
		st.MessagesAccepted, st.MessagesDelivered, st.MessagesQueued, losses)
}

// Check is Of for a broker whose Serve has returned.
func Check(t testing.TB, b *broker.Broker) {
	t.Helper()
	st := b.Status()
	if err := Of(&st, b.Losses()); err != nil {
		t.Error(err)
	}
}
