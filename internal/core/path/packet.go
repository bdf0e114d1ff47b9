package path

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Ports is a range of ports: one that is known, or all that it may be.
type Ports struct {
	Lo uint16 `json:"lo"`
	Hi uint16 `json:"hi"`
}

var (
	anyPort = Ports{0, 65535}
	// ephemeralPorts are what a Linux client chooses from
	// (net.ipv4.ip_local_port_range, kernel documentation, ip-sysctl).
	ephemeralPorts = Ports{32768, 60999}
	// translatedPorts are what a source translation with random ports chooses
	// from, for a flow whose own port is above 1023.
	translatedPorts = Ports{1024, 65535}
)

// OnePort is a port that is known.
func OnePort(p uint16) Ports { return Ports{p, p} }

func parsePorts(s string) (Ports, error) {
	lo, hi, isRange := strings.Cut(s, "-")
	a, err := strconv.ParseUint(lo, 10, 16)
	if err != nil {
		return Ports{}, fmt.Errorf("parse port %q", s)
	}
	b := a
	if isRange {
		if b, err = strconv.ParseUint(hi, 10, 16); err != nil || b < a {
			return Ports{}, fmt.Errorf("parse ports %q", s)
		}
	}
	return Ports{uint16(a), uint16(b)}, nil
}

func (p Ports) String() string {
	if p.Lo == p.Hi {
		return strconv.Itoa(int(p.Lo))
	}
	return fmt.Sprintf("%d-%d", p.Lo, p.Hi)
}

// three is an answer that may depend on what is not decided yet.
type three uint8

const (
	no three = iota
	some
	yes
)

// within says whether the ports are in the range: some of them may be.
func (p Ports) within(q Ports) three {
	switch {
	case p.Lo >= q.Lo && p.Hi <= q.Hi:
		return yes
	case p.Hi < q.Lo || p.Lo > q.Hi:
		return no
	}
	return some
}

// Proto is a protocol of IPv4.
type Proto string

// The protocols that a probe can be of.
const (
	TCP  Proto = "tcp"
	UDP  Proto = "udp"
	ICMP Proto = "icmp" // an echo request and its reply
)

// Packet is what of a packet decides about its way.
type Packet struct {
	Proto   Proto      `json:"proto"`
	Src     netip.Addr `json:"src"`
	Dst     netip.Addr `json:"dst"`
	SrcPort Ports      `json:"srcPort,omitzero"`
	DstPort Ports      `json:"dstPort,omitzero"`
	Mark    uint32     `json:"mark,omitempty"`
	Size    int        `json:"size"` // bytes, the IP header included; don't-fragment is set
	Reply   bool       `json:"reply,omitempty"`
	hops    int        // forwarding kernels so far
}

// tuple is what connection tracking knows a packet by.
type tuple struct {
	proto    Proto
	src, dst netip.Addr
	sp, dp   Ports
	answer   bool // an echo reply: a question is not the answer to one (RFC 792)
}

func (p *Packet) tuple() tuple {
	return tuple{p.Proto, p.Src, p.Dst, p.SrcPort, p.DstPort, p.Proto == ICMP && p.Reply}
}

func (t tuple) inverse() tuple {
	return tuple{t.proto, t.dst, t.src, t.dp, t.sp, t.proto == ICMP && !t.answer}
}

// kind is the packet in a person's word.
func (p *Packet) kind() string {
	switch {
	case p.Proto == TCP && p.Reply:
		return "SYN-ACK"
	case p.Proto == TCP:
		return "SYN"
	case p.Proto == ICMP && p.Reply:
		return "echo reply"
	case p.Proto == ICMP:
		return "echo"
	case p.Reply:
		return "answer"
	}
	return "datagram"
}

// icmpType of an echo request and its reply (RFC 792).
func (p *Packet) icmpType() int {
	if p.Reply {
		return 0
	}
	return 8
}
