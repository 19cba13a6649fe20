package admin

import (
	"fmt"
	"io"
	"maps"
	"math"
	"runtime"
	"slices"
	"strings"

	"github.com/VictoriaMetrics/metrics"

	"tidegate/broker"
	"tidegate/internal/clock"
)

// metric is a family of samples, one for each T. A name that ends in _total is a
// counter's, any other a gauge's.
type metric[T any] struct {
	name, help string
	value      func(*T) float64 // NaN: there is none yet
}

var gatewayMetrics = []metric[Status]{
	{"tidegate_uptime_seconds", "Time since the gateway started.", func(s *Status) float64 { return float64(s.UptimeSeconds) }},
	{"tidegate_ready", "1 while every listener is up and the store takes messages.", func(s *Status) float64 { return oneIf(s.Ready) }},
	{"tidegate_problems", "Problems that the page lists.", func(s *Status) float64 { return float64(len(s.Problems)) }},

	{"tidegate_clock_synced", "1 once the system has said since the start that its clock is right.", func(s *Status) float64 { return oneIf(s.TimeQuality == clock.Synced) }},

	{"tidegate_broker_connections", "Clients connected.", func(s *Status) float64 { return float64(s.Broker.Connections) }},
	{"tidegate_broker_sessions", "Sessions, those of absent clients and of bridges and shared subscriptions included.", func(s *Status) float64 { return float64(s.Broker.Sessions) }},
	{"tidegate_broker_retained_messages", "Retained messages kept.", func(s *Status) float64 { return float64(s.Broker.Retained) }},
	{"tidegate_broker_queued_messages", "Messages that sessions are owed and have not acknowledged, counted for each session.", queued},
	{"tidegate_broker_packets_received_total", "MQTT packets from clients.", func(s *Status) float64 { return float64(s.Broker.PacketsReceived) }},
	{"tidegate_broker_messages_received_total", "Messages from clients and adapters.", func(s *Status) float64 { return float64(s.Broker.MessagesReceived) }},
	{"tidegate_broker_messages_sent_total", "Messages to clients.", func(s *Status) float64 { return float64(s.Broker.MessagesSent) }},
	{"tidegate_broker_messages_dropped_total", "Messages dropped because a bound was reached, they had expired, or a bridge could not carry them.", func(s *Status) float64 { return float64(s.Broker.MessagesDropped) }},
	{"tidegate_broker_connections_refused_total", "Connections with no CONNECT, a wrong one, or one too many.", func(s *Status) float64 { return float64(s.Broker.ConnectionsRefused) }},
	{"tidegate_broker_bad_credentials_total", "Connections refused for a wrong user name or password.", func(s *Status) float64 { return float64(s.Broker.BadCredentials) }},
	{"tidegate_broker_not_authorized_total", "Connections refused because the client, or its will, has no right.", func(s *Status) float64 { return float64(s.Broker.NotAuthorized) }},
	{"tidegate_broker_publications_denied_total", "Messages of clients that have no right to send them.", func(s *Status) float64 { return float64(s.Broker.PublicationsDenied) }},
	{"tidegate_broker_subscriptions_denied_total", "Subscriptions refused because the client has no right to anything in them.", func(s *Status) float64 { return float64(s.Broker.SubscriptionsDenied) }},
	{"tidegate_broker_retained_refused_total", "Retained messages not kept because a bound was reached.", func(s *Status) float64 { return float64(s.Broker.RetainedRefused) }},
	{"tidegate_broker_memory_limit_bytes", "Memory that clients may take together.", func(s *Status) float64 { return float64(s.Broker.MemoryLimit) }},

	{"tidegate_store_writable", "1 if the last commit worked.", func(s *Status) float64 { return oneIf(s.Store.Writable) }},
	{"tidegate_store_journal_bytes", "Disk space of the queues.", func(s *Status) float64 { return float64(s.Store.JournalBytes) }},
	{"tidegate_store_state_bytes", "Disk space of sessions and retained messages.", func(s *Status) float64 { return float64(s.Store.StateBytes) }},
	{"tidegate_store_used_bytes", "Disk space of the data directory.", func(s *Status) float64 { return float64(s.Store.UsedBytes) }},
	{"tidegate_store_max_size_bytes", "What it may take; 0: any.", func(s *Status) float64 { return float64(s.Store.MaxSizeBytes) }},
	{"tidegate_store_free_bytes", "What its file system has left.", func(s *Status) float64 { return orAbsent(s.Store.FreeBytes) }},
	{"tidegate_store_segments", "Files of the journal.", func(s *Status) float64 { return float64(s.Store.Segments) }},
	{"tidegate_store_commits_total", "Commits that wrote something.", func(s *Status) float64 { return float64(s.Store.Commits) }},
	{"tidegate_store_failed_commits_total", "Commits that failed.", func(s *Status) float64 { return float64(s.Store.FailedCommits) }},
	{"tidegate_store_refused_positions_total", "Commits of positions that their file refused.", func(s *Status) float64 { return float64(s.Store.RefusedPositions) }},
	{"tidegate_store_commit_seconds_total", "Time that commits took.", func(s *Status) float64 { return float64(s.Store.CommitSeconds) }},
	{"tidegate_store_last_commit_seconds", "Time that the last commit took.", func(s *Status) float64 { return float64(s.Store.LastCommitSeconds) }},
	{"tidegate_store_commit_interval_seconds", "How long a commit waits at the longest, as flash_budget has it now.", func(s *Status) float64 { return s.Broker.Flash.Interval }},
	{"tidegate_store_flash_budget_bytes", "What may be written in a day; 0: no limit.", func(s *Status) float64 { return float64(s.Broker.Flash.Budget) }},
	{"tidegate_store_flash_over_budget", "1 while more is written than flash_budget allows.", func(s *Status) float64 { return oneIf(s.Broker.Flash.Over) }},
	{"tidegate_store_records_total", "Messages written.", func(s *Status) float64 { return float64(s.Store.Records) }},
	{"tidegate_store_record_bytes_total", "Bytes of the messages written.", func(s *Status) float64 { return float64(s.Store.RecordBytes) }},
	{"tidegate_store_corrupt_records_total", "Messages lost to damage on the disk.", func(s *Status) float64 { return float64(s.Store.CorruptRecords) }},
	{"tidegate_store_corrupt_rows_total", "Sessions and retained messages lost to damage on the disk.", func(s *Status) float64 { return float64(s.Store.CorruptRows) }},
	{"tidegate_store_rewritten_segments_total", "Files of the journal written anew, smaller.", func(s *Status) float64 { return float64(s.Store.RewrittenSegments) }},
	{"tidegate_store_quarantined_files_total", "Damaged files set aside.", func(s *Status) float64 { return float64(s.Store.QuarantinedFiles) }},
}

var bridgeMetrics = []metric[Bridge]{
	{"tidegate_bridge_connected", "1 while a server upstream takes messages.", func(b *Bridge) float64 { return oneIf(b.Connected()) }},
	{"tidegate_bridge_backlog_messages", "Messages queued for upstream and not acknowledged.", func(b *Bridge) float64 { return float64(b.Backlog) }},
	{"tidegate_bridge_backlog_bytes", "Bytes of them.", func(b *Bridge) float64 { return float64(b.BacklogBytes) }},
	{"tidegate_bridge_inflight_messages", "Messages sent upstream and not yet acknowledged.", func(b *Bridge) float64 { return float64(b.InFlight) }},
	{"tidegate_bridge_acknowledged_total", "Messages that upstream acknowledged.", func(b *Bridge) float64 { return float64(b.Acknowledged) }},
	{"tidegate_bridge_last_ack_age_seconds", "Time since upstream acknowledged a message; absent before the first.", func(b *Bridge) float64 { return orNaN(b.LastAckAgeSeconds) }},
	{"tidegate_bridge_oldest_age_seconds", "Age of the oldest message queued for upstream; absent if there is none.", func(b *Bridge) float64 { return orNaN(b.OldestAgeSeconds) }},
	{"tidegate_bridge_connects_total", "Connections made.", func(b *Bridge) float64 { return float64(b.Connects) }},
	{"tidegate_bridge_returns_total", "Returns to the first server because it is well again.", func(b *Bridge) float64 { return float64(b.Returns) }},
	{"tidegate_bridge_refused_total", "Messages dropped because they can never be carried.", func(b *Bridge) float64 { return float64(b.Refused) }},
	{"tidegate_bridge_dead_letters", "Messages that upstream refused for good, kept aside.", func(b *Bridge) float64 { return float64(b.DeadLetters) }},
	{"tidegate_bridge_in_received_total", "Messages from upstream that were published here.", func(b *Bridge) float64 { return float64(b.In.Received) }},
	{"tidegate_bridge_in_again_total", "Those of them that upstream may have sent before.", func(b *Bridge) float64 { return float64(b.In.Again) }},
	{"tidegate_bridge_unmatched_total", "Messages dropped because the rule they were queued under is gone.", func(b *Bridge) float64 { return float64(b.Unmatched) }},
}

// named is how often something happened to a bridge, by a fixed word.
type named struct {
	bridge, name string
	count        uint64
}

var failureMetrics = []metric[named]{
	{"tidegate_bridge_failures_total", "Tries to connect and connections that failed, by cause.", func(n *named) float64 { return float64(n.count) }},
}

var inDroppedMetrics = []metric[named]{
	{"tidegate_bridge_in_dropped_total", "Messages from upstream that were dropped, by reason.", func(n *named) float64 { return float64(n.count) }},
}

func failures(list []Bridge) (all []named) {
	for i := range list {
		for _, c := range counts(list[i].Failures) {
			all = append(all, named{list[i].Name, c.name, c.count})
		}
	}
	return all
}

func inDropped(list []Bridge) (all []named) {
	for i := range list {
		b, in := list[i].Name, &list[i].In
		all = append(all, named{b, "echo", in.Echoes}, named{b, "expired", in.Expired}, named{b, "refused", in.Refused}, named{b, "unmatched", in.Unmatched})
	}
	return all
}

var adapterMetrics = []metric[Adapter]{
	{"tidegate_adapter_online", "1 while the device is there.", func(a *Adapter) float64 { return oneIf(a.Online()) }},
	{"tidegate_adapter_frames_total", "Frames that were understood.", func(a *Adapter) float64 { return float64(a.Frames) }},
	{"tidegate_adapter_readings_total", "Readings that the adapter made of them.", func(a *Adapter) float64 { return float64(a.Readings) }},
	{"tidegate_adapter_published_total", "Readings that became messages.", func(a *Adapter) float64 { return float64(a.Published) }},
	{"tidegate_adapter_last_reading_age_seconds", "Time since the last reading; absent before the first.", func(a *Adapter) float64 { return orNaN(a.LastReadingAgeSeconds) }},
}

// rejection is how much an adapter rejected for one reason.
type rejection struct {
	adapter, reason string
	count           uint64
}

var rejectionMetrics = []metric[rejection]{
	{"tidegate_adapter_rejected_total", "Frames and readings that were refused, by reason.", func(r *rejection) float64 { return float64(r.count) }},
}

// count is how much there is of something that has a fixed name.
type count struct {
	name  string
	count uint64
}

var (
	refusalMetrics = []metric[count]{
		{"tidegate_broker_refused_total", "Connections, sessions, subscriptions and packets that the broker has refused, by reason.", func(c *count) float64 { return float64(c.count) }},
	}
	memoryMetrics = []metric[count]{
		{"tidegate_broker_memory_bytes", "Memory that clients take, as the broker estimates it.", func(c *count) float64 { return float64(c.count) }},
	}
)

// wear is what the store has written for one part.
type wear struct {
	part string
	Wear
}

var wearMetrics = []metric[wear]{
	{"tidegate_store_written_bytes_total", "Bytes that the store has written to the disk, by what for.", func(w *wear) float64 { return float64(w.Bytes) }},
	{"tidegate_store_syncs_total", "Times that it had the disk confirm that.", func(w *wear) float64 { return float64(w.Syncs) }},
}

var lossMetrics = []metric[broker.Loss]{
	{"tidegate_broker_lost_messages_total", "Messages of the loss ledger, by reason, since the data directory was made.", func(l *broker.Loss) float64 { return float64(l.Count) }},
	{"tidegate_broker_lost_bytes_total", "Their bytes, as far as known.", func(l *broker.Loss) float64 { return float64(l.Bytes) }},
}

// writeMetrics writes st in the text format of Prometheus, and what the process
// uses. Labels carry only names from the configuration and fixed words.
func writeMetrics(w io.Writer, st *Status) {
	build := metric[Status]{"tidegate_build_info", "What runs; always 1.", func(*Status) float64 { return 1 }}
	build.write(w, []Status{*st}, func(*Status) string {
		return label("version", st.Version) + "," + label("goversion", runtime.Version())
	})
	write(w, gatewayMetrics, []Status{*st}, func(*Status) string { return "" })
	write(w, refusalMetrics, counts(st.Broker.Refused), func(c *count) string { return label("reason", c.name) })
	write(w, memoryMetrics, counts(st.Broker.Memory), func(c *count) string { return label("for", c.name) })
	write(w, lossMetrics, byReason(st.Losses), func(l *broker.Loss) string { return label("reason", l.Reason) })
	write(w, wearMetrics, wears(st.Store.Written), func(w *wear) string { return label("part", w.part) })
	write(w, bridgeMetrics, st.Bridges, func(b *Bridge) string { return label("bridge", b.Name) })
	write(w, failureMetrics, failures(st.Bridges), func(n *named) string { return label("bridge", n.bridge) + "," + label("cause", n.name) })
	write(w, inDroppedMetrics, inDropped(st.Bridges), func(n *named) string { return label("bridge", n.bridge) + "," + label("reason", n.name) })
	write(w, adapterMetrics, st.Adapters, func(a *Adapter) string { return label("adapter", a.Name) })
	write(w, rejectionMetrics, rejections(st.Adapters), func(r *rejection) string {
		return label("adapter", r.adapter) + "," + label("reason", r.reason)
	})
	metrics.WriteProcessMetrics(w)
}

func write[T any](w io.Writer, families []metric[T], items []T, labels func(*T) string) {
	for _, m := range families {
		m.write(w, items, labels)
	}
}

func (m *metric[T]) write(w io.Writer, items []T, labels func(*T) string) {
	kind := "gauge"
	if strings.HasSuffix(m.name, "_total") {
		kind = "counter"
	}
	if len(items) > 0 {
		fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", m.name, m.help, m.name, kind)
	}
	for i := range items {
		name := m.name
		if l := labels(&items[i]); l != "" {
			name += "{" + l + "}"
		}
		writeSample(w, name, m.value(&items[i]))
	}
}

// writeSample writes whole numbers without an exponent, so that people can read
// them; the format has one type for both. No value here is negative.
func writeSample(w io.Writer, name string, v float64) {
	switch {
	case math.IsNaN(v):
	case v == math.Trunc(v) && v < 1<<53:
		metrics.WriteGaugeUint64(w, name, uint64(v))
	default:
		metrics.WriteGaugeFloat64(w, name, v)
	}
}

// label writes one label with its value quoted as the format wants it.
func label(name, value string) string {
	return name + `="` + escapes.Replace(value) + `"`
}

var escapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

func queued(s *Status) (sum float64) {
	for i := range s.Sessions {
		sum += float64(s.Sessions[i].Queued)
	}
	return sum
}

// byReason sums up the ledger: sessions and filters are no labels.
func byReason(list []broker.Loss) (sums []broker.Loss) {
	for _, l := range list {
		i := slices.IndexFunc(sums, func(s broker.Loss) bool { return s.Reason == l.Reason })
		if i < 0 {
			i, sums = len(sums), append(sums, broker.Loss{Reason: l.Reason})
		}
		sums[i].Count += l.Count
		sums[i].Bytes += l.Bytes
	}
	slices.SortFunc(sums, func(x, y broker.Loss) int { return strings.Compare(x.Reason, y.Reason) })
	return sums
}

func rejections(list []Adapter) (all []rejection) {
	for i := range list {
		for _, reason := range slices.Sorted(maps.Keys(list[i].Rejected)) {
			all = append(all, rejection{list[i].Name, reason, list[i].Rejected[reason]})
		}
	}
	return all
}

func counts(byName map[string]uint64) (all []count) {
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		all = append(all, count{name, byName[name]})
	}
	return all
}

func wears(byPart map[string]Wear) (all []wear) {
	for _, part := range slices.Sorted(maps.Keys(byPart)) {
		all = append(all, wear{part, byPart[part]})
	}
	return all
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func orAbsent(n int64) float64 {
	if n == 0 {
		return math.NaN()
	}
	return float64(n)
}

func orNaN(s *Seconds) float64 {
	if s == nil {
		return math.NaN()
	}
	return float64(*s)
}
