package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/node"
)

// Read lists what the kernel holds of ours: every route and rule of our
// protocol and what our nftables table holds. Links, addresses and sysctls
// carry no owner, so of those it reads the ones that want names.
//
// What of ours has no words in package node is listed too, as an object that
// equals nothing that can be wanted.
func (k *Kernel) Read(want []node.Object) ([]node.Object, error) {
	links, err := readLinks(k.route)
	if err != nil {
		return nil, err
	}
	k.devices = make(map[string]int32, len(links))
	for _, l := range links {
		k.devices[l.name] = l.index
	}
	objects, err := k.readOwnerless(want, links)
	if err != nil {
		return nil, err
	}
	routes, err := k.routeObjects(links)
	if err != nil {
		return nil, err
	}
	rules, err := readRules(k.route)
	if err != nil {
		return nil, err
	}
	table, err := k.readTable()
	if err != nil {
		return nil, err
	}
	objects = append(objects, routes...)
	for _, r := range rules {
		if r.odd {
			objects = append(objects, odd{rank: node.RankRule, what: r.Rule.String() + " and more", raw: r.raw})
		} else {
			objects = append(objects, r.Rule)
		}
	}
	return append(objects, table...), nil
}

func (k *Kernel) readOwnerless(want []node.Object, links []link) ([]node.Object, error) {
	byName := make(map[string]link, len(links))
	for _, l := range links {
		byName[l.name] = l
	}
	var have map[ifAddr]bool // read when the first one is wanted
	objects, err := k.Sysctls(want)
	if err != nil {
		return nil, err
	}
	for _, o := range want {
		switch o := o.(type) {
		case node.Link:
			if l, ok := byName[o.Name]; ok {
				objects = append(objects, l.object(o))
			}
		case node.Address:
			if have == nil {
				addrs, err := readAddresses(k.route, 0)
				if err != nil {
					return nil, err
				}
				have = make(map[ifAddr]bool, len(addrs))
				for _, a := range addrs {
					have[a] = true
				}
			}
			if l, ok := byName[o.Link]; ok && have[ifAddr{l.index, o.Prefix}] {
				objects = append(objects, o)
			}
		}
	}
	return objects, nil
}

// routeObjects lists our routes. Of two with the same key the kernel follows the
// first; the second is odd.
func (k *Kernel) routeObjects(links []link) ([]node.Object, error) {
	routes, err := readRoutes(k.route, node.Protocol, 0)
	if err != nil {
		return nil, err
	}
	neighbors, err := readNeighbors(k.route, 0)
	if err != nil {
		return nil, err
	}
	names := make(map[int32]string, len(links))
	for _, l := range links {
		names[l.index] = l.name
	}
	type dst struct {
		index int32
		addr  string
	}
	macs := make(map[dst]string, len(neighbors))
	for _, n := range neighbors {
		if n.permanent {
			macs[dst{n.index, n.addr}] = n.mac
		}
	}
	type key struct {
		table, metric int
		dst           netip.Prefix
	}
	seen := make(map[key]bool, len(routes))
	objects := make([]node.Object, 0, len(routes))
	for _, r := range routes {
		if k := (key{r.Table, r.Metric, r.Dst}); !r.odd && seen[k] {
			r.odd, r.raw = true, string(routeMessage(unix.RTM_DELROUTE, 0, r.Route, r.index).fixed())
		} else {
			seen[k] = true
		}
		if r.odd {
			objects = append(objects, odd{rank: node.RankRoute, what: r.Route.String() + " and more", raw: r.raw})
			continue
		}
		if r.Kind == node.Unicast {
			r.Link = names[r.index]
		}
		if r.Kind == node.Unicast && !r.Gateway.IsValid() {
			if mac, ok := macs[dst{r.index, string(r.Dst.Addr().AsSlice())}]; ok {
				r.Neighbor = macString(mac)
			}
		}
		objects = append(objects, r.Route)
	}
	return objects, nil
}

// Sysctls reads those that want names, and nothing else: the kernel tells nobody
// when accept_local or tcp_early_demux changes, so they are looked at more often
// than the rest. It costs some microseconds for each. One that does not exist is
// left out.
func (k *Kernel) Sysctls(want []node.Object) ([]node.Object, error) {
	var have []node.Object
	for _, o := range want {
		s, ok := o.(node.Sysctl)
		if !ok {
			continue
		}
		value, err := k.readSysctl(s.Path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		have = append(have, node.Sysctl{Path: s.Path, Value: value})
	}
	return have, nil
}

// HostRPFilter is net.ipv4.conf.all.rp_filter, which is the host's.
func (k *Kernel) HostRPFilter() (int, error) {
	const path = "net/ipv4/conf/all/rp_filter"
	value, err := k.readSysctl(path)
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(value)
	if err != nil {
		return 0, fmt.Errorf("read sysctl %s: %w", path, err)
	}
	return n, nil
}

func (k *Kernel) readSysctl(path string) (string, error) {
	b, err := os.ReadFile(filepath.Join(k.procSys, path))
	if err != nil {
		return "", fmt.Errorf("read sysctl %s: %w", path, err)
	}
	return strings.TrimSpace(string(b)), nil
}
