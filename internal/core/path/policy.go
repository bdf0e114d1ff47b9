package path

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// What EC2's rules and routes say, each as one line:
//
//	group   tcp 80 from 10.12.0.0/16     all to 0.0.0.0/0     icmp 8/0 from sg-0a
//	ACL     100 allow all from 0.0.0.0/0     110 deny tcp 1024-65535 to 10.0.0.0/8
//	route   10.12.0.0/16 pcx-03     pl-6fa tgw-1     10.0.0.0/8 eni-1 blackhole

// Match is what a group's or an ACL's rule asks of a packet.
type Match struct {
	Proto  string // tcp, udp, icmp, all, or a number
	Ports  Ports  // tcp and udp
	Type   int    // icmp; -1 is any
	Code   int    // icmp; -1 is any
	Out    bool   // the remote is the destination
	Remote string // a CIDR, a prefix list (pl-) or a group (sg-)
	CIDR   netip.Prefix
}

// GroupRule is a rule of a security group; it allows.
type GroupRule struct{ Match }

// ACLRule is a rule of a network ACL. The lowest number that matches decides.
type ACLRule struct {
	Number int
	Allow  bool
	Match
}

// VPCRoute is a route of a VPC's or a transit gateway's table. Its kind of
// target is the prefix of the target's ID; "local" is the VPC itself.
type VPCRoute struct {
	Dst        netip.Prefix
	PrefixList string // instead of Dst
	Target     string
	Blackhole  bool
}

func parseMatch(f []string) (Match, error) {
	m := Match{Ports: anyPort, Type: -1, Code: -1}
	if len(f) < 3 {
		return m, fmt.Errorf("want PROTOCOL [PORTS] from|to REMOTE")
	}
	m.Proto = f[0]
	switch f[0] {
	case "all", "tcp", "udp", "icmp":
	default:
		if n, err := strconv.Atoi(f[0]); err != nil || n < 0 || n > 255 {
			return m, fmt.Errorf("protocol %q", f[0])
		}
	}
	if len(f) == 4 {
		if err := m.parsePorts(f[1]); err != nil {
			return m, err
		}
	}
	way, remote := f[len(f)-2], f[len(f)-1]
	if way != "from" && way != "to" || len(f) > 4 {
		return m, fmt.Errorf("want PROTOCOL [PORTS] from|to REMOTE")
	}
	m.Out, m.Remote = way == "to", remote
	if strings.HasPrefix(remote, "sg-") || strings.HasPrefix(remote, "pl-") {
		return m, nil
	}
	p, err := netip.ParsePrefix(remote)
	m.CIDR = p
	return m, err
}

func (m *Match) parsePorts(s string) (err error) {
	if m.Proto == "icmp" {
		t, c, both := strings.Cut(s, "/")
		if m.Type, err = strconv.Atoi(t); err != nil {
			return fmt.Errorf("icmp type %q", s)
		}
		if both {
			if m.Code, err = strconv.Atoi(c); err != nil {
				return fmt.Errorf("icmp code %q", s)
			}
		}
		return nil
	}
	m.Ports, err = parsePorts(s)
	return err
}

func (m Match) String() string {
	b := m.Proto
	switch {
	case m.Proto == "icmp" && m.Type >= 0 && m.Code >= 0:
		b += fmt.Sprintf(" %d/%d", m.Type, m.Code)
	case m.Proto == "icmp" && m.Type >= 0:
		b += fmt.Sprintf(" %d", m.Type)
	case m.Ports != anyPort:
		b += " " + m.Ports.String()
	}
	return b + " " + m.way() + " " + m.Remote
}

func (m Match) way() string {
	if m.Out {
		return "to"
	}
	return "from"
}

// short is the rule as a hop quotes it: what it asks, and no more.
func (m Match) short() string {
	what := m.Proto
	if m.Ports != anyPort {
		what = m.Ports.String()
	}
	if m.CIDR.IsValid() && m.CIDR.Bits() == 0 {
		return what
	}
	return what + " " + m.way() + " " + m.Remote
}

// UnmarshalText reads the line's form.
func (r *GroupRule) UnmarshalText(b []byte) (err error) {
	if r.Match, err = parseMatch(strings.Fields(string(b))); err != nil {
		return fmt.Errorf("parse group rule %q: %w", b, err)
	}
	return nil
}

// MarshalText writes it.
func (r GroupRule) MarshalText() ([]byte, error) { return []byte(r.Match.String()), nil }

// UnmarshalText reads the line's form.
func (r *ACLRule) UnmarshalText(b []byte) (err error) {
	f := strings.Fields(string(b))
	if len(f) < 2 || f[1] != "allow" && f[1] != "deny" {
		return fmt.Errorf("parse ACL rule %q: want NUMBER allow|deny PROTOCOL [PORTS] from|to CIDR", b)
	}
	r.Allow = f[1] == "allow"
	if r.Number, err = strconv.Atoi(f[0]); err != nil {
		return fmt.Errorf("parse ACL rule %q: %w", b, err)
	}
	if r.Match, err = parseMatch(f[2:]); err == nil && !r.CIDR.IsValid() {
		err = fmt.Errorf("remote %s is not a CIDR", r.Remote)
	}
	if err != nil {
		return fmt.Errorf("parse ACL rule %q: %w", b, err)
	}
	return nil
}

func (r ACLRule) String() string {
	verb := "deny"
	if r.Allow {
		verb = "allow"
	}
	return fmt.Sprintf("%d %s %s", r.Number, verb, r.Match)
}

// MarshalText writes it.
func (r ACLRule) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads the line's form.
func (r *VPCRoute) UnmarshalText(b []byte) (err error) {
	*r = VPCRoute{}
	f := strings.Fields(string(b))
	if len(f) == 3 && f[2] == "blackhole" {
		r.Blackhole, f = true, f[:2]
	}
	if len(f) != 2 {
		return fmt.Errorf("parse route %q: want DESTINATION TARGET [blackhole]", b)
	}
	r.Target = f[1]
	if strings.HasPrefix(f[0], "pl-") {
		r.PrefixList = f[0]
		return nil
	}
	if r.Dst, err = netip.ParsePrefix(f[0]); err != nil {
		return fmt.Errorf("parse route %q: %w", b, err)
	}
	return nil
}

func (r VPCRoute) destination() string {
	if r.PrefixList != "" {
		return r.PrefixList
	}
	return r.Dst.String()
}

func (r VPCRoute) String() string {
	s := r.destination() + " " + r.Target
	if r.Blackhole {
		s += " blackhole"
	}
	return s
}

// MarshalText writes it.
func (r VPCRoute) MarshalText() ([]byte, error) { return []byte(r.String()), nil }
