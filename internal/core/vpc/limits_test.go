package vpc

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLimitsOf(t *testing.T) {
	nitro := func(enis, ipv4 int) Limits {
		return Limits{ENIs: enis, IPv4PerENI: ipv4, Cards: []int{enis}, Hypervisor: "nitro"}
	}
	p5 := nitro(2, 50)
	p5.Cards = slices.Repeat([]int{2}, 32)
	c6in := nitro(8, 50)
	c6in.Cards = []int{8, 8}
	m1 := nitro(2, 4)
	m1.Hypervisor = "xen"
	for _, tt := range []struct {
		name   string
		want   Limits
		prefix bool
	}{
		{"m5.large", nitro(3, 10), true},
		{"t3.small", nitro(3, 4), true},
		{"p5.48xlarge", p5, true},
		{"c6in.32xlarge", c6in, true},
		{"m1.small", m1, false},
		{"m5.metal", Limits{ENIs: 15, IPv4PerENI: 50, Cards: []int{15}, Hypervisor: "unknown", BareMetal: true}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := LimitsOf(tt.name)
			if !ok {
				t.Fatal("unknown")
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("limits (-want +got):\n%s", diff)
			}
			if got.PrefixCapable() != tt.prefix {
				t.Errorf("prefix capable: %v, want %v", got.PrefixCapable(), tt.prefix)
			}
			got.Cards[0] = 99
			if again, _ := LimitsOf(tt.name); again.Cards[0] == 99 {
				t.Error("the caller's change reached the table")
			}
		})
	}
	for _, name := range []string{"", "m5", "m5.tiny", "#"} {
		if l, ok := LimitsOf(name); ok {
			t.Errorf("type %q is known: %+v", name, l)
		}
	}
}

// The sums are those of the source table, taken apart from the generator, so
// that a table cut short or misread cannot pass.
func TestTableIsWhole(t *testing.T) {
	types := InstanceTypes()
	if len(types) != 1391 {
		t.Errorf("%d types, want 1391", len(types))
	}
	if !slices.IsSorted(types) {
		t.Error("types are not sorted")
	}
	var cards, enis, slots, metal int
	for _, name := range types {
		l, _ := LimitsOf(name)
		if l.ENIs < 1 || l.IPv4PerENI < 1 || l.Cards[l.DefaultCard] != l.ENIs {
			t.Errorf("%s: implausible %+v", name, l)
		}
		cards += len(l.Cards)
		for _, n := range l.Cards {
			enis += n
		}
		slots += l.IPv4PerENI
		if l.BareMetal {
			metal++
		}
	}
	got := map[string]int{"cards": cards, "enis": enis, "slots": slots, "metal": metal}
	want := map[string]int{"cards": 1597, "enis": 14200, "slots": 48713, "metal": 160}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("sums (-want +got):\n%s", diff)
	}
	if len(limitsText) > 30<<10 {
		t.Errorf("limits.txt is %d bytes, want at most 30 KiB", len(limitsText))
	}
}

func TestParseLimitsRejects(t *testing.T) {
	for name, text := range map[string]string{
		"short line":      "3 10 0 3 nitro virtual\n",
		"no number":       "x 10 0 3 nitro virtual m5.large\n",
		"negative":        "-3 10 0 3 nitro virtual m5.large\n",
		"bad card":        "3 10 0 a nitro virtual m5.large\n",
		"bad repeat":      "3 10 0 0*3 nitro virtual m5.large\n",
		"huge repeat":     "3 10 0 99999999*3 nitro virtual m5.large\n",
		"no default card": "3 10 1 3 nitro virtual m5.large\n",
		"card disagrees":  "3 10 0 4 nitro virtual m5.large\n",
		"twice":           "3 10 0 3 nitro virtual m5.large m5.large\n",
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := parseLimits("# comment\n" + text); err == nil || !strings.HasPrefix(err.Error(), "line 2: ") {
				t.Errorf("error %v, want one naming line 2", err)
			}
		})
	}
}
