package fabric

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPortSpans(t *testing.T) {
	tests := []struct {
		name     string
		protocol Protocol
		ports    Ports
		want     []span
	}{
		{"all protocols", AllProtocols, Ports{}, []span{{}}},
		{"all of tcp", TCP, Ports{0, 65535}, []span{{6 << 24, 8}}},
		{"all of tcp by -1", TCP, Ports{-1, -1}, []span{{6 << 24, 8}}},
		{"one port", UDP, Ports{53, 53}, []span{{17<<24 | 53<<8, 24}}},
		{"ephemeral", TCP, Ports{1024, 65535}, []span{
			{6<<24 | 1024<<8, 14}, {6<<24 | 2048<<8, 13}, {6<<24 | 4096<<8, 12},
			{6<<24 | 8192<<8, 11}, {6<<24 | 16384<<8, 10}, {6<<24 | 32768<<8, 9}}},
		{"80 to 82", TCP, Ports{80, 82}, []span{{6<<24 | 80<<8, 23}, {6<<24 | 82<<8, 24}}},
		{"last port", TCP, Ports{65535, 65535}, []span{{6<<24 | 65535<<8, 24}}},
		{"icmp", ICMP, Ports{-1, -1}, []span{{1 << 24, 8}}},
		{"icmp type", ICMP, Ports{8, -1}, []span{{1<<24 | 8<<16, 16}}},
		{"icmp type and code", ICMP, Ports{3, 4}, []span{{1<<24 | 3<<16 | 4<<8, 24}}},
		{"gre", 47, Ports{}, []span{{47 << 24, 8}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, portSpans(tt.protocol, tt.ports), cmp.AllowUnexported(span{})); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// lookup is what the kernel does with the tries.
func (s ruleSet) lookup(addr netip.Addr, protocol Protocol, port int) uint8 {
	class, ok := longest(s.remotes, addressSpan(netip.PrefixFrom(addr, 32)))
	if !ok {
		return 0
	}
	v, _ := longest(s.verdicts[class], span{uint32(protocol)<<24 | uint32(port)<<8, 24})
	return v
}

func longest[V any](m map[span]V, at span) (found V, ok bool) {
	best := -1
	for s, v := range m {
		if s.bits > best && s.contains(at) {
			found, ok, best = v, true, s.bits
		}
	}
	return found, ok
}

// The tries say what the rules say one by one.
func TestCompileAgainstRuleByRule(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	pick := func(n ...int) int { return n[r.IntN(len(n))] }
	address := func() netip.Addr {
		return netip.AddrFrom4([4]byte{10, byte(pick(0, 1)), byte(r.IntN(4)), byte(r.IntN(8))})
	}
	for range 300 {
		var acl, group []match
		var specs []ACLRule
		for range 1 + r.IntN(12) {
			p, _ := address().Prefix(pick(0, 8, 15, 16, 22, 24, 30, 32))
			rule := ACLRule{Allow: r.IntN(2) == 0, Protocol: Protocol(pick(-1, 1, 6, 6, 17, 47)), CIDR: p}
			rule.Ports.From = r.IntN(20)
			rule.Ports.To = rule.Ports.From + r.IntN(20)
			if rule.Protocol == ICMP {
				rule.Ports.To = pick(-1, 0, 1)
			}
			specs = append(specs, rule)
			m := match{remotes: []netip.Prefix{p}, ports: portSpans(rule.Protocol, rule.Ports)}
			if rule.Allow {
				m.verdict = verdictAllow
			}
			acl = append(acl, m)
			m.verdict = verdictAllow
			if p.Bits() == 0 {
				m.verdict |= verdictAnywhere
			}
			group = append(group, m)
		}
		first, union := compile(acl, firstVerdict), compile(group, anyVerdict)
		for range 100 {
			addr, protocol, port := address(), Protocol(pick(1, 6, 17, 47, 50)), r.IntN(45)
			if protocol == ICMP {
				port = r.IntN(20)<<8 | r.IntN(3)
			} else if protocol > UDP {
				port = 0
			}
			var wantFirst, wantUnion uint8
			for i := len(specs) - 1; i >= 0; i-- {
				if matchesOne(specs[i], addr, protocol, port) {
					wantFirst = acl[i].verdict
					wantUnion |= group[i].verdict
				}
			}
			if got := first.lookup(addr, protocol, port); got != wantFirst {
				t.Fatalf("first of %+v for %s protocol %d port %d: got %d, want %d", specs, addr, protocol, port, got, wantFirst)
			}
			if got := union.lookup(addr, protocol, port); got != wantUnion {
				t.Fatalf("union of %+v for %s protocol %d port %d: got %d, want %d", specs, addr, protocol, port, got, wantUnion)
			}
		}
	}
}

func matchesOne(r ACLRule, addr netip.Addr, protocol Protocol, port int) bool {
	switch {
	case !r.CIDR.Contains(addr) || r.Protocol != AllProtocols && r.Protocol != protocol:
		return false
	case r.Protocol == ICMP:
		return port>>8 == r.Ports.From && (r.Ports.To < 0 || port&0xff == r.Ports.To)
	case r.Protocol == TCP || r.Protocol == UDP:
		return r.Ports.From <= port && port <= r.Ports.To
	}
	return true
}
