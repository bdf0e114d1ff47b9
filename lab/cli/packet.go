package cli

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// What is in an Ethernet frame. Sources: IEEE 802.3, RFC 791, RFC 826, RFC 792,
// RFC 9293, RFC 768.
const (
	etherHeader = 14
	etherIPv4   = 0x0800
	etherARP    = 0x0806
	etherIPv6   = 0x86dd

	ipv4Header = 20
	arpLength  = 28
	protoICMP  = 1
	protoTCP   = 6
	protoUDP   = 17

	moreFragments  = 0x2000
	fragmentOffset = 0x1fff // in units of eight bytes
)

// packetLine is one line for an Ethernet frame, of which the end may be cut off:
//
//	10.0.1.4:40000 > 10.0.2.4:80 tcp S
//	10.0.1.4:40000 > 10.0.2.4:53 udp len 31
//	10.0.2.4 > 10.0.1.4 icmp port unreachable (10.0.1.4:40000 > 10.0.2.4:53 udp)
//	arp who-has 10.0.1.1 tell 10.0.1.4
//
// len is what the packet carries, in bytes. It takes any bytes.
func packetLine(frame []byte) string {
	if len(frame) < etherHeader {
		return fmt.Sprintf("cut off after %d bytes", len(frame))
	}
	kind, rest := binary.BigEndian.Uint16(frame[12:]), frame[etherHeader:]
	switch kind {
	case etherIPv4:
		return ipv4Line(rest, packetOnWire)
	case etherARP:
		return arpLine(rest)
	case etherIPv6:
		return fmt.Sprintf("ipv6 len %d", len(rest))
	}
	return fmt.Sprintf("ethertype 0x%04x len %d", kind, len(rest))
}

func arpLine(b []byte) string {
	if len(b) < arpLength || binary.BigEndian.Uint16(b[2:]) != etherIPv4 || b[4] != 6 || b[5] != 4 {
		return "arp, not for IPv4 on Ethernet"
	}
	sender, target := netip.AddrFrom4([4]byte(b[14:])), netip.AddrFrom4([4]byte(b[24:]))
	switch op := binary.BigEndian.Uint16(b[6:]); op {
	case 1:
		return fmt.Sprintf("arp who-has %s tell %s", target, sender)
	case 2:
		return fmt.Sprintf("arp %s is-at %s", sender, net.HardwareAddr(b[8:14]))
	default:
		return fmt.Sprintf("arp operation %d from %s", op, sender)
	}
}

// whole says how much of a packet there should be.
type whole int

const (
	packetOnWire   whole = iota
	packetInQuotes       // in an ICMP error: the header and a little more (RFC 792)
)

// ipv4Line tells a packet, all of it or what an error quotes of it.
func ipv4Line(b []byte, w whole) string {
	if len(b) < ipv4Header || b[0]>>4 != 4 {
		return "ipv4, cut off or malformed"
	}
	header, total := int(b[0]&0xf)*4, int(binary.BigEndian.Uint16(b[2:]))
	if total == 0 { // left to segmentation offload, and longer than the field can say
		total = len(b)
	}
	if header < ipv4Header || header > total || header > len(b) {
		return "ipv4, cut off or malformed"
	}
	src, dst := netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
	flags := binary.BigEndian.Uint16(b[6:])
	offset, more := int(flags&fragmentOffset)*8, flags&moreFragments != 0
	payload := total - header
	body := b[header:min(len(b), total)]
	if offset > 0 {
		return fmt.Sprintf("%s > %s %s fragment %s", src, dst, protocolName(b[9]), fragmentRange(offset, payload, more))
	}
	p := transport{src: src, dst: dst, body: body, length: payload, whole: w}
	line := p.line(b[9])
	if more {
		line += " fragment " + fragmentRange(0, payload, more)
	}
	return line
}

func fragmentRange(offset, length int, more bool) string {
	s := fmt.Sprintf("%d-%d", offset, offset+length)
	if more {
		s += " more"
	}
	return s
}

func protocolName(p byte) string {
	switch p {
	case protoICMP:
		return "icmp"
	case protoTCP:
		return "tcp"
	case protoUDP:
		return "udp"
	}
	return "protocol " + strconv.Itoa(int(p))
}

// transport is what an IPv4 packet carries.
type transport struct {
	src, dst netip.Addr
	body     []byte // what there is of it
	length   int    // what there should be
	whole    whole
}

func (t transport) line(protocol byte) string {
	name := protocolName(protocol)
	switch {
	case protocol == protoICMP && len(t.body) >= 8:
		return fmt.Sprintf("%s > %s icmp %s", t.src, t.dst, t.icmp())
	case (protocol == protoTCP || protocol == protoUDP) && len(t.body) >= 4:
		from, to := binary.BigEndian.Uint16(t.body), binary.BigEndian.Uint16(t.body[2:])
		line := fmt.Sprintf("%s > %s %s", netip.AddrPortFrom(t.src, from), netip.AddrPortFrom(t.dst, to), name)
		switch {
		case t.whole == packetInQuotes:
			return line
		case protocol == protoUDP:
			return line + fmt.Sprintf(" len %d", max(t.length-8, 0))
		default:
			return line + t.tcp()
		}
	}
	return fmt.Sprintf("%s > %s %s len %d", t.src, t.dst, name, t.length)
}

// tcpFlags are the letters of the flags from the lowest bit on.
const tcpFlags = "FSRPAUEW"

// tcp tells flags, the urgent ones first, and length.
func (t transport) tcp() string {
	if len(t.body) < 20 {
		return " cut off"
	}
	flags := ""
	for _, letter := range "SFRPAUEW" {
		if t.body[13]&(1<<strings.IndexRune(tcpFlags, letter)) != 0 {
			flags += string(letter)
		}
	}
	if flags == "" {
		flags = "-"
	}
	line := " " + flags
	if n := t.length - int(t.body[12]>>4)*4; n > 0 {
		line += fmt.Sprintf(" len %d", n)
	}
	return line
}

// unreachable are the codes of ICMP's type 3. Sources: RFC 792, RFC 1122 3.2.2.1,
// RFC 1812 5.2.7.1.
var unreachable = map[byte]string{
	0: "net unreachable", 1: "host unreachable", 2: "protocol unreachable", 3: "port unreachable",
	4: "fragmentation needed", 9: "net prohibited", 10: "host prohibited", 13: "prohibited",
}

// icmp tells type and code, and what an error quotes.
func (t transport) icmp() string {
	b := t.body
	kind, code := b[0], b[1]
	id, seq := binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:])
	switch {
	case kind == 0:
		return fmt.Sprintf("echo reply id %d seq %d len %d", id, seq, max(t.length-8, 0))
	case kind == 8:
		return fmt.Sprintf("echo request id %d seq %d len %d", id, seq, max(t.length-8, 0))
	case kind == 3 && code == 4:
		return fmt.Sprintf("%s mtu %d%s", unreachable[code], seq, t.quoted())
	case kind == 3 && unreachable[code] != "":
		return unreachable[code] + t.quoted()
	case kind == 3:
		return fmt.Sprintf("unreachable code %d%s", code, t.quoted())
	case kind == 11 && code == 1:
		return "reassembly time exceeded" + t.quoted()
	case kind == 11:
		return "time exceeded" + t.quoted()
	}
	return fmt.Sprintf("type %d code %d len %d", kind, code, t.length)
}

// quoted tells the packet that an ICMP error is about. An error about an error is
// none (RFC 1122 3.2.2), and is not looked into.
func (t transport) quoted() string {
	if t.whole == packetInQuotes {
		return ""
	}
	return " (" + ipv4Line(t.body[8:], packetInQuotes) + ")"
}
