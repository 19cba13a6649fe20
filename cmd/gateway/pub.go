package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"tidegate/internal/client"
	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// PubCmd publishes messages.
type PubCmd struct {
	connectFlags
	qosFlag
	Topic     string
	Retain    bool
	Message   *string
	Null      bool
	Lines     bool
	Stdin     bool
	JSONLines bool
	File      string
}

func (c *PubCmd) define(p *params) {
	c.connectFlags.define(p)
	c.qosFlag.define(p)
	p.StringVarP(&c.Topic, "topic", "t", "", "`TOPIC` to publish to.")
	p.BoolVarP(&c.Retain, "retain", "r", false, "Ask the broker to keep the message for later subscribers.")
	p.FuncP("message", "m", "Publish this `TEXT`.", func(text string) error { c.Message = &text; return nil })
	p.BoolVarP(&c.Null, "null-message", "n", false, "Publish an empty message; with -r it removes the retained one.")
	p.BoolVarP(&c.Lines, "stdin-line", "l", false, "Publish each line of standard input; empty ones are left out.")
	p.BoolVarP(&c.Stdin, "stdin-file", "s", false, "Publish all of standard input as one message.")
	p.BoolVar(&c.JSONLines, "json-lines", false, "Publish each line of standard input as queue export wrote it: topic, QoS, retain and payload are in it; properties with -V 5.")
	p.StringVarP(&c.File, "file", "f", "", "Publish the contents of a `FILE` as one message.")
}

// Help is shown by --help.
func (PubCmd) Help() string {
	return `Flags are those of mosquitto_pub; -h is the host. Ends with 0 once the broker has
acknowledged everything (QoS 0: once it is sent), else with 1. With -l several
messages are under way at a time.

Examples:

    tidegate pub -t actuator/relay/pump/set -m on -q 1
    tidegate queue export bridge/cloud | tidegate pub -h broker.example.com --json-lines
    journalctl -f | tidegate pub -h gateway.local -t log -l -q 1`
}

// Run publishes and returns when all is acknowledged.
func (c *PubCmd) Run(ctx context.Context, std stdio) error {
	if err := c.check(); err != nil {
		return &usageError{"pub", err}
	}
	send := c.publishLines
	if !c.Lines && !c.JSONLines {
		payload, err := c.payload(std.In)
		if err != nil {
			return err
		}
		send = func(ctx context.Context, conn *client.Conn, _ io.Reader) error {
			return conn.Publish(ctx, c.message(payload))
		}
	}
	conn, err := c.dial(ctx, client.Options{CleanSession: true})
	if err != nil {
		return err
	}
	if err := send(ctx, conn, std.In); err != nil {
		conn.Close()
		if ctx.Err() != nil { // and all else follows from it
			return context.Cause(ctx)
		}
		return err
	}
	return conn.Disconnect()
}

func (c *PubCmd) check() error {
	switch {
	case c.sources() > 1:
		return errors.New("only one of -m, -n, -l, -s, -f and --json-lines can be used")
	case c.JSONLines && c.Topic != "":
		return errors.New("--json-lines and --topic can't be used together")
	case c.JSONLines:
		return nil
	case c.Topic == "":
		return errors.New("say where to publish with -t")
	case c.sources() == 0:
		return errors.New("say what to publish with -m, -n, -l, -s or -f")
	}
	return mqtt.ValidName(c.Topic)
}

// sources is how many flags say what to publish.
func (c *PubCmd) sources() (n int) {
	for _, given := range []bool{c.Message != nil, c.Null, c.Lines, c.Stdin, c.JSONLines, c.File != ""} {
		if given {
			n++
		}
	}
	return n
}

func (c *PubCmd) message(payload []byte) mqtt.Message {
	return mqtt.Message{Topic: c.Topic, Payload: payload, QoS: c.level(), Retain: c.Retain}
}

// payload returns the one message that the flags ask for.
func (c *PubCmd) payload(in io.Reader) ([]byte, error) {
	switch {
	case c.Message != nil:
		return []byte(*c.Message), nil
	case c.Stdin:
		return readPayload("standard input", in)
	case c.File != "":
		file, err := os.Open(c.File)
		if err != nil {
			return nil, fmt.Errorf("read the message: %w", err)
		}
		defer file.Close()
		return readPayload(c.File, file)
	}
	return nil, nil
}

// readPayload reads all of r, which is called name, but not more than the
// protocol could carry.
func readPayload(name string, r io.Reader) ([]byte, error) {
	payload, err := io.ReadAll(io.LimitReader(r, packet.MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read the message: %w", err)
	}
	if len(payload) > packet.MaxSize {
		return nil, fmt.Errorf("read the message: %s has more than %d bytes: %w", name, packet.MaxSize, mqtt.ErrTooLarge)
	}
	return payload, nil
}

// publishLines publishes each line of in and waits for all acknowledgements.
//
// A read of a terminal cannot be interrupted, so when the connection ends
// earlier than in, the goroutine that reads it is left behind.
func (c *PubCmd) publishLines(ctx context.Context, conn *client.Conn, in io.Reader) error {
	stop := context.AfterFunc(ctx, conn.Close) // ends what waits below
	defer stop()
	lines := make(chan []byte)
	var readErr error // set before lines is closed
	go func() {
		defer close(lines)
		readErr = readLines(in, lines, conn.Done())
	}()
	var under sync.WaitGroup
	failed := make(chan error, 1) // the first failure
	for {
		select {
		case <-conn.Done():
			return conn.Err()
		case err := <-failed:
			return err
		case line, more := <-lines:
			if !more {
				under.Wait()
				return firstOf(readErr, failed)
			}
			m, props, err := c.parse(line)
			if err != nil {
				return err
			}
			under.Add(1)
			err = conn.PublishAsyncWith(ctx, m, props, func(err error) {
				keep(failed, err)
				under.Done()
			})
			if err != nil {
				return err
			}
		}
	}
}

// readLines sends the lines of in that are not empty, until done is closed.
func readLines(in io.Reader, lines chan<- []byte, done <-chan struct{}) error {
	scanner := bufio.NewScanner(in)
	scanner.Buffer(nil, packet.MaxSize)
	for scanner.Scan() {
		if len(scanner.Bytes()) == 0 {
			continue
		}
		select {
		case lines <- bytes.Clone(scanner.Bytes()):
		case <-done:
			return nil
		}
	}
	if err := scanner.Err(); err != nil {
		return fmt.Errorf("read standard input: %w", err)
	}
	return nil
}

// keep puts err into the channel unless there is one already.
func keep(failed chan<- error, err error) {
	if err == nil {
		return
	}
	select {
	case failed <- err:
	default:
	}
}

func firstOf(err error, failed <-chan error) error {
	select {
	case first := <-failed:
		return first
	default:
		return err
	}
}
