//go:build ignore
// SPDX-License-Identifier: Apache-2.0
//
// Every IPv4 packet that the kernel frees without having delivered it, in the
// network namespaces that are watched. Offsets are the running kernel's (CO-RE).
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>

#define CORE __attribute__((preserve_access_index))

struct ns_common {
	unsigned int inum;
} CORE;

struct net {
	struct ns_common ns;
} CORE;

typedef struct {
	struct net *net;
} CORE possible_net_t;

struct net_device {
	int ifindex;
	possible_net_t nd_net;
} CORE;

struct sock_common {
	possible_net_t skc_net;
} CORE;

struct sock {
	struct sock_common __sk_common;
} CORE;

struct dst_entry {
	struct net_device *dev;
} CORE;

struct sk_buff {
	struct net_device *dev;
	struct sock *sk;
	unsigned long _skb_refdst;
	unsigned char *head;
	__u16 network_header;
} CORE;

struct drop {
	__u64 location; // of the code that freed it
	__u32 netns;    // inode
	__u32 ifindex;  // of the packet's device; 0: none
	__u32 reason;   // enum skb_drop_reason
	__u32 saddr, daddr;
	__u16 sport, dport; // of ICMP: identifier, type and code
	__u8 proto;
	__u8 flags; // of TCP
	__u16 pad;
};

const struct drop *unused __attribute__((unused));

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32); // inode of a network namespace
	__type(value, __u32);
	__uint(max_entries, 4096);
} watched SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 1);
} lost SEC(".maps"); // events that found the ring full

#define NOREF 1UL // of _skb_refdst: a pointer's lowest bit

static __always_inline struct net *net_of(struct sk_buff *skb, __u32 *ifindex)
{
	struct net_device *dev = BPF_CORE_READ(skb, dev);
	struct sock *sk;
	struct dst_entry *dst;

	if (dev) {
		*ifindex = BPF_CORE_READ(dev, ifindex);
		return BPF_CORE_READ(dev, nd_net.net);
	}
	sk = BPF_CORE_READ(skb, sk);
	if (sk)
		return BPF_CORE_READ(sk, __sk_common.skc_net.net);
	dst = (struct dst_entry *)(BPF_CORE_READ(skb, _skb_refdst) & ~NOREF);
	return dst ? BPF_CORE_READ(dst, dev, nd_net.net) : NULL;
}

SEC("tp_btf/kfree_skb")
int dropped(__u64 *ctx)
{
	struct sk_buff *skb = (struct sk_buff *)ctx[0];
	__u32 ifindex = 0, inum, zero = 0;
	__u8 ip[20], l4[16] = {};
	unsigned char *at;
	struct net *net;
	struct drop *d;

	net = net_of(skb, &ifindex);
	if (!net)
		return 0;
	inum = BPF_CORE_READ(net, ns.inum);
	if (!bpf_map_lookup_elem(&watched, &inum))
		return 0;
	at = BPF_CORE_READ(skb, head) + BPF_CORE_READ(skb, network_header);
	if (bpf_probe_read_kernel(ip, sizeof(ip), at) || ip[0] >> 4 != 4)
		return 0;
	d = bpf_ringbuf_reserve(&events, sizeof(*d), 0);
	if (!d) {
		__u64 *n = bpf_map_lookup_elem(&lost, &zero);
		if (n)
			__sync_fetch_and_add(n, 1);
		return 0;
	}
	bpf_probe_read_kernel(l4, sizeof(l4), at + (ip[0] & 15) * 4);
	d->location = ctx[1];
	d->netns = inum;
	d->ifindex = ifindex;
	d->reason = ctx[2];
	__builtin_memcpy(&d->saddr, ip + 12, 4);
	__builtin_memcpy(&d->daddr, ip + 16, 4);
	d->proto = ip[9];
	d->flags = 0;
	d->pad = 0;
	d->sport = l4[0] << 8 | l4[1];
	d->dport = l4[2] << 8 | l4[3];
	if (ip[9] == 1) { // ICMP: type, code, checksum, identifier
		d->dport = d->sport;
		d->sport = l4[4] << 8 | l4[5];
	}
	if (ip[9] == 6)
		d->flags = l4[13];
	bpf_ringbuf_submit(d, 0);
	return 0;
}

char __license[] SEC("license") = "GPL";
