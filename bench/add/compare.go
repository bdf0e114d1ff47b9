package add

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

// compareOnce makes one pod by our ADD and one by the floor, and compares what
// the kernel then holds for them, names and addresses aside. Without that the
// floor would be a claim. What floor pods have to take over from ours (the MTU,
// the source address, the chain) is learned here too.
func (m *machine) compareOnce() (floor, ours sandbox, err error) {
	made, err := m.sandboxes(2)
	if err != nil {
		return sandbox{}, sandbox{}, err
	}
	ours, floor = made[0], made[1]
	o := one(m.plugin("ADD", ours))
	if o.err != nil {
		return floor, ours, fmt.Errorf("first ADD: %w", o.err)
	}
	var result struct {
		IPs []struct{ Address netip.Prefix }
	}
	if err := json.Unmarshal(o.stdout, &result); err != nil || len(result.IPs) != 1 {
		return floor, ours, fmt.Errorf("first ADD: a result with one address is wanted, got %s (%w)", o.stdout, err)
	}
	pod := view{sandbox: ours, veth: node.VethName(node.DefaultVethPrefix, ours.containerID(), ifName), addr: result.IPs[0].Address.Addr()}
	if err := m.learn(pod); err != nil {
		return floor, ours, err
	}
	if o := one(m.floor(floor)); o.err != nil {
		return floor, ours, fmt.Errorf("first run of the floor: %w", o.err)
	}
	want, err := m.state(pod)
	if err != nil {
		return floor, ours, err
	}
	p := m.floorPod(floor)
	have, err := m.state(view{sandbox: floor, veth: p.veth, addr: p.addr})
	if err != nil {
		return floor, ours, err
	}
	if d := difference(want, have); d != "" {
		return floor, ours, fmt.Errorf("the floor does not do what ADD does, so it is no floor (- ADD, + floor):\n%s", d)
	}
	return floor, ours, nil
}

// view is a pod to look at.
type view struct {
	sandbox
	veth string
	addr netip.Addr
}

// learn makes m.model from a pod of ours.
func (m *machine) learn(v view) error {
	l, err := m.route.LinkByName(v.veth)
	if err != nil {
		return fmt.Errorf("find %s: %w", v.veth, err)
	}
	routes, err := m.route.RouteListFiltered(unix.AF_INET, &netlink.Route{Table: node.PodTable, LinkIndex: l.Attrs().Index},
		netlink.RT_FILTER_TABLE|netlink.RT_FILTER_OIF)
	if err != nil || len(routes) != 1 {
		return fmt.Errorf("read the node's route to the pod: %d found (%w)", len(routes), err)
	}
	verdict, err := m.verdict(v)
	if err != nil {
		return err
	}
	src, _ := netip.AddrFromSlice(routes[0].Src)
	_, err = os.Stat("/proc/sys/net/ipv6")
	m.model = model{mtu: l.Attrs().MTU, prefSrc: src.Unmap(), chain: verdict, ipv6: err == nil}
	return nil
}

// verdict is the chain that the pod's packets go to.
func (m *machine) verdict(v view) (string, error) {
	elements, err := m.filter.GetSetElements(pods())
	if err != nil {
		return "", fmt.Errorf("read the map of pods: %w", err)
	}
	for _, e := range elements {
		if name, addr, ok := bytes.Cut(e.Key, []byte{0}); !ok || string(name) != v.veth || !bytes.HasSuffix(addr, v.addr.AsSlice()) {
			continue
		}
		attrs, err := nl.ParseRouteAttr(e.Val)
		if err != nil {
			return "", fmt.Errorf("read the map of pods: %w", err)
		}
		for _, a := range attrs {
			if a.Attr.Type == unix.NFTA_VERDICT_CHAIN {
				return string(bytes.TrimRight(a.Value, "\x00")), nil
			}
		}
	}
	return "", fmt.Errorf("%s is not in the map of pods", v.veth)
}

// state lists what the kernel holds for a pod, on both sides, in words that
// name no pod.
func (m *machine) state(v view) ([]string, error) {
	node, err := sideState("node", m.route, v.veth)
	if err != nil {
		return nil, err
	}
	chain, err := m.verdict(v)
	if err != nil {
		return nil, err
	}
	ns, err := os.Open(v.path)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	var pod []string
	err = netns.Do(ns, func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		pod, err = sideState("pod", h, ifName)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look into %s: %w", v.path, err)
	}
	all := slices.Concat(node, pod, []string{"node: admitted to " + chain})
	r := strings.NewReplacer(v.veth, "VETH", v.addr.String(), "ADDRESS", mac(v.addr), "MAC")
	for i := range all {
		all[i] = r.Replace(all[i])
	}
	slices.Sort(all)
	return all, nil
}

func mac(a netip.Addr) string { return string(node.PodMAC(a)) }

// sideState is a device with all that refers to it, in the namespace that the
// handle and the thread are in.
func sideState(side string, h *netlink.Handle, name string) ([]string, error) {
	l, err := h.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", name, err)
	}
	a := l.Attrs()
	all := []string{fmt.Sprintf("%s: link %s type %s mtu %d group %#x mac %s up %t txqlen %d queues %d/%d peer has same index %t",
		side, name, l.Type(), a.MTU, a.Group, a.HardwareAddr, a.Flags&net.FlagUp != 0, a.TxQLen, a.NumTxQueues, a.NumRxQueues, a.ParentIndex == a.Index)}
	addrs, err1 := h.AddrList(l, netlink.FAMILY_ALL)
	for _, x := range addrs {
		all = append(all, fmt.Sprintf("%s: address %s scope %d flags %#x peer %v", side, x.IPNet, x.Scope, x.Flags, x.Peer))
	}
	routes, err2 := h.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_UNSPEC, LinkIndex: a.Index}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_OIF)
	for _, x := range routes {
		all = append(all, fmt.Sprintf("%s: route table %d %v via %v src %v protocol %d scope %d type %d metric %d flags %#x",
			side, x.Table, x.Dst, x.Gw, x.Src, x.Protocol, x.Scope, x.Type, x.Priority, x.Flags))
	}
	neighbors, err3 := h.NeighList(a.Index, unix.AF_INET)
	for _, x := range neighbors {
		all = append(all, fmt.Sprintf("%s: neighbour %s lladdr %s state %#x flags %#x", side, x.IP, x.HardwareAddr, x.State, x.Flags))
	}
	if err := cmp.Or(err1, err2, err3); err != nil {
		return nil, fmt.Errorf("list what %s has: %w", name, err)
	}
	for _, s := range []string{"ipv4/conf/*/rp_filter", "ipv4/conf/*/accept_local", "ipv6/conf/*/addr_gen_mode"} {
		value, err := os.ReadFile(filepath.Join("/proc/sys/net", strings.ReplaceAll(s, "*", name)))
		if errors.Is(err, fs.ErrNotExist) {
			continue // no IPv6
		}
		if err != nil {
			return nil, err
		}
		all = append(all, fmt.Sprintf("%s: %s = %s", side, s, bytes.TrimSpace(value)))
	}
	return all, nil
}

// difference lists what only one of two sorted lists has.
func difference(want, have []string) string {
	var b strings.Builder
	for _, s := range want {
		if !slices.Contains(have, s) {
			fmt.Fprintf(&b, "- %s\n", s)
		}
	}
	for _, s := range have {
		if !slices.Contains(want, s) {
			fmt.Fprintf(&b, "+ %s\n", s)
		}
	}
	if b.Len() == 0 && len(want) != len(have) {
		fmt.Fprintf(&b, "%d things, want %d\n", len(have), len(want))
	}
	return b.String()
}
