package example

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/fairway-cni/fairway/internal/core/path"
)

// Crowd is an example on each of whose nodes there are n pods: copies of the first,
// with rules, routes and devices like its, and the same ENI. Of Fairway's example
// the sets of nftables are left as they are: a lookup there does not depend on
// their size.
func Crowd(name string, n int) (*path.World, error) {
	_, w, err := Load(name)
	if err != nil {
		return nil, err
	}
	for k := range w.Nodes {
		node := &w.Nodes[k]
		first := node.Pods.Value[0]
		node.Pods.Value = node.Pods.Value[:1:1]
		for i := range n - 1 {
			at := first.Addr.As4()
			copyPod(w, node, &first, podName{
				name: fmt.Sprintf("p%d", i), veth: fmt.Sprintf("v%d", i),
				addr: netip.AddrFrom4([4]byte{at[0], at[1], byte(16 + i/256), byte(i)}),
			})
		}
		node.Host.Rules.Value = besideFirst(node.Host.Rules.Value, first.Addr, node.Pods.Value[1:])
	}
	return w, nil
}

type podName struct {
	name, veth string
	addr       netip.Addr
}

func copyPod(w *path.World, node *path.Node, first *path.Pod, to podName) {
	single := func(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, 32) }
	p := *first
	p.Name, p.Addr = to.name, to.addr
	p.Net.Devices = path.Known([]path.Device{{Name: "eth0", Kind: "veth", MTU: 9001, Addresses: []netip.Prefix{single(to.addr)}, Peer: "host " + to.veth}})
	p.Net.Routes = path.Known([]path.IPRoute{{Kind: "local", Dst: single(to.addr), Dev: "eth0", Table: 255}})
	for _, r := range first.Net.Routes.Value {
		if r.Dst != single(first.Addr) {
			p.Net.Routes.Value = append(p.Net.Routes.Value, r)
		}
	}
	node.Pods.Value = append(node.Pods.Value, p)
	node.Host.Devices.Value = append(node.Host.Devices.Value, path.Device{Name: to.veth, Kind: "veth", MTU: 9001, Peer: p.ID() + " eth0"})
	for _, r := range node.Host.Routes.Value {
		if r.Dst == single(first.Addr) {
			if r.Dst = single(to.addr); r.Dev != "" {
				r.Dev = to.veth
			}
			node.Host.Routes.Value = append(node.Host.Routes.Value, r)
		}
	}
	for i := range w.VPCs {
		for j := range w.VPCs[i].ENIs.Value {
			e := &w.VPCs[i].ENIs.Value[j]
			for _, a := range e.Addresses {
				if a == first.Addr {
					e.Addresses = append(e.Addresses, to.addr)
					break
				}
			}
		}
	}
}

// besideFirst puts each pod's rules where those of the first are: rules are in the
// order of their priority.
func besideFirst(rules []path.IPRule, first netip.Addr, pods []path.Pod) []path.IPRule {
	of := netip.PrefixFrom(first, 32)
	var all []path.IPRule
	for _, r := range rules {
		all = append(all, r)
		for i := range pods {
			copied, single := r, netip.PrefixFrom(pods[i].Addr, 32)
			switch {
			case r.To == of:
				copied.To = single
			case r.From == of:
				copied.From = single
			default:
				continue
			}
			all = append(all, copied)
		}
	}
	return all
}

// Fleet is the world of seed003 with n nodes like node-a1, of 29 pods each.
func Fleet(n int) (*path.World, error) {
	_, w, err := Load("seed003")
	if err != nil {
		return nil, err
	}
	text, err := w.JSON()
	if err != nil {
		return nil, err
	}
	for i := 1; i < n; i++ {
		// Another node has its own third byte; the subnet is a /16 of one route.
		other := strings.NewReplacer("10.11.4.", fmt.Sprintf("10.11.%d.", 4+i), "node-a1", fmt.Sprintf("node-a%d", i+1),
			"eni-0a0", fmt.Sprintf("eni-%02da0", i), "default/", fmt.Sprintf("n%d/", i), `"namespace": "default"`, fmt.Sprintf(`"namespace": "n%d"`, i)).Replace(string(text))
		x, err := path.ParseWorld([]byte(other))
		if err != nil {
			return nil, fmt.Errorf("make node %d: %w", i+1, err)
		}
		w.Nodes = append(w.Nodes, x.Nodes[0])
		w.VPCs[0].ENIs.Value = append(w.VPCs[0].ENIs.Value, x.VPCs[0].ENIs.Value...)
	}
	return w, nil
}
