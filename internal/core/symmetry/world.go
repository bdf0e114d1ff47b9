package symmetry

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/fairway-cni/fairway/internal/core/intent"
	"github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// class is one destination: a host in the closed world.
type class struct {
	title  string
	host   string
	addr   netip.Addr
	asks   bool            // it knows pods by their own address, and may begin
	tables map[string]bool // the route tables that lead there; nil: all
}

// pod is the one of an ENI that is looked at.
type pod struct {
	name   string
	addr   netip.Addr
	eni    string
	subnet string
}

// world is what is walked.
type world struct {
	site    Site
	world   *path.World
	pods    []pod
	classes []class
	primary string // the primary ENI's subnet
}

// documentation is where nobody is (TEST-NET-3, RFC 5737): what no other route is for.
var documentation = netip.MustParsePrefix("203.0.113.0/24")

const (
	homeName = "vpc"
	open     = "sg-open"
)

func newWorld(s Site) (*world, error) {
	w := &world{site: s, world: &path.World{Form: path.Form, Name: "symmetry", Services: path.Known([]path.Service{})}}
	home := path.VPC{ID: s.VPC, Name: homeName, CIDRs: path.Known(s.Routing.CIDRs)}
	homeENIs := []path.ENI{}
	var subnets []path.Subnet
	for _, e := range s.Want.ENIs {
		if e.DeviceIndex == 0 && e.CardIndex == 0 {
			w.primary = e.SubnetID
		}
		homeENIs = append(homeENIs, eni(e.ID, e.SubnetID, append([]netip.Addr{e.Primary}, e.Secondary...), e.Prefixes))
		if !slices.ContainsFunc(subnets, func(n path.Subnet) bool { return n.ID == e.SubnetID }) {
			subnets = append(subnets, path.Subnet{ID: e.SubnetID, CIDR: e.Subnet})
		}
	}
	// Others of the VPC are in a subnet of their own, also where their address is of one
	// of the node's: it is about the node's kernel.
	for _, block := range s.Routing.CIDRs {
		w.near(&home, &subnets, &homeENIs, "the VPC", block)
	}
	for _, n := range slices.Clone(subnets) {
		if slices.ContainsFunc(s.Want.ENIs, func(e intent.ENI) bool { return e.SubnetID == n.ID }) {
			w.near(&home, &subnets, &homeENIs, "subnet "+n.ID, n.CIDR)
		}
	}
	home.Subnets, home.ENIs = path.Known(subnets), path.Known(homeENIs)
	filters(&home)
	home.RouteTables = path.Known(w.beyond())
	w.world.VPCs = append([]path.VPC{home}, w.world.VPCs...)
	n, err := w.node()
	if err != nil {
		return nil, err
	}
	w.world.Nodes = append([]path.Node{n}, w.world.Nodes...)
	return w, w.world.Validate()
}

// near adds somebody of the VPC itself, at an address of the block that the node
// has not got.
func (w *world) near(home *path.VPC, subnets *[]path.Subnet, enis *[]path.ENI, what string, block netip.Prefix) {
	addr, ok := w.stranger(block)
	if !ok {
		return
	}
	id := fmt.Sprintf("subnet-near-%d", len(w.classes))
	*subnets = append(*subnets, path.Subnet{ID: id, CIDR: block})
	c := class{title: fmt.Sprintf("%s (%s)", what, block), host: fmt.Sprintf("near-%d", len(w.classes)), addr: addr, asks: true}
	*enis = append(*enis, eni("eni-"+c.host, id, []netip.Addr{addr}, nil))
	w.classes = append(w.classes, c)
	w.world.Nodes = append(w.world.Nodes, plain(c.host, homeName, "eni-"+c.host, addr))
}

// stranger is an address of the block that no ENI of the node has, from its end.
func (w *world) stranger(block netip.Prefix) (netip.Addr, bool) {
	a := last(block)
	for range 1 << 10 {
		a = a.Prev()
		if !block.Contains(a) {
			break
		}
		if !slices.ContainsFunc(w.site.Want.ENIs, func(e intent.ENI) bool { return e.Primary == a || e.Owns(a) }) &&
			!slices.ContainsFunc(w.classes, func(c class) bool { return c.addr == a }) {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// last is the highest IPv4 address of a block.
func last(block netip.Prefix) netip.Addr {
	b := block.Masked().Addr().As4()
	for i := block.Bits(); i < 32; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	return netip.AddrFrom4(b)
}

// beyond makes the VPC's route tables, and for each thing that they lead to a VPC
// behind a peering, with a host for each block.
func (w *world) beyond() []path.RouteTable {
	tables := w.site.Routing.Tables
	if len(tables) == 0 { // EC2 has not said
		tables = []vpc.RouteTable{{ID: "rtb-unknown", Main: true}}
	}
	behind := map[string]*path.VPC{}
	var order []string
	var out []path.RouteTable
	for _, t := range tables {
		table := path.RouteTable{ID: t.ID, Main: t.Main, Subnets: t.Subnets, Routes: []path.VPCRoute{}}
		for _, c := range w.site.Routing.CIDRs {
			table.Routes = append(table.Routes, path.VPCRoute{Dst: c, Target: "local"})
		}
		for _, r := range t.Routes {
			for _, dst := range w.destinations(r) {
				peering := "pcx-" + r.TargetID
				if behind[peering] == nil {
					order = append(order, peering)
					behind[peering] = &path.VPC{ID: "vpc-" + r.TargetID, Name: r.TargetID, CIDRs: path.Known([]netip.Prefix{})}
				}
				table.Routes = append(table.Routes, path.VPCRoute{Dst: dst, Target: peering, Blackhole: r.Blackhole})
				if !r.Blackhole {
					w.far(behind[peering], r, dst, t.ID)
				}
			}
		}
		out = append(out, table)
	}
	peerings := []path.Peering{}
	for _, id := range order {
		v := behind[id]
		filters(v)
		v.RouteTables = path.Known([]path.RouteTable{{ID: "rtb-" + v.ID, Main: true, Routes: w.back(v, id)}})
		w.world.VPCs = append(w.world.VPCs, *v)
		peerings = append(peerings, path.Peering{ID: id, State: "active", VPCs: [2]string{w.site.VPC, v.ID}})
	}
	w.world.Peerings = path.Known(peerings)
	w.world.TransitGateways = path.Known([]path.TransitGateway{})
	return out
}

// destinations of a route that leads out of the VPC: its own, or its list's. A
// default route by whatever is one of them; other routes to what does not know pods
// are left out.
func (w *world) destinations(r vpc.Route) []netip.Prefix {
	all := []netip.Prefix{r.Dst}
	if r.PrefixList != "" {
		all = w.site.Routing.PrefixLists[r.PrefixList]
	}
	return slices.DeleteFunc(slices.Clone(all), func(p netip.Prefix) bool {
		own := slices.ContainsFunc(w.site.Routing.CIDRs, p.Overlaps) && p.Bits() > 0
		dead := r.Target == vpc.PeeringTarget && !w.site.Routing.Peerings[r.TargetID]
		return !p.IsValid() || !p.Addr().Is4() || own || dead || r.Target == vpc.OtherTarget && p.Bits() > 0
	})
}

// far adds a host of a block behind a peering, once, and says that the table leads
// there.
func (w *world) far(v *path.VPC, r vpc.Route, dst netip.Prefix, table string) {
	block, title := dst, fmt.Sprintf("%s (%s)", r.TargetID, dst)
	if dst.Bits() == 0 {
		block, title = documentation, "everything else, by "+r.TargetID
	}
	for i := range w.classes {
		if w.classes[i].title == title {
			w.classes[i].tables[table] = true
			return
		}
	}
	addr := block.Addr()
	if block.Bits() < 31 {
		addr = last(block).Prev()
	}
	if slices.ContainsFunc(v.CIDRs.Value, block.Overlaps) || slices.ContainsFunc(w.classes, func(c class) bool { return c.addr == addr }) {
		return // a part of what is looked at already
	}
	c := class{title: title, host: fmt.Sprintf("far-%d", len(w.classes)), addr: addr, asks: dst.Bits() > 0, tables: map[string]bool{table: true}}
	subnet := "subnet-" + c.host
	v.CIDRs.Value = append(v.CIDRs.Value, block)
	v.Subnets = path.Known(append(v.Subnets.Value, path.Subnet{ID: subnet, CIDR: block}))
	v.ENIs = path.Known(append(v.ENIs.Value, eni("eni-"+c.host, subnet, []netip.Addr{addr}, nil)))
	w.classes = append(w.classes, c)
	w.world.Nodes = append(w.world.Nodes, plain(c.host, v.Name, "eni-"+c.host, addr))
}

// back is the route table of a VPC behind a peering.
func (w *world) back(v *path.VPC, peering string) []path.VPCRoute {
	routes := []path.VPCRoute{}
	for _, c := range v.CIDRs.Value {
		routes = append(routes, path.VPCRoute{Dst: c, Target: "local"})
	}
	for _, c := range w.site.Routing.CIDRs {
		routes = append(routes, path.VPCRoute{Dst: c, Target: peering})
	}
	return routes
}

// leads reports whether a packet of a pod gets to the class by the route tables: by
// that of its own ENI, or, where the pod begins, by that of the primary one, which
// carries what is translated.
func (w *world) leads(subnet string, d class, in bool) bool {
	return d.tables == nil || d.tables[w.table(subnet)] || !in && d.tables[w.table(w.primary)]
}

func (w *world) table(subnet string) string {
	main := ""
	for _, t := range w.world.VPCs[0].RouteTables.Value {
		if slices.Contains(t.Subnets, subnet) {
			return t.ID
		}
		if t.Main {
			main = t.ID
		}
	}
	return main
}

// node is this node, with one pod of each ENI that has one.
func (w *world) node() (path.Node, error) {
	s := w.site.Want
	s.Pods = nil
	n := path.Node{Name: "self", Cluster: homeName, Host: w.site.Host}
	n.Host.Devices = path.Known(slices.Clone(n.Host.Devices.Value))
	n.Pods = path.Known([]path.Pod{})
	sorted := slices.SortedFunc(slices.Values(w.site.Want.Pods), func(a, b node.Attachment) int { return a.Addr.Compare(b.Addr) })
	for _, e := range s.ENIs {
		i := slices.IndexFunc(sorted, func(p node.Attachment) bool { return p.Wired && p.Slot == e.Slot })
		if i < 0 {
			continue
		}
		p := sorted[i]
		d := slices.IndexFunc(n.Host.Devices.Value, func(d path.Device) bool { return d.Name == p.Veth })
		if d < 0 {
			continue // it has just gone, or not come
		}
		name := "on-" + e.ID
		n.Host.Devices.Value[d].Kind, n.Host.Devices.Value[d].Peer = "veth", "default/"+name+" eth0"
		n.Pods.Value = append(n.Pods.Value, path.Pod{Namespace: "default", Name: name, Addr: p.Addr, Net: podSide(p, n.Host.Devices.Value[d].MTU)})
		w.pods = append(w.pods, pod{name: "default/" + name, addr: p.Addr, eni: e.ID, subnet: e.SubnetID})
		s.Pods = append(s.Pods, p)
	}
	n.Host.Nftables, n.Host.Iptables = path.Known(path.Ruleset{}), path.Known(path.Iptables{})
	n.Host.Sockets = path.Known([]path.Socket{})
	table := w.site.Table
	if table == nil {
		table = slices.DeleteFunc(intent.Desired(s), func(o node.Object) bool { return o.Rank() < node.RankSet })
	}
	if err := n.Host.Add(table); err != nil {
		return n, fmt.Errorf("read the table that is wanted: %w", err)
	}
	return n, nil
}
