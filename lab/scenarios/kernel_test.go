package scenarios

import (
	"cmp"
	"fmt"
	"net"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

// kernelState lists what a network namespace holds, in the kernel's words and
// without any code of the agent: one line for each thing, sorted.
func kernelState(ns *os.File) ([]string, error) {
	var lines []string
	err := netns.Do(ns, func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		routing, err := routingState(h)
		if err != nil {
			return err
		}
		filter, err := filterState()
		lines = append(routing, filter...)
		return err
	})
	slices.Sort(lines)
	return lines, err
}

func routingState(h *netlink.Handle) ([]string, error) {
	var lines []string
	links, err := h.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	names := map[int]string{}
	for _, l := range links {
		a := l.Attrs()
		names[a.Index] = a.Name
		// Not its state: carrier and promiscuity come and go with others.
		lines = append(lines, fmt.Sprintf("link %s index %d type %s mac %s mtu %d group %#x admin %t",
			a.Name, a.Index, l.Type(), a.HardwareAddr, a.MTU, a.Group, a.RawFlags&unix.IFF_UP != 0))
	}
	addrs, err := h.AddrList(nil, unix.AF_INET)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		lines = append(lines, fmt.Sprintf("addr %s dev %s flags %#x", a.IPNet, names[a.LinkIndex], a.Flags))
	}
	routes, err := h.RouteListFiltered(unix.AF_INET, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		lines = append(lines, fmt.Sprintf("route table %d type %d dst %s via %s dev %s src %s metric %d proto %d flags %#x scope %d",
			r.Table, r.Type, r.Dst, r.Gw, names[r.LinkIndex], r.Src, r.Priority, r.Protocol, r.Flags, r.Scope))
	}
	rules, err := h.RuleList(unix.AF_INET)
	if err != nil {
		return nil, fmt.Errorf("list rules: %w", err)
	}
	for _, r := range rules {
		mask := uint32(0)
		if r.Mask != nil {
			mask = *r.Mask
		}
		lines = append(lines, fmt.Sprintf("rule %d from %s mark %#x/%#x table %d proto %d", r.Priority, r.Src, r.Mark, mask, r.Table, r.Protocol))
	}
	neighbors, err := h.NeighList(0, unix.AF_INET)
	if err != nil {
		return nil, fmt.Errorf("list neighbours: %w", err)
	}
	for _, n := range neighbors {
		if n.State&unix.NUD_PERMANENT != 0 {
			lines = append(lines, fmt.Sprintf("neigh %s dev %s lladdr %s", n.IP, names[n.LinkIndex], n.HardwareAddr))
		}
	}
	return lines, nil
}

// filterState lists every nftables table with all that is in it. Counters are
// left out, as packets change them, and so are handles, which are new in each
// transaction.
func filterState() ([]string, error) {
	c, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	tables, err := c.ListTables()
	if err != nil {
		return nil, fmt.Errorf("list nftables tables: %w", err)
	}
	chains, err := c.ListChains()
	if err != nil {
		return nil, fmt.Errorf("list nftables chains: %w", err)
	}
	var lines []string
	for _, t := range tables {
		lines = append(lines, fmt.Sprintf("table %d %s", t.Family, t.Name))
		sets, err := c.GetSets(t)
		if err != nil {
			return nil, fmt.Errorf("list nftables sets: %w", err)
		}
		for _, s := range sets {
			elements, err := c.GetSetElements(s)
			if err != nil {
				return nil, fmt.Errorf("list nftables set %s: %w", s.Name, err)
			}
			lines = append(lines, fmt.Sprintf("set %s %s map %t", t.Name, s.Name, s.IsMap))
			for _, e := range elements {
				lines = append(lines, fmt.Sprintf("element %s %s %x end %t: %x", t.Name, s.Name, e.Key, e.IntervalEnd, e.Val))
			}
		}
		for _, ch := range chains {
			if ch.Table.Name != t.Name || ch.Table.Family != t.Family {
				continue
			}
			text, err := chainState(c, t, ch)
			if err != nil {
				return nil, err
			}
			lines = append(lines, text)
		}
	}
	return lines, nil
}

// chainState is one line, as the order of rules matters.
func chainState(c *nftables.Conn, t *nftables.Table, ch *nftables.Chain) (string, error) {
	rules, err := c.GetRules(t, ch)
	if err != nil {
		return "", fmt.Errorf("list nftables chain %s: %w", ch.Name, err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "chain %s %s type %q", t.Name, ch.Name, ch.Type)
	if ch.Hooknum != nil && ch.Priority != nil {
		fmt.Fprintf(&b, " hook %d priority %d", *ch.Hooknum, *ch.Priority)
	}
	for _, r := range rules {
		b.WriteString(" |")
		for _, e := range r.Exprs {
			fmt.Fprintf(&b, " %T%+v", e, reflect.Indirect(reflect.ValueOf(e)))
		}
	}
	return b.String(), nil
}

// difference lists the lines that only one of two sorted lists has.
func difference(before, after []string) []string {
	var diff []string
	for len(before) > 0 || len(after) > 0 {
		switch {
		case len(after) == 0 || len(before) > 0 && cmp.Compare(before[0], after[0]) < 0:
			diff, before = append(diff, "- "+before[0]), before[1:]
		case len(before) == 0 || before[0] != after[0]:
			diff, after = append(diff, "+ "+after[0]), after[1:]
		default:
			before, after = before[1:], after[1:]
		}
	}
	return diff
}

// deleteFilter removes an nftables table of the calling thread's namespace.
func deleteFilter(name string) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	c.DelTable(&nftables.Table{Name: name, Family: nftables.TableFamilyINet})
	return c.Flush()
}

func ipNet(cidr string) *net.IPNet {
	_, n, err := net.ParseCIDR(cidr)
	if err != nil {
		panic(err) // a constant of a test
	}
	return n
}
