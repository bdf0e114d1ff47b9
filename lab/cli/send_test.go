package cli

import (
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/fairway-cni/fairway/lab/packet"
)

func TestSendUsage(t *testing.T) {
	for _, tt := range []struct {
		args, stderr string
		status       int
	}{
		{"send", "accepts 1 arg(s)", 2},
		{"send a/ens5", "where to? give --dst ADDRESS, --arp ADDRESS or --raw HEX", 2},
		{"send a/ens5 --dst 10.0.0.1 --arp 10.0.0.1", "exclude each other", 2},
		{"send a/ens5 --dst 10.0.0.1 --size 7", "--size 7: must be within 8 (a nonce)", 2},
		{"send a/ens5 --dst 10.0.0.1 --count 0", "--count 0", 2},
		{"send a/ens5 --dst 10.0.0.1 --truncate 13", "--truncate 13: must be at least 14", 2},
		{"send a/ens5 --dst 10.0.0.1 --wait 0s", "--wait 0s", 2},
		{"send a/ens5 --dst 10.0.0.1 --ttl 256", "ttl", 2},
		{"send a/ens5 --raw 00 --ttl 1", "--ttl has no meaning for this frame", 2},
		{"send a/ens5 --arp 10.0.0.1 --dport 1", "--dport has no meaning for this frame", 2},
		{"send a/ens5 --dst 10.0.0.1 -o xml", `--output "xml"`, 2},
		{"send a/ens5 --dst 10.0.0.1 --lab " + absent(), "no lab of this name is running", 1},
	} {
		s := runCLI(t, strings.Fields(tt.args)...)
		if s.status != tt.status || !strings.Contains(s.stderr, tt.stderr) || s.stdout != "" {
			t.Errorf("%s: %+v, want status %d and %q", tt.args, s, tt.status, tt.stderr)
		}
	}
}

// parseSend reads flags as the command does.
func parseSend(t testing.TB, args string) (*sendFlags, error) {
	t.Helper()
	f := &sendFlags{given: map[string]bool{}}
	flags := pflag.NewFlagSet("send", pflag.ContinueOnError)
	f.register(flags)
	if err := flags.Parse(strings.Fields(args)); err != nil {
		return nil, err
	}
	flags.Visit(func(g *pflag.Flag) { f.given[g.Name] = true })
	return f, f.check()
}

var leftOutlet = outlet{
	mac: packet.MAC{2, 0, 0, 0, 0, 0xa}, next: packet.MAC{2, 0, 0, 0, 0, 1}, address: netip.MustParseAddr("10.0.1.4"),
}

// counting makes marks that tests know.
func counting() func([]byte) {
	n := byte(0)
	return func(b []byte) { n++; b[0], b[len(b)-1] = 0xaa, n }
}

func TestCraft(t *testing.T) {
	for _, tt := range []struct{ args, want string }{ // what is described, or the error
		{"--dst 10.1.1.4", "udp 10.0.1.4:4000 > 10.1.1.4:5000"},
		{"--dst 10.1.1.4 --proto tcp --flags sa --sport 1 --dport 2", "tcp 10.0.1.4:1 > 10.1.1.4:2 SA"},
		{"--dst 10.1.1.4 --proto icmp", "icmp 10.0.1.4 > 10.1.1.4 echo-request"},
		{"--dst 10.1.1.4 --proto icmp --icmp 11/0", "icmp 10.0.1.4 > 10.1.1.4 ttl-exceeded"},
		{"--dst 10.1.1.4 --proto 253 --src 10.9.9.9", "proto 253 10.9.9.9 > 10.1.1.4"},
		{"--dst 10.1.1.4 --fragment 0+ --vlan 7", "vlan 7 udp 10.0.1.4:4000 > 10.1.1.4:5000 fragment 0+"},
		{"--dst 10.1.1.4 --fragment 1480", "udp 10.0.1.4 > 10.1.1.4 fragment 1480"},
		{"--dst 10.1.1.4 --bad-checksum --ip-options --truncate 20", "udp 10.0.1.4:4000 > 10.1.1.4:5000, bad checksum, ip options, cut to 20 bytes"},
		{"--ipv6", "udp [fe80::ff:fe00:a]:4000 > [2001:db8::1]:5000"},
		{"--ipv6 --dst fd00::1 --proto icmp --icmp 128/0", "icmp6 fe80::ff:fe00:a > fd00::1 type 128/0"},
		{"--arp 10.0.1.1", "arp who-has 10.0.1.1 tell 10.0.1.4"},
		{"--raw 02:00:00:00:00:01:02:00:00:00:00:0a:88:cc", "ethertype 0x88cc"},

		{"--dst nowhere", `--dst "nowhere": must be an IPv4 address`},
		{"--dst fd00::1", `--dst "fd00::1": must be an IPv4 address`},
		{"--ipv6 --dst 10.0.0.1", `--dst "10.0.0.1": must be`},
		{"--dst 10.1.1.4 --src x", `--src "x"`},
		{"--dst 10.1.1.4 --mac-src 02:00", `--mac-src "02:00": must be a MAC`},
		{"--dst 10.1.1.4 --mac-dst 02:00:00:00:00:00:00:01", `--mac-dst`},
		{"--dst 10.1.1.4 --proto sctp", `--proto "sctp"`},
		{"--dst 10.1.1.4 --proto 256", `--proto "256"`},
		{"--dst 10.1.1.4 --flags X", `tcp flags "X"`},
		{"--dst 10.1.1.4 --icmp 3/", `--icmp "3/"`},
		{"--dst 10.1.1.4 --fragment -8", `--fragment "-8"`},
		{"--dst 10.1.1.4 --fragment 7", "offset must be a multiple of 8"},
		{"--dst 10.1.1.4 --ip-options=xy", `--ip-options "xy": must be hex`},
		{"--dst 10.1.1.4 --vlan 4095", "a VLAN must be within 1 and 4094"},
		{"--raw 0011", "--raw: must be a frame of 14 to 65536 bytes"},
		{"--raw xyz", "--raw: must be"},
	} {
		f, err := parseSend(t, tt.args)
		if err != nil {
			t.Errorf("%s: %v", tt.args, err)
			continue
		}
		frames, err := f.craft(leftOutlet, counting())
		if err != nil {
			if !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: %v, want %q", tt.args, err, tt.want)
			}
			continue
		}
		if got := f.describe(frames[0]); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.args, got, tt.want)
		}
	}
}

// TestCraftMarks: each frame has a mark of its own, by which it is found, also cut off.
func TestCraftMarks(t *testing.T) {
	for _, args := range []string{
		"--dst 10.1.1.4 --count 3", "--dst 10.1.1.4 --count 3 --proto tcp --size 100", "--dst 10.1.1.4 --count 3 --truncate 53 --size 50",
		"--dst 10.1.1.4 --count 3 --fragment 8", "--ipv6 --count 3", "--dst 10.1.1.4 --vlan 3 --count 3 --ip-options",
	} {
		f, err := parseSend(t, args)
		if err != nil {
			t.Fatal(err)
		}
		frames, err := f.craft(leftOutlet, counting())
		if err != nil || len(frames) != 3 {
			t.Fatalf("%s: %d frames, %v", args, len(frames), err)
		}
		marks := map[string]int{}
		for i, c := range frames {
			marks[string(c.mark)] = i
		}
		for i, c := range frames {
			p, _ := packet.Parse(c.bytes)
			if got := markOf(c.bytes, p, frames, marks); got != i {
				t.Errorf("%s: frame %d is taken for %d", args, i, got)
			}
		}
		if got := markOf(make([]byte, 60), packet.Packet{}, frames, marks); got != -1 {
			t.Errorf("%s: another's frame is taken for %d", args, got)
		}
	}
}

// event is what a watcher sees: a frame that came in, by place and device.
type event struct {
	place, device string
	frame         packet.Frame
}

// TestFates gives findings what a watcher would see.
func TestFates(t *testing.T) {
	s := twoENIs()
	s.Instances[1].Name, s.ENIs[2].Primary, s.ENIs[2].VPC = "right", adr("10.1.1.4"), "vpc-1"
	reply := func(change func(*packet.Frame)) packet.Frame {
		f := packet.Frame{Src: adr("10.1.1.4"), Dst: adr("10.0.1.4"), Protocol: packet.TCP, SrcPort: 5000, DstPort: 4000, Flags: packet.RST}
		change(&f)
		return f
	}
	arrives := func(change func(*packet.Frame)) packet.Frame {
		f := packet.Frame{
			Src: adr("10.0.1.4"), Dst: adr("10.1.1.4"), Protocol: packet.UDP, SrcPort: 4000, DstPort: 5000, TTL: 64,
			Payload: []byte{0xaa, 0, 0, 0, 0, 0, 0, 1},
		}
		change(&f)
		return f
	}
	same := func(*packet.Frame) {}
	quoted, err := arrives(func(f *packet.Frame) { f.ID = 0xaa00 }).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	says := func(kind, code uint8) packet.Frame {
		return reply(func(f *packet.Frame) {
			f.Protocol, f.ICMPType, f.ICMPCode, f.Payload = packet.ICMP, kind, code, quoted[14:]
		})
	}
	for _, tt := range []struct {
		name, args string
		events     []event
		losses     []loss
		want       []string
		pod        bool
	}{
		{"arrives", "--dst 10.1.1.4", []event{{"right", "ens5", arrives(same)}}, nil, []string{"arrived right/ens5"}, false},
		{"ttl", "--dst 10.1.1.4 --ttl 9", []event{{"right", "ens5", arrives(func(f *packet.Frame) { f.TTL = 8 })}}, nil, []string{"arrived right/ens5 ttl 8"}, false},
		{"translated", "--dst 10.1.1.4", []event{{internetName, "igw", arrives(func(f *packet.Frame) { f.Src = adr("54.1.1.1") })}}, nil,
			[]string{"arrived internet as udp 54.1.1.1:4000 > 10.1.1.4:5000"}, false},
		{"inside of an instance", "--dst 10.1.1.4", []event{{"right", "veth0", arrives(same)}}, nil, []string{"no trace"}, false},
		{"dropped", "--dst 10.1.1.4", nil, []loss{{At: "left/ens5", Reason: "NO_ROUTE", Packets: 1, eni: "eni-1", instance: "i-1"}}, []string{"dropped left/ens5 NO_ROUTE"}, false},
		{"forwarded, and lost by a kernel", "--dst 10.1.1.4", []event{{"left", "ens6", arrives(same)}}, []loss{{At: "left", Reason: "rp_filter", Packets: 1, Kernel: true}},
			[]string{"arrived left/ens6", "lost left: rp_filter"}, false},
		{"forwarded, and dropped", "--dst 10.1.1.4", []event{{"left", "ens6", arrives(same)}}, []loss{{At: "left/ens5", Reason: "NO_ROUTE", Packets: 1, eni: "eni-1", instance: "i-1"}},
			[]string{"arrived left/ens6", "dropped left/ens5 NO_ROUTE"}, false},
		{"answer dropped", "--dst 10.1.1.4 --proto tcp", []event{{"right", "ens5", arrives(func(f *packet.Frame) { f.Protocol, f.Flags = packet.TCP, packet.SYN })}},
			[]loss{{At: "right/ens5", Reason: "NACL_EGRESS", Packets: 1, eni: "eni-3", instance: "i-2"}},
			[]string{"arrived right/ens5", "answer dropped right/ens5 NACL_EGRESS"}, false},
		{"reset", "--dst 10.1.1.4 --proto tcp", []event{{"left", "ens5", reply(same)}}, nil, []string{"answered tcp R from 10.1.1.4:5000"}, false},
		{"somebody else's reset", "--dst 10.1.1.4 --proto tcp", []event{{"left", "ens5", reply(func(f *packet.Frame) { f.DstPort = 1 })}, {"right", "ens5", reply(same)}}, nil, []string{"no trace"}, false},
		{"message", "--dst 10.1.1.4", []event{{"left", "ens5", says(11, 0)}}, nil, []string{"answered icmp ttl-exceeded from 10.1.1.4"}, false},
		{"closed port", "--dst 10.1.1.4", []event{{"right", "ens5", arrives(same)}, {"left", "ens5", says(3, 3)}}, nil, []string{"arrived right/ens5"}, false},
		{"message for another", "--dst 10.1.1.4 --proto tcp", []event{{"left", "ens5", says(11, 0)}}, nil, []string{"no trace"}, false},
		{"echo", "--dst 10.1.1.4 --proto icmp", []event{{"left", "ens5", arrives(func(f *packet.Frame) {
			f.Src, f.Dst, f.Protocol = f.Dst, f.Src, packet.ICMP
		})}}, nil, []string{"answered icmp echo-reply from 10.1.1.4"}, false},
		{"from a pod to its node", "--dst 10.0.2.4", []event{{"left", "veth0", arrives(func(f *packet.Frame) { f.Dst = adr("10.0.2.4") })}}, nil, []string{"arrived left"}, true},
		{"from a pod, on its way", "--dst 10.1.1.4", []event{{"left", "veth0", arrives(same)}, {"right", "ens5", arrives(same)}}, nil, []string{"arrived right/ens5"}, true},
		{"some", "--dst 10.1.1.4 --count 3", []event{{"right", "ens5", arrives(same)}}, []loss{{At: "left/ens5", Reason: "FAULT", Packets: 1, eni: "eni-1", instance: "i-1"}},
			[]string{"1 arrived right/ens5", "1 dropped left/ens5 FAULT", "1 no trace"}, false},
		{"arp", "--arp 10.0.1.1", nil, nil, []string{"no answer"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, err := parseSend(t, tt.args)
			if err != nil {
				t.Fatal(err)
			}
			frames, err := f.craft(leftOutlet, counting())
			if err != nil {
				t.Fatal(err)
			}
			g := groundOf(t, s)
			from := spot{place: "left", eni: "eni-1", instance: s.Instances[0], pod: tt.pod}
			found := &findings{watcher: &watcher{ground: g, from: from}, frames: frames, losses: tt.losses}
			marks := map[string]int{}
			for i, c := range frames {
				marks[string(c.mark)] = i
			}
			for _, e := range tt.events {
				if e.frame.Protocol == packet.ICMP && e.frame.ICMPType == 0 {
					e.frame.SrcPort = 4000
				}
				b, err := e.frame.Bytes()
				if err != nil {
					t.Fatal(err)
				}
				p, err := packet.Parse(b)
				if err != nil {
					t.Fatal(err)
				}
				found.note(sighting{e.place, e.device, p, markOf(b, p, frames, marks)})
			}
			if d := cmp.Diff(tt.want, found.sent(f, "left/ens5").lines()); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

func TestPrintSent(t *testing.T) {
	s := sent{From: "left/ens5", Packet: "udp a > b", Count: 1, Shown: []shown{{"arrived right/ens5", 1}, {"answered icmp x", 1}}}
	want := "FROM       PACKET     FATE\nleft/ens5  udp a > b  arrived right/ens5\n                      answered icmp x\n"
	if d := cmp.Diff(want, printed(t, func(o *options) error { return o.printSent(s) })); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	out := printed(t, func(o *options) error { o.output = "json"; return o.printSent(s) })
	if !strings.Contains(out, `"from": "left/ens5"`) || strings.Contains(out, "Shown") {
		t.Errorf("json:\n%s", out)
	}
}

// FuzzCraft: whatever the flags are, there is a frame or an error of usage.
func FuzzCraft(f *testing.F) {
	f.Add("10.1.1.4", "tcp", "SA", "8/0", "0+", "0101", "02:00:00:00:00:01")
	f.Add("fd00::1", "253", "X", "3/", "-1", "zz", "02")
	f.Fuzz(func(t *testing.T, dst, proto, flags, icmp, fragment, options, mac string) {
		s := &sendFlags{
			dst: dst, proto: proto, flags: flags, icmp: icmp, fragment: fragment, options: options, macDst: mac,
			size: nonceSize, count: 1, given: map[string]bool{"dst": true},
		}
		frames, err := s.craft(leftOutlet, counting())
		if err != nil && !errors.Is(err, ErrUsage) {
			t.Fatal(err)
		}
		if err == nil && (len(frames) != 1 || s.describe(frames[0]) == "") {
			t.Fatalf("%+v", frames)
		}
		s = &sendFlags{raw: options, count: 1}
		if frames, err := s.craft(leftOutlet, counting()); err == nil && !strings.EqualFold(hex.EncodeToString(frames[0].bytes), strings.NewReplacer(" ", "", ":", "").Replace(options)) {
			t.Fatalf("%q became %x", options, frames[0].bytes)
		}
	})
}
