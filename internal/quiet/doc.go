// Package quiet reads and writes sockets without telling the scheduler.
//
// The scheduler need not know of a call that returns at once: being told wakes
// its monitor thread for every message that reaches an idle gateway, and keeps it
// awake while messages are many (docs/adr/0015). [Read] and [Write] are the calls,
// on a descriptor that never blocks; [Over] makes a connection that uses
// them, and waits as any other does, or until there is more than one byte ([Patient]).
package quiet
