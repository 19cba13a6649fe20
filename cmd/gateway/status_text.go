package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"
	"unicode/utf8"

	"tidegate/admin"
	"tidegate/broker"
	"tidegate/internal/units"
)

// The status fits on any terminal.
const (
	statusWidth = 100
	maxName     = 16 // of a bridge or adapter
	maxState    = 8
	maxPlace    = 32 // of a server or device
	maxCauses   = 16
	maxClient   = 44
	maxClients  = 20 // rows; programs take -o json
	maxFilter   = 24
	maxLosses   = 10 // rows
)

// statusText writes st for people: what is wrong first.
func statusText(st *admin.Status) string {
	var b strings.Builder
	writeVerdict(&b, st.Problems)
	fmt.Fprintf(&b, "\n%s, version %s, up %s, clock: %s, %s\n", shorten(st.Name, maxName), shorten(st.Version, 16),
		st.UptimeSeconds, st.Time.UTC().Format("2006-01-02 15:04:05 UTC"), shorten(string(st.TimeQuality), maxState))
	writeBridges(&b, st.Bridges)
	writeTraffic(&b, st.Bridges)
	writeAdapters(&b, st.Adapters)
	writeSessions(&b, st)
	writeLosses(&b, st.Losses)
	writeBroker(&b, st)
	return b.String()
}

func writeVerdict(b *strings.Builder, problems []string) {
	const mark, indent = "PROBLEM  ", "         "
	for _, p := range problems {
		start := mark
		for _, line := range wrap(printable(p), statusWidth-len(mark)) {
			b.WriteString(start + line + "\n")
			start = indent
		}
	}
	if len(problems) == 0 {
		b.WriteString("all well\n")
	}
}

func writeBridges(b *strings.Builder, bridges []admin.Bridge) {
	var rows [][]string
	for _, br := range bridges {
		rows = append(rows, []string{
			shorten(br.Name, maxName), shorten(br.State, maxState), br.StateAgeSeconds.String(), shorten(br.Server, maxPlace),
			count(br.Backlog), count(br.Acknowledged), everAgo(br.LastAckAgeSeconds),
		})
	}
	writeTable(b, []string{"BRIDGE", "STATE", "FOR", "SERVER", "QUEUED", "ACKED", "LAST ACK"}, rows)
}

// writeTraffic says how large what is queued is, how fast each bridge gets on, what came down, and what failed.
func writeTraffic(b *strings.Builder, bridges []admin.Bridge) {
	var rows [][]string
	for i := range bridges {
		br := &bridges[i]
		rows = append(rows, []string{
			shorten(br.Name, maxName), size(br.BacklogBytes), orDash(br.OldestAgeSeconds), rate(br.Rate), orDash(br.SecondsToEmpty),
			count(br.DeadLetters), count(br.In.Received), count(br.In.Echoes + br.In.Expired + br.In.Refused + br.In.Unmatched),
			shorten(causes(br.Failures), maxCauses),
		})
	}
	writeTable(b, []string{"BRIDGE", "BACKLOG", "OLDEST", "RATE", "EMPTY IN", "ASIDE", "IN", "DROPPED", "FAILED"}, rows)
}

// causes is "3 tcp, 1 stalled", what happened most first.
func causes(failures map[string]uint64) string {
	names := slices.Sorted(maps.Keys(failures))
	slices.SortStableFunc(names, func(x, y string) int { return cmp.Compare(failures[y], failures[x]) })
	for i, name := range names {
		names[i] = count(failures[name]) + " " + name
	}
	return strings.Join(names, ", ")
}

// orDash is a dash for nil.
func orDash(s *admin.Seconds) string {
	if s == nil {
		return "-"
	}
	return s.String()
}

func writeAdapters(b *strings.Builder, adapters []admin.Adapter) {
	var rows [][]string
	for _, a := range adapters {
		var rejected uint64
		for n := range maps.Values(a.Rejected) {
			rejected += n
		}
		rows = append(rows, []string{
			shorten(a.Name, maxName), shorten(string(a.State), maxState), a.StateAgeSeconds.String(), shorten(a.Device, maxPlace),
			count(a.Readings), everAgo(a.LastReadingAgeSeconds), count(rejected),
		})
	}
	writeTable(b, []string{"ADAPTER", "STATE", "FOR", "DEVICE", "READINGS", "LAST", "REJECTED"}, rows)
}

// writeSessions lists those of clients; a bridge's is its queue, shown above.
func writeSessions(b *strings.Builder, st *admin.Status) {
	clients := slices.DeleteFunc(slices.Clone(st.Sessions), func(s broker.SessionStatus) bool { return s.Inbox })
	var rows [][]string
	for _, s := range clients[:min(len(clients), maxClients)] {
		state := "absent"
		if s.Connected {
			state = "connected"
		}
		rows = append(rows, []string{shorten(s.ID, maxClient), state, count(s.Queued), count(s.OnDisk), count(s.Dropped)})
	}
	writeTable(b, []string{"CLIENT", "STATE", "QUEUED", "ON DISK", "DROPPED"}, rows)
	if more := len(clients) - len(rows) + max(0, st.Broker.Sessions-len(st.Sessions)); more > 0 {
		fmt.Fprintf(b, "and %d more clients with shorter queues\n", more)
	}
}

// writeLosses lists what lost something last.
func writeLosses(b *strings.Builder, losses []broker.Loss) {
	var rows [][]string
	for _, l := range latest(losses, maxLosses) {
		rows = append(rows, []string{
			shorten(l.Session, maxFilter), shorten(l.Filter, maxFilter), shorten(l.Reason, maxName), lost(&l),
			l.Last.UTC().Format("2006-01-02 15:04:05"),
		})
	}
	writeTable(b, []string{"LOST BY", "FILTER", "REASON", "LOST", "LAST, UTC"}, rows)
	if more := len(losses) - len(rows); more > 0 {
		fmt.Fprintf(b, "and %d more rows of the loss ledger\n", more)
	}
}

// lost is how many messages the row counts.
func lost(l *broker.Loss) string {
	if l.AtLeast {
		return "at least " + count(l.Count)
	}
	return count(l.Count)
}

func writeBroker(b *strings.Builder, st *admin.Status) {
	br, s := st.Broker, st.Store
	fmt.Fprintf(b, "\nbroker  clients connected: %s, retained messages: %s\n", count(br.Connections), count(br.Retained))
	fmt.Fprintf(b, "        messages: %s received, %s sent, %s dropped; connections refused: %s\n",
		count(br.MessagesReceived), count(br.MessagesSent), count(br.MessagesDropped), count(br.ConnectionsRefused))
	state := "writable"
	if !s.Writable {
		state = "NOT WRITABLE"
	}
	fmt.Fprintf(b, "store   %s; %s, journal files: %d; commits: %s, the last took %s\n",
		state, size(s.JournalBytes+s.StateBytes), s.Segments, count(s.Commits), s.LastCommitSeconds)
	fmt.Fprintf(b, "        %s\n", wearText(s.Written, st.UptimeSeconds))
}

// wearText says what was written, and how much that is in a day if it goes on so.
func wearText(byPart map[string]admin.Wear, up admin.Seconds) string {
	var all admin.Wear
	for _, w := range byPart {
		all.Bytes += w.Bytes
		all.Syncs += w.Syncs
	}
	text := fmt.Sprintf("written: %s, syncs: %s", size(int64(all.Bytes)), count(all.Syncs))
	if up < 60 {
		return text
	}
	return text + fmt.Sprintf("; at this rate %s a day", size(int64(float64(all.Bytes)/float64(up)*86400)))
}

// writeTable writes nothing for no rows.
func writeTable(b *strings.Builder, head []string, rows [][]string) {
	if len(rows) == 0 {
		return
	}
	b.WriteByte('\n')
	table := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{head}, rows...) {
		fmt.Fprintln(table, strings.Join(row, "\t"))
	}
	table.Flush() // a strings.Builder takes everything
}

// everAgo is "never" for nil.
func everAgo(s *admin.Seconds) string {
	if s == nil {
		return "never"
	}
	return s.String()
}

// count writes n in at most seven characters.
func count[T int | int64 | uint64](n T) string {
	if n < 10_000_000 {
		return strconv.FormatInt(int64(n), 10)
	}
	v, unit := float64(n)/1e6, 0
	for ; v >= 1000 && unit < len(large)-1; unit++ {
		v /= 1000
	}
	return fmt.Sprintf("%.1f%c", v, large[unit])
}

// rate writes so many messages a second in at most nine characters.
func rate(r float64) string {
	if r < 100 {
		return fmt.Sprintf("%.1f/s", r)
	}
	return count(int64(r)) + "/s"
}

// large are the units of millions and on.
const large = "MGTPE"

// size writes bytes with one decimal at most.
func size(n int64) string {
	switch {
	case n >= 1024*int64(units.GiB):
		return fmt.Sprintf("%.1f TiB", float64(n)/1024/float64(units.GiB))
	case n >= int64(units.GiB):
		return fmt.Sprintf("%.1f GiB", float64(n)/float64(units.GiB))
	case n >= int64(units.MiB):
		return fmt.Sprintf("%.1f MiB", float64(n)/float64(units.MiB))
	}
	return fmt.Sprintf("%d KiB", (n+int64(units.KiB)-1)/int64(units.KiB))
}

// printable replaces what would move the cursor or colour the terminal: client ids
// and errors are written by strangers.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

// shorten takes out of the middle what is over limit: both ends tell devices and
// servers apart. Nothing at all is a dash.
func shorten(s string, limit int) string {
	runes := []rune(printable(s))
	if len(runes) > limit {
		tail := limit / 2
		runes = slices.Concat(runes[:limit-tail-1], []rune("…"), runes[len(runes)-tail:])
	}
	return cmp.Or(string(runes), "-")
}

// wrap breaks s at spaces into lines of at most width characters; a longer word is
// broken anywhere.
func wrap(s string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(s) {
		if line != "" && utf8.RuneCountInString(line+" "+word) <= width {
			line += " " + word
			continue
		}
		if line != "" {
			lines = append(lines, line)
		}
		runes := []rune(word)
		for ; len(runes) > width; runes = runes[width:] {
			lines = append(lines, string(runes[:width]))
		}
		line = string(runes)
	}
	return append(lines, line)
}
