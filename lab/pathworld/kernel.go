package pathworld

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/internal/edge/kernel"
	"github.com/fairway-cni/fairway/lab/ec2sim"
	"github.com/fairway-cni/fairway/lab/fabric/netns"
	"github.com/fairway-cni/fairway/lab/iproute"
)

func readNode(snap ec2sim.Snapshot, h Host) (path.Node, error) {
	if _, err := instanceOf(snap, h.Instance); err != nil {
		return path.Node{}, err
	}
	host, hostLinks, err := readNamespace(h.NetNS)
	if err != nil {
		return path.Node{}, err
	}
	for i, l := range hostLinks {
		if id, ok := eniOf(snap, h.Instance, l.Address.String()); ok {
			d := &host.Devices.Value[i]
			d.Kind, d.ENI = "eni", id
		}
	}
	n := path.Node{Name: h.Name, Cluster: h.Cluster}
	pods := []path.Pod{}
	for _, p := range h.Pods {
		ns, links, err := readNamespace(p.NetNS)
		if err != nil {
			return n, fmt.Errorf("pod %s: %w", p.Name, err)
		}
		join(p.Namespace+"/"+p.Name, host.Devices.Value, hostLinks, ns.Devices.Value, links)
		pods = append(pods, path.Pod{Namespace: p.Namespace, Name: p.Name, Addr: p.Addr, Net: ns})
	}
	n.Host, n.Pods = host, path.Known(pods)
	return n, nil
}

// join finds the two ends of a pod's veth pairs: the end in the pod says which
// index the other one has, and that is one of the host's.
func join(pod string, host []path.Device, hostLinks []iproute.Link, mine []path.Device, links []iproute.Link) {
	for i, l := range links {
		if l.Lower == nil || l.Away == nil {
			continue
		}
		for j, o := range hostLinks {
			if o.Index != *l.Lower || o.Lower == nil || *o.Lower != l.Index || host[j].Kind == "eni" {
				continue
			}
			mine[i].Kind, mine[i].Peer = "veth", "host "+o.Name
			host[j].Kind, host[j].Peer = "veth", pod+" "+l.Name
		}
	}
}

// readNamespace reads all of a namespace. The links are those of the devices, in
// their order.
func readNamespace(ns *os.File) (path.Namespace, []iproute.Link, error) {
	var out path.Namespace
	links, err := show(ns, "link", "show")
	if err != nil {
		return out, nil, err
	}
	addresses, err := show(ns, "-4", "address", "show")
	if err != nil {
		return out, nil, err
	}
	devices := []path.Device{}
	for _, l := range links.Links {
		d := path.Device{Name: l.Name, Kind: "other", Down: l.Flags&unix.IFF_UP == 0, MTU: int(l.MTU), Group: l.Group}
		if l.Flags&unix.IFF_LOOPBACK != 0 {
			d.Kind = "loopback"
		}
		for _, a := range addresses.Addresses {
			if a.Device == l.Name && a.Local.Is4() {
				d.Addresses = append(d.Addresses, netip.PrefixFrom(a.Local, a.Bits))
			}
		}
		devices = append(devices, d)
	}
	out.Devices = path.Known(devices)
	if out.Rules, err = lines[path.IPRule](ns, "-4", "rule", "show"); err != nil {
		return out, nil, err
	}
	if out.Routes, err = lines[path.IPRoute](ns, "-4", "route", "show", "table", "all"); err != nil {
		return out, nil, err
	}
	if out.Neighbours, err = neighbours(ns); err != nil {
		return out, nil, err
	}
	err = netns.Do(ns, func() error {
		return errors.Join(readSysctls(&out), readRuleset(&out), readSockets(&out), readIptables(&out))
	})
	return out, links.Links, err
}

func show(ns *os.File, words ...string) (iproute.Answer, error) {
	r, err := iproute.Parse(words)
	if err != nil {
		return iproute.Answer{}, err
	}
	a, err := iproute.Do(ns, r)
	if err != nil {
		return a, fmt.Errorf("ip %s: %w", strings.Join(words, " "), err)
	}
	return a, nil
}

// line is a form that is read from a line of text.
type line[T any] interface {
	*T
	UnmarshalText([]byte) error
}

// lines reads what `ip` prints.
func lines[T any, P line[T]](ns *os.File, words ...string) (path.Part[[]T], error) {
	none := path.Part[[]T]{}
	r, err := iproute.Parse(words)
	if err != nil {
		return none, err
	}
	a, err := iproute.Do(ns, r)
	if err != nil {
		return none, fmt.Errorf("ip %s: %w", strings.Join(words, " "), err)
	}
	out := []T{}
	for text := range strings.Lines(a.Text(r)) {
		var v T
		if err := P(&v).UnmarshalText([]byte(strings.TrimSpace(text))); err != nil {
			return none, err
		}
		out = append(out, v)
	}
	return path.Known(out), nil
}

func neighbours(ns *os.File) (path.Part[[]path.Neighbour], error) {
	a, err := show(ns, "-4", "neighbour", "show")
	if err != nil {
		return path.Part[[]path.Neighbour]{}, err
	}
	out := []path.Neighbour{}
	for _, n := range a.Neighbours {
		if n.State&unix.NUD_PERMANENT != 0 {
			out = append(out, path.Neighbour{Addr: n.Addr, Device: n.Device})
		}
	}
	return path.Known(out), nil
}

// switches are the sysctls of a device that decide about a packet's way.
var switches = []string{"rp_filter", "accept_local", "src_valid_mark", "forwarding", "proxy_arp", "route_localnet"}

func readSysctls(n *path.Namespace) error {
	names := []string{"net/ipv4/ip_forward"}
	of := []string{"all", "default"}
	for _, d := range n.Devices.Value {
		of = append(of, d.Name)
	}
	for _, dev := range of {
		for _, s := range switches {
			names = append(names, "net/ipv4/conf/"+dev+"/"+s)
		}
	}
	out := map[string]string{}
	for _, name := range names {
		b, err := os.ReadFile("/proc/sys/" + name)
		if err != nil {
			return fmt.Errorf("read sysctl: %w", err)
		}
		out[name] = strings.TrimSpace(string(b))
	}
	n.Sysctls = path.Known(out)
	return nil
}

// readRuleset runs nft in the namespace of the calling thread, where there is
// anything for it to read.
func readRuleset(n *path.Namespace) error {
	tables, err := (&nftables.Conn{}).ListTables()
	if err != nil {
		return fmt.Errorf("list nftables: %w", err)
	}
	if len(tables) == 0 {
		n.Nftables = path.Known(path.Ruleset{})
		return nil
	}
	var said strings.Builder
	nft := exec.Command("nft", "-s", "list", "ruleset")
	nft.Stderr = &said
	b, err := nft.Output()
	if err != nil { // one that does not run is as good as none
		n.Nftables = path.Unknown[path.Ruleset]("nft list ruleset: " + err.Error())
		if len(tables) == 1 && tables[0].Name == node.TableName {
			unknown := n.Nftables
			table, err := kernel.OwnTable()
			if err == nil {
				err = n.Add(table)
			}
			if err != nil {
				n.Nftables = unknown
			}
		}
		return nil
	}
	if what := path.NftLeftOut(said.String()); what != "" {
		n.Nftables = path.Unknown[path.Ruleset]("nft leaves out what iptables-nft wrote (" + what + ")")
		return nil
	}
	r, err := path.ParseRuleset(strings.Split(strings.TrimRight(string(b), "\n"), "\n"))
	if err != nil {
		return err
	}
	n.Nftables = path.Known(r)
	return nil
}

// readIptables knows of the tables of iptables-legacy; those of iptables-nft are
// in the ruleset.
func readIptables(n *path.Namespace) error {
	names, err := os.ReadFile("/proc/thread-self/net/ip_tables_names")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list tables of iptables: %w", err)
	}
	if len(names) == 0 {
		none, err := path.ParseIptables(nil)
		n.Iptables = path.Known(none)
		return err
	}
	b, err := exec.Command("iptables-legacy-save").Output()
	if errors.Is(err, exec.ErrNotFound) {
		n.Iptables = path.Unknown[path.Iptables]("there is no program iptables-legacy-save")
		return nil
	}
	if err != nil {
		return fmt.Errorf("iptables-legacy-save: %w", err)
	}
	tables, err := path.ParseIptables(strings.Split(strings.TrimRight(string(b), "\n"), "\n"))
	n.Iptables = path.Known(tables)
	return err
}

// States of a socket that takes what comes, in proc_net_tcp(5).
const (
	stateListen = "0A" // of TCP
	stateClose  = "07" // of UDP: connected to nobody
)

// readSockets reads what listens in the namespace of the calling thread, on IPv4.
// A socket of IPv6 that takes IPv4 too is not shown there.
func readSockets(n *path.Namespace) error {
	out := []path.Socket{}
	for _, proto := range []path.Proto{path.TCP, path.UDP} {
		state := stateListen
		if proto == path.UDP {
			state = stateClose
		}
		b, err := os.ReadFile("/proc/thread-self/net/" + string(proto))
		if err != nil {
			return fmt.Errorf("list sockets: %w", err)
		}
		for text := range strings.Lines(string(b)) {
			f := strings.Fields(text)
			if len(f) < 4 || f[3] != state {
				continue
			}
			at, err := parseSocket(f[1])
			if err != nil {
				return err
			}
			out = append(out, path.Socket{Proto: proto, Addr: at.Addr(), Port: at.Port()})
		}
	}
	n.Sockets = path.Known(out)
	return nil
}

// parseSocket reads "0100007F:0050": the address in the order of the machine.
func parseSocket(s string) (netip.AddrPort, error) {
	addr, port, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(addr)
	if err != nil || len(b) != 4 {
		return netip.AddrPort{}, fmt.Errorf("parse socket %q", s)
	}
	p, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("parse socket %q", s)
	}
	var a [4]byte
	binary.NativeEndian.PutUint32(a[:], binary.BigEndian.Uint32(b))
	return netip.AddrPortFrom(netip.AddrFrom4(a), uint16(p)), nil
}
