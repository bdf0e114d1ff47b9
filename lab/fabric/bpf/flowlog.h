// SPDX-License-Identifier: Apache-2.0
//
// Flow logs: what was accepted and rejected at an ENI, by flow and direction.
#pragma once

#include "packet.h"

struct log_key {
	__u32 ifindex;
	__be32 local, remote;
	__be16 lport, rport; // 0 where the protocol has no ports
	__u8 protocol;
	__u8 dir;
	__u8 rejected;
	__u8 unused;
};

struct log_value {
	__u64 packets, bytes; // bytes from the IP header on
	__u64 first, last;    // now_ms
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct log_key);
	__type(value, struct log_value);
	__uint(max_entries, 1 << 16);
} flow_logs SEC(".maps");

static __always_inline void log_packet(struct __sk_buff *skb, struct packet *p, __u32 dir, int reason, __u64 now)
{
	struct log_key key = {
		.ifindex = p->key.owner >> 8, .local = p->key.local, .remote = p->key.remote,
		.protocol = p->protocol, .dir = dir, .rejected = reason != REASON_NONE,
	};
	struct log_value *v, fresh = { .first = now, .last = now };
	__u64 packets = skb->gso_segs ? skb->gso_segs : 1, bytes = skb->len - ETH_HLEN;

	if (p->protocol == IPPROTO_TCP || p->protocol == IPPROTO_UDP) {
		key.lport = p->key.lport;
		key.rport = p->key.rport;
	}
	v = bpf_map_lookup_elem(&flow_logs, &key);
	if (!v) {
		bpf_map_update_elem(&flow_logs, &key, &fresh, BPF_NOEXIST);
		v = bpf_map_lookup_elem(&flow_logs, &key);
	}
	if (!v)
		return;
	__sync_fetch_and_add(&v->packets, packets);
	__sync_fetch_and_add(&v->bytes, bytes);
	v->last = now;
}
