package broker

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"tidegate/mqtt"
	"tidegate/store"
)

// Why a message that a session was owed is not delivered.
const (
	lostMemory  = "max_memory"      // the queue in memory was full
	lostStore   = "store_full"      // the data directory was as large as it may be, or the disk full
	lostDisk    = "max_disk"        // the queue was as large as it may be
	lostCount   = "max_messages"    // it had as many messages as it may have
	lostThinned = "thinned"         // every second of its topic made room
	lostAge     = "max_age"         // it was published too long ago
	lostExpired = "expired"         // its message expiry interval was over
	lostSize    = "packet_size"     // larger than the consumer takes
	lostEnded   = "session_ended"   // the client wanted no more of its session
	lostAway    = "session_expired" // the client stayed away for too long
	lostDenied  = "denied"          // of a share: nobody who is connected may read it
	lostDamaged = "damaged"         // the disk has lost it
)

// lossOther stands for a session or a filter that has no row of its own.
const lossOther = "other"

// maxLosses bounds the rows of the ledger, apart from one "other" per reason;
// maxLossName bounds session and filter together, in bytes.
const (
	maxLosses   = 1000
	maxLossName = 512
)

// lossDelay is how long a loss may stay in memory only that no acknowledgement waits
// for, and no position. Who is too slow for hours must not wear out the card.
const lossDelay = int64(10 * time.Second)

// Loss is a row of the loss ledger: messages at QoS 1 or 2 that a session was
// owed because of a subscription, and that it did not acknowledge and does not
// get any more. It counts since the data directory was made. After a crash every
// message that a publisher was told to be safe is in the queue or counted, once.
type Loss struct {
	Session string    `json:"session"` // "other": too many rows, or too long
	Filter  string    `json:"filter"`  // of the subscription; "other": likewise, or it is not known
	Reason  string    `json:"reason"`
	Count   uint64    `json:"count"`
	AtLeast bool      `json:"at_least,omitempty"` // a file of the journal was lost, and how many more it held is not known
	Bytes   uint64    `json:"bytes"`              // topic, payload and properties of those that were in memory
	First   time.Time `json:"first"`
	Last    time.Time `json:"last"`
}

type lossKey struct{ session, filter, reason string }

type lossRow struct {
	Loss
	kept bool // the store has, or may have, a row of that key
}

// lossLedger counts what was lost. Its mutex is a leaf.
//
// What a durable session loses is fresh until the next commit asks for its position:
// the row goes to the disk in one transaction with the position that leaves the
// messages behind, so that a power cut counts each of them once, as queued or as lost.
type lossLedger struct {
	mu    sync.Mutex
	rows  map[lossKey]*lossRow
	fresh map[*session]map[lossKey]bool // rows that have changed
	ready map[lossKey][]byte            // for the next commit; nil: to be removed
}

func newLossLedger() *lossLedger {
	return &lossLedger{rows: make(map[lossKey]*lossRow), fresh: make(map[*session]map[lossKey]bool), ready: make(map[lossKey][]byte)}
}

// add counts more for s, nil if no position goes with it. It reports whether the
// next commit had no row before.
func (l *lossLedger) add(s *session, k lossKey, more Loss) (first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(k.session)+len(k.filter) > maxLossName {
		k.session, k.filter = lossOther, lossOther
	}
	first = len(l.ready) == 0
	if l.rows[k] == nil && k.session != lossOther && len(l.rows) >= maxLosses {
		l.fold()
	}
	l.count(k, more)
	if s == nil {
		l.settle(k)
		return first
	}
	if l.fresh[s] == nil {
		l.fresh[s] = make(map[lossKey]bool)
	}
	l.fresh[s][k] = true
	return first
}

// count adds more to the row of k. The caller holds mu.
func (l *lossLedger) count(k lossKey, more Loss) {
	row := l.rows[k]
	if row == nil {
		row = &lossRow{Loss: Loss{Session: k.session, Filter: k.filter, Reason: k.reason, First: more.First}}
		_, row.kept = l.ready[k] // it is to be removed there, and comes back
		l.rows[k] = row
	}
	row.Count += more.Count
	row.Bytes += more.Bytes
	row.AtLeast = row.AtLeast || more.AtLeast
	if more.First.Before(row.First) {
		row.First = more.First
	}
	if more.Last.After(row.Last) {
		row.Last = more.Last
	}
}

// settle has the next commit write the row as it is. The caller holds mu.
func (l *lossLedger) settle(k lossKey) {
	if row := l.rows[k]; row != nil {
		l.ready[k] = row.appendTo(nil)
	}
}

// settleAll does so with what s has lost, when its position is asked for.
func (l *lossLedger) settleAll(s *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k := range l.fresh[s] {
		l.settle(k)
	}
	delete(l.fresh, s)
}

// fold moves the row that has been quiet for the longest into "other". The
// caller holds mu.
func (l *lossLedger) fold() {
	var oldest *lossRow
	for _, row := range l.rows {
		if row.Session != lossOther && (oldest == nil || row.Last.Before(oldest.Last)) {
			oldest = row
		}
	}
	if oldest == nil {
		return
	}
	k := lossKey{oldest.Session, oldest.Filter, oldest.Reason}
	delete(l.rows, k)
	if delete(l.ready, k); oldest.kept {
		l.ready[k] = nil
	}
	other := lossKey{lossOther, lossOther, k.reason}
	l.count(other, oldest.Loss)
	l.settle(other)
}

// list returns a copy of all rows, in the order of session, filter and reason.
func (l *lossLedger) list() []Loss {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := make([]Loss, 0, len(l.rows))
	for _, row := range l.rows {
		list = append(list, row.Loss)
	}
	slices.SortFunc(list, func(x, y Loss) int {
		return cmp.Or(cmp.Compare(x.Session, y.Session), cmp.Compare(x.Filter, y.Filter), cmp.Compare(x.Reason, y.Reason))
	})
	return list
}

// lossMark begins the keys of the marks in which the store keeps the ledger: session,
// filter and reason, with a zero byte between them, to version, count, bytes, first
// and last. They were rows of lossTable once.
const (
	lossMark  = "losses\x00"
	lossTable = "losses"
)

const (
	lossVersion = 1
	lossAtLeast = 2 // ... of a row whose count is a lower bound
)

// take returns the marks that the next commit writes.
func (l *lossLedger) take() (marks []store.Row) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k, value := range l.ready {
		marks = append(marks, store.Row{Key: k.appendTo([]byte(lossMark)), Value: value})
		if row := l.rows[k]; row != nil {
			row.kept = true
		}
	}
	clear(l.ready)
	return marks
}

// putBack returns what take had returned and could not be written.
func (l *lossLedger) putBack(marks []store.Row) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range marks {
		k, err := parseLossKey(m.Key[len(lossMark):])
		if _, newer := l.ready[k]; err == nil && !newer {
			l.ready[k] = m.Value
		}
	}
}

func (k lossKey) appendTo(dst []byte) []byte {
	return append(dst, strings.Join([]string{k.session, k.filter, k.reason}, "\x00")...)
}

func parseLossKey(key []byte) (k lossKey, err error) {
	names := strings.Split(string(key), "\x00")
	if len(names) != 3 {
		return k, errDamaged
	}
	return lossKey{names[0], names[1], names[2]}, nil
}

func (l *Loss) appendTo(dst []byte) []byte {
	version := byte(lossVersion)
	if l.AtLeast {
		version = lossAtLeast
	}
	dst = binary.AppendUvarint(append(dst, version), l.Count)
	dst = binary.AppendUvarint(dst, l.Bytes)
	dst = binary.BigEndian.AppendUint64(dst, uint64(l.First.UnixMilli()))
	return binary.BigEndian.AppendUint64(dst, uint64(l.Last.UnixMilli()))
}

// restore takes over a row of the store.
func (l *lossLedger) restore(key, value []byte) error {
	k, err := parseLossKey(key)
	if err != nil || len(value) == 0 || value[0] != lossVersion && value[0] != lossAtLeast {
		return errDamaged
	}
	count, n := binary.Uvarint(value[1:])
	size, m := binary.Uvarint(value[1+max(n, 0):])
	times := value[1+max(n, 0)+max(m, 0):]
	if n <= 0 || m <= 0 || len(times) != 16 {
		return errDamaged
	}
	first := time.UnixMilli(int64(binary.BigEndian.Uint64(times))).UTC()
	last := time.UnixMilli(int64(binary.BigEndian.Uint64(times[8:]))).UTC()
	l.rows[k] = &lossRow{Loss{
		Session: k.session, Filter: k.filter, Reason: k.reason,
		Count: count, AtLeast: value[0] == lossAtLeast, Bytes: size, First: first, Last: last,
	}, true}
	return nil
}

// restoreLosses takes over the ledger that the store keeps.
func (b *Broker) restoreLosses() error {
	err := b.commit.store.Marks(func(key, value []byte) error {
		if key, ok := bytes.CutPrefix(key, []byte(lossMark)); ok {
			b.restoreLoss(key, value)
		}
		return nil
	})
	return errors.Join(err, b.moveLosses())
}

func (b *Broker) restoreLoss(key, value []byte) {
	if err := b.losses.restore(key, value); err != nil {
		b.log.Error("skipped a row of the loss ledger in the store", "row", string(key), "error", err)
	}
}

// moveLosses takes over the rows of an older version, which go once they are marks.
func (b *Broker) moveLosses() error {
	var old []store.Row
	err := b.commit.store.Rows(lossTable, func(key, value []byte) error {
		old = append(old, store.Row{Table: lossTable, Key: bytes.Clone(key)})
		if k, err := parseLossKey(key); err == nil && b.losses.rows[k] == nil {
			b.restoreLoss(key, value)
			b.losses.settle(k)
		}
		return nil
	})
	if len(old) > 0 {
		b.commit.alsoBy(lazy, func(t *turn, err error) {
			for _, row := range old {
				b.commit.put(row, t.now+lazy, nil)
			}
		})
	}
	return err
}

// Losses returns the loss ledger, at most some 1000 rows.
func (b *Broker) Losses() []Loss { return b.losses.list() }

// enterLoss writes n messages into the ledger, which no position goes with.
func (b *Broker) enterLoss(k lossKey, n, bytes uint64) {
	if b.losses.add(nil, k, lossNow(n, bytes)) {
		b.commit.also(b.now() + lossDelay)
	}
}

// enterLoss writes n messages into the ledger, on disk with the session's position. The
// caller holds mu.
func (s *session) enterLoss(k lossKey, n, bytes uint64) {
	if !s.durable() {
		s.b.enterLoss(k, n, bytes)
		return
	}
	s.b.losses.add(s, k, lossNow(n, bytes))
	s.b.commit.moved(s, s.b.now()+lossDelay, nil)
}

func lossNow(n, bytes uint64) Loss {
	now := time.Now().UTC().Truncate(time.Millisecond)
	return Loss{Count: n, Bytes: bytes, First: now, Last: now}
}

// loseTail enters for every queue that it may have lost messages, on disk at once, when
// the newest file of the journal is lost, and nobody knows what it held.
func (b *Broker) loseTail() {
	more := lossNow(0, 0)
	more.AtLeast = true
	for _, s := range b.queues {
		b.losses.add(nil, lossKey{s.name(), s.onlyFilter(), lostDamaged}, more)
	}
	b.commit.due, b.commit.rowsDue = 0, 0
}

// lose counts a message that the session was owed. The caller holds mu.
func (s *session) lose(it *item, reason string) {
	s.drop(1)
	if it.qos != mqtt.AtMostOnce {
		s.enterLoss(lossKey{s.name(), s.owedBy(string(it.body.topic())), reason}, 1, uint64(it.body.size()))
	}
	if it.rec != nil {
		s.b.commit.lost(it.rec, s)
	}
}

// loseRest counts all that the session is owed, because it ends. What a consumer
// has answered with PUBREC has arrived. The caller holds mu.
func (s *session) loseRest(reason string) {
	arrived, lost := int64(0), amount{s.owed.Swap(0), s.bytes}
	s.bytes = 0
	for _, a := range s.beyond {
		if a.released {
			arrived++
		}
	}
	lost.add(-arrived, -lost.n*diskOverhead)
	if !s.durable() {
		arrived, lost = s.passing()
	}
	s.b.stats.delivered.Add(arrived)
	if lost.n > 0 {
		s.enterLoss(lossKey{s.name(), s.onlyFilter(), reason}, uint64(lost.n), uint64(max(0, lost.bytes)))
	}
}

// passing returns what of a transient session has arrived without being settled,
// and what has not. The caller holds mu.
func (s *session) passing() (arrived int64, rest amount) {
	for i := range s.window.len() {
		switch sl := s.window.slots.at(i); {
		case sl.loan != nil:
		case sl.released:
			arrived++
		default:
			rest.add(1, 0)
		}
	}
	for i := range s.ram.len() {
		rest.add(1, int64(s.ram.at(i).body.size()))
	}
	return arrived, rest
}

// reconcile is called when all that the session is owed is in memory: what is
// not there, the disk has lost. The caller holds mu.
func (s *session) reconcile() {
	have := s.inMemory()
	missing, bytes := s.owed.Swap(have.n)-have.n, s.bytes-have.bytes
	s.bytes = have.bytes
	s.gauge()
	if missing != 0 || bytes != 0 {
		s.b.commit.unstore(s, missing, bytes)
		s.b.commit.moved(s, s.b.now()+lazy, nil)
	}
	if missing < 0 || s.guessed {
		s.b.stats.accepted.Add(-missing)
	} else if missing > 0 {
		s.enterLoss(lossKey{s.name(), s.onlyFilter(), lostDamaged}, uint64(missing), 0)
	}
	s.guessed, s.sized = false, true
}

// inMemory is what of the session's own stands in window and ram. The caller
// holds mu.
func (s *session) inMemory() (have amount) {
	for i := range s.window.len() {
		if sl := s.window.slots.at(i); sl.seq > 0 {
			have.add(1, int64(sl.cost))
		}
	}
	for i := range s.ram.len() {
		have.add(1, int64(s.ram.at(i).cost))
	}
	s.live.addTo(&have)
	return have
}

// name is what people call the session.
func (s *session) name() string { return strings.TrimPrefix(s.id, "\x00") }

// owedBy returns the first filter, in their order, that matches the topic.
func (s *session) owedBy(topic string) string {
	owed := ""
	for filter := range s.subs {
		if (owed == "" || filter < owed) && mqtt.Match(unshared(filter), topic) {
			owed = filter
		}
	}
	return cmp.Or(owed, lossOther)
}

// onlyFilter returns the filter of the only subscription, if there is one only.
func (s *session) onlyFilter() string {
	if len(s.subs) == 1 {
		for filter := range s.subs {
			return filter
		}
	}
	return lossOther
}
