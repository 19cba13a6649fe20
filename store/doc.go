// Package store keeps bytes through crashes and power cuts without wearing the
// card out. It knows no MQTT, starts no goroutine, and is the only package that
// imports bbolt.
//
// There are five nouns. A [Store] is one directory, open in one process. A
// [Batch] is everything that has to become durable together; [Store.Commit] is
// the only way to write. A [Record] is a numbered piece of data owed to one or
// more queues, stored once. A [Queue] is a position in the sequence of records:
// all up to Acked are released, Pending are still owed. A [Row] is a small named
// value: in state.db by table, or as a mark beside the records.
//
// Records live in the journal, a chain of segments, each a bbolt file of about
// [Options.SegmentSize]. Records are only appended, never deleted one by one: a
// segment that no queue needs any more is removed as a file. The newest segment
// also holds the position of every queue, so that a commit is one transaction.
// Positions that change alone, as they do while a queue drains, go to a small file of
// their own, beyond the newest segment's last transaction, until it has another.
// docs/format.md describes the bytes and what a crash can leave behind.
//
// Damage is an event, not the end. Of a damaged file what parses is written anew;
// the file itself is kept as *.corrupt-<time>, that is logged and counted, and the
// rest goes on. While there is no room for that the file is read as it is. A record whose checksum fails is skipped and counted. bbolt panics on damage and
// a shrunken file faults in its memory map; neither leaves this package.
package store
