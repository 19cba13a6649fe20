package store

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"

	bolt "go.etcd.io/bbolt"
)

// unrepairedState stands for state.db while there is no room on the disk to write anew
// what parses of it, or to begin one at all. It is read as it is, and no rows are
// taken before it is repaired; what has none goes on.
type unrepairedState struct {
	path   string
	damage error
	lock   *os.File // what keeps other processes out, unless an open file does
}

// leaveState makes the damaged file what is read, because it could not be written
// anew.
func (s *Store) leaveState(u *unrepairedState, why error) {
	s.mu.Lock()
	known := s.unrepairedState != nil
	s.unrepairedState = u
	s.mu.Unlock()
	if !known {
		s.log.Error("store: there is no room for state.db; no session, subscription or retained message is taken until there is, and what it still holds counts",
			"file", u.path, "damage", u.damage, "error", why)
	}
}

// startWithout goes on without a state.db that can be written, and locks the damaged
// one, or the directory if there is none.
func (s *Store) startWithout(path string, damage, why error) error {
	locked := path
	if errors.Is(damage, errMissing) {
		locked = s.dir
	}
	lock, err := lockFile(locked)
	if err != nil {
		return err
	}
	u := &unrepairedState{path: path, damage: damage, lock: lock}
	s.leaveState(u, why)
	v, err := u.open()
	if err != nil {
		return err
	}
	defer v.close()
	s.noted = v.newest()
	return nil
}

// stateAsIs returns how state.db is to be read, nil if it is sound.
func (s *Store) stateAsIs() *unrepairedState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unrepairedState
}

func (u *unrepairedState) open() (*salvage, error) { return salvageState(u.path) }

func (u *unrepairedState) close() {
	if u.lock != nil {
		_ = u.lock.Close() // it was not written
	}
}

// eachRow is Rows for it. What parses is looked for each time, because it may be much
// and is asked for at the start only.
func (u *unrepairedState) eachRow(table string, fn func(key, value []byte) error) error {
	v, err := u.open()
	if err != nil {
		return fmt.Errorf("read table %q: %w", table, err)
	}
	defer v.close()
	return eachSaved(v.rows[table], fn)
}

// eachSaved calls fn for each of the rows, in order of the keys, until it fails.
func eachSaved(rows map[string]savedRow, fn func(key, value []byte) error) error {
	for _, key := range slices.Sorted(maps.Keys(rows)) {
		value, err := unframe([]byte(key), rows[key].value)
		if err != nil {
			continue // it was sound when it was found
		}
		if err := fn([]byte(key), value); err != nil {
			return err
		}
	}
	return nil
}

// mendState repairs state.db if that could not be done before. The caller holds
// commit.
func (s *Store) mendState() error {
	u := s.unrepairedState
	if u == nil {
		return nil
	}
	err := s.roomFor(fileSize(u.path) + growStep)
	if err == nil {
		err = s.repairStateLate(u)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoState, err)
	}
	s.log.Info("store: there is room for state.db")
	return nil
}

// repairStateLate writes it and goes on with it.
func (s *Store) repairStateLate(u *unrepairedState) error {
	var f *boltFile
	_, err := os.Lstat(u.path)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = createFile(u.path, stateOptions, func(*bolt.Tx) error { return nil })
	} else {
		f, err = s.rebuildState(u.damage)
	}
	if err != nil {
		return err
	}
	return errors.Join(syncDir(s.dir), s.adoptState(f))
}

// mendIdle repairs state.db although nobody commits a row.
func (s *Store) mendIdle() {
	if s.stateAsIs() == nil || s.isClosed() {
		return
	}
	s.commit.Lock()
	defer s.commit.Unlock()
	if !s.isClosed() {
		_ = s.mendState() // whoever commits a row is told why not
	}
}
