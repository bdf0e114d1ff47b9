package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/agent/ipamd"
	"github.com/fairway-cni/fairway/internal/core/ipam"
	"github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/internal/core/vpc"
	"github.com/fairway-cni/fairway/internal/edge/kernel"
)

// event is news of one part of the world: that it is now so. The last event of
// each part is the truth.
type event struct {
	part  string // such as "enis" or "pod a"
	value any
}

func (e event) String() string { return fmt.Sprintf("%s = %v", e.part, e.value) }

// What the events of histories are made of.
var (
	eniParts  = []string{"", "ens6", "ens7"} // devices of ENIs 1 and 2; the primary's is always there
	podPlaces = map[string]string{"a": "10.0.1.6", "b": "10.0.1.7", "c": "10.0.2.10", "d": "10.0.2.33", "e": "10.0.3.10", "f": "10.0.1.8"}
)

func eniMAC(index int) vpc.MAC { return vpc.MAC{2, 0, 0, 0, 0, byte(index)} }

func someENIs(r *rand.Rand) []vpc.ENI {
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	all := []vpc.ENI{
		{ID: "eni-0", SubnetID: "subnet-1", Subnet: prefix("10.0.1.0/24"), Primary: addr("10.0.1.4"),
			Secondary: []netip.Addr{addr("10.0.1.6"), addr("10.0.1.7"), addr("10.0.1.8")}},
		{ID: "eni-1", SubnetID: "subnet-2", Subnet: prefix("10.0.2.0/24"), Primary: addr("10.0.2.4"),
			Secondary: []netip.Addr{addr("10.0.2.10"), addr("10.0.2.11")}, Prefixes: []netip.Prefix{prefix("10.0.2.32/28")}},
		{ID: "eni-2", SubnetID: "subnet-3", Subnet: prefix("10.0.3.0/24"), Primary: addr("10.0.3.4"),
			Secondary: []netip.Addr{addr("10.0.3.10")}},
	}
	var enis []vpc.ENI
	for i, e := range all {
		if i > 0 && r.IntN(4) == 0 {
			continue
		}
		e.MAC, e.DeviceIndex = eniMAC(i), i
		e.Secondary = slices.DeleteFunc(e.Secondary, func(netip.Addr) bool { return r.IntN(5) == 0 })
		e.Prefixes = slices.DeleteFunc(e.Prefixes, func(netip.Prefix) bool { return r.IntN(5) == 0 })
		enis = append(enis, e)
	}
	return enis
}

func someRouting(r *rand.Rand) vpc.Routing {
	prefix := netip.MustParsePrefix
	routing := vpc.Routing{CIDRs: prefixes("10.0.0.0/16"), Peerings: map[string]bool{"pcx-1": r.IntN(3) > 0},
		PrefixLists: map[string][]netip.Prefix{"pl-1": prefixes("10.1.0.0/16 172.16.0.0/12")[:1+r.IntN(2)]}}
	if r.IntN(2) == 0 {
		routing.CIDRs = prefixes("10.0.0.0/16 10.9.0.0/16")
	}
	routes := []vpc.Route{{Dst: prefix("10.1.0.0/16"), Target: vpc.PeeringTarget, TargetID: "pcx-1"},
		{PrefixList: "pl-1", Target: vpc.TransitTarget, TargetID: "tgw-1"},
		{Dst: prefix("10.1.2.0/24"), Target: vpc.TransitTarget, TargetID: "tgw-1"}}
	routing.Tables = []vpc.RouteTable{{ID: "rtb-1", Main: true, Routes: routes[:r.IntN(4)]},
		{ID: "rtb-2", Subnets: []string{"subnet-2"}, Routes: routes[r.IntN(4):]}}
	return routing
}

// history is what happens on a node, at random.
func history(r *rand.Rand) []event {
	events := []event{{"enis", someENIs(r)}, {"routing", someRouting(r)}}
	for range 25 {
		switch r.IntN(8) {
		case 0, 1:
			events = append(events, event{"enis", someENIs(r)})
		case 2:
			events = append(events, event{"routing", someRouting(r)})
		case 3, 4:
			i := 1 + r.IntN(2)
			names := []string{eniParts[i], fmt.Sprintf("eth%d", i), ""}
			events = append(events, event{fmt.Sprintf("device %d", i), names[r.IntN(3)]})
		case 5:
			events = append(events, event{"strict", r.IntN(2)})
		default:
			name := string(rune('a' + r.IntN(len(podPlaces))))
			events = append(events, event{"pod " + name, r.IntN(3) > 0})
		}
	}
	return events
}

// truth keeps the last event of each part, in the order of the parts.
func truth(events []event) []event {
	last := map[string]event{}
	for _, e := range events {
		last[e.part] = e
	}
	var kept []event
	for _, part := range slices.Sorted(maps.Keys(last)) {
		kept = append(kept, last[part])
	}
	return kept
}

// reversed tells the news in the wrong order, and the truth in the end.
func reversed(events []event) []event {
	back := slices.Clone(events)
	slices.Reverse(back)
	return append(back, truth(events)...)
}

// split tells the ENIs one by one and their addresses later, as EC2 may, and all
// news twice.
func split(events []event) []event {
	var parts []event
	for _, e := range events {
		if enis, ok := e.value.([]vpc.ENI); ok {
			for i := range enis {
				bare := slices.Clone(enis[:i+1])
				bare[i].Secondary, bare[i].Prefixes = nil, nil
				parts = append(parts, event{e.part, bare})
			}
		}
		parts = append(parts, e, e)
	}
	return parts
}

// TestEndStateIsTheSame: whatever order the news of a node come in, in pieces or
// only the last ones, and though the kernel refuses every tenth write, it holds
// the same in the end.
func TestEndStateIsTheSame(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: network namespaces")
	}
	t.Parallel()
	refuse := &refusals{Rand: rand.New(rand.NewPCG(7, 2))}
	for seed := range uint64(5) {
		events := history(rand.New(rand.NewPCG(seed, 1)))
		want, err := play(t, events, nil)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for _, tt := range []struct {
			name   string
			events []event
		}{
			{"straight", events}, {"reversed", reversed(events)}, {"split", split(events)}, {"squashed", truth(events)},
		} {
			for _, faults := range []*refusals{nil, refuse} {
				got, err := play(t, tt.events, faults)
				if err != nil {
					t.Errorf("seed %d, %s, faults: %t: %v", seed, tt.name, faults != nil, err)
					continue
				}
				if d := cmp.Diff(want, got); d != "" {
					t.Errorf("seed %d, %s, faults: %t: kernel (-straight +this):\n%s", seed, tt.name, faults != nil, d)
				}
			}
		}
		if t.Failed() {
			t.Fatalf("events: %v", events)
		}
	}
	if refuse.count < 10 {
		t.Errorf("%d writes were refused", refuse.count)
	}
}

// play lets the events happen on a node of its own, and gives what the kernel
// holds then. With faults, one in ten writes is refused.
func play(t *testing.T, events []event, faults *refusals) (held string, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the namespace ends with the thread
		held, err = stage(t, events, faults)
	}()
	<-done
	return held, err
}

var errRefused = errors.New("refused by the test")

// refusals are of one write in ten.
type refusals struct {
	*rand.Rand
	count int
}

func (r *refusals) ask() error {
	if r.IntN(10) > 0 {
		return nil
	}
	r.count++
	return errRefused
}

func stage(t *testing.T, events []event, faults *refusals) (string, error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return "", fmt.Errorf("unshare network namespace: %w", err)
	}
	if err := boot(); err != nil {
		return "", err
	}
	k, err := kernel.Open()
	if err != nil {
		return "", err
	}
	defer k.Close()
	if faults != nil {
		k.FailWrites = faults.ask
	}
	n := &nodeState{cfg: Default(), log: slog.New(slog.DiscardHandler), kernel: k,
		book:    ipamd.NewBook(ipamd.Config{}, ipamd.Identity{}, nil, slog.New(slog.DiscardHandler), time.Now),
		devices: map[vpc.MAC]string{}, pods: map[ipam.Owner]node.Attachment{}, gone: map[ipam.Owner]time.Time{}}
	p := &player{nodeState: n, netns: map[string][2]*os.File{}}
	defer p.close()
	for _, e := range events {
		if err := p.happen(e); err != nil {
			return "", fmt.Errorf("%s: %w", e, err)
		}
	}
	k.FailWrites = nil
	if err := k.Reap(); err != nil {
		return "", err
	}
	have, want, changes, err := n.plan()
	if err == nil && len(changes) > 0 {
		err = fmt.Errorf("%d changes are left, the first: %s", len(changes), changes[0])
	}
	if held, wanted := node.Render(have), node.Render(want); err == nil && held != wanted {
		err = fmt.Errorf("kernel (-want +have):\n%s", cmp.Diff(wanted, held))
	}
	return node.Render(have), err
}

// player makes events happen to a node.
type player struct {
	*nodeState
	netns map[string][2]*os.File // of pods: the namespace and a socket in it
}

func (p *player) close() {
	for _, files := range p.netns {
		files[0].Close()
		files[1].Close()
	}
}

// happen does what the agent does at such news: it tries until it has succeeded.
func (p *player) happen(e event) error {
	var err error
	name, isPod := strings.CutPrefix(e.part, "pod ")
	switch index, isDevice := strings.CutPrefix(e.part, "device "); {
	case e.part == "enis":
		_, _ = p.drive(slices.Clone(e.value.([]vpc.ENI)), nil) // repaired below, as the node loop does
	case e.part == "routing":
		_ = p.setRouting(e.value.(vpc.Routing)) // the same
	case e.part == "strict":
		err = os.WriteFile("/proc/sys/net/ipv4/conf/all/rp_filter", fmt.Appendf(nil, "%d", e.value), 0)
	case isDevice:
		err = plug(int(index[0]-'0'), e.value.(string))
	case isPod && e.value.(bool):
		err = untilDone(func() error { return p.start(name) })
	case isPod:
		err = untilDone(func() error { return p.stop(name) })
	}
	if err != nil {
		return err
	}
	return untilDone(func() error {
		if !p.repair("test") {
			return errRefused
		}
		return nil
	})
}

// untilDone is for what the kernel may refuse.
func untilDone(do func() error) error {
	const tries = 1000
	var err error
	for range tries {
		if err = do(); !errors.Is(err, errRefused) {
			return err
		}
	}
	return err
}

// start is an ADD of which the address has been decided.
func (p *player) start(name string) error {
	owner := ipam.Owner{ContainerID: name, IfName: "eth0"}
	if _, ok := p.pods[owner]; ok {
		return nil
	}
	if _, ok := p.netns[name]; !ok {
		ns, socket, err := emptyNetns()
		if err != nil {
			return err
		}
		p.netns[name] = [2]*os.File{ns, socket}
	}
	a := node.Attachment{ContainerID: name, IfName: "eth0", Addr: netip.MustParseAddr(podPlaces[name]), Veth: node.VethName("fwy", name, "eth0")}
	for _, e := range p.enis {
		if e.Owns(a.Addr) && p.devices[e.MAC] != "" {
			a.Slot = slot(e)
		}
	}
	err := p.attach(a, request{owner: owner, netns: p.netns[name][0], netlink: p.netns[name][1], mtu: 9001})
	if err != nil {
		err = errors.Join(err, untilDone(p.kernel.Reap)) // what has been made of it
	}
	return err
}

// stop is a DEL; the pod's namespace ends with it.
func (p *player) stop(name string) error {
	owner := ipam.Owner{ContainerID: name, IfName: "eth0"}
	a, ok := p.pods[owner]
	if !ok {
		return nil
	}
	if err := p.unwire(a); err != nil {
		return err
	}
	// Container and name may come again at once, which a runtime's do not.
	if err := p.kernel.Reap(); err != nil {
		return err
	}
	delete(p.pods, owner)
	p.netns[name][0].Close()
	p.netns[name][1].Close()
	delete(p.netns, name)
	return nil
}

// boot does what the operating system has done before the agent starts.
func boot() error {
	if err := plug(0, "ens5"); err != nil {
		return err
	}
	dev, err := netlink.LinkByName("ens5")
	if err != nil {
		return err
	}
	addr, err := netlink.ParseAddr("10.0.1.4/24")
	return errors.Join(err, netlink.LinkSetUp(dev), netlink.AddrAdd(dev, addr))
}

// plug makes the device of an ENI, gives it another name, or removes it if name
// is empty.
func plug(index int, name string) error {
	links, err := netlink.LinkList()
	if err != nil {
		return err
	}
	mac := eniMAC(index)
	i := slices.IndexFunc(links, func(l netlink.Link) bool { return slices.Equal(l.Attrs().HardwareAddr, mac[:]) })
	switch {
	case i < 0 && name == "":
		return nil
	case i < 0:
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.HardwareAddr = name, mac[:]
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: fmt.Sprintf("peer-%d", index)})
	case name == "":
		return netlink.LinkDel(links[i])
	}
	return errors.Join(netlink.LinkSetDown(links[i]), netlink.LinkSetName(links[i], name))
}

// emptyNetns is a pod's network namespace as the plugin hands it over.
func emptyNetns() (ns, socket *os.File, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return
		}
		if ns, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return
		}
		var fd int
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
		if err == nil {
			err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
			socket = os.NewFile(uintptr(fd), "netlink")
		}
	}()
	<-done
	return ns, socket, err
}
