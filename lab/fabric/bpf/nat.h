// SPDX-License-Identifier: Apache-2.0
//
// The internet gateway's one-to-one NAT: private <-> public address, stateless.
#pragma once

#include "fabric.h"

#define NAT_TO_PUBLIC 0
#define NAT_TO_PRIVATE 1

struct nat_key {
	__u32 ifindex; // of the VPC's end of the internet gateway
	__u32 direction;
	__be32 addr; // the address to be replaced
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct nat_key);
	__type(value, __be32);
	__uint(max_entries, 1 << 17);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} nat SEC(".maps");

// translate_error replaces the address inside an ICMP error, of the packet that
// the error is about: it went the other way, so what is the source outside is
// the destination inside. The checksum of the ICMP message stays: address and
// header checksum inside move it by the same amount, in opposite directions.
static __always_inline void translate_error(struct __sk_buff *skb, __u32 icmp, __u32 direction, __be32 from, __be32 to)
{
	__u32 at = icmp + 8; // RFC 792
	struct iphdr about;
	__u8 type;

	if (bpf_skb_load_bytes(skb, icmp, &type, sizeof(type)) || (type != 3 && type != 5 && type != 11 && type != 12))
		return;
	if (bpf_skb_load_bytes(skb, at, &about, sizeof(about)))
		return;
	if ((direction == NAT_TO_PUBLIC ? about.daddr : about.saddr) != from)
		return;
	bpf_l3_csum_replace(skb, at + __builtin_offsetof(struct iphdr, check), from, to, 4);
	bpf_skb_store_bytes(skb, at + (direction == NAT_TO_PUBLIC ? __builtin_offsetof(struct iphdr, daddr)
								  : __builtin_offsetof(struct iphdr, saddr)),
			    &to, sizeof(to), 0);
}

// translate is 0 when the packet has its new address. Checksums are changed by
// the difference, which holds also for those that the sender left to offload.
static __always_inline int translate(struct __sk_buff *skb, __u32 direction)
{
	struct nat_key key = { .ifindex = skb->ifindex, .direction = direction };
	struct iphdr ip;
	__be32 *found, to;
	__u32 l4;

	if (skb->protocol != bpf_htons(ETH_P_IP) || bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
		return -1;
	key.addr = direction == NAT_TO_PUBLIC ? ip.saddr : ip.daddr;
	found = bpf_map_lookup_elem(&nat, &key);
	if (!found)
		return -1;
	to = *found;
	l4 = ETH_HLEN + ip.ihl * 4;
	if (!(ip.frag_off & bpf_htons(0x1fff))) { // the ports are in the first fragment
		if (ip.protocol == 6)
			bpf_l4_csum_replace(skb, l4 + 16, key.addr, to, BPF_F_PSEUDO_HDR | 4);
		else if (ip.protocol == 17)
			bpf_l4_csum_replace(skb, l4 + 6, key.addr, to, BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0 | 4);
		else if (ip.protocol == 1)
			translate_error(skb, l4, direction, key.addr, to);
	}
	bpf_l3_csum_replace(skb, ETH_HLEN + __builtin_offsetof(struct iphdr, check), key.addr, to, 4);
	bpf_skb_store_bytes(skb, ETH_HLEN + (direction == NAT_TO_PUBLIC ? __builtin_offsetof(struct iphdr, saddr)
									: __builtin_offsetof(struct iphdr, daddr)),
			    &to, sizeof(to), 0);
	return 0;
}
