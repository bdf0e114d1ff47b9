package packet

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	macA = MAC{2, 0, 0, 0, 0, 0xa}
	macB = MAC{2, 0, 0, 0, 0, 0xb}
	a    = netip.MustParseAddr("10.0.1.4")
	b    = netip.MustParseAddr("10.1.1.4")
	a6   = netip.MustParseAddr("fe80::a")
	b6   = netip.MustParseAddr("2001:db8::1")
)

// base is a UDP packet from a to b.
func base(change func(*Frame)) Frame {
	f := Frame{
		From: macA, To: macB, Src: a, Dst: b, Protocol: UDP, TTL: 64, ID: 7,
		SrcPort: 4000, DstPort: 5000, Payload: []byte("fairway!"),
	}
	change(&f)
	return f
}

func mustBytes(t testing.TB, f Frame) []byte {
	t.Helper()
	frame, err := f.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return frame
}

// TestBytes compares with frames that another program has made.
func TestBytes(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Frame)
		want   string // after the MACs
	}{
		{"udp", func(*Frame) {}, "0800 45000024 00070000 401164ba 0a000104 0a010104 0fa01388 00100647 6661697277617921"},
		{"tcp", func(f *Frame) { f.Protocol, f.Flags, f.DF = TCP, SYN|ACK, true },
			"0800 45000030 00074000 400624b9 0a000104 0a010104 0fa01388 00000001 00000001 50124000 76410000 6661697277617921"},
		{"icmp", func(f *Frame) { f.Protocol, f.ICMPType, f.TTL = ICMP, 8, 1 },
			"0800 45000024 00070000 0101a3ca 0a000104 0a010104 08002808 0fa00001 6661697277617921"},
		{"other", func(f *Frame) { f.Protocol, f.Payload = 253, nil }, "0800 45000014 00070000 40fd63de 0a000104 0a010104"},
		{"vlan, last fragment", func(f *Frame) { f.VLAN, f.Fragment = 7, &Fragment{Offset: 1480} },
			"8100 0007 0800 4500001c 000700b9 40116409 0a000104 0a010104 6661697277617921"},
		{"first fragment", func(f *Frame) { f.Fragment = &Fragment{More: true} },
			"0800 45000024 00072000 401144ba 0a000104 0a010104 0fa01388 00100647 6661697277617921"},
		{"options", func(f *Frame) { f.Protocol, f.Payload, f.Options = 253, nil, []byte{1, 1, 1} },
			"0800 46000018 00070000 40fd60d9 0a000104 0a010104 01010100"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := mustBytes(t, base(tt.change))
			want := "02000000000b02000000000a" + strings.ReplaceAll(tt.want, " ", "")
			if d := cmp.Diff(want, hex.EncodeToString(got)); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

// TestChecksums: a receiver's sum over all of it is 0xffff (RFC 1071), or not
// where it is to be wrong.
func TestChecksums(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Frame)
		right  bool
	}{
		{"udp", func(*Frame) {}, true},
		{"odd", func(f *Frame) { f.Payload = []byte("odd") }, true},
		{"tcp", func(f *Frame) { f.Protocol = TCP }, true},
		{"icmp", func(f *Frame) { f.Protocol, f.ICMPType = ICMP, 3 }, true},
		{"options", func(f *Frame) { f.Options = []byte{1} }, true},
		{"bad", func(f *Frame) { f.BadChecksum = true }, false},
		{"udp over ipv6", func(f *Frame) { f.Src, f.Dst = a6, b6 }, true},
		{"icmp over ipv6", func(f *Frame) { f.Src, f.Dst, f.Protocol = a6, b6, ICMPv6 }, true},
		{"bad ipv6", func(f *Frame) { f.Src, f.Dst, f.BadChecksum = a6, b6, true }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := base(tt.change)
			ip := mustBytes(t, f)[14:]
			header := 40
			if f.Src.Is4() {
				header = int(ip[0]&0xf) * 4
			}
			segment := ip[header:]
			total := sum(segment)
			if f.Protocol != ICMP {
				total += f.pseudoHeader(len(segment))
			}
			right := fold(total) == 0xffff && (!f.Src.Is4() || fold(sum(ip[:header])) == 0xffff)
			if right != tt.right {
				t.Errorf("checksums right: %v, want %v: %x", right, tt.right, ip)
			}
		})
	}
	// A sum of 0 is sent as 0xffff: 0 means none (RFC 768).
	for n := range 1 << 16 {
		f := base(func(f *Frame) { f.Payload = []byte{byte(n >> 8), byte(n)} })
		if frame := mustBytes(t, f); frame[14+20+6] == 0 && frame[14+20+7] == 0 {
			t.Fatalf("payload %04x has the checksum 0", n)
		}
	}
}

func TestBytesRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*Frame)
		want   error
	}{
		"families":        {func(f *Frame) { f.Dst = b6 }, ErrFamilies},
		"no source":       {func(f *Frame) { f.Src = netip.Addr{} }, ErrFamilies},
		"long":            {func(f *Frame) { f.Payload = make([]byte, 65536-28) }, ErrTooLong},
		"odd offset":      {func(f *Frame) { f.Fragment = &Fragment{Offset: 7} }, ErrFragment},
		"far offset":      {func(f *Frame) { f.Fragment = &Fragment{Offset: 65536} }, ErrFragment},
		"ipv6 fragment":   {func(f *Frame) { f.Src, f.Dst, f.Fragment = a6, b6, &Fragment{} }, ErrFragment},
		"many options":    {func(f *Frame) { f.Options = make([]byte, 41) }, ErrOptions},
		"options of ipv6": {func(f *Frame) { f.Src, f.Dst, f.Options = a6, b6, []byte{1} }, ErrOptions},
		"vlan":            {func(f *Frame) { f.VLAN = 4095 }, ErrVLAN},
	} {
		if _, err := base(tt.change).Bytes(); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", name, err, tt.want)
		}
	}
}

// quoting is an ICMP error of router about a frame.
func quoting(t testing.TB, kind, code uint8, mtu uint16, about []byte) []byte {
	t.Helper()
	frame := mustBytes(t, Frame{
		From: macB, To: macA, Src: netip.MustParseAddr("10.0.1.1"), Dst: a, Protocol: ICMP, TTL: 64,
		ICMPType: kind, ICMPCode: code, Payload: about[14:],
	})
	frame[14+20+6], frame[14+20+7] = byte(mtu>>8), byte(mtu)
	return frame
}

func TestString(t *testing.T) {
	udp := mustBytes(t, base(func(*Frame) {}))
	reply := ARPRequest(macA, a, b)
	reply[21] = 2
	for _, tt := range []struct {
		frame []byte
		want  string
	}{
		{udp, "udp 10.0.1.4:4000 > 10.1.1.4:5000"},
		{udp[:14+20+4], "udp 10.0.1.4 > 10.1.1.4"},
		{mustBytes(t, base(func(f *Frame) { f.Protocol, f.Flags = TCP, SYN|ACK })), "tcp 10.0.1.4:4000 > 10.1.1.4:5000 SA"},
		{mustBytes(t, base(func(f *Frame) { f.Protocol = TCP })), "tcp 10.0.1.4:4000 > 10.1.1.4:5000"},
		{mustBytes(t, base(func(f *Frame) { f.Protocol, f.ICMPType = ICMP, 8 })), "icmp 10.0.1.4 > 10.1.1.4 echo-request"},
		{mustBytes(t, base(func(f *Frame) { f.Protocol, f.ICMPType, f.ICMPCode = ICMP, 77, 1 })), "icmp 10.0.1.4 > 10.1.1.4 type 77/1"},
		{mustBytes(t, base(func(f *Frame) { f.Protocol = 253 })), "proto 253 10.0.1.4 > 10.1.1.4"},
		{mustBytes(t, base(func(f *Frame) { f.Fragment = &Fragment{Offset: 1480, More: true} })), "udp 10.0.1.4 > 10.1.1.4 fragment 1480+"},
		{mustBytes(t, base(func(f *Frame) { f.VLAN = 7 })), "vlan 7 udp 10.0.1.4:4000 > 10.1.1.4:5000"},
		{mustBytes(t, base(func(f *Frame) { f.Src, f.Dst = a6, b6 })), "udp [fe80::a]:4000 > [2001:db8::1]:5000"},
		{mustBytes(t, base(func(f *Frame) { f.Src, f.Dst, f.Protocol, f.ICMPType = a6, b6, ICMPv6, 128 })), "icmp6 fe80::a > 2001:db8::1 type 128/0"},
		{quoting(t, 3, 4, 1500, udp), "icmp 10.0.1.1 > 10.0.1.4 fragmentation-needed mtu 1500"},
		{quoting(t, 11, 0, 0, udp), "icmp 10.0.1.1 > 10.0.1.4 ttl-exceeded"},
		{ARPRequest(macA, a, b), "arp who-has 10.1.1.4 tell 10.0.1.4"},
		{reply, "arp 10.0.1.4 is-at 02:00:00:00:00:0a"},
		{append(udp[:12:12], 0x88, 0xcc), "ethertype 0x88cc"},
	} {
		p, err := Parse(tt.frame)
		if err != nil || p.String() != tt.want {
			t.Errorf("got %q (%v), want %q", p, err, tt.want)
		}
	}
}

// TestQuoted: an error tells which packet it is about, however little of it is there.
func TestQuoted(t *testing.T) {
	about := mustBytes(t, base(func(f *Frame) { f.Protocol = TCP }))
	for _, length := range []int{len(about), 14 + 20 + 8} {
		p, err := Parse(quoting(t, 3, 4, 8500, about[:length]))
		if err != nil || p.Quoted == nil || p.MTU != 8500 {
			t.Fatalf("%d bytes quoted: %+v, %v", length, p, err)
		}
		if q := p.Quoted; q.ID != 7 || q.Dst != b || q.DstPort != 5000 || q.Protocol != TCP {
			t.Errorf("%d bytes quoted: %+v", length, q)
		}
	}
}

func TestParseShort(t *testing.T) {
	for _, full := range [][]byte{
		mustBytes(t, base(func(*Frame) {})), mustBytes(t, base(func(f *Frame) { f.Src, f.Dst = a6, b6 })), ARPRequest(macA, a, b),
	} {
		header := map[byte]int{0x00: 34, 0xdd: 54, 0x06: 42}[full[13]]
		for n := range len(full) {
			_, err := Parse(full[:n])
			if short := n < header; short != errors.Is(err, ErrShort) {
				t.Errorf("%d bytes of %x: %v", n, full, err)
			}
		}
	}
}

func TestParseFlags(t *testing.T) {
	for letters, want := range map[string]uint8{"": 0, "S": SYN, "sa": SYN | ACK, "FSRPAU": 0x3f} {
		if got, err := ParseFlags(letters); got != want || err != nil {
			t.Errorf("%q: got %#x, %v, want %#x", letters, got, err, want)
		}
	}
	if _, err := ParseFlags("SX"); err == nil {
		t.Error("a flag that does not exist is taken")
	}
}

func FuzzParse(f *testing.F) {
	udp := mustBytes(f, base(func(*Frame) {}))
	f.Add(udp)
	f.Add(udp[:20])
	f.Add(quoting(f, 3, 4, 1500, quoting(f, 11, 0, 0, udp)))
	f.Add(mustBytes(f, base(func(f *Frame) { f.Protocol, f.Options, f.VLAN = TCP, []byte{1}, 7 })))
	f.Add(ARPRequest(macA, a, b))
	f.Fuzz(func(t *testing.T, frame []byte) {
		p, err := Parse(frame)
		if err == nil && len(frame) < 14 {
			t.Fatalf("took %x", frame)
		}
		if text := p.String(); text == "" || len(text) > 200 || strings.ContainsAny(text, "\n\t") {
			t.Fatalf("%x is %q", frame, text)
		}
		for q := &p; q != nil; q = q.Quoted {
			if !bytes.Contains(frame, q.Payload) {
				t.Fatalf("%x has a payload that is not in it: %x", frame, q.Payload)
			}
		}
	})
}

// FuzzRoundTrip: what is made is read as what it was to be.
func FuzzRoundTrip(f *testing.F) {
	f.Add(uint8(UDP), uint16(1), uint16(2), uint8(0), 0, []byte("x"))
	f.Add(uint8(TCP), uint16(80), uint16(443), uint8(SYN), 8, []byte{})
	f.Fuzz(func(t *testing.T, protocol uint8, sport, dport uint16, flags uint8, offset int, payload []byte) {
		want := base(func(f *Frame) {
			f.Protocol, f.SrcPort, f.DstPort, f.Flags, f.Payload = protocol, sport, dport, flags, payload
			if offset != 0 {
				f.Fragment = &Fragment{Offset: offset}
			}
		})
		frame, err := want.Bytes()
		if err != nil {
			return
		}
		p, err := Parse(frame)
		if err != nil {
			t.Fatal(err)
		}
		if p.Src != a || p.Dst != b || p.Protocol != protocol || p.ID != 7 || !cmp.Equal(p.Fragment, want.Fragment) {
			t.Fatalf("made %+v, read %+v", want, p)
		}
		ports := (protocol == TCP || protocol == UDP) && offset == 0
		if ports && (p.SrcPort != sport || p.DstPort != dport || protocol == TCP && p.Flags != flags) {
			t.Fatalf("made %+v, read %+v", want, p)
		}
		known := ports || protocol != ICMP && protocol != ICMPv6
		if known && !bytes.Equal(p.Payload, payload) {
			t.Fatalf("payload %x, want %x", p.Payload, payload)
		}
	})
}
