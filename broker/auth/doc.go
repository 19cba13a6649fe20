// Package auth decides who a client is and what it may do.
//
// There are five nouns. An [Identity] is who a client is: its user name and its
// client id. [Accounts] are an [Authenticator]: they turn what a CONNECT brings
// into an Identity, or refuse it. [Passwords] are the contents of a password
// file, in mosquitto's format. A [Method] of the embedding program authenticates
// in several steps. An [ACL] is an [Authorizer]: the rules of an
// access control list, in mosquitto's syntax, which say what an Identity may
// read and write.
//
// Both files are read once, completely: either every line is right, or the error
// is a [LineErrors] that names each wrong one. To reload a file, load it again and
// replace the old value; clients that stay connected keep their Identity.
//
// The package starts no goroutine. Everything that is loaded may be used from any
// number of them. docs/auth.md describes the files, the cost of a password, and
// where the rules are stricter than mosquitto's.
package auth
