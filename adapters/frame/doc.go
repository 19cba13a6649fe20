// Package frame cuts the bytes of a device into frames. It does no I/O.
//
// There are two nouns. A [Config] says how the frames of a device are told apart.
// A [Splitter] cuts one stream of bytes accordingly; how the bytes were read,
// whole or one by one, makes no difference to it.
package frame
