package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// restoreDir is where an archive is unpacked, in the directory that it is for. As
// long as it is there, the directory is no store yet.
const restoreDir = "restore.tmp"

// Errors of restoring, and of opening what was not restored to the end.
var (
	// ErrNotEmpty means that there is something in the directory already.
	ErrNotEmpty = errors.New("it is not empty")

	// ErrUnfinished means that a restoring was interrupted.
	ErrUnfinished = errors.New("a restore into it was interrupted: remove what is in it and restore again")
)

// Restored says what a directory was made of.
type Restored struct {
	Info     BackupInfo
	Manifest *Manifest
	Report   *Report // of the store as it is now: damage that was there when the archive was made
}

// Restore makes the directory dir from an archive that [Store.Backup] has written.
// dir must be empty, or is made. It shows the files only when the whole archive was
// read and is sound; after an error dir is as it was. The files belong to the owner
// of dir.
func Restore(r io.Reader, dir string) (*Restored, error) {
	_, err := os.Lstat(dir)
	made := errors.Is(err, fs.ErrNotExist)
	if err := checkEmpty(dir); err != nil {
		return nil, fmt.Errorf("restore into %q: %w", dir, err)
	}
	aside := filepath.Join(dir, restoreDir)
	done, err := restoreAside(r, aside)
	if err == nil {
		err = moveUp(aside, dir)
	} else {
		err = errors.Join(err, os.RemoveAll(aside))
		if made {
			_ = os.Remove(dir)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("restore into %q: %w", dir, err)
	}
	return done, nil
}

// checkEmpty accepts what a new file system has in its root, and what an interrupted
// Restore has left before it was ready.
func checkEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	unfinished := false
	entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool {
		unfinished = unfinished || e.Name() == restoreDir
		return e.Name() == "lost+found" || e.Name() == restoreDir
	})
	switch {
	case len(entries) > 0 && unfinished:
		return ErrUnfinished
	case len(entries) > 0:
		return fmt.Errorf("%w: there is %q; move it away first, or restore into another directory", ErrNotEmpty, entries[0].Name())
	case unfinished:
		return os.RemoveAll(filepath.Join(dir, restoreDir))
	}
	return nil
}

// checkRestored fails while dir is being restored.
func checkRestored(dir string) error {
	if _, err := os.Lstat(filepath.Join(dir, restoreDir)); err == nil {
		return fmt.Errorf("%q: %w", dir, ErrUnfinished)
	}
	return nil
}

// restoreAside unpacks the archive into aside and checks it.
func restoreAside(r io.Reader, aside string) (*Restored, error) {
	if err := makeDirs(filepath.Join(aside, journalDir)); err != nil {
		return nil, err
	}
	info, m, err := readArchive(r, func(name string) (io.WriteCloser, error) { return createSynced(filepath.Join(aside, name)) })
	if err != nil {
		return nil, err
	}
	report, err := Inspect(aside)
	if err != nil {
		return nil, err
	}
	return &Restored{info, m, report}, errors.Join(syncDir(filepath.Join(aside, journalDir)), syncDir(aside))
}

// syncedFile is durable once it is closed.
type syncedFile struct{ *os.File }

func createSynced(path string) (io.WriteCloser, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	return syncedFile{f}, err
}

func (f syncedFile) Close() error { return errors.Join(f.Sync(), f.File.Close()) }

// moveUp moves all that is in aside to dir. aside goes last, so that a directory
// with a part of the files is none that can be opened.
func moveUp(aside, dir string) error {
	if err := giveTo(dir, aside); err != nil {
		return err
	}
	entries, err := os.ReadDir(aside)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.Rename(filepath.Join(aside, e.Name()), filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	if err := syncDir(dir); err != nil {
		return err
	}
	if err := os.Remove(aside); err != nil {
		return err
	}
	return syncDir(dir)
}
