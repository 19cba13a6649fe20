package store

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// stateOptions has a map with room for all that the broker's limits allow, because
// growing it waits for whoever copies the file: see Backup.
var stateOptions = bolt.Options{InitialMmapSize: 64 << 20}

// openState opens state.db, whose lock is the lock of the whole directory.
func (s *Store) openState() error {
	path := filepath.Join(s.dir, stateName)
	f, err := openFile(path, stateOptions, nil)
	if err == nil {
		if err = f.view(isState); err != nil {
			f.close()
			err = openError(path, err)
		}
	}
	if isCorrupt(err) && inUse(path) { // its pages change while they are walked
		return openError(path, bolterrors.ErrTimeout)
	}
	switch {
	case isCorrupt(err):
		return s.repairState(path, err)
	case errors.Is(err, fs.ErrNotExist):
		return s.newState(path)
	case err != nil:
		return err
	}
	return s.beginState(f)
}

// repairState writes the damaged file at path anew, at the start.
func (s *Store) repairState(path string, damage error) error {
	s.stats.StateLost = true
	f, err := s.rebuildState(damage)
	if err != nil {
		return s.startWithout(path, damage, err)
	}
	return s.beginState(f)
}

// newState makes state.db. No other process may do so at the same time.
func (s *Store) newState(path string) error {
	lock, err := lockFile(s.dir)
	if err != nil {
		return err
	}
	s.missState(path)
	f, err := createFile(path, stateOptions, func(*bolt.Tx) error { return nil })
	if lock != nil {
		lock.Close()
	}
	switch {
	case err == nil:
		return s.beginState(f)
	case s.stats.StateLost:
		return s.startWithout(path, &CorruptError{Path: path, Err: errMissing}, err)
	}
	return err // there is nothing to go on with
}

// beginState goes on with the open file.
func (s *Store) beginState(f *boltFile) error {
	s.state = f
	s.wore(wearSegments, f.spent())
	if err := s.readNoted(); err != nil {
		return err
	}
	return syncDir(s.dir) // also of a process that crashed before it could
}

// missState says so if state.db is not there, and a journal is.
func (s *Store) missState(path string) {
	if segments, _ := filepath.Glob(filepath.Join(s.journal(), "*"+segSuffix)); len(segments) > 0 {
		s.reportMissing(path, "store: state.db is missing; retained messages start empty, sessions and subscriptions come from the journal")
		s.stats.StateLost = true
	}
}

// isState fails for a segment that has got the name of state.db, and if a table is
// missing.
func isState(tx *bolt.Tx) error {
	if tx.Bucket([]byte(metaBucket)).Get([]byte(firstKey)) != nil {
		return errors.New("it is a segment of the journal")
	}
	return checkTables(tx)
}

// commitRows makes rows durable in one transaction. If state.db turns out to be
// damaged, it is written anew first.
func (s *Store) commitRows(rows []Row) error {
	if err := s.mendState(); err != nil {
		return err
	}
	err := s.putRows(rows)
	if isCorrupt(err) {
		if err = s.healState(err); err == nil {
			err = s.putRows(rows)
		}
	}
	if err != nil {
		return fmt.Errorf("commit to %q: %w", s.state.path, err)
	}
	return nil
}

func (s *Store) putRows(rows []Row) error {
	err := s.state.update(func(tx *bolt.Tx) error {
		for _, r := range rows {
			b, err := tx.CreateBucketIfNotExists([]byte(r.Table))
			if err != nil {
				return err
			}
			if err := putRow(b, r); err != nil {
				return err
			}
		}
		return listTables(tx, rows)
	})
	s.shareWear(s.state.spent(), givenRows(rows))
	return err
}

// healState goes on with a state.db that has what parses of the damaged one. The
// caller holds commit.
func (s *Store) healState(damage error) error {
	f, err := s.rebuildState(damage)
	if err != nil {
		s.leaveState(&unrepairedState{path: filepath.Join(s.dir, stateName), damage: damage}, err)
		return fmt.Errorf("%w: %w", ErrNoState, err)
	}
	return s.adoptState(f)
}

// adoptState goes on with f instead of a damaged file. The caller holds commit.
func (s *Store) adoptState(f *boltFile) (err error) {
	s.mu.Lock()
	old, u := s.state, s.unrepairedState
	s.state, s.unrepairedState = f, nil
	s.noted = 0 // it may not say so any more
	s.stats.StateRebuilt++
	s.mu.Unlock()
	if u != nil {
		u.close()
	}
	if old != nil {
		err = old.close()
	}
	return err
}

// putRow stores or deletes r.
func putRow(b *bolt.Bucket, r Row) error {
	if r.Value == nil {
		return b.Delete(r.Key)
	}
	return b.Put(r.Key, frame(r.Key, r.Value))
}

// Rows calls fn for every row of table, in order of the keys, until it fails,
// and returns its error. Key and value are valid only inside fn. fn may commit;
// whether it then sees the change is open.
func (s *Store) Rows(table string, fn func(key, value []byte) error) error {
	if u := s.stateAsIs(); u != nil {
		return u.eachRow(table, fn)
	}
	return s.eachRow(table, s.viewState, fn)
}

// Marks calls fn for every mark, as Rows does.
func (s *Store) Marks(fn func(key, value []byte) error) error {
	if u := s.asIs(s.newest()); u != nil {
		return u.eachMark(fn)
	}
	return s.eachRow(marksBucket, s.viewActive, fn)
}

// viewState runs fn, and once more if state.db has to be written anew first.
func (s *Store) viewState(fn func(path string, tx *bolt.Tx) error) error {
	for healed := false; ; healed = true {
		s.mu.Lock()
		closed, state := s.closed, s.state
		s.mu.Unlock()
		if closed {
			return ErrClosed
		}
		err := state.view(func(tx *bolt.Tx) error { return fn(state.path, tx) })
		switch {
		case err == nil:
			return nil
		case s.isClosed():
			return ErrClosed
		case healed || !isCorrupt(err):
			return err
		}
		if err := s.healOnce(state, err); err != nil {
			return err
		}
	}
}

// healOnce heals what whoever commits has not healed yet.
func (s *Store) healOnce(damaged *boltFile, damage error) error {
	s.commit.Lock()
	defer s.commit.Unlock()
	if s.state != damaged || s.isClosed() {
		return nil
	}
	return s.healState(damage)
}

func (s *Store) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// viewActive runs fn on the newest segment.
func (s *Store) viewActive(fn func(path string, tx *bolt.Tx) error) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	s.mu.Unlock()
	g := s.newest()
	if u := s.asIs(g); u != nil {
		return u.err()
	}
	return s.pool.view(g, func(_ *handle, tx *bolt.Tx) error { return fn(g.path, tx) })
}

// newest returns the segment that takes records.
func (s *Store) newest() *segment {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.segments[len(s.segments)-1]
}

// eachRow copies some rows in a transaction, ends it, and hands them out.
func (s *Store) eachRow(table string, view func(func(string, *bolt.Tx) error) error, fn func(key, value []byte) error) error {
	c := s.bufs.Get().(*chunk)
	defer s.bufs.Put(c)
	var after []byte
	for more := true; more; {
		err := view(func(path string, tx *bolt.Tx) error {
			c.reset()
			more = c.copyRows(path, tx.Bucket([]byte(table)), after)
			return nil
		})
		if err != nil {
			return fmt.Errorf("read table %q: %w", table, err)
		}
		for _, b := range c.badRows {
			s.reportRow(b.path, table, b.key, b.err)
		}
		for _, r := range c.rows {
			if err := fn(r.Key, r.Value); err != nil {
				return err
			}
		}
		after = append(after[:0], c.lastKey...)
	}
	return nil
}
