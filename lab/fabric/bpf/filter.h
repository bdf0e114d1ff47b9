// SPDX-License-Identifier: Apache-2.0
//
// The filters at an ENI's fabric end, in AWS's order:
//
//   from_eni: groups, then the subnet's ACL  ->  routes  ->  to_eni: ACL, then groups
#pragma once

#include "acl.h"
#include "clock.h"
#include "flowlog.h"
#include "group.h"
#include "underway.h"

#define FRAGMENT_TIME (30 * SECOND) // as long as Linux waits for the rest

struct fragment_key {
	__u32 ifindex;
	__be32 local, remote;
	__u16 id;
	__u8 protocol;
	__u8 dir;
};

struct fragment {
	__u64 at; // when the first one passed
	__be16 lport, rport;
	__u8 unused[4];
};

// Later fragments have no ports to go by: they pass where the first one did, and
// are dropped where it did not or has not come yet.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct fragment_key);
	__type(value, struct fragment);
	__uint(max_entries, 4096);
} fragments SEC(".maps");

static __always_inline void fragment_key(struct fragment_key *key, struct packet *p, __u32 dir)
{
	key->ifindex = p->key.owner >> 8;
	key->local = p->key.local;
	key->remote = p->key.remote;
	key->id = p->frag_id;
	key->protocol = p->protocol;
	key->dir = dir;
}

static __always_inline int follows_first(struct packet *p, __u32 dir, __u64 now)
{
	struct fragment_key key = {};
	struct fragment *first;

	fragment_key(&key, p, dir);
	first = bpf_map_lookup_elem(&fragments, &key);
	if (!first || now - first->at > FRAGMENT_TIME)
		return 0;
	p->key.lport = first->lport;
	p->key.rport = first->rport;
	return 1;
}

static __always_inline void remember_first(struct packet *p, __u32 dir, __u64 now)
{
	struct fragment first = { .at = now, .lport = p->key.lport, .rport = p->key.rport };
	struct fragment_key key = {};

	fragment_key(&key, p, dir);
	bpf_map_update_elem(&fragments, &key, &first, BPF_ANY);
}

static __always_inline int decide(struct __sk_buff *skb, struct filter *f, struct packet *p, __u32 dir, __u64 now)
{
	struct flow *flow = 0;

	if (f->flags & FILTER_GROUPS && p->in_flow)
		flow = find_flow(f, &p->key, now / FLOW_TICK);
	if (dir == IN && !acl_allows(skb, f, p, flow, dir))
		return REASON_NACL_INGRESS;
	if (f->flags & FILTER_GROUPS && !groups_allow(skb, f, p, flow, dir, now / FLOW_TICK))
		return dir == IN ? REASON_SG_INGRESS : REASON_SG_EGRESS;
	if (dir == OUT && !acl_allows(skb, f, p, flow, dir))
		return REASON_NACL_EGRESS;
	return REASON_NONE;
}

// long_way is asked from both programs and compiled once: dir is a variable.
static __noinline int long_way(struct __sk_buff *skb, struct filter *f, __u32 dir)
{
	struct packet p = {};
	__u64 now;
	int reason;

	if (!f) // for the verifier
		return REASON_NONE;
	reason = read_packet(skb, &p, dir);
	if (reason != REASON_NONE)
		return reason;
	// The VPC's services: neither groups nor ACLs filter them, and flow logs do
	// not show them ("Security groups for your VPC", "Flow log limitations").
	if ((p.key.remote & bpf_htonl(0xffff0000)) == bpf_htonl(0xa9fe0000))
		return REASON_NONE;

	now = now_ms();
	if (p.later_fragment) {
		if (!follows_first(&p, dir, now) && (f->flags & ~FILTER_LOG))
			reason = REASON_FRAGMENT;
	} else {
		reason = decide(skb, f, &p, dir, now);
	}
	if (reason == REASON_NONE && p.first_fragment)
		remember_first(&p, dir, now);
	if (f->flags & FILTER_LOG)
		log_packet(skb, &p, dir, reason, now);
	return reason;
}

// filter gives the reason why a packet must not pass, or REASON_NONE. It reads
// and changes nothing of the packet that a pointer into it would notice.
static __always_inline int filter(struct __sk_buff *skb, struct filter *f, __u32 dir)
{
	if (!f->flags || skb->protocol != bpf_htons(ETH_P_IP) || under_way(skb, f, dir))
		return REASON_NONE;
	return long_way(skb, f, dir);
}
