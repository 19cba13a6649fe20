// Package clock is the gateway's time. A board without a battery-backed clock
// starts in 1970 and jumps to today some time later, so the time of day can
// neither order nor time anything.
//
// There are two nouns. The line is a time that only goes on: with the monotonic
// clock while the program runs, and behind what was saved after a restart. All
// that is stored is stamped with it. A span is a part of the line with what is
// known of the real time there: nothing but the word of the system's clock after a
// start, until the system says that its clock is right; then that span is
// corrected, and with it all stamps in it, however long ago they were made.
//
// How long the gateway was switched off is not on the line. [Clock.Real] knows it
// when both starts were synchronised.
//
// The state is one small file, written at the start, with each correction, every
// ten minutes and at the end.
package clock
