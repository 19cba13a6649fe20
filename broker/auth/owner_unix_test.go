//go:build unix

package auth

import (
	"os"
	"syscall"
	"testing"
)

func TestOwnerIsKept(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, who alone can give files away")
	}
	path := fileOf(t, "bob:x\n", 0o640)
	if err := os.Chown(path, 4321, 1234); err != nil {
		t.Fatal(err)
	}
	if err := SetPassword(path, "alice", []byte("x")); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if s := info.Sys().(*syscall.Stat_t); s.Uid != 4321 || s.Gid != 1234 || info.Mode() != 0o640 {
		t.Errorf("owner %d:%d, mode %v", s.Uid, s.Gid, info.Mode())
	}
}
