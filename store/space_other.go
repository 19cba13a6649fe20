//go:build !linux

package store

import (
	"errors"
	"fmt"
)

func fileSystem(dir string) (Space, error) {
	return Space{}, fmt.Errorf("ask for the free space of %q: %w", dir, errors.ErrUnsupported)
}
