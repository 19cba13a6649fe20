package admin

import (
	"cmp"
	"slices"
	"time"

	"tidegate/adapters"
	"tidegate/bridge"
	"tidegate/broker"
	"tidegate/internal/clock"
	"tidegate/mqtt"
	"tidegate/store"
)

// Status is the document at /api/v1/status. Counters start at 0 when the gateway
// starts. Ages and other spans are in seconds and were measured by a clock that
// nobody sets, so they are right even while the points in time beside them are not:
// many boards do not know the date before they reach the network.
type Status struct {
	Name          string    `json:"name"`
	Version       string    `json:"version"`
	Time          time.Time `json:"time"` // when the document was made
	Started       time.Time `json:"started"`
	UptimeSeconds Seconds   `json:"uptime_seconds"`

	TimeQuality clock.Quality `json:"time_quality"` // of the time of day: synced, or unsynced since the start

	Ready    bool     `json:"ready"`    // as /readyz
	Problems []string `json:"problems"` // what somebody has to look at, the most serious first

	Broker   broker.Status          `json:"broker"`   // whose Sessions is how many there are
	Sessions []broker.SessionStatus `json:"sessions"` // the longest queue first, at most 1000
	Losses   []broker.Loss          `json:"losses"`   // the loss ledger, at most some 1000 rows
	Bridges  []Bridge               `json:"bridges"`
	Adapters []Adapter              `json:"adapters"`
	Store    Store                  `json:"store"`
}

// Bridge is how a bridge fares, see [bridge.Status], and what waits for it.
type Bridge struct {
	Name              string    `json:"name"`
	Server            string    `json:"server"` // connected, or tried last
	State             string    `json:"state"`  // down, dialing, up or draining
	Since             time.Time `json:"since"`  // since when it is up, or is not
	StateAgeSeconds   Seconds   `json:"state_age_seconds"`
	Backlog           int64     `json:"backlog"`         // messages queued for it and not acknowledged
	BacklogBytes      int64     `json:"backlog_bytes"`   // of them
	Error             string    `json:"error,omitempty"` // why it is not up, or was not the last time
	ErrorAt           time.Time `json:"error_at,omitzero"`
	Acknowledged      uint64    `json:"acknowledged"`             // messages the server acknowledged
	Refused           uint64    `json:"refused"`                  // messages that can never be carried, and were dropped
	Unmatched         uint64    `json:"unmatched"`                // messages queued under rules that are gone, and dropped
	LastUnmatched     string    `json:"last_unmatched,omitempty"` // topic of the last of them
	Gone              []string  `json:"gone,omitempty"`           // the first topics of former rules of out, ten at most, while messages wait that were queued under these
	DeadLetters       int64     `json:"dead_letters"`             // messages the server refused for good, kept aside
	InFlight          int       `json:"in_flight"`                // sent and not yet acknowledged
	Connects          uint64    `json:"connects"`
	LastAck           time.Time `json:"last_ack,omitzero"`
	LastAckAgeSeconds *Seconds  `json:"last_ack_age_seconds,omitempty"` // nil: never
	OldestAgeSeconds  *Seconds  `json:"oldest_age_seconds,omitempty"`   // of what is queued; nil: nothing is, or it is not known
	Rate              float64   `json:"rate"`                           // messages a second that were acknowledged lately
	SecondsToEmpty    *Seconds  `json:"seconds_to_empty,omitempty"`     // as fast as the backlog got shorter lately; nil: it did not
	Returns           uint64    `json:"returns"`                        // to the first server

	Failures map[string]uint64 `json:"failures"` // tries and connections that failed, by cause
	In       bridge.Downward   `json:"in"`       // what came from upstream
}

// Connected reports whether a server upstream is there and takes messages, or
// acknowledges the last ones.
func (b *Bridge) Connected() bool {
	return b.State == bridge.Up.String() || b.State == bridge.Draining.String()
}

// Adapter is how an adapter fares.
type Adapter struct {
	adapters.Status
	StateAgeSeconds       Seconds  `json:"state_age_seconds"`
	LastReadingAgeSeconds *Seconds `json:"last_reading_age_seconds,omitempty"` // nil: never
}

// Online reports whether the device is there.
func (a *Adapter) Online() bool { return a.State == adapters.Online }

// Store is how the store fares, as far as it concerns those who run the gateway.
type Store struct {
	Writable          bool    `json:"writable"`        // as far as the last commit tells
	Error             string  `json:"error,omitempty"` // why it is not
	JournalBytes      int64   `json:"journal_bytes"`   // what the queues take on the disk
	StateBytes        int64   `json:"state_bytes"`
	Segments          int     `json:"segments"`
	Commits           uint64  `json:"commits"`
	FailedCommits     uint64  `json:"failed_commits"`
	RefusedPositions  uint64  `json:"refused_positions"` // by their file; the newest segment took them instead
	CommitSeconds     Seconds `json:"commit_seconds"`    // all commits together
	LastCommitSeconds Seconds `json:"last_commit_seconds"`
	Records           uint64  `json:"records"` // written
	RecordBytes       uint64  `json:"record_bytes"`
	CorruptRecords    uint64  `json:"corrupt_records"` // damaged on the disk, and so lost
	CorruptRows       uint64  `json:"corrupt_rows"`    // likewise, of sessions and retained messages
	QuarantinedFiles  uint64  `json:"quarantined_files"`
	MissingFiles      uint64  `json:"missing_files"`      // state.db was not there, and a journal was
	RewrittenSegments uint64  `json:"rewritten_segments"` // smaller, without what nobody needs

	UsedBytes    int64 `json:"used_bytes"`           // of the disk, damaged files that were set aside included
	MaxSizeBytes int64 `json:"max_size_bytes"`       // 0: any
	FreeBytes    int64 `json:"free_bytes,omitempty"` // what its file system has left; 0: it does not say
	AsideBytes   int64 `json:"aside_bytes"`          // damaged files that were set aside; only a person removes them

	Written map[string]Wear `json:"written"` // by what for; the names are in docs/operations.md
}

// Wear is what was written to the disk.
type Wear struct {
	Bytes uint64 `json:"bytes"`
	Syncs uint64 `json:"syncs"`
}

// Status makes the document. It may be called from any goroutine, at any time
// between [New] and the closing of the store, and costs one look at each part.
func (s *Server) Status() Status {
	st := Status{
		Name: s.src.Name, Version: s.src.Version,
		Time: time.Now().UTC(), Started: s.src.Started.UTC(), UptimeSeconds: since(s.src.Started),
		TimeQuality: s.src.Clock.Quality(),
		Broker:      s.src.Broker.Status(),
		Sessions:    longest(s.src.Broker.Sessions()),
		Losses:      s.src.Broker.Losses(),
		Bridges:     make([]Bridge, 0, len(s.src.Bridges)),
		Adapters:    make([]Adapter, 0, len(s.src.Adapters)),
	}
	for _, b := range s.src.Bridges {
		b := b.Status()
		st.Bridges = append(st.Bridges, newBridge(b, s.src.Broker.Waiting("bridge/"+b.Name), s.src.Broker.Backlog("bridge/"+b.Name+"/dead")))
	}
	for _, a := range s.src.Adapters {
		st.Adapters = append(st.Adapters, newAdapter(a.Status()))
	}
	st.Store = newStore(s.src.Store.Stats(), st.Broker.StoreError)
	if sp, err := s.src.Store.Space(); err == nil {
		st.Store.FreeBytes, st.Store.AsideBytes = sp.Free, sp.Aside
	}
	st.Store.UsedBytes = st.Store.JournalBytes + st.Store.StateBytes + st.Store.AsideBytes
	st.Store.MaxSizeBytes = st.Broker.MaxStoreSize
	for part, w := range s.src.Store.Wear() {
		st.Store.Written[part] = Wear(w)
	}
	unready := s.unready(st.Broker)
	st.Ready = unready == nil
	st.Problems = problems(&st, unready)
	return st
}

// maxSessions bounds the document: its size is part of the memory limit.
const maxSessions = 1000

// longest returns those of list, which it changes, that have the longest queues.
func longest(list []broker.SessionStatus) []broker.SessionStatus {
	slices.SortStableFunc(list, func(x, y broker.SessionStatus) int { return cmp.Compare(y.Queued, x.Queued) })
	return list[:min(len(list), maxSessions)]
}

func newBridge(b bridge.Status, waiting mqtt.Waiting, dead int64) Bridge {
	doc := Bridge{
		Name: b.Name, Server: b.Server, State: b.State.String(),
		Since: b.Since.UTC(), StateAgeSeconds: since(b.Since), Backlog: waiting.Messages, BacklogBytes: waiting.Bytes,
		Error: b.Error, ErrorAt: b.ErrorAt.UTC(),
		Acknowledged: b.Acknowledged, Refused: b.Refused, Unmatched: b.Unmatched, LastUnmatched: oneText(b.LastUnmatched), Gone: oneTexts(b.Gone), DeadLetters: dead,
		InFlight: b.InFlight, Connects: b.Connects,
		LastAck: b.LastAck.UTC(), LastAckAgeSeconds: sinceEver(b.LastAck),
		Rate: b.Rate, Returns: b.Returns, Failures: b.Failures, In: b.In,
	}
	if waiting.Oldest > 0 {
		doc.OldestAgeSeconds = new(Seconds(waiting.Oldest.Seconds()))
	}
	if d, ok := b.ToEmpty(waiting.Messages); ok {
		doc.SecondsToEmpty = new(Seconds(d.Seconds()))
	}
	return doc
}

// maxGone is how many topics of former rules the status has.
const maxGone = 10

// oneTexts returns the first maxGone of list, each as oneText has it.
func oneTexts(list []string) (short []string) {
	for _, s := range list[:min(len(list), maxGone)] {
		short = append(short, oneText(s))
	}
	return short
}

func newAdapter(a adapters.Status) Adapter {
	doc := Adapter{
		Status:                a,
		StateAgeSeconds:       since(a.Since),
		LastReadingAgeSeconds: sinceEver(a.LastReading),
	}
	doc.Since, doc.LastReading = a.Since.UTC(), a.LastReading.UTC()
	return doc
}

// newStore shows s. The broker knows of failures, too.
func newStore(s store.Stats, brokerError string) Store {
	doc := Store{
		Error:        brokerError,
		Written:      make(map[string]Wear),
		JournalBytes: s.JournalBytes, StateBytes: s.StateBytes, Segments: s.Segments,
		Commits: s.Commits, FailedCommits: s.FailedCommits, RefusedPositions: s.PositionsRefused,
		CommitSeconds: Seconds(s.CommitTime.Seconds()), LastCommitSeconds: Seconds(s.LastCommit.Seconds()),
		Records: s.Records, RecordBytes: s.RecordBytes,
		CorruptRecords: s.CorruptRecords, CorruptRows: s.CorruptRows, QuarantinedFiles: s.FilesQuarantined,
		MissingFiles: s.FilesMissing, RewrittenSegments: s.SegmentsRewritten,
	}
	if s.LastCommitFailure != nil {
		doc.Error = cmp.Or(doc.Error, s.LastCommitFailure.Error())
	}
	doc.Writable = doc.Error == ""
	return doc
}
