//go:build !linux

package clock

// systemSynced takes the clock of a developer's machine for right.
func systemSynced() bool { return true }
