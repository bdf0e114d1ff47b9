//go:build ignore
// SPDX-License-Identifier: Apache-2.0
//
// The programs at the edge of a VPC namespace.
//
//   guest -- veth --> [from_eni] -> kernel's routes -> [to_eni] -- veth --> guest
//                                        |
//                                        +-> [to_sink]  no way to go: count, drop
#include "arp.h"
#include "fabric.h"
#include "filter.h"
#include "ipv4.h"
#include "link.h"
#include "mtu.h"

#define HEADERS 42 // Ethernet + ARP: the most that from_eni reads

// from_eni sees what a guest sends, before the VPC namespace does.
SEC("tc")
int from_eni(struct __sk_buff *skb)
{
	const __u8 router[ETH_ALEN] = ROUTER_MAC;
	__u32 ifindex = skb->ifindex;
	struct eni *eni = bpf_map_lookup_elem(&enis, &ifindex);
	struct ethhdr *eth;
	void *data_end;

	if (!eni) // Go writes the entry before the device exists: nobody's packet
		return TC_ACT_SHOT;

	if (skb->data_end - skb->data < HEADERS)
		bpf_skb_pull_data(skb, skb->len < HEADERS ? skb->len : HEADERS);
	eth = (void *)(long)skb->data;
	data_end = (void *)(long)skb->data_end;
	if ((void *)(eth + 1) > data_end)
		return drop(skb, ifindex, REASON_MALFORMED);

	if (!same_mac(eth->h_source, eni->mac))
		return drop(skb, ifindex, REASON_MAC_SPOOF);
	if (skb->vlan_present)
		return drop(skb, ifindex, REASON_NOT_IPV4);
	if (eth->h_proto == bpf_htons(ETH_P_ARP))
		return arp(skb, ifindex, eni);
	if (eth->h_proto != bpf_htons(ETH_P_IP))
		return drop(skb, ifindex, REASON_NOT_IPV4);
	if (!(eth->h_dest[0] & 1) && !same_mac(eth->h_dest, router))
		return drop(skb, ifindex, REASON_NOT_ROUTER_MAC);
	return ipv4(skb, ifindex, eni);
}

// to_eni sees what the VPC delivers to a guest.
SEC("tc")
int to_eni(struct __sk_buff *skb)
{
	__u32 ifindex = skb->ifindex;
	struct eni *eni = bpf_map_lookup_elem(&enis, &ifindex);
	int reason;

	if (!eni) // as in from_eni
		return TC_ACT_SHOT;
	if (!skb->ingress_ifindex) // of the VPC namespace itself
		too_big(skb, eni);
	reason = filter(skb, &eni->filter, IN);
	if (reason != REASON_NONE)
		return drop(skb, skb->ifindex, reason);
	restore_255(skb);
	return PASS;
}

// to_sink sees what the routes of the VPC namespace lead nowhere, and charges
// it to the ENI it came from (answers of the fabric's own sockets came from
// none). Each sink device stands for one reason, which is the class of its
// filter: "tc filter show dev no-owner egress" prints it.
SEC("tc")
int to_sink(struct __sk_buff *skb)
{
	return drop(skb, skb->ingress_ifindex, skb->tc_classid);
}

// No helper used here is for GPL programs only.
char __license[] SEC("license") = "Apache-2.0";
