package main

import (
	"fmt"
	"net/netip"

	"github.com/fairway-cni/fairway/internal/core/path"
)

// nodeport is a node of the Amazon VPC CNI with its NodePort support off, and
// kube-proxy in iptables mode: a Service with a pod on each of two ENIs, that a
// machine of the VPC asks by the node's port.
func nodeport() *path.World {
	v := network("vpc", "eu-west-1", prefix("10.0.0.0/16"), prefix("10.0.1.0/24"))
	w := &path.World{Form: path.Form, Name: "nodeport", VPCs: []path.VPC{v}, Peerings: path.Known([]path.Peering{})}
	n := path.Node{Name: "node-1", Host: host("eth0", "eni-01", prefix("10.0.1.4/24"), "10.0.1.1")}
	n.Host.Sysctls.Value["net/ipv4/conf/eth0/rp_filter"] = "2"
	n.Host.Devices.Value = append(n.Host.Devices.Value, path.Device{Name: "eth1", Kind: "eni", MTU: 9001,
		Addresses: []netip.Prefix{prefix("10.0.1.14/24")}, ENI: "eni-02"})
	conf(&n.Host, "eth1", 0)
	routes(&n.Host, "local 10.0.1.14 dev eth1 table local proto kernel src 10.0.1.14",
		"10.0.1.1 dev eth1 scope link table 2", "default via 10.0.1.1 dev eth1 table 2")
	rules(&n.Host, "1024: from all fwmark 0x80/0x80 lookup main", "32765: from 10.0.1.14 lookup 2")
	pods := []string{"10.0.1.5", "10.0.1.15"}
	for i, a := range pods {
		veth := fmt.Sprintf("eni%011d", i+1)
		p := pod(&n, wire{fmt.Sprintf("web-%d", i+1), a, veth, "169.254.1.1", 8080})
		p.Net.Neighbours = path.Known([]path.Neighbour{{Addr: addr("169.254.1.1"), Device: "eth0"}})
		routes(&n.Host, a+" dev "+veth+" scope link")
		rules(&n.Host, "512: from all to "+a+" lookup main")
	}
	rules(&n.Host, "1536: from 10.0.1.15 lookup 2")
	n.Host.Iptables = path.Known(must(path.ParseIptables(proxyRules(pods))))
	eni(&w.VPCs[0], "eni-01", "10.0.1.4", pods[0])
	eni(&w.VPCs[0], "eni-02", "10.0.1.14", pods[1])

	c := path.Node{Name: "client", Host: host("eth0", "eni-09", prefix("10.0.1.50/24"), "10.0.1.1")}
	c.Pods = path.Known([]path.Pod{})
	eni(&w.VPCs[0], "eni-09", "10.0.1.50")
	w.Nodes = []path.Node{n, c}
	w.Services = path.Known([]path.Service{{Namespace: "default", Name: "web", Addr: addr("10.100.0.10"),
		Ports: []path.ServicePort{{Proto: path.TCP, Port: 80, NodePort: 30080}},
		Backends: path.Known([]path.Backend{{Addr: addr("10.0.1.5"), Port: 8080, Proto: path.TCP, Ready: true},
			{Addr: addr("10.0.1.15"), Port: 8080, Proto: path.TCP, Ready: true}})}})
	return w
}

// proxyRules are what the two programs write, without what this Service never
// meets.
func proxyRules(pods []string) []string {
	out := []string{
		"*mangle",
		":PREROUTING ACCEPT [0:0]",
		"-A PREROUTING -i eni+ -m comment --comment \"AWS, primary ENI\" -j CONNMARK --restore-mark --nfmask 0x80 --ctmask 0x80",
		"COMMIT",
		"*filter",
		":FORWARD ACCEPT [0:0]",
		":KUBE-FORWARD - [0:0]",
		"-A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD",
		"-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP",
		"-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT",
		"COMMIT",
		"*nat",
		":PREROUTING ACCEPT [0:0]",
		":OUTPUT ACCEPT [0:0]",
		":POSTROUTING ACCEPT [0:0]",
	}
	for _, c := range []string{"AWS-SNAT-CHAIN-0", "KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-MARK-MASQ", "KUBE-POSTROUTING",
		"KUBE-EXT-WEB", "KUBE-SVC-WEB", "KUBE-SEP-1", "KUBE-SEP-2"} {
		out = append(out, ":"+c+" - [0:0]")
	}
	out = append(out,
		"-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES",
		"-A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES",
		"-A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING",
		"-A POSTROUTING -m comment --comment \"AWS SNAT CHAIN\" -j AWS-SNAT-CHAIN-0",
		"-A AWS-SNAT-CHAIN-0 -d 10.0.0.0/16 -m comment --comment \"AWS SNAT CHAIN\" -j RETURN",
		"-A AWS-SNAT-CHAIN-0 ! -o vlan+ -m comment --comment \"AWS, SNAT\" -m addrtype ! --dst-type LOCAL -j SNAT --to-source 10.0.1.4 --random-fully",
		"-A KUBE-SERVICES -d 10.100.0.10/32 -p tcp -m comment --comment \"default/web cluster IP\" -m tcp --dport 80 -j KUBE-SVC-WEB",
		"-A KUBE-SERVICES -m comment --comment \"kubernetes service nodeports\" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS",
		"-A KUBE-NODEPORTS -p tcp -m comment --comment \"default/web\" -m tcp --dport 30080 -j KUBE-EXT-WEB",
		"-A KUBE-EXT-WEB -m comment --comment \"masquerade traffic for default/web external destinations\" -j KUBE-MARK-MASQ",
		"-A KUBE-EXT-WEB -j KUBE-SVC-WEB",
		"-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000",
		"-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
		"-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0",
		"-A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully",
		"-A KUBE-SVC-WEB -m comment --comment \"default/web -> first\" -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-1",
		"-A KUBE-SVC-WEB -m comment --comment \"default/web -> second\" -j KUBE-SEP-2")
	for i, p := range pods {
		sep := fmt.Sprintf("-A KUBE-SEP-%d ", i+1)
		out = append(out, sep+"-s "+p+"/32 -m comment --comment \"default/web\" -j KUBE-MARK-MASQ",
			sep+"-p tcp -m comment --comment \"default/web\" -m tcp -j DNAT --to-destination "+p+":8080")
	}
	return append(out, "COMMIT")
}
