// SPDX-License-Identifier: Apache-2.0
//
// The short way through the filters, of most packets there are: those of a TCP
// or UDP flow that has begun. It says only that a packet passes, and only where
// the long way (filter.h) would say so too and do no more; of all else it says
// nothing. It reads the packet where it lies, and copies none of it.
#pragma once

#include "acl.h"

// read_flow fills in the key and the flags of an unfragmented TCP or UDP packet.
// The key is written in words, for a CPU does not like to read in one piece what
// it has just written in two.
static __always_inline int read_flow(struct __sk_buff *skb, struct packet *p, __u32 dir)
{
	void *data_end = (void *)(long)skb->data_end;
	struct iphdr *ip = (void *)(long)skb->data + ETH_HLEN;
	__u32 *ports = (void *)(ip + 1);
	__u8 *tcp_flags = (void *)(ip + 1) + 13;
	__u64 *key = (__u64 *)&p->key;

	if ((void *)(tcp_flags + 1) > data_end || ip->ihl != 5 || (ip->frag_off & bpf_htons(0x3fff)) ||
	    bpf_ntohs(ip->tot_len) < sizeof(*ip) + 14)
		return 0;
	p->protocol = ip->protocol;
	p->tcp_flags = *tcp_flags;
	key[0] = dir == OUT ? ip->saddr | (__u64)ip->daddr << 32 : ip->daddr | (__u64)ip->saddr << 32;
	key[1] = (dir == OUT ? *ports : *ports << 16 | *ports >> 16) | (__u64)owner(skb->ifindex, p->protocol) << 32;
	if (p->protocol == IPPROTO_TCP)
		return !(p->tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST));
	p->tcp_flags = 0;
	return p->protocol == IPPROTO_UDP;
}

// under_way says that the packet passes, or nothing.
static __always_inline int under_way(struct __sk_buff *skb, struct filter *f, __u32 dir)
{
	struct packet p;
	struct flow *flow;
	__u32 now;

	if ((f->flags & (FILTER_GROUPS | FILTER_LOG)) != FILTER_GROUPS || !read_flow(skb, &p, dir))
		return 0;
	now = now_ms() / FLOW_TICK;
	flow = find_flow(f, &p.key, now);
	if (!flow || (!flow->tracked && !was_found(flow, f, FOUND_ALLOWED)))
		return 0;
	if ((f->flags & (FILTER_ACL_OUT << dir)) && !stays_inside(skb, f, p.key.remote, dir) &&
	    !was_found(flow, f, FOUND_ACL_OUT << dir))
		return 0;
	touch(flow, &p, dir, now);
	return 1;
}
