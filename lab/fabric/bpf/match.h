// SPDX-License-Identifier: Apache-2.0
//
// What rules say of a packet: two lookups by longest prefix, however many rules.
//
//   {set, remote address}          -> class     which of the set's rules can match
//   {class, protocol, port}        -> verdict   what these rules say together
//
// Go works out both tries (match.go): the entry of a prefix has taken in what
// the shorter ones say, so that the longest is the whole answer. A set and a
// class are named by a hash of their contents. New rules are a new set, which
// lies beside the old one in full before an ENI is turned to it: an ENI meets
// either all of the old rules or all of the new ones.
#pragma once

#include "fabric.h"

// Bits of a verdict; the Go names are in match.go. No entry: nothing matches.
#define VERDICT_ALLOW 1
#define VERDICT_ANYWHERE 2 // a group's rule for 0.0.0.0/0 allows it

struct remote_key {
	__u32 prefixlen; // 64 + the length of the IPv4 prefix
	__u32 set[2];
	__be32 addr;
};

// port is in network order: the destination port; of ICMP type and code; else 0.
struct port_key {
	__u32 prefixlen; // 64: all protocols; 72: a protocol; up to 88: with its ports
	__u32 rules[2];
	__u8 protocol;
	__u8 port[2];
	__u8 unused;
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__type(key, struct remote_key);
	__type(value, __u64); // class
	__uint(max_entries, 1 << 20);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} remotes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__type(key, struct port_key);
	__type(value, __u8); // VERDICT_ bits
	__uint(max_entries, 1 << 20);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} verdicts SEC(".maps");

// verdict is asked in several places and compiled once.
static __noinline __u32 verdict(__u64 set, __be32 remote, __u32 protocol, __u32 port)
{
	struct remote_key r = { .prefixlen = 96, .set = { set, set >> 32 }, .addr = remote };
	struct port_key k = { .prefixlen = 88, .protocol = protocol, .port = { port >> 8, port } };
	__u64 *rules = bpf_map_lookup_elem(&remotes, &r);
	__u8 *v;

	if (!rules)
		return 0;
	k.rules[0] = *rules;
	k.rules[1] = *rules >> 32;
	v = bpf_map_lookup_elem(&verdicts, &k);
	return v ? *v : 0;
}
