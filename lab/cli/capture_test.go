package cli

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"

	"github.com/fairway-cni/fairway/lab/packet"
)

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
	a, b := netip.MustParseAddr("10.0.1.4"), netip.MustParseAddr("10.0.2.4")
	syn, err := packet.Frame{Src: a, Dst: b, Protocol: packet.TCP, SrcPort: 40000, DstPort: 80, Flags: 2}.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	ask, err := packet.Frame{Src: a, Dst: b, Protocol: packet.UDP, SrcPort: 40000, DstPort: 53, Payload: []byte("hello")}.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	header, rest := pcapOf(syn, ask)
	var out bytes.Buffer
	if err := packetLines(&out, header, bytes.NewReader(rest)); err != nil {
		t.Fatal(err)
	}
	if want := "tcp 10.0.1.4:40000 > 10.0.2.4:80 S\nudp 10.0.1.4:40000 > 10.0.2.4:53 len 5\n"; out.String() != want {
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
