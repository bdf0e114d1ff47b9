// Package ipamd is the node's address daemon: what stands between the pods that
// ask for addresses and the EC2 that has them.
//
//	ADD, DEL             Book: one goroutine owns it          Executor: asks, never decides
//	   |        +-------------------------------------+
//	   '------> | queue  pool  records                |      +---------------------------+
//	            |    \     |                          |      | a goroutine per EC2 call, |
//	            |     State --> ipam.Plan --> Changes-+----> | one for each kind of read |
//	            |                 ^                   |      +---------------------------+
//	            |  belief <-------+-- what was read,  | <------ results ---'  |   |
//	            |                     what was written|                      EC2 IMDS
//	            +-------------------------------------+
//
// The [Book] holds all state, and belongs to the goroutine of whoever made it:
// the agent's node loop. The [Executor] has none but timers: it takes the changes
// that the book begins, makes each one's single EC2 call in a goroutine of its own,
// and hands the outcome back.
//
// What must hold, across a crash at any point:
//
//   - An address's record is on disk before a pod has it, and it says "released"
//     before the release is answered.
//   - An address that EC2 is asked to take back is in the journal before the call
//     goes out, and given to nobody until EC2's reads can be trusted about it again.
//   - Every step towards more or fewer ENIs is one call, and what a crash leaves
//     between two of them is what the next plan begins with.
//
// ADDs that find nothing free wait in the order they came; nobody who comes later
// is served first. When something happens, those look again who may be served, and all
// where nothing is to be hoped for any more: see tell. Errors of calls are logged here, once each.
package ipamd
