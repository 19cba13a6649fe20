// Package interop tests the gateway against MQTT clients that nobody here wrote:
// the programs of mosquitto, paho for Python and for C, and MQTT.js.
//
// There are four nouns. A driver is a program of one of these clients that does
// one thing and prints what it receives; their sources are in testdata. A row is
// a driver with one version of the protocol, a feature is what has to work, and a
// cell is the test of a feature in a row, which checks every payload.
//
// The table in docs/interop.md is written by go test ./internal/interop -update.
package interop
