package main

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"time"

	"tidegate/broker"
	"tidegate/mqtt"
)

// lossInterval is how often the ledger is published, if it has changed.
const lossInterval = 10 * time.Second

// maxLossRows bounds the message; the sums have all rows.
const maxLossRows = 100

// lossReport is the message on gateway/<name>/loss.
type lossReport struct {
	Messages uint64        `json:"messages"` // all that were lost since the data directory was made
	Bytes    uint64        `json:"bytes"`
	AtLeast  bool          `json:"at_least,omitempty"` // a row has a lower bound
	Losses   []broker.Loss `json:"losses"`             // what lost something last comes first, at most 100 rows
}

func newLossReport(list []broker.Loss) (r lossReport) {
	for _, l := range list {
		r.Messages += l.Count
		r.Bytes += l.Bytes
		r.AtLeast = r.AtLeast || l.AtLeast
	}
	r.Losses = latest(list, maxLossRows)
	return r
}

// latest returns the rows that lost something last, at most limit.
func latest(list []broker.Loss, limit int) []broker.Loss {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(x, y broker.Loss) int { return y.Last.Compare(x.Last) })
	return list[:min(len(list), limit)]
}

// reportLosses publishes the loss ledger at once and with every tick, if it has
// changed, until ctx is done.
func (g *gateway) reportLosses(ctx context.Context, tick <-chan time.Time) {
	last, _ := json.Marshal(newLossReport([]broker.Loss{})) // no news
	for {
		report, _ := json.Marshal(newLossReport(g.broker.Losses())) // strings, numbers and times of this era only
		if !bytes.Equal(report, last) && g.publishLosses(ctx, report) {
			last = report
		}
		select {
		case <-tick:
		case <-ctx.Done():
			return
		}
	}
}

// publishLosses reports whether it could. At QoS 1 a report that is itself lost
// would make the next one.
func (g *gateway) publishLosses(ctx context.Context, report []byte) (ok bool) {
	topic := "gateway/" + g.cfg.Gateway.Name + "/loss"
	err := g.broker.PublishAsync(ctx, mqtt.Message{Topic: topic, Payload: report, Retain: true}, nil)
	if err != nil && ctx.Err() == nil {
		g.log.Warn("cannot publish the loss ledger", "error", err)
	}
	return err == nil
}
