package bundle

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/fairway-cni/fairway/internal/core/path"
)

// renaming says what each kind of name in a world becomes.
type renaming struct {
	account, site, node, namespace, dns func(string) string
	pod, service                        func(namespace, name string) string
}

// apply replaces what the world's fields name.
func (n renaming) apply(w *path.World) {
	for i := range w.VPCs {
		v := &w.VPCs[i]
		v.Account = n.account(v.Account)
		if v.Name != v.ID {
			v.Name = n.site(v.Name)
		}
	}
	for i := range w.Nodes {
		o := &w.Nodes[i]
		o.Name, o.Cluster = n.node(o.Name), n.site(o.Cluster)
		n.peers(&o.Host)
		for j := range o.Pods.Value {
			p := &o.Pods.Value[j]
			p.Namespace, p.Name = n.namespace(p.Namespace), n.pod(p.Namespace, p.Name)
			n.peers(&p.Net)
		}
	}
	for i := range w.Services.Value {
		s := &w.Services.Value[i]
		s.Cluster, s.Namespace, s.Name = n.site(s.Cluster), n.namespace(s.Namespace), n.service(s.Namespace, s.Name)
		s.External = n.dns(s.External)
	}
	for i := range w.Pods.Value {
		p := &w.Pods.Value[i]
		p.Cluster, p.Node = n.site(p.Cluster), n.node(p.Node)
		p.Namespace, p.Name = n.namespace(p.Namespace), n.pod(p.Namespace, p.Name)
	}
}

// peers renames the pods that devices lead to.
func (n renaming) peers(ns *path.Namespace) {
	for i := range ns.Devices.Value {
		d := &ns.Devices.Value[i]
		id, dev, ok := strings.Cut(d.Peer, " ")
		if namespace, name, pod := strings.Cut(id, "/"); ok && pod {
			d.Peer = n.namespace(namespace) + "/" + n.pod(namespace, name) + " " + dev
		}
	}
}

// apart gives names to redacted worlds such that no two have one name: node-1 of
// two files is two nodes. Of a name that an earlier file has, that of the Nth file
// ends in ".N".
func apart(sources []Source) ([]Source, error) {
	out := slices.Clone(sources)
	used := map[string]bool{}
	nth := 0
	for i := range out {
		if !out[i].Redacted {
			continue
		}
		nth++
		c, err := clone(out[i].World)
		if err != nil {
			return nil, fmt.Errorf("join %s: %w", out[i].Name, err)
		}
		mine := map[string]bool{}
		other := func(name string) string {
			if name == "" || slices.Contains(commonNamespaces, name) {
				return name
			}
			if used[name] {
				name = fmt.Sprintf("%s.%d", name, nth)
			}
			mine[name] = true
			return name
		}
		within := func(_, name string) string { return other(name) }
		same := func(name string) string { return name }
		renaming{same, other, other, other, same, within, within}.apply(c)
		for name := range mine {
			used[name] = true
		}
		out[i].World = c
	}
	return out, nil
}

// clone is a copy that shares nothing.
func clone(w *path.World) (*path.World, error) {
	b, err := json.Marshal(w)
	if err != nil {
		return nil, err
	}
	c := &path.World{}
	return c, json.Unmarshal(b, c)
}
