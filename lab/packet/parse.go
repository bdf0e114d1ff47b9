package packet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// ErrShort: there is less than a header.
var ErrShort = errors.New("shorter than its header")

// Packet is what a frame says, as far as it goes.
type Packet struct {
	From, To  MAC
	VLAN      int // of the outermost tag; 0: none
	EtherType uint16

	ARP *ARP // nil where it is none

	// Of IP: Src is valid if it is any.
	Src, Dst netip.Addr
	Protocol uint8
	TTL      uint8
	ID       uint16
	DF       bool
	Fragment *Fragment // nil: a whole packet

	// Of the transport: HasPorts says that ports, or of ICMP the type, are there.
	HasPorts           bool
	SrcPort, DstPort   uint16 // of ICMP SrcPort is the identifier
	Flags              uint8
	ICMPType, ICMPCode uint8
	Payload            []byte

	// Of ICMP errors: what they are about, and the MTU that one tells.
	Quoted *Packet
	MTU    int
}

// ARP is a question or an answer.
type ARP struct {
	Request       bool
	SenderMAC     MAC
	Sender, Asked netip.Addr
}

// Parse reads an Ethernet frame. Of what is neither IP nor ARP only the Ethernet
// header is read.
func Parse(frame []byte) (Packet, error) {
	var p Packet
	if len(frame) < 14 {
		return p, fmt.Errorf("read frame of %d bytes: %w", len(frame), ErrShort)
	}
	p.To, p.From = MAC(frame[:6]), MAC(frame[6:12])
	p.EtherType = binary.BigEndian.Uint16(frame[12:])
	rest := frame[14:]
	if p.EtherType == typeVLAN && len(rest) >= 4 {
		p.VLAN = int(binary.BigEndian.Uint16(rest) & 0xfff)
		p.EtherType = binary.BigEndian.Uint16(rest[2:])
		rest = rest[4:]
	}
	switch p.EtherType {
	case typeARP:
		return p, p.readARP(rest)
	case typeIPv4, typeIPv6:
		return p, p.readIP(rest)
	}
	p.Payload = rest
	return p, nil
}

func (p *Packet) readARP(b []byte) error {
	if len(b) < 28 {
		return fmt.Errorf("read arp of %d bytes: %w", len(b), ErrShort)
	}
	p.ARP = &ARP{
		Request:   binary.BigEndian.Uint16(b[6:]) == 1,
		SenderMAC: MAC(b[8:14]),
		Sender:    netip.AddrFrom4([4]byte(b[14:18])),
		Asked:     netip.AddrFrom4([4]byte(b[24:28])),
	}
	return nil
}

// readIP reads a packet of either version.
func (p *Packet) readIP(b []byte) error {
	if len(b) > 0 && b[0]>>4 == 6 {
		return p.readIPv6(b)
	}
	if len(b) < 20 || b[0]>>4 != 4 {
		return fmt.Errorf("read ip packet of %d bytes: %w", len(b), ErrShort)
	}
	header := int(b[0]&0xf) * 4
	if header < 20 || header > len(b) {
		return fmt.Errorf("read ip header of %d bytes in %d: %w", header, len(b), ErrShort)
	}
	p.Src, p.Dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	p.ID, p.TTL, p.Protocol = binary.BigEndian.Uint16(b[4:]), b[8], b[9]
	word := binary.BigEndian.Uint16(b[6:])
	p.DF = word&(1<<14) != 0
	if word&0x3fff != 0 {
		p.Fragment = &Fragment{Offset: int(word&0x1fff) * 8, More: word&(1<<13) != 0}
	}
	// What is behind the packet's end is the frame's padding.
	if total := int(binary.BigEndian.Uint16(b[2:])); total >= header && total < len(b) {
		b = b[:total]
	}
	p.readTransport(b[header:])
	return nil
}

func (p *Packet) readIPv6(b []byte) error {
	if len(b) < 40 {
		return fmt.Errorf("read ipv6 packet of %d bytes: %w", len(b), ErrShort)
	}
	p.Src, p.Dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	p.Protocol, p.TTL = b[6], b[7]
	rest := b[40:]
	if n := int(binary.BigEndian.Uint16(b[4:])); n < len(rest) {
		rest = rest[:n]
	}
	p.readTransport(rest)
	return nil
}

// readTransport reads what is there of the header behind IP's.
func (p *Packet) readTransport(b []byte) {
	p.Payload = b
	if p.Fragment != nil && p.Fragment.Offset > 0 || len(b) < 8 {
		return
	}
	switch p.Protocol {
	case TCP, UDP:
		p.HasPorts = true
		p.SrcPort, p.DstPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		p.Payload = b[8:]
		if p.Protocol == TCP {
			p.Payload = nil
			if len(b) >= 20 {
				p.Flags = b[13]
				p.Payload = b[min(max(int(b[12]>>4)*4, 20), len(b)):]
			}
		}
	case ICMP, ICMPv6:
		p.HasPorts = true
		p.ICMPType, p.ICMPCode = b[0], b[1]
		p.SrcPort = binary.BigEndian.Uint16(b[4:])
		p.Payload = b[8:]
		if p.Protocol == ICMP && isError(p.ICMPType) {
			p.readQuoted(b)
		}
	}
}

// isError tells the ICMP messages that quote a packet (RFC 792).
func isError(kind uint8) bool {
	switch kind {
	case 3, 4, 5, 11, 12:
		return true
	}
	return false
}

func (p *Packet) readQuoted(b []byte) {
	if p.ICMPType == 3 && p.ICMPCode == 4 {
		p.MTU = int(binary.BigEndian.Uint16(b[6:])) // RFC 1191 4
	}
	// What a quoted ICMP error quotes is read too; each is shorter than the one
	// around it by 28 bytes at least, so there is an end.
	var q Packet
	if q.readIP(b[8:]) == nil {
		p.Quoted = &q
	}
}
