package symmetry

import (
	"fmt"
	"net/netip"

	"github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/internal/core/path"
)

// eni is one that its groups let everything through.
func eni(id, subnet string, addrs []netip.Addr, prefixes []netip.Prefix) path.ENI {
	return path.ENI{ID: id, Subnet: subnet, Addresses: addrs, Prefixes: prefixes, Groups: path.Known([]string{open}),
		Check: path.Known(true), Attached: path.Known(true)}
}

// filters lets everything pass in a VPC.
func filters(v *path.VPC) {
	v.Groups = path.Known([]path.Group{{ID: open, In: parse[path.GroupRule]("all from 0.0.0.0/0"), Out: parse[path.GroupRule]("all to 0.0.0.0/0")}})
	v.ACLs = path.Known([]path.ACL{{ID: "acl-" + v.ID, Default: true, In: parse[path.ACLRule]("100 allow all from 0.0.0.0/0"), Out: parse[path.ACLRule]("100 allow all to 0.0.0.0/0")}})
	v.PrefixLists = path.Known(map[string][]netip.Prefix{})
	v.NATGateways = path.Known([]path.NATGateway{})
}

// line is a form that is read from a line of text.
type line[T any] interface {
	*T
	UnmarshalText([]byte) error
}

// parse reads lines that this package has written.
func parse[T any, P line[T]](lines ...string) []T {
	var all []T
	for _, text := range lines {
		var v T
		if err := P(&v).UnmarshalText([]byte(text)); err != nil {
			panic(fmt.Sprintf("%q: %v", text, err)) // a defect of this package
		}
		all = append(all, v)
	}
	return all
}

// kernelRules are those of a namespace that nobody has touched.
func kernelRules() path.Part[[]path.IPRule] {
	return path.Known(parse[path.IPRule]("0: from all lookup local", "32766: from all lookup main", "32767: from all lookup default"))
}

// plain is a host with one ENI, that answers on the probes' port.
func plain(name, site, eniID string, addr netip.Addr) path.Node {
	gateway := addr.Prev()
	ns := path.Namespace{
		Devices: path.Known([]path.Device{{Name: "lo", Kind: "loopback", MTU: 65536},
			{Name: "eth0", Kind: "eni", MTU: 9001, Addresses: []netip.Prefix{netip.PrefixFrom(addr, 32)}, ENI: eniID}}),
		Rules: kernelRules(),
		Routes: path.Known(parse[path.IPRoute](
			fmt.Sprintf("local %s dev eth0 table local proto kernel src %[1]s", addr),
			fmt.Sprintf("default via %s dev eth0 onlink", gateway))),
	}
	finish(&ns)
	return path.Node{Name: name, Cluster: site, Host: ns, Pods: path.Known([]path.Pod{})}
}

// podSide is a pod's namespace as [kernel.Wire] makes it.
func podSide(p node.Attachment, mtu int) path.Namespace {
	ns := path.Namespace{
		Devices: path.Known([]path.Device{{Name: "lo", Kind: "loopback", MTU: 65536},
			{Name: "eth0", Kind: "veth", MTU: mtu, Addresses: []netip.Prefix{netip.PrefixFrom(p.Addr, 32)}, Peer: "host " + p.Veth}}),
		Rules: kernelRules(),
		Routes: path.Known(parse[path.IPRoute](
			fmt.Sprintf("local %s dev eth0 table local proto kernel src %[1]s", p.Addr),
			fmt.Sprintf("default via %s dev eth0", node.GatewayAddr),
			fmt.Sprintf("%s dev eth0 scope link", node.GatewayAddr))),
	}
	finish(&ns)
	ns.Neighbours = path.Known([]path.Neighbour{{Addr: node.GatewayAddr, Device: "eth0"}})
	return ns
}

// finish is what a plain namespace has beside its routes.
func finish(ns *path.Namespace) {
	ns.Neighbours = path.Known([]path.Neighbour{})
	ns.Sysctls = path.Known(map[string]string{"net/ipv4/ip_forward": "0", "net/ipv4/conf/all/rp_filter": "0", "net/ipv4/conf/eth0/rp_filter": "0",
		"net/ipv4/conf/all/accept_local": "0", "net/ipv4/conf/eth0/accept_local": "0",
		"net/ipv4/conf/all/src_valid_mark": "0", "net/ipv4/conf/eth0/src_valid_mark": "0"})
	ns.Nftables, ns.Iptables = path.Known(path.Ruleset{}), path.Known(path.Iptables{})
	ns.Sockets = path.Known([]path.Socket{{Proto: path.TCP, Addr: netip.IPv4Unspecified(), Port: port}})
}
