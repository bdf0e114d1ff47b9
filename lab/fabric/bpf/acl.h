// SPDX-License-Identifier: Apache-2.0
//
// Network ACLs: stateless, at the subnet's border. What stays inside the subnet
// meets none.
#pragma once

#include "flow.h"

// stays_inside: the packet does not cross the subnet's border. What leaves is
// known by its destination. What comes is known by who sent it, be that with
// another's address: an ENI, or the attachment of a transit gateway, which is in a
// subnet too.
static __always_inline int stays_inside(struct __sk_buff *skb, struct filter *f, __be32 remote, __u32 dir)
{
	struct eni *from;

	if (dir == OUT)
		return (remote & f->mask) == f->subnet;
	from = find_eni(skb->ingress_ifindex);
	return from && from->filter.subnet == f->subnet && from->filter.mask == f->mask;
}

// acl_allows remembers in the flow that the ACL lets it pass. That is no state of
// the ACL's: it is the answer to the same question, until the rules change.
static __always_inline int acl_allows(struct __sk_buff *skb, struct filter *f, struct packet *p, struct flow *flow,
				      __u32 dir)
{
	if (!(f->flags & (FILTER_ACL_OUT << dir)) || stays_inside(skb, f, p->key.remote, dir))
		return 1;
	if (flow && was_found(flow, f, FOUND_ACL_OUT << dir))
		return 1;
	if (!(verdict(f->acl[dir], p->key.remote, p->protocol, p->port) & VERDICT_ALLOW))
		return 0;
	// An ICMP flow has packets of several types and codes.
	if (flow && p->protocol != IPPROTO_ICMP)
		remember(flow, f, FOUND_ACL_OUT << dir);
	return 1;
}

// attachment_denies asks the ACL of the subnet that a transit gateway's attachment
// is in, at the attachment's end in the VPC: dir IN is from the VPC to the gateway.
// Source: "Network ACLs for transit gateways". What instances send to the gateway
// meets the inbound rules, also in the attachment's own subnet; what comes from it
// the outbound rules, unless it is for that subnet. Later fragments are left to
// the ENIs.
static __noinline int attachment_denies(struct __sk_buff *skb, __u32 dir)
{
	struct eni *at = find_eni(skb->ifindex);
	struct packet p = {};

	if (!at || !(at->filter.flags & (FILTER_ACL_OUT << dir)) || skb->protocol != bpf_htons(ETH_P_IP) ||
	    (dir == IN && !skb->ingress_ifindex) || read_packet(skb, &p, dir) != REASON_NONE || p.later_fragment)
		return 0;
	if (dir == OUT && stays_inside(skb, &at->filter, p.key.remote, OUT))
		return 0;
	return !(verdict(at->filter.acl[dir], p.key.remote, p.protocol, p.port) & VERDICT_ALLOW);
}
