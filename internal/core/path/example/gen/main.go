// Command gen writes the built-in worlds into the folder that it is given: go
// generate in the folder above.
package main

import (
	"fmt"
	"log"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/fairway-cni/fairway/internal/core/path"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: gen FOLDER")
	}
	for name, w := range map[string]*path.World{"seed002": seed002(), "seed003": seed003(), "healthy": healthy(), "nodeport": nodeport()} {
		b, err := w.JSON()
		if err == nil {
			// What is written must be what is read.
			_, err = path.ParseWorld(b)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(os.Args[1], name+".json"), b, 0o644)
		}
		if err != nil {
			log.Fatalf("%s: %v", name, err)
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func lines[T any, P interface {
	*T
	UnmarshalText([]byte) error
}](text ...string) []T {
	var out []T
	for _, l := range text {
		var v T
		if err := P(&v).UnmarshalText([]byte(l)); err != nil {
			log.Fatal(err)
		}
		out = append(out, v)
	}
	return out
}

// network is a VPC with one subnet of nodes, whose groups and ACL allow what the
// example needs.
func network(name, region string, cidr, subnet netip.Prefix) path.VPC {
	return path.VPC{
		ID: "vpc-0" + name, Name: name, Account: "111122223333", Region: region,
		CIDRs:   path.Known([]netip.Prefix{cidr}),
		Subnets: path.Known([]path.Subnet{{ID: "subnet-0" + name, CIDR: subnet, Zone: region + "a"}}),
		RouteTables: path.Known([]path.RouteTable{{ID: "rtb-0" + name, Main: true,
			Routes: lines[path.VPCRoute](cidr.String() + " local")}}),
		ACLs: path.Known([]path.ACL{{ID: "acl-0" + name, Default: true,
			In:  lines[path.ACLRule]("100 allow all from 0.0.0.0/0"),
			Out: lines[path.ACLRule]("100 allow all to 0.0.0.0/0")}}),
		Groups: path.Known([]path.Group{{ID: "sg-0" + name,
			In:  lines[path.GroupRule]("all from sg-0" + name),
			Out: lines[path.GroupRule]("all to 0.0.0.0/0")}}),
		ENIs:        path.Known([]path.ENI{}),
		PrefixLists: path.Known(map[string][]netip.Prefix{}),
		NATGateways: path.Known([]path.NATGateway{}),
	}
}

func eni(v *path.VPC, id string, addrs ...string) {
	e := path.ENI{ID: id, Subnet: v.Subnets.Value[0].ID, Groups: path.Known([]string{v.Groups.Value[0].ID}),
		Check: path.Known(true), Attached: path.Known(true)}
	for _, a := range addrs {
		e.Addresses = append(e.Addresses, addr(a))
	}
	v.ENIs.Value = append(v.ENIs.Value, e)
}

func route(v *path.VPC, dst, target string) {
	t := &v.RouteTables.Value[0]
	t.Routes = append(t.Routes, lines[path.VPCRoute](dst+" "+target)...)
}

// peer joins two VPCs, with the routes of both sides.
func peer(w *path.World, id string) {
	a, b := &w.VPCs[0], &w.VPCs[1]
	w.Peerings = path.Known([]path.Peering{{ID: id, State: "active", VPCs: [2]string{b.ID, a.ID}}})
	route(a, b.CIDRs.Value[0].String(), id)
	route(b, a.CIDRs.Value[0].String(), id)
}

// host is a node's namespace before any CNI: lo, the primary ENI's device, the
// kernel's three rules.
func host(dev, eni string, own netip.Prefix, gw string) path.Namespace {
	ns := path.Namespace{
		Devices: path.Known([]path.Device{loopback(), {Name: dev, Kind: "eni", MTU: 9001, Addresses: []netip.Prefix{own}, ENI: eni}}),
		Rules:   path.Known(lines[path.IPRule]("0: from all lookup local", "32766: from all lookup main", "32767: from all lookup default")),
		Routes: path.Known(lines[path.IPRoute](
			"local 127.0.0.0/8 dev lo table local proto kernel src 127.0.0.1",
			fmt.Sprintf("local %s dev %s table local proto kernel src %[1]s", own.Addr(), dev),
			fmt.Sprintf("default via %s dev %s proto dhcp src %s", gw, dev, own.Addr()),
			fmt.Sprintf("%s dev %s proto kernel scope link src %s", own.Masked(), dev, own.Addr()))),
		Neighbours: path.Known([]path.Neighbour{}),
		Sysctls: path.Known(map[string]string{
			"net/ipv4/ip_forward": "1", "net/ipv4/conf/all/rp_filter": "0", "net/ipv4/conf/all/accept_local": "0",
			"net/ipv4/conf/all/src_valid_mark": "0"}),
		Nftables: path.Known(path.Ruleset{}),
		Iptables: path.Known(path.Iptables{}),
		Sockets:  path.Known([]path.Socket{{Proto: path.TCP, Addr: addr("0.0.0.0"), Port: 10250}}),
	}
	conf(&ns, dev, 0)
	return ns
}

func loopback() path.Device {
	return path.Device{Name: "lo", Kind: "loopback", MTU: 65536, Addresses: []netip.Prefix{prefix("127.0.0.1/8")}}
}

func conf(ns *path.Namespace, dev string, filter int) {
	ns.Sysctls.Value["net/ipv4/conf/"+dev+"/rp_filter"] = fmt.Sprint(filter)
	ns.Sysctls.Value["net/ipv4/conf/"+dev+"/accept_local"] = "0"
	ns.Sysctls.Value["net/ipv4/conf/"+dev+"/src_valid_mark"] = "0"
}

func rules(ns *path.Namespace, text ...string) {
	ns.Rules.Value = append(ns.Rules.Value, lines[path.IPRule](text...)...)
	sortRules(ns)
}

func sortRules(ns *path.Namespace) {
	r := ns.Rules.Value
	for i := range r {
		for j := i; j > 0 && r[j].Priority < r[j-1].Priority; j-- {
			r[j], r[j-1] = r[j-1], r[j]
		}
	}
}

func routes(ns *path.Namespace, text ...string) {
	ns.Routes.Value = append(ns.Routes.Value, lines[path.IPRoute](text...)...)
}

// wire is one pod: its host's device, and the gateway of its default route.
type wire struct {
	name, address, veth, gateway string
	port                         uint16 // what it listens on, or 0
}

func pod(n *path.Node, x wire) *path.Pod {
	a := addr(x.address)
	p := path.Pod{Namespace: "default", Name: x.name, Addr: a, Net: path.Namespace{
		Devices: path.Known([]path.Device{loopback(), {Name: "eth0", Kind: "veth", MTU: 9001,
			Addresses: []netip.Prefix{netip.PrefixFrom(a, 32)}, Peer: "host " + x.veth}}),
		Rules: path.Known(lines[path.IPRule]("0: from all lookup local", "32766: from all lookup main", "32767: from all lookup default")),
		Routes: path.Known(lines[path.IPRoute](
			"local "+x.address+" dev eth0 table local proto kernel src "+x.address,
			"default via "+x.gateway+" dev eth0",
			x.gateway+" dev eth0 scope link")),
		Neighbours: path.Known([]path.Neighbour{}),
		Sysctls: path.Known(map[string]string{"net/ipv4/conf/all/rp_filter": "0", "net/ipv4/conf/eth0/rp_filter": "0",
			"net/ipv4/conf/all/accept_local": "0", "net/ipv4/conf/eth0/accept_local": "0"}),
		Nftables: path.Known(path.Ruleset{}),
		Iptables: path.Known(path.Iptables{}),
		Sockets:  path.Known([]path.Socket{}),
	}}
	if x.port != 0 {
		p.Net.Sockets.Value = append(p.Net.Sockets.Value, path.Socket{Proto: path.TCP, Addr: addr("0.0.0.0"), Port: x.port})
	}
	n.Host.Devices.Value = append(n.Host.Devices.Value, path.Device{Name: x.veth, Kind: "veth", MTU: 9001, Peer: "default/" + x.name + " eth0"})
	conf(&n.Host, x.veth, 0)
	n.Pods.Value = append(n.Pods.Value, p)
	n.Pods.Known = true
	return &n.Pods.Value[len(n.Pods.Value)-1]
}
