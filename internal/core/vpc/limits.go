package vpc

import (
	_ "embed"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Limits are what an instance type allows of network interfaces. Source: EC2
// DescribeInstanceTypes, field networkInfo ("Maximum IP addresses per network
// interface", Amazon EC2 User Guide).
type Limits struct {
	ENIs        int    // interfaces on the default card, the primary included
	IPv4PerENI  int    // address slots of an ENI: its primary, secondaries and /28 prefixes together
	DefaultCard int    // the card of the primary ENI
	Cards       []int  // interfaces allowed, by card index
	Hypervisor  string // "nitro", "xen", or "unknown" where EC2 names none, as for bare metal
	BareMetal   bool
}

// PrefixCapable reports whether ENIs of the type can hold /28 prefixes: the
// Nitro instances, all bare metal ones among them. Source: "Assign prefixes to
// network interfaces", Amazon EC2 User Guide.
func (l Limits) PrefixCapable() bool { return l.Hypervisor == "nitro" || l.BareMetal }

// LimitsOf looks up an instance type such as "m5.large". The result is the
// caller's own.
func LimitsOf(instanceType string) (Limits, bool) {
	l, ok := limitsTable()[instanceType]
	l.Cards = slices.Clone(l.Cards)
	return l, ok
}

// InstanceTypes lists every known type, sorted.
func InstanceTypes() []string { return slices.Sorted(maps.Keys(limitsTable())) }

//go:embed limits.txt
var limitsText string

// limitsTable parses the embedded text once. The text is ours, checked by the
// tests, so a bad line is a defect of the build.
var limitsTable = sync.OnceValue(func() map[string]Limits {
	table, err := parseLimits(limitsText)
	if err != nil {
		panic("limits.txt: " + err.Error())
	}
	return table
})

// parseLimits reads the form that limits.txt describes in its first lines.
func parseLimits(text string) (map[string]Limits, error) {
	const fields = 6 // before the types
	table := map[string]Limits{}
	number := 0
	for line := range strings.Lines(text) {
		number++
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Fields(line)
		if len(f) <= fields {
			return nil, fmt.Errorf("line %d: %d fields, want more than %d", number, len(f), fields)
		}
		l, err := parseLine(f[:fields])
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		for _, name := range f[fields:] {
			if _, twice := table[name]; twice {
				return nil, fmt.Errorf("line %d: type %s twice", number, name)
			}
			table[name] = l
		}
	}
	return table, nil
}

func parseLine(f []string) (Limits, error) {
	var counts [3]int
	for i := range counts {
		n, err := strconv.Atoi(f[i])
		if err != nil || n < 0 {
			return Limits{}, fmt.Errorf("parse count %q", f[i])
		}
		counts[i] = n
	}
	cards, err := parseCards(f[3])
	if err != nil {
		return Limits{}, err
	}
	l := Limits{
		ENIs: counts[0], IPv4PerENI: counts[1], DefaultCard: counts[2],
		Cards: cards, Hypervisor: f[4], BareMetal: f[5] == "metal",
	}
	if l.DefaultCard >= len(l.Cards) || l.Cards[l.DefaultCard] != l.ENIs {
		return Limits{}, fmt.Errorf("default card %d does not hold %d interfaces", l.DefaultCard, l.ENIs)
	}
	return l, nil
}

// parseCards reads "4,2*8" as 4, 8, 8.
func parseCards(s string) ([]int, error) {
	const most = 64 // cards; the largest type has 32
	var cards []int
	for item := range strings.SplitSeq(s, ",") {
		times, each, repeated := strings.Cut(item, "*")
		if !repeated {
			times, each = "1", item
		}
		n, err := strconv.Atoi(times)
		if err != nil || n < 1 || len(cards)+n > most {
			return nil, fmt.Errorf("parse cards %q: bad repeat %q", s, times)
		}
		ifaces, err := strconv.Atoi(each)
		if err != nil || ifaces < 0 {
			return nil, fmt.Errorf("parse cards %q: bad count %q", s, each)
		}
		cards = append(cards, slices.Repeat([]int{ifaces}, n)...)
	}
	return cards, nil
}
