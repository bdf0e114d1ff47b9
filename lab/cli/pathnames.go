package cli

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/lab/world"
)

// prefixes begin the identifiers of what a person meets in an explanation.
var prefixes = map[string]string{
	world.KindENI: "eni", world.KindRouteTable: "rtb", world.KindGroup: "sg", world.KindACL: "acl", world.KindSubnet: "subnet",
	world.KindPeering: "pcx", world.KindTransitGateway: "tgw", world.KindTransitVPC: "tgw-attach", world.KindTransitTable: "tgw-rtb",
	world.KindInternetGateway: "igw", world.KindNATGateway: "nat", world.KindVPC: "vpc",
}

// names gives identifiers for people: eni-node-ens6 for an ENI's, rtb-main for a
// route table's. What has several names gets its own before that of what it
// serves; of two with one name each gets that of its VPC too.
func names(objects []world.Object) map[string]string {
	short := func(o world.Object) string {
		if o.Kind == world.KindENI {
			return strings.Trim(o.Scope+"-"+o.Name, "-")
		}
		return o.Name
	}
	rank := func(o world.Object) int {
		switch {
		case o.Kind == world.KindENI && o.Scope != "": // by its device, also where it has a tag
			return 0
		case o.After == "":
			return 1
		case o.After == world.KindVPC || o.After == world.KindTransitGateway:
			return 2
		}
		return 3
	}
	best := map[string]world.Object{}
	owners := map[string][]string{}
	for _, o := range objects {
		prefix := prefixes[o.Kind]
		if prefix == "" {
			continue
		}
		if old, ok := best[o.ID]; !ok || rank(o) < rank(old) {
			best[o.ID] = o
		}
	}
	for id, o := range best {
		key := prefixes[o.Kind] + "-" + short(o)
		owners[key] = append(owners[key], id)
	}
	out := map[string]string{}
	for id, o := range best {
		name := prefixes[o.Kind] + "-" + short(o)
		if len(owners[name]) > 1 || o.Name == "default" {
			name = prefixes[o.Kind] + "-" + cmp.Or(o.Scope, "lab") + "-" + short(o)
		}
		out[id] = strings.ReplaceAll(name, "/", "-")
	}
	return out
}

// named is the world with names for identifiers, and the replacement itself, for
// what else names something.
func named(w *path.World, objects []world.Object) (*path.World, *strings.Replacer, error) {
	var pairs []string
	for id, name := range names(objects) {
		pairs = append(pairs, id, name)
	}
	r := strings.NewReplacer(pairs...)
	b, err := w.JSON()
	if err != nil {
		return nil, nil, fmt.Errorf("name the parts of the world: %w", err)
	}
	var out path.World
	if err := json.Unmarshal([]byte(r.Replace(string(b))), &out); err != nil {
		return nil, nil, fmt.Errorf("name the parts of the world: %w", err)
	}
	return &out, r, nil
}

// listen has somebody listen on the port in every network, as while a probe runs.
func listen(w *path.World, proto path.Proto, port uint16) {
	s := path.Socket{Proto: proto, Addr: netip.IPv4Unspecified(), Port: port}
	add := func(n *path.Namespace) { n.Sockets.Value = append(slices.Clip(n.Sockets.Value), s) }
	for i := range w.Nodes {
		n := &w.Nodes[i]
		add(&n.Host)
		for j := range n.Pods.Value {
			add(&n.Pods.Value[j].Net)
		}
	}
}
