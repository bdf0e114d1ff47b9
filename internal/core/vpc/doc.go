// Package vpc names the things of an Amazon VPC that a node and its planner
// reason about: the ENI, its addresses and prefixes, and the limits of an
// instance type.
//
// The types are values: comparable where they can be, never shared for writing,
// the same input always giving the same text. IPv4 and IPv6 addresses are
// [net/netip] types throughout; a prefix is always masked.
//
// The package is pure. It holds no state but the embedded limits table, which
// is parsed once, on first use, and never changes; it is safe for concurrent
// use.
package vpc
