// Package pty opens pseudo-terminals, which a program that expects a serial port
// takes for one: the demo and the tests play sensors over them.
//
// There is one noun. A [Pair] is the cable: the sensor writes to its Master, the
// gateway opens its Slave by name. Closing the pair pulls the plug.
//
// What differs from a real port: the baud rate means nothing, bytes written
// while nobody has the slave open wait there (up to about 4 KiB, then writes
// block), and the name of a closed slave may be given to the next pair.
package pty
