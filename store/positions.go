package store

import (
	"cmp"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sort"

	bolt "go.etcd.io/bbolt"
)

// While a queue drains nearly every commit is of positions alone. Those go to a file
// of their own, which is there with its full size: one write and one sync. It is
// beyond one transaction of the newest segment and void as soon as there is another,
// which takes over all that only the file has. Nothing is removed because of what
// only the file says, so without it messages arrive twice, and nothing else happens.

// positionsSlot is the most that one commit to the positions file may take. There are
// two such places, written in turn: a write that is torn leaves the one before.
const positionsSlot = 16 << 10

// positionsFile is the file as the writer knows it.
type positionsFile struct {
	path    string
	found   []positions // when the store was opened
	file    *os.File    // nil: not used yet
	count   uint64      // of writes
	refused bool        // not to be tried before there may be room again
	told    bool        // that it is
	buf     []byte
}

// base is the transaction of a segment that positions are beyond.
type base struct{ made, txid uint64 }

// positions is what one write says: all queues whose position is not that of base.
type positions struct {
	count  uint64
	base   base
	queues []Queue
}

// baseOf returns what positions may be beyond in tx's segment, zero if they may not:
// a sealed one may be a copy, whose transactions are numbered anew.
func baseOf(tx *bolt.Tx) (base, error) {
	v := tx.Bucket([]byte(metaBucket)).Get([]byte(madeKey))
	if v == nil || tx.Bucket([]byte(summaryBucket)) != nil {
		return base{}, nil
	}
	body, err := unframe([]byte(madeKey), v)
	if err == nil && len(body) != 8 {
		err = errShort
	}
	if err != nil {
		return base{}, err
	}
	return base{binary.BigEndian.Uint64(body), uint64(tx.ID())}, nil
}

// putMade gives the segment of tx a number that no other has.
func (t *tail) putMade(tx *bolt.Tx) error {
	if t.made != 0 || t.sealed {
		return nil
	}
	t.made = 1 + rand.Uint64N(math.MaxUint64)
	return tx.Bucket([]byte(metaBucket)).Put([]byte(madeKey), frame([]byte(madeKey), seqKey(t.made)))
}

// append appends what readSlot reads.
func (p positions) append(dst []byte) []byte {
	start := len(dst)
	dst = beginFrame(append(dst, 0, 0, 0, 0))
	for _, n := range [...]uint64{p.count, p.base.made, p.base.txid} {
		dst = binary.AppendUvarint(dst, n)
	}
	for i := range p.queues {
		q, key := &p.queues[i], queueKey(p.queues[i].ID)
		value := appendQueue(nil, q, key)
		dst = binary.AppendUvarint(append(dst, key...), uint64(len(value)))
		dst = append(dst, value...)
	}
	endFrame(dst, start+4, []byte(positionsName))
	binary.BigEndian.PutUint32(dst[start:], uint32(len(dst)-start-4))
	return dst
}

// readSlot reads what was written to one place of the file.
func readSlot(slot []byte) (p positions, err error) {
	n := uint64(binary.BigEndian.Uint32(slot))
	if n > uint64(len(slot)-4) {
		return p, errShort
	}
	body, err := unframe([]byte(positionsName), slot[4:4+n])
	if err != nil {
		return p, err
	}
	f := fields{rest: body}
	p.count, p.base = f.uint(), base{f.uint(), f.uint()}
	for len(f.rest) > 4 && !f.bad {
		key := f.rest[:4]
		f.rest = f.rest[4:]
		n := f.uint()
		if n > uint64(len(f.rest)) {
			return p, errShort
		}
		q, err := readQueue(key, f.rest[:n])
		if err != nil {
			return p, err
		}
		p.queues, f.rest = append(p.queues, q), f.rest[n:]
	}
	return p, f.err()
}

// readPositions returns what parses of the file at path, the last write first. It may
// be that one was torn. damage is why there is nothing, though there should be.
func readPositions(path string) (all []positions, damage, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	} else if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	content := make([]byte, 2*positionsSlot)
	if _, err := f.ReadAt(content, 0); err != nil && !errors.Is(err, io.EOF) {
		damage = err
	}
	torn := 0
	for slot := range slices.Chunk(content, positionsSlot) {
		p, err := readSlot(slot)
		switch {
		case err == nil:
			all = append(all, p)
		case slices.Max(slot) > 0:
			torn++
		}
	}
	if torn == 2 && damage == nil {
		damage = errChecksum
	}
	slices.SortFunc(all, func(a, b positions) int { return cmp.Compare(b.count, a.count) })
	return all, damage, nil
}

// beyond returns the positions in all that are beyond b.
func beyond(all []positions, b base) []Queue {
	i := slices.IndexFunc(all, func(p positions) bool { return p.base == b })
	if i < 0 || b.made == 0 {
		return nil
	}
	return all[i].queues
}

// findPositions reads the file when the store is opened.
func (s *Store) findPositions() error {
	p := &s.positions
	p.path = filepath.Join(s.dir, positionsName)
	all, damage, err := readPositions(p.path)
	if err != nil {
		return err
	}
	if damage != nil {
		s.log.Error("store: the positions file is damaged; positions fall back, so messages may arrive twice", "file", p.path, "damage", damage)
	}
	if p.found = all; len(all) > 0 {
		p.count = all[0].count
	}
	return nil
}

// takePositions takes over what is beyond the newest segment as it is.
func (s *Store) takePositions(b base) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loosen(beyond(s.positions.found, b))
}

// loosen takes over positions that the newest segment has otherwise. The caller holds mu.
func (s *Store) loosen(queues []Queue) {
	for _, q := range queues {
		if held, known := s.asHeld(q.ID); known { // or its row is damaged, and its key
			s.loose[q.ID] = held
			s.queues[q.ID] = q.clone()
		}
	}
}

// asHeld returns a queue as the newest segment has it. The caller holds mu.
func (s *Store) asHeld(id uint32) (q Queue, known bool) {
	if q, known = s.loose[id]; !known {
		q, known = s.queues[id]
	}
	return q, known
}

// held notes that the newest segment has all positions.
func (s *Store) held() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.loose)
}

// looseBut returns the positions that the newest segment has otherwise, but those of
// queues.
func (s *Store) looseBut(queues []Queue) (rest []Queue) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.loose {
		if !slices.ContainsFunc(queues, func(q Queue) bool { return q.ID == id }) {
			rest = append(rest, s.queues[id])
		}
	}
	return rest
}

// loosePositions returns a positions file that has what the newest segment has otherwise.
func (s *Store) loosePositions() []byte {
	queues := s.looseBut(nil)
	if len(queues) == 0 {
		return nil
	}
	return positions{s.positions.count, base{s.tail.made, uint64(s.tail.txid)}, queues}.append(nil)
}

// commitPositions makes b durable in the positions file, if b is of nothing else and
// the file can take it. Otherwise the newest segment has to.
func (s *Store) commitPositions(b *Batch) (done bool) {
	t, p := &s.tail, &s.positions
	if b.beside() || p.refused || !s.sound() || !s.stays(b.Queues) {
		return false
	}
	next := positions{p.count + 1, base{t.made, uint64(t.txid)}, append(s.looseBut(b.Queues), b.Queues...)}
	if p.buf = next.append(p.buf[:0]); len(p.buf) > positionsSlot {
		return false
	}
	wear, err := p.write(next.count)
	s.wore(wearPositions, wear)
	if err != nil {
		s.refuse(err)
		return false
	}
	p.count, p.told = next.count, false
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loosen(b.Queues)
	s.moved.Store(true)
	return true
}

// beside reports whether b has anything but positions.
func (b *Batch) beside() bool {
	return len(b.Queues) == 0 || len(b.Records) > 0 || len(b.Marks) > 0 || len(b.Rows) > 0
}

// sound reports whether what the newest segment shows is on the disk for certain, with
// its name, which is synced before its first commit.
func (s *Store) sound() bool {
	t := &s.tail
	return t.made != 0 && !t.suspect && !t.file.unsettled && s.noted == t.segment.first
}

// stays reports whether all of queues are known and stay in the segment that they are
// in by what the newest one has. So no segment is removed because of what only the
// positions file says, and as much as one segment holds at most arrives twice without it.
func (s *Store) stays(queues []Queue) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !slices.ContainsFunc(queues, func(q Queue) bool {
		held, known := s.asHeld(q.ID)
		return !known || q.Gone || s.needs(q) != s.needs(held)
	})
}

// needs returns how many segments begin before what q is owed. The caller holds mu.
func (s *Store) needs(q Queue) int {
	if q.Pending == 0 {
		return len(s.segments)
	}
	return sort.Search(len(s.segments), func(i int) bool { return s.segments[i].first-1 > q.Acked })
}

// write writes p.buf and makes it durable.
func (p *positionsFile) write(count uint64) (w Wear, err error) {
	if p.file == nil {
		if w, err = p.create(); err != nil {
			return w, err
		}
	}
	n := (len(p.buf) + pageSize - 1) / pageSize * pageSize
	p.buf = append(p.buf, make([]byte, n-len(p.buf))...)
	if _, err = p.file.WriteAt(p.buf, int64(count%2)*positionsSlot); err == nil {
		err = syncData(p.file)
	}
	return w.plus(Wear{Bytes: uint64(n), Syncs: 1}), err
}

// create opens the file, or makes it: a write must find its blocks there, or it would take
// a sync of the file system's journal. What it has of before is void, and stays, so that
// no more than one place is torn.
func (p *positionsFile) create() (w Wear, err error) {
	f, err := os.OpenFile(p.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return w, err
	}
	if fileSize(p.path) < 2*positionsSlot {
		w.Bytes = 2 * positionsSlot
		for at, page := int64(0), make([]byte, pageSize); at < 2*positionsSlot && err == nil; at += pageSize { // see makeEmpty
			_, err = f.WriteAt(page, at)
		}
	}
	if err == nil {
		w.Syncs = 1
		err = syncDir(filepath.Dir(p.path)) // the first write syncs the rest
	}
	if err != nil {
		return w, errors.Join(err, f.Close(), os.Remove(p.path))
	}
	p.file = f
	return w, nil
}

// refuse has the positions go to the newest segment until there may be room.
func (s *Store) refuse(err error) {
	p := &s.positions
	if !p.told {
		s.log.Error("store: cannot write the positions file; positions go to the newest segment, which writes more", "file", p.path, "error", err)
	}
	p.refused, p.told = true, true
	p.close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.PositionsRefused++
}

func (p *positionsFile) close() {
	if p.file != nil {
		_ = p.file.Close() // all that counts is synced
		p.file = nil
	}
}

// holdPositions has the newest segment take over what only the positions file has.
func (s *Store) holdPositions() error {
	s.commit.Lock()
	defer s.commit.Unlock()
	queues := s.looseBut(nil)
	if len(queues) == 0 || s.isClosed() || s.readOnly {
		return nil
	}
	return s.commitSegment(&Batch{Queues: queues})
}
