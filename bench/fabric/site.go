package fabric

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	lab "github.com/fairway-cni/fairway/lab/fabric"
	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

// kind is what a VPC has of rules; plain has no programs at its ENIs either.
type kind struct {
	name   string
	groups []string
	acl    string
}

const (
	plain = iota
	groups
	acls
)

var kinds = [...]kind{
	plain:  {name: "plain"},
	groups: {name: "groups", groups: []string{groupID}},
	acls:   {name: "groups and ACLs", groups: []string{groupID}, acl: aclID},
}

const (
	vpcID    = "vpc-bench"
	groupID  = "sg-bench"
	aclID    = "acl-bench"
	aclRules = 20 // as many as AWS allows by default: "Amazon VPC quotas"
)

var vpcCIDR = netip.MustParsePrefix("10.0.0.0/16")

// site is one VPC with its instances, of which the first sends to the second:
//
//	packets   ENI 0 of the first  -->  ENI 1 of the second, which have no addresses
//	bulk      ENI 2 of the first  -->  ENI 3 of the second, by their kernels
type site struct {
	fabric *lab.Fabric
	guests []*os.File
	sender *sender
	stream *stream
}

// eniOf is the k-th ENI of an instance. The k-th ones of all are a subnet.
func eniOf(instance, k int) lab.ENI {
	subnet := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(k), 0}), 24)
	return lab.ENI{
		ID: fmt.Sprintf("eni-%015x%02x", instance, k), MAC: lab.MAC{2, 1, 0, 0, byte(instance), byte(k)},
		Subnet: subnet, SubnetID: fmt.Sprintf("subnet-%d", k), Primary: netip.AddrFrom4([4]byte{10, 0, byte(k), byte(10 + instance)}),
		SourceDestCheck: true, Guest: fmt.Sprintf("i-%d", instance), Device: fmt.Sprintf("ens%d", 5+k),
	}
}

func vpcOf(k kind, n size) lab.VPC {
	v := lab.VPC{ID: vpcID, CIDRs: []netip.Prefix{vpcCIDR},
		Groups: []lab.SecurityGroup{{ID: groupID, Ingress: groupRules(n.rules), Egress: groupRules(n.rules)}},
		ACLs:   []lab.NetworkACL{{ID: aclID, Ingress: aclRulesOf(aclRules), Egress: aclRulesOf(aclRules)}},
	}
	for j := range n.enis {
		e := eniOf(0, j)
		v.Subnets = append(v.Subnets, lab.Subnet{ID: e.SubnetID, CIDR: e.Subnet, ACL: k.acl})
		for i := range n.instances {
			e := eniOf(i, j)
			e.Groups = k.groups
			v.ENIs = append(v.ENIs, e)
		}
	}
	return v
}

// groupRules ends with the two that allow what is sent.
func groupRules(n int) []lab.GroupRule {
	var rules []lab.GroupRule
	for i := range n - 2 {
		cidr := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i % 7), byte(i), 0}), 24)
		rules = append(rules, lab.GroupRule{Protocol: []lab.Protocol{lab.TCP, lab.UDP}[i%2], Ports: lab.Ports{From: i, To: i + 40}, CIDR: cidr})
	}
	return append(rules,
		lab.GroupRule{Protocol: lab.UDP, Ports: lab.Ports{From: 7, To: 9000}, CIDR: vpcCIDR},
		lab.GroupRule{Protocol: lab.TCP, Ports: lab.Ports{From: 7, To: 9000}, CIDR: vpcCIDR})
}

// aclRulesOf denies ports that nobody uses, and then allows all.
func aclRulesOf(n int) []lab.ACLRule {
	var rules []lab.ACLRule
	for i := range n - 1 {
		rules = append(rules, lab.ACLRule{Number: i + 1, Protocol: lab.UDP, Ports: lab.Ports{From: 1, To: 5 + i}, CIDR: vpcCIDR})
	}
	return append(rules, lab.ACLRule{Number: n, Allow: true, Protocol: lab.AllProtocols, CIDR: vpcCIDR})
}

// open makes a VPC and has its flows begin.
func open(ctx context.Context, k kind, n size) (_ *site, err error) {
	s := &site{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.fabric, err = lab.New(lab.Config{}); err != nil {
		return nil, err
	}
	for i := range n.instances {
		ns, err := netns.New()
		if err != nil {
			return nil, err
		}
		s.guests = append(s.guests, ns)
		if err := errors.Join(netns.Do(ns, noIPv6), s.fabric.AddGuest(eniOf(i, 0).Guest, ns)); err != nil {
			return nil, err
		}
	}
	v := vpcOf(k, n)
	if _, err := s.fabric.Sync(ctx, lab.Topology{VPCs: []lab.VPC{v}}); err != nil {
		return nil, err
	}
	for _, ns := range s.guests {
		if err := netns.Do(ns, setAllUp); err != nil {
			return nil, err
		}
	}
	if k.groups == nil {
		if err := s.detach(v); err != nil {
			return nil, err
		}
	}
	if s.sender, err = newSender(s.guests[0], eniOf(0, 0), eniOf(1, 1), n.flows); err != nil {
		return nil, err
	}
	if s.stream, err = newStream(s.guests[:2], eniOf(0, 2), eniOf(1, 3)); err != nil {
		return nil, err
	}
	return s, s.beginFlows(ctx, n.flows)
}

// noIPv6 keeps guests from sending what nobody asked for.
func noIPv6() error {
	for _, c := range []string{"all", "default"} {
		err := os.WriteFile("/proc/sys/net/ipv6/conf/"+c+"/disable_ipv6", []byte("1"), 0)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func setAllUp() error {
	links, err := netlink.LinkList()
	if err != nil {
		return err
	}
	for _, l := range links {
		if err := netlink.LinkSetUp(l); err != nil {
			return err
		}
	}
	return nil
}

// detach takes the programs from all ENIs: what is left is the kernel's routes.
func (s *site) detach(v lab.VPC) error {
	return netns.Do(s.fabric.VPCNetNS(v.ID), func() error {
		for _, e := range v.ENIs {
			l, err := netlink.LinkByName(lab.DeviceName(e.ID))
			if err != nil {
				return err
			}
			if err := netlink.QdiscDel(&netlink.GenericQdisc{QdiscType: "clsact", QdiscAttrs: netlink.QdiscAttrs{
				LinkIndex: l.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
			}}); err != nil {
				return fmt.Errorf("detach programs from %s: %w", e.ID, err)
			}
		}
		return nil
	})
}

// beginFlows sends until all arrive: a device's queue starts some time after
// the device is up.
func (s *site) beginFlows(ctx context.Context, flows int) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		before, err := s.received()
		if err != nil {
			return err
		}
		if err := s.sender.send(flows); err != nil {
			return err
		}
		after, err := s.received()
		if err != nil || after-before == uint64(flows) {
			return err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%d of %d packets arrived: %w", after-before, flows, ctx.Err())
		}
	}
}

// received counts the packets that the receiving device has got.
func (s *site) received() (n uint64, err error) {
	err = netns.Do(s.guests[1], func() error {
		l, err := netlink.LinkByName(eniOf(1, 1).Device)
		if err == nil {
			n = l.Attrs().Statistics.RxPackets
		}
		return err
	})
	return n, err
}

// drops is an error where the fabric has dropped: then not all was measured.
func (s *site) drops() error {
	all, err := s.fabric.Counters()
	if err != nil {
		return err
	}
	for id, counts := range all {
		for reason, c := range counts {
			return fmt.Errorf("%d packets of %s were dropped: %s", c.Packets, id, reason)
		}
	}
	return nil
}

func (s *site) close() error {
	var errs []error
	if s.stream != nil {
		errs = append(errs, s.stream.close())
	}
	if s.sender != nil {
		errs = append(errs, unix.Close(s.sender.fd))
	}
	if s.fabric != nil {
		errs = append(errs, s.fabric.Close())
	}
	for _, ns := range s.guests {
		errs = append(errs, ns.Close())
	}
	return errors.Join(errs...)
}

// boot gives a guest's device its address, and the way to the VPC's router,
// which nobody answers ARP for where there are no programs.
func boot(e lab.ENI) error {
	l, err := netlink.LinkByName(e.Device)
	if err != nil {
		return err
	}
	addr := &net.IPNet{IP: e.Primary.AsSlice(), Mask: net.CIDRMask(e.Subnet.Bits(), 32)}
	router := net.IP(e.Subnet.Addr().Next().AsSlice())
	if err := netlink.AddrAdd(l, &netlink.Addr{IPNet: addr}); err != nil {
		return fmt.Errorf("add address %s: %w", addr, err)
	}
	if err := netlink.NeighSet(&netlink.Neigh{LinkIndex: l.Attrs().Index, State: netlink.NUD_PERMANENT, IP: router, HardwareAddr: lab.RouterMAC[:]}); err != nil {
		return fmt.Errorf("set neighbour %s: %w", router, err)
	}
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: router}); err != nil {
		return fmt.Errorf("add default route by %s: %w", router, err)
	}
	return nil
}
