package main

import (
	"fmt"
	"net/netip"

	"github.com/fairway-cni/fairway/internal/core/intent"
	"github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// cilium is what of a node its pods need to know: the router's address, and the
// block that was native when they were made.
type cilium struct{ router, native string }

// pod is one as Cilium's ENI mode wires it: a rule to it, and one from it for the
// native block into the table of its ENI.
func (c cilium) pod(n *path.Node, name, address string, table int, port uint16) {
	veth := node.VethName("lxc", name, "eth0")
	pod(n, wire{name, address, veth, c.router, port})
	routes(&n.Host, address+" dev "+veth+" scope link")
	rules(&n.Host, "20: from all to "+address+" lookup main proto kernel",
		fmt.Sprintf("111: from %s to %s lookup %d proto kernel", address, c.native, table))
}

// host is what Cilium adds to a node: its router's address, a table per
// ENI, its masquerade. Its BPF programs are left out.
func (c cilium) host(ns *path.Namespace, gw string, enis map[int]string) {
	ns.Devices.Value = append(ns.Devices.Value, path.Device{Name: "cilium_host", Kind: "veth", MTU: 9001,
		Addresses: []netip.Prefix{prefix(c.router + "/32")}, Peer: "host cilium_net"})
	routes(ns, "local "+c.router+" dev cilium_host table local proto kernel src "+c.router)
	for table := 10; table < 10+len(enis); table++ {
		routes(ns, fmt.Sprintf("default via %s dev %s table %d proto kernel", gw, enis[table], table),
			fmt.Sprintf("%s dev %s scope link table %d proto kernel", gw, enis[table], table))
	}
	ns.Iptables = path.Known(must(path.ParseIptables([]string{
		"*nat",
		":PREROUTING ACCEPT [0:0]",
		":POSTROUTING ACCEPT [0:0]",
		":CILIUM_POST_nat - [0:0]",
		"-A POSTROUTING -m comment --comment \"cilium-feeder: CILIUM_POST_nat\" -j CILIUM_POST_nat",
		"-A CILIUM_POST_nat -s " + c.native + " ! -d " + c.native + " -o eth+ -m comment --comment \"cilium masquerade non-cluster\" -j MASQUERADE",
		"COMMIT",
	})))
}

// seed003 is the night of the third seed: two clusters that are peered, a pod on
// the second ENI, and rules that know the VPC's own block only.
func seed003() *path.World {
	a := network("a", "eu-west-1", prefix("10.11.0.0/16"), prefix("10.11.4.0/24"))
	b := network("b", "us-east-1", prefix("10.12.0.0/16"), prefix("10.12.6.0/24"))
	a.Groups.Value[0].In = lines[path.GroupRule]("all from sg-0a", "tcp 80 from 10.12.0.0/16")
	w := &path.World{Form: path.Form, Name: "seed003", VPCs: []path.VPC{a, b}}
	peer(w, "pcx-03")

	n := path.Node{Name: "node-a1", Cluster: "a", Host: host("eth0", "eni-0a01", prefix("10.11.4.4/24"), "10.11.4.1"),
		Counters: map[string][]int64{"TcpExtIPReversePathFilter": {2, 4}}}
	n.Host.Sysctls.Value["net/ipv4/conf/all/rp_filter"] = "1"
	n.Host.Devices.Value = append(n.Host.Devices.Value, path.Device{Name: "eth1", Kind: "eni", MTU: 9001,
		Addresses: []netip.Prefix{prefix("10.11.4.90/24")}, ENI: "eni-0a02"})
	routes(&n.Host, "local 10.11.4.90 dev eth1 table local proto kernel src 10.11.4.90")
	conf(&n.Host, "eth1", 0)
	c := cilium{"10.11.4.5", "10.11.0.0/16"}
	c.host(&n.Host, "10.11.4.1", map[int]string{10: "eth0", 11: "eth1"})
	first, second := []string{"10.11.4.4", "10.11.4.5"}, []string{"10.11.4.90"}
	for i := range 18 {
		name, address := fmt.Sprintf("web-%02d", i+1), fmt.Sprintf("10.11.4.%d", 91+i)
		if i == 0 {
			name = "httpbin"
		}
		c.pod(&n, name, address, 11, 80)
		second = append(second, address)
	}
	for i := range 11 {
		address := fmt.Sprintf("10.11.4.%d", 10+i)
		c.pod(&n, fmt.Sprintf("api-%02d", i+1), address, 10, 80)
		first = append(first, address)
	}
	eni(&w.VPCs[0], "eni-0a01", first...)
	eni(&w.VPCs[0], "eni-0a02", second...)

	m := path.Node{Name: "node-b1", Cluster: "b", Host: host("eth0", "eni-0b01", prefix("10.12.6.20/24"), "10.12.6.1")}
	c = cilium{"10.12.6.21", "10.12.0.0/16"}
	c.host(&m.Host, "10.12.6.1", map[int]string{10: "eth0"})
	c.pod(&m, "sleep", "10.12.6.33", 10, 0)
	eni(&w.VPCs[1], "eni-0b01", "10.12.6.20", "10.12.6.21", "10.12.6.33")
	w.Nodes = []path.Node{n, m}
	w.Services = path.Known([]path.Service{})
	return w
}

// seed002 is the second seed's packet: two nodes of one subnet, two pods on
// their nodes' first ENIs.
func seed002() *path.World {
	v := network("vpc", "ap-southeast-1", prefix("10.5.0.0/16"), prefix("10.5.2.0/24"))
	w := &path.World{Form: path.Form, Name: "seed002", VPCs: []path.VPC{v}, Peerings: path.Known([]path.Peering{})}
	for _, n := range []struct{ node, own, router, pod, address string }{
		{"node1", "10.5.2.48", "10.5.2.191", "pod1", "10.5.2.11"},
		{"node2", "10.5.2.58", "10.5.2.192", "pod2", "10.5.2.22"},
	} {
		x := path.Node{Name: n.node, Host: host("eth0", "eni-"+n.node, prefix(n.own+"/24"), "10.5.2.1")}
		c := cilium{n.router, "10.5.0.0/16"}
		c.host(&x.Host, "10.5.2.1", map[int]string{10: "eth0"})
		// The seed's node has moved the local rule, as Cilium does.
		x.Host.Rules.Value[0] = lines[path.IPRule]("100: from all lookup local proto kernel")[0]
		rules(&x.Host, "9: from all fwmark 0x200/0xf00 lookup 2004 proto kernel")
		routes(&x.Host, "local default dev lo table 2004 scope host")
		c.pod(&x, n.pod, n.address, 10, 80)
		eni(&w.VPCs[0], "eni-"+n.node, n.own, n.router, n.address)
		w.Nodes = append(w.Nodes, x)
	}
	w.Services = path.Known([]path.Service{})
	return w
}

// healthy is the third seed's world with Fairway on both nodes.
func healthy() *path.World {
	a := network("a", "eu-west-1", prefix("10.11.0.0/16"), prefix("10.11.4.0/24"))
	b := network("b", "us-east-1", prefix("10.12.0.0/16"), prefix("10.12.7.0/24"))
	a.Groups.Value[0].In = lines[path.GroupRule]("all from sg-0a", "tcp 80 from 10.12.0.0/16")
	b.ACLs.Value[0].In = lines[path.ACLRule]("100 allow all from 10.12.0.0/16", "110 allow tcp 1024-65535 from 0.0.0.0/0")
	a.ACLs.Value[0].Out = lines[path.ACLRule]("100 allow all to 10.11.0.0/16", "110 allow tcp 1024-65535 to 0.0.0.0/0")
	w := &path.World{Form: path.Form, Name: "healthy", VPCs: []path.VPC{a, b}}
	peer(w, "pcx-03")
	w.Nodes = []path.Node{
		fairway(&w.VPCs[0], "node-a1", "httpbin", "10.11.4.91", "10.12.0.0/16"),
		fairway(&w.VPCs[1], "node-b1", "sleep", "10.12.7.33", "10.11.0.0/16"),
	}
	w.Services = path.Known([]path.Service{})
	return w
}

// fairway is a node with two ENIs and a pod on the second, whose kernel holds
// what package intent wants.
func fairway(v *path.VPC, name, podName, podAddr, peerBlock string) path.Node {
	subnet := v.Subnets.Value[0].CIDR
	base := subnet.Addr().As4()
	in := func(last byte) netip.Addr { return netip.AddrFrom4([4]byte{base[0], base[1], base[2], last}) }
	native := []vpc.Native{{Prefix: v.CIDRs.Value[0]}, {Prefix: prefix(peerBlock)}}
	s := intent.Snapshot{Config: intent.Default()}
	for i, own := range []netip.Addr{in(4), in(90)} {
		id := fmt.Sprintf("eni-0%s%02d", v.Name, i+1)
		e := vpc.ENI{ID: id, DeviceIndex: i, Subnet: subnet, Primary: own}
		addrs := []string{own.String()}
		if i == 1 {
			e.Secondary = []netip.Addr{addr(podAddr)}
			addrs = append(addrs, podAddr)
		}
		eni(v, id, addrs...)
		s.ENIs = append(s.ENIs, intent.ENI{ENI: e, Slot: node.Slot(i + 1), Device: fmt.Sprintf("ens%d", 5+i), Native: native})
	}
	veth := node.VethName(node.DefaultVethPrefix, name+podName, "eth0")
	s.Pods = []node.Attachment{{ContainerID: name + podName, IfName: "eth0", Addr: addr(podAddr), Slot: 2, Veth: veth, Wired: true}}

	gw := in(1).String()
	n := path.Node{Name: name, Cluster: v.Name, Host: host("ens5", s.ENIs[0].ID, netip.PrefixFrom(in(4), 24), gw)}
	n.Host.Devices.Value = append(n.Host.Devices.Value, path.Device{Name: "ens6", Kind: "eni", MTU: 9001,
		Addresses: []netip.Prefix{netip.PrefixFrom(in(90), 24)}, ENI: s.ENIs[1].ID})
	routes(&n.Host, fmt.Sprintf("local %s dev ens6 table local proto kernel src %[1]s", in(90)))
	conf(&n.Host, "ens6", 0)
	p := pod(&n, wire{podName, podAddr, veth, node.GatewayAddr.String(), 80})
	p.Net.Neighbours = path.Known([]path.Neighbour{{Addr: node.GatewayAddr, Device: "eth0"}})
	for i := range n.Host.Devices.Value {
		if n.Host.Devices.Value[i].Name == veth {
			n.Host.Devices.Value[i].Group = node.LinkGroup
		}
	}
	if err := n.Host.Add(intent.Desired(s)); err != nil {
		must(0, err)
	}
	return n
}
