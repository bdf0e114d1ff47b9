package path

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Iptables is a kernel's iptables as `iptables-save` prints it: kept as text,
// and as what the text means.
type Iptables struct {
	text   []string
	tables []iptTable
}

type iptTable struct {
	name   string // raw, mangle, nat, filter, security
	chains map[string]*iptChain
}

type iptChain struct {
	name  string
	drop  bool // policy of a built-in chain
	rules []iptRule
}

// iptRule is one -A line.
type iptRule struct {
	text    string
	chain   string
	comment string
	matches []iptMatch
	target  string
	args    []string // the target's options
	jump    bool     // to a chain of the table
	goTo    bool
	other   string // what is not modelled
}

// iptMatch is one match with its options in one, in the words of the command.
type iptMatch struct {
	not  bool
	opt  string
	args []string
	net  netip.Prefix // of -s and -d
}

// Options that the model reads, and how many arguments each takes.
var iptOptions = map[string]int{
	"-s": 1, "-d": 1, "-i": 1, "-o": 1, "-p": 1,
	"--dport": 1, "--sport": 1, "--dports": 1, "--sports": 1, "--mark": 1, "--ctstate": 1, "--ctdir": 1, "--state": 1,
	"--dst-type": 1, "--src-type": 1, "--limit-iface-in": 0, "--limit-iface-out": 0,
	"--mode": 1, "--probability": 1, "--comment": 1, "--icmp-type": 1,
}

// Matches whose options are all in iptOptions.
var iptModules = []string{"comment", "tcp", "udp", "icmp", "multiport", "mark", "connmark", "conntrack", "state", "addrtype", "statistic"}

// Targets that are modelled; what else is no chain of the table is not.
var iptTargets = []string{"ACCEPT", "DROP", "REJECT", "RETURN", "MARK", "CONNMARK", "SNAT", "DNAT", "MASQUERADE",
	"LOG", "NFLOG", "TCPMSS"}

// ParseIptables reads the lines of `iptables-save`. A match or target that is
// not modelled is kept and is no error.
func ParseIptables(lines []string) (Iptables, error) {
	t := Iptables{text: lines}
	if len(lines) > maxLines {
		return t, fmt.Errorf("parse iptables: %d lines, at most %d", len(lines), maxLines)
	}
	var table *iptTable
	for n, line := range lines {
		words := iptWords(line)
		if len(words) == 0 || strings.HasPrefix(line, "#") || line == "COMMIT" {
			continue
		}
		fail := func(why string) error { return fmt.Errorf("parse iptables: line %d: %s", n+1, why) }
		switch {
		case line[0] == '*':
			t.tables = append(t.tables, iptTable{name: line[1:], chains: map[string]*iptChain{}})
			table = &t.tables[len(t.tables)-1]
		case table == nil:
			return t, fail("before any *TABLE")
		case line[0] == ':':
			c := &iptChain{name: words[0][1:], drop: len(words) > 1 && words[1] == "DROP"}
			table.chains[c.name] = c
		case words[0] == "-A" && len(words) > 1:
			c := table.chains[words[1]]
			if c == nil {
				return t, fail("chain " + words[1] + " is not declared")
			}
			r := parseIptRule(line, words[2:])
			r.chain = c.name
			c.rules = append(c.rules, r)
		default:
			return t, fail("want *TABLE, :CHAIN or -A")
		}
	}
	for i := range t.tables {
		t.tables[i].link()
	}
	return t, nil
}

// link tells jumps to chains from targets that are not modelled.
func (t *iptTable) link() {
	for _, c := range t.chains {
		for i := range c.rules {
			r := &c.rules[i]
			switch {
			case r.target == "" || slices.Contains(iptTargets, r.target):
			case t.chains[r.target] != nil:
				r.jump = true
			case r.other == "":
				r.other = "target " + r.target
			}
		}
	}
}

// MarshalJSON writes the lines.
func (t Iptables) MarshalJSON() ([]byte, error) {
	if t.text == nil {
		return []byte("[]"), nil
	}
	return json.Marshal(t.text)
}

// UnmarshalJSON reads them.
func (t *Iptables) UnmarshalJSON(b []byte) (err error) {
	var lines []string
	if err := json.Unmarshal(b, &lines); err != nil {
		return err
	}
	*t, err = ParseIptables(lines)
	return err
}

// iptWords splits at blanks; a quoted text is one word.
func iptWords(line string) []string {
	if len(line) > maxLine {
		line = line[:maxLine]
	}
	var out []string
	for {
		line = strings.TrimLeft(line, " \t\r")
		if line == "" {
			return out
		}
		end := strings.IndexAny(line, " \t\r")
		word := line
		if line[0] == '"' {
			word, end = iptQuoted(line)
		} else if end >= 0 {
			word = line[:end]
		} else {
			end = len(line)
		}
		out = append(out, word)
		line = line[min(end, len(line)):]
	}
}

// iptQuoted reads a text in quotes; end is behind it. A backslash takes the next
// character as it is (xtables_save_string).
func iptQuoted(line string) (word string, end int) {
	var b strings.Builder
	for end = 1; end < len(line) && line[end] != '"'; end++ {
		if line[end] == '\\' && end+1 < len(line) {
			end++
		}
		b.WriteByte(line[end])
	}
	return b.String(), end + 1
}

func parseIptRule(text string, w []string) iptRule {
	r := iptRule{text: text}
	not, module := false, ""
	for len(w) > 0 {
		switch opt := w[0]; {
		case opt == "!":
			not, w = true, w[1:]
			continue
		case (opt == "-j" || opt == "-g") && len(w) > 1:
			r.target, r.goTo, r.args = w[1], opt == "-g", w[2:]
			return r
		case opt == "-m" && len(w) > 1:
			if !slices.Contains(iptModules, w[1]) {
				r.other = "-m " + w[1]
			}
			module, w = w[1], w[2:]
		default:
			n, known := iptOptions[opt]
			if !known || len(w) < n+1 {
				if r.other == "" {
					r.other = opt
				}
				w = w[1:]
				break
			}
			if opt == "--mark" && module == "connmark" {
				opt = "--ctmark"
			}
			if opt == "--comment" {
				r.comment = w[1]
			} else {
				m := iptMatch{not: not, opt: opt, args: w[1 : n+1]}
				if opt == "-s" || opt == "-d" {
					var err error
					if m.net, err = parseDst(w[1]); err != nil {
						r.other = opt + " " + w[1]
					}
				}
				r.matches = append(r.matches, m)
			}
			w = w[n+1:]
		}
		not = false
	}
	return r
}

// Chains lists the chains as "TABLE CHAIN", in no order.
func (t Iptables) Chains() []string {
	var all []string
	for _, table := range t.tables {
		for name := range table.chains {
			all = append(all, table.name+" "+name)
		}
	}
	return all
}
