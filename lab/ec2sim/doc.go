// Package ec2sim is the EC2 API of one account, held in memory: VPCs and what is
// in them, how they are joined to each other and to the internet, network
// interfaces and instances, served over the EC2 Query protocol (API version
// 2016-11-15), so that an unmodified AWS SDK or the aws CLI needs only its
// endpoint set.
//
//	request -> form tree -> parse -> typed input -> state machine -> result -> render -> XML
//	           (form.go)    (action*.go)    (in-process callers enter here)
//
// # Invariants
//
// A call that fails changes nothing: every write to the state is journalled
// and undone. An address belongs to at most one network interface of its
// subnet. A request with an unknown action, parameter or filter is refused,
// never ignored. The same seed and the same calls give the same identifiers,
// MAC addresses and IP addresses.
//
// # Regions
//
// A [Cloud] is the account as seen from one region: [Cloud.In] gives another
// view of the same. A call finds only what is in its region; of all resources
// only a peering may belong to two. A request's region is that of its
// signature's scope.
//
// # Real devices
//
// With [Config].Devices an attachment stays "attaching", and an instance
// "pending", until the owner of the devices reports otherwise ([Cloud.DeviceAttached],
// [Cloud.DeviceDetached], [Cloud.InstanceRunning], [Cloud.InstanceTerminated]).
// Its loop is level-triggered: take [Cloud.Changed], then [Cloud.Snapshot],
// make the world so, report, wait on the channel. Reports may come late or
// twice.
//
// # Worse than ideal
//
// By default calls succeed at once. [Config] can make them be throttled, late
// and about an old state, attachments take time, and quotas hold: with a seed,
// so that the same requests give the same run. docs/design/ec2sim.md says what of
// it is known from AWS's pages and what is assumed.
//
// # In tests
//
// [Cloud.Transport] serves a client in memory, without root and sockets, and so
// also under testing/synctest.
//
// # Concurrency
//
// One mutex guards everything; the package starts no goroutine, and its state
// knows no clock but [Config].Now: what is due is done by the next call that
// comes. What waits does so outside the mutex, by [Config].After; only the
// writer of large HTTP replies waits on the real clock, for a millisecond and
// where there is a socket (handler.go, settle).
// All methods are safe for concurrent use, and what they return is the caller's
// own.
//
// # Sources
//
// Codes and messages follow "Error codes for the Amazon EC2 API" (Amazon EC2
// Developer Guide) and what the service is seen to send; limits per instance
// type come from DescribeInstanceTypes.
package ec2sim
