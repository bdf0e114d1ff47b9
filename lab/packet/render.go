package packet

import (
	"fmt"
	"net/netip"
	"strings"
)

// String is one line for a person:
//
//	udp 10.0.1.4:4000 > 10.1.1.4:5000
//	tcp 10.0.1.4:4000 > 10.1.1.4:80 SA
//	icmp 10.0.1.1 > 10.0.1.4 fragmentation-needed mtu 1500
//	arp who-has 10.0.1.1 tell 10.0.1.4
func (p Packet) String() string {
	var b strings.Builder
	if p.VLAN != 0 {
		fmt.Fprintf(&b, "vlan %d ", p.VLAN)
	}
	switch {
	case p.ARP != nil && p.ARP.Request:
		fmt.Fprintf(&b, "arp who-has %s tell %s", p.ARP.Asked, p.ARP.Sender)
	case p.ARP != nil:
		fmt.Fprintf(&b, "arp %s is-at %s", p.ARP.Sender, p.ARP.SenderMAC)
	case !p.Src.IsValid():
		fmt.Fprintf(&b, "ethertype 0x%04x", p.EtherType)
	default:
		p.ip(&b)
	}
	return b.String()
}

func (p Packet) ip(b *strings.Builder) {
	src, dst := p.Src.String(), p.Dst.String()
	if p.HasPorts && (p.Protocol == TCP || p.Protocol == UDP) {
		src, dst = netip.AddrPortFrom(p.Src, p.SrcPort).String(), netip.AddrPortFrom(p.Dst, p.DstPort).String()
	}
	fmt.Fprintf(b, "%s %s > %s", ProtocolName(p.Protocol), src, dst)
	if p.HasPorts {
		switch p.Protocol {
		case TCP:
			if flags := flagNames(p.Flags); flags != "" {
				b.WriteString(" " + flags)
			}
		case ICMP:
			b.WriteString(" " + p.ICMPName())
		case ICMPv6:
			fmt.Fprintf(b, " type %d/%d", p.ICMPType, p.ICMPCode)
		}
	}
	if f := p.Fragment; f != nil {
		more := ""
		if f.More {
			more = "+"
		}
		fmt.Fprintf(b, " fragment %d%s", f.Offset, more)
	}
}

// ProtocolName is "tcp", or "proto 253" for what has no name here.
func ProtocolName(number uint8) string {
	switch number {
	case ICMP:
		return "icmp"
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case ICMPv6:
		return "icmp6"
	}
	return fmt.Sprintf("proto %d", number)
}

// Summary is the protocol, and of TCP the flags: "tcp SA".
func (p Packet) Summary() string {
	name := ProtocolName(p.Protocol)
	if p.Protocol == TCP && p.HasPorts && p.Flags != 0 {
		name += " " + flagNames(p.Flags)
	}
	return name
}

func flagNames(flags uint8) string {
	var out []byte
	for i := range flagLetters {
		if flags&(1<<i) != 0 {
			out = append(out, flagLetters[i])
		}
	}
	return string(out)
}

// ParseFlags reads the letters of TCP flags: "SA".
func ParseFlags(letters string) (uint8, error) {
	var flags uint8
	for _, c := range strings.ToUpper(letters) {
		i := strings.IndexRune(flagLetters, c)
		if i < 0 {
			return 0, fmt.Errorf("tcp flags %q: want letters of %s", letters, flagLetters)
		}
		flags |= 1 << i
	}
	return flags, nil
}

// icmpNames are of IANA's register "ICMP Parameters", in the words of tcpdump
// and iptables.
var icmpNames = map[[2]uint8]string{
	{0, 0}: "echo-reply", {8, 0}: "echo-request",
	{3, 0}: "network-unreachable", {3, 1}: "host-unreachable", {3, 2}: "protocol-unreachable",
	{3, 3}: "port-unreachable", {3, 4}: "fragmentation-needed", {3, 5}: "source-route-failed",
	{3, 9}: "network-prohibited", {3, 10}: "host-prohibited", {3, 13}: "communication-prohibited",
	{5, 0}: "network-redirect", {5, 1}: "host-redirect",
	{11, 0}: "ttl-exceeded", {11, 1}: "reassembly-time-exceeded", {12, 0}: "parameter-problem",
	{13, 0}: "timestamp-request", {14, 0}: "timestamp-reply",
}

// ICMPName is what an ICMP message says: "fragmentation-needed mtu 1500".
func (p Packet) ICMPName() string {
	name, ok := icmpNames[[2]uint8{p.ICMPType, p.ICMPCode}]
	if !ok {
		return fmt.Sprintf("type %d/%d", p.ICMPType, p.ICMPCode)
	}
	if p.MTU > 0 {
		return fmt.Sprintf("%s mtu %d", name, p.MTU)
	}
	return name
}
