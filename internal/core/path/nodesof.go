package path

import (
	"net/netip"
	"slices"
	"strings"
)

// NodesOf names the nodes that an end of a packet is on, by what the API server lists: a
// pod's, those of a Service's backends, or the one that the end names. There are none
// for what is on no node, or in no list.
func (w *World) NodesOf(end string) (names []string) {
	var addrs []netip.Addr
	_, name, _, service := cutService(end)
	if service {
		if s, err := oneService(w.Services.Value, "", name); err == nil && s != nil {
			for _, b := range s.Backends.Value {
				addrs = append(addrs, b.Addr)
			}
		}
	} else {
		name, _, _ = cutPort(end) // a port says nothing of the node
		if site, rest, ok := strings.Cut(name, ":"); ok && site != "node" {
			name = rest
		}
		if node, ok := strings.CutPrefix(name, "node:"); ok {
			return []string{node}
		}
		if a, err := netip.ParseAddr(name); err == nil {
			addrs = append(addrs, a)
		}
	}
	for _, p := range w.Pods.Value {
		if slices.Contains(addrs, p.Addr) || !service && (p.ID() == name || p.Name == name) {
			names = append(names, p.Node)
		}
	}
	return names
}
