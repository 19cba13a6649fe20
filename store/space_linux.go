package store

import (
	"fmt"
	"syscall"
)

// fileSystem asks for the room that the file system of dir has left.
func fileSystem(dir string) (sp Space, err error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return Space{}, fmt.Errorf("ask for the free space of %q: %w", dir, err)
	}
	block := uint64(st.Bsize)
	return Space{
		Free: int64(st.Bavail * block), Total: int64(st.Blocks * block),
		FreeFiles: int64(st.Ffree), TotalFiles: int64(st.Files),
	}, nil
}
