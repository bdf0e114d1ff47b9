package path

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// ErrEdit is returned for an edit that cannot be read, or that names nothing of
// the world.
var ErrEdit = errors.New("no such edit")

// Edit is one change of a world, in words:
//
//	node-a1: ip rule add pref 111 from 10.11.4.91 to 10.12.0.0/16 lookup 11
//	node-a1: ip route del 10.11.4.91 dev lxc1
//	node-a1: sysctl net.ipv4.conf.all.rp_filter=0
//	node-a1: iptables -t nat -D POSTROUTING -o eth0 -j MASQUERADE
//	node-a1: ip link set eth1 mtu 8500
//	node-a1: nft add table ip t { chain c { type filter hook prerouting priority -150; iifname "eth0" drop; } }
//	rtb-0a: add 10.12.0.0/16 pcx-03
//	rtb-0a: associate subnet-0a
//	sg-0a: in add tcp 80 from 10.12.0.0/16
//	acl-0a: out del 110 allow tcp 1024-65535 to 0.0.0.0/0
//	eni-0a01: sourceDestCheck off
//	eni-0a01: public 10.11.4.4 198.51.100.4
//	pcx-03: state active
//
// A node may be CLUSTER/NODE, and NAMESPACE/POD is a pod's namespace.
type Edit struct {
	Target string `json:"target"`
	Text   string `json:"text"`
}

// ParseEdit reads the form above.
func ParseEdit(s string) (Edit, error) {
	target, text, ok := strings.Cut(s, ": ")
	e := Edit{strings.TrimSpace(target), strings.TrimSpace(text)}
	if !ok || e.Target == "" || e.Text == "" {
		return e, fmt.Errorf("%w: %q: want TARGET: CHANGE, such as \"node-a1: ip rule add pref 111 from 10.11.4.91 lookup 11\"", ErrEdit, s)
	}
	return e, nil
}

func (e Edit) String() string { return e.Target + ": " + e.Text }

// With is a copy of the world with the edits made, in order. The world itself
// stays as it is. The copy shares what no edit touched.
func (w *World) With(edits ...Edit) (*World, error) {
	c := w.clone()
	for _, e := range edits {
		if err := c.edit(e); err != nil {
			return nil, fmt.Errorf("%s: %w", e, err)
		}
	}
	return c, nil
}

// clone copies every list that an edit writes to.
func (w *World) clone() *World {
	c := *w
	c.VPCs = slices.Clone(w.VPCs)
	for i := range c.VPCs {
		v := &c.VPCs[i]
		v.RouteTables.Value = slices.Clone(v.RouteTables.Value)
		v.Groups.Value = slices.Clone(v.Groups.Value)
		v.ACLs.Value = slices.Clone(v.ACLs.Value)
		v.ENIs.Value = slices.Clone(v.ENIs.Value)
	}
	c.Peerings.Value = slices.Clone(w.Peerings.Value)
	c.Nodes = slices.Clone(w.Nodes)
	for i := range c.Nodes {
		c.Nodes[i].Pods.Value = slices.Clone(c.Nodes[i].Pods.Value)
	}
	return &c
}

func (w *World) edit(e Edit) error {
	f := strings.Fields(e.Text)
	kind, _, _ := strings.Cut(e.Target, "-")
	switch kind {
	case "rtb":
		return w.editTable(e.Target, f)
	case "sg", "acl":
		return w.editRules(e.Target, f)
	case "eni":
		if x, _ := w.eni(e.Target); x != nil {
			return x.edit(f)
		}
	case "pcx":
		for i := range w.Peerings.Value {
			if p := &w.Peerings.Value[i]; p.ID == e.Target && len(f) == 2 && f[0] == "state" {
				p.State = f[1]
				return nil
			}
		}
	}
	if ns := w.namespace(e.Target); ns != nil {
		return ns.edit(f)
	}
	return fmt.Errorf("%w: nothing of this world is named %q, or it takes no such change", ErrEdit, e.Target)
}

// namespace finds a node's or a pod's.
func (w *World) namespace(target string) *Namespace {
	for i := range w.Nodes {
		n := &w.Nodes[i]
		if n.Name == target || n.Cluster+"/"+n.Name == target {
			return &n.Host
		}
		for j := range n.Pods.Value {
			if p := &n.Pods.Value[j]; p.ID() == target {
				return &p.Net
			}
		}
	}
	return nil
}

func (w *World) editTable(id string, f []string) error {
	for i := range w.VPCs {
		for j := range w.VPCs[i].RouteTables.Value {
			t := &w.VPCs[i].RouteTables.Value[j]
			if t.ID != id {
				continue
			}
			if len(f) == 2 && f[0] == "associate" {
				return w.VPCs[i].associate(t, f[1])
			}
			var err error
			t.Routes, err = editList[VPCRoute](t.Routes, f)
			return err
		}
	}
	return fmt.Errorf("%w: no route table %s", ErrEdit, id)
}

// associate gives a subnet the table, in place of the one that it has.
func (v *VPC) associate(t *RouteTable, subnet string) error {
	if v.subnet(subnet) == nil {
		return fmt.Errorf("%w: VPC %s has no subnet %s", ErrEdit, v.Name, subnet)
	}
	for i := range v.RouteTables.Value {
		o := &v.RouteTables.Value[i]
		o.Subnets = slices.DeleteFunc(slices.Clone(o.Subnets), func(s string) bool { return s == subnet })
	}
	t.Subnets = append(t.Subnets, subnet)
	return nil
}

func (w *World) editRules(id string, f []string) (err error) {
	if len(f) < 2 || f[0] != "in" && f[0] != "out" {
		return fmt.Errorf("%w: want in|out add|del RULE", ErrEdit)
	}
	for i := range w.VPCs {
		v := &w.VPCs[i]
		if g := v.group(id); g != nil {
			rules := &g.In
			if f[0] == "out" {
				rules = &g.Out
			}
			*rules, err = editList[GroupRule](*rules, f[1:])
			return err
		}
		for j := range v.ACLs.Value {
			a := &v.ACLs.Value[j]
			if a.ID != id {
				continue
			}
			rules := &a.In
			if f[0] == "out" {
				rules = &a.Out
			}
			*rules, err = editList[ACLRule](*rules, f[1:])
			return err
		}
	}
	return fmt.Errorf("%w: no group or ACL %s", ErrEdit, id)
}

// editList adds or removes one line.
func editList[T comparable, P interface {
	*T
	UnmarshalText([]byte) error
}](list []T, f []string) ([]T, error) {
	if len(f) < 2 || f[0] != "add" && f[0] != "del" {
		return nil, fmt.Errorf("%w: want add or del, and the line", ErrEdit)
	}
	var v T
	if err := P(&v).UnmarshalText([]byte(strings.Join(f[1:], " "))); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEdit, err)
	}
	if f[0] == "add" {
		return append(slices.Clone(list), v), nil
	}
	i := slices.Index(list, v)
	if i < 0 {
		return nil, fmt.Errorf("%w: there is no such line to remove", ErrEdit)
	}
	return slices.Delete(slices.Clone(list), i, i+1), nil
}

func (e *ENI) edit(f []string) error {
	switch {
	case len(f) == 2 && f[0] == "sourceDestCheck" && (f[1] == "on" || f[1] == "off"):
		e.Check = Known(f[1] == "on")
		return nil
	case len(f) == 2 && f[0] == "groups":
		e.Groups = Known(strings.Split(f[1], ","))
		return nil
	case len(f) == 3 && f[0] == "public":
		private, err1 := netip.ParseAddr(f[1])
		public, err2 := netip.ParseAddr(f[2])
		if err1 != nil || err2 != nil || !e.Owns(private) {
			return fmt.Errorf("%w: want public PRIVATE PUBLIC, with an address of the ENI", ErrEdit)
		}
		e.Public = maps.Clone(e.Public)
		if e.Public == nil {
			e.Public = map[netip.Addr]netip.Addr{}
		}
		e.Public[private] = public
		return nil
	}
	return fmt.Errorf("%w: want sourceDestCheck on|off, groups SG,SG or public PRIVATE PUBLIC", ErrEdit)
}

func (n *Namespace) edit(f []string) error {
	switch {
	case len(f) > 3 && f[0] == "ip" && f[1] == "rule":
		return n.editRule(f[2], f[3:])
	case len(f) > 3 && f[0] == "ip" && f[1] == "route":
		return n.editRoute(f[2], f[3:])
	case len(f) >= 2 && f[0] == "sysctl":
		return n.editSysctl(strings.Join(f[1:], " "))
	}
	if len(f) > 5 && f[0] == "iptables" && f[1] == "-t" {
		return n.editIptables(f[2], f[3], f[4:])
	}
	if len(f) == 6 && f[0] == "ip" && f[1] == "link" && f[2] == "set" && f[4] == "mtu" {
		return n.editMTU(f[3], f[5])
	}
	if len(f) > 5 && f[0] == "nft" && f[1] == "add" && f[2] == "table" {
		return n.addTable(f[2:])
	}
	return fmt.Errorf("%w: want ip rule, ip route, ip link set DEVICE mtu BYTES, sysctl, iptables -t TABLE or nft add table", ErrEdit)
}

// editIptables appends (-A), puts first (-I) or deletes (-D) a rule, as a line of
// `iptables-save`.
func (n *Namespace) editIptables(table, verb string, f []string) error {
	if !n.Iptables.Known {
		return fmt.Errorf("%w: %s", ErrEdit, n.Iptables.unknown("iptables"))
	}
	lines := slices.Clone(n.Iptables.Value.text)
	start := slices.Index(lines, "*"+table)
	if start < 0 {
		return fmt.Errorf("%w: no table %s", ErrEdit, table)
	}
	end := start + slices.Index(lines[start:], "COMMIT")
	if end < start {
		end = len(lines)
	}
	rule, at := "-A "+strings.Join(f, " "), end
	switch verb {
	case "-A":
	case "-I":
		at = slices.IndexFunc(lines[start:end], func(l string) bool { return strings.HasPrefix(l, "-A") })
		if at = at + start; at < start {
			at = end
		}
	case "-D":
		i := slices.Index(lines[start:end], rule)
		if i < 0 {
			return fmt.Errorf("%w: there is no such rule to remove", ErrEdit)
		}
		return n.setIptables(slices.Delete(lines, start+i, start+i+1))
	default:
		return fmt.Errorf("%w: iptables %s: want -A, -I or -D", ErrEdit, verb)
	}
	return n.setIptables(slices.Insert(lines, at, rule))
}

func (n *Namespace) setIptables(lines []string) error {
	t, err := ParseIptables(lines)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrEdit, err)
	}
	n.Iptables = Known(t)
	return nil
}

func (n *Namespace) editRule(verb string, f []string) error {
	r, err := parseIPRule(f)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrEdit, err)
	}
	if !n.Rules.Known {
		return fmt.Errorf("%w: %s", ErrEdit, n.Rules.unknown("ip rules"))
	}
	switch verb {
	case "add":
		return n.addRule(strconv.Itoa(r.Priority) + ":" + strings.TrimPrefix(r.String(), strconv.Itoa(r.Priority)+":"))
	case "del":
		i := slices.IndexFunc(n.Rules.Value, func(q IPRule) bool {
			q.Proto = r.Proto
			return q == r
		})
		if i < 0 {
			return fmt.Errorf("%w: there is no such rule to remove", ErrEdit)
		}
		n.Rules = Known(slices.Delete(slices.Clone(n.Rules.Value), i, i+1))
		return nil
	}
	return fmt.Errorf("%w: ip rule %s: want add or del", ErrEdit, verb)
}

func (n *Namespace) editRoute(verb string, f []string) error {
	r, err := parseIPRoute(f)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrEdit, err)
	}
	if !n.Routes.Known {
		return fmt.Errorf("%w: %s", ErrEdit, n.Routes.unknown("routes"))
	}
	same := func(q IPRoute) bool {
		return q.Dst == r.Dst && q.Table == r.Table && q.Metric == r.Metric && (q.Kind == r.Kind) &&
			(r.Dev == "" || q.Dev == r.Dev || verb == "replace")
	}
	switch i := slices.IndexFunc(n.Routes.Value, same); verb {
	case "add", "replace":
		routes := slices.Clone(n.Routes.Value)
		if i >= 0 && verb == "replace" {
			routes[i] = r
		} else {
			routes = append(routes, r)
		}
		n.Routes = Known(routes)
		return nil
	case "del":
		if i < 0 {
			return fmt.Errorf("%w: there is no such route to remove", ErrEdit)
		}
		n.Routes = Known(slices.Delete(slices.Clone(n.Routes.Value), i, i+1))
		return nil
	}
	return fmt.Errorf("%w: ip route %s: want add, replace or del", ErrEdit, verb)
}
