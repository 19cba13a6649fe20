package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"tidegate/mqtt/packet"
)

// answerAuth has the Auth of the options answer a step of the broker.
func (c *Conn) answerAuth(f packet.Frame) (answer packet.Auth, asked bool, err error) {
	var a packet.Auth
	if err := a.Decode(f); err != nil {
		return packet.Auth{}, false, err
	}
	if a.Reason == packet.ReasonSuccess {
		return packet.Auth{}, false, nil
	}
	if c.options.Auth == nil {
		return packet.Auth{}, false, errors.New("the broker asks for an authentication that the client did not offer [MQTT-4.12.0-6]")
	}
	a.Properties = bytes.Clone(a.Properties)
	answer, err = c.options.Auth(a)
	if err != nil {
		return packet.Auth{}, false, fmt.Errorf("authenticate: %w", err)
	}
	return answer, true, nil
}

// Reauthenticate proves again who the client is, in MQTT 5 with the
// authentication method that it connected with, and waits until the broker is
// content; otherwise the connection ends. p are authentication method and data.
// There may be one at a time.
func (c *Conn) Reauthenticate(ctx context.Context, p packet.Properties) error {
	result := make(chan error, 1)
	if err := c.sendAuth(ctx, p, func(err error) { result <- err }); err != nil {
		return fmt.Errorf("authenticate again: %w", err)
	}
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return fmt.Errorf("authenticate again: %w", context.Cause(ctx))
	}
}

func (c *Conn) sendAuth(ctx context.Context, p packet.Properties, done func(error)) error {
	if err := c.only5("AUTH"); err != nil {
		return err
	}
	if err := c.lockToSend(ctx); err != nil {
		return err
	}
	defer c.unlockAndWake()
	if c.authenticated != nil {
		return errors.New("an authentication is under way")
	}
	a := packet.Auth{Reason: packet.ReasonReauthenticate, Properties: p}
	if err := c.keepLocked(a.Append(c.out.bytes)); err != nil {
		return err
	}
	c.authenticated = done
	return nil
}

// handleAuth moves an authentication on or ends it.
func (c *Conn) handleAuth(f packet.Frame) error {
	c.mu.Lock()
	begun := c.authenticated != nil
	c.mu.Unlock()
	if !begun {
		return errors.New("AUTH, for which the client did not ask [MQTT-4.12.1-1]")
	}
	answer, asked, err := c.answerAuth(f)
	if err != nil {
		return err
	}
	if asked {
		return c.sendAnswer(answer)
	}
	c.mu.Lock()
	done := c.authenticated
	c.authenticated = nil
	c.mu.Unlock()
	done(nil)
	return nil
}

// sendAnswer sends a step of the client. If nothing can be sent any more, the
// reader finds out by itself.
func (c *Conn) sendAnswer(a packet.Auth) error {
	if c.lockToSend(context.Background()) != nil {
		return nil
	}
	defer c.unlockAndWake()
	return c.keepLocked(a.Append(c.out.bytes))
}
