package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/node"
)

// Read lists what the kernel holds of ours: every route and rule of our
// protocol and what our nftables table holds. Links, addresses and sysctls
// carry no owner, so of those it reads the ones that want names.
func (k *Kernel) Read(want []node.Object) ([]node.Object, error) {
	links, err := retry(k.handle.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	byIndex := make(map[int]netlink.Link, len(links))
	byName := make(map[string]netlink.Link, len(links))
	for _, l := range links {
		byIndex[l.Attrs().Index] = l
		byName[l.Attrs().Name] = l
	}
	objects, err := k.readOwnerless(want, byName)
	if err != nil {
		return nil, err
	}
	routes, err := k.readRoutes(byIndex)
	if err != nil {
		return nil, err
	}
	rules, err := k.readRules()
	if err != nil {
		return nil, err
	}
	filter, err := k.readNFT()
	if err != nil {
		return nil, err
	}
	objects = append(objects, routes...)
	objects = append(objects, rules...)
	return append(objects, filter...), nil
}

func (k *Kernel) readOwnerless(want []node.Object, links map[string]netlink.Link) ([]node.Object, error) {
	var objects []node.Object
	for _, o := range want {
		switch o := o.(type) {
		case node.Sysctl:
			b, err := os.ReadFile(filepath.Join(k.procSys, o.Path))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("read sysctl %s: %w", o.Path, err)
			}
			objects = append(objects, node.Sysctl{Path: o.Path, Value: string(bytes.TrimSpace(b))})
		case node.Link:
			if l, ok := links[o.Name]; ok {
				a := l.Attrs()
				objects = append(objects, node.Link{Name: o.Name, MTU: a.MTU, Up: a.Flags&net.FlagUp != 0})
			}
		case node.Address:
			l, ok := links[o.Link]
			if !ok {
				continue
			}
			addrs, err := retry(func() ([]netlink.Addr, error) { return k.handle.AddrList(l, unix.AF_INET) })
			if err != nil {
				return nil, fmt.Errorf("list addresses of %s: %w", o.Link, err)
			}
			for _, a := range addrs {
				if p, ok := prefix(a.IPNet); ok && p == o.Prefix {
					objects = append(objects, o)
				}
			}
		}
	}
	return objects, nil
}

func (k *Kernel) readRoutes(links map[int]netlink.Link) ([]node.Object, error) {
	filter := &netlink.Route{Protocol: node.Protocol, Table: unix.RT_TABLE_UNSPEC}
	routes, err := retry(func() ([]netlink.Route, error) {
		return k.handle.RouteListFiltered(unix.AF_INET, filter, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	neighbors, err := k.permanentNeighbors()
	if err != nil {
		return nil, err
	}
	var objects []node.Object
	for _, r := range routes {
		dst, ok := prefix(r.Dst)
		if !ok {
			dst = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		}
		o := node.Route{Table: r.Table, Dst: dst, Metric: r.Priority, OnLink: r.Flags&unix.RTNH_F_ONLINK != 0}
		if r.Type == unix.RTN_UNREACHABLE {
			o.Kind = node.Unreachable
		}
		if l, ok := links[r.LinkIndex]; ok && o.Kind == node.Unicast {
			o.Link = l.Attrs().Name
		}
		o.Gateway, o.PrefSrc = address(r.Gw), address(r.Src)
		if o.Kind == node.Unicast && !o.Gateway.IsValid() {
			o.Neighbor = neighbors[neighborKey{r.LinkIndex, dst.Addr()}]
		}
		objects = append(objects, o)
	}
	return objects, nil
}

type neighborKey struct {
	index int
	addr  netip.Addr
}

func (k *Kernel) permanentNeighbors() (map[neighborKey]node.MACString, error) {
	neighbors, err := retry(func() ([]netlink.Neigh, error) { return k.handle.NeighList(0, unix.AF_INET) })
	if err != nil {
		return nil, fmt.Errorf("list neighbors: %w", err)
	}
	m := make(map[neighborKey]node.MACString, len(neighbors))
	for _, n := range neighbors {
		if n.State&unix.NUD_PERMANENT != 0 {
			m[neighborKey{n.LinkIndex, address(n.IP)}] = node.MACString(n.HardwareAddr.String())
		}
	}
	return m, nil
}

func (k *Kernel) readRules() ([]node.Object, error) {
	rules, err := retry(func() ([]netlink.Rule, error) { return k.handle.RuleList(unix.AF_INET) })
	if err != nil {
		return nil, fmt.Errorf("list rules: %w", err)
	}
	var objects []node.Object
	for _, r := range rules {
		if r.Protocol != node.Protocol {
			continue
		}
		o := node.Rule{Priority: r.Priority, Table: r.Table, Mark: r.Mark}
		if r.Mask != nil {
			o.Mask = *r.Mask
		}
		o.From, _ = prefix(r.Src)
		objects = append(objects, o)
	}
	return objects, nil
}

func prefix(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(address(n.IP), ones), true
}

func address(ip net.IP) netip.Addr {
	a, ok := netip.AddrFromSlice(ip)
	if !ok {
		return netip.Addr{}
	}
	return a.Unmap()
}
