// SPDX-License-Identifier: Apache-2.0
//
// Path MTU: the kernel of the VPC namespace refuses what does not fit the next
// device and must not be fragmented, and tells the sender so. It does for each
// such packet: fragmentation needed is exempt from the kernel's rate limits.
#pragma once

#include "fabric.h"

struct icmp_error { // RFC 792, with the header of the packet it is about
	__u8 type;
	__u8 code;
	__be16 check;
	__be32 rest;
	struct iphdr about;
};

// too_big counts the packet that such a message is about, for the ENI that gets
// the message, and makes the message the implied router's: the namespace has no
// address of its own in the subnet. ICMP has no pseudo header, so the checksum
// of the IP header alone changes.
static __always_inline void too_big(struct __sk_buff *skb, struct eni *eni)
{
	__u32 ifindex = skb->ifindex;
	struct icmp_error icmp;
	struct iphdr ip;

	if (skb->protocol != bpf_htons(ETH_P_IP) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.protocol != 1 || ip.ihl < 5 ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + ip.ihl * 4, &icmp, sizeof(icmp)) ||
	    icmp.type != 3 || icmp.code != 4)
		return;
	count(ifindex, REASON_MTU, ETH_HLEN + bpf_ntohs(icmp.about.tot_len));
	bpf_l3_csum_replace(skb, ETH_HLEN + __builtin_offsetof(struct iphdr, check), ip.saddr, eni->router, 4);
	bpf_skb_store_bytes(skb, ETH_HLEN + __builtin_offsetof(struct iphdr, saddr), &eni->router, 4, 0);
}
