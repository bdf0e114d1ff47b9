package fabric

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"
)

// Bits of a verdict: VERDICT_ALLOW and VERDICT_ANYWHERE in bpf/match.h.
const (
	verdictAllow    = 1
	verdictAnywhere = 2
)

// match is one rule as the tries take it: what it says of the protocol and ports
// (one span, or several that make up a range) from and to the remotes.
type match struct {
	remotes []netip.Prefix
	ports   []span
	verdict uint8
}

// span is a prefix of up to 32 bits: of an address, or of a protocol (8 bits)
// followed by a port (16 bits). The bits behind the prefix are zero.
type span struct {
	value uint32
	bits  int
}

func (s span) contains(o span) bool {
	return s.bits <= o.bits && (s.value^o.value)>>(32-s.bits) == 0
}

func addressSpan(p netip.Prefix) span {
	b := p.Addr().As4()
	return span{binary.BigEndian.Uint32(b[:]), p.Bits()}
}

// portSpans is what a rule's protocol and ports match, in as few spans as can be.
func portSpans(protocol Protocol, ports Ports) []span {
	of := func(port, bits int) span { return span{uint32(protocol)<<24 | uint32(port)<<8, 8 + bits} }
	switch {
	case protocol == AllProtocols:
		return []span{{}}
	case protocol == ICMP && ports.From < 0:
		return []span{of(0, 0)}
	case protocol == ICMP && ports.To < 0:
		return []span{of(ports.From<<8, 8)}
	case protocol == ICMP:
		return []span{of(ports.From<<8|ports.To, 16)}
	case protocol != TCP && protocol != UDP, allPorts(ports):
		return []span{of(0, 0)}
	}
	var spans []span
	for from := ports.From; from <= ports.To; {
		// The largest aligned block that begins here and does not end behind the range.
		bits := 16
		for bits > 0 && from&(1<<(17-bits)-1) == 0 && from+1<<(17-bits)-1 <= ports.To {
			bits--
		}
		spans = append(spans, of(from, bits))
		from += 1 << (16 - bits)
	}
	return spans
}

// allPorts takes EC2's two ways to say it: 0-65535, and -1 for both.
func allPorts(p Ports) bool { return p == Ports{0, 65535} || p == Ports{-1, -1} }

// ruleSet is a direction of an ENI's groups, or of an ACL, for the BPF maps.
// The id, a hash of the contents, is in every key; keys are therefore written
// once and never changed.
type ruleSet struct {
	id       uint64
	remotes  map[span]uint64 // to the class of rules
	verdicts map[uint64]map[span]uint8
}

// compile makes the two tries of rules in their order. fold says what the rules
// that match together mean: their verdicts in the order of the rules, one at least.
//
// Every prefix's entry has taken in those of the shorter prefixes around it, so
// that the longest match is the whole answer.
func compile(rules []match, fold func([]uint8) uint8) ruleSet {
	set := ruleSet{remotes: map[span]uint64{}, verdicts: map[uint64]map[span]uint8{}}
	var remotes []labelled
	for i, r := range rules {
		for _, p := range r.remotes {
			remotes = append(remotes, labelled{addressSpan(p), i})
		}
	}
	classes := map[string]uint64{} // by the rules' numbers
	for at, matching := range cover(remotes) {
		name := make([]byte, 0, 4*len(matching))
		for _, i := range matching {
			name = binary.BigEndian.AppendUint32(name, uint32(i))
		}
		id, ok := classes[string(name)]
		if !ok {
			verdicts := portVerdicts(rules, matching, fold)
			id = hashSpans(verdicts)
			classes[string(name)], set.verdicts[id] = id, verdicts
		}
		set.remotes[at] = id
	}
	set.id = hashSpans(set.remotes)
	return set
}

func portVerdicts(rules []match, numbers []int, fold func([]uint8) uint8) map[span]uint8 {
	var ports []labelled
	for _, i := range numbers {
		for _, s := range rules[i].ports {
			ports = append(ports, labelled{s, i})
		}
	}
	verdicts := map[span]uint8{}
	for at, matching := range cover(ports) {
		said := make([]uint8, len(matching))
		for k, i := range matching {
			said[k] = rules[i].verdict
		}
		verdicts[at] = fold(said)
	}
	return verdicts
}

// labelled is a span and the number of the rule that has it.
type labelled struct {
	span
	rule int
}

// cover gives for each span the rules whose spans contain it, in order.
func cover(items []labelled) map[span][]int {
	slices.SortFunc(items, func(a, b labelled) int {
		return cmp.Or(cmp.Compare(a.value, b.value), cmp.Compare(a.bits, b.bits), cmp.Compare(a.rule, b.rule))
	})
	type open struct {
		span
		rules []int
	}
	covered := map[span][]int{}
	var around []open // each contains the next
	for i := 0; i < len(items); {
		at := items[i].span
		for len(around) > 0 && !around[len(around)-1].contains(at) {
			around = around[:len(around)-1]
		}
		var rules []int
		if len(around) > 0 {
			rules = slices.Clone(around[len(around)-1].rules)
		}
		for ; i < len(items) && items[i].span == at; i++ {
			rules = append(rules, items[i].rule)
		}
		slices.Sort(rules)
		rules = slices.Compact(rules)
		covered[at] = rules
		around = append(around, open{at, rules})
	}
	return covered
}

// hashSpans names contents. 64 bits: two of some thousand sets are the same by
// chance once in 10^12 worlds.
func hashSpans[V uint8 | uint64](m map[span]V) uint64 {
	keys := slices.SortedFunc(maps.Keys(m), func(a, b span) int {
		return cmp.Or(cmp.Compare(a.value, b.value), cmp.Compare(a.bits, b.bits))
	})
	b := make([]byte, 0, 13*len(keys))
	for _, k := range keys {
		b = binary.BigEndian.AppendUint32(b, k.value)
		b = append(b, byte(k.bits))
		b = binary.BigEndian.AppendUint64(b, uint64(m[k]))
	}
	sum := sha256.Sum256(b)
	return binary.BigEndian.Uint64(sum[:])
}

// addTo writes the set as map entries.
func (s ruleSet) addTo(remotes map[bpfRemoteKey]uint64, verdicts map[bpfPortKey]uint8) {
	halves := func(id uint64) [2]uint32 { return [2]uint32{uint32(id), uint32(id >> 32)} }
	for at, class := range s.remotes {
		var addr [4]byte
		binary.BigEndian.PutUint32(addr[:], at.value)
		key := bpfRemoteKey{Prefixlen: uint32(64 + at.bits), Set: halves(s.id), Addr: beUint32(netip.AddrFrom4(addr))}
		remotes[key] = class
	}
	for class, ports := range s.verdicts {
		for at, v := range ports {
			verdicts[bpfPortKey{
				Prefixlen: uint32(64 + at.bits),
				Rules:     halves(class),
				Protocol:  uint8(at.value >> 24),
				Port:      [2]uint8{uint8(at.value >> 16), uint8(at.value >> 8)},
			}] = v
		}
	}
}
