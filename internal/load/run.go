package load

import (
	"context"
	"fmt"
	"os"
	"time"

	"tidegate/mqtt/packet"
)

// run is one scenario under way.
type run struct {
	o      *Options
	epoch  time.Time // the zero of the times in payloads, on the monotonic clock
	broker *broker
	meter  *meter
	report *Report
}

// scenario is what can be run.
type scenario struct {
	name string
	run  func(*run, context.Context) error
}

// scenarios lists them all.
func scenarios() []scenario {
	return []scenario{
		{"p2p", (*run).p2p},
		{"fanout", (*run).fanout},
		{"fanin", (*run).fanin},
		{"wildcard", (*run).wildcard},
		{"retained", (*run).retained},
		{"conns", (*run).conns},
		{"offline", (*run).offline},
	}
}

// Scenarios are the names that Options.Scenario takes:
//
//   - p2p: N publishers, each to a subscriber of its own.
//   - fanout: one publisher to N subscribers.
//   - fanin: N publishers to one subscriber.
//   - wildcard: Pubs publishers to N subscribers that share Filters filters.
//   - retained: N retained topics, and then one subscriber that takes them all.
//   - conns: N idle connections, each with a subscription.
//   - offline: Pubs publishers to a durable session whose client is away, until it
//     comes back; meanwhile the broker may be killed and started again.
func Scenarios() []string {
	var names []string
	for _, s := range scenarios() {
		names = append(names, s.name)
	}
	return names
}

// Run runs a scenario and ends what it started, the broker included. The error
// says why there is no report; a run that went wrong on its way has a report with
// an Error. A report with losses is no error.
func Run(ctx context.Context, o Options) (*Report, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	r := &run{o: &o, epoch: time.Now(), broker: &broker{o: &o}}
	r.report = &Report{Scenario: o.Scenario, Version: int(o.Version), QoS: int(o.QoS), Size: o.Size, N: o.N}
	if err := r.broker.start(ctx); err != nil {
		return nil, err
	}
	defer r.broker.stop()
	r.meter = &meter{broker: r.broker, report: r.report}
	if err := r.meter.begin(); err != nil {
		return nil, err
	}
	r.meter.watch()
	defer r.meter.end()
	for _, s := range scenarios() {
		if s.name == o.Scenario {
			r.report.fail(s.run(r, ctx))
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return r.report, nil
}

// now is the time since the run began, in nanoseconds.
func (r *run) now() int64 { return int64(time.Since(r.epoch)) }

// connect opens a connection whose session ends with it.
func (r *run) connect(ctx context.Context, name string) (*conn, error) {
	return r.dialer().connect(ctx, r.hello(name))
}

func (r *run) dialer() dialer {
	return dialer{addr: r.o.Addr, buffer: busyBuffer, timeout: r.o.Timeout}
}

// hello is the CONNECT of the client with that name. Its identifier is one that no
// run beside this one has.
func (r *run) hello(name string) *packet.Connect {
	clientID := fmt.Sprintf("bench-%d-%s", os.Getpid(), name)
	return &packet.Connect{Version: r.o.Version, CleanSession: true, KeepAlive: uint16(r.o.KeepAlive), ClientID: clientID}
}

// settle waits until count has reached want, or has not moved for the drain time.
func (r *run) settle(ctx context.Context, count func() int64, want int64) {
	n, since := count(), time.Now()
	for n < want && time.Since(since) < r.o.Drain && pause(ctx, 2*time.Millisecond) {
		if m := count(); m != n {
			n, since = m, time.Now()
		}
	}
}

// pause waits; false: ctx is done.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// topics makes n topics out of their numbers.
func topics(format string, n int) [][]byte {
	list := make([][]byte, n)
	for i := range list {
		list[i] = fmt.Appendf(nil, format, i)
	}
	return list
}
