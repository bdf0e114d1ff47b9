package add

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

const (
	ifName   = "eth0"
	podMap   = "pods" // package kernel's map of those that may send
	netnsDir = "/run/netns"
	confDir  = "/etc/cni/net.d"
)

// where is what the bench tells its half inside the instance.
type where struct {
	Plugin    string // path of fairway-cni
	Floor     string // path of program floor
	Addresses int    // that the agent has warm when it is ready
	ENIs      int    // that they are on
}

// machine is the instance as seen from inside: what is needed to make pods in
// it, by our plugin and by the floor, and to remove them.
type machine struct {
	where
	config []byte // of the network, as libcni hands it to a plugin
	route  *netlink.Handle
	filter *nftables.Conn
	model  model
	pods   uint64 // made so far; the next one's number
}

// sandbox is a pod's network namespace, made as a container runtime does.
type sandbox struct {
	number uint64
	path   string
}

// openMachine waits until the agent serves and has all its addresses.
func openMachine(ctx context.Context, w where) (*machine, error) {
	route, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	filter, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	m := &machine{where: w, route: route, filter: filter}
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		return nil, err
	}
	err = until(ctx, "the agent's network configuration", func() (bool, error) {
		m.config, err = networkConfig(confDir)
		return err == nil, ignore(err, fs.ErrNotExist)
	})
	if err != nil {
		return nil, err
	}
	return m, until(ctx, fmt.Sprintf("%d warm addresses", w.Addresses), m.warm)
}

// warm tells whether the agent has done all that it does without pods: what it
// would do later it would do while we measure. Below every address that it may
// give there is an unreachable route, and every ENI but the primary has a rule
// for its own address, which is among the last things that an ENI gets.
func (m *machine) warm() (bool, error) {
	routes, err := m.route.RouteListFiltered(unix.AF_INET, &netlink.Route{Table: node.PodTable}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return false, ignore(err, netlink.ErrDumpInterrupted)
	}
	rules, err := m.route.RuleList(unix.AF_INET)
	if err != nil {
		return false, ignore(err, netlink.ErrDumpInterrupted)
	}
	addresses, enis := 0, 1
	for _, r := range routes {
		if r.Type == unix.RTN_UNREACHABLE {
			addresses++
		}
	}
	for _, r := range rules {
		if r.Priority == node.FromRulePriority {
			enis++
		}
	}
	return addresses >= m.Addresses && enis >= m.ENIs, nil
}

func ignore(err, harmless error) error {
	if errors.Is(err, harmless) {
		return nil
	}
	return err
}

// patience bounds the wait for anything that comes by itself.
const patience = time.Minute

func until(ctx context.Context, what string, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := done()
		if err != nil || ok {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, ctx.Err())
		case <-tick.C:
		}
	}
}

// networkConfig makes of the configuration list what its one plugin gets on
// standard input: its own part with the list's name and version.
func networkConfig(dir string) ([]byte, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.conflist"))
	if err != nil || len(files) == 0 {
		return nil, cmp.Or(err, fs.ErrNotExist)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		return nil, err
	}
	var list struct {
		CNIVersion string           `json:"cniVersion"`
		Name       string           `json:"name"`
		Plugins    []map[string]any `json:"plugins"`
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("read %s: %w", files[0], err)
	}
	if len(list.Plugins) != 1 {
		return nil, fmt.Errorf("read %s: %d plugins, want one", files[0], len(list.Plugins))
	}
	config := list.Plugins[0]
	config["cniVersion"], config["name"] = list.CNIVersion, list.Name
	return json.Marshal(config)
}

// sandboxes makes n network namespaces with their loopback up.
func (m *machine) sandboxes(n int) ([]sandbox, error) {
	var made []sandbox
	for range n {
		m.pods++
		s := sandbox{m.pods, filepath.Join(netnsDir, fmt.Sprintf("bench-%d", m.pods))}
		if err := s.mount(); err != nil {
			return made, fmt.Errorf("make pod %d: %w", s.number, err)
		}
		made = append(made, s)
	}
	return made, nil
}

func (s sandbox) mount() error {
	ns, err := netns.New()
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := netns.Do(ns, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	}); err != nil {
		return err
	}
	if err := os.WriteFile(s.path, nil, 0o444); err != nil {
		return err
	}
	return unix.Mount(fmt.Sprintf("/proc/self/fd/%d", ns.Fd()), s.path, "", unix.MS_BIND, "")
}

func (s sandbox) unmount() error {
	if err := unix.Unmount(s.path, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", s.path, err)
	}
	return os.Remove(s.path)
}

// containerID has the 64 hexadecimal digits that container runtimes use.
func (s sandbox) containerID() string { return fmt.Sprintf("%064x", s.number) }

// env is the environment of plugin and floor alike.
func (s sandbox) env(command string) []string {
	return []string{
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root",
		"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + s.containerID(), "CNI_NETNS=" + s.path, "CNI_IFNAME=" + ifName,
		"CNI_PATH=/opt/cni/bin",
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=" + filepath.Base(s.path) + ";K8S_POD_INFRA_CONTAINER_ID=" + s.containerID(),
	}
}

func (m *machine) plugin(command string, s sandbox) program {
	return program{argv: []string{m.Plugin}, env: s.env(command), stdin: m.config}
}

func (m *machine) plugins(command string, pods []sandbox) []program {
	var programs []program
	for _, s := range pods {
		programs = append(programs, m.plugin(command, s))
	}
	return programs
}

func (m *machine) floor(s sandbox) program {
	return program{argv: []string{m.Floor, s.path}, env: s.env("ADD"), stdin: m.floorPod(s).frame()}
}

func (m *machine) floors(pods []sandbox) []program {
	var programs []program
	for _, s := range pods {
		programs = append(programs, m.floor(s))
	}
	return programs
}

// floorPod gives a sandbox the names and the address of a floor pod.
func (m *machine) floorPod(s sandbox) floorPod {
	first := floorFirst.As4()
	var addr [4]byte
	binary.BigEndian.PutUint32(addr[:], binary.BigEndian.Uint32(first[:])+uint32(s.number))
	return floorPod{
		model: m.model,
		index: floorFirstIndex + int32(s.number),
		veth:  fmt.Sprintf("%s%011x", floorPrefix, s.number),
		addr:  netip.AddrFrom4(addr),
	}
}

// dismiss removes what is left of pods when their programs are done with them:
// their namespaces, as a runtime does after DEL, and the floor's map elements.
// It returns when their devices are gone, so that the kernel's work for it is
// not measured with what comes next.
func (m *machine) dismiss(ctx context.Context, residents int, floors, ours []sandbox) error {
	if err := m.dropElements(floors); err != nil {
		return err
	}
	for _, s := range append(floors, ours...) {
		if err := s.unmount(); err != nil {
			return err
		}
	}
	return until(ctx, "the end of pods' devices", func() (bool, error) {
		links, err := m.route.LinkList()
		if err != nil {
			return false, ignore(err, netlink.ErrDumpInterrupted)
		}
		left := 0
		for _, l := range links {
			if name := l.Attrs().Name; strings.HasPrefix(name, floorPrefix) || strings.HasPrefix(name, node.DefaultVethPrefix) {
				left++
			}
		}
		return left == residents, nil
	})
}

// dropElements removes the floor's map elements, each by itself: the agent
// removes what it does not know whenever it compares its table with its intent.
func (m *machine) dropElements(floors []sandbox) error {
	for _, s := range floors {
		p := m.floorPod(s)
		key := make([]byte, unix.IFNAMSIZ)
		copy(key, p.veth)
		if err := m.filter.SetDeleteElements(pods(), []nftables.SetElement{{Key: append(key, p.addr.AsSlice()...)}}); err != nil {
			return err
		}
		if err := m.filter.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove the floor's map element %s: %w", p.veth, err)
		}
	}
	return nil
}

func pods() *nftables.Set {
	return &nftables.Set{
		Table: &nftables.Table{Name: node.TableName, Family: nftables.TableFamilyINet}, Name: podMap, IsMap: true, Concatenation: true,
		KeyType: nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeIPAddr), DataType: nftables.TypeVerdict,
	}
}
