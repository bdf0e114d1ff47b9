// Package store keeps the node's one durable record: which attachment holds
// which address. Everything else an agent knows it can learn again.
//
// There is one file per address, named as the address, so that the file system
// itself forbids two holders:
//
//	<dir>/lock              held by flock while a Store is open
//	<dir>/10.0.1.23         {"version":1,"addr":"10.0.1.23","eni":"eni-..",...}
//	<dir>/.tmp-10.0.1.24    what a crash left of a Put; removed by Open
//
// Invariants: a file with an address for a name is complete, because it gets
// that name only after its content is on the disk; a crash at any instant leaves
// the old record, the new one, or none where there was none. A Put or Delete that
// has returned nil survives a crash of the process and of the machine. A record
// that cannot be read counts as held (see [BadRecordsError]).
//
// The record need not outlive a boot, as no pod does: a directory below /run
// (a tmpfs, where the syncs are free) is the right place for it.
//
// A Store is safe for concurrent use. Two processes cannot open one directory.
package store
