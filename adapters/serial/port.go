//go:build linux

package serial

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/tarm/serial"
)

const (
	// readTimeout bounds a read, and so the time to stop. The driver rounds
	// it down to tenths of a second.
	readTimeout = 200 * time.Millisecond

	// quickReads is how many reads in a row may end at once and empty before
	// the device counts as gone, with quickPause between them. A driver says
	// "end of file" both for a time-out and for a device that is not there
	// any more; only the time that it took tells them apart.
	quickReads = 3
	quickPause = 20 * time.Millisecond
)

// tty is a port of the driver. Only this file knows the driver.
type tty struct {
	name  string
	port  *serial.Port
	quick int // reads in a row that ended at once and empty
}

// openPort opens the port that c names. Its error is a [*DeviceError].
func openPort(c *Config) (Port, error) {
	parities := map[string]serial.Parity{ParityNone: serial.ParityNone, ParityEven: serial.ParityEven, ParityOdd: serial.ParityOdd}
	port, err := serial.OpenPort(&serial.Config{
		Name:        c.Device,
		Baud:        c.Baud,
		ReadTimeout: readTimeout,
		Size:        byte(c.DataBits),
		Parity:      parities[c.Parity],
		StopBits:    serial.StopBits(c.StopBits),
	})
	if err != nil {
		return nil, &DeviceError{c.Device, err}
	}
	return &tty{name: c.Device, port: port}, nil
}

// Read implements [Port].
func (t *tty) Read(p []byte) (int, error) {
	start := time.Now()
	n, err := t.port.Read(p)
	switch {
	case n > 0:
		t.quick = 0
		return n, nil
	case err != nil && !errors.Is(err, io.EOF): // EIO, ENODEV, ENXIO: all mean this
		return 0, t.gone(err)
	case time.Since(start) >= readTimeout/2:
		t.quick = 0
		return 0, t.missing()
	}
	if t.quick++; t.quick >= quickReads {
		return 0, t.gone(io.ErrUnexpectedEOF)
	}
	<-time.After(quickPause)
	return 0, t.missing()
}

// missing notices a node that has left while its old descriptor still pretends
// to be a silent device.
func (t *tty) missing() error {
	if _, err := os.Stat(t.name); errors.Is(err, os.ErrNotExist) {
		return t.gone(err)
	}
	return nil
}

func (t *tty) gone(cause error) error {
	return &DeviceError{t.name, fmt.Errorf("%w: %w", ErrGone, cause)}
}

// Close implements [Port].
func (t *tty) Close() error { return t.port.Close() }
