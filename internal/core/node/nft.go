package node

import (
	"fmt"
	"strings"
)

// What our nftables table holds. All of it is text in nft's own words: what a
// person reads with `nft list table inet fairway` is what is compared. Marks
// are written in hexadecimal with eight digits.

// Set is a set, map or counter of our table.
type Set struct {
	Name string
	Type string // one of those below
}

// The types of set that there are.
const (
	TypeCounter   = "counter"
	TypePods      = "ifname . ipv4_addr : verdict"
	TypeInterface = "ifname : verdict"
	TypeMark      = "mark : verdict"
	TypePrefixes  = "ipv4_addr; flags interval"
)

func (s Set) Key() string { return "set " + s.Name }
func (s Set) String() string {
	kind, of := "set", s.Type
	switch {
	case s.Type == TypeCounter:
		return "counter " + s.Name
	case strings.HasSuffix(s.Type, ": verdict"):
		kind = "map"
	}
	return fmt.Sprintf("%s %s { type %s }", kind, s.Name, of)
}
func (s Set) Rank() Rank { return RankSet }

// Chain is one chain, whole: a change of any of its rules replaces them all.
type Chain struct {
	Name string
	// Hook is what a base chain is, such as
	// "type filter hook prerouting priority -150"; empty: it is jumped to.
	Hook  string
	Rules string // one to a line, in order
}

func (c Chain) Key() string { return "chain " + c.Name }
func (c Chain) String() string {
	lines := c.Rules
	if c.Hook != "" {
		lines = strings.TrimSuffix(c.Hook+"\n"+lines, "\n")
	}
	return fmt.Sprintf("chain %s { %s }", c.Name, strings.ReplaceAll(lines, "\n", "; "))
}
func (c Chain) Rank() Rank { return RankChain }

// Lines is the chain as a person reads it, one rule to a line.
func (c Chain) Lines() []string {
	lines := []string{"chain " + c.Name + " {"}
	if c.Hook != "" {
		lines = append(lines, "\t"+c.Hook)
	}
	for r := range strings.SplitSeq(c.Rules, "\n") {
		if r != "" {
			lines = append(lines, "\t"+r)
		}
	}
	return append(lines, "}")
}

// Element is one entry of a set or map.
type Element struct {
	Set     string
	Match   string // the key, such as `"fwy3d5fd971779" . 10.0.1.15`
	Verdict string // what a map's entry does, such as "goto eni-1"; empty in a set
}

func (e Element) Key() string { return "element " + e.Set + " " + e.Match }
func (e Element) String() string {
	if e.Verdict == "" {
		return fmt.Sprintf("element %s { %s }", e.Set, e.Match)
	}
	return fmt.Sprintf("element %s { %s : %s }", e.Set, e.Match, e.Verdict)
}
func (e Element) Rank() Rank { return RankElement }

// Mark writes a mark or a mask as it is written everywhere in our table.
func Mark(v uint32) string { return fmt.Sprintf("0x%08x", v) }
