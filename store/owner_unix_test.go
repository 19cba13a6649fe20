//go:build unix

package store

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// What root restores belongs to the owner of the directory, who runs the gateway.
func TestRestoredFilesBelongToTheOwnerOfTheDirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	s := openTest(t, damaged(t, func(string, []string) {}), Options{SegmentSize: small})
	to := t.TempDir()
	const nobody = 65534
	if err := os.Chown(to, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(bytes.NewReader(backedUp(t, s)), to); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(to, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Sys().(*syscall.Stat_t).Uid != nobody {
			t.Errorf("%s belongs to user %d", path, info.Sys().(*syscall.Stat_t).Uid)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
