// Package packet turns the bytes of MQTT 3.1.1 and 3.1 into structs and back.
//
// There are four nouns. A [Frame] is one whole packet that [Split] found in a
// buffer: its first byte and its body. A packet struct ([Publish], [Connect],
// [Ack] …) decodes itself from a frame and appends itself to a buffer. An
// [Error] is a malformed packet or a violation of the protocol, with the
// statement of the standard that it breaks and, where there is one, the code
// that answers it. A [Reader] is Split over an io.Reader, for clients.
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
// of MQTT 3.1.1 (OASIS, 29 October 2014). Rules about the order of packets are
// the caller's. After an error the struct is of no use. No input makes the package panic, and publishes and
// acknowledgements are decoded and encoded without allocation.
//
// Append trusts its struct: it does not check again that a topic is lawful or
// that a text has at most 65535 bytes.
//
// Apart from Reader there is no I/O, and there is no goroutine.
package packet
