// Package units reads and writes the quantities of the configuration.
//
// There are four nouns: a [Size] in bytes, written "64KiB" or "500MB", a
// [Duration], written "250ms", "2h" or "30d", a [Rate], written "200/s", "64KiB/s"
// or "200/s 64KiB/s", and a [Percent], written "50%".
package units
