//go:build !linux

package serial

import "errors"

// openPort fails: how the driver tells a device that is gone from a quiet one is
// known on Linux only.
func openPort(c *Config) (Port, error) {
	return nil, &DeviceError{c.Device, errors.ErrUnsupported}
}
