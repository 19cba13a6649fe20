// Package conformance holds the broker against every normative statement of MQTT
// 3.1.1 and MQTT 5.0, those sentences of the standards that have a number such as
// [MQTT-3.1.0-2].
//
// There are four nouns. A statement is a line in testdata/statements-3.1.1.txt or
// statements-5.txt: its number, whom it concerns, and what it asks in our words. A
// script in testdata/scripts is a conversation with the broker, byte by byte, in
// virtual time; it names the statements that it covers in each version that it
// speaks. A reference in testdata/references.txt names a Go test elsewhere that
// covers a statement which bytes alone cannot. A row of docs/conformance.md is a
// statement with its scripts and references and how they ended; the tests write
// it, with
//
//	go test ./internal/conformance -update
//
// and fail if it is stale, or if a statement has no row.
//
// # Scripts
//
// A line that is not indented names a script. The indented lines below it first
// say what it covers ("5: 3.1.0-2"), one for each version that it is run in, and
// then what happens. A step has a client's name, a verb and bytes; "5|" or "4|" in
// front restricts it to MQTT 5 or to the versions before.
//
//	a on            a connects with a clean session and the client identifier "a"
//	a keep          a connects and wants to keep its session; there is none yet
//	a back          a connects to a session that is there
//	a > 32 {"t" 0001 P 'x'}   a sends bytes, over a new connection if it has none
//	a < 40 {0001}   the next packet that a gets
//	a quiet         a gets nothing but the answer to a PINGREQ
//	a end           the broker closes a's connection and sends nothing before that
//	a off           a sends DISCONNECT, and the broker closes
//	a drop          a's connection breaks
//	wait 10s        time passes
//	restart         the broker stops in an orderly way and starts again
//	limit receive_maximum 2   a limit of the broker; before everything else
//
// The version of a step's bytes may differ by three letters: N is the protocol's
// name, V its number, P an empty set of properties, which only MQTT 5 has. I is the
// packet identifier of the last PUBLISH that the client got, J that of the one
// before. Bytes
// are hexadecimal digits, "text" with its length before it, 'text' without, and
// {…} with its length before it as a variable byte integer; 'x'*9 repeats. In what
// is expected ?? is any byte and ** any number of bytes. With on, keep and back the
// bytes are further properties of a CONNECT of MQTT 5.
//
// The user "nobody" may not connect, and no one may use topics below "secret".
package conformance
