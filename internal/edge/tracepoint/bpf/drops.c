//go:build ignore
// SPDX-License-Identifier: Apache-2.0
//
// Every IPv4 packet that the kernel frees without having delivered it, in the
// network namespaces that are watched.
#include "skb.h"

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

SEC("tp_btf/kfree_skb")
int dropped(__u64 *ctx)
{
	struct sk_buff *skb = (struct sk_buff *)ctx[0];
	__u32 ifindex = 0, inum;
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
		lose();
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
