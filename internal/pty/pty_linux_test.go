package pty

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func open(t *testing.T) *Pair {
	t.Helper()
	p, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func openSlave(t *testing.T, p *Pair) *os.File {
	t.Helper()
	f, err := os.OpenFile(p.Slave, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// Every byte value passes unchanged in both directions and nothing is echoed.
func TestEveryBytePasses(t *testing.T) {
	p := open(t)
	slave := openSlave(t, p)
	var all [256]byte
	for i := range all {
		all[i] = byte(i)
	}
	pass := func(to io.Writer, from io.Reader) {
		t.Helper()
		if _, err := to.Write(all[:]); err != nil {
			t.Fatal(err)
		}
		var got [256]byte
		if _, err := io.ReadFull(from, got[:]); err != nil || !bytes.Equal(got[:], all[:]) {
			t.Fatalf("got % x, %v", got, err)
		}
	}
	pass(p.Master, slave)
	pass(slave, p.Master)
	p.Master.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if n, err := p.Master.Read(all[:]); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("an echo of %d bytes, or no deadline: %v", n, err)
	}
}

func TestBytesWaitForTheSlaveToBeOpened(t *testing.T) {
	p := open(t)
	if _, err := p.Master.WriteString("early"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(openSlave(t, p), got); err != nil || string(got) != "early" {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestCloseHangsUp(t *testing.T) {
	p := open(t)
	slave := openSlave(t, p)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if n, err := slave.Read(make([]byte, 1)); err == nil {
		t.Errorf("read %d bytes from a line that hung up", n)
	}
}

func TestCloseEndsARead(t *testing.T) {
	p := open(t)
	openSlave(t, p)
	ended := make(chan error)
	go func() {
		_, err := p.Master.Read(make([]byte, 1))
		ended <- err
	}()
	p.Close()
	if err := <-ended; err == nil {
		t.Error("the read ended without an error")
	}
}
