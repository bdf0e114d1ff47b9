package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/node"
)

// Verify compares what exists with all that [Kernel.Wire] made, on both sides.
// The error has a line for everything that is missing or different, with what is
// wanted and what is there; it is [ErrNotWired] if the node's device is missing.
func (k *Kernel) Verify(w Wiring) error {
	pod, err := k.borrow(w.Netlink)
	if err != nil {
		return err
	}
	return errors.Join(k.verifyHost(w), pod.verifyPod(w))
}

// findings are differences, each a line.
type findings []error

func (f *findings) differ(what string, want, have any) {
	if want != have {
		*f = append(*f, fmt.Errorf("%s: want %v, have %v", what, want, have))
	}
}

func (f *findings) missing(what string, there bool) {
	if !there {
		*f = append(*f, fmt.Errorf("%s is missing", what))
	}
}

func (k *Kernel) verifyHost(w Wiring) error {
	l, err := readLink(k.route, w.Veth)
	if errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("%w: %s", ErrNotWired, w.Veth)
	}
	if err != nil {
		return err
	}
	var f findings
	what := "node's device " + w.Veth
	f.differ(what+": group", fmt.Sprintf("%#x", uint32(node.LinkGroup)), fmt.Sprintf("%#x", l.group))
	f.link(what, l, w.MTU, node.GatewayMAC)
	return errors.Join(f...)
}

func (f *findings) link(what string, l link, mtu int, mac node.MACString) {
	state := map[bool]string{true: "up", false: "down"}
	f.differ(what, state[true], state[l.up])
	f.differ(what+": mtu", mtu, l.mtu)
	f.differ(what+": mac", mac, macString(l.mac))
}

func (c *conn) verifyPod(w Wiring) error {
	what := "pod's interface " + w.IfName
	l, err := readLink(c, w.IfName)
	if errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("%s is missing", what)
	}
	if err != nil {
		return fmt.Errorf("in the pod's namespace: %w", err)
	}
	var f findings
	f.link(what, l, w.MTU, node.PodMAC(w.Addr))
	addrs, err := readAddresses(c, l.index)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	addr := netip.PrefixFrom(w.Addr, 32)
	f.missing(what+": address "+addr.String(), slices.Contains(addrs, ifAddr{l.index, addr}))
	routes, err := readRoutes(c, node.Protocol, l.index)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	for _, want := range gatewayRoutes() {
		text := fmt.Sprintf("%s: route %s", what, want.Dst)
		if want.Gateway.IsValid() {
			text += " via " + want.Gateway.String()
		}
		f.missing(text, slices.ContainsFunc(routes, func(r route) bool { return !r.odd && r.Route == want }))
	}
	return errors.Join(append(f, c.verifyGateway(what, l.index))...)
}

func (c *conn) verifyGateway(what string, index int32) error {
	neighbors, err := readNeighbors(c, index)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	what += fmt.Sprintf(": permanent neighbor %s", node.GatewayAddr)
	for _, n := range neighbors {
		if n.permanent && n.addr == string(node.GatewayAddr.AsSlice()) {
			var f findings
			f.differ(what, node.GatewayMAC, macString(n.mac))
			return errors.Join(f...)
		}
	}
	return fmt.Errorf("%s is missing", what)
}
