// Package relay loses, delays and reorders frames that pass through it, as a
// bad wire does: in place of the kernel's netem, which not every kernel has.
//
// [Schedule] decides, and is pure: a seed and the frames so far say what is lost
// and what is overtaken, the time that it is given says when a frame goes on.
// [Relay] is the thin edge, one goroutine that reads frames from a device and
// writes them back when they are due; [Tap] makes the device. Frames carry their
// virtio-net header, so segments that are left to offload (64 KiB at most)
// pass as the one that they are: one frame is one decision.
//
// Invariants:
//   - A frame is written once or never, unchanged.
//   - Without ReorderPercent the order is kept, whatever the jitter.
//   - A relay that is stopped has written all that waited, and holds no device.
//
// A Relay's methods are safe for concurrent use, a Schedule's are not.
package relay
