package hostnet

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/path"
)

// Request is what the kernel does not know.
type Request struct {
	Name    string            // of the node
	Cluster string            // of the node; may be empty
	ENIs    map[string]string // ENI IDs by MAC address in colon form; nil: not known
	Pods    []PodName         // of those that the caller knows
	// Root is the node's root directory, where this process is in a container of the
	// node's namespaces that has it elsewhere. The node's programs run in it. Empty: "/".
	Root string
}

// Collect reads the node whose network namespace the process is in.
func Collect(ctx context.Context, r Request) (path.Node, error) {
	n := path.Node{Name: r.Name, Cluster: r.Cluster}
	at := root(r.Root)
	host, links, err := at.read(ctx)
	if err != nil {
		return n, fmt.Errorf("read node %s: %w", r.Name, err)
	}
	n.Host = host
	markENIs(links, r.ENIs)
	pods, err := at.readPods(ctx, links, append(cniNames(at.file(resultsDir)), r.Pods...))
	n.Pods = path.Known(pods)
	if err != nil {
		n.Pods = path.Unknown[[]path.Pod](err.Error())
	}
	n.Host.Devices = path.Known(devices(links))
	return n, nil
}

// CollectHost reads the namespace that the process is in alone, and no pod's. enis
// are ENI IDs by MAC address; nil: not known.
func CollectHost(ctx context.Context, enis map[string]string) (path.Namespace, error) {
	host, links, err := here.read(ctx)
	if err != nil {
		return host, fmt.Errorf("read the node's network: %w", err)
	}
	markENIs(links, enis)
	host.Devices = path.Known(devices(links))
	return host, nil
}

// read reads the namespace of the calling thread. Only devices are needed for
// there to be anything to say.
func (r root) read(ctx context.Context) (path.Namespace, []link, error) {
	var ns path.Namespace
	c, err := dial(unix.NETLINK_ROUTE)
	if err != nil {
		return ns, nil, err
	}
	defer c.Close()
	links, err := c.links()
	if err != nil {
		return ns, nil, err
	}
	if err := c.programs(links); err != nil {
		// A device that may have a program is one whose packets nobody can follow.
		for i := range links {
			links[i].BPF = append(links[i].BPF, "ingress unknown: "+err.Error(), "egress unknown: "+err.Error())
		}
	}
	ns.Devices = path.Known(devices(links))
	ns.Rules = part(c.rules())
	ns.Routes = part(c.routes(links))
	ns.Neighbours = part(c.neighbours(links))
	ns.Sysctls = part(sysctls(links))
	ns.Sockets = part(listening())
	ns.Nftables, ns.Iptables = r.filters(ctx)
	return ns, links, nil
}

func part[T any](v T, err error) path.Part[T] {
	if err != nil {
		return path.Unknown[T](err.Error())
	}
	return path.Known(v)
}

func devices(links []link) []path.Device {
	all := make([]path.Device, 0, len(links))
	for _, l := range links {
		all = append(all, l.Device)
	}
	return all
}

// markENIs tells the ENIs among the devices. One has no kind of its own, or is a
// veth where an instance is a namespace; what shares an ENI's MAC address without
// being it, as an ipvlan or VLAN does, has another kind.
func markENIs(links []link, enis map[string]string) {
	for i := range links {
		l := &links[i]
		id, known := enis[l.mac]
		switch {
		case known && (l.Kind == "" || l.Kind == "veth"):
			l.Kind, l.ENI = "eni", id
		case l.Kind == "" && enis == nil:
			l.Kind = "eni" // which one is not known
		case l.Kind == "":
			l.Kind = "device"
		}
	}
}

// readPods reads the namespaces that veth pairs join with the node's, and tells
// both ends of each pair about the other.
func (r root) readPods(ctx context.Context, host []link, names []PodName) ([]path.Pod, error) {
	all, err := r.namespaces()
	if err != nil {
		return nil, err
	}
	c, err := dial(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	pods := []path.Pod{}
	seen := map[string]bool{}
	for _, ns := range all {
		if err == nil {
			err = func() error {
				number := c.number(ns.file)
				joined := func(l link) bool { return l.Kind == "veth" && l.peerNS == number }
				if number < 0 || !slices.ContainsFunc(host, joined) {
					return nil
				}
				p, ok, err := r.readPod(ctx, ns, host, number)
				if err != nil {
					return fmt.Errorf("read namespace %s: %w", ns.name, err)
				}
				if ok {
					p.name(names, ns.name, seen)
					p.join(host)
					pods = append(pods, p.Pod)
				}
				return nil
			}()
		}
		ns.file.Close()
	}
	slices.SortFunc(pods, func(a, b path.Pod) int { return strings.Compare(a.ID(), b.ID()) })
	return pods, err
}

// pod is a pod whose devices' peers are not said yet.
type pod struct {
	path.Pod
	links []link
	pairs map[int]int // of links: the host's
}

// readPod reads a namespace that the node knows by a number; ok is false for one
// that no address makes a pod.
func (r root) readPod(ctx context.Context, ns namespace, host []link, number int32) (p pod, ok bool, err error) {
	err = inside(ns.file, func() (err error) {
		p.Net, p.links, err = r.read(ctx)
		return err
	})
	if err != nil {
		return p, false, err
	}
	p.pairs = map[int]int{}
	for i, l := range p.links {
		j := slices.IndexFunc(host, func(h link) bool {
			return h.Kind == "veth" && h.peerNS == number && h.peer == l.index && l.peer == h.index
		})
		if l.Kind != "veth" || j < 0 {
			continue
		}
		p.pairs[i] = j
		for _, a := range l.Addresses {
			if !p.Addr.IsValid() && !a.Addr().IsLinkLocalUnicast() {
				p.Addr = a.Addr()
			}
		}
	}
	return p, p.Addr.IsValid(), nil
}

// name names the pod by what is known of its address; without that, or where
// another has the name, by its namespace.
func (p *pod) name(names []PodName, fallback string, seen map[string]bool) {
	p.Namespace, p.Name = "netns", strings.ReplaceAll(fallback, " ", "_")
	for _, n := range names {
		if n.Addr == p.Addr && n.valid() && !seen[n.Namespace+"/"+n.Name] && hasAddr(p.links, n.Addr) {
			p.Namespace, p.Name = n.Namespace, n.Name
		}
	}
	seen[p.ID()] = true
}

func hasAddr(links []link, a netip.Addr) bool {
	return slices.ContainsFunc(links, func(l link) bool {
		return slices.ContainsFunc(l.Addresses, func(p netip.Prefix) bool { return p.Addr() == a })
	})
}

// join tells both ends of the pod's pairs about each other.
func (p *pod) join(host []link) {
	for i, j := range p.pairs {
		p.links[i].Peer = "host " + host[j].Name
		host[j].Peer = p.ID() + " " + p.links[i].Name
	}
	p.Net.Devices = path.Known(devices(p.links))
}
