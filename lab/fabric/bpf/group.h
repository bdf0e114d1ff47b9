// SPDX-License-Identifier: Apache-2.0
//
// Security groups: stateful, allow only, the union of the ENI's groups.
//
//   a flow that is tracked                  passes, whatever the rules say by now
//   a flow that is not                      passes while the rules allow it
//   ICMP error that quotes a tracked flow   passes
//   all else                                by the rules; begins a flow
#pragma once

#include "flow.h"

// An untracked flow stands and falls with the rule that let its first packet
// pass. Where that rule has gone, the flow is cut in both directions: "An
// untracked flow of traffic is immediately interrupted if the rule that enables
// the flow is removed or modified". Its state only remembers which side began,
// and which revision of the rules was asked.
static __always_inline int recheck(struct filter *f, struct packet *p, struct flow *flow, __u32 dir)
{
	__u32 from = flow->from, v;

	if (was_found(flow, f, FOUND_ALLOWED))
		return 1;
	v = verdict(from == OUT ? f->groups[OUT] : f->groups[IN], p->key.remote, p->protocol,
		    bpf_ntohs(from == OUT ? p->key.rport : p->key.lport));
	if (!(v & VERDICT_ALLOW))
		return 0;
	if (is_untracked(f, v, p->protocol, from)) {
		remember(flow, f, FOUND_ALLOWED);
		return 1;
	}
	// The rules still allow it, but no longer for everybody both ways: the next
	// packet that they allow makes it a tracked one.
	if (dir == from) {
		flow->tracked = 1;
		return 1;
	}
	return verdict(f->groups[dir], p->key.remote, p->protocol, p->port) & VERDICT_ALLOW;
}

// quotes_tracked finds the flow that an ICMP error is about: it quotes a packet
// that went the other way (RFC 792: its IP header and 8 bytes).
static __always_inline int quotes_tracked(struct __sk_buff *skb, struct filter *f, struct packet *p, __u32 dir, __u32 now)
{
	struct packet quoted = {};
	struct headers h = {};
	struct flow *flow;

	if (!p->icmp_error || bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(h.ip) + 8, &h, sizeof(h.ip) + 8))
		return 0;
	if (h.ip.ihl != 5 || (h.ip.frag_off & bpf_htons(0x1fff)))
		return 0;
	quoted.key.local = dir == OUT ? h.ip.daddr : h.ip.saddr;
	quoted.key.remote = dir == OUT ? h.ip.saddr : h.ip.daddr;
	quoted.protocol = h.ip.protocol;
	quoted.key.owner = owner(p->key.owner >> 8, h.ip.protocol);
	read_ports(&quoted, h.l4, dir == OUT ? IN : OUT);
	if (!quoted.in_flow || quoted.key.local != p->key.local)
		return 0;
	flow = find_flow(f, &quoted.key, now);
	return flow && flow->tracked;
}

// begins_anew: a SYN where there is a connection, or was one, is asked about as
// the first of another.
static __always_inline int begins_anew(struct packet *p, struct flow *flow)
{
	return (p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN && (!flow->tracked || flow->step >= STEP_THIRD);
}

static __always_inline int groups_allow(struct __sk_buff *skb, struct filter *f, struct packet *p,
					struct flow *flow, __u32 dir, __u32 now)
{
	__u32 v;

	if (flow && !begins_anew(p, flow)) {
		if (!flow->tracked && !recheck(f, p, flow, dir))
			return 0;
		touch(flow, p, dir, now);
		return 1;
	}
	if (quotes_tracked(skb, f, p, dir, now))
		return 1;
	v = verdict(f->groups[dir], p->key.remote, p->protocol, p->port);
	if (!(v & VERDICT_ALLOW))
		return 0;
	if (p->may_begin)
		begin(f, p, v, dir, now);
	return 1;
}
