package path

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/fairway-cni/fairway/internal/core/node"
)

// What of a namespace is Fairway's own is said in Fairway's words.
const podTable = node.PodTable

func (r *IPRule) ours() bool { return r.Proto == strconv.Itoa(node.Protocol) }

// slot is one of our rules as a hop quotes it: which ENI's mark it asks for.
func (r *IPRule) slot() string {
	s := fmt.Sprintf("mark %d", r.Mark>>24&0x7f)
	if r.Mark&^node.SlotMask != 0 {
		s += " bound"
	}
	return s
}

// Add puts objects of a node's desired state into a host's namespace, as the
// kernel would hold them: routes, rules, sysctls, our nftables table and the
// neighbours of pods. Links and addresses are left alone: what has them is the
// collector's to say.
func (n *Namespace) Add(objects []node.Object) error {
	chains, sets, elements := []node.Chain{}, []node.Set{}, map[string][]string{}
	for _, o := range objects {
		var err error
		switch o := o.(type) {
		case node.Route:
			err = n.addRoute(o)
		case node.Rule:
			err = n.addRule(fmt.Sprintf("%s proto %d", strings.TrimPrefix(o.String(), "rule "), node.Protocol))
		case node.Sysctl:
			if n.Sysctls.Value == nil {
				n.Sysctls = Known(map[string]string{})
			}
			n.Sysctls.Value[o.Path] = o.Value
		case node.Set:
			sets = append(sets, o)
		case node.Chain:
			chains = append(chains, o)
		case node.Element:
			text := o.Match
			if o.Verdict != "" {
				text += " : " + o.Verdict
			}
			elements[o.Set] = append(elements[o.Set], text)
		}
		if err != nil {
			return fmt.Errorf("add %s: %w", o, err)
		}
	}
	lines := []string{"table inet " + node.TableName + " {"}
	for _, s := range sets {
		if s.Type == node.TypeCounter {
			continue
		}
		kind := "set"
		if strings.HasSuffix(s.Type, ": verdict") {
			kind = "map"
		}
		lines = append(lines, kind+" "+s.Name+" {", "type "+s.Type)
		if e := elements[s.Name]; len(e) > 0 {
			lines = append(lines, "elements = { "+strings.Join(e, ",\n"))
			lines[len(lines)-1] += " }"
		}
		lines = append(lines, "}")
	}
	for _, c := range chains {
		lines = append(lines, c.Lines()...)
	}
	r, err := ParseRuleset(slices.Concat(n.Nftables.Value.text, strings.Split(strings.Join(append(lines, "}"), "\n"), "\n")))
	n.Nftables = Known(r)
	return err
}

func (n *Namespace) addRoute(o node.Route) error {
	r, err := parseIPRoute(strings.Fields(o.String()))
	if err != nil {
		return err
	}
	r.Proto = strconv.Itoa(node.Protocol)
	n.Routes = Known(append(n.Routes.Value, r))
	if o.Neighbor != "" {
		n.Neighbours = Known(append(n.Neighbours.Value, Neighbour{o.Dst.Addr(), o.Link}))
	}
	return nil
}

// addRule puts a rule where the kernel does: behind those of its priority.
func (n *Namespace) addRule(line string) error {
	var r IPRule
	if err := r.UnmarshalText([]byte(line)); err != nil {
		return err
	}
	rules := n.Rules.Value
	i := slices.IndexFunc(rules, func(q IPRule) bool { return q.Priority > r.Priority })
	if i < 0 {
		i = len(rules)
	}
	n.Rules = Known(slices.Insert(slices.Clone(rules), i, r))
	return nil
}
