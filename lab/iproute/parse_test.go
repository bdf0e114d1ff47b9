package iproute

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

var compareAddrs = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

func TestParse(t *testing.T) {
	cidr, addr := netip.MustParsePrefix, netip.MustParseAddr
	const v4, v6 = unix.AF_INET, unix.AF_INET6
	for _, tt := range []struct {
		line string
		want Request
	}{
		{"rule", Request{Object: Rules, Verb: Show}},
		{"-6 ru", Request{Object: Rules, Verb: Show, Family: v6}},
		{"ru ls pref 0x10 -o json", Request{Object: Rules, Verb: Show, JSON: true, Filter: Filter{Priority: new(uint32(16))}}},
		{"rule show table main", Request{Object: Rules, Verb: Show, Filter: Filter{Table: 254}}},
		{"rule add from 10.11.4.91 to 10.11.0.0/16 lookup 11 pref 111", Request{Object: Rules, Verb: Add, Family: v4, Rule: Rule{
			Family: v4, From: cidr("10.11.4.91/32"), To: cidr("10.11.0.0/16"), Action: actTable, Table: 11, Priority: new(uint32(111)),
		}}},
		{"ru a fwmark 0x80/0x80 iif ens5", Request{Object: Rules, Verb: Add, Rule: Rule{
			Family: v4, Mark: &Mark{0x80, 0x80}, In: "ens5", Action: actTable, Table: 254,
		}}},
		{"-6 rule add not from all oif eth0 fwmark 7 blackhole protocol static", Request{Object: Rules, Verb: Add, Family: v6, Rule: Rule{
			Family: v6, Not: true, Out: "eth0", Mark: &Mark{7, 0xffffffff}, Action: actBlackhole, Protocol: 4,
		}}},
		{"rule del prio 111", Request{Object: Rules, Verb: Delete, Rule: Rule{Family: v4, Priority: new(uint32(111))}}},
		{"rule delete to fd00::/8", Request{Object: Rules, Verb: Delete, Family: v6, Rule: Rule{Family: v6, To: cidr("fd00::/8")}}},

		{"r", Request{Object: Routes, Verb: Show, Filter: Filter{Table: 254}}},
		{"route show table all dev ens5", Request{Object: Routes, Verb: Show, Filter: Filter{Device: "ens5"}}},
		{"ro ls 10.0.0.0/8 table 11", Request{Object: Routes, Verb: Show, Family: v4, Filter: Filter{Table: 11, Match: Exact, Dst: cidr("10.0.0.0/8")}}},
		{"ro sh default", Request{Object: Routes, Verb: Show, Filter: Filter{Table: 254, Match: Exact}}},
		{"ro sh match 10.1.1.1", Request{Object: Routes, Verb: Show, Family: v4, Filter: Filter{Table: 254, Match: Holds, Dst: cidr("10.1.1.1/32")}}},
		{"route add default via 10.11.0.1 dev ens6 table 11", Request{Object: Routes, Verb: Add, Family: v4, Route: Route{
			Family: v4, Type: unix.RTN_UNICAST, Protocol: unix.RTPROT_BOOT, Table: 11, Hops: []Hop{{Via: addr("10.11.0.1"), Device: "ens6"}},
		}}},
		{"route replace 10.11.0.1 dev ens6 proto kernel scope link src 10.11.4.91 metric 5 mtu lock 1400", Request{Object: Routes, Verb: Replace, Family: v4, Route: Route{
			Family: v4, Type: unix.RTN_UNICAST, Protocol: unix.RTPROT_KERNEL, Scope: unix.RT_SCOPE_LINK, Table: 254, Dst: cidr("10.11.0.1/32"),
			Hops: []Hop{{Device: "ens6"}}, Source: addr("10.11.4.91"), Metric: new(uint32(5)), Metrics: []Metric{{unix.RTAX_MTU, 1400, true}},
		}}},
		{"r a unreachable 10.99.0.0/16", Request{Object: Routes, Verb: Add, Family: v4, Route: Route{
			Family: v4, Type: unix.RTN_UNREACHABLE, Protocol: unix.RTPROT_BOOT, Table: 254, Dst: cidr("10.99.0.0/16"),
		}}},
		{"route add 10.9.0.0/16 dev lo", Request{Object: Routes, Verb: Add, Family: v4, Route: Route{ // scope link, as there is no gateway
			Family: v4, Type: unix.RTN_UNICAST, Protocol: unix.RTPROT_BOOT, Scope: unix.RT_SCOPE_LINK, Table: 254, Dst: cidr("10.9.0.0/16"), Hops: []Hop{{Device: "lo"}},
		}}},
		{"route add local 10.9.0.0/16 dev lo", Request{Object: Routes, Verb: Add, Family: v4, Route: Route{
			Family: v4, Type: unix.RTN_LOCAL, Protocol: unix.RTPROT_BOOT, Scope: unix.RT_SCOPE_HOST, Table: 255, Dst: cidr("10.9.0.0/16"), Hops: []Hop{{Device: "lo"}},
		}}},
		{"route del default", Request{Object: Routes, Verb: Delete, Route: Route{Family: v4, Scope: unix.RT_SCOPE_NOWHERE, Table: 254}}},
		{"-6 route add default via fe80::1 dev ens5 onlink", Request{Object: Routes, Verb: Add, Family: v6, Route: Route{
			Family: v6, Type: unix.RTN_UNICAST, Protocol: unix.RTPROT_BOOT, Table: 254, Flags: unix.RTNH_F_ONLINK, Hops: []Hop{{Via: addr("fe80::1"), Device: "ens5"}},
		}}},
		{"route get 10.1.1.1 from 10.2.2.2 iif ens5 mark 0x7", Request{Object: Routes, Verb: Get, Family: v4, Lookup: Lookup{
			Dst: addr("10.1.1.1"), Source: addr("10.2.2.2"), In: "ens5", Mark: 7,
		}}},

		{"a", Request{Object: Addresses, Verb: Show}},
		{"-4 addr show ens5 up -j", Request{Object: Addresses, Verb: Show, Family: v4, JSON: true, Filter: Filter{Device: "ens5", Up: true}}},
		{"addr add 10.0.1.5/24 brd + dev ens6", Request{Object: Addresses, Verb: Add, Family: v4, Address: Address{
			Family: v4, Local: addr("10.0.1.5"), Bits: 24, Broadcast: addr("10.0.1.255"), Device: "ens6",
		}}},
		{"addr add 127.0.0.2 dev lo", Request{Object: Addresses, Verb: Add, Family: v4, Address: Address{
			Family: v4, Local: addr("127.0.0.2"), Bits: 32, Device: "lo", Scope: unix.RT_SCOPE_HOST,
		}}},
		{"address del dev ens6 fd00::1/64 nodad", Request{Object: Addresses, Verb: Delete, Family: v6, Address: Address{
			Family: v6, Local: addr("fd00::1"), Bits: 64, Device: "ens6", Flags: unix.IFA_F_NODAD,
		}}},
		{"l sh dev ens5", Request{Object: Links, Verb: Show, Filter: Filter{Device: "ens5"}}},
		{"link add lxc1 mtu 1400 type veth peer name eth0 netns web", Request{Object: Links, Verb: Add, Link: LinkChange{
			Device: "lxc1", MTU: new(uint32(1400)), Peer: Peer{Device: "eth0", NetNS: "web"}}}},
		{"link add name a type veth peer b", Request{Object: Links, Verb: Add, Link: LinkChange{Device: "a", Peer: Peer{Device: "b"}}}},
		{"link del lxc1", Request{Object: Links, Verb: Delete, Link: LinkChange{Device: "lxc1"}}},
		{"link set ens6 up mtu 9001", Request{Object: Links, Verb: Set, Link: LinkChange{Device: "ens6", Up: new(true), MTU: new(uint32(9001))}}},
		{"l s dev ens6 down name x address 02:00:00:00:00:01", Request{Object: Links, Verb: Set, Link: LinkChange{
			Device: "ens6", Up: new(false), Name: "x", Address: net.HardwareAddr{2, 0, 0, 0, 0, 1},
		}}},
		{"n show 10.0.1.1 dev ens5", Request{Object: Neighbours, Verb: Show, Family: v4, Filter: Filter{Device: "ens5", Dst: cidr("10.0.1.1/32")}}},
		{"neighbor replace 10.0.1.1 lladdr 02:00:00:00:00:01 dev ens5 nud reachable", Request{Object: Neighbours, Verb: Replace, Family: v4, Neighbour: Neighbour{
			Family: v4, Addr: addr("10.0.1.1"), MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, Device: "ens5", State: unix.NUD_REACHABLE,
		}}},
	} {
		got, err := Parse(strings.Fields(tt.line))
		if err != nil {
			t.Errorf("%s: %v", tt.line, err)
			continue
		}
		if d := cmp.Diff(tt.want, got, compareAddrs); d != "" {
			t.Errorf("%s (-want +got):\n%s", tt.line, d)
		}
	}
}

// TestParseRefuses: what is wrong, where, and what is known there.
func TestParseRefuses(t *testing.T) {
	for line, want := range map[string]string{
		"":                                            "at its end: want an object: address, route, rule, link",
		"tunnel":                                      `word 1: unknown object "tunnel"; known here: address, route, rule`,
		"rule flush":                                  `word 2: unknown verb "flush"; known here: add, delete, show, list, ls`,
		"rule add":                                    "at its end: want what the rule is: not, from, to,",
		"rule add from 10.0.0.1 lokup 11":             `"ip rule add from 10.0.0.1 lokup 11": word 5: unknown word "lokup"; known here: not, from, to, iif|dev`,
		"rule add from":                               "at its end: from wants a value after it",
		"rule add from 10.0.0.300":                    `word 4: from "10.0.0.300": want a prefix such as`,
		"rule add from 10.0.0.0/33":                   "word 4: from",
		"rule add from 10.0.0.1 to fd00::1":           "word 6: fd00::1 is IPv6, and the rest of the line is about IPv4",
		"-6 rule add from 10.0.0.1":                   "word 5: 10.0.0.1 is IPv4, and the rest of the line is about IPv6",
		"rule add from ::ffff:10.0.0.1":               "word 4: from",
		"rule add from 10.0.0.1 from 10.0.0.2":        "word 5: from is said twice",
		"rule add pref 1 prio 2":                      "word 5: priority is said twice",
		"rule add p 1":                                `word 3: unknown word "p"`,
		"rule add pr 1":                               `word 3: unknown word "pr"`, // priority, preference, protocol, prohibit
		"rule add lookup 11 blackhole":                "word 5: a rule has a table or a type, not both",
		"rule add lookup 0":                           "word 4: table 0: there is no such table; want local, main, default, or a number",
		"rule add lookup isp1":                        `word 4: table "isp1": want local, main, default, or a number from 0 to 4294967295`,
		"rule add pref 4294967296":                    `word 4: priority "4294967296": want a number from 0 to 4294967295`,
		"rule add fwmark 1_0":                         `word 4: fwmark "1_0": want a number`,
		"rule add fwmark 1/x":                         `word 4: fwmark: mask "x": want a number`,
		"rule add iif eth0/1":                         `word 4: iif "eth0/1": no device can have this name`,
		"rule add iif a-name-of-16-byt":               "no device can have this name",
		"route show 10.0.0.0/8 11.0.0.0/8":            `word 4: unknown word "11.0.0.0/8"; known here: table, dev|oif`,
		"route show exact 10.0.0.0/8 root 1.0.0.0/8":  "word 5: one destination can be asked for",
		"route add via 10.0.0.1":                      "at its end: want where the route leads to",
		"route add 10.0.0.0/8":                        "at its end: want via and a gateway, or dev and a device, or both",
		"route add default wia 10.0.0.1":              `word 4: unknown word "wia"; known here: to, via, dev|oif`,
		"route add defualt via 10.0.0.1":              `word 3: unknown word "defualt"; want a destination, a type (unicast, local`,
		"route add default nexthop via 10.0.0.1":      `word 4: unknown word "nexthop"`,
		"route add 10.0.0.0/8 11.0.0.0/8 dev lo":      `word 4: unknown word "11.0.0.0/8"`,
		"route add default via fd00::1 src 10.0.0.1":  "word 7: 10.0.0.1 is IPv4, and the rest of the line is about IPv6",
		"route get 10.0.0.0/8":                        "word 3: to: want an address such as",
		"route get from 10.0.0.1":                     "at its end: want the address that a packet goes to",
		"addr add 10.0.0.1/24":                        "at its end: want dev and a device",
		"addr add dev ens5":                           "at its end: want an address",
		"addr add default dev ens5":                   "word 3: address: want one such as",
		"addr show ens5 ens6":                         `word 4: unknown word "ens6"; known here: dev, up`,
		"addr -br":                                    `word 2: unknown option "-br"; known: -4, -6, -j, -o json`,
		"addr -o xml":                                 "word 3: -o: want json after it",
		"addr -o":                                     "at its end: -o: want json after it",
		"link set up":                                 "at its end: want a device",
		"link set ens5":                               "at its end: want what to set: up, down, mtu N",
		"link add a":                                  "at its end: want type veth peer name NAME",
		"link add type veth peer b":                   "at its end: want the new device's name",
		"link add a type dummy":                       `word 5: type "dummy": only veth can be added here`,
		"link add a type veth name b":                 `word 6: unknown word "name"; known here: peer`,
		"link add a type veth peer b mtu 9":           `word 8: unknown word "mtu"; known here: name, netns`,
		"link del":                                    "at its end: want a device",
		"link set ens5 up down":                       "word 5: up or down, not both",
		"link set ens5 address 02:00":                 `word 5: address "02:00": want an address such as 02:00:00:00:00:01`,
		"neigh add 10.0.0.1 dev ens5":                 "at its end: want lladdr",
		"neigh add 10.0.0.1 lladdr 02:00:00:00:00:01": "at its end: want dev and a device",
		"neigh add lladdr 02:00:00:00:00:01 dev ens5": "at its end: want the neighbour's address",
		"neigh show nud":                              `word 3: to "nud": want an address`,
		strings.Repeat("x ", 65):                      "65 words, at most 64",
		"rule " + strings.Repeat("x", 257):            "word 2 has 257 bytes, at most 256",
	} {
		_, err := Parse(strings.Fields(line))
		var syntax *SyntaxError
		if !errors.As(err, &syntax) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: got %v, want %q", line, err, want)
		}
	}
	for _, line := range []string{"help", "rule help", "rule add help", "-h", "route get --help"} {
		if _, err := Parse(strings.Fields(line)); !errors.Is(err, ErrHelp) {
			t.Errorf("%s: got %v, want %v", line, err, ErrHelp)
		}
	}
}

// FuzzParse: whatever the words, there is a request that can be written down
// for the kernel, or a refusal that points into the line.
func FuzzParse(f *testing.F) {
	for _, line := range []string{
		"rule add not from 10.0.0.0/8 fwmark 1/2 iif lo lookup 11 pref 7", "-6 r a default via fe80::1 dev lo mtu lock 9 onlink",
		"route get 1.1.1.1 from 2.2.2.2 iif lo", "route show match default table all", "a a 10.0.0.1/8 brd + dev lo",
		"l set lo up name x", "l add a type veth peer name b netns c", "n del 10.0.0.1 dev lo", "route add table", "-o json", "rule add -4 -6 from -o json ::/0", "\x00 \xff",
	} {
		f.Add(line)
	}
	devices := names{{Index: 1, Name: "lo"}}
	f.Fuzz(func(t *testing.T, line string) {
		words := strings.Split(line, " ")
		r, err := Parse(words)
		if err != nil {
			var syntax *SyntaxError
			if errors.As(err, &syntax) && (syntax.At < 0 || syntax.At > len(words) || syntax.Text == "") {
				t.Errorf("%q: points to word %d: %q", line, syntax.At, syntax.Text)
			}
			return
		}
		if r.Verb == Show {
			return
		}
		var m message
		if r.Verb == Get {
			m, err = encodeLookup(r.Lookup, devices)
		} else {
			if r.Link.Peer.NetNS != "" {
				r.Link.Peer.In = os.Stdin
			}
			m, err = encode(r, devices)
		}
		if err != nil && !errors.Is(err, ErrNoDevice) {
			t.Errorf("%q: %v", line, err)
		}
		if err == nil && (m.kind == 0 || len(m.body)%4 != 0) {
			t.Errorf("%q: message %+v", line, m)
		}
	})
}
