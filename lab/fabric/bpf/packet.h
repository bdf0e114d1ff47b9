// SPDX-License-Identifier: Apache-2.0
//
// A packet as the filters see it: from the ENI, which is "local" whichever way
// the packet goes.
#pragma once

#include <linux/in.h>

#include "fabric.h"

#define OUT 0 // the guest sends
#define IN 1  // the guest is to receive

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

#define ICMP_UNREACHABLE 3 // RFC 792
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER 12
#define ICMP_NO_QUERY 0xff

// flow_key names a flow of one ENI. The same packet makes another flow at the
// ENI of the other end. Of ICMP, queries and their answers make flows: lport is
// the identifier, rport the query's type and which side asks.
struct flow_key {
	__be32 local, remote;
	__be16 lport, rport;
	__u32 owner; // the ENI and the protocol
} __attribute__((aligned(8)));

// owner has room for 16 million ifindexes, which are given out one by one.
static __always_inline __u32 owner(__u32 ifindex, __u8 protocol) { return ifindex << 8 | protocol; }

struct packet {
	struct flow_key key;
	__u16 port;      // what rules go by, in host order: as in struct port_key
	__u16 frag_id;
	__u8 protocol;
	__u8 tcp_flags;
	__u8 in_flow;    // key names a flow
	__u8 may_begin;  // and the packet can be its first
	__u8 icmp_error; // quotes another packet
	__u8 first_fragment, later_fragment;
};

// l4 is the beginning of what follows the IP header: 8 bytes, 14 of TCP.
struct headers {
	struct iphdr ip;
	__u8 l4[14];
};

// icmp_query gives the type of the query that a message is or answers: echo,
// timestamp, information, address mask (RFC 792, RFC 950).
static __always_inline __u8 icmp_query(__u8 type)
{
	switch (type) {
	case 0:
		return 8;
	case 8: case 13: case 15: case 17:
		return type;
	case 14: case 16: case 18:
		return type - 1;
	}
	return ICMP_NO_QUERY;
}

// read_ports fills in what comes of the transport header.
static __always_inline void read_ports(struct packet *p, const __u8 *l4, __u32 dir)
{
	__be16 src, dst;

	p->in_flow = p->may_begin = 1;
	if (p->protocol == IPPROTO_TCP || p->protocol == IPPROTO_UDP) {
		__builtin_memcpy(&src, l4, 2);
		__builtin_memcpy(&dst, l4 + 2, 2);
		p->key.lport = dir == OUT ? src : dst;
		p->key.rport = dir == OUT ? dst : src;
		p->port = bpf_ntohs(dst);
	} else if (p->protocol == IPPROTO_ICMP) {
		__u8 type = l4[0], query = icmp_query(type);
		__u8 answer = type != query;

		p->port = type << 8 | l4[1];
		p->icmp_error = type == ICMP_UNREACHABLE || type == ICMP_TIME_EXCEEDED || type == ICMP_PARAMETER;
		p->in_flow = query != ICMP_NO_QUERY;
		p->may_begin = p->in_flow && !answer;
		if (p->in_flow) {
			__builtin_memcpy(&p->key.lport, l4 + 4, 2);
			p->key.rport = query << 8 | (answer ? dir == IN : dir == OUT);
		}
	}
}

// read_packet gives a reason if there is nothing to filter by.
static __always_inline int read_packet(struct __sk_buff *skb, struct packet *p, __u32 dir)
{
	void *data = (void *)(long)skb->data, *data_end = (void *)(long)skb->data_end;
	struct headers h = {};
	__u32 have = sizeof(h.l4), length;
	__u16 frag;

	if (data + ETH_HLEN + sizeof(h) <= data_end) {
		__builtin_memcpy(&h, data + ETH_HLEN, sizeof(h));
	} else if (bpf_skb_load_bytes(skb, ETH_HLEN, &h, sizeof(h))) {
		have = 8;
		if (bpf_skb_load_bytes(skb, ETH_HLEN, &h, sizeof(h.ip) + 8)) {
			have = 0;
			if (bpf_skb_load_bytes(skb, ETH_HLEN, &h, sizeof(h.ip)))
				return REASON_MALFORMED;
		}
	}
	if (h.ip.ihl != 5) // what the fabric's own end sends has none either
		return REASON_IP_OPTIONS;
	p->key.owner = owner(skb->ifindex, h.ip.protocol);
	p->key.local = dir == OUT ? h.ip.saddr : h.ip.daddr;
	p->key.remote = dir == OUT ? h.ip.daddr : h.ip.saddr;
	p->protocol = h.ip.protocol;

	frag = bpf_ntohs(h.ip.frag_off);
	p->frag_id = bpf_ntohs(h.ip.id);
	if (frag & 0x1fff) {
		p->later_fragment = 1;
		return REASON_NONE;
	}
	p->first_fragment = (frag & 0x2000) != 0;

	length = bpf_ntohs(h.ip.tot_len);
	if (length < sizeof(h.ip) + have) // what follows is the frame's padding
		have = length < sizeof(h.ip) + 8 ? 0 : 8;
	if (h.ip.protocol == IPPROTO_TCP) {
		if (have < sizeof(h.l4))
			return REASON_MALFORMED;
		p->tcp_flags = h.l4[13];
	} else if ((h.ip.protocol == IPPROTO_UDP || h.ip.protocol == IPPROTO_ICMP) && have < 8) {
		return REASON_MALFORMED;
	}
	read_ports(p, h.l4, dir);
	return REASON_NONE;
}
