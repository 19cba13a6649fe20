package client

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// Options say how to open a connection and what to do with what it brings.
type Options struct {
	ClientID     string         // may be empty with CleanSession, except in MQTT 3.1, and always in MQTT 5
	Username     string         // empty, and Password too: none
	Password     string         // empty: none
	CleanSession bool           // in MQTT 5: clean start; how long the session lives is a property
	KeepAlive    time.Duration  // time between two PINGREQs, at most 65535 s; 0: none are sent; a broker of MQTT 5 may ask for another
	Will         *mqtt.Message  // nil: none
	Version      packet.Version // 0: MQTT 3.1.1
	Window       int            // publishes of QoS 1 and 2 that may be unacknowledged; 0: 20

	// ManualAck leaves it to Conn.Ack to acknowledge received messages.
	ManualAck bool

	// Handler is called with each received message, one after the other. While
	// it runs nothing else is read, which holds the broker back; so it must not
	// wait for an acknowledgement and must not call Close or Disconnect. nil:
	// messages are acknowledged and forgotten.
	Handler func(Message)

	// Properties are those of the CONNECT, and WillProperties those of the will.
	// They exist only in MQTT 5: session expiry, receive maximum, maximum packet
	// size, topic alias maximum, authentication, user properties; will delay.
	Properties     packet.Properties
	WillProperties packet.Properties

	// Auth answers an AUTH that asks the client to go on: when the connection
	// opens, or after Reauthenticate. Its error ends the connection. It must not
	// wait for an acknowledgement; the properties of its argument are its own.
	// nil: the broker must not ask.
	Auth func(packet.Auth) (packet.Auth, error)
}

const (
	defaultWindow = 20
	maxWindow     = math.MaxUint16 - 1000 // leaves packet identifiers for SUBSCRIBE
	maxKeepAlive  = math.MaxUint16 * time.Second
)

// connect is the CONNECT that opens the connection.
func (o *Options) connect() (*packet.Connect, error) {
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("client options: %w", err)
	}
	c := &packet.Connect{
		Version:      o.Version,
		CleanSession: o.CleanSession,
		KeepAlive:    uint16((o.KeepAlive + time.Second - 1) / time.Second),
		ClientID:     o.ClientID,
		HasUsername:  o.Username != "" || o.Password != "" && o.Version != packet.V5, // [MQTT-3.1.2-22]
		Username:     o.Username,
		Properties:   o.Properties,
	}
	if o.Password != "" {
		c.Password = []byte(o.Password)
	}
	if w := o.Will; w != nil {
		c.Will = &packet.Will{Topic: w.Topic, Payload: w.Payload, QoS: w.QoS, Retain: w.Retain, Properties: o.WillProperties}
	}
	if err := checkConnect(c); err != nil {
		return nil, fmt.Errorf("client options: %w", err)
	}
	return c, nil
}

// checkConnect checks properties as the broker will.
func checkConnect(c *packet.Connect) error {
	f, _, _, err := packet.Split(c.Append(nil), packet.MaxSize)
	if err != nil {
		return err
	}
	return new(packet.Connect).Decode(f)
}

func (o *Options) setDefaults() {
	if o.Version == 0 {
		o.Version = packet.V311
	}
	if o.Window == 0 {
		o.Window = defaultWindow
	}
	if o.Handler == nil {
		o.Handler = func(Message) {}
	}
}

func (o *Options) check() error {
	switch {
	case o.Version != packet.V31 && o.Version != packet.V311 && o.Version != packet.V5:
		return fmt.Errorf("%s is not supported; use 3.1, 3.1.1 or 5.0", o.Version)
	case o.Version != packet.V5 && len(o.Properties)+len(o.WillProperties) > 0:
		return fmt.Errorf("MQTT %s has no properties; use 5.0", o.Version)
	case o.Will == nil && len(o.WillProperties) > 0:
		return errors.New("there are properties of a will, but no will")
	case o.Window < 1 || o.Window > maxWindow:
		return fmt.Errorf("a window of %d is not between 1 and %d", o.Window, maxWindow)
	case o.KeepAlive < 0 || o.KeepAlive > maxKeepAlive:
		return fmt.Errorf("a keep alive of %s is not between 0 and %s", o.KeepAlive, maxKeepAlive)
	case o.ClientID == "" && !o.CleanSession && o.Version != packet.V5:
		return errors.New("a session that is to be kept needs a client id")
	case len(o.Password) > math.MaxUint16:
		return errors.New("the password has more than 65535 bytes")
	}
	return errors.Join(checkText("client id", o.ClientID), checkText("user name", o.Username), checkWill(o.Will))
}

// checkText checks what MQTT 3.1.1, section 1.5.3, asks of a text.
func checkText(what, s string) error {
	switch {
	case len(s) > math.MaxUint16:
		return fmt.Errorf("the %s has more than 65535 bytes", what)
	case !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0:
		return fmt.Errorf("the %s %q is not UTF-8 without zero characters", what, s)
	}
	return nil
}

func checkWill(w *mqtt.Message) error {
	if w == nil {
		return nil
	}
	if len(w.Payload) > math.MaxUint16 {
		return fmt.Errorf("will of %d bytes, at most 65535 are possible: %w", len(w.Payload), mqtt.ErrTooLarge)
	}
	if err := w.Validate(); err != nil {
		return fmt.Errorf("will: %w", err)
	}
	return nil
}
