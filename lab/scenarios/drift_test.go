package scenarios

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	layout "github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

// notices is what a namespace's kernel tells of changes in routing and nftables.
type notices struct{ route, nft int }

// listen begins to listen in the node's namespace.
func (n *node) listen() *notices {
	n.t.Helper()
	var heard notices
	err := netns.Do(n.netns(), func() (err error) {
		if heard.route, err = subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR,
			unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV4_NETCONF); err != nil {
			return err
		}
		heard.nft, err = subscribe(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
		return err
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { unix.Close(heard.route); unix.Close(heard.nft) })
	return &heard
}

func subscribe(family int, groups ...int) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, family)
	if err != nil {
		return fd, err
	}
	err = errors.Join(unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20))
	for _, g := range groups {
		err = errors.Join(err, unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, g))
	}
	return fd, err
}

// read lists what has been heard so far. Neighbours that the kernel itself learns
// and forgets are no writes, and tables of nftables that are not ours are not ours.
func (h *notices) read() ([]string, error) {
	var heard []string
	buf := make([]byte, 1<<16)
	for _, fd := range []int{h.route, h.nft} {
		for {
			n, _, err := unix.Recvfrom(fd, buf, 0)
			if errors.Is(err, unix.EAGAIN) {
				break
			}
			if err != nil {
				return heard, err
			}
			messages, err := parseMessages(buf[:n])
			if err != nil {
				return heard, err
			}
			for _, m := range messages {
				kind := m.kind
				if fd == h.route && (kind == unix.RTM_NEWNEIGH || kind == unix.RTM_DELNEIGH) && !m.permanentNeighbor() {
					continue
				}
				name := fmt.Sprintf("routing message %d", kind)
				if fd == h.nft {
					name = fmt.Sprintf("nftables message %d", kind&0xff)
					if !bytes.Contains(m.body, []byte(layout.TableName+"\x00")) {
						continue
					}
				}
				heard = append(heard, fmt.Sprintf("%s: %q", name, m.body))
			}
		}
	}
	return heard, nil
}

type message struct {
	kind uint16
	body []byte
}

// Of struct ndmsg, include/uapi/linux/neighbour.h: the state is at byte 8.
func (m message) permanentNeighbor() bool {
	return len(m.body) > 9 && binaryutil.NativeEndian.Uint16(m.body[8:])&unix.NUD_PERMANENT != 0
}

func parseMessages(b []byte) (list []message, err error) {
	for len(b) >= unix.NLMSG_HDRLEN {
		size := int(binaryutil.NativeEndian.Uint32(b))
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			return list, fmt.Errorf("netlink message of %d bytes in %d", size, len(b))
		}
		list = append(list, message{binaryutil.NativeEndian.Uint16(b[4:]), b[unix.NLMSG_HDRLEN:size]})
		b = b[min(len(b), (size+3)&^3):]
	}
	return list, nil
}

// TestRestartCostsNoPacket ends and kills the agent under a thousand packets a
// second: none is lost, and the agent that follows writes nothing into the kernel.
func TestRestartCostsNoPacket(t *testing.T) {
	t.Parallel()
	l := startLab(t, chaosWorld)
	a, b := l.nodes["node-a"], l.nodes["node-b"]
	a.startAgent()
	b.startAgent()
	pa, pb := a.addPods(elevenPods...), b.addPods("b1")
	a.settled(t)
	const interval = time.Millisecond
	first, second := a.podEnd(pa[0]), a.podEnd(l.onSecondENI(pa))
	pulses := []*pulse{
		startSteadyPulse(t, first, b.podEnd(pb[0]), interval),
		startSteadyPulse(t, b.podEnd(pb[0]), second, interval),
		startSteadyPulse(t, second, l.internet(), interval),
	}
	for _, p := range pulses {
		p.goesOn(t)
	}
	heard := a.listen()
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL, unix.SIGTERM, unix.SIGKILL, unix.SIGTERM, unix.SIGKILL} {
		a.restartAgent(sig)
		a.readyAgent()
		a.repaired("restart")
		for _, p := range pulses {
			p.goesOn(t)
		}
	}
	written, err := heard.read()
	if err != nil {
		t.Fatal(err)
	}
	if len(written) > 0 {
		t.Errorf("the restarts wrote into the kernel:\n%s", joined(written))
	}
	for _, p := range pulses {
		p.lostNone(t)
		t.Logf("%s: %d packets", p.what, p.sent.Load())
	}
	// The ear is not deaf.
	if err := netns.Do(a.netns(), func() error { return deleteFilter(layout.TableName) }); err != nil {
		t.Fatal(err)
	}
	a.repaired("table deleted")
	if written, err := heard.read(); err != nil || len(written) < 2 {
		t.Errorf("after a repair there are %d notices, %v", len(written), err)
	}
}

// foreignThings are what other programs on a node write: a firewall and a service
// proxy of nftables, with marks of their own, rules and routes.
func foreignThings(service, backend end, port uint16) error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	proxy := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "kube-proxy"})
	// The mark that kube-proxy gives to what it wants to be masqueraded.
	mark := c.AddChain(&nftables.Chain{Table: proxy, Name: "mark", Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRef(-200)})
	c.AddRule(&nftables.Rule{Table: proxy, Chain: mark, Exprs: append(toService(service, port), setMark(0x4000)...)})
	nat := c.AddChain(&nftables.Chain{Table: proxy, Name: "nat", Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest})
	c.AddRule(&nftables.Rule{Table: proxy, Chain: nat, Exprs: append(toService(service, port), dnatTo(backend, port)...)})
	post := c.AddChain(&nftables.Chain{Table: proxy, Name: "masquerade", Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityRef(90)})
	c.AddRule(&nftables.Rule{Table: proxy, Chain: post, Exprs: append(markIs(0x4000), &expr.Masq{})})
	if err := c.Flush(); err != nil {
		return fmt.Errorf("write the table of kube-proxy: %w", err)
	}
	r := netlink.NewRule()
	r.Priority, r.Table, r.Src, r.Protocol = 500, 77, ipNet("198.51.100.0/24"), 99
	return errors.Join(netlink.RuleAdd(r),
		netlink.RouteAdd(&netlink.Route{Dst: ipNet("192.0.2.0/24"), Table: 77, Protocol: 99, Type: unix.RTN_UNREACHABLE}),
		netlink.RouteAdd(&netlink.Route{Dst: ipNet("192.0.2.0/24"), Table: layout.PodTable, Protocol: unix.RTPROT_STATIC, Type: unix.RTN_UNREACHABLE, Priority: 50}))
}

func toService(service end, port uint16) []expr.Any {
	addr := service.addr.As4()
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
		&expr.Cmp{Register: 1, Data: addr[:]},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Register: 1, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Register: 1, Data: binaryutil.BigEndian.PutUint16(port)},
	}
}

func dnatTo(backend end, port uint16) []expr.Any {
	addr := backend.addr.As4()
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: addr[:]},
		&expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(port)},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegProtoMin: 2},
	}
}

func setMark(bit uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(^bit), Xor: binaryutil.NativeEndian.PutUint32(bit)},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: 1},
	}
}

func markIs(bit uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(bit), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

// foreign lists what of a node's kernel is not ours.
func (n *node) foreign() []string {
	n.t.Helper()
	lines, err := kernelState(n.netns())
	if err != nil {
		n.t.Fatal(err)
	}
	return slices.DeleteFunc(lines, func(l string) bool {
		return !strings.Contains(l, "kube-proxy") && !strings.Contains(l, "198.51.100.0") && !strings.Contains(l, "192.0.2.0")
	})
}

// TestBesideOthers: what others have on the node works, and stays as it is, while
// ours is taken away and repaired.
func TestBesideOthers(t *testing.T) {
	t.Parallel()
	l := startLab(t, chaosWorld)
	a, b := l.nodes["node-a"], l.nodes["node-b"]
	a.startAgent()
	b.startAgent()
	streams, _ := l.traffic()
	far := streams[0].to
	port := serve(t, far)
	if err := netns.Do(a.netns(), func() error { return foreignThings(a.hostEnd(), far, port) }); err != nil {
		t.Fatal(err)
	}
	a.repaired("foreign things")
	before := a.foreign()
	if len(before) < 6 {
		t.Fatalf("too little is foreign for a test:\n%s", joined(before))
	}
	// A service of the node whose pod is on the other one. Without the mark of
	// kube-proxy, which is set before ours, the answer would pass the node by.
	service := func(from end) *stream {
		t.Helper()
		s, err := l.ask(t.Context(), from, netip.AddrPortFrom(a.addr, port))
		if err != nil {
			t.Fatal(err)
		}
		if s.seen == from.addr {
			t.Errorf("service from %s: the pod sees %s, not an address of the node", from.name, s.seen)
		}
		s.goesOn(t)
		return s
	}
	first, second := streams[0].from, streams[2].from // ENIs
	service(second)
	streams = append(streams, service(b.hostEnd()), service(first))
	// The one from the second ENI is not among them: the kernel ends a masqueraded
	// connection whose packet takes another device, as it does without our rules.

	for _, d := range []struct {
		name string
		do   func() error
	}{
		{"systemd-networkd deletes what it does not know", forgetForeign},
		{"our table is deleted", func() error { return deleteFilter(layout.TableName) }},
	} {
		if err := netns.Do(a.netns(), d.do); err != nil {
			t.Fatalf("%s: %v", d.name, err)
		}
		a.repaired(d.name)
		if d := difference(before, a.foreign()); d != nil {
			t.Errorf("what is not ours has changed:\n%s", joined(d))
		}
		allGoOn(t, streams)
	}
	service(b.hostEnd())
	service(second)
	a.restartAgent(unix.SIGKILL)
	a.readyAgent()
	if d := difference(before, a.foreign()); d != nil {
		t.Errorf("a restart changed what is not ours:\n%s", joined(d))
	}
	allEnd(t, streams)
}

// forgetForeign does what systemd-networkd does when it starts, unless it is told
// not to (ManageForeignRoutes=, ManageForeignRoutingPolicyRules= of
// networkd.conf): rules and routes of protocols that are not the kernel's or its
// own go.
func forgetForeign() error {
	rules, err := netlink.RuleList(netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	for _, r := range rules {
		if r.Protocol == layout.Protocol {
			err = errors.Join(err, gone(netlink.RuleDel(&r)))
		}
	}
	routes, fault := netlink.RouteListFiltered(netlink.FAMILY_V4,
		&netlink.Route{Table: unix.RT_TABLE_UNSPEC, Protocol: layout.Protocol}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
	err = errors.Join(err, fault)
	for _, r := range routes {
		err = errors.Join(err, gone(netlink.RouteDel(&r)))
	}
	return err
}

// TestDeviceRenamed: udev and people rename devices after they appear, which
// takes them down for a moment. The agent follows, by the MAC.
func TestDeviceRenamed(t *testing.T) {
	t.Parallel()
	l := startLab(t, chaosWorld)
	a, b := l.nodes["node-a"], l.nodes["node-b"]
	a.startAgent()
	b.startAgent()
	streams, pulses := l.traffic()
	a.settled(t)
	for _, name := range [][2]string{{"ens6", "eth1"}, {"eth1", "renamed-by-hand"}, {"renamed-by-hand", "ens6"}} {
		err := netns.Do(a.netns(), func() error {
			dev, err := netlink.LinkByName(name[0])
			if err != nil {
				return err
			}
			return errors.Join(netlink.LinkSetDown(dev), netlink.LinkSetName(dev, name[1]), netlink.LinkSetUp(dev))
		})
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "the agent knows "+name[1], func() error {
			p, err := a.plan(t.Context())
			if err != nil {
				return err
			}
			if strings.Contains(p.Desired, name[0]) || !strings.Contains(p.Desired, name[1]) {
				return fmt.Errorf("the plan has %s", name[0])
			}
			return nil
		})
		a.repaired("rename to " + name[1])
		allGoOn(t, streams)
		for _, p := range pulses {
			p.goesOn(t)
		}
	}
	allEnd(t, streams)
	l.allReach(t)
}
