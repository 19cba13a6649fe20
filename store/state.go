package store

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	bolt "go.etcd.io/bbolt"
)

// openState opens state.db, whose lock is the lock of the whole directory.
func (s *Store) openState() error {
	path := filepath.Join(s.dir, stateName)
	f, err := openFile(path, bolt.Options{}, nil)
	if isCorrupt(err) {
		if err := s.setAside(path, err, "sessions, subscriptions and retained messages start empty"); err != nil {
			return err
		}
		err = fs.ErrNotExist
	}
	if errors.Is(err, fs.ErrNotExist) {
		f, err = createFile(path, bolt.Options{}, func(*bolt.Tx) error { return nil })
	}
	if err != nil {
		return err
	}
	s.state = f
	return syncDir(s.dir) // also of a process that crashed before it could
}

// commitRows makes rows durable in one transaction. If state.db turns out to be
// damaged, it refuses them until the store is opened again, which sets it aside.
func (s *Store) commitRows(rows []Row) error {
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
		return nil
	})
	if isCorrupt(err) {
		return fmt.Errorf("commit rows; restart to set the file aside and go on: %w", err)
	}
	if err != nil {
		return fmt.Errorf("commit to %q: %w", s.state.path, err)
	}
	return nil
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
	return s.eachRow(table, s.viewState, fn)
}

// Marks calls fn for every mark, as Rows does.
func (s *Store) Marks(fn func(key, value []byte) error) error {
	return s.eachRow(marksBucket, s.viewActive, fn)
}

func (s *Store) viewState(fn func(path string, tx *bolt.Tx) error) error {
	if s.isClosed() {
		return ErrClosed
	}
	err := s.state.view(func(tx *bolt.Tx) error { return fn(s.state.path, tx) })
	if err != nil && s.isClosed() {
		return ErrClosed
	}
	return err
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
	g := s.segments[len(s.segments)-1]
	s.mu.Unlock()
	return s.pool.view(g, func(_ *handle, tx *bolt.Tx) error { return fn(g.path, tx) })
}

// eachRow copies some rows in a transaction, ends it, and hands them out.
func (s *Store) eachRow(table string, view func(func(string, *bolt.Tx) error) error, fn func(key, value []byte) error) error {
	c := s.bufs.Get().(*chunk)
	defer s.bufs.Put(c)
	var after []byte
	for more := true; more; {
		c.reset()
		err := view(func(path string, tx *bolt.Tx) error {
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
