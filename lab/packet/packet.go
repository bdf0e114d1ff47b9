// Package packet makes and reads single Ethernet frames, as they are sent on
// purpose to see what becomes of them: whole ones and broken ones.
//
// It is pure. Reading believes nothing that the bytes say of their own length,
// and takes what is cut off as far as it goes, since ICMP errors quote packets
// so. Values are not changed after they are made, and all functions may be used
// by several goroutines.
package packet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// MAC is an Ethernet address.
type MAC [6]byte

// String gives "02:00:00:00:00:01".
func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// Broadcast is the MAC of all.
var Broadcast = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// Protocol numbers, of IANA's register "Assigned Internet Protocol Numbers".
const (
	ICMP   = 1
	TCP    = 6
	UDP    = 17
	ICMPv6 = 58
)

// EtherTypes, of IANA's register "IEEE 802 Numbers".
const (
	typeIPv4 = 0x0800
	typeARP  = 0x0806
	typeVLAN = 0x8100
	typeIPv6 = 0x86dd
)

// TCP flags (RFC 9293 3.1), and their letters as tcpdump has them.
const (
	FIN = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
)

const flagLetters = "FSRPAU"

// Fragment is a part of a packet: what is in it begins Offset bytes into what
// follows the IP header of the whole.
type Fragment struct {
	Offset int // a multiple of 8, at most 65,528
	More   bool
}

// Frame says what to make.
type Frame struct {
	From, To MAC
	VLAN     int // 802.1Q, 1 to 4094; 0: no tag

	Src, Dst netip.Addr // both IPv4, or both IPv6
	Protocol uint8
	TTL      uint8 // IPv6: the hop limit
	ID       uint16
	DF       bool
	Fragment *Fragment // nil: a whole packet
	Options  []byte    // of IPv4, at most 40 bytes; filled up with zeros to whole words

	SrcPort, DstPort   uint16 // of TCP and UDP; of ICMP SrcPort is the identifier
	Flags              uint8  // of TCP
	ICMPType, ICMPCode uint8
	Payload            []byte // behind the transport header

	BadChecksum bool // of IPv4's header; where there is none, of the transport's
}

// Errors of Frame.Bytes for what no frame can have.
var (
	ErrFamilies = errors.New("source and destination must be both IPv4 or both IPv6")
	ErrTooLong  = errors.New("longer than a packet can be: 65,535 bytes")
	ErrFragment = errors.New("a fragment's offset must be a multiple of 8 and at most 65,528, and only IPv4 has fragments here")
	ErrOptions  = errors.New("options must have at most 40 bytes, and only IPv4 has them here")
	ErrVLAN     = errors.New("a VLAN must be within 1 and 4094")
)

// Bytes makes the frame.
func (f Frame) Bytes() ([]byte, error) {
	four := f.Src.Is4() && f.Dst.Is4()
	switch {
	case !four && !(f.Src.Is6() && f.Dst.Is6()):
		return nil, fmt.Errorf("make packet from %s to %s: %w", f.Src, f.Dst, ErrFamilies)
	case f.VLAN < 0 || f.VLAN > 4094:
		return nil, fmt.Errorf("make packet: vlan %d: %w", f.VLAN, ErrVLAN)
	case len(f.Options) > 40 || len(f.Options) > 0 && !four:
		return nil, fmt.Errorf("make packet: %w", ErrOptions)
	case f.Fragment != nil && (!four || f.Fragment.Offset < 0 || f.Fragment.Offset%8 != 0 || f.Fragment.Offset > 0x1fff*8):
		return nil, fmt.Errorf("make packet: %w", ErrFragment)
	}
	ethertype := uint16(typeIPv6)
	head := f.ipv6
	if four {
		ethertype, head = typeIPv4, f.ipv4
	}
	segment := f.Payload
	if f.Fragment == nil || f.Fragment.Offset == 0 {
		segment = f.segment()
	}
	ip := head(len(segment))
	if len(ip)+len(segment) > 0xffff {
		return nil, fmt.Errorf("make packet of %d bytes: %w", len(ip)+len(segment), ErrTooLong)
	}
	out := append(f.To[:len(f.To):len(f.To)], f.From[:]...)
	if f.VLAN != 0 {
		out = binary.BigEndian.AppendUint16(out, typeVLAN)
		out = binary.BigEndian.AppendUint16(out, uint16(f.VLAN))
	}
	out = binary.BigEndian.AppendUint16(out, ethertype)
	return append(append(out, ip...), segment...), nil
}

// ipv4 is the header in front of so many bytes (RFC 791 3.1).
func (f Frame) ipv4(follow int) []byte {
	options := append([]byte(nil), f.Options...)
	for len(options)%4 != 0 {
		options = append(options, 0)
	}
	h := make([]byte, 20, 60)
	h = append(h, options...)
	h[0] = 4<<4 | byte(len(h)/4)
	binary.BigEndian.PutUint16(h[2:], uint16(len(h)+follow))
	binary.BigEndian.PutUint16(h[4:], f.ID)
	var word uint16
	if f.DF {
		word |= 1 << 14
	}
	if f.Fragment != nil {
		word |= uint16(f.Fragment.Offset / 8)
		if f.Fragment.More {
			word |= 1 << 13
		}
	}
	binary.BigEndian.PutUint16(h[6:], word)
	h[8], h[9] = f.TTL, f.Protocol
	src, dst := f.Src.As4(), f.Dst.As4()
	copy(h[12:], src[:])
	copy(h[16:], dst[:])
	check := ^fold(sum(h))
	if f.BadChecksum {
		check ^= 0x5555
	}
	binary.BigEndian.PutUint16(h[10:], check)
	return h
}

// ipv6 is the header in front of so many bytes (RFC 8200 3).
func (f Frame) ipv6(follow int) []byte {
	h := make([]byte, 8, 40)
	h[0] = 6 << 4
	binary.BigEndian.PutUint16(h[4:], uint16(follow))
	h[6], h[7] = f.Protocol, f.TTL
	src, dst := f.Src.As16(), f.Dst.As16()
	return append(append(h, src[:]...), dst[:]...)
}

// segment is the transport header with the payload.
func (f Frame) segment() []byte {
	var s []byte
	check := 0 // where the checksum is; 0: none
	switch f.Protocol {
	case TCP:
		s = binary.BigEndian.AppendUint16(s, f.SrcPort)
		s = binary.BigEndian.AppendUint16(s, f.DstPort)
		s = append(s, 0, 0, 0, 1, 0, 0, 0, 1, 5<<4, f.Flags, 0x40, 0, 0, 0, 0, 0)
		check = 16
	case UDP:
		s = binary.BigEndian.AppendUint16(s, f.SrcPort)
		s = binary.BigEndian.AppendUint16(s, f.DstPort)
		s = binary.BigEndian.AppendUint16(s, uint16(8+len(f.Payload)))
		s = append(s, 0, 0)
		check = 6
	case ICMP, ICMPv6:
		s = append(s, f.ICMPType, f.ICMPCode, 0, 0)
		s = binary.BigEndian.AppendUint16(s, f.SrcPort)
		s = append(s, 0, 1)
		check = 2
	}
	s = append(s, f.Payload...)
	if check == 0 {
		return s
	}
	total := sum(s)
	if f.Protocol != ICMP {
		total += f.pseudoHeader(len(s))
	}
	value := ^fold(total)
	if value == 0 && f.Protocol == UDP {
		value = 0xffff // 0 would say that there is none (RFC 768)
	}
	if f.BadChecksum && !f.Src.Is4() {
		value ^= 0x5555
	}
	binary.BigEndian.PutUint16(s[check:], value)
	return s
}

// pseudoHeader is its sum (RFC 768, RFC 9293 3.1, RFC 8200 8.1).
func (f Frame) pseudoHeader(length int) uint32 {
	return sum(f.Src.AsSlice()) + sum(f.Dst.AsSlice()) + uint32(f.Protocol) + uint32(length)
}

// sum adds up 16-bit words (RFC 1071). It is for what one packet can have.
func sum(b []byte) uint32 {
	var s uint32
	for ; len(b) > 1; b = b[2:] {
		s += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	return s
}

func fold(s uint32) uint16 {
	for s > 0xffff {
		s = s&0xffff + s>>16
	}
	return uint16(s)
}

// ARPRequest asks all who has an address (RFC 826).
func ARPRequest(from MAC, sender, asked netip.Addr) []byte {
	out := append(Broadcast[:len(Broadcast):len(Broadcast)], from[:]...)
	out = binary.BigEndian.AppendUint16(out, typeARP)
	out = append(out, 0, 1, 8, 0, 6, 4, 0, 1)
	spa, tpa := sender.As4(), asked.As4()
	out = append(append(out, from[:]...), spa[:]...)
	return append(append(out, make([]byte, 6)...), tpa[:]...)
}
