// SPDX-License-Identifier: Apache-2.0
//
// The contract between the programs and Go: map layouts, flags, reasons.
// bpf2go turns the structs and the enum into Go, so neither side can drift.
//
// Keys hold the ifindex of an ENI's fabric end. The fabric gives every device
// that it makes an ifindex of its own across all VPC namespaces, which is what
// allows one set of maps for VPCs that overlap in addresses.
#pragma once

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define ENI_SOURCE_DEST_CHECK 1 // eni.flags: the attribute sourceDestCheck is true

// skb->mark between from_eni and to_eni, inside the VPC namespace only: veth
// scrubs it when the packet leaves for the guest.
#define MARK_TTL_255 0x80000000u

// The number of the route table that is asked about the packet: the namespace
// has an "ip rule fwmark" for each. 0 is none, local delivery only.
#define MARK_TABLE 0x0000ffffu

// skb->mark of a frame that a fault's relay gives back: it goes on where it was
// taken out, and is not taken out again. Alone in the mark.
#define MARK_RELAYED 0x40000000u

// PASS hands a packet to the next program of its hook, a fault's if there is
// one, and else lets it go on.
#define PASS TC_ACT_UNSPEC

// REASON_MAX leaves room: a new reason does not change the map's layout.
#define REASON_MAX 32

enum reason {
	REASON_NONE,
	REASON_MALFORMED,
	REASON_MAC_SPOOF,
	REASON_NOT_ROUTER_MAC,
	REASON_NOT_IPV4,
	REASON_MULTICAST,
	REASON_IP_OPTIONS,
	REASON_SRC_DST_CHECK,
	REASON_MARTIAN,
	REASON_LINK_LOCAL,
	REASON_NO_OWNER,
	REASON_NOT_ATTACHED,
	REASON_NO_ROUTE,
	REASON_LINK_DOWN,
	REASON_PARTITION,
	REASON_FAULT,
	REASON_BLACKHOLE,
	REASON_NO_PUBLIC_ADDRESS,
	REASON_MTU,
	REASON_NO_TRANSLATION,
	REASON_SG_EGRESS,
	REASON_SG_INGRESS,
	REASON_NACL_EGRESS,
	REASON_NACL_INGRESS,
	REASON_FRAGMENT,
};

// filter is what an ENI's packets must pass; without flags, nothing.
struct filter {
	__u64 groups[2], acl[2]; // sets of rules, by direction
	__u64 revision;          // a hash of all that decides, without the bits of flow.found
	__be32 subnet, mask;
	__u32 tcp_established, udp_stream, udp; // idle time-outs, in seconds
	__u32 flags;                            // FILTER_ in flow.h
};

// eni is replaced as a whole: no packet meets a half of it.
struct eni {
	__u8 mac[ETH_ALEN];
	__u16 flags;
	__be32 primary; // the address that most packets come from
	__be32 router; // the implied router's address in the ENI's subnet
	__u32 table;   // number of the subnet's route table, as in MARK_TABLE
	__u32 unused;
	struct filter filter;
};

// owned_key finds whether addr (network order) belongs to the ENI. The ifindex
// is always part of the match: prefixlen = 32 + the length of the IPv4 prefix.
struct owned_key {
	__u32 prefixlen;
	__u32 ifindex;
	__be32 addr;
};

struct count {
	__u64 packets;
	__u64 bytes;
};

struct drops {
	struct count by_reason[REASON_MAX];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32); // ifindex of a fabric end
	__type(value, struct eni);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} enis SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__type(key, struct owned_key);
	__type(value, __u8);
	__uint(max_entries, 1 << 20);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} owned SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __be32); // a link-local address that the fabric itself serves
	__type(value, __u8);
	__uint(max_entries, 64);
} services SEC(".maps");

// Go makes the entry before the ENI exists, so that counting never allocates.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__type(key, __u32); // ifindex of the fabric end the packet came in by
	__type(value, struct drops);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} drops SEC(".maps");

// Unused; they put the types into the object's BTF, where bpf2go finds them.
const enum reason *reason_in_btf __attribute__((unused));

// count and drop are compiled once, out of the way of what passes.
static __noinline void count(__u32 ifindex, __u32 reason, __u32 bytes)
{
	struct drops *d = bpf_map_lookup_elem(&drops, &ifindex);

	barrier_var(reason); // else the verifier does not see that it is bounded
	if (d && reason < REASON_MAX) {
		d->by_reason[reason].packets++;
		d->by_reason[reason].bytes += bytes;
	}
}

static __noinline int drop(struct __sk_buff *skb, __u32 ifindex, __u32 reason)
{
	count(ifindex, reason, skb->len);
	return TC_ACT_SHOT;
}

static __always_inline int owns(__u32 ifindex, __be32 addr)
{
	struct owned_key key = { .prefixlen = 64, .ifindex = ifindex, .addr = addr };

	return bpf_map_lookup_elem(&owned, &key) != 0;
}

// same_mac compares by halves: the compiler's memcmp is a call that BPF has not.
static __always_inline int same_mac(const void *a, const void *b)
{
	const __u16 *x = a, *y = b;

	return x[0] == y[0] && x[1] == y[1] && x[2] == y[2];
}
