// SPDX-License-Identifier: Apache-2.0
//
// Network ACLs: stateless, at the subnet's border. What stays inside the subnet
// meets none.
#pragma once

#include "flow.h"

// acl_allows remembers in the flow that the ACL lets it pass. That is no state of
// the ACL's: it is the answer to the same question, until the rules change.
static __always_inline int acl_allows(struct filter *f, struct packet *p, struct flow *flow, __u32 dir)
{
	if (!(f->flags & (FILTER_ACL_OUT << dir)) || (p->key.remote & f->mask) == f->subnet)
		return 1;
	if (flow && was_found(flow, f, FOUND_ACL_OUT << dir))
		return 1;
	if (!(verdict(f->acl[dir], p->key.remote, p->protocol, p->port) & VERDICT_ALLOW))
		return 0;
	// An ICMP flow has packets of several types and codes.
	if (flow && p->protocol != IPPROTO_ICMP)
		remember(flow, f, FOUND_ACL_OUT << dir);
	return 1;
}
