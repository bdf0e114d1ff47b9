package differential

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/fairway-cni/fairway/lab/ec2sim"
	"github.com/fairway-cni/fairway/lab/fabric/netns"
	"github.com/fairway-cni/fairway/lab/iproute"
	"github.com/fairway-cni/fairway/lab/pathworld"
	"github.com/fairway-cni/fairway/lab/world"
)

// host is an instance with its namespaces.
type host struct {
	pathworld.Host
	in     ec2sim.Instance
	vpc    string // its name
	layout string // whose rules lead its pods
}

// scene is a lab of one seed, in which packets are sent.
type scene struct {
	seed  uint64
	d     dice
	plan  blueprint
	lab   *world.Lab
	hosts []*host
	log   []string // what was done to the nodes, for whoever looks into a disagreement
	open  []*os.File
}

// build makes the lab of a seed and all that is in its instances.
func build(ctx context.Context, seed uint64) (_ *scene, err error) {
	d := newDice(seed)
	name := fmt.Sprintf("d%d-%d", os.Getpid(), seed)
	s := &scene{seed: seed, d: d, plan: design(d, name)}
	w, err := world.Parse(fmt.Sprintf("seed %d", seed), []byte(s.plan.yaml))
	if err != nil {
		return s, err
	}
	if s.lab, err = world.Start(ctx, world.Config{World: w, Dir: world.Dir(name), Log: slog.New(slog.DiscardHandler)}); err != nil {
		return s, err
	}
	select {
	case <-s.lab.Ready():
	case <-ctx.Done():
		return s, errors.Join(ctx.Err(), s.lab.Failure())
	}
	if err := s.moreENIs(ctx); err != nil {
		return s, err
	}
	if err := s.findHosts(ctx); err != nil {
		return s, err
	}
	for _, h := range s.hosts {
		if err := s.furnish(h); err != nil {
			return s, fmt.Errorf("furnish %s: %w\n%s", h.Name, err, s.story())
		}
	}
	if err := s.damageVPCs(ctx); err != nil {
		return s, fmt.Errorf("damage VPCs: %w\n%s", err, s.story())
	}
	return s, nil
}

func (s *scene) close() error {
	var errs []error
	for _, f := range s.open {
		errs = append(errs, f.Close())
	}
	if s.lab != nil {
		errs = append(errs, s.lab.Close())
	}
	return errors.Join(errs...)
}

func (s *scene) note(format string, args ...any) { s.log = append(s.log, fmt.Sprintf(format, args...)) }

// story is all that one needs to see the world again.
func (s *scene) story() string { return s.plan.yaml + strings.Join(s.log, "\n") + "\n" }

// named finds an instance by its name.
func named(snap ec2sim.Snapshot, name string) ec2sim.Instance {
	i := slices.IndexFunc(snap.Instances, func(in ec2sim.Instance) bool { return in.Name == name })
	return snap.Instances[i]
}

func regionOf(snap ec2sim.Snapshot, vpc string) string {
	return snap.VPCs[slices.IndexFunc(snap.VPCs, func(v ec2sim.VPC) bool { return v.ID == vpc })].Region
}

// moreENIs gives nodes a second ENI, and the first VPC one that is in no instance.
func (s *scene) moreENIs(ctx context.Context) error {
	snap := s.lab.Cloud().Snapshot()
	for _, name := range s.plan.nodes {
		in := named(snap, name)
		c := s.lab.Cloud().In(regionOf(snap, in.VPCID))
		var groups []string
		for _, g := range snap.Groups {
			if g.VPCID == in.VPCID && s.d.in(2) {
				groups = append(groups, g.ID)
			}
		}
		subnets := slices.DeleteFunc(slices.Clone(snap.Subnets), func(n ec2sim.Subnet) bool { return n.VPCID != in.VPCID || n.Zone != in.Zone })
		eni, err := c.CreateNetworkInterface(ec2sim.CreateNetworkInterfaceInput{
			SubnetID: one(s.d, subnets...).ID, Groups: groups, Addresses: ec2sim.Addressing{Count: 3},
		})
		if err != nil {
			return err
		}
		if s.d.in(4) {
			if err := c.ModifyNetworkInterfaceAttribute(ec2sim.ModifyNetworkInterfaceInput{ID: eni.ID, SourceDest: ec2sim.Some(false)}); err != nil {
				return err
			}
		}
		if s.d.in(8) {
			continue // it stays in no instance
		}
		if _, err := c.AttachNetworkInterface(ec2sim.AttachNetworkInterfaceInput{InterfaceID: eni.ID, InstanceID: in.ID, DeviceIndex: 1}); err != nil {
			return err
		}
	}
	return s.lab.Settle(ctx)
}

func (s *scene) findHosts(ctx context.Context) error {
	status, err := s.lab.Status(ctx, os.Getpid())
	if err != nil {
		return err
	}
	snap := s.lab.Cloud().Snapshot()
	for _, name := range slices.Concat(s.plan.nodes, s.plan.plain) {
		in := named(snap, name)
		i := slices.IndexFunc(status.Instances, func(i world.InstanceStatus) bool { return i.ID == in.ID })
		ns, err := os.Open(filepath.Join("/proc", fmt.Sprint(status.Instances[i].PID), "ns/net"))
		if err != nil {
			return err
		}
		s.open = append(s.open, ns)
		s.hosts = append(s.hosts, &host{in: in, vpc: name[:1], Host: pathworld.Host{Instance: in.ID, Name: name, NetNS: ns}})
	}
	return nil
}

// ip carries out one command of ip(8), in the words of a person.
func (s *scene) ip(h string, ns *os.File, command string) error {
	r, err := iproute.Parse(strings.Fields(command))
	if err == nil {
		_, err = iproute.Do(ns, r)
	}
	s.note("%s: ip %s", h, command)
	if err != nil {
		return fmt.Errorf("%s: ip %s: %w", h, command, err)
	}
	return nil
}

func (s *scene) sysctl(h string, ns *os.File, name string, value any) error {
	s.note("%s: sysctl %s=%v", h, name, value)
	return netns.Do(ns, func() error { return os.WriteFile("/proc/sys/"+name, fmt.Append(nil, value), 0o644) })
}

// haveNft reports whether the program nft runs.
var haveNft = sync.OnceValue(func() bool { return exec.Command("nft", "--version").Run() == nil })

// nft writes rules; a machine without the program has worlds without them.
func (s *scene) nft(h string, ns *os.File, rules string) error {
	if !haveNft() {
		s.note("%s: no nft", h)
		return nil
	}
	s.note("%s: nft\n%s", h, rules)
	return netns.Do(ns, func() error {
		c := exec.Command("nft", "-f", "-")
		c.Stdin = strings.NewReader(rules)
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: nft: %w: %s", h, err, out)
		}
		return nil
	})
}

// hurry has the kernel give up on a neighbour, and on a SYN-ACK, at once.
func hurry(ns *os.File) error {
	return netns.Do(ns, func() error {
		files, err := filepath.Glob("/proc/sys/net/ipv4/neigh/*/retrans_time_ms")
		if err != nil {
			return err
		}
		for _, f := range files {
			if err := os.WriteFile(f, []byte("15"), 0o644); err != nil {
				return err
			}
		}
		// A ping socket (icmp(7)) is how an echo that nobody waits for is known.
		return errors.Join(os.WriteFile("/proc/sys/net/ipv4/tcp_synack_retries", []byte("0"), 0o644),
			os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 65535"), 0o644))
	})
}

// eni is one of a host's, with its device and its subnet's router.
type eni struct {
	ec2sim.NetworkInterface
	dev    string
	subnet netip.Prefix
}

func (e eni) gateway() netip.Addr { return e.subnet.Addr().Next() }

// enis lists those that are in the host, the primary one first.
func (s *scene) enis(h *host) ([]eni, error) {
	snap := s.lab.Cloud().Snapshot()
	r, err := iproute.Parse([]string{"link", "show"})
	if err != nil {
		return nil, err
	}
	links, err := iproute.Do(h.NetNS, r)
	if err != nil {
		return nil, err
	}
	var out []eni
	for _, id := range snap.Instances[slices.IndexFunc(snap.Instances, func(i ec2sim.Instance) bool { return i.ID == h.Instance })].Interfaces {
		e := snap.Interfaces[slices.IndexFunc(snap.Interfaces, func(e ec2sim.NetworkInterface) bool { return e.ID == id })]
		n := snap.Subnets[slices.IndexFunc(snap.Subnets, func(n ec2sim.Subnet) bool { return n.ID == e.SubnetID })]
		i := slices.IndexFunc(links.Links, func(l iproute.Link) bool { return l.Address.String() == e.MAC.String() })
		if i < 0 {
			return nil, fmt.Errorf("%s has no device for %s", h.Name, id)
		}
		out = append(out, eni{e, links.Links[i].Name, n.CIDR})
	}
	return out, nil
}

// pod makes a pod with its veth pair; the host's end is veth.
func (s *scene) pod(h *host, name, veth string, addr netip.Addr) error {
	ns, err := netns.New()
	if err != nil {
		return err
	}
	s.open = append(s.open, ns)
	var mac string
	err = netns.Do(h.NetNS, func() error {
		l := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: veth}, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(ns.Fd()))}
		if err := netlink.LinkAdd(l); err != nil {
			return err
		}
		if err := netlink.LinkSetUp(l); err != nil {
			return err
		}
		made, err := netlink.LinkByName(veth)
		if err == nil {
			mac = made.Attrs().HardwareAddr.String()
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("make pod %s: %w", name, err)
	}
	h.Pods = append(h.Pods, pathworld.Pod{Namespace: "default", Name: name, Addr: addr, NetNS: ns})
	for _, command := range []string{
		"link set lo up", "link set eth0 up", "address add " + addr.String() + "/32 dev eth0",
		"route add 169.254.1.1 dev eth0", "route add default via 169.254.1.1 dev eth0",
		"neighbour add 169.254.1.1 lladdr " + mac + " dev eth0 nud permanent",
	} {
		if err := s.ip(name, ns, command); err != nil {
			return err
		}
	}
	return hurry(ns)
}

const buildTime = 5 * time.Minute // of all that a world needs, on a slow machine
