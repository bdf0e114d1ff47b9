package path

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// TestKernelAgrees asks this machine's kernel about random rules, routes and
// sysctls in a namespace of its own, and this package about the same: by which
// device does a packet leave that comes by another, or why does it not? The
// kernel is asked as `ip route get DST from SRC iif DEV mark M` asks it, so that
// routing and reverse path are its own.
func TestKernelAgrees(t *testing.T) {
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	if err := enter(); err != nil {
		t.Skipf("no network namespace of its own: %v", err)
	}
	const worlds, packets = 250, 24
	asked, outcomes := 0, map[string]int{}
	for seed := range uint64(worlds) {
		r := rand.New(rand.NewPCG(seed, 3))
		if err := enter(); err != nil {
			t.Fatal(err)
		}
		ns, err := randomNamespace(r)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		ref := (&nsRef{ns: ns, node: &Node{}, where: Where{"", KindNode, "n"}, hooks: map[string][]baseChain{}}).ready()
		for range packets {
			q := flow{src: randomAddr(r), dst: randomAddr(r), iif: fmt.Sprintf("d%d", r.IntN(3)), mark: uint32(r.IntN(3))}
			kernel, err := askKernel(q)
			if err != nil {
				t.Fatalf("seed %d: ask %+v: %v", seed, q, err)
			}
			asked++
			if ours := askModel(ref, q); ours != kernel {
				t.Errorf("seed %d: %s to %s iif %s mark %d: the kernel says %s, the model %s\n%s", seed, q.src, q.dst, q.iif, q.mark, kernel, ours, show(ns))
			}
			word, _, _ := strings.Cut(kernel, " ")
			outcomes[word]++
		}
		if t.Failed() {
			break
		}
	}
	for _, want := range []string{"out", "local", "refused", "unreachable"} {
		if outcomes[want] == 0 && !t.Failed() {
			t.Errorf("of %d packets none was %q: %v", asked, want, outcomes)
		}
	}
	t.Logf("packets %d, %v", asked, outcomes)
}

// enter makes an empty network namespace and goes there.
func enter() error {
	ns, err := netns.New()
	if err != nil {
		return err
	}
	return ns.Close()
}

func randomAddr(r *rand.Rand) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(r.IntN(4)), byte(r.IntN(2)), byte(1 + r.IntN(4))})
}

func randomPrefix(r *rand.Rand) netip.Prefix {
	return netip.PrefixFrom(randomAddr(r), []int{8, 16, 24, 31, 32}[r.IntN(5)]).Masked()
}

// randomNamespace gives the kernel devices, addresses, routes, rules and sysctls,
// and says what it holds then.
func randomNamespace(r *rand.Rand) (*Namespace, error) {
	ns := &Namespace{Nftables: Known(Ruleset{}), Iptables: Known(Iptables{}), Sysctls: Known(map[string]string{})}
	devices := []Device{{Name: "lo", Kind: "loopback", MTU: 65536}}
	for i := range 3 {
		name := fmt.Sprintf("d%d", i)
		d := Device{Name: name, Kind: "eni", MTU: 1500}
		link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "p"}
		if err := netlink.LinkAdd(link); err != nil {
			return nil, fmt.Errorf("add %s: %w", name, err)
		}
		if r.IntN(4) > 0 {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), 0, 4}), 24)
			addr, err := netlink.ParseAddr(p.String())
			if err == nil {
				err = netlink.AddrAdd(link, addr)
			}
			if err != nil {
				return nil, fmt.Errorf("add %s: %w", p, err)
			}
			d.Addresses = append(d.Addresses, p)
		}
		devices = append(devices, d)
	}
	for _, name := range []string{"lo", "d0p", "d1p", "d2p", "d0", "d1", "d2"} {
		link, err := netlink.LinkByName(name)
		if err == nil {
			err = netlink.LinkSetUp(link)
		}
		if err != nil {
			return nil, fmt.Errorf("up %s: %w", name, err)
		}
	}
	ns.Devices = Known(devices)
	if err := randomRouting(r); err != nil {
		return nil, err
	}
	if err := randomSysctls(r, ns); err != nil {
		return nil, err
	}
	return ns, readRouting(ns)
}

func randomRouting(r *rand.Rand) error {
	for range 4 + r.IntN(8) {
		p := randomPrefix(r)
		link, err := netlink.LinkByName(fmt.Sprintf("d%d", r.IntN(3)))
		if err != nil {
			return err
		}
		route := &netlink.Route{Dst: ipNet(p), LinkIndex: link.Attrs().Index, Scope: netlink.SCOPE_LINK, Priority: r.IntN(3),
			Table: []int{254, 254, 5, 6}[r.IntN(4)]}
		switch r.IntN(8) {
		case 0:
			route.Type, route.LinkIndex = syscall.RTN_UNREACHABLE, 0
		case 1:
			route.Type, route.LinkIndex = syscall.RTN_THROW, 0
		}
		if err := netlink.RouteAdd(route); err != nil && !errors.Is(err, syscall.EEXIST) {
			return fmt.Errorf("add %v: %w", route, err)
		}
	}
	for i := range r.IntN(6) {
		rule := netlink.NewRule()
		rule.Priority, rule.Table = 100+i, []int{5, 6, 254}[r.IntN(3)]
		if r.IntN(2) == 0 {
			rule.Src = ipNet(randomPrefix(r))
		}
		if r.IntN(3) == 0 {
			rule.Dst = ipNet(randomPrefix(r))
		}
		if r.IntN(3) == 0 {
			mask := uint32(3)
			rule.Mark, rule.Mask = uint32(1+r.IntN(2)), &mask
		}
		if r.IntN(5) == 0 {
			rule.IifName = fmt.Sprintf("d%d", r.IntN(3))
		}
		if r.IntN(6) == 0 {
			rule.SuppressPrefixlen = 8
		}
		if err := netlink.RuleAdd(rule); err != nil {
			return fmt.Errorf("add rule %v: %w", rule, err)
		}
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}

func randomSysctls(r *rand.Rand, ns *Namespace) error {
	set := map[string]string{"net/ipv4/ip_forward": "1"}
	for _, dev := range []string{"all", "d0", "d1", "d2"} {
		set["net/ipv4/conf/"+dev+"/rp_filter"] = fmt.Sprint(r.IntN(3))
		set["net/ipv4/conf/"+dev+"/accept_local"] = fmt.Sprint(r.IntN(4) / 3)
		set["net/ipv4/conf/"+dev+"/src_valid_mark"] = fmt.Sprint(r.IntN(3) / 2)
	}
	if r.IntN(2) == 0 {
		set["net/ipv4/conf/all/rp_filter"] = "0"
	}
	for path, value := range set {
		if err := os.WriteFile("/proc/sys/"+path, []byte(value), 0o644); err != nil {
			return err
		}
	}
	ns.Sysctls = Known(set)
	return nil
}

// readRouting says what the kernel holds, in the words of `ip`.
func readRouting(ns *Namespace) error {
	rules, err := netlink.RuleList(netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	list := []IPRule{}
	for _, k := range rules {
		r := IPRule{Priority: k.Priority, Mark: k.Mark, IIF: k.IifName, Table: k.Table, Action: "lookup", Suppress: k.SuppressPrefixlen}
		if k.Mask != nil {
			r.Mask = *k.Mask
		}
		if k.Src != nil {
			r.From = prefixOf(k.Src)
		}
		if k.Dst != nil {
			r.To = prefixOf(k.Dst)
		}
		list = append(list, r)
	}
	ns.Rules = Known(list)
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: syscall.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return err
	}
	kinds := map[int]string{syscall.RTN_UNICAST: "unicast", syscall.RTN_LOCAL: "local", syscall.RTN_BROADCAST: "broadcast",
		syscall.RTN_UNREACHABLE: "unreachable", syscall.RTN_THROW: "throw"}
	out := []IPRoute{}
	for _, k := range routes {
		r := IPRoute{Kind: kinds[k.Type], Table: k.Table, Metric: k.Priority, Scope: "link"}
		if r.Dst = everything; k.Dst != nil {
			r.Dst = prefixOf(k.Dst)
		}
		if link, err := netlink.LinkByIndex(k.LinkIndex); err == nil && k.LinkIndex > 0 {
			r.Dev = link.Attrs().Name
		}
		out = append(out, r)
	}
	ns.Routes = Known(out)
	return nil
}

func prefixOf(n *net.IPNet) netip.Prefix {
	a, _ := netip.AddrFromSlice(n.IP.To4())
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(a, bits)
}

// askKernel gives "out DEVICE", "local", or a word for why not.
func askKernel(q flow) (string, error) {
	routes, err := netlink.RouteGetWithOptions(q.dst.AsSlice(), &netlink.RouteGetOptions{
		SrcAddr: q.src.AsSlice(), Iif: q.iif, Mark: q.mark})
	switch {
	case errors.Is(err, syscall.EXDEV), errors.Is(err, syscall.EINVAL):
		// Reverse path and martian sources; since Linux 6.13 one number for both.
		return "refused", nil
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "unreachable", nil
	case err != nil || len(routes) != 1:
		return "", fmt.Errorf("%d routes: %w", len(routes), err)
	}
	if routes[0].Type == syscall.RTN_LOCAL {
		return "local", nil
	}
	link, err := netlink.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		return "", err
	}
	return "out " + link.Attrs().Name, nil
}

// askModel is arrive without the hooks, which have no chains here.
func askModel(ref *nsRef, q flow) string {
	p := &Packet{Proto: TCP, Src: q.src, Dst: q.dst, Mark: q.mark}
	w := &walk{ans: &Answer{}, p: p, said: map[string]bool{}}
	v := &visit{w: w, at: ref, p: p, iif: q.iif}
	f := ref.fib.lookup(q)
	if f.kind() == "broadcast" {
		return "refused"
	}
	if !w.leads(v, f) {
		return "unreachable"
	}
	oif := f.route.Dev
	if f.route.Kind == "local" {
		oif = ""
	}
	w.reversePath(v, oif)
	if len(w.ans.Hops) > 0 {
		switch w.ans.Hops[0].Code {
		case CodeStrict, CodeLoose, CodeMartian:
			return "refused"
		}
		return string(w.ans.Hops[0].Code)
	}
	if oif == "" {
		return "local"
	}
	return "out " + oif
}

func show(ns *Namespace) string {
	var b strings.Builder
	for _, r := range ns.Rules.Value {
		fmt.Fprintln(&b, r)
	}
	for _, r := range ns.Routes.Value {
		fmt.Fprintln(&b, r)
	}
	for _, d := range ns.Devices.Value {
		fmt.Fprintln(&b, d.Name, d.Addresses)
	}
	fmt.Fprintln(&b, ns.Sysctls.Value)
	return b.String()
}
