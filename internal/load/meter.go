package load

import (
	"strconv"
	"sync"
	"time"
)

// meter charges the broker's process, and ours, for what they use between begin
// and charge.
type meter struct {
	broker *broker
	report *Report
	from   reading

	stop     chan struct{} // ends the watching
	watching sync.WaitGroup

	mu        sync.Mutex // guards the peaks
	rss, anon int64      // bytes
}

// reading is what everybody has used so far.
type reading struct {
	broker  usage
	self    float64 // seconds
	machine float64
}

// watchInterval is how often memory is looked at for its peak.
const watchInterval = 100 * time.Millisecond

// watch follows the broker's memory until end.
func (m *meter) watch() {
	if m.broker.pid.Load() == 0 {
		return
	}
	m.stop = make(chan struct{})
	m.watching.Go(func() {
		tick := time.NewTicker(watchInterval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				_, _ = m.read() // it may be about to start again
			case <-m.stop:
				return
			}
		}
	})
}

// end ends the watching.
func (m *meter) end() {
	if m.stop != nil {
		close(m.stop)
		m.watching.Wait()
	}
}

// begin starts a stretch that charge ends.
func (m *meter) begin() error {
	now, err := m.read()
	m.from = now
	if cost := m.report.Broker; err == nil && cost == nil && m.broker.pid.Load() != 0 {
		m.report.Broker = &Cost{RSSBefore: now.broker.rss}
	}
	return err
}

// read looks at everything once.
func (m *meter) read() (reading, error) {
	r := reading{machine: machineCPU()}
	if self, err := processUsage("self"); err == nil {
		r.self = self.cpu
	}
	pid := m.broker.pid.Load()
	if pid == 0 {
		return r, nil
	}
	var err error
	r.broker, err = processUsage(strconv.FormatInt(pid, 10))
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rss, m.anon = max(m.rss, r.broker.rss), max(m.anon, r.broker.anon)
	return r, err
}

// charge writes the use since begin into the report. messages is what the whole
// cost so far is shared by; 0: not shared.
func (m *meter) charge(messages int64) error {
	now, err := m.read()
	if err != nil {
		return err
	}
	self, machine := now.self-m.from.self, now.machine-m.from.machine
	m.report.GeneratorCPU = round(m.report.GeneratorCPU+self, 2)
	cost := m.report.Broker
	if cost == nil {
		return nil
	}
	cpu := now.broker.cpu - m.from.broker.cpu
	m.report.OtherCPU = round(m.report.OtherCPU+max(0, machine-self-cpu), 2)
	cost.CPU = round(cost.CPU+cpu, 2)
	cost.CPUPerMsg = ratio(cost.CPU*1e6, float64(messages), 2)
	cost.Disk += now.broker.disk - m.from.broker.disk
	cost.DiskPerMsg = ratio(float64(cost.Disk), float64(messages), 0)
	cost.RSSAfter = now.broker.rss
	m.mu.Lock()
	defer m.mu.Unlock()
	cost.RSSPeak, cost.AnonPeak = m.rss, m.anon
	if n := m.report.Connections; n > 0 {
		cost.CPUPerConn = ratio(cost.CPU*1e6, float64(n), 1)
		cost.RSSPerConn = ratio(float64(cost.RSSAfter-cost.RSSBefore), float64(n), 0)
	}
	return nil
}

// chargeIdle writes what the broker used since begin to keep connections alive.
func (m *meter) chargeIdle(held time.Duration) error {
	now, err := m.read()
	if err != nil || m.report.Broker == nil {
		return err
	}
	m.report.Broker.IdleCPU = round(now.broker.cpu-m.from.broker.cpu, 2)
	m.report.Held = seconds(held)
	return nil
}
