// Command tidegate is an edge gateway: an MQTT broker with a queue on disk,
// adapters that turn sensors into topics, and bridges to a broker upstream.
//
// There are three nouns. A command is a struct with flags and a Run method, one
// file each; [run] finds and starts it, and turns its error into an exit code.
// A [Config] is all that can be configured, composed of the Config of each
// package. A [loader] reads one from YAML files and knows where every value
// stood, so that each of the [Errors] names a line and a column.
package main
