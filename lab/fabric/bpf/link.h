// SPDX-License-Identifier: Apache-2.0
//
// The programs at the ends of what joins namespaces: peerings, transit gateway
// attachments and internet gateways.
//
//   VPC namespace                                   transit gateway, other VPC
//   ENI -> routes -> [to_link]  ==== veth ====>  [from_link] -> routes -> ENI
//
//   VPC namespace                                   internet
//   ENI -> routes -> [to_igw]   ==== veth ====>  routes -> lo
//   ENI <- routes <- [from_igw] <=== veth =====
//
// None of these is a hop (lab; AWS documents none): each gives back the TTL as
// from_eni does.
#pragma once

#include "acl.h"
#include "ipv4.h"
#include "nat.h"

// enter prepares what came by a link for the namespace's routes. table is the
// number of the table that is asked; 0 delivers locally only, which is why
// peering is not transitive and why there is no routing from edge to edge.
static __always_inline int enter(struct __sk_buff *skb, __u32 table)
{
	struct ethhdr *eth;
	struct iphdr *ip;

	skb->mark = table & MARK_TABLE;
	if (bpf_skb_pull_data(skb, sizeof(*eth) + sizeof(*ip)))
		return PASS;
	eth = (void *)(long)skb->data;
	ip = (void *)(eth + 1);
	if ((void *)(ip + 1) > (void *)(long)skb->data_end || eth->h_proto != bpf_htons(ETH_P_IP))
		return PASS;
	if (ip->ttl < 255)
		raise_ttl(ip);
	else
		skb->mark |= MARK_TTL_255;
	return PASS;
}

// The class of the filter is the number of the route table.
SEC("tc")
int from_link(struct __sk_buff *skb)
{
	int verdict = enter(skb, skb->tc_classid);

	if (attachment_denies(skb, OUT))
		return drop(skb, skb->ifindex, REASON_NACL_EGRESS);
	return verdict;
}

SEC("tc")
int to_link(struct __sk_buff *skb)
{
	if (attachment_denies(skb, IN))
		return drop(skb, skb->ifindex, REASON_NACL_INGRESS);
	restore_255(skb);
	return PASS;
}

SEC("tc")
int from_igw(struct __sk_buff *skb)
{
	if (translate(skb, NAT_TO_PRIVATE))
		return drop(skb, skb->ifindex, REASON_NO_OWNER);
	return enter(skb, 0);
}

SEC("tc")
int to_igw(struct __sk_buff *skb)
{
	if (translate(skb, NAT_TO_PUBLIC))
		return drop(skb, skb->ingress_ifindex, REASON_NO_PUBLIC_ADDRESS);
	restore_255(skb);
	return PASS;
}
