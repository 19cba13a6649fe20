package bridge

import (
	"context"
	"encoding/json"
	"math"
	"time"

	"tidegate/internal/clock"
	"tidegate/mqtt"
)

// The herald says to clients of this broker how the bridge fares, on retained
// topics below $SYS/broker/connection/NAME/: state is 1 or 0, mosquitto's name for it,
// and changes with the bridge; status is a [Report], and comes with each change and
// every heraldInterval.

const (
	heraldInterval = 10 * time.Second

	// paceTime is the time over which rates are averaged.
	paceTime = 30 * time.Second
)

// Report is what the topic status says. Ages, in seconds, are measured by a clock
// that nobody sets, and are right even where the times are not.
type Report struct {
	Name        string        `json:"name"`
	Server      string        `json:"server"` // connected, or tried last
	State       State         `json:"state"`
	Since       string        `json:"since"` // RFC 3339, since when it is up, or is not
	StateAge    float64       `json:"state_age_seconds"`
	Time        string        `json:"time"` // RFC 3339, of this report
	TimeQuality clock.Quality `json:"time_quality"`

	Backlog     int64             `json:"backlog"`                        // messages that wait
	Bytes       int64             `json:"backlog_bytes"`                  // of them
	OldestAge   *float64          `json:"oldest_age_seconds,omitempty"`   // of them
	LastAckAge  *float64          `json:"last_ack_age_seconds,omitempty"` // absent: never
	Rate        float64           `json:"rate"`                           // messages a second that were acknowledged lately
	ToEmpty     *float64          `json:"seconds_to_empty,omitempty"`     // as fast as the backlog got shorter lately; absent: it did not
	DeadLetters int64             `json:"dead_letters"`                   // put aside, and still there
	Error       string            `json:"error,omitempty"`                // why it is not up, or was not the last time
	ErrorAge    *float64          `json:"error_age_seconds,omitempty"`
	Failures    map[string]uint64 `json:"failures"` // tries and connections that failed, by cause
	In          Downward          `json:"in"`
}

// Report returns how the bridge fares and what waits for it, which ends what is gone, see pass.
func (b *Bridge) Report() Report {
	s, at := b.Status(), places{b.cfg.Name}
	waiting := b.local.Waiting(at.inbox())
	b.pass(waiting)
	now, quality := b.sealer.clock.Time()
	since := now.Add(-time.Since(s.Since))
	r := Report{
		Name: s.Name, Server: s.Server, State: s.State,
		Since: since.UTC().Format(timeFormat), StateAge: tenths(time.Since(s.Since)),
		Time: now.UTC().Format(timeFormat), TimeQuality: quality,
		Backlog: waiting.Messages, Bytes: waiting.Bytes, LastAckAge: ago(s.LastAck), Rate: math.Round(10*s.Rate) / 10,
		DeadLetters: b.local.Backlog(at.deadInbox()),
		Error:       s.Error, ErrorAge: ago(s.ErrorAt), Failures: s.Failures, In: s.In,
	}
	if waiting.Oldest > 0 {
		r.OldestAge = new(tenths(waiting.Oldest))
	}
	if d, ok := s.ToEmpty(waiting.Messages); ok {
		r.ToEmpty = new(tenths(d))
	}
	return r
}

// tenths returns d in seconds with one decimal.
func tenths(d time.Duration) float64 { return math.Round(10*d.Seconds()) / 10 }

// ago returns how long ago t was, nil for never.
func ago(t time.Time) *float64 {
	if t.IsZero() {
		return nil
	}
	return new(tenths(time.Since(t)))
}

// pace is how fast the bridge is, as of the last step: the average of the time since it
// began, and of paceTime at most.
type pace struct {
	begun   time.Time
	at      time.Time
	acked   uint64
	backlog int64

	rate   float64 // messages a second that were acknowledged
	shrink float64 // messages a second by which the backlog got shorter; below 0: longer
}

// begin forgets what was before, but says it until the next step.
func (p *pace) begin(now time.Time, acked uint64, backlog int64) {
	p.begun, p.at, p.acked, p.backlog = now, now, acked, backlog
}

// step does nothing within a second of the last one: a few messages are no average.
func (p *pace) step(now time.Time, acked uint64, backlog int64) {
	if p.begun.IsZero() {
		p.begin(now, acked, backlog)
	}
	dt := now.Sub(p.at).Seconds()
	if dt < 1 {
		return
	}
	weight := max(1-math.Exp(-dt/paceTime.Seconds()), dt/now.Sub(p.begun).Seconds())
	p.rate += (float64(acked-p.acked)/dt - p.rate) * weight
	p.shrink += (float64(p.backlog-backlog)/dt - p.shrink) * weight
	p.at, p.acked, p.backlog = now, acked, backlog
}

// measure brings the rates of the status up to date. It is done whenever somebody asks:
// a backlog may be gone before the next report is due.
func (b *Bridge) measure() { b.monitor.measure(b.ahead(), (*pace).step) }

// measureAnew has the rates begin where another backlog does: what was before says
// nothing of how long this one takes.
func (b *Bridge) measureAnew() { b.monitor.measure(b.ahead(), (*pace).begin) }

// ahead is what waits, with the dead letters that are being put back.
func (b *Bridge) ahead() int64 {
	return b.local.Backlog(places{b.cfg.Name}.inbox()) + b.returning.Load()
}

// herald publishes reports until ctx is done.
func (b *Bridge) herald(ctx context.Context) {
	tick := time.NewTicker(heraldInterval)
	defer tick.Stop()
	for {
		b.report(ctx)
		select {
		case <-tick.C:
		case <-b.changed:
		case <-ctx.Done():
			return
		}
	}
}

func (b *Bridge) report(ctx context.Context) {
	text, err := json.Marshal(b.Report())
	if err == nil {
		err = b.local.PublishAsync(ctx, mqtt.Message{Topic: b.topic("status"), Payload: text, Retain: true}, nil)
	}
	if err != nil && ctx.Err() == nil {
		b.log.Debug("bridge cannot publish its status", "error", err) // the state's warning says so already
	}
}

// topic names one of the bridge's own topics.
func (b *Bridge) topic(name string) string {
	return "$SYS/broker/connection/" + b.cfg.Name + "/" + name
}

// announce publishes the retained state topic, if it is to change, and has the
// herald report.
func (b *Bridge) announce(ctx context.Context, state string) {
	defer func() {
		select {
		case b.changed <- struct{}{}:
		default:
		}
	}()
	if state == b.announced {
		return
	}
	err := b.local.PublishAsync(ctx, mqtt.Message{Topic: b.topic("state"), Payload: []byte(state), QoS: mqtt.AtLeastOnce, Retain: true}, nil)
	if err != nil {
		b.log.Warn("bridge cannot publish its state", "state", state, "error", err)
		return
	}
	b.announced = state
}
