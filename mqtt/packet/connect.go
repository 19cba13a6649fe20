package packet

import (
	"bytes"

	"tidegate/mqtt"
)

// Connect is what a client opens a connection with (MQTT 3.1.1, section 3.1).
type Connect struct {
	Version      Version
	CleanSession bool   // clean start in MQTT 5: what there is of a session ends now
	KeepAlive    uint16 // longest silence of the client in seconds; 0: no limit
	ClientID     string
	Will         *Will  // nil: none
	HasUsername  bool   // an empty user name is not the same as none
	Username     string // empty unless HasUsername
	Password     []byte // nil: none; needs HasUsername before MQTT 5
	Properties   Properties
}

// Will is what the server publishes when the connection ends without a
// DISCONNECT.
type Will struct {
	Topic   string
	Payload []byte
	QoS     mqtt.QoS
	Retain  bool

	Properties Properties
}

// The connect flags (MQTT 3.1.1, figure 3.4).
const (
	connectReserved     = 0x01
	connectCleanSession = 0x02
	connectWill         = 0x04
	connectWillQoS      = 0x18
	connectWillRetain   = 0x20
	connectPassword     = 0x40
	connectUsername     = 0x80

	connectWillQoSShift = 3
)

const (
	protocolName    = "MQTT"
	protocolNameV31 = "MQIsdp"
)

// Decode reads a CONNECT. Nothing in c aliases the frame. An [*Error] with a
// Code is to be answered with that code; after any other the connection is closed
// without an answer [MQTT-3.1.4-1]. If the Version is V5, also after an error,
// its Reason is the answer.
func (c *Connect) Decode(f Frame) error {
	r := newFields(f)
	*c = Connect{Version: r.protocol()}
	flags := r.connectFlags()
	c.CleanSession = flags&connectCleanSession != 0
	c.KeepAlive = r.uint16("keep alive")
	c.Properties = bytes.Clone(r.authProperties())
	c.ClientID = string(r.text("client identifier")) // [MQTT-3.1.3-3] [MQTT-3.1.3-4]
	if flags&connectWill != 0 {
		c.Will = r.will(flags)
	}
	c.decodeLogin(&r, flags)
	if err := r.end(); err != nil {
		return err
	}
	return c.checkClientID()
}

// protocol reads protocol name and level. What follows is read as that version.
func (r *fields) protocol() Version {
	name := string(r.text("protocol name"))
	level := Version(r.byte("protocol level"))
	r.version = level
	switch {
	case name != protocolName && name != protocolNameV31:
		err := violation("MQTT-3.1.2-1", "CONNECT with the protocol name %q, it must be %q", name, protocolName)
		err.Reason = ReasonUnsupportedVersion
		r.fail(err)
	case name == protocolName && level != V311 && level != V5, name == protocolNameV31 && level != V31:
		err := refusal(RefusedVersion, "MQTT-3.1.2-2", "CONNECT as %s with protocol level %d: only MQTT 5.0, 3.1.1 and 3.1 are spoken here", name, byte(level))
		err.Reason = ReasonUnsupportedVersion
		r.fail(err)
	}
	return level
}

// connectFlags reads the flags and checks which go together. MQTT 3.1 leaves
// the reserved one to the client; MQTT 5 has passwords without a user name.
func (r *fields) connectFlags() byte {
	flags := r.byte("connect flags")
	switch {
	case flags&connectReserved != 0 && r.version != V31:
		r.violation("MQTT-3.1.2-3", "CONNECT with its reserved flag set")
	case flags&connectWill == 0 && flags&connectWillQoS != 0:
		r.violation("MQTT-3.1.2-13", "CONNECT with a will QoS but no will")
	case flags&connectWill == 0 && flags&connectWillRetain != 0:
		r.violation("MQTT-3.1.2-15", "CONNECT with will retain but no will")
	case flags&connectWillQoS == connectWillQoS:
		r.violation("MQTT-3.1.2-14", "CONNECT with a will of QoS 3")
	case flags&connectPassword != 0 && flags&connectUsername == 0 && r.version != V5:
		r.violation("MQTT-3.1.2-22", "CONNECT with a password but no user name")
	}
	return flags
}

// will reads will properties, topic and message [MQTT-3.1.2-9] [MQTT-3.1.3-10].
func (r *fields) will(flags byte) *Will {
	w := &Will{
		Properties: bytes.Clone(r.propertiesIn(inWill)),
		Topic:      string(r.name("will topic", "MQTT-4.7.1-1")), // [MQTT-3.1.3-11] of MQTT 5
		Payload:    append([]byte(nil), r.binary("will message")...),
		QoS:        mqtt.QoS(flags & connectWillQoS >> connectWillQoSShift),
		Retain:     flags&connectWillRetain != 0,
	}
	r.checkFormat(w.Properties, w.Payload)
	return w
}

// decodeLogin reads user name [MQTT-3.1.2-19] [MQTT-3.1.3-11] and password
// [MQTT-3.1.2-21]. In MQTT 3.1 the length of the packet counts for more than the
// flags: both may be announced and missing.
func (c *Connect) decodeLogin(r *fields, flags byte) {
	present := func(flag byte) bool {
		return flags&flag != 0 && (c.Version != V31 || len(r.rest) > 0)
	}
	if present(connectUsername) {
		c.HasUsername = true
		c.Username = string(r.text("user name"))
	}
	if present(connectPassword) {
		c.Password = append([]byte{}, r.binary("password")...)
	}
}

// checkClientID refuses an empty client identifier where there must be one. The
// 23 characters of MQTT 3.1 are no upper limit here.
func (c *Connect) checkClientID() error {
	switch {
	case c.ClientID != "" || c.Version == V5: // the server assigns one [MQTT-3.1.3-6]
		return nil
	case c.Version == V31:
		return refusal(RefusedClientID, "MQTT-3.1.3-9", "CONNECT without a client identifier, which MQTT 3.1 requires")
	case !c.CleanSession:
		return refusal(RefusedClientID, "MQTT-3.1.3-8", "CONNECT without a client identifier asks to keep its session; it needs one, or a clean session")
	}
	return nil
}

// Append appends c as a packet.
func (c *Connect) Append(dst []byte) []byte {
	name := protocolName
	if c.Version == V31 {
		name = protocolNameV31
	}
	dst = appendHeader(dst, byte(TypeConnect)<<4, 2+len(name)+4+c.propertiesSize()+c.payloadSize())
	dst = appendField(dst, name)
	dst = append(dst, byte(c.Version), c.flags())
	dst = appendUint16(dst, c.KeepAlive)
	if c.Version == V5 {
		dst = appendProperties(dst, c.Properties)
	}
	dst = appendField(dst, c.ClientID) // the order of the fields: [MQTT-3.1.3-1]
	if w := c.Will; w != nil {
		if c.Version == V5 {
			dst = appendProperties(dst, w.Properties)
		}
		dst = appendField(dst, w.Topic)
		dst = appendField(dst, w.Payload)
	}
	if c.HasUsername {
		dst = appendField(dst, c.Username)
	}
	if c.Password != nil {
		dst = appendField(dst, c.Password)
	}
	return dst
}

func (c *Connect) flags() byte {
	var flags byte
	if c.CleanSession {
		flags |= connectCleanSession
	}
	if w := c.Will; w != nil {
		flags |= connectWill | byte(w.QoS)<<connectWillQoSShift
		if w.Retain {
			flags |= connectWillRetain
		}
	}
	if c.HasUsername {
		flags |= connectUsername
	}
	if c.Password != nil {
		flags |= connectPassword
	}
	return flags
}

// propertiesSize is how many bytes the properties of c and of its will take.
func (c *Connect) propertiesSize() int {
	if c.Version != V5 {
		return 0
	}
	n := c.Properties.size()
	if c.Will != nil {
		n += c.Will.Properties.size()
	}
	return n
}

func (c *Connect) payloadSize() int {
	n := 2 + len(c.ClientID)
	if w := c.Will; w != nil {
		n += 2 + len(w.Topic) + 2 + len(w.Payload)
	}
	if c.HasUsername {
		n += 2 + len(c.Username)
	}
	if c.Password != nil {
		n += 2 + len(c.Password)
	}
	return n
}
