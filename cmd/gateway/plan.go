package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"tidegate/internal/units"
)

// PlanCmd says how much disk an outage needs.
type PlanCmd struct {
	configFlag
	outputFlag

	Rate  float64
	Size  units.Size
	Hours float64
	Topic units.Size

	Card          units.Size
	Cycles        float64
	Amplification float64
}

func (c *PlanCmd) define(p *params) {
	c.configFlag.define(p)
	c.outputFlag.define(p)
	p.Float64Var(&c.Rate, "rate", 0, "`NUMBER` of messages a second, as 50 or 0.1.")
	p.TextVar(&c.Size, "size", units.Size(0), "`SIZE` of a payload, as 128B or 1KiB.")
	p.Float64Var(&c.Hours, "hours", 0, "`HOURS` that nobody takes them.")
	p.TextVar(&c.Topic, "topic", units.Size(30), "`SIZE` of a topic.")
	p.TextVar(&c.Card, "card", units.Size(16e9), "`SIZE` of the card.")
	p.Float64Var(&c.Cycles, "cycles", 1000, "`TIMES` that the card's cells can be written; 1000 is cheap TLC flash, pSLC cards have 20000 and more.")
	p.Float64Var(&c.Amplification, "amplification", 3, "How many `TIMES` more the card writes inside than it is given; small writes cost a card more than their size.")
	for _, name := range []string{"rate", "size", "hours"} {
		p.require(name)
	}
}

// Help is shown by --help.
func (PlanCmd) Help() string {
	return `Says what the queue of an absent consumer takes on the disk, when the limits of the
configuration are reached, and what the writing does to an SD card. A message that is owed
to several queues is stored once. Bytes are what the store was measured to take: the record
with topic and time, in pages of 4 KiB, and for each commit three pages more. Who waits for
acknowledgements (QoS 1 and 2) gets a commit every commit_interval; readings of adapters are
written once a second. While all consumers keep up no message is written at all.

Example:

    tidegate plan --rate 50 --size 128B --hours 72 --config /etc/tidegate/tidegate.yaml`
}

// Run prints the plan.
func (c *PlanCmd) Run(_ context.Context, std stdio) error {
	if err := c.check(); err != nil {
		return &usageError{"plan", err}
	}
	cfg, err := c.load()
	if err != nil {
		return err
	}
	p := c.plan(cfg)
	if c.Output == "json" {
		return printJSON(std, p)
	}
	_, err = io.WriteString(std.Out, p.text(c))
	return err
}

func (c *PlanCmd) check() error {
	for _, n := range []float64{c.Rate, c.Hours, c.Cycles, c.Amplification, float64(c.Card)} {
		if !(n > 0) || n > 1e15 {
			return errors.New("rate, hours, card, cycles and amplification have to be numbers above 0")
		}
	}
	if c.Topic < 1 || c.Topic > math.MaxUint16 {
		return errors.New("a topic has 1 to 65535 bytes")
	}
	return nil
}

// plan is what an outage takes.
type plan struct {
	Messages        float64     `json:"messages"`
	BytesPerMessage float64     `json:"bytes_per_message"` // on the disk
	Bytes           float64     `json:"bytes"`
	Segments        float64     `json:"segments"` // files of the journal
	Writing         []writing   `json:"writing"`
	Limits          []planLimit `json:"limits"`
}

// writing is what is written while the queue grows.
type writing struct {
	Who       string  `json:"who"`
	Commits   float64 `json:"commits_per_second"`
	PerDay    float64 `json:"bytes_per_day"`
	CardYears float64 `json:"card_years"` // that the card lasts, if it never ends
}

// planLimit is a bound of the configuration.
type planLimit struct {
	Name     string     `json:"name"`
	Size     units.Size `json:"size"`
	Hours    float64    `json:"full_after_hours"`
	Exceeded bool       `json:"exceeded"`
	Then     string     `json:"then"` // what happens
}

// What the store takes, see docs/format.md; TestPlanAgreesWithTheDisk measures it.
const (
	planPage    = 4096
	planHead    = 16 // of a page
	planRecord  = 46 // beside topic and payload: frame, owner, time, key and page element
	planCommit  = 3  // pages beside those of the records: branch, top, meta
	planSegment = 16 // pages beside those of the records
)

// lazyCommit is how long what nobody waits for may take to the disk.
const lazyCommit = time.Second

func (c *PlanCmd) plan(cfg *Config) plan {
	p := plan{Messages: c.Rate * c.Hours * 3600, BytesPerMessage: onDisk(float64(c.Size + c.Topic))}
	segment := float64(cfg.Store.SegmentSize)
	p.Bytes = p.Messages * p.BytesPerMessage
	p.Segments = math.Ceil(p.Bytes / segment)
	p.Bytes += p.Segments * planSegment * planPage
	interval := time.Duration(cfg.Store.CommitInterval)
	p.Writing = []writing{
		c.writing("readings of adapters", max(interval, lazyCommit)),
		c.writing("clients that wait, QoS 1 and 2", interval),
	}
	growth := p.Bytes / c.Hours
	for _, b := range cfg.Bridges {
		p.limit("bridges."+b.Name+".queue.max_disk", b.Queue.MaxDisk, growth, string(b.Queue.Overflow))
	}
	p.limit("broker.queue.max_disk", cfg.Broker.Queue.MaxDisk, growth, string(cfg.Broker.Queue.Overflow))
	p.limit("store.max_size", cfg.Store.MaxSize, growth, "the largest queue gives up by its own policy")
	return p
}

// onDisk is what a message of n bytes takes in a page that is full: bbolt puts at
// least two records into one.
func onDisk(n float64) float64 {
	record := n + planRecord
	fit := max(2, math.Floor((planPage-planHead)/record))
	return pagesOf(fit, record) * planPage / fit
}

// pagesOf returns how many pages so many records take together.
func pagesOf(n, record float64) float64 { return math.Ceil((planHead + n*record) / planPage) }

// leafPages returns how many pages of records a commit of n messages writes, on
// average: with the new ones, what is in the last leaf. bbolt divides a leaf that is
// too large only if it has more than four records.
func leafPages(n, record float64) float64 {
	const commits = 1000
	fit := max(2, math.Floor((planPage-planHead)/record))
	pages, come, last := 0.0, 0.0, 0.0
	for range commits {
		come += n
		last += math.Floor(come)
		come -= math.Floor(come)
		for last > 4 && planHead+last*record > planPage {
			pages += pagesOf(fit, record)
			last -= fit
		}
		pages += pagesOf(last, record)
	}
	return pages / commits
}

// writing is what is written when there is a commit at most every interval.
func (c *PlanCmd) writing(who string, interval time.Duration) writing {
	w := writing{Who: who, Commits: min(c.Rate, 1/interval.Seconds())}
	w.PerDay = w.Commits * (planCommit + leafPages(c.Rate/w.Commits, float64(c.Size+c.Topic)+planRecord)) * planPage * 86400
	w.CardYears = float64(c.Card) * c.Cycles / (w.PerDay * c.Amplification) / 365
	return w
}

func (p *plan) limit(name string, size units.Size, growth float64, then string) {
	if size > 0 {
		p.Limits = append(p.Limits, planLimit{Name: name, Size: size, Hours: float64(size) / growth, Exceeded: p.Bytes > float64(size), Then: then})
	}
}

func (p *plan) text(c *PlanCmd) string {
	var b strings.Builder
	fmt.Fprintf(&b, "messages        %.0f of %d bytes\n", p.Messages, c.Size)
	fmt.Fprintf(&b, "on the disk     %s, %.0f bytes a message, %.0f files\n", megabytes(p.Bytes), p.BytesPerMessage, p.Segments)
	for _, w := range p.Writing {
		fmt.Fprintf(&b, "\n%s\n", w.Who)
		fmt.Fprintf(&b, "  written       %s a day in %.3g commits a second\n", megabytes(w.PerDay), w.Commits)
		fmt.Fprintf(&b, "  the card      lasts %s if that goes on day and night\n", years(w.CardYears))
	}
	fmt.Fprintf(&b, "\nThe card is taken to have %s, to be good for %.0f writings of each cell, and to write %.3g\n"+
		"times what it is given: see --card, --cycles, --amplification.\n", megabytes(float64(c.Card)), c.Cycles, c.Amplification)
	for _, l := range p.Limits {
		if l.Exceeded {
			fmt.Fprintf(&b, "\nwarning: %s: %s is full after %.3g hours; then %s\n", l.Name, l.Size, l.Hours, l.Then)
		}
	}
	return b.String()
}

// megabytes writes n as makers of disks count.
func megabytes(n float64) string {
	if n >= 1e9 {
		return fmt.Sprintf("%.3g GB", n/1e9)
	}
	return fmt.Sprintf("%.3g MB", n/1e6)
}

func years(n float64) string {
	if n < 1 {
		return fmt.Sprintf("%.0f days", n*365)
	}
	return fmt.Sprintf("%.3g years", n)
}
