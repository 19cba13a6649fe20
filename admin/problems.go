package admin

import (
	"fmt"
	"strconv"
	"strings"
)

// problems says in words what is wrong with the gateway that st describes, what
// concerns everything first. It is the one place that decides what is worth
// somebody's attention; counters that only ever rise are not, but for losses that
// will go on until somebody does something.
func problems(st *Status, unready error) []string {
	list := []string{} // [] in JSON, not null
	add := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	if unready != nil {
		add("not ready: %v", unready)
	}
	for i := range st.Bridges {
		b := &st.Bridges[i]
		if !b.Connected() {
			add("bridge %s: not connected for %s, messages waiting: %d%s", b.Name, b.StateAgeSeconds, b.Backlog, because(b.Error))
		}
		if b.DeadLetters > 0 {
			add("bridge %s: messages that the server refuses, kept aside: %d; the log says why", b.Name, b.DeadLetters)
		}
		if b.Refused > 0 {
			add("bridge %s: messages dropped since the start because they cannot be carried: %d; check strip and prefix of its rules", b.Name, b.Refused)
		}
		if len(b.Gone) > 0 && b.Backlog > 0 {
			add("bridge %s: messages wait for topics that no rule of out names any more, %d at most: %s; those that no other rule matches are dropped when their turn comes; "+
				"to keep them, write the topics under out again and restart; queue export copies what waits", b.Name, b.Backlog, quoted(b.Gone))
		}
		if b.Unmatched > 0 {
			add("bridge %s: messages dropped since the start because the rule of out that had queued them is gone: %d, the last on %s; "+
				"to keep those that still wait, write its topics under out again and restart", b.Name, b.Unmatched, b.LastUnmatched)
		}
	}
	for _, q := range st.Sessions {
		if q.Unclaimed {
			add("queue %s: no bridge of this name is configured, messages kept: %d; give a bridge the name again, or keep a copy (queue export) and remove it (queue purge)", q.ID, q.Queued)
		}
	}
	for i := range st.Adapters {
		if a := &st.Adapters[i]; !a.Online() {
			add("adapter %s: %s for %s%s", a.Name, a.State, a.StateAgeSeconds, because(a.LastError))
		}
	}
	if s := st.Store; s.MaxSizeBytes > 0 && s.UsedBytes > s.MaxSizeBytes/10*9 {
		add("store: holds %d MiB, store.max_size is %d MiB: whoever has the most gives up its oldest messages; raise it, or see who takes nothing",
			s.UsedBytes>>20, s.MaxSizeBytes>>20)
	}
	if f := st.Broker.Flash; f.Over {
		add("store: writes more than flash_budget allows, %d bytes a day, although commits wait for up to %s: see tidegate_store_written_bytes_total, or raise the budget",
			f.Budget, Seconds(f.Interval))
	}
	if s := st.Store; s.QuarantinedFiles+s.MissingFiles+s.CorruptRecords+s.CorruptRows > 0 {
		add("store: damage found since the start (files set aside: %d, files missing: %d, messages lost: %d, rows lost: %d): see the log, replace the card",
			s.QuarantinedFiles, s.MissingFiles, s.CorruptRecords, s.CorruptRows)
	}
	return list
}

// quoted is the topics that are gone as text, each in quotes.
func quoted(gone []string) string {
	var all []string
	for _, s := range gone {
		all = append(all, strconv.Quote(s))
	}
	if len(gone) == maxGone {
		all = append(all, "and what else the log names")
	}
	return strings.Join(all, ", ")
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return "; " + reason
}
