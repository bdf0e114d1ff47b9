package differential

import (
	"slices"
	"strings"

	"github.com/fairway-cni/fairway/internal/core/path"
)

// kernelWords are what the kernel says where the explainer has a code.
var kernelWords = map[path.Code][]string{
	path.CodeStrict:       {"IP_RPFILTER"},
	path.CodeLoose:        {"IP_RPFILTER"},
	path.CodeMartian:      {"IP_LOCAL_SOURCE", "IP_INVALID_SOURCE", "IP_LOCALNET"},
	path.CodeNoHostRoute:  {"IP_INNOROUTES", "IP_INADDRERRORS", "IP_OUTNOROUTES", "errno ENETUNREACH", "no route"},
	path.CodeHostRefuses:  {"NOT_SPECIFIED", "IP_INNOROUTES", "IP_OUTNOROUTES", "IP_INADDRERRORS", "errno ENETUNREACH", "errno EHOSTUNREACH", "errno EACCES", "errno EINVAL", "no route"},
	path.CodeForwarding:   {"IP_INADDRERRORS"},
	path.CodeFirewall:     {"NETFILTER_DROP", "errno EPERM"},
	path.CodeSpoofed:      {"NETFILTER_DROP"},
	path.CodeNeighbour:    {"NEIGH_FAILED", "NEIGH_QUEUEFULL"},
	path.CodeDown:         {"DEV_READY", "QDISC_DROP", "NEIGH_FAILED"},
	path.CodeLoop:         {"IP_INHDR"},
	path.CodeMTU:          {"PKT_TOO_BIG", "errno EMSGSIZE", "NOT_SPECIFIED"},
	path.CodeNotListening: {"NO_SOCKET"},
	path.CodeStranger:     {"NO_SOCKET"},
}

// fabricWords are the fabric's reasons where the explainer has a code.
var fabricWords = map[path.Code][]string{
	path.CodeSrcDstCheck:    {"SRC_DST_CHECK"},
	path.CodeGroupIn:        {"SG_INGRESS"},
	path.CodeGroupOut:       {"SG_EGRESS"},
	path.CodeGroupRegion:    {"SG_INGRESS", "SG_EGRESS"},
	path.CodeACLIn:          {"NACL_INGRESS"},
	path.CodeACLOut:         {"NACL_EGRESS"},
	path.CodeNoRoute:        {"NO_ROUTE"},
	path.CodeBlackhole:      {"BLACKHOLE"},
	path.CodePeering:        {"BLACKHOLE"},
	path.CodeTransitive:     {"NO_OWNER", "NO_ROUTE"},
	path.CodeNoOwner:        {"NO_OWNER"},
	path.CodeNotAttached:    {"NOT_ATTACHED"},
	path.CodeNoPublic:       {"NO_PUBLIC_ADDRESS", "NO_ROUTE"},
	path.CodePrivate:        {"NO_ROUTE"},
	path.CodeNATGateway:     {"BLACKHOLE", "NO_TRANSLATION"},
	path.CodeTransitNoRoute: {"NO_ROUTE", "BLACKHOLE"},
	path.CodeMTU:            {"MTU"},
}

// judge compares what the explainer says with what became of a packet; "" is
// agreement.
func (g *stage) judge(a *path.Answer, o outcome) string {
	out, back := firstDrop(a, false), firstDrop(a, true)
	if why := g.judgeWay("packet", a, out, o); why != "" {
		return why
	}
	switch {
	case out != nil && out.Code != path.CodeNotListening:
		return "" // it ended there
	case o.forward.state == refused && a.Probe.Proto == path.UDP:
		return "" // an ICMP error comes back, which is not modelled
	}
	return g.judgeWay("reply", a, back, o)
}

// firstDrop is the hop that ends a way, or nil.
func firstDrop(a *path.Answer, reply bool) *path.Hop {
	for i := range a.Hops {
		if h := &a.Hops[i]; h.Reply == reply && h.Verdict == path.Drop {
			return h
		}
	}
	return nil
}

func (g *stage) judgeWay(what string, a *path.Answer, h *path.Hop, o outcome) string {
	f := o.forward
	if what == "reply" {
		f = o.reply
	}
	said := f.String()
	switch {
	case h == nil && (f.state == delivered):
		if end := lastPlace(a, what == "reply"); f.at != "" && end != f.at && end != "" {
			return what + ": delivered to " + f.at + ", told " + end
		}
		return ""
	case h != nil && h.Code == path.CodeReceiver && f.state != unknown:
		// It arrives, or is refused there, and who asked did not mean that one.
		if f.at != "" && h.Where.Name != f.at {
			return what + ": " + said + "; told " + tell(h)
		}
		return ""
	case f.reason == "NEIGH_FAILED" && asksForItsOwn(a, what == "reply"):
		// Whether a VPC answers ARP for the asker's own address AWS does not say; the
		// lab does not. The explainer has the packet come back, and drops it then.
		return ""
	case h == nil:
		return what + ": " + said + "; told it arrives"
	case f.state == unknown && o.forward.state == refused && h.Where.Name == o.forward.at &&
		(h.Code == path.CodeNoHostRoute || h.Code == path.CodeHostRefuses):
		return "" // a RST without a way is never made, and nothing counts it
	case f.state == delivered || f.state == unknown:
		return what + ": " + said + "; told " + tell(h)
	}
	local := h.Where.Kind == path.KindPod || h.Where.Kind == path.KindNode
	if local != (f.at != "") && h.Where.Kind != path.KindInternet {
		return what + ": " + said + "; told " + tell(h)
	}
	if local {
		if h.Where.Name != f.at || !slices.Contains(kernelWords[h.Code], f.reason) {
			return what + ": " + said + "; told " + tell(h)
		}
		return ""
	}
	switch {
	case h.Where.Kind == path.KindInternet && f.at == "internet" && (f.reason == "errno EMSGSIZE" || f.reason == "errno ENOBUFS" || f.reason == "errno ENETUNREACH"),
		h.Where.Kind == path.KindInternet && f.reason == "TC_EGRESS" && len(f.counted) == 0,
		// The namespace of a NAT gateway refuses what has its own source, without a count.
		h.Where.Kind == path.KindNAT && h.Code == path.CodeLoop && f.reason == "IP_LOCAL_SOURCE",
		// What is too long is counted for the owner of its source, who may be nobody.
		h.Where.Kind == path.KindNAT && h.Code == path.CodeMTU && f.reason == "PKT_TOO_BIG",
		h.Where.Kind == path.KindInternet && h.Code == path.CodeStranger && f.reason == "NO_SOCKET",
		// The lab's ENI is a veth pair, whose end in the instance takes no more than its
		// MTU, and nothing while it is down.
		h.Where.Kind == path.KindENI && h.Code == path.CodeMTU && f.reason == "NOT_SPECIFIED",
		h.Where.Kind == path.KindENI && h.Code == path.CodeDown && f.reason == "QDISC_DROP":
		return ""
	}
	for _, c := range f.counted {
		id, reason, _ := strings.Cut(c, " ")
		if slices.Contains(fabricWords[h.Code], reason) && g.isAt(h, id) {
			return ""
		}
	}
	return what + ": " + said + "; told " + tell(h)
}

// asksForItsOwn: does the packet leave a node by the ENI by which it comes back?
func asksForItsOwn(a *path.Answer, reply bool) bool {
	out := ""
	for i := range a.Hops {
		h := &a.Hops[i]
		if h.Reply != reply || h.Where.Kind != path.KindENI {
			continue
		}
		if out == h.Where.Name {
			return true
		}
		out = h.Where.Name
	}
	return false
}

func tell(h *path.Hop) string {
	return "dropped at " + h.Where.String() + " " + string(h.Code) + ": " + h.Matched
}

// lastPlace is the namespace where a way ends.
func lastPlace(a *path.Answer, reply bool) string {
	name := ""
	for i := range a.Hops {
		if h := &a.Hops[i]; h.Reply == reply {
			name = ""
			switch h.Where.Kind {
			case path.KindPod, path.KindNode, path.KindInternet:
				name = h.Where.Name
			}
		}
	}
	return name
}

// isAt: may the fabric count what is dropped at the hop's place for this ENI or
// link? A filter counts for the ENI that it is of; a table, a check and what
// leads out count for who sent the packet.
func (g *stage) isAt(h *path.Hop, id string) bool {
	snap := g.snap
	switch h.Where.Kind {
	case path.KindENI:
		return h.Code == path.CodeSrcDstCheck || h.Code == path.CodeNotAttached || id == h.Where.Name
	case path.KindACL, path.KindTable:
		for _, e := range snap.Interfaces {
			if e.ID != id {
				continue
			}
			for _, n := range snap.Subnets {
				if n.ID == e.SubnetID && (n.ACL == h.Where.Name || g.tableOf(n.ID) == h.Where.Name || strings.HasPrefix(h.Where.Name, "VPC ")) {
					return true
				}
			}
			return false
		}
	}
	return true // a gateway, a peering, a NAT gateway: counted for who sent, or for the link
}

func (g *stage) tableOf(subnet string) string {
	for _, n := range g.snap.Subnets {
		if n.ID != subnet {
			continue
		}
		if n.RouteTable != "" {
			return n.RouteTable
		}
		for _, v := range g.snap.VPCs {
			if v.ID == n.VPCID {
				return v.MainRouteTable
			}
		}
	}
	return ""
}
