// Package testbed starts what tests of several rooms stand beside: Debian's
// mosquitto, and the gateway's own program.
//
// What is started ends with the test. A test that needs what is not installed
// is skipped, and says what to install.
package testbed
