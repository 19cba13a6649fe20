package store

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Backup writes the directory to w as a tar archive, as it is at one moment between
// two commits: all that was committed before the call is in it. Commits and reads go
// on meanwhile. What was set aside as damaged is left out; what the disk does not
// give is zeros, and stands in the manifest. Format of info is filled in.
func (s *Store) Backup(w io.Writer, info BackupInfo) (*Manifest, error) {
	a := &archive{tar: tar.NewWriter(w)}
	s.commit.Lock()
	unlock := sync.OnceFunc(s.commit.Unlock)
	defer unlock()
	if s.isClosed() {
		return nil, ErrClosed
	}
	if err := s.mendState(); err != nil {
		return nil, fmt.Errorf("back up the store: %w", err)
	}
	files := s.pinFiles(a)
	defer files.close()
	loose := s.loosePositions()
	info.Format = archiveFormat
	if err := a.meta(infoName, info); err != nil {
		return nil, fmt.Errorf("back up the store: %w", err)
	}
	a.until = time.Now().Add(pinLimit)
	err := s.state.view(func(state *bolt.Tx) error {
		return s.viewActive(func(path string, newest *bolt.Tx) error {
			unlock()
			if err := a.tx(stateName, state); err != nil {
				return err
			}
			if err := a.tx(below(s.dir, path), newest); err != nil {
				return err
			}
			return a.bytes(positionsName, loose)
		})
	})
	unlock()
	a.until = time.Time{}
	if err == nil {
		err = files.copy(a)
	}
	if err == nil {
		err = errors.Join(a.meta(manifestName, &a.manifest), a.tar.Close())
	}
	if err != nil {
		return nil, fmt.Errorf("back up the store: %w", err)
	}
	return &a.manifest, nil
}

// pinned are files that are open, so that they stay as they are whatever becomes of
// their names.
type pinned []pinnedFile

type pinnedFile struct {
	*os.File
	name string // below the directory
}

// pinFiles opens all files but state.db and the newest segment: sealed segments,
// which do not change, and what others keep in the directory. The caller holds
// commit.
func (s *Store) pinFiles(a *archive) (files pinned) {
	s.mu.Lock()
	sealed := s.segments[:len(s.segments)-1]
	s.mu.Unlock()
	names := s.foreign()
	for _, g := range sealed {
		names = append(names, below(s.dir, g.path))
	}
	for _, name := range names {
		f, err := os.Open(filepath.Join(s.dir, name))
		if err != nil {
			a.lacks(name, err)
			continue
		}
		files = append(files, pinnedFile{f, name})
	}
	return files
}

// foreign returns the names of the files in the directory that are not the store's.
func (s *Store) foreign() (names []string) {
	entries, _ := os.ReadDir(s.dir) // it was read when the store was opened
	for _, e := range entries {
		name := e.Name()
		unfinished := strings.HasSuffix(name, tmpSuffix) || strings.HasSuffix(name, ".new") || strings.Contains(name, corruptInfix)
		if e.Type().IsRegular() && name != stateName && name != positionsName && !unfinished {
			names = append(names, name)
		}
	}
	return names
}

func (p pinned) copy(a *archive) error {
	for _, f := range p {
		if err := a.file(f); err != nil {
			return err
		}
	}
	return nil
}

func (p pinned) close() {
	for _, f := range p {
		f.Close()
	}
}
