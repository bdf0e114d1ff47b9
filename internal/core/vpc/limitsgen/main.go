// Limitsgen makes the instance type table that package vpc embeds. It reads
// the limits as CSV on stdin, one row per type and network card, and writes
// limits.txt on stdout:
//
//	go run ./internal/core/vpc/limitsgen <instance_limits.csv >internal/core/vpc/limits.txt
//
// The CSV has the columns named in [columns], in any order; its source is the
// EC2 action DescribeInstanceTypes, field networkInfo. The output groups the
// types that share all limits on one line, and is the same for the same rows
// in any order. It keeps no state and runs on one goroutine.
package main

import (
	"bufio"
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
)

// columns are the CSV's columns that the table is made from.
var columns = []string{
	"instance_type", "eni_limit_default_card", "ipv4_per_eni", "default_network_card_index",
	"network_card_count", "network_card_index", "network_card_max_interfaces", "hypervisor", "bare_metal",
}

const header = `# Network limits of EC2 instance types. Made by limitsgen; do not edit.
# <ENIs on the default card> <IPv4 per ENI> <default card> <ENIs of card 0,1,..; N*M = N cards of M> <hypervisor> <metal|virtual> <type>...
`

// typeLimits is one instance type as its rows say; all but cards must agree in
// every row of the type.
type typeLimits struct {
	enis, ipv4, defaultCard, cardCount int
	hypervisor                         string
	bareMetal                          bool
	cards                              map[int]int // index -> ENIs
}

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "limitsgen:", err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer) error {
	types, err := read(in)
	if err != nil {
		return err
	}
	groups := map[string][]string{} // limits as text -> types
	for name, t := range types {
		key, err := t.text()
		if err != nil {
			return fmt.Errorf("instance type %s: %w", name, err)
		}
		groups[key] = append(groups[key], name)
	}
	w := bufio.NewWriter(out)
	w.WriteString(header)
	keys := slices.SortedFunc(maps.Keys(groups), func(a, b string) int {
		return cmp.Or(cmp.Compare(len(groups[b]), len(groups[a])), cmp.Compare(a, b))
	})
	for _, key := range keys {
		slices.Sort(groups[key])
		fmt.Fprintln(w, key, strings.Join(groups[key], " "))
	}
	return w.Flush()
}

func read(in io.Reader) (map[string]*typeLimits, error) {
	r := csv.NewReader(in)
	head, err := r.Read()
	if err != nil {
		return nil, fmt.Errorf("read header: %w", err)
	}
	col := map[string]int{}
	for i, name := range head {
		col[name] = i
	}
	for _, name := range columns {
		if _, ok := col[name]; !ok {
			return nil, fmt.Errorf("read header: no column %q", name)
		}
	}
	types := map[string]*typeLimits{}
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			return types, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read row: %w", err)
		}
		line, _ := r.FieldPos(0)
		if err := addRow(types, func(name string) string { return row[col[name]] }); err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
	}
}

func addRow(types map[string]*typeLimits, field func(string) string) error {
	var bad error
	number := func(name string) int {
		n, err := strconv.Atoi(field(name))
		if err != nil || n < 0 {
			bad = errors.Join(bad, fmt.Errorf("column %s: %q is not a count", name, field(name)))
		}
		return n
	}
	t := typeLimits{
		enis: number("eni_limit_default_card"), ipv4: number("ipv4_per_eni"),
		defaultCard: number("default_network_card_index"), cardCount: number("network_card_count"),
		hypervisor: field("hypervisor"), bareMetal: field("bare_metal") == "true",
	}
	index, most := number("network_card_index"), number("network_card_max_interfaces")
	name := field("instance_type")
	if name == "" || strings.ContainsAny(name, " \t\n#") {
		bad = errors.Join(bad, fmt.Errorf("column instance_type: %q is not a name", name))
	}
	if bad != nil {
		return bad
	}
	old, ok := types[name]
	if !ok {
		t.cards = map[int]int{}
		types[name] = &t
		old = &t
	}
	if old.enis != t.enis || old.ipv4 != t.ipv4 || old.defaultCard != t.defaultCard ||
		old.cardCount != t.cardCount || old.hypervisor != t.hypervisor || old.bareMetal != t.bareMetal {
		return fmt.Errorf("instance type %s: rows differ in more than the card", name)
	}
	if _, twice := old.cards[index]; twice {
		return fmt.Errorf("instance type %s: card %d twice", name, index)
	}
	old.cards[index] = most
	return nil
}

// text gives the limits as a line of the table, without the types.
func (t *typeLimits) text() (string, error) {
	if len(t.cards) != t.cardCount {
		return "", fmt.Errorf("%d cards listed, %d said", len(t.cards), t.cardCount)
	}
	var runs []string
	for i := 0; i < t.cardCount; {
		most, ok := t.cards[i]
		if !ok {
			return "", fmt.Errorf("card %d is missing", i)
		}
		from := i
		for next, ok := t.cards[i]; ok && next == most; next, ok = t.cards[i] {
			i++
		}
		if n := i - from; n > 1 {
			runs = append(runs, fmt.Sprintf("%d*%d", n, most))
		} else {
			runs = append(runs, strconv.Itoa(most))
		}
	}
	if t.cards[t.defaultCard] != t.enis {
		return "", fmt.Errorf("default card %d holds %d ENIs, %d said", t.defaultCard, t.cards[t.defaultCard], t.enis)
	}
	kind := "virtual"
	if t.bareMetal {
		kind = "metal"
	}
	return fmt.Sprintf("%d %d %d %s %s %s", t.enis, t.ipv4, t.defaultCard, strings.Join(runs, ","), t.hypervisor, kind), nil
}
