package serial

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
)

// ErrGone means that an open port has lost its device.
var ErrGone = errors.New("device is gone")

// DeviceError is a port that cannot be opened or read. Its text says what a user
// can do about it.
type DeviceError struct {
	Device string // as the configuration names it
	Err    error  // what the system said; [ErrGone] if the device has left
}

func (e *DeviceError) Error() string {
	var errno syscall.Errno
	errors.As(e.Err, &errno)
	switch {
	case errors.Is(e.Err, ErrGone):
		return fmt.Sprintf("%s is gone: was it unplugged, or has it lost power? It is opened again when it is back", e.Device)
	case errors.Is(e.Err, fs.ErrNotExist), errno == syscall.ENODEV, errno == syscall.ENXIO:
		return fmt.Sprintf("no such device %s: is it plugged in? `tidegate devices` lists what is there", e.Device)
	case errors.Is(e.Err, fs.ErrPermission):
		return fmt.Sprintf("permission denied for %s: add the gateway's user to the group dialout (usermod -aG dialout USER) and restart the gateway", e.Device)
	case errno == syscall.EBUSY:
		return fmt.Sprintf("%s is in use by another program: find it with `fuser -v %s`", e.Device, e.Device)
	case errno == syscall.ENOTTY, errno == syscall.EISDIR:
		return fmt.Sprintf("%s is no serial port: `tidegate devices` lists those that are there", e.Device)
	}
	return fmt.Sprintf("serial port %s: %v", e.Device, e.Err)
}

// Unwrap returns what the system said.
func (e *DeviceError) Unwrap() error { return e.Err }
