// SPDX-License-Identifier: Apache-2.0
//
// What from_eni demands of an IPv4 packet before the kernel may forward it.
// Whatever the kernel would drop by itself without telling which ENI it came
// from (bad checksum, source routes, martians) is dropped here first, with a
// reason.
#pragma once

#include "fabric.h"
#include "filter.h"

#define IN_NET(addr, net, mask) (((addr) & bpf_htonl(mask)) == bpf_htonl(net))

static __always_inline int is_link_local(__be32 a) { return IN_NET(a, 0xa9fe0000, 0xffff0000); }

// 224.0.0.0/4 and the limited broadcast.
static __always_inline int is_multicast(__be32 a)
{
	return IN_NET(a, 0xe0000000, 0xf0000000) || a == bpf_htonl(0xffffffff);
}

// 0.0.0.0/8 and 127.0.0.0/8: on no wire, as source or destination (RFC 1122, 3.2.1.3).
static __always_inline int is_martian(__be32 a)
{
	return IN_NET(a, 0x00000000, 0xff000000) || IN_NET(a, 0x7f000000, 0xff000000);
}

static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

// header_sum is of a header without options. The helper for it is a call.
static __always_inline __u64 header_sum(struct iphdr *ip)
{
	__u32 *word = (__u32 *)ip;

	return (__u64)word[0] + word[1] + word[2] + word[3] + word[4];
}

// raise_ttl adds one to the TTL and corrects the header checksum (RFC 1141: the
// sum moves against the field; the TTL is the high byte of its word).
static __always_inline void raise_ttl(struct iphdr *ip)
{
	__u32 sum = bpf_ntohs(ip->check);

	sum = sum >= 0x100 ? sum - 0x100 : sum - 0x100 + 0xffff;
	ip->check = bpf_htons(sum);
	ip->ttl++;
}

static __always_inline int ipv4(struct __sk_buff *skb, __u32 ifindex, struct eni *eni)
{
	void *data_end = (void *)(long)skb->data_end;
	struct ethhdr *eth = (void *)(long)skb->data;
	struct iphdr *ip = (void *)(eth + 1);
	__u16 total;
	int reason;

	if ((void *)(ip + 1) > data_end || ip->version != 4 || ip->ihl < 5)
		return drop(skb, ifindex, REASON_MALFORMED);
	// Segments that the sender leaves to offload carry the length of the whole.
	total = bpf_ntohs(ip->tot_len);
	if (total < ip->ihl * 4 || total > skb->len - sizeof(*eth) || ip->ttl == 0)
		return drop(skb, ifindex, REASON_MALFORMED);
	if (ip->ihl > 5)
		return drop(skb, ifindex, REASON_IP_OPTIONS);
	if (fold(header_sum(ip)) != 0xffff)
		return drop(skb, ifindex, REASON_MALFORMED);

	if (is_multicast(ip->daddr) || (eth->h_dest[0] & 1))
		return drop(skb, ifindex, REASON_MULTICAST);
	if ((eni->flags & ENI_SOURCE_DEST_CHECK) && ip->saddr != eni->primary && !owns(ifindex, ip->saddr))
		return drop(skb, ifindex, REASON_SRC_DST_CHECK);
	if (is_martian(ip->saddr) || is_multicast(ip->saddr) || is_martian(ip->daddr))
		return drop(skb, ifindex, REASON_MARTIAN);
	if (is_link_local(ip->saddr))
		return drop(skb, ifindex, REASON_LINK_LOCAL);
	if (is_link_local(ip->daddr)) {
		__be32 to = ip->daddr;

		if (!bpf_map_lookup_elem(&services, &to))
			return drop(skb, ifindex, REASON_LINK_LOCAL);
		return TC_ACT_OK;
	}

	reason = filter(skb, &eni->filter, OUT);
	if (reason != REASON_NONE)
		return drop(skb, ifindex, reason);

	// The implied router is no hop. Give back beforehand what the kernel's
	// forwarding is going to take: a packet that is sent with TTL 1 arrives.
	// 255 has no room: to_eni gives that one back afterwards. A packet that
	// circles between a guest and the VPC still ends, by the guest's decrement.
	skb->mark = eni->table & MARK_TABLE;
	if (ip->ttl < 255)
		raise_ttl(ip);
	else
		skb->mark |= MARK_TTL_255;
	return TC_ACT_OK;
}

// restore_255 gives back the one of the TTL for which there was no room before
// the kernel's forwarding.
static __always_inline void restore_255(struct __sk_buff *skb)
{
	struct ethhdr *eth;
	struct iphdr *ip;

	if (!(skb->mark & MARK_TTL_255) || bpf_skb_pull_data(skb, sizeof(*eth) + sizeof(*ip)))
		return;
	eth = (void *)(long)skb->data;
	ip = (void *)(eth + 1);
	if ((void *)(ip + 1) <= (void *)(long)skb->data_end && ip->ttl == 254)
		raise_ttl(ip);
}
