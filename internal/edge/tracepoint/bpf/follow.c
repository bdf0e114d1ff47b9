//go:build ignore
// SPDX-License-Identifier: Apache-2.0
//
// One packet and its reply, wherever they are met in the network namespaces that
// are watched, whatever translations make of their addresses. What tells them
// from others is nothing that a translation changes: of TCP the sequence number,
// which the reply acknowledges, of an echo and a datagram what is in it.
#include "skb.h"

#define TCP 6
#define UDP 17
#define ICMP 1

#define SYN 2
#define RST 4
#define ACK 16

enum { SENT = 1, RECEIVED = 2, DROPPED = 3, ROUTED = 4 };
enum { PACKET = 1, REPLY = 2, ERROR = 3 }; // ERROR: of ICMP, about the packet

struct event {
	__u64 time;    // of CLOCK_MONOTONIC, nanoseconds
	__u32 netns;   // inode
	__u32 ifindex; // of the packet's device, of ROUTED the route's
	__u32 detail;  // of DROPPED the reason, of ROUTED the table
	__u32 saddr, daddr;
	__u16 sport, dport; // of ICMP: 0, type and code
	__u8 kind, way, proto, flags;
	__u32 pad;
};

const struct event *unused __attribute__((unused));

struct wanted {
	__u64 nonce; // the first bytes behind the header of an echo or a datagram
	__u32 target; // as the sender has it
	__u32 seq;    // of the SYN, once it is met
	__u16 sport, dport;
	__u8 proto;
	__u8 met; // seq is valid
	__u16 pad;
};

const struct wanted *unused2 __attribute__((unused));

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct wanted);
	__uint(max_entries, 1);
} config SEC(".maps");

struct tuple {
	__u32 saddr, daddr;
	__u16 sport, dport;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct tuple); // of the answer to a datagram
	__type(value, __u32);
	__uint(max_entries, 256);
} answers SEC(".maps");

struct pair {
	__u32 saddr, daddr;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct pair); // that the packet or its reply has had
	__type(value, __u32);     // its way
	__uint(max_entries, 256);
} pairs SEC(".maps");

struct headers {
	unsigned char ip[20];
	unsigned char l4[64];
};

static __always_inline __u16 be16(const unsigned char *p)
{
	return p[0] << 8 | p[1];
}

static __always_inline __u32 be32(const unsigned char *p)
{
	return (__u32)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3];
}

// ours says which way the packet goes; 0: it is another one.
static __always_inline int ours(struct headers *h, struct wanted *w)
{
	__u64 nonce;
	struct tuple t;

	if (h->ip[9] == ICMP && (h->l4[0] == 3 || h->l4[0] == 11)) {
		// Behind 8 bytes is the header of what it is about, without options as the
		// packet has none.
		if (h->l4[8] != 0x45 || h->l4[17] != w->proto)
			return 0;
		if (w->proto == TCP)
			return w->met && be32(h->l4 + 32) == w->seq ? ERROR : 0;
		__builtin_memcpy(&nonce, h->l4 + 36, sizeof(nonce));
		return nonce == w->nonce ? ERROR : 0;
	}
	if (h->ip[9] != w->proto)
		return 0;
	if (w->proto == TCP) {
		__u32 seq = be32(h->l4 + 4), ack = be32(h->l4 + 8);
		__u8 flags = h->l4[13];
		__u32 daddr;

		__builtin_memcpy(&daddr, h->ip + 16, 4);
		if ((flags & (SYN | ACK)) == SYN) {
			if (!w->met && daddr == w->target && be16(h->l4) == w->sport && be16(h->l4 + 2) == w->dport) {
				w->seq = seq;
				w->met = 1;
			}
			return w->met && seq == w->seq ? PACKET : 0;
		}
		return w->met && flags & ACK && flags & (SYN | RST) && ack == w->seq + 1 ? REPLY : 0;
	}
	__builtin_memcpy(&nonce, h->l4 + 8, sizeof(nonce));
	if (w->proto == ICMP)
		return nonce != w->nonce ? 0 : h->l4[0] == 8 ? PACKET : h->l4[0] == 0 ? REPLY : 0;
	__builtin_memcpy(&t.saddr, h->ip + 12, 4);
	__builtin_memcpy(&t.daddr, h->ip + 16, 4);
	t.sport = be16(h->l4);
	t.dport = be16(h->l4 + 2);
	if (bpf_map_lookup_elem(&answers, &t))
		return REPLY; // also of who sends back what came
	if (nonce != w->nonce)
		return 0;
	{
		struct tuple back = {t.daddr, t.saddr, t.dport, t.sport};
		__u32 one = 1;

		bpf_map_update_elem(&answers, &back, &one, BPF_ANY);
	}
	return PACKET;
}

static __always_inline struct wanted *want(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&config, &zero);
}

static __always_inline int tell(struct sk_buff *skb, unsigned char *at, __u8 kind, __u32 detail)
{
	struct wanted *w = want();
	struct headers h = {};
	__u32 ifindex = 0, inum, way;
	struct event *e;
	struct net *net;
	struct pair p;

	if (!w || !w->proto)
		return 0;
	net = net_of(skb, &ifindex);
	if (!net)
		return 0;
	inum = BPF_CORE_READ(net, ns.inum);
	if (!bpf_map_lookup_elem(&watched, &inum))
		return 0;
	// The packet has no options of IP: it is Linux's own.
	if (bpf_probe_read_kernel(h.ip, sizeof(h.ip), at) || h.ip[0] != 0x45)
		return 0;
	bpf_probe_read_kernel(h.l4, sizeof(h.l4), at + 20);
	way = ours(&h, w);
	if (!way)
		return 0;
	__builtin_memcpy(&p.saddr, h.ip + 12, 4);
	__builtin_memcpy(&p.daddr, h.ip + 16, 4);
	if (way != ERROR)
		bpf_map_update_elem(&pairs, &p, &way, BPF_ANY);
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		lose();
		return 0;
	}
	__builtin_memset(e, 0, sizeof(*e));
	e->time = bpf_ktime_get_ns();
	e->netns = inum;
	e->ifindex = ifindex;
	e->detail = detail;
	e->saddr = p.saddr;
	e->daddr = p.daddr;
	e->proto = h.ip[9];
	e->kind = kind;
	e->way = way;
	if (h.ip[9] == ICMP) {
		e->dport = be16(h.l4);
	} else {
		e->sport = be16(h.l4);
		e->dport = be16(h.l4 + 2);
	}
	if (h.ip[9] == TCP)
		e->flags = h.l4[13];
	bpf_ringbuf_submit(e, 0);
	return 0;
}

SEC("tp_btf/kfree_skb")
int dropped(__u64 *ctx)
{
	struct sk_buff *skb = (struct sk_buff *)ctx[0];

	return tell(skb, BPF_CORE_READ(skb, head) + BPF_CORE_READ(skb, network_header), DROPPED, ctx[2]);
}

SEC("tp_btf/net_dev_queue")
int sent(__u64 *ctx)
{
	struct sk_buff *skb = (struct sk_buff *)ctx[0];

	return tell(skb, BPF_CORE_READ(skb, head) + BPF_CORE_READ(skb, network_header), SENT, 0);
}

// The link layer's header is off already, and network_header not set yet.
SEC("tp_btf/netif_receive_skb")
int received(__u64 *ctx)
{
	struct sk_buff *skb = (struct sk_buff *)ctx[0];

	return tell(skb, BPF_CORE_READ(skb, data), RECEIVED, 0);
}

struct flowi_common {
	int flowic_iif;
	__u32 flowic_mark;
} CORE;

struct flowi4 {
	struct flowi_common __fl_common;
	__u32 saddr, daddr;
} CORE;

struct fib_nh_common {
	struct net_device *nhc_dev;
} CORE;

// A lookup that found a route, for addresses that the packet has had. Those before
// it left its first namespace are not told: it had none yet.
SEC("tp_btf/fib_table_lookup")
int routed(__u64 *ctx)
{
	struct flowi4 *fl = (struct flowi4 *)ctx[1];
	struct fib_nh_common *nh = (struct fib_nh_common *)ctx[2];
	struct pair p = {};
	struct wanted *w = want();
	struct net_device *dev;
	struct event *e;
	__u32 inum, *way;

	if (!nh || (int)ctx[3] || !w || !w->proto)
		return 0;
	p.saddr = BPF_CORE_READ(fl, saddr);
	p.daddr = BPF_CORE_READ(fl, daddr);
	way = bpf_map_lookup_elem(&pairs, &p);
	dev = BPF_CORE_READ(nh, nhc_dev);
	if (!way || !dev)
		return 0;
	inum = BPF_CORE_READ(dev, nd_net.net, ns.inum);
	if (!bpf_map_lookup_elem(&watched, &inum))
		return 0;
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		lose();
		return 0;
	}
	__builtin_memset(e, 0, sizeof(*e));
	e->time = bpf_ktime_get_ns();
	e->netns = inum;
	e->ifindex = BPF_CORE_READ(dev, ifindex);
	e->detail = ctx[0];
	e->saddr = p.saddr;
	e->daddr = p.daddr;
	e->proto = w->proto;
	e->kind = ROUTED;
	e->way = *way;
	bpf_ringbuf_submit(e, 0);
	return 0;
}

char __license[] SEC("license") = "GPL";
