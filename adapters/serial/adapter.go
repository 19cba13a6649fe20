package serial

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"time"

	"tidegate/adapters"
	"tidegate/adapters/decode"
	"tidegate/adapters/frame"
)

const (
	// settle is how long the line must have been quiet for the next byte to be
	// the first of a frame: longer than a USB adapter holds bytes back (16 ms)
	// and than the gap between two characters at 300 baud (37 ms).
	settle = 50 * time.Millisecond

	// readSize is what one read takes; a tty holds no more.
	readSize = 4096
)

// The reasons for which the adapter itself refuses a frame; those of decoding are
// the words of package decode.
const (
	ReasonTooLong = "too_long" // longer than frame.max
	ReasonCut     = "cut"      // the first one, which was under way when the port was opened
)

// Port is an open serial port. It is used by one goroutine.
type Port interface {
	// Read waits a fraction of a second for bytes. None and no error means
	// that the line is quiet. An error is a [*DeviceError]; the port must
	// then be closed.
	Read(p []byte) (int, error)

	Close() error
}

// Adapter reads sensors on one serial port. [Config.Open] makes it.
type Adapter struct {
	config  Config
	decoder decode.Decoder
	log     *slog.Logger

	mu       sync.Mutex // guards the counters
	frames   uint64
	rejected map[string]uint64
}

// Run implements [adapters.Adapter]. A fault of the device is a [*DeviceError].
func (a *Adapter) Run(ctx context.Context, out adapters.Sink) error {
	port, err := openPort(&a.config)
	if err != nil {
		return err
	}
	err = a.read(ctx, port, out)
	if closing := port.Close(); closing != nil {
		a.log.Debug("serial port did not close well", "device", a.config.Device, "error", closing)
	}
	return err
}

// read emits what comes in until ctx or the port ends.
func (a *Adapter) read(ctx context.Context, port Port, out adapters.Sink) error {
	split, buf := a.config.Frame.New(), make([]byte, readSize)
	n, err := a.readFirst(port, split, buf)
	if err != nil {
		return err
	}
	if err := out.Emit(ctx); err != nil { // the device is there
		return err
	}
	for ctx.Err() == nil {
		if err := a.emit(ctx, split, buf[:n], out); err != nil {
			return err
		}
		if n, err = port.Read(buf); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// readFirst reads until there are bytes or the line has been quiet for a while,
// and tells split if the bytes were under way before the port was opened.
func (a *Adapter) readFirst(port Port, split frame.Splitter, buf []byte) (int, error) {
	for {
		start := time.Now()
		n, err := port.Read(buf)
		quiet := time.Since(start) >= settle
		switch {
		case err != nil:
			return 0, err
		case n > 0 && !quiet:
			split.SkipFirst()
			a.reject(ReasonCut)
			return n, nil
		case quiet:
			return n, nil
		}
	}
}

// emit hands on the frames that the bytes p complete.
func (a *Adapter) emit(ctx context.Context, split frame.Splitter, p []byte, out adapters.Sink) error {
	now := time.Now()
	for f, err := range split.Frames(p) {
		if err != nil {
			a.reject(ReasonTooLong)
			continue
		}
		fields, err := a.decoder.Decode(f)
		if err != nil {
			a.refuse(err)
			continue
		}
		a.accept()
		if err := out.Emit(ctx, readings(fields, now)...); err != nil {
			return err
		}
	}
	return nil
}

func readings(fields []decode.Field, at time.Time) []adapters.Reading {
	rs := make([]adapters.Reading, len(fields))
	for i, f := range fields {
		rs[i] = adapters.Reading{Name: f.Name, Value: f.Value, At: at}
	}
	return rs
}

// refuse counts a frame that could not be decoded.
func (a *Adapter) refuse(err error) {
	reason := "decode"
	if e, ok := errors.AsType[*decode.Error](err); ok {
		reason = e.Reason
	}
	a.reject(reason)
	a.log.Debug("frame is refused", "reason", reason, "error", err)
}

func (a *Adapter) reject(reason string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rejected[reason]++
}

func (a *Adapter) accept() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.frames++
}

// Report implements [adapters.Reporter].
func (a *Adapter) Report() adapters.Report {
	a.mu.Lock()
	defer a.mu.Unlock()
	return adapters.Report{Device: a.config.Device, Frames: a.frames, Rejected: maps.Clone(a.rejected)}
}
