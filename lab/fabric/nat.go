package fabric

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

// A NAT gateway is an ENI whose guest is the fabric: a namespace with one device,
// in which the kernel tracks connections and translates. So its subnet's route
// table and network ACL hold for it as for any ENI, and the way in is a route to
// an ENI.
//
//	i-a -> from_eni -> table of i-a's subnet -> to_eni -> nat0 -+
//	                                                           | conntrack, snat to Address
//	igw <- table of the NAT gateway's subnet <- from_eni <------+

const (
	natDevice = "nat0"
	natTable  = "fairway"

	ethernetHeader = 14 // bytes, which nft does not count
)

// natSysctls: an idle connection is forgotten after 350 s. Source: "NAT gateway
// basics", Amazon VPC User Guide.
var natSysctls = append(slices.Clone(sysctls),
	sysctl{"netfilter/nf_conntrack_tcp_timeout_established", "350"})

// natGuest is the name of a NAT gateway's namespace among the guests: none that
// AddGuest takes.
func natGuest(id string) string { return "nat:" + id }

// eni is the NAT gateway's place in the VPC.
func (g NATGateway) eni(v VPC) (ENI, error) {
	if !g.Address.Is4() {
		return ENI{}, fmt.Errorf("address %s is not IPv4", g.Address)
	}
	i := slices.IndexFunc(v.Subnets, func(s Subnet) bool { return s.ID == g.Subnet })
	if i < 0 {
		return ENI{}, fmt.Errorf("no subnet %q in vpc %s", g.Subnet, v.ID)
	}
	h := fnv.New32a()
	h.Write([]byte(g.ID))
	mac := MAC{0x02, 0x4e}
	binary.BigEndian.PutUint32(mac[2:], h.Sum32())
	return ENI{
		ID: g.ID, MAC: mac, Subnet: v.Subnets[i].CIDR, Primary: g.Address, SubnetID: g.Subnet,
		Guest: natGuest(g.ID), Device: natDevice, MTU: natMTU,
	}, nil
}

// openNATs makes the namespaces of new NAT gateways, for their ENIs to be
// plugged into.
func (f *Fabric) openNATs(vpcs []VPC) (errs []error) {
	for _, v := range vpcs {
		for _, g := range v.NATGateways {
			if _, ok := f.guests[natGuest(g.ID)]; ok {
				continue
			}
			ns, err := netns.New()
			var st unix.Stat_t
			if err == nil {
				err = unix.Fstat(int(ns.Fd()), &st)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("nat gateway %s: %w", g.ID, err))
				continue
			}
			f.guests[natGuest(g.ID)] = guest{ns, st.Ino}
		}
	}
	return errs
}

// closeNATs gives up the namespaces of those that are gone, unplugged by then.
func (f *Fabric) closeNATs(vpcs []VPC) {
	want := map[string]bool{}
	for _, v := range vpcs {
		for _, g := range v.NATGateways {
			want[natGuest(g.ID)] = true
		}
	}
	for id, g := range f.guests {
		if len(id) > 4 && id[:4] == "nat:" && !want[id] {
			g.netns.Close()
			delete(f.guests, id)
		}
	}
}

// syncNATGateway configures a NAT gateway's namespace, the guest of its ENI.
func (f *Fabric) syncNATGateway(v VPC, g NATGateway) error {
	ns := f.guests[natGuest(g.ID)].netns
	if ns == nil {
		return fmt.Errorf("nat gateway %s: %w", g.ID, ErrUnknownGuest)
	}
	e, err := g.eni(v)
	if err != nil {
		return err
	}
	err = netns.Do(ns, func() error {
		// Programs make conntrack's files appear; so they come first.
		if err := syncTranslation(int(ns.Fd()), g.Address); err != nil {
			return err
		}
		for _, s := range natSysctls {
			if err := setSysctl("/proc/sys/net/"+s.name, s.value); err != nil {
				return err
			}
		}
		return syncNATDevice(e)
	})
	if err == nil {
		err = f.vpcs[v.ID].startQueue(f.ports[e.ID].index)
	}
	if err != nil {
		return fmt.Errorf("nat gateway %s: %w", g.ID, err)
	}
	return nil
}

// syncNATDevice runs inside the namespace.
func syncNATDevice(e ENI) error {
	l, err := netlink.LinkByName(natDevice)
	if err != nil {
		return fmt.Errorf("find device %s: %w", natDevice, err)
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return fmt.Errorf("set %s up: %w", natDevice, err)
	}
	own := ipNet(netip.PrefixFrom(e.Primary, 32))
	have, err := dump(func() ([]netlink.Addr, error) { return netlink.AddrList(l, unix.AF_INET) })
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range have {
		if prefixOf(a.IPNet).Addr() != e.Primary {
			if err := netlink.AddrDel(l, &a); err != nil {
				return fmt.Errorf("remove address %s: %w", a.IPNet, err)
			}
		}
	}
	if err := netlink.AddrReplace(l, &netlink.Addr{IPNet: own}); err != nil {
		return fmt.Errorf("add address %s: %w", e.Primary, err)
	}
	router := sinkGateway.AsSlice()
	if err := netlink.NeighSet(&netlink.Neigh{
		LinkIndex: l.Attrs().Index, Family: unix.AF_INET, State: unix.NUD_PERMANENT, IP: router, HardwareAddr: RouterMAC[:],
	}); err != nil {
		return fmt.Errorf("add router as neighbour: %w", err)
	}
	err = netlink.RouteReplace(&netlink.Route{
		Dst: ipNet(everything), LinkIndex: l.Attrs().Index, Gw: router, Flags: int(netlink.FLAG_ONLINK), Protocol: unix.RTPROT_STATIC,
	})
	if err != nil {
		return fmt.Errorf("add default route: %w", err)
	}
	return nil
}

// natChain is a chain of the translation and its one-line rules.
type natChain struct {
	name  string
	hook  *nftables.ChainHook
	prio  *nftables.ChainPriority
	kind  nftables.ChainType
	rules [][]expr.Any
}

// natChains in nft's language:
//
//	chain input       { hook input: counter drop }      # belongs to no connection
//	chain forward     { hook forward: ct state invalid counter drop
//	                    ip protocol != { tcp, udp, icmp } counter drop }
//	chain postrouting { hook postrouting: snat to ADDRESS }
//
// An answer never gets to input: conntrack gives it the address that asked, and
// it is forwarded.
func natChains(addr netip.Addr) []natChain {
	drop := []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}}
	// invalid is bit 0 of ct state.
	invalid := append([]expr.Any{
		&expr.Ct{Register: 1, Key: expr.CtKeySTATE},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(1), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}, drop...)
	other := []expr.Any{&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 9, Len: 1}}
	for _, p := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_ICMP} {
		other = append(other, &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{p}})
	}
	return []natChain{
		{"input", nftables.ChainHookInput, nftables.ChainPriorityFilter, nftables.ChainTypeFilter, [][]expr.Any{drop}},
		{"forward", nftables.ChainHookForward, nftables.ChainPriorityFilter, nftables.ChainTypeFilter, [][]expr.Any{
			invalid, append(other, drop...),
		}},
		{"postrouting", nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource, nftables.ChainTypeNAT, [][]expr.Any{{
			&expr.Immediate{Register: 1, Data: addr.AsSlice()},
			&expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1},
		}}},
	}
}

// syncTranslation writes the rules unless they are there: the counters live in
// them. The address is the table's name, so that another one is another table.
func syncTranslation(nsFD int, addr netip.Addr) error {
	c, err := nftables.New(nftables.WithNetNSFd(nsFD))
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	chains := natChains(addr)
	name := natTable + "-" + addr.String()
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return fmt.Errorf("list nftables: %w", err)
	}
	there := false
	for _, t := range tables {
		if t.Name == name && natRulesThere(c, t, chains) {
			there = true
			continue
		}
		c.DelTable(t)
	}
	if !there {
		t := c.AddTable(&nftables.Table{Name: name, Family: nftables.TableFamilyIPv4})
		for _, ch := range chains {
			chain := c.AddChain(&nftables.Chain{Name: ch.name, Table: t, Hooknum: ch.hook, Priority: ch.prio, Type: ch.kind})
			for _, exprs := range ch.rules {
				c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: exprs})
			}
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("write nftables: %w", err)
	}
	return nil
}

func natRulesThere(c *nftables.Conn, t *nftables.Table, chains []natChain) bool {
	for _, ch := range chains {
		rules, err := c.GetRules(t, &nftables.Chain{Name: ch.name, Table: t})
		if err != nil || len(rules) != len(ch.rules) {
			return false
		}
		for i, r := range rules {
			if len(r.Exprs) != len(ch.rules[i]) {
				return false
			}
		}
	}
	return true
}

// untranslated reads what a NAT gateway itself has dropped.
func (f *Fabric) untranslated(id string) (map[Reason]Count, error) {
	ns := f.guests[natGuest(id)].netns
	if ns == nil {
		return nil, nil
	}
	c, err := nftables.New(nftables.WithNetNSFd(int(ns.Fd())))
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return nil, fmt.Errorf("list nftables: %w", err)
	}
	var sum Count
	var errs []error
	for _, t := range tables {
		for _, chain := range []string{"input", "forward"} {
			rules, err := c.GetRules(t, &nftables.Chain{Name: chain, Table: t})
			errs = append(errs, err)
			for _, r := range rules {
				for _, e := range r.Exprs {
					if n, ok := e.(*expr.Counter); ok {
						sum.Packets += n.Packets
						sum.Bytes += n.Bytes
					}
				}
			}
		}
	}
	sum.Bytes += sum.Packets * ethernetHeader
	if sum.Packets == 0 {
		return nil, errors.Join(errs...)
	}
	return map[Reason]Count{NoTranslation: sum}, errors.Join(errs...)
}
