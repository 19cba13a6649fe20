// Package packet turns the bytes of MQTT 5.0, 3.1.1 and 3.1 into structs and
// back.
//
// There are five nouns. A [Frame] is one whole packet that [Split] found in a
// buffer: its first byte and its body. A packet struct ([Publish], [Connect],
// [Ack] …) decodes itself from a frame and appends itself to a buffer.
// [Properties] are what MQTT 5 adds to a packet. An [Error] is a malformed packet
// or a violation of the protocol, with the statement of the standard that it
// breaks and, where there is one, the code that answers it. A [Reader] is Split
// over an io.Reader, for clients.
//
// The caller splits, looks at [Frame.Type], and decodes into a struct that it
// may use again and again:
//
//	f, n, _, err := packet.Split(buf, maxSize)
//	switch f.Type() {
//	case packet.TypePublish:
//		err = publish.Decode(f)
//
// Decode checks every rule that concerns the bytes of the packet alone; ids
// such as [MQTT-2.3.1-1] in comments and errors name the normative statements
// of MQTT 3.1.1 (OASIS, 29 October 2014) or, on a connection of MQTT 5 and in
// what exists only there, of MQTT 5.0 (OASIS, 7 March 2019). Rules about the
// order of packets are the caller's. After an error the struct is of no use. No
// input makes the package panic, and publishes and acknowledgements are decoded
// and encoded without allocation.
//
// Append trusts its struct: it does not check again that a topic is lawful or
// that a text has at most 65535 bytes.
//
// # MQTT 5
//
// A connection begins without a version. [Connect.Decode] finds it out, and from
// then on the server splits with [Version.Split], a client sets [Reader.Version].
// So every frame says its version and who sent it, and Decode follows. Structs
// whose bytes depend on the version have a field Version for Append; [Unsuback],
// [Disconnect5] and [Auth] are of MQTT 5 alone.
//
// Properties stay the bytes that they are, checked once by Decode: no properties
// cost nothing, and those of a message are stored and forwarded as they came.
// They are looked up by identifier, and built by appending:
//
//	expiry, ok := connect.Properties.Uint(packet.PropSessionExpiry)
//	connack.Properties = connack.Properties.AppendUint(packet.PropReceiveMaximum, 128)
//
// A server that receives a PUBLISH keeps two pieces of it, which may share one
// buffer of at most 2+len(Topic)+len(Payload)+len(Properties) bytes: topic and
// payload ([Publish.AppendBody]) and the properties that belong to the message
// ([Properties.AppendForwarded]). From these it sends to receivers of any version
// with [AppendPublish] or [AppendPublish5]; what differs from one receiver of
// MQTT 5 to the next is an [Extra].
//
// Apart from Reader there is no I/O, and there is no goroutine.
package packet
