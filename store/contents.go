package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"slices"

	bolt "go.etcd.io/bbolt"
)

// What state.db knows of the files beside it and of itself, so that what is not
// there any more is missed.

// errMissing is why a file cannot be read that should be there.
var errMissing = errors.New("it is missing")

// checkTables fails if a table of state.db is missing or has another name than
// it was given, or if what it says about them is damaged. One that was written
// before it said anything is taken as it is.
func checkTables(tx *bolt.Tx) error {
	meta := tx.Bucket([]byte(metaBucket))
	err := meta.ForEach(func(k, v []byte) error {
		if _, err := unframe(k, v); err != nil {
			return fmt.Errorf("%s %q: %w", metaBucket, k, err)
		}
		return nil
	})
	list := listedTables(meta.Get([]byte(tablesKey)))
	if err != nil || list == nil {
		return err
	}
	for _, name := range list {
		if tx.Bucket([]byte(name)) == nil {
			return fmt.Errorf("table %q is missing", name)
		}
	}
	return tx.ForEach(func(name []byte, _ *bolt.Bucket) error {
		if string(name) != metaBucket && !slices.Contains(list, string(name)) {
			return fmt.Errorf("it has %q, which is none of its tables", name)
		}
		return nil
	})
}

// listedTables returns the names that the value v of tablesKey has, nil if it is
// not there or damaged.
func listedTables(v []byte) (list []string) {
	body, err := unframe([]byte(tablesKey), v)
	for err == nil && len(body) > 0 {
		n, size := binary.Uvarint(body)
		if size <= 0 || n > uint64(len(body)-size) {
			return nil
		}
		list = append(list, string(body[size:size+int(n)]))
		body = body[size+int(n):]
	}
	return list
}

// listTables has state.db say that it has the tables of rows, too.
func listTables(tx *bolt.Tx, rows []Row) error {
	meta := tx.Bucket([]byte(metaBucket))
	list := listedTables(meta.Get([]byte(tablesKey)))
	known := len(list)
	add := func(name string) {
		if name != metaBucket && !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	if known == 0 {
		_ = tx.ForEach(func(name []byte, _ *bolt.Bucket) error { add(string(name)); return nil })
	}
	for _, r := range rows {
		add(r.Table)
	}
	if len(list) == known {
		return nil
	}
	var body []byte
	for _, name := range list {
		body = append(binary.AppendUvarint(body, uint64(len(name))), name...)
	}
	return meta.Put([]byte(tablesKey), frame([]byte(tablesKey), body))
}

// restoreNames gives tables that have a name which is not listed the one that is
// the most like it, of those that the newer tree does not have as a whole.
func (v *salvage) restoreNames() {
	list := listedTables(v.rows[metaBucket][tablesKey].value)
	for _, other := range slices.Sorted(maps.Keys(v.rows)) {
		if other == metaBucket || slices.Contains(list, other) {
			continue
		}
		name, differs := "", 8*len(other)+1
		for _, l := range list {
			if n := differingBits(l, other); n < differs && !v.whole[l] {
				name, differs = l, n
			}
		}
		if name != "" {
			v.rename(other, name)
		}
	}
}

// rename gives the table its name back. What else has that name is of the older
// tree.
func (v *salvage) rename(table, name string) {
	rows := v.rows[table]
	for key, r := range v.rows[name] {
		if _, known := rows[key]; !known && !v.whole[table] {
			rows[key] = r
		}
	}
	v.rows[name] = rows
	delete(v.rows, table)
}

// putNewest copies what state.db says of the journal.
func (v *salvage) putNewest(tx *bolt.Tx) error {
	r, ok := v.rows[metaBucket][newestKey]
	if !ok {
		return nil
	}
	return tx.Bucket([]byte(metaBucket)).Put([]byte(newestKey), r.value)
}

// differingBits is in how many bits two names differ; more than they have, if
// their lengths do.
func differingBits(a, b string) (n int) {
	if len(a) != len(b) {
		return 8*len(a) + 1
	}
	for i := range len(a) {
		n += bits.OnesCount8(a[i] ^ b[i])
	}
	return n
}

// newestOf returns the first record of the segment that was the newest one when
// tx's state.db was told last, 0 if it was not.
func newestOf(tx *bolt.Tx) uint64 {
	return numberOf(newestKey, tx.Bucket([]byte(metaBucket)).Get([]byte(newestKey)))
}

// newest is newestOf for a damaged state.db.
func (v *salvage) newest() uint64 { return numberOf(newestKey, v.rows[metaBucket][newestKey].value) }

// numberOf returns what the value of the key says, 0 if it is not there or damaged.
func numberOf(key string, value []byte) uint64 {
	body, err := unframe([]byte(key), value)
	if err != nil || len(body) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(body)
}

// readNoted takes over what state.db says of the journal.
func (s *Store) readNoted() error {
	return s.state.view(func(tx *bolt.Tx) error { s.noted = newestOf(tx); return nil })
}

// noteNewest tells state.db which segment is the newest. That it cannot is no
// reason to refuse a commit: the next one tries again.
func (s *Store) noteNewest() {
	first := s.tail.segment.first
	if s.noted == first || s.unrepairedState != nil {
		return
	}
	err := s.state.update(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte(metaBucket)).Put([]byte(newestKey), frame([]byte(newestKey), seqKey(first)))
	})
	s.wore(wearSegments, s.state.spent())
	if err == nil {
		s.noted, s.unnoted = first, false
		return
	}
	if !s.unnoted {
		s.log.Warn("store: cannot note which segment is the newest; the next commit tries again", "file", s.state.path, "error", err)
	}
	s.unnoted = true
}

// reportMissing says that a file is not there, and counts it.
func (s *Store) reportMissing(path, meaning string) {
	s.log.Error(meaning, "file", path)
	s.mu.Lock()
	s.stats.FilesMissing++
	s.mu.Unlock()
}

// missNewest reports the newest segment if it is not there. lost is the highest
// first record of those that were set aside; it returns the missing one's instead.
func (s *Store) missNewest(lost uint64) uint64 {
	have := lost
	if n := len(s.segments); n > 0 {
		have = max(have, s.segments[n-1].first)
	}
	if s.noted <= have {
		return lost
	}
	s.reportMissing(segmentPath(s.dir, s.noted), "store: the newest segment of the journal is missing; the records in it are lost; positions fall back to the segment before, so messages may arrive twice")
	s.stats.TailLost = true
	return s.noted
}
