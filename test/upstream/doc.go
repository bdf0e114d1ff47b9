// Package upstream gets the programs of others that tests run beside ours,
// unchanged:
//
//	Go modules       built from the version that a module of the tests requires
//	Debian packages  unpacked, where the machine has no such program
//
// What takes long is kept in the user's cache, by a name that changes with what it
// is made of. Nothing is installed. Each step ends with a rename, so several tests
// may do the same at once.
package upstream
