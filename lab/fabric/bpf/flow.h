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

// FLOW_TICK is the unit of flow.last in milliseconds. last is written at most
// once in this time: the less the CPUs fight for it.
#define FLOW_TICK 256

// filter.flags; the Go names are in group.go.
#define FILTER_GROUPS 1
#define FILTER_ACL_OUT 2 // << dir
#define FILTER_LOG 8
#define FILTER_OPEN_TCP_OUT 16 // << dir: a rule allows 0.0.0.0/0 at all ports
#define FILTER_OPEN_UDP_OUT 64 // << dir

// step of a flow: where TCP is on its way to "established", and how many turns
// the two sides of a UDP flow took.
#define STEP_BEGUN 0    // one side has spoken
#define STEP_ANSWERED 1 // then the other
#define STEP_THIRD 2    // TCP: established
#define STEP_LAST 3     // TCP: closing; UDP: more than one request and response: a stream

// flow is small, as its key is, because it is out of the CPU's caches when there
// are many: with the map's own 48 bytes it is 80, and every line costs.
struct flow {
	__u64 found; // the revision of the rules that were asked, and FOUND_ bits
	__u32 last;  // now_ms in FLOW_TICKs
	__u8 from;   // the direction of its first packet
	__u8 step;
	__u8 tracked;
	__u8 unused;
};

// Bits of flow.found, which no revision has: what these rules said. One word, so
// that no CPU takes what it says of one revision for another's.
#define FOUND_ALLOWED 1 // untracked: the groups allow it
#define FOUND_ACL_OUT 2 // << dir: the ACL lets it pass
#define FOUND 7ULL

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct flow_key);
	__type(value, struct flow);
	__uint(max_entries, 1 << 16);
} flows SEC(".maps");

// was_found says whether the rules of now have said it of the flow before.
static __always_inline int was_found(struct flow *flow, struct filter *f, __u64 what)
{
	return (flow->found & (~FOUND | what)) == (f->revision | what);
}

static __always_inline void remember(struct flow *flow, struct filter *f, __u64 what)
{
	__u64 found = flow->found;

	flow->found = ((found & ~FOUND) == f->revision ? found : f->revision) | what;
}

static __always_inline __u32 idle_limit(struct filter *f, struct flow *flow, __u8 protocol)
{
	if (protocol == IPPROTO_TCP)
		return flow->step == STEP_THIRD ? f->tcp_established : TIMEOUT_TCP_CHANGING;
	if (protocol == IPPROTO_UDP)
		return flow->step == STEP_LAST ? f->udp_stream : f->udp;
	return TIMEOUT_OTHER;
}

static __always_inline struct flow *find_flow(struct filter *f, struct flow_key *key, __u32 now)
{
	struct flow *flow = bpf_map_lookup_elem(&flows, key);

	// Another CPU may have written a later time than this one read: no idling.
	if (flow && (__s64)(__s32)(now - flow->last) * FLOW_TICK > (__s64)(idle_limit(f, flow, key->owner) * SECOND))
		return 0;
	return flow;
}

static __always_inline void touch(struct flow *flow, struct packet *p, __u32 dir, __u32 now)
{
	__u8 step = flow->step, back = dir != flow->from;

	if (p->protocol == IPPROTO_TCP && (p->tcp_flags & (TCP_FIN | TCP_RST)))
		step = STEP_LAST;
	else if (back && step == STEP_BEGUN)
		step = STEP_ANSWERED;
	else if (!back && step == STEP_ANSWERED && !(p->tcp_flags & TCP_SYN))
		step = STEP_THIRD;
	else if (back && step == STEP_THIRD && p->protocol == IPPROTO_UDP)
		step = STEP_LAST;
	if (step != flow->step)
		flow->step = step;
	else if (now == flow->last)
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
static __always_inline void begin(struct filter *f, struct packet *p, __u32 v, __u32 dir, __u32 now)
{
	struct flow flow = { .found = f->revision | FOUND_ALLOWED, .last = now, .from = dir };

	flow.tracked = !is_untracked(f, v, p->protocol, dir);
	if (p->protocol == IPPROTO_TCP && (p->tcp_flags & (TCP_FIN | TCP_RST)))
		flow.step = STEP_LAST;
	else if (p->protocol == IPPROTO_TCP && !(p->tcp_flags & TCP_SYN))
		flow.step = STEP_THIRD;
	bpf_map_update_elem(&flows, &p->key, &flow, BPF_ANY);
}
