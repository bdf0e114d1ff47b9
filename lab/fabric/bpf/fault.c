//go:build ignore
// SPDX-License-Identifier: Apache-2.0
//
// Faults on the packets of an ENI: attached only while there is one.
//
// A relay in user space loses, delays and reorders. It reads what is taken out
// here from one end of a tap device, one for each direction, and writes what is
// to go on to the same end:
//
//   guest --> [take_out] --tap "out-..."--> relay --tap--> [put_back_in]
//                                                               |
//             [from_eni] <--------------------------------------+
//
//   [check] --> [to_eni] --> [take_out] --tap "in-..."--> relay --tap--> [put_back_out]
//                                                                             |
//   [check] <-----------------------------------------------------------------+
//      +--> guest
//
// So a packet meets the VPC's rules once, and those that count what enters the
// VPC count what the wire has let through. Which tap, and which ENI, is the
// class of the filter: an ifindex.
#include "fabric.h"

struct zone {
	__u64 in;  // one bit: the zone that the ENI is in
	__u64 cut; // the zones that it is cut off from
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32); // ifindex of a fabric end
	__type(value, struct zone);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} zones SEC(".maps");

// take_out leads IPv4 to the relay. ARP does not cross the wire: the implied
// router answers at the ENI.
SEC("tc")
int take_out(struct __sk_buff *skb)
{
	if (skb->mark == MARK_RELAYED) { // only at ingress: check lets it go before
		skb->mark = 0;
		return PASS;
	}
	if (skb->protocol != bpf_htons(ETH_P_IP))
		return PASS;
	return bpf_redirect(skb->tc_classid, 0);
}

SEC("tc")
int put_back_in(struct __sk_buff *skb)
{
	skb->mark = MARK_RELAYED;
	return bpf_redirect(skb->tc_classid, BPF_F_INGRESS);
}

SEC("tc")
int put_back_out(struct __sk_buff *skb)
{
	skb->mark = MARK_RELAYED;
	return bpf_redirect(skb->tc_classid, 0);
}

// check is the first that what the VPC delivers to a guest meets.
SEC("tc")
int check(struct __sk_buff *skb)
{
	__u32 to = skb->ifindex, from = skb->ingress_ifindex;
	struct zone *there, *here;

	if (skb->mark == MARK_RELAYED)
		return TC_ACT_OK;
	here = bpf_map_lookup_elem(&zones, &to);
	there = bpf_map_lookup_elem(&zones, &from);
	if (here && there && (here->cut & there->in))
		return drop(skb, from, REASON_PARTITION);
	return PASS;
}

char __license[] SEC("license") = "Apache-2.0";
