// Package serial is the adapter for sensors on a serial port.
//
// There are three nouns. A [Port] is an open serial port whose reads end soon. An
// [Adapter] reads one, cuts the bytes into frames, decodes these and emits the
// fields. A [Config] is what a user writes about it. [Ports] lists the ports that
// the machine has.
//
// Goroutines: none. Run's caller is the only one that reads and closes the port,
// since the driver's Close waits for a Read that is under way.
//
// The first frame after opening: what arrives before the line has been quiet for
// [settle] was under way before, so its first frame is dropped and counted as
// "cut", because half of "121.4" is a wrong value that looks right. What arrives
// later began after the port was open and is whole. The adapter is reported
// online after that time, so whoever waits for that before sending loses nothing.
package serial
