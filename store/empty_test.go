package store

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// An empty file is, byte for byte, what bbolt begins with.
func TestEmptyIsWhatBboltBeginsWith(t *testing.T) {
	dir := t.TempDir()
	ours, theirs := filepath.Join(dir, "ours"), filepath.Join(dir, "theirs")
	if err := makeEmpty(ours); err != nil {
		t.Fatal(err)
	}
	db, err := bolt.Open(theirs, 0o600, &bolt.Options{PageSize: pageSize})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	have, want := readFile(t, ours), readFile(t, theirs)
	if !bytes.Equal(have, want) {
		t.Errorf("an empty file has %d bytes that are not the %d of bbolt", len(have), len(want))
	}
	if err := makeEmpty(ours); !errors.Is(err, fs.ErrExist) {
		t.Errorf("where a file is already it says %v", err)
	}
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
