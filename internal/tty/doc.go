// Package tty asks a person at a terminal for a password.
//
// [IsTerminal] says whether somebody is there to ask, [ReadPassword] asks. Where
// the terminal cannot be told to keep quiet, nobody counts as being there.
package tty
