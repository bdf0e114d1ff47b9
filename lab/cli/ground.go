package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/fairway-cni/fairway/lab/fabric"
	"github.com/fairway-cni/fairway/lab/fabric/netns"
	"github.com/fairway-cni/fairway/lab/probe"
	"github.com/fairway-cni/fairway/lab/world"
)

// internetName is what the hosts beyond the internet gateways are called.
const internetName = "internet"

// ground is a lab as packets meet it: its places, and what is lost where.
type ground struct {
	o      *options
	remote *world.Remote
	status world.Status
	open   map[string]*os.File // namespaces, by the place's name: instances, pods, internet
	order  []string            // of open, for what is printed
}

// spot is a place that packets come from or go to.
type spot struct {
	name     string // as it was asked for
	place    string // key of ground.open
	ns       *os.File
	instance world.InstanceStatus // zero: internet
	eni      string               // ID, where it was named by its device
	pod      bool
	addr     netip.Addr // that others reach it at
	source   netip.Addr // that it has to send from; zero: the kernel's choice
}

// ground opens the namespaces of all running instances and of the internet.
func (o *options) ground(ctx context.Context) (*ground, error) {
	r, _, err := o.remote()
	if err != nil {
		return nil, err
	}
	s, err := r.Status(ctx)
	if err != nil {
		return nil, err
	}
	g := &ground{o: o, remote: r, status: s, open: map[string]*os.File{}}
	for _, in := range running(s) {
		if _, err := g.namespace(instanceName(in), filepath.Join("/proc", strconv.Itoa(in.PID), "ns/net")); err != nil {
			g.close()
			return nil, err
		}
	}
	if s.Internet != "" {
		if _, err := g.namespace(internetName, s.Internet); err != nil {
			g.close()
			return nil, err
		}
	}
	return g, nil
}

func (g *ground) close() {
	for _, ns := range g.open {
		ns.Close()
	}
}

func instanceName(in world.InstanceStatus) string { return cmp.Or(in.Name, in.ID) }

// namespace opens a place's namespace, once.
func (g *ground) namespace(place, path string) (*os.File, error) {
	if ns, ok := g.open[place]; ok {
		return ns, nil
	}
	ns, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open network namespace of %s: %w", place, err)
	}
	g.open[place] = ns
	g.order = append(g.order, place)
	return ns, nil
}

// find takes an instance, INSTANCE/DEVICE, INSTANCE/POD, a pod or internet.
func (g *ground) find(ctx context.Context, name string) (spot, error) {
	if name == internetName {
		return g.internet()
	}
	if in, err := g.status.Find(name); err == nil {
		s, err := g.instance(in)
		s.name = name
		return s, err
	}
	instance, rest, slash := strings.Cut(name, "/")
	if !slash {
		return g.pod(ctx, nil, name, name)
	}
	in, err := g.status.Find(instance)
	if err != nil {
		return spot{}, err
	}
	for _, e := range g.status.ENIs {
		if e.Instance == in.ID && e.Device == rest {
			s, err := g.instance(in)
			s.name, s.eni, s.addr, s.source = name, e.ID, e.Primary, e.Primary
			return s, err
		}
	}
	return g.pod(ctx, []string{instance}, rest, name)
}

func (g *ground) instance(in world.InstanceStatus) (spot, error) {
	place := instanceName(in)
	ns, ok := g.open[place]
	if !ok {
		return spot{}, fmt.Errorf("instance %s does not run in the lab: it is %s; see fairway-lab status", place, in.State)
	}
	return spot{name: place, place: place, ns: ns, instance: in, addr: in.Address}, nil
}

// pod finds a pod by its name, in one instance or in all.
func (g *ground) pod(ctx context.Context, instance []string, pod, asked string) (spot, error) {
	pods, err := g.o.allPods(ctx, instance)
	if err != nil {
		return spot{}, err
	}
	var found []Pod
	for _, p := range pods {
		if p.Name == pod && p.Ready && len(p.Addresses) > 0 {
			found = append(found, p)
		}
	}
	switch len(found) {
	case 1:
		s, err := g.podSpot(found[0])
		s.name = asked
		return s, err
	case 0:
		return spot{}, fmt.Errorf("no instance, device, ready pod or internet %q in lab %s; see fairway-lab status and fairway-lab pod list", asked, g.status.Name)
	}
	var there []string
	for _, p := range found {
		there = append(there, p.Instance+"/"+p.Name)
	}
	return spot{}, fmt.Errorf("%w: several pods are %q: choose one of %s", ErrUsage, asked, strings.Join(there, ", "))
}

func (g *ground) podSpot(p Pod) (spot, error) {
	in, err := g.status.Find(p.Instance)
	if err != nil {
		return spot{}, err
	}
	place := p.Instance + "/" + p.Name
	ns, err := g.namespace(place, filepath.Join("/proc", strconv.Itoa(in.PID), "root", p.NetNS))
	return spot{name: p.Name, place: place, ns: ns, instance: in, pod: true, addr: p.Addresses[0].Addr()}, err
}

func (g *ground) internet() (spot, error) {
	ns, ok := g.open[internetName]
	if !ok {
		return spot{}, errors.New("this lab has no internet")
	}
	hosts, err := hostsOf(ns)
	s := spot{name: internetName, place: internetName, ns: ns}
	if len(hosts) > 0 {
		s.addr, s.source = hosts[0], hosts[0]
	}
	return s, err
}

// hostsOf gives the addresses of the internet's hosts, in order.
func hostsOf(ns *os.File) ([]netip.Addr, error) {
	var hosts []netip.Addr
	err := netns.Do(ns, func() error {
		// They are the loopback's. To ask for all fails when another device goes meanwhile.
		lo, err := net.InterfaceByName("lo")
		if err != nil {
			return err
		}
		addrs, err := lo.Addrs()
		for _, a := range addrs {
			p, err := netip.ParsePrefix(a.String())
			if err == nil && p.Addr().Is4() && !p.Addr().IsLoopback() {
				hosts = append(hosts, p.Addr())
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list hosts of the internet: %w", err)
	}
	slices.SortFunc(hosts, netip.Addr.Compare)
	return hosts, nil
}

// owns says whether an ENI has an address.
func owns(e world.ENIStatus, a netip.Addr) bool {
	return e.Primary == a || slices.Contains(e.Secondary, a) ||
		slices.ContainsFunc(e.Prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}

// holder finds who has an address, as seen from a place: VPCs may overlap. It is
// the zero spot where nobody is known to have it.
func (g *ground) holder(ctx context.Context, a netip.Addr, from spot) (spot, error) {
	var near, all []world.ENIStatus
	for _, e := range g.status.ENIs {
		if !owns(e, a) || g.open[g.nameOf(e.Instance)] == nil {
			continue
		}
		all = append(all, e)
		if from.instance.ID != "" && slices.ContainsFunc(g.status.ENIs, func(own world.ENIStatus) bool { return own.Instance == from.instance.ID && own.VPC == e.VPC }) {
			near = append(near, e)
		}
	}
	if len(near) > 0 {
		all = near
	}
	switch len(all) {
	case 0:
		in, err := g.internet()
		if err != nil {
			return spot{}, nil
		}
		hosts, err := hostsOf(in.ns)
		if err != nil || !slices.Contains(hosts, a) {
			return spot{}, err
		}
		return in, nil
	case 1:
	default:
		var there []string
		for _, e := range all {
			there = append(there, deviceOf(g.status, e.ID))
		}
		return spot{}, fmt.Errorf("%w: several have %s: %s; say who is meant with --at", ErrUsage, a, strings.Join(there, ", "))
	}
	in, err := g.status.Find(all[0].Instance)
	if err != nil || all[0].Primary == a {
		s, err2 := g.instance(in)
		return s, errors.Join(err, err2)
	}
	pods, err := g.o.allPods(ctx, []string{in.ID})
	if err != nil {
		return spot{}, err
	}
	for _, p := range pods {
		if p.Ready && slices.ContainsFunc(p.Addresses, func(own netip.Prefix) bool { return own.Addr() == a }) {
			return g.podSpot(p)
		}
	}
	return g.instance(in)
}

// nameOf is an instance's name, by its ID.
func (g *ground) nameOf(id string) string {
	for _, in := range g.status.Instances {
		if in.ID == id {
			return instanceName(in)
		}
	}
	return ""
}

// loss is where packets were lost, and how many.
type loss struct {
	At      string `json:"at"` // INSTANCE/DEVICE, a link, or whose kernel
	Reason  string `json:"reason"`
	Packets uint64 `json:"packets"`
	Kernel  bool   `json:"kernel,omitempty"` // the fabric had delivered it

	eni, instance string // IDs
}

func (l loss) String() string {
	if l.Kernel {
		return l.At + ": " + l.Reason
	}
	return l.At + " " + l.Reason
}

// lossList is for a table: without counts, which vary with retransmissions.
func lossList(all []loss) string {
	var out []string
	for _, l := range all {
		out = append(out, l.String())
	}
	return cmp.Or(strings.Join(out, ", "), "-")
}

// tally is what was lost until a moment.
type tally struct {
	ground  *ground
	status  world.Status
	kernels map[string]probe.Kernel // by place
}

// tally reads the fabric's counters and those of all open namespaces.
func (g *ground) tally(ctx context.Context) (tally, error) {
	t := tally{ground: g, kernels: map[string]probe.Kernel{}}
	var err error
	if t.status, err = g.remote.Status(ctx); err != nil {
		return t, err
	}
	for place, ns := range g.open {
		if t.kernels[place], err = probe.ReadKernel(ns); err != nil {
			return t, fmt.Errorf("%s: %w", place, err)
		}
	}
	return t, nil
}

// since lists what was lost after the earlier moment: by ENI, link and then
// kernel, in the order of status.
func (t tally) since(earlier tally) []loss {
	var out []loss
	for _, e := range t.status.ENIs {
		var old map[string]uint64
		for _, x := range earlier.status.ENIs {
			if x.ID == e.ID {
				old = x.Drops
			}
		}
		at := cmp.Or(deviceOf(t.status, e.ID), e.ID)
		out = append(out, lossesAt(loss{At: at, eni: e.ID, instance: e.Instance}, e.Drops, old)...)
	}
	for _, l := range t.status.Links {
		var old map[string]uint64
		for _, x := range earlier.status.Links {
			if x.ID == l.ID {
				old = x.Drops
			}
		}
		out = append(out, lossesAt(loss{At: linkName(l)}, l.Drops, old)...)
	}
	for _, place := range t.ground.order {
		if old, ok := earlier.kernels[place]; ok {
			out = append(out, lossesAt(loss{At: place, Kernel: true}, t.kernels[place].LostSince(old), nil)...)
		}
	}
	return out
}

// chatter is what instances send by themselves: IPv6.
func (l loss) chatter() bool { return l.Reason == fabric.NotIPv4.String() }

// linkName is as the routes of a world file name it: "peering/left-right".
func linkName(l world.LinkStatus) string {
	kinds := map[string]string{
		world.KindPeering: "peering", world.KindTransitVPC: "transitGateway",
		world.KindInternetGateway: "internetGateway", world.KindNATGateway: "nat",
	}
	return cmp.Or(kinds[l.Kind], l.Kind) + "/" + cmp.Or(l.Name, l.ID)
}

// lossesAt lists what grew, by reason.
func lossesAt(at loss, now, old map[string]uint64) []loss {
	var out []loss
	for _, reason := range slices.Sorted(maps.Keys(now)) {
		if n := now[reason]; n > old[reason] {
			at.Reason, at.Packets = reason, n-old[reason]
			out = append(out, at)
		}
	}
	return out
}
