// SPDX-License-Identifier: Apache-2.0
//
// The state of flows, which belongs to the ENI. Source of all that AWS says of
// it: "Amazon EC2 security group connection tracking", Amazon EC2 User Guide.
#pragma once

#include "match.h"
#include "packet.h"

#define SECOND 1000ULL // of now_ms

// Idle time-outs that AWS has no setting for, in seconds. 600 is AWS's for
// protocols without ports, ICMP's is the lab's choice. A TCP connection that is
// opening or closing: the lab's choice, AWS documents none.
#define TIMEOUT_OTHER 600
#define TIMEOUT_TCP_CHANGING 120

// last is written at most once in this time: the less the CPUs fight for it.
#define LAST_SEEN_STEP (SECOND / 4)

// filter.flags; the Go names are in group.go.
#define FILTER_GROUPS 1
#define FILTER_ACL_OUT 2 // << dir
#define FILTER_LOG 8
#define FILTER_OPEN_TCP_OUT 16 // << dir: a rule allows 0.0.0.0/0 at all ports
#define FILTER_OPEN_UDP_OUT 64 // << dir

// filter is what an ENI's packets must pass; an ENI without an entry has none.
// It is replaced as a whole. revision is a hash of all that decides.
struct filter {
	__u64 groups[2], acl[2]; // sets of rules, by direction
	__u64 revision;          // never 0
	__be32 subnet, mask;
	__u32 tcp_established, udp_stream, udp; // idle time-outs, in seconds
	__u32 flags;
};

// step of a flow: where TCP is on its way to "established", and how many turns
// the two sides of a UDP flow took.
#define STEP_BEGUN 0    // one side has spoken
#define STEP_ANSWERED 1 // then the other
#define STEP_THIRD 2    // TCP: established
#define STEP_LAST 3     // TCP: closing; UDP: more than one request and response: a stream

struct flow {
	__u64 last;        // ns on the coarse monotonic clock
	__u64 checked;     // untracked: the revision whose rules were found to allow it
	__u64 acl_pass[2]; // the revision whose ACL lets it pass, by direction
	__u8 from;         // the direction of its first packet
	__u8 step;
	__u8 tracked;
	__u8 unused[5];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32); // ifindex of a fabric end
	__type(value, struct filter);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} filters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct flow_key);
	__type(value, struct flow);
	__uint(max_entries, 1 << 16);
} flows SEC(".maps");

static __always_inline __u32 idle_limit(struct filter *f, struct flow *flow, __u8 protocol)
{
	if (protocol == IPPROTO_TCP)
		return flow->step == STEP_THIRD ? f->tcp_established : TIMEOUT_TCP_CHANGING;
	if (protocol == IPPROTO_UDP)
		return flow->step == STEP_LAST ? f->udp_stream : f->udp;
	return TIMEOUT_OTHER;
}

static __always_inline struct flow *find_flow(struct filter *f, struct flow_key *key, __u64 now)
{
	struct flow *flow = bpf_map_lookup_elem(&flows, key);

	// Another CPU may have written a later time than this one read: no idling.
	if (flow && (__s64)(now - flow->last) > (__s64)(idle_limit(f, flow, key->protocol) * SECOND))
		return 0;
	return flow;
}

static __always_inline void touch(struct flow *flow, struct packet *p, __u32 dir, __u64 now)
{
	__u8 step = flow->step, back = dir != flow->from;

	if (p->key.protocol == IPPROTO_TCP && (p->tcp_flags & (TCP_FIN | TCP_RST)))
		step = STEP_LAST;
	else if (back && step == STEP_BEGUN)
		step = STEP_ANSWERED;
	else if (!back && step == STEP_ANSWERED && !(p->tcp_flags & TCP_SYN))
		step = STEP_THIRD;
	else if (back && step == STEP_THIRD && p->key.protocol == IPPROTO_UDP)
		step = STEP_LAST;
	if (step != flow->step)
		flow->step = step;
	else if (now - flow->last < LAST_SEEN_STEP)
		return;
	flow->last = now;
}

// is_open: a rule of that direction allows the protocol to and from everywhere,
// at all ports.
static __always_inline int is_open(struct filter *f, __u8 protocol, __u32 dir)
{
	if (protocol == IPPROTO_TCP)
		return f->flags & (FILTER_OPEN_TCP_OUT << dir);
	if (protocol == IPPROTO_UDP)
		return f->flags & (FILTER_OPEN_UDP_OUT << dir);
	return 0;
}

// is_untracked says it of a flow that began in a direction with a verdict:
// "If a security group rule permits TCP or UDP flows for all traffic (0.0.0.0/0)
// and there is a corresponding rule in the other direction that permits all
// response traffic (0.0.0.0/0) for any port (0-65535), then that flow of traffic
// is not tracked". ICMP and all else is always tracked.
static __always_inline int is_untracked(struct filter *f, __u32 v, __u8 protocol, __u32 from)
{
	return (v & VERDICT_ANYWHERE) && is_open(f, protocol, from == OUT ? IN : OUT);
}

// begin makes the flow, or takes the place of an old one. A TCP packet that is no
// SYN is of a connection that is older than its state.
static __always_inline void begin(struct filter *f, struct packet *p, __u32 v, __u32 dir, __u64 now)
{
	struct flow flow = { .last = now, .from = dir };

	flow.tracked = !is_untracked(f, v, p->key.protocol, dir);
	flow.checked = f->revision;
	if (p->key.protocol == IPPROTO_TCP && (p->tcp_flags & (TCP_FIN | TCP_RST)))
		flow.step = STEP_LAST;
	else if (p->key.protocol == IPPROTO_TCP && !(p->tcp_flags & TCP_SYN))
		flow.step = STEP_THIRD;
	bpf_map_update_elem(&flows, &p->key, &flow, BPF_ANY);
}
