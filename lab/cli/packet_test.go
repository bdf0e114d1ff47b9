package cli

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

// frame makes an Ethernet frame of an IPv4 packet from hexadecimal digits: the
// header from protocol, flags and offset, 10.0.1.4 to 10.0.2.4.
func frame(t *testing.T, protocol byte, fragment uint16, body string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(body, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	ip := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 1, 4, 10, 0, 2, 4}
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)+len(b)))
	binary.BigEndian.PutUint16(ip[6:], fragment)
	return append(append(make([]byte, 12), 8, 0), append(ip, b...)...)
}

const (
	tcpSYN  = "9c40 0050 00000000 00000000 5002 0000 0000 0000"
	tcpData = "9c40 0050 00000000 00000000 6018 0000 0000 0000 01010101 68656c6c6f"
	udpAsks = "9c40 0035 000d 0000 68656c6c6f"
	echo    = "0800 0000 002a 0003 68656c6c6f"
	quoted  = "4500 0054 0000 0000 4011 0000 0a000204 0a000104 0035 9c40 0040 0000"
)

func TestPacketLine(t *testing.T) {
	for _, tt := range []struct {
		name     string
		protocol byte
		fragment uint16
		body     string
		want     string
	}{
		{"syn", 6, 0, tcpSYN, "10.0.1.4:40000 > 10.0.2.4:80 tcp S"},
		{"data with options", 6, 0x4000, tcpData, "10.0.1.4:40000 > 10.0.2.4:80 tcp PA len 5"},
		{"tcp cut off", 6, 0, tcpSYN[:18], "10.0.1.4:40000 > 10.0.2.4:80 tcp cut off"},
		{"tcp without ports", 6, 0, "9c40", "10.0.1.4 > 10.0.2.4 tcp len 2"},
		{"udp", 17, 0, udpAsks, "10.0.1.4:40000 > 10.0.2.4:53 udp len 5"},
		{"echo", 1, 0, echo, "10.0.1.4 > 10.0.2.4 icmp echo request id 42 seq 3 len 5"},
		{"echo reply", 1, 0, "00" + echo[2:], "10.0.1.4 > 10.0.2.4 icmp echo reply id 42 seq 3 len 5"},
		{"port unreachable", 1, 0, "0303 0000 0000 0000" + quoted, "10.0.1.4 > 10.0.2.4 icmp port unreachable (10.0.2.4:53 > 10.0.1.4:40000 udp)"},
		{"fragmentation needed", 1, 0, "0304 0000 0000 05dc" + quoted, "10.0.1.4 > 10.0.2.4 icmp fragmentation needed mtu 1500 (10.0.2.4:53 > 10.0.1.4:40000 udp)"},
		{"time exceeded", 1, 0, "0b00 0000 0000 0000" + quoted, "10.0.1.4 > 10.0.2.4 icmp time exceeded (10.0.2.4:53 > 10.0.1.4:40000 udp)"},
		{"quotes nothing", 1, 0, "0301 0000 0000 0000", "10.0.1.4 > 10.0.2.4 icmp host unreachable (ipv4, cut off or malformed)"},
		{"another icmp", 1, 0, "0500 0000 0000 0000", "10.0.1.4 > 10.0.2.4 icmp type 5 code 0 len 8"},
		{"first fragment", 17, 0x2000, udpAsks, "10.0.1.4:40000 > 10.0.2.4:53 udp len 5 fragment 0-13 more"},
		{"last fragment", 17, 185, "0102", "10.0.1.4 > 10.0.2.4 udp fragment 1480-1482"},
		{"another protocol", 47, 0, "0000 0800", "10.0.1.4 > 10.0.2.4 protocol 47 len 4"},
	} {
		if got := packetLine(frame(t, tt.protocol, tt.fragment, tt.body)); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	// An error about an error about ...: one level is looked into.
	inner := frame(t, 1, 0, "0301 0000 0000 0000"+quoted)[etherHeader:]
	if got, want := packetLine(frame(t, 1, 0, "0301 0000 0000 0000"+hex.EncodeToString(inner))),
		"10.0.1.4 > 10.0.2.4 icmp host unreachable (10.0.1.4 > 10.0.2.4 icmp host unreachable)"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestOtherFrames(t *testing.T) {
	for text, want := range map[string]string{
		"ffffffffffff 020000000004 0806 0001 0800 06 04 0001 020000000004 0a000104 000000000000 0a000101": "arp who-has 10.0.1.1 tell 10.0.1.4",
		"020000000004 020000000001 0806 0001 0800 06 04 0002 020000000001 0a000101 020000000004 0a000104": "arp 10.0.1.1 is-at 02:00:00:00:00:01",
		"020000000004 020000000001 0806 0001 0800 06 04 0003 020000000001 0a000101 020000000004 0a000104": "arp operation 3 from 10.0.1.1",
		"020000000004 020000000001 0806 0001":                  "arp, not for IPv4 on Ethernet",
		"333300000016 020000000004 86dd 6000":                  "ipv6 len 2",
		"333300000016 020000000004 88cc 01":                    "ethertype 0x88cc len 1",
		"333300000016 020000000004 08":                         "cut off after 13 bytes",
		"333300000016 020000000004 0800 4500":                  "ipv4, cut off or malformed",
		"333300000016 020000000004 0800 " + quoted[:20] + "00": "ipv4, cut off or malformed",
	} {
		b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		if got := packetLine(b); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

func FuzzPacketLine(f *testing.F) {
	f.Add([]byte{})
	f.Add(append(append(make([]byte, 12), 8, 0), 0x4f, 0, 0, 0))
	for _, body := range []string{quoted, "4500001c00000000400100000a0001040a00020403010000000000004500"} {
		b, err := hex.DecodeString(strings.ReplaceAll(body, " ", ""))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(append(append(make([]byte, 12), 8, 0), b...))
		f.Add(append(append(make([]byte, 12), 8, 6), b...))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if line := packetLine(frame); line == "" || len(line) > 200 || strings.ContainsAny(line, "\n\x00") {
			t.Errorf("line %q", line)
		}
	})
}

// pcapOf makes a pcap file of frames, as the lab sends it, in header and rest.
func pcapOf(frames ...[]byte) (header [pcapHeader]byte, rest []byte) {
	binary.LittleEndian.PutUint32(header[:], pcapMagic)
	for _, f := range frames {
		var record [pcapRecord]byte
		binary.LittleEndian.PutUint32(record[8:], uint32(len(f)))
		rest = append(append(rest, record[:]...), f...)
	}
	return header, rest
}

func TestPacketLines(t *testing.T) {
	header, rest := pcapOf(frame(t, 6, 0, tcpSYN), frame(t, 17, 0, udpAsks))
	var out bytes.Buffer
	if err := packetLines(&out, header, bytes.NewReader(rest)); err != nil {
		t.Fatal(err)
	}
	if want := "10.0.1.4:40000 > 10.0.2.4:80 tcp S\n10.0.1.4:40000 > 10.0.2.4:53 udp len 5\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
	if err := packetLines(&out, header, bytes.NewReader(rest[:len(rest)-1])); err == nil {
		t.Error("a file that breaks off in a packet is taken")
	}
	if err := packetLines(&out, header, bytes.NewReader(rest[:8])); err == nil {
		t.Error("a file that breaks off in a header is taken")
	}
	huge := bytes.Clone(rest)
	binary.LittleEndian.PutUint32(huge[8:], 1<<30)
	if err := packetLines(&out, header, bytes.NewReader(huge)); !errors.Is(err, errPcap) {
		t.Errorf("a packet of a gigabyte: %v", err)
	}
	if err := packetLines(&out, [pcapHeader]byte{}, bytes.NewReader(rest)); !errors.Is(err, errPcap) {
		t.Errorf("no pcap file: %v", err)
	}
}
