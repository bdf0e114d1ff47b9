// SPDX-License-Identifier: Apache-2.0
//
// The implied router's ARP: every address but the asker's own is the router.
//
// Answered here and not by the kernel's proxy_arp, which asks the routing table
// first: an address behind a blackhole route, or whose route leads back to the
// asker, would get no answer. In a VPC, ARP never tells what the routes say.
#pragma once

#include "fabric.h"

// ROUTER_MAC is the MAC of every fabric end; Go's RouterMAC, a test compares.
#define ROUTER_MAC { 0x02, 0x00, 0x00, 0x00, 0x00, 0x01 }

struct arp_ipv4 { // RFC 826, for Ethernet and IPv4
	__be16 htype;
	__be16 ptype;
	__u8 hlen;
	__u8 plen;
	__be16 op;
	__u8 sha[ETH_ALEN];
	__be32 spa;
	__u8 tha[ETH_ALEN];
	__be32 tpa;
} __attribute__((packed));

// arp ends every ARP packet: a request is turned round and sent back, all else
// (replies, announcements, questions for the asker's own addresses) stops here
// without being a drop, for the VPC has nobody to tell.
static __always_inline int arp(struct __sk_buff *skb, __u32 ifindex, struct eni *eni)
{
	const __u8 router[ETH_ALEN] = ROUTER_MAC;
	void *data_end = (void *)(long)skb->data_end;
	struct ethhdr *eth = (void *)(long)skb->data;
	struct arp_ipv4 *a = (void *)(eth + 1);
	__be32 asked;

	if ((void *)(a + 1) > data_end)
		return drop(skb, ifindex, REASON_MALFORMED);
	if (a->htype != bpf_htons(1) || a->ptype != bpf_htons(ETH_P_IP) ||
	    a->hlen != ETH_ALEN || a->plen != 4)
		return drop(skb, ifindex, REASON_MALFORMED);
	if (!same_mac(a->sha, eni->mac))
		return drop(skb, ifindex, REASON_MAC_SPOOF);
	if (a->op != bpf_htons(1) || owns(ifindex, a->tpa))
		return TC_ACT_SHOT;

	asked = a->tpa;
	a->op = bpf_htons(2);
	a->tpa = a->spa;
	a->spa = asked;
	__builtin_memcpy(a->tha, eni->mac, ETH_ALEN);
	__builtin_memcpy(a->sha, router, ETH_ALEN);
	__builtin_memcpy(eth->h_dest, eni->mac, ETH_ALEN);
	__builtin_memcpy(eth->h_source, router, ETH_ALEN);
	return bpf_redirect(ifindex, 0);
}
