package main

import (
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"tidegate/admin"
	"tidegate/broker"
	"tidegate/store"
)

// queuesText is the table of `queue list`.
func queuesText(list []admin.Queue) string {
	if len(list) == 0 {
		return "no queues: nobody has a session that outlives its connection\n"
	}
	var b strings.Builder
	var rows [][]string
	var losses []broker.Loss
	for i := range list {
		q := &list[i]
		oldest := "-"
		if q.OldestAgeSeconds != nil {
			oldest = q.OldestAgeSeconds.String()
		}
		rows = append(rows, []string{shorten(q.Name, maxQueue), shorten(q.Kind, maxState), queueState(q), count(q.Messages), size(q.DiskBytes), oldest, count(q.Lost())})
		losses = append(losses, q.Losses...)
	}
	writeTable(&b, []string{"QUEUE", "KIND", "STATE", "MESSAGES", "ON DISK", "OLDEST", "LOST"}, rows)
	writeLosses(&b, losses)
	return strings.TrimPrefix(b.String(), "\n")
}

func queueState(q *admin.Queue) string {
	switch {
	case q.Connected:
		return "connected"
	case q.Unclaimed:
		return "unclaimed"
	}
	return "absent"
}

// maxQueue is the longest name in the table that is shown as it is.
const maxQueue = 28

// messageText is the line of `queue dump`, and a second one for its properties.
func messageText(m *admin.Message) string {
	at := "-"
	if !m.Time.IsZero() {
		at = m.Time.UTC().Format("2006-01-02T15:04:05.000")
		if m.Quality == "unsynced" {
			at = "~" + at
		}
	}
	retain := ""
	if m.Retain {
		retain = " retained"
	}
	line := fmt.Sprintf("%d  %s  qos %d%s  %s  %s\n", m.Seq, at, m.QoS, retain, printable(m.Topic), payloadText(m))
	if p := propertiesText(m); p != "" {
		line += "    " + p + "\n"
	}
	return line
}

// payloadText is the payload for a terminal.
func payloadText(m *admin.Message) string {
	switch {
	case m.Payload == nil:
		return "0x" + hex.EncodeToString(m.Binary)
	case *m.Payload == "":
		return "(empty)"
	case printable(*m.Payload) == *m.Payload:
		return *m.Payload
	}
	return fmt.Sprintf("%q", *m.Payload)
}

func propertiesText(m *admin.Message) string {
	var list []string
	add := func(name, value string) {
		if value != "" {
			list = append(list, name+": "+printable(value))
		}
	}
	if m.ExpirySeconds != 0 {
		add("expires in", (time.Duration(m.ExpirySeconds) * time.Second).String())
	}
	add("content type", m.ContentType)
	add("response topic", m.ResponseTopic)
	add("correlation data", hex.EncodeToString(m.CorrelationData))
	for _, u := range m.User {
		add(u.Name, u.Value)
	}
	return strings.Join(list, ", ")
}

// reportText is what `queue verify` prints.
func reportText(r *store.Report) string {
	var b strings.Builder
	for i := range r.Damage {
		writeDamage(&b, &r.Damage[i])
	}
	for _, m := range r.Missing {
		fmt.Fprintf(&b, "queue %d (\"id\" of queue list -o json) is owed %d records, and %d are there: a file of the journal is gone\n", m.Queue, m.Pending, m.Found)
	}
	fmt.Fprintf(&b, "%d files, %d sound records, %d rows: ", r.Files, r.Records, r.Rows)
	if len(r.Damage) == 0 {
		b.WriteString("no damage\n")
	} else {
		fmt.Fprintf(&b, "damaged files: %d\n", len(r.Damage))
	}
	return b.String()
}

func writeDamage(b *strings.Builder, d *store.Damage) {
	fmt.Fprintf(b, "%s: ", d.File)
	switch {
	case d.Unreadable && d.AtMost > 0:
		fmt.Fprintf(b, "it cannot be read; at most %d records are concerned\n", d.AtMost)
	case d.Unreadable:
		b.WriteString("it cannot be read\n")
	default:
		fmt.Fprintf(b, "damaged records: %d, damaged rows: %d\n", d.Records, d.Rows)
	}
	for _, f := range d.Findings {
		fmt.Fprintf(b, "    %s\n", printable(f))
	}
	if d.More > 0 {
		fmt.Fprintf(b, "    and %d more\n", d.More)
	}
	if d.Unreadable {
		fmt.Fprintf(b, "    %s\n", consequence(d.File))
	}
}

// consequence says what the gateway does with a file that it cannot read.
func consequence(file string) string {
	if file == "state.db" {
		return "The next start sets it aside: sessions, subscriptions and retained messages start empty."
	}
	return "The gateway sets it aside when it meets it: its records are lost, the rest goes on."
}
