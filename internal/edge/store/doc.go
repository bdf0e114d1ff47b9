// Package store keeps what an agent cannot learn again after a restart: which
// attachment holds which address, and which addresses EC2 was asked to take back
// a moment ago.
//
// There is one file per address, named as the address, so that the file system
// itself forbids two holders:
//
//	<dir>/lock              held by flock while a Store is open
//	<dir>/10.0.1.23         {"version":1,"addr":"10.0.1.23","eni":"eni-..",...}
//	<dir>/leaving           {"version":1,"leaving":[{"prefix":"10.0.1.9/32",...}]}
//	<dir>/.tmp-10.0.1.24    what a crash left of a Put; removed by Open
//
// Invariants: a file with such a name is complete, because it gets that name
// only after its content is on the disk; a crash at any instant leaves the old
// file, the new one, or none where there was none. A call that has returned nil
// survives a crash of the process and of the machine. A record that cannot be
// read counts as held (see [BadRecordsError]); a journal that cannot be read
// holds up nothing else (see [ErrDamaged]). Records of older versions are read,
// and of newer ones are held; see [Version].
//
// The record need not outlive a boot, as no pod does: a directory below /run
// (a tmpfs, where the syncs are free) is the right place for it.
//
// A Store is safe for concurrent use. Two processes cannot open one directory: a
// person who looks after records opens it while no agent runs.
package store
