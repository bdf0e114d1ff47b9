package path

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestPartIsUnknownUnlessSaid(t *testing.T) {
	type holder struct {
		List Part[[]string]          `json:"list,omitzero"`
		Map  Part[map[string]string] `json:"map,omitzero"`
		On   Part[bool]              `json:"on,omitzero"`
	}
	tests := []struct {
		text, want string
		known      [3]bool
	}{
		{`{}`, `{}`, [3]bool{}},
		{`{"list":null}`, `{}`, [3]bool{}},
		{`{"list":{"unknown":"no right"},"map":{"unknown":""}}`, `{"list":{"unknown":"no right"}}`, [3]bool{}},
		{`{"list":[],"map":{},"on":false}`, `{"list":[],"map":{},"on":false}`, [3]bool{true, true, true}},
		{`{"list":["a"],"map":{"a":"b"},"on":true}`, `{"list":["a"],"map":{"a":"b"},"on":true}`, [3]bool{true, true, true}},
	}
	for _, tt := range tests {
		var h holder
		if err := json.Unmarshal([]byte(tt.text), &h); err != nil {
			t.Errorf("%s: %v", tt.text, err)
			continue
		}
		if got := [3]bool{h.List.Known, h.Map.Known, h.On.Known}; got != tt.known {
			t.Errorf("%s: known %v, want %v", tt.text, got, tt.known)
		}
		if b, err := json.Marshal(h); err != nil || string(b) != tt.want {
			t.Errorf("%s: written as %s (%v), want %s", tt.text, b, err, tt.want)
		}
	}
	empty, err := json.Marshal(holder{List: Known[[]string](nil), Map: Known[map[string]string](nil)})
	if err != nil || string(empty) != `{"list":[],"map":{}}` {
		t.Errorf("known and empty: %s (%v)", empty, err)
	}
}

func TestParseWorldRefuses(t *testing.T) {
	tests := []struct{ text, want string }{
		{`{`, "unexpected EOF"},
		{`{"form":2}`, "form 2, want 1"},
		{`{"form":1,"vpc":[]}`, `unknown field "vpc"`},
		{`{"form":1,"vpcs":[{"id":"v","cidrs":["10.0.0.0/8"]},{"id":"v"}]}`, `vpc  "v": without a name, or there twice`},
		{`{"form":1,"vpcs":[{"id":"v","cidr":["10.0.0.0/8"]}]}`, `unknown field "cidr"`},
		{`{"form":1,"vpcs":[{"id":"v","enis":[{"id":"eni-1","addresses":["::1"]}]}]}`, "eni eni-1: no IPv4 address, or another kind"},
		{`{"form":1,"nodes":[{"name":"n","host":{"rules":["0 lookup local"]}}]}`, `parse ip rule "0 lookup local": want PRIORITY and`},
		{`{"form":1,"nodes":[{"name":"n","host":{"routes":["10.0.0.0/99 dev a"]}}]}`, "parse ip route"},
		{`{"form":1,"nodes":[{"name":"n","host":{"nftables":["table inet a {"]}}]}`, "table a does not end"},
		{`{"form":1,"nodes":[{"name":"n","host":{"iptables":["*nat","-A X -j ACCEPT"]}}]}`, "chain X is not declared"},
	}
	for _, tt := range tests {
		_, err := ParseWorld([]byte(tt.text))
		if !errors.Is(err, ErrForm) || !strings.Contains(strings.Join(strings.Fields(err.Error()), " "), strings.Join(strings.Fields(tt.want), " ")) {
			t.Errorf("%s:\n got %v\nwant ErrForm with %q", tt.text, err, tt.want)
		}
	}
}

type line interface {
	UnmarshalText([]byte) error
	MarshalText() ([]byte, error)
}

// TestLines: what a kernel or EC2 says is kept as it was said.
func TestLines(t *testing.T) {
	for _, l := range []struct {
		into  func() line
		lines []string
	}{
		{func() line { return new(IPRule) }, []string{
			"0: from all lookup local",
			"111: from 10.11.4.91 to 10.11.0.0/16 lookup 11 proto kernel",
			"105: from all fwmark 0x1000080/0x7f000080 lookup 2001 proto 87",
			"9: from all fwmark 0x200/0xf00 lookup 2004",
			"10: from all iif vlan.eth.1 lookup 101",
			"5: not from 10.0.0.0/8 fwmark 0x1 unreachable",
			"7: from all lookup main suppress_prefixlength 0",
			"8: from all lookup 7 ipproto tcp dport 53",
		}},
		{func() line { return new(IPRoute) }, []string{
			"default via 10.11.4.1 dev eth0",
			"10.11.4.91 dev lxc1 scope link",
			"local 10.11.4.4 dev eth0 table local proto kernel scope host src 10.11.4.4",
			"10.0.0.0/16 via 10.0.1.1 dev ens6 table 1002 proto 87 onlink",
			"unreachable 10.0.1.16 table 100 proto 87 metric 4096",
			"throw 10.0.0.0/8 table 5",
			"10.1.0.0/16 dev eth0 mtu 1500 dead",
			"default nexthop via 10.0.0.1 dev eth0 weight 1",
		}},
		{func() line { return new(GroupRule) }, []string{
			"all from 0.0.0.0/0", "tcp 80 from 10.12.0.0/16", "udp 1024-1535 to 0.0.0.0/0", "icmp 8/0 from sg-0a", "icmp 3 from pl-1", "50 from 10.0.0.0/8",
		}},
		{func() line { return new(ACLRule) }, []string{"100 allow all from 0.0.0.0/0", "110 deny tcp 1024-65535 to 10.0.0.0/8"}},
		{func() line { return new(VPCRoute) }, []string{"10.12.0.0/16 pcx-03", "pl-1 tgw-1", "0.0.0.0/0 eni-1 blackhole", "10.0.0.0/16 local"}},
	} {
		for _, text := range l.lines {
			v := l.into()
			if err := v.UnmarshalText([]byte(text)); err != nil {
				t.Errorf("%T: %v", v, err)
				continue
			}
			got, _ := v.MarshalText()
			if string(got) != text {
				t.Errorf("%T:\n got %s\nwant %s", v, got, text)
			}
		}
	}
}

func TestLinesRefuse(t *testing.T) {
	for _, tt := range []struct {
		into line
		text string
	}{
		{new(IPRule), "5: from 10.0.0.0/8"},
		{new(IPRule), "x: from all lookup main"},
		{new(IPRule), "5: from fd00::/8 lookup main"},
		{new(IPRule), "5: from all lookup nowhere"},
		{new(IPRoute), ""},
		{new(IPRoute), "unreachable"},
		{new(IPRoute), "default via nobody"},
		{new(GroupRule), "tcp 80"},
		{new(GroupRule), "tcp 80-70 from 10.0.0.0/8"},
		{new(GroupRule), "tcp 80 from 10.0.0.0"},
		{new(ACLRule), "allow all from 0.0.0.0/0"},
		{new(ACLRule), "100 allow all from sg-1"},
		{new(VPCRoute), "10.0.0.0/16"},
	} {
		if err := tt.into.UnmarshalText([]byte(tt.text)); err == nil {
			t.Errorf("%T %q: no error", tt.into, tt.text)
		}
	}
}

// TestNftStatements: each rule is understood whole, or says what of it is not.
func TestNftStatements(t *testing.T) {
	tests := []struct{ rule, other string }{
		{`iifgroup 6715257 goto from-pod`, ""},
		{`iifname . ip saddr vmap @pods`, ""},
		{`ct mark & 0x7f000080 vmap @flows`, ""},
		{`meta mark set meta mark & 0x81ffff7f | 0x01000000`, ""},
		{`ct direction original ct mark & 0x7f000080 == 0x00000000 ct mark set ct mark & 0x81ffffff | 0x01000080`, ""},
		{`oifname "ens5" ip daddr @native ct direction original ct mark & 0x7f000080 == 0x00000000 ct mark set ct mark & 0x81ffffff | 0x01000080 return`, ""},
		{`oifname "ens5" ct mark & 0x7f000080 == 0x00000080 snat ip to 10.0.1.4 fully-random`, ""},
		{`meta nfproto != ipv4 counter name "not-ipv4" drop`, ""},
		{`fib daddr type local return`, ""},
		{`iifname "eni*" jump snat-mark`, ""},
		{`ip daddr . meta l4proto . th dport vmap @service-ips`, ""},
		{`numgen random mod 2 vmap { 0 : goto endpoint-a, 1 : goto endpoint-b }`, ""},
		{`meta l4proto tcp dnat to 10.0.1.15:8080`, ""},
		{`ct state { established, related } accept`, ""},
		{`ct state established, related counter packets 3 bytes 180 accept comment "known"`, ""},
		{`ip saddr 10.0.0.0/8 masquerade fully-random`, ""},
		{`limit rate 5/second accept`, "limit rate 5/second accept"},
		{`ip daddr 10.0.0.1 queue to 3`, "queue to 3"},
		{`tcp dport 80 meta mark set jhash ip saddr mod 2`, "meta mark set jhash ip saddr mod 2"},
	}
	for _, tt := range tests {
		r, other := parseNftRule(nftWords(tt.rule)), ""
		for _, s := range r.stmts {
			if s.op == nftOther {
				other = s.text
			}
		}
		if other != tt.other {
			t.Errorf("%s:\nnot modelled: %q, want %q", tt.rule, other, tt.other)
		}
		if r.text != tt.rule {
			t.Errorf("quoted as %s, want %s", r.text, tt.rule)
		}
	}
}

func TestIptablesRules(t *testing.T) {
	tests := []struct{ rule, other string }{
		{`-A C -s 10.12.0.0/16 ! -d 10.12.0.0/16 -o eth+ -m comment --comment "two words" -j MASQUERADE`, ""},
		{`-A C ! -o vlan+ -m addrtype ! --dst-type LOCAL -j SNAT --to-source 10.0.1.4 --random-fully`, ""},
		{`-A C -i eth0 -m addrtype --dst-type LOCAL --limit-iface-in -j CONNMARK --set-xmark 0x80/0x80`, ""},
		{`-A C -m statistic --mode random --probability 0.50000000000 -j C`, ""},
		{`-A C -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.0.1.15:8080`, ""},
		{`-A C -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT`, ""},
		{`-A C -m set --match-set nodes dst -j RETURN`, "-m set"},
		{`-A C -j TPROXY --on-port 1`, "target TPROXY"},
		{`-A C -m bpf --bytecode x -j ACCEPT`, "-m bpf"},
	}
	for _, tt := range tests {
		got, err := ParseIptables([]string{"*nat", ":C - [0:0]", tt.rule, "COMMIT"})
		if err != nil {
			t.Errorf("%s: %v", tt.rule, err)
			continue
		}
		if r := got.tables[0].chains["C"].rules[0]; !strings.HasPrefix(r.other, tt.other) || tt.other == "" && r.other != "" {
			t.Errorf("%s: not modelled: %q, want %q", tt.rule, r.other, tt.other)
		}
	}
}

func TestEvalMark(t *testing.T) {
	tests := []struct {
		expr string
		want uint32
		ok   bool
	}{
		{"0x80", 0x80, true},
		{"meta mark & 0x81ffff7f | 0x01000000", 0x01004000, true},
		{"ct mark | 0x80", 0x2080, true},
		{"meta mark ^ 0x4000", 0, true},
		{"meta mark or 0x1", 0x4001, true},
		{"ct mark & 0x80", 0, true},
		{"meta", 0, false},
		{"jhash ip saddr", 0, false},
	}
	for _, tt := range tests {
		if got, ok := evalMark(strings.Fields(tt.expr), 0x4000, 0x2000); got != tt.want || ok != tt.ok {
			t.Errorf("%s: %#x %v, want %#x %v", tt.expr, got, ok, tt.want, tt.ok)
		}
	}
}

// FuzzParseWorld: no bytes make it panic, and what it reads is read again as the
// same.
func FuzzParseWorld(f *testing.F) {
	f.Add([]byte(`{"form":1,"name":"x","vpcs":[{"id":"v","name":"a","region":"r","cidrs":["10.0.0.0/16"],"routeTables":[{"id":"rtb-1","main":true,"routes":["10.0.0.0/16 local"]}]}],"nodes":[]}`))
	f.Add([]byte(`{"form":1,"name":"x","nodes":[{"name":"n","cluster":"a","host":{"rules":["5: from all fwmark 0x1/0xf lookup 7"],"routes":["default dev a"],"nftables":["table ip a {","chain c {","ip saddr 10.0.0.0/8 drop","}","}"],"iptables":["*nat",":A - [0:0]","-A A -s 10.0.0.0/8 -j DROP"]}}]}`))
	f.Add([]byte(`{"form":1,"nodes":[{"name":"n","cluster":"","host":{"nftables":["table inet a {","set s {","elements = { 1-2, 3/4, \"a\" . 5 : goto x }","}","}"],"devices":{"unknown":"why"}}}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		w, err := ParseWorld(b)
		if err != nil {
			return
		}
		first, err := w.JSON()
		if err != nil {
			t.Fatalf("write what was read: %v", err)
		}
		again, err := ParseWorld(first)
		if err != nil {
			t.Fatalf("read what was written: %v\n%s", err, first)
		}
		second, err := again.JSON()
		if err != nil || string(first) != string(second) {
			t.Fatalf("not the same again (%v):\n%s\n%s", err, first, second)
		}
	})
}
