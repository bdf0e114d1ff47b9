package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/diff"
	"github.com/fairway-cni/fairway/internal/core/node"
)

// Apply carries out changes in the order of [diff.Compare]: what is added to
// routing, then one nftables transaction with all additions and removals, then
// what is removed from routing. It goes on past a failure, and returns all
// failures joined, each naming its change.
func (k *Kernel) Apply(changes []diff.Change) error {
	var errs []error
	var elements []diff.Change
	removing := false
	flush := func() {
		if len(elements) > 0 {
			errs = append(errs, k.applyNFT(elements))
			elements = nil
		}
	}
	for _, c := range changes {
		if !removing && c.Verb == diff.Remove && !isNFT(c) {
			removing = true
			flush()
		}
		if isNFT(c) {
			elements = append(elements, c)
			continue
		}
		if err := k.applyRoute(c); err != nil {
			errs = append(errs, fmt.Errorf("%s %s: %w", c.Verb, c.Key, err))
		}
	}
	flush()
	return errors.Join(errs...)
}

func isNFT(c diff.Change) bool {
	o := c.New
	if o == nil {
		o = c.Old
	}
	return o.Rank() >= node.RankChain
}

func (k *Kernel) applyRoute(c diff.Change) error {
	if c.Verb == diff.Remove {
		return k.remove(c.Old)
	}
	switch o := c.New.(type) {
	case node.Sysctl:
		return k.writeSysctl(o)
	case node.Link:
		return k.setLink(o)
	case node.Address:
		return k.addAddress(o)
	case node.Route:
		return k.writeRoute(o)
	case node.Rule:
		if old, ok := c.Old.(node.Rule); ok {
			if err := k.removeRule(old); err != nil {
				return err
			}
		}
		if err := k.handle.RuleAdd(rule(o)); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		return nil
	default:
		return fmt.Errorf("no way to write a %T", o)
	}
}

func (k *Kernel) remove(o node.Object) error {
	switch o := o.(type) {
	case node.Route:
		r := routeRequest(unix.RTM_DELROUTE, 0, node.Route{Table: o.Table, Dst: o.Dst, Metric: o.Metric, Kind: o.Kind}, 0)
		r.what, r.absent = "remove "+o.Key(), true
		return k.route.do([]request{r})
	case node.Rule:
		return k.removeRule(o)
	default:
		return nil // addresses, links and sysctls carry no owner: never removed
	}
}

func (k *Kernel) removeRule(o node.Rule) error {
	if err := k.handle.RuleDel(rule(o)); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

// writeRoute writes the route and, in the same batch, the neighbour that goes
// with it.
func (k *Kernel) writeRoute(rt node.Route) error {
	var index int
	if rt.Link != "" {
		var err error
		if index, err = k.index(rt.Link); err != nil {
			return err
		}
	}
	batch := []request{routeRequest(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, rt, int32(index))}
	if rt.Neighbor != "" {
		batch = append(batch, permanentNeighbor(int32(index), rt.Dst.Addr(), rt.Neighbor))
	}
	return k.route.do(batch)
}

func (k *Kernel) writeSysctl(s node.Sysctl) error {
	path := filepath.Join(k.procSys, s.Path)
	have, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if string(bytes.TrimSpace(have)) == s.Value {
		return nil // a write would wake whoever watches the file
	}
	return os.WriteFile(path, []byte(s.Value), 0)
}

func (k *Kernel) setLink(l node.Link) error {
	link, err := k.handle.LinkByName(l.Name)
	if err != nil {
		return err
	}
	if link.Attrs().MTU != l.MTU {
		if err := k.handle.LinkSetMTU(link, l.MTU); err != nil {
			return fmt.Errorf("set mtu %d: %w", l.MTU, err)
		}
	}
	if l.Up {
		return k.handle.LinkSetUp(link)
	}
	return k.handle.LinkSetDown(link)
}

func (k *Kernel) addAddress(a node.Address) error {
	link, err := k.handle.LinkByName(a.Link)
	if err != nil {
		return err
	}
	err = k.handle.AddrAdd(link, &netlink.Addr{IPNet: ipNet(a.Prefix), Flags: unix.IFA_F_NOPREFIXROUTE})
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

func rule(o node.Rule) *netlink.Rule {
	r := netlink.NewRule()
	r.Family = unix.AF_INET
	r.Priority = o.Priority
	r.Table = o.Table
	r.Protocol = node.Protocol
	if o.From.IsValid() {
		r.Src = ipNet(o.From)
	}
	if o.Mask != 0 {
		mask := o.Mask
		r.Mark, r.Mask = o.Mark, &mask
	}
	return r
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
