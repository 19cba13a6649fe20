package load

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// Report is the outcome of a run. Times are in seconds, sizes in bytes, latencies
// and processor time per message in microseconds. What a scenario does not
// measure is 0.
type Report struct {
	Scenario string `json:"scenario"`
	Version  int    `json:"mqtt"`
	QoS      int    `json:"qos"`
	Size     int    `json:"size"`
	N        int    `json:"n"`
	Pubs     int    `json:"pubs,omitempty"` // publishers

	Sent       int64 `json:"sent"`
	Acked      int64 `json:"acked,omitempty"`
	Refused    int64 `json:"refused,omitempty"` // of Acked, those that the broker says it did not take
	Expected   int64 `json:"expected"`          // deliveries
	Received   int64 `json:"received"`          // with duplicates
	Lost       int64 `json:"lost"`
	Duplicates int64 `json:"duplicates"`
	Unordered  int64 `json:"unordered"`         // came behind a later message of their topic
	Foreign    int64 `json:"foreign,omitempty"` // not of this run

	Seconds         float64  `json:"seconds"`                    // from the first message, or the return of who was away, to the last delivery
	MsgPerSecond    float64  `json:"msg_per_second"`             // deliveries in that time
	SentPerSecond   float64  `json:"sent_per_second,omitempty"`  // acknowledged to the publishers
	Latency         *Latency `json:"latency_us,omitempty"`       // from publisher to subscriber, or of a connect
	Acknowledged    *Latency `json:"acknowledged_us,omitempty"`  // from a publication to its acknowledgement, where nothing is delivered meanwhile
	Broker          *Cost    `json:"broker,omitempty"`           // nil: no process to measure
	GeneratorCPU    float64  `json:"generator_cpu_seconds"`      //
	OtherCPU        float64  `json:"other_cpu_seconds"`          // of all other processes, which disturb
	ConnectionsLost int      `json:"connections_lost,omitempty"` // subscribers and idle ones

	Connections          int64   `json:"connections,omitempty"`            // of conns
	ConnectionsPerSecond float64 `json:"connections_per_second,omitempty"` //
	Held                 float64 `json:"held_seconds,omitempty"`           // how long they idled

	SessionPresent *bool   `json:"session_present,omitempty"` // the absent client's session was kept
	Restart        float64 `json:"restart_seconds,omitempty"` // from the signal until the broker took connections again

	Error string `json:"error,omitempty"` // the first that happened; the figures are of little use
}

// Latency is how long something took.
type Latency struct {
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

func (l *Latency) String() string {
	return fmt.Sprintf("p50 %.0f µs, p90 %.0f µs, p99 %.0f µs, max %.0f µs", l.P50, l.P90, l.P99, l.Max)
}

// Cost is what the broker's process used.
type Cost struct {
	CPU        float64 `json:"cpu_seconds"`
	CPUPerMsg  float64 `json:"cpu_us_per_msg,omitempty"`
	CPUPerConn float64 `json:"cpu_us_per_connection,omitempty"`
	IdleCPU    float64 `json:"idle_cpu_seconds,omitempty"` // while connections were held
	RSSBefore  int64   `json:"rss_before"`
	RSSPeak    int64   `json:"rss_peak"` // looked at each 100 ms
	RSSAfter   int64   `json:"rss_after"`
	RSSPerConn float64 `json:"rss_per_connection,omitempty"`
	AnonPeak   int64   `json:"rss_anon_peak"`
	Disk       int64   `json:"disk_bytes"` // written
	DiskPerMsg float64 `json:"disk_bytes_per_msg,omitempty"`
	DiskStored float64 `json:"disk_bytes_per_msg_stored,omitempty"` // of offline: until the client came back
}

// fail notes the first error of the run.
func (r *Report) fail(err error) {
	if err != nil && r.Error == "" {
		r.Error = err.Error()
	}
}

// published notes what publishers sent in so many nanoseconds.
func (r *Report) published(took int64, pubs []*publisher) {
	r.Pubs = len(pubs)
	var acknowledged histogram
	for _, p := range pubs {
		r.Sent += p.sent
		r.Acked += p.c.acked.Load()
		r.Refused += p.c.refused.Load()
		r.Expected += p.expected
		r.fail(p.err)
		if t := p.c.times; t != nil {
			p.c.mu.Lock()
			acknowledged.merge(&t.took)
			p.c.mu.Unlock()
		}
	}
	r.Acknowledged = acknowledged.summary()
	r.SentPerSecond = ratio(float64(r.Sent), float64(took)/1e9, 0)
}

// connections notes connections that ended by themselves.
func (r *Report) connections(conns []*conn) {
	for _, c := range conns {
		if c == nil {
			continue
		}
		if err := c.lost(); err != nil {
			r.ConnectionsLost++
			r.fail(fmt.Errorf("connection lost: %w", err))
		}
	}
}

// delivered notes what receivers got since start. Their read loops have ended.
func (r *Report) delivered(start int64, receivers []*receiver) {
	var latency histogram
	last := start
	for _, rec := range receivers {
		r.Received += rec.received
		r.Duplicates += rec.duplicates
		r.Unordered += rec.unordered
		r.Foreign += rec.foreign
		latency.merge(&rec.latency)
		last = max(last, rec.last.Load())
	}
	r.Lost = r.Expected - (r.Received - r.Duplicates)
	r.Seconds = round(float64(last-start)/1e9, 6)
	r.MsgPerSecond = ratio(float64(r.Received), float64(last-start)/1e9, 0)
	r.Latency = latency.summary()
}

// opened notes connections that were opened.
func (r *Report) opened(c *crowd, took time.Duration) {
	r.Connections = c.opened
	r.Seconds = seconds(took)
	r.ConnectionsPerSecond = ratio(float64(c.opened), took.Seconds(), 0)
	r.Latency = c.latency.summary()
}

// summary is the histogram in a few numbers, nil if it is empty.
func (h *histogram) summary() *Latency {
	if h.n == 0 {
		return nil
	}
	us := func(ns int64) float64 { return round(float64(ns)/1e3, 1) }
	return &Latency{us(h.quantile(.5)), us(h.quantile(.9)), us(h.quantile(.99)), us(h.highest)}
}

// String is the report as a line for people.
func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, MQTT %s, QoS %d: ", r.Scenario, map[int]string{4: "3.1.1", 5: "5"}[r.Version], r.QoS)
	if r.Scenario == "conns" {
		fmt.Fprintf(&b, "%d of %d connections in %.2f s (%.0f/s), %d lost", r.Connections, r.N, r.Seconds, r.ConnectionsPerSecond, r.ConnectionsLost)
	} else {
		r.writeMessages(&b)
	}
	if l := r.Latency; l != nil {
		b.WriteString("; " + l.String())
	}
	if l := r.Acknowledged; l != nil {
		b.WriteString("; acknowledged after " + l.String())
	}
	if r.Broker != nil {
		r.Broker.write(&b)
	}
	fmt.Fprintf(&b, "; generator %.2f s CPU", r.GeneratorCPU)
	if r.Error != "" {
		fmt.Fprintf(&b, "; FAILED: %s", r.Error)
	}
	return b.String()
}

func (r *Report) writeMessages(b *strings.Builder) {
	fmt.Fprintf(b, "%d of %d delivered in %.2f s (%.0f/s), sent at %.0f/s", r.Received-r.Duplicates, r.Expected, r.Seconds, r.MsgPerSecond, r.SentPerSecond)
	fmt.Fprintf(b, "; %d lost, %d twice, %d out of order", r.Lost, r.Duplicates, r.Unordered)
	if r.Restart > 0 {
		fmt.Fprintf(b, "; restarted in %.2f s", r.Restart)
	}
}

func (c *Cost) write(b *strings.Builder) {
	const mb = 1e6
	fmt.Fprintf(b, "; broker %.2f s CPU", c.CPU)
	switch {
	case c.CPUPerConn > 0:
		fmt.Fprintf(b, " (%.1f µs a connection), %.0f B RSS a connection, %.2f s CPU held", c.CPUPerConn, c.RSSPerConn, c.IdleCPU)
	case c.CPUPerMsg > 0:
		fmt.Fprintf(b, " (%.2f µs a message), %.0f B to disk a message", c.CPUPerMsg, c.DiskPerMsg)
	}
	if c.DiskStored > 0 {
		fmt.Fprintf(b, " (%.0f before the client came back)", c.DiskStored)
	}
	fmt.Fprintf(b, ", RSS %.1f MB (anonymous %.1f)", float64(c.RSSPeak)/mb, float64(c.AnonPeak)/mb)
}

func seconds(d time.Duration) float64 { return round(d.Seconds(), 3) }

// round keeps so many digits behind the point.
func round(v float64, digits int) float64 {
	scale := math.Pow10(digits)
	return math.Round(v*scale) / scale
}

// ratio is a/b rounded, or 0 where there is no b.
func ratio(a, b float64, digits int) float64 {
	if b == 0 {
		return 0
	}
	return round(a/b, digits)
}
