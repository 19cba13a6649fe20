package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"time"

	"tidegate/bridge"
	"tidegate/internal/client"
	"tidegate/mqtt"
)

// VerifyCmd reads envelopes upstream and reports what is missing or came twice.
type VerifyCmd struct {
	connectFlags
	outputFlag
	Topics []string
	Count  uint
	Wait   uint32
}

func (c *VerifyCmd) define(p *params) {
	c.connectFlags.define(p)
	c.outputFlag.define(p)
	p.StringArrayVarP(&c.Topics, "topic", "t", nil, "Topic `FILTER`; may be given several times.")
	p.UintVarP(&c.Count, "count", "C", 0, "End after so `MANY` messages.")
	p.Uint32VarP(&c.Wait, "wait", "W", 0, "End after so many `SECONDS`.")
	p.require("topic")
}

// Help is shown by --help.
func (VerifyCmd) Help() string {
	return `Subscribes to the server that gateways send to, and reads the numbers that
"envelope: json" puts around their messages; with -V 5 also those of "properties". Says
at once what is missing or came twice, and at the end, with -C, -W or ^C, how much of
each gateway. Ends with 1 if something is missing. With --id the server keeps a session
between two calls, so that nothing is missed meanwhile. Flags are those of sub.

Example:

    tidegate verify -h broker.example.com -t 'site/#' -i auditor -W 3600`
}

// Run audits until enough has come, the time is over, ctx is done or the connection
// is lost.
func (c *VerifyCmd) Run(ctx context.Context, std stdio) error {
	for _, filter := range c.Topics {
		if err := mqtt.ValidFilter(filter); err != nil {
			return &usageError{"verify", err}
		}
	}
	if c.Wait > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(c.Wait)*time.Second)
		defer cancel()
	}
	v := &verifier{audit: bridge.NewAudit(), out: std.Out, quiet: c.Output == "json"}
	err := c.receive(ctx, v)
	if ctx.Err() != nil { // ^C, or the time is over
		err = nil
	}
	if report := v.report(std, c.Output); err == nil {
		err = report
	}
	return err
}

// receive feeds v.
func (c *VerifyCmd) receive(ctx context.Context, v *verifier) error {
	messages, ended := make(chan client.Message, 100), make(chan struct{})
	defer close(ended)
	conn, err := c.dial(ctx, client.Options{
		CleanSession: c.ID == "",
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
	var subscribing sync.WaitGroup
	defer subscribing.Wait()
	defer conn.Close()
	subscribed := make(chan error, 1)
	subscribing.Go(func() { subscribed <- (&SubCmd{Topics: c.Topics, qosFlag: qosFlag{1}}).subscribe(ctx, conn) })
	for left := uint64(c.limit()); left > 0; {
		select {
		case m := <-messages:
			v.add(m)
			_ = conn.Ack(m) // a lost connection shows below
			left--
		case err := <-subscribed:
			if err != nil {
				return err
			}
			subscribed = nil
		case <-conn.Done():
			return conn.Err()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return conn.Disconnect()
}

func (c *VerifyCmd) limit() uint {
	if c.Count == 0 {
		return math.MaxUint
	}
	return c.Count
}

// verifier prints what an audit finds.
type verifier struct {
	audit *bridge.Audit
	out   io.Writer
	quiet bool
	bare  uint64 // messages without an envelope
}

func (v *verifier) add(m client.Message) {
	finding, err := v.audit.Add(messageOf(m))
	switch {
	case err != nil:
		if v.bare++; v.bare == 1 && !v.quiet {
			fmt.Fprintf(v.out, "%s: %v\n", m.Topic, err)
		}
	case finding != "" && !v.quiet:
		fmt.Fprintln(v.out, finding)
	}
}

// messageOf is m with the user properties of MQTT 5.
func messageOf(m client.Message) mqtt.Message {
	out := m.Message
	out.Properties = new(mqtt.Properties)
	for name, value := range m.Properties.User() {
		out.Properties.User = append(out.Properties.User, mqtt.UserProperty{Name: name, Value: value})
	}
	return out
}

// report prints the tallies. Its error says that something is missing.
func (v *verifier) report(std stdio, output string) error {
	tallies := v.audit.Tallies()
	if output == "json" {
		if err := printJSON(std, map[string]any{"bridges": tallies, "without_envelope": v.bare}); err != nil {
			return err
		}
	}
	missing := uint64(0)
	for _, t := range tallies {
		missing += t.Missing
		if output != "json" {
			fmt.Fprintf(std.Out, "%s/%s: %d messages, %d missing, %d duplicates, %d late, %d starts of the gateway, %d with a time that nobody confirmed\n",
				t.Gateway, t.Bridge, t.Messages, t.Missing, t.Duplicates, t.Late, t.Starts, t.Unsynced)
		}
	}
	if output != "json" && v.bare > 0 {
		fmt.Fprintf(std.Out, "%d messages without an envelope\n", v.bare)
	}
	switch {
	case missing > 0:
		return fmt.Errorf("%d messages are missing", missing)
	case len(tallies) == 0:
		return errors.New("no message with an envelope came: set envelope: json for the bridges, and check the topic")
	}
	return nil
}
