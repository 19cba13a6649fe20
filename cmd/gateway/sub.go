package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"tidegate/internal/client"
	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// exitTimeout is how mosquitto_sub ends when the time of -W is over.
const exitTimeout = 27

// SubCmd subscribes and prints messages.
type SubCmd struct {
	connectFlags
	qosFlag
	Topics      []string
	KeepSession bool
	Verbose     bool
	Count       uint
	Wait        uint32
}

func (c *SubCmd) define(p *params) {
	c.connectFlags.define(p)
	c.qosFlag.define(p)
	p.StringArrayVarP(&c.Topics, "topic", "t", nil, "Topic `FILTER`; may be given several times.")
	p.BoolVarP(&c.KeepSession, "disable-clean-session", "c", false, "Let the broker keep subscriptions and queue messages between two calls; needs --id.")
	p.BoolVarP(&c.Verbose, "verbose", "v", false, "Print the topic before each message.")
	p.UintVarP(&c.Count, "count", "C", 0, "End after so `MANY` messages.")
	p.Uint32VarP(&c.Wait, "wait", "W", 0, "End with exit code 27 after so many `SECONDS`.")
	p.require("topic")
}

// Help is shown by --help.
func (SubCmd) Help() string {
	return `Flags are those of mosquitto_sub; -h is the host. Prints each message and a newline.
A message is acknowledged once it is printed. ^C ends with 0, the end of -W with 27,
a lost connection with 1.

Examples:

    tidegate sub -t 'sensor/#' -v
    tidegate sub -h gateway.local -t 'sensor/#' -q 1 -c -i archive >> archive.txt`
}

// Run prints messages until enough have come, the time is over, ctx is done or
// the connection is lost.
func (c *SubCmd) Run(ctx context.Context, std stdio) error {
	if err := c.check(); err != nil {
		return &usageError{"sub", err}
	}
	timeout := &codeError{exitTimeout, fmt.Errorf("timed out after %d s", c.Wait)}
	if c.Wait > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, time.Duration(c.Wait)*time.Second, timeout)
		defer cancel()
	}
	err := c.receive(ctx, std.Out)
	switch {
	case errors.Is(context.Cause(ctx), timeout):
		return timeout
	case ctx.Err() != nil: // ^C
		return nil
	}
	return err
}

func (c *SubCmd) check() error {
	for _, filter := range c.Topics {
		if err := mqtt.ValidFilter(filter); err != nil {
			return err
		}
	}
	if c.KeepSession && c.ID == "" {
		return errors.New("--disable-clean-session needs --id, or the session could not be found again")
	}
	return nil
}

// receive connects, subscribes and prints.
func (c *SubCmd) receive(ctx context.Context, out io.Writer) error {
	messages := make(chan client.Message, 100)
	ended := make(chan struct{})
	conn, err := c.dial(ctx, client.Options{
		CleanSession: !c.KeepSession,
		ManualAck:    true,
		Handler: func(m client.Message) {
			select {
			case messages <- m:
			case <-ended:
			}
		},
	})
	if err != nil {
		return err
	}
	// A broker that kept the session sends what it queued, in any amount, before
	// it answers the SUBSCRIBE: so that answer is awaited while printing.
	subscribed := make(chan error, 1)
	go func() {
		subscribed <- c.subscribe(ctx, conn)
		close(subscribed)
	}()
	p := &printer{out: bufio.NewWriter(out), verbose: c.Verbose, conn: conn}
	err = p.print(ctx, messages, subscribed, c.Count)
	close(ended)
	if err == nil {
		err = <-subscribed // nil too if print had it
	}
	if err == nil {
		return conn.Disconnect()
	}
	conn.Close()
	for range subscribed { // until the goroutine has ended
	}
	return err
}

func (c *SubCmd) subscribe(ctx context.Context, conn *client.Conn) error {
	subs := make([]mqtt.Subscription, len(c.Topics))
	for i, filter := range c.Topics {
		subs[i] = mqtt.Subscription{Filter: filter, QoS: c.level()}
	}
	reasons, props, err := conn.SubscribeReasons(ctx, subs...)
	if err != nil {
		return err
	}
	for i, reason := range reasons {
		if reason.Failed() {
			return c.refused(subs[i].Filter, &client.ReasonError{Packet: packet.TypeSuback, Reason: reason, Properties: props})
		}
	}
	return nil
}

// refused is the error of a subscription that the broker refuses. Before MQTT 5 it
// cannot say why.
func (c *SubCmd) refused(filter string, why error) error {
	if !c.isV5() {
		return fmt.Errorf("the broker refused the subscription to %q: check what this user may read; with -V 5 the broker may say why", filter)
	}
	return fmt.Errorf("subscribe to %q: %w", filter, why)
}

// printer writes messages and acknowledges them once they are written.
type printer struct {
	out     *bufio.Writer
	verbose bool
	conn    *client.Conn
	written []client.Message // in out, not acknowledged
}

// print writes up to count messages; 0 means all. It returns when ctx is done, the
// subscription failed or the connection is lost.
func (p *printer) print(ctx context.Context, messages <-chan client.Message, subscribed <-chan error, count uint) error {
	for n := uint(0); ; {
		select {
		case m := <-messages:
			p.write(m)
			n++
		case err := <-subscribed:
			if err != nil {
				return err
			}
			subscribed = nil // it is closed now, and would be ready for ever
		case <-ctx.Done():
			return p.flush()
		case <-p.conn.Done():
			for len(messages) > 0 { // nothing more comes
				p.write(<-messages)
			}
			return errors.Join(p.flush(), p.conn.Err())
		}
		if n == count && count > 0 {
			return p.flush()
		}
		if len(messages) == 0 {
			if err := p.flush(); err != nil {
				return err
			}
		}
	}
}

// write adds m to the output. Its errors come back from flush.
func (p *printer) write(m client.Message) {
	if p.verbose {
		_, _ = p.out.WriteString(m.Topic + " ")
	}
	_, _ = p.out.Write(m.Payload)
	_ = p.out.WriteByte('\n')
	p.written = append(p.written, m)
}

// flush writes what gathered and acknowledges it.
func (p *printer) flush() error {
	if err := p.out.Flush(); err != nil {
		return fmt.Errorf("print messages: %w", err)
	}
	for _, m := range p.written {
		_ = p.conn.Ack(m) // a lost connection shows in print
	}
	p.written = p.written[:0]
	return nil
}
