package tty

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
	"unsafe"
)

// maxLine bounds what is read. A terminal has lines of at most 4095 characters.
const maxLine = 4096

// IsTerminal reports whether f is a terminal.
func IsTerminal(f *os.File) bool {
	_, err := settings(f)
	return err == nil
}

// ReadPassword writes prompt to out and returns the line that is typed at the
// terminal, without its end. What is typed is not shown. The terminal is as it was
// before when ReadPassword returns, also if that is because ctx is done. The end of
// the input is [io.ErrUnexpectedEOF].
func ReadPassword(ctx context.Context, terminal *os.File, out io.Writer, prompt string) ([]byte, error) {
	before, err := settings(terminal)
	if err != nil {
		return nil, fmt.Errorf("ask the terminal for its settings: %w", err)
	}
	quiet := before
	quiet.Lflag &^= syscall.ECHO
	quiet.Lflag |= syscall.ICANON | syscall.ISIG
	quiet.Iflag |= syscall.ICRNL
	if err := set(terminal, &quiet); err != nil {
		return nil, fmt.Errorf("keep the terminal from showing the password: %w", err)
	}
	line, err := ask(ctx, terminal, out, prompt)
	if restored := set(terminal, &before); restored != nil {
		err = errors.Join(err, fmt.Errorf("make the terminal show what is typed again (the command \"stty echo\" does): %w", restored))
	}
	return line, err
}

// ask writes the prompt and reads a line of a terminal that shows nothing.
func ask(ctx context.Context, terminal *os.File, out io.Writer, prompt string) ([]byte, error) {
	if _, err := io.WriteString(out, prompt); err != nil {
		return nil, fmt.Errorf("ask for the password: %w", err)
	}
	line, err := readLine(ctx, terminal)
	_, _ = io.WriteString(out, "\n") // the one that was typed was not shown
	if err != nil {
		return nil, fmt.Errorf("read the password: %w", err)
	}
	return line, nil
}

// readLine waits for a line, which the terminal hands out whole.
func readLine(ctx context.Context, terminal *os.File) ([]byte, error) {
	for {
		ready, err := wait(terminal, 100*time.Millisecond)
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case err != nil:
			return nil, err
		case ready:
			buf := make([]byte, maxLine)
			n, err := terminal.Read(buf)
			if err != nil && !errors.Is(err, io.EOF) {
				return nil, err
			}
			line, whole := bytes.CutSuffix(buf[:n], []byte("\n"))
			if !whole {
				return nil, io.ErrUnexpectedEOF
			}
			return line, nil
		}
	}
}

// wait waits until f has something to read. A read that blocks could not be ended.
func wait(f *os.File, atMost time.Duration) (ready bool, err error) {
	timeout := syscall.NsecToTimeval(atMost.Nanoseconds())
	err = control(f, func(fd uintptr) error {
		var set syscall.FdSet
		width := 8 * unsafe.Sizeof(set.Bits[0])
		if fd/width >= uintptr(len(set.Bits)) {
			return syscall.EBADF
		}
		set.Bits[fd/width] |= 1 << (fd % width)
		n, err := syscall.Select(int(fd)+1, &set, nil, nil, &timeout)
		if errors.Is(err, syscall.EINTR) {
			err = nil
		}
		ready = n > 0
		return err
	})
	return ready, err
}

// settings are those of tcgetattr(3).
func settings(f *os.File) (t syscall.Termios, err error) {
	err = ioctl(f, syscall.TCGETS, &t)
	return t, err
}

func set(f *os.File, t *syscall.Termios) error { return ioctl(f, syscall.TCSETS, t) }

func ioctl(f *os.File, request uintptr, t *syscall.Termios) error {
	return control(f, func(fd uintptr) error {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, fd, request, uintptr(unsafe.Pointer(t))); errno != 0 {
			return errno
		}
		return nil
	})
}

// control calls do with the descriptor of f.
func control(f *os.File, do func(fd uintptr) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var done error
	if err := conn.Control(func(fd uintptr) { done = do(fd) }); err != nil {
		return err
	}
	return done
}
