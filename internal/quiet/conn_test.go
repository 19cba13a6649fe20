//go:build unix

package quiet

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"tidegate/internal/leak"
)

// pair returns the two ends of a connection over the loopback.
func pair(t *testing.T) (here, there net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if here, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { here.Close() })
	if there, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { there.Close() })
	return here, there
}

func TestMoreThanASocketHolds(t *testing.T) {
	leak.Check(t)
	here, there := pair(t)
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<20) // of which either way has to wait
	wrote := make(chan error, 1)
	go func() {
		_, err := Over(here).Write(want)
		here.Close()
		wrote <- err
	}()
	got, err := io.ReadAll(Over(there))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d of %d bytes came, %v", len(got), len(want), err)
	}
	if err := <-wrote; err != nil {
		t.Error(err)
	}
}

func TestNothingReadIsNoEnd(t *testing.T) {
	here, _ := pair(t)
	if n, err := Over(here).Read(nil); n != 0 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// What goes wrong is the same as without the package, in the same words.
func TestErrors(t *testing.T) {
	leak.Check(t)
	past := time.Unix(1, 0)
	buffer := make([]byte, 1)
	for name, c := range map[string]struct {
		spoil func(here, there net.Conn)
		try   func(c net.Conn, b []byte) (int, error)
		want  error
	}{
		"read deadline":   {func(here, _ net.Conn) { here.SetReadDeadline(past) }, net.Conn.Read, os.ErrDeadlineExceeded},
		"write deadline":  {func(here, _ net.Conn) { here.SetWriteDeadline(past) }, net.Conn.Write, os.ErrDeadlineExceeded},
		"read of closed":  {func(here, _ net.Conn) { here.Close() }, net.Conn.Read, net.ErrClosed},
		"write to closed": {func(here, _ net.Conn) { here.Close() }, net.Conn.Write, net.ErrClosed},
		"end":             {func(_, there net.Conn) { there.Close() }, net.Conn.Read, io.EOF},
	} {
		t.Run(name, func(t *testing.T) {
			here, there := pair(t)
			c.spoil(here, there)
			_, err := c.try(Over(here), buffer)
			_, plain := c.try(here, buffer)
			if !errors.Is(err, c.want) || err.Error() != plain.Error() {
				t.Errorf("%q, want %q", err, plain)
			}
		})
	}
}

func TestAConnectionThatIsReset(t *testing.T) {
	here, there := pair(t)
	there.(*net.TCPConn).SetLinger(0)
	there.Close()
	_, err := Over(here).Read(make([]byte, 1))
	want := &net.OpError{Op: "read", Net: "tcp", Source: here.LocalAddr(), Addr: here.RemoteAddr(), Err: os.NewSyscallError("read", syscall.ECONNRESET)}
	if !errors.Is(err, syscall.ECONNRESET) || err.Error() != want.Error() {
		t.Errorf("%v, want %v", err, want)
	}
}

func TestAWriteThatIsCutOff(t *testing.T) {
	here, there := pair(t)
	go func() {
		_, _ = there.Read(make([]byte, 1)) // it has begun
		here.SetWriteDeadline(time.Unix(1, 0))
	}()
	b := make([]byte, 64<<20)
	if n, err := Over(here).Write(b); n == 0 || n == len(b) || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d of %d bytes are written, %v", n, len(b), err)
	}
}

// Close ends a Read that waits.
func TestCloseEndsAWait(t *testing.T) {
	leak.Check(t)
	here, there := pair(t)
	c, read := Over(here), make(chan error, 1)
	go func() {
		_, err := c.Read(make([]byte, 2))
		read <- err
		_, err = c.Read(make([]byte, 2))
		read <- err
	}()
	if _, err := there.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := <-read; err != nil {
		t.Fatal(err)
	}
	c.Close()
	if err := <-read; !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v, want %v", err, net.ErrClosed)
	}
}

func TestReadsAndWritesTakeNoMemory(t *testing.T) {
	here, there := pair(t)
	from, to, b := Over(here), Over(there), make([]byte, 100)
	if n := testing.AllocsPerRun(100, func() {
		_, _ = from.Write(b)
		Under(to).Await(50, time.Second, time.Time{})
		_, _ = io.ReadFull(to, b)
		Under(to).Await(1, time.Second, time.Time{})
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// patiently returns a connection that waits for four bytes.
func patiently(t *testing.T, here net.Conn, patience time.Duration, deadline time.Time) *conn {
	t.Helper()
	c := Over(here).(*conn)
	p := Under(tls.Client(c, nil))
	if p != Patient(c) {
		t.Fatalf("the connection below is %v", p)
	}
	p.Await(4, patience, deadline)
	return c
}

func TestAReaderIsNotWokenForEachByte(t *testing.T) {
	leak.Check(t)
	here, there := pair(t)
	c, waits := patiently(t, here, time.Hour, time.Time{}), make(chan struct{}, 1)
	c.onRead = func(fd uintptr) bool {
		read := c.readNow(fd)
		if !read {
			waits <- struct{}{}
		}
		return read
	}
	for range 10 {
		go func() {
			<-waits
			for _, b := range []byte("abcd") {
				_, _ = there.Write([]byte{b})
				runtime.Gosched()
			}
		}()
		if n, err := c.Read(make([]byte, 8)); n != 4 || err != nil {
			t.Fatalf("%d bytes at once, %v", n, err)
		}
	}
}

func TestPatienceEnds(t *testing.T) {
	leak.Check(t)
	here, there := pair(t)
	c, b := patiently(t, here, time.Millisecond, time.Time{}), make([]byte, 8)
	for _, text := range []string{"a", "bc"} { // the second time it waits for any
		if _, err := there.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(b); n != len(text) || err != nil {
			t.Errorf("%d bytes of %q, %v", n, text, err)
		}
	}
}

func TestTheDeadlineIsBehindPatience(t *testing.T) {
	here, _ := pair(t)
	c := patiently(t, here, time.Millisecond, time.Now().Add(20*time.Millisecond))
	begin := time.Now()
	_, err := c.Read(make([]byte, 8))
	if took := time.Since(begin); took < 10*time.Millisecond || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after %v: %v", took, err)
	}
}

func TestNothingIsBelow(t *testing.T) {
	here, _ := net.Pipe()
	if p := Under(tls.Client(here, nil)); p != nil {
		t.Errorf("below a pipe is %v", p)
	}
}
