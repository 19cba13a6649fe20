//go:build unix

package auth

import (
	"io/fs"
	"os"
	"syscall"
)

// lock waits until no other process edits files in dir. It holds until dir is
// closed. A file system that cannot lock a folder, such as NFS, keeps nobody apart,
// which is no reason not to change a password.
func lock(dir *os.File) {
	for syscall.Flock(int(dir.Fd()), syscall.LOCK_EX) == syscall.EINTR {
	}
}

// chown gives f the owner and the group of old, where they differ.
func chown(f *os.File, old fs.FileInfo) error {
	now, err := f.Stat()
	if err != nil {
		return err
	}
	want, ok := old.Sys().(*syscall.Stat_t)
	have, ok2 := now.Sys().(*syscall.Stat_t)
	if !ok || !ok2 || want.Uid == have.Uid && want.Gid == have.Gid {
		return nil
	}
	return f.Chown(int(want.Uid), int(want.Gid))
}
