package load

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"time"

	"tidegate/mqtt/packet"
)

// broker is the process under load: one that runs already, or one that is started
// for the run.
type broker struct {
	o      *Options
	pid    atomic.Int64 // 0: unknown
	cmd    *exec.Cmd    // nil: not ours
	exited chan struct{}
}

// The limits of the broker's start and of its end after SIGTERM.
const (
	startLimit = time.Minute
	endLimit   = 10 * time.Second
)

// start starts the broker, if there is a command for that, and waits until it
// takes connections.
func (b *broker) start(ctx context.Context) error {
	b.pid.Store(int64(b.o.PID))
	if b.o.BrokerCmd == "" {
		return nil
	}
	if nc, err := net.DialTimeout("tcp", b.o.Addr, time.Second); err == nil {
		_ = nc.Close()
		return fmt.Errorf("start the broker: something listens on %s already", b.o.Addr)
	}
	if err := b.launch(); err != nil {
		return fmt.Errorf("start the broker: %w", err)
	}
	if err := b.ready(ctx); err != nil {
		b.stop()
		return fmt.Errorf("start the broker: %w", err)
	}
	return nil
}

// launch starts the process.
func (b *broker) launch() error {
	name := b.o.BrokerLog
	if name == "" {
		name = os.DevNull
	}
	out, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd, exited := exec.Command("sh", "-c", "exec "+b.o.BrokerCmd), make(chan struct{})
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() {
		_ = cmd.Wait() // how it ended is nothing that we judge
		close(exited)
	}()
	b.cmd, b.exited = cmd, exited
	b.pid.Store(int64(cmd.Process.Pid))
	return nil
}

// ready waits until the broker accepts a client.
func (b *broker) ready(ctx context.Context) error {
	d := dialer{addr: b.o.Addr, buffer: idleBuffer, timeout: b.o.Timeout}
	hello := &packet.Connect{Version: packet.V311, CleanSession: true, KeepAlive: 60, ClientID: "bench-probe"}
	for limit := time.Now().Add(startLimit); ; {
		c, err := d.connect(ctx, hello)
		if err == nil {
			c.serve().close()
			return nil
		}
		select {
		case <-b.exited:
			return errors.New("it has ended; name a file for what it prints to see why")
		default:
		}
		if !pause(ctx, 5*time.Millisecond) || time.Now().After(limit) {
			return errors.Join(ctx.Err(), err)
		}
	}
}

// restart ends the broker by the signal that was asked for and starts it again.
func (b *broker) restart(ctx context.Context) error {
	if b.o.Kill == "KILL" {
		_ = b.cmd.Process.Kill() // fails only if it has ended
		<-b.exited
	} else {
		b.stop()
	}
	return b.start(ctx)
}

// stop ends a broker that was started here, by force if it does not end itself.
func (b *broker) stop() {
	if b.cmd == nil {
		return
	}
	_ = b.cmd.Process.Signal(syscall.SIGTERM) // fails only if it has ended
	limit := time.AfterFunc(endLimit, func() { _ = b.cmd.Process.Kill() })
	defer limit.Stop()
	<-b.exited
}
