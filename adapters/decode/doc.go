// Package decode reads the fields out of a frame. It does no I/O.
//
// There are three nouns. A [Config] says how a device writes its values. A
// [Decoder] reads one frame accordingly. A [Field] is a name and a value.
//
// Values are float64 or int64 where the text is a decimal number, else string;
// JSON also has bool. "nan" and "inf" are numbers: sensors say so when they fail,
// and whoever publishes refuses them.
package decode
