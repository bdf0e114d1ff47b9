package scenarios

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/lab/ec2sim"
	"github.com/fairway-cni/fairway/lab/fabric/netns"
	"github.com/fairway-cni/fairway/lab/runtime"
)

// optionsWorld has a node whose ENIs hold three pods each.
var optionsWorld = strings.Replace(chaosWorld, "name: node-a, type: m5.large", "name: node-a, type: t3.small", 1)

// podDevice is how a pod's device appears in the map of who may send what. Its
// name is a hash of a container ID, new in each run.
var podDevice = regexp.MustCompile(`"([a-z0-9]{12,15})" \. ([0-9.]+) `)

// listed is what the agent lists of the kernel, with pods' devices named after
// their prefix and their address.
func listed(actual string) string {
	for _, m := range podDevice.FindAllStringSubmatch(actual, -1) {
		prefix := m[1][:len(m[1])-11]
		actual = strings.ReplaceAll(actual, m[1], prefix+"-of-"+m[2])
	}
	lines := strings.SplitAfter(actual, "\n")
	for _, kind := range []string{"link ", "element pods "} { // these come in the order of names
		from := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, kind) })
		to := from
		for to < len(lines) && from >= 0 && strings.HasPrefix(lines[to], kind) {
			to++
		}
		if from >= 0 {
			slices.Sort(lines[from:to])
		}
	}
	return strings.Join(lines, "")
}

// golden compares with a file, or writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", "options", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got; -update writes it):\n%s", file, d)
	}
}

// TestOptions gives the agent one option after the other, on one node with pods
// and flows: what the kernel then holds is as the golden files say, and no flow
// breaks.
func TestOptions(t *testing.T) {
	t.Parallel()
	l := startLab(t, optionsWorld)
	a, b := l.nodes["node-a"], l.nodes["node-b"]
	// What a pod had is given to no other while the test runs: it is part of the files.
	flags := []string{"--warm-ip-target=0", "--minimum-ip-target=1", "--cool-down=1h"}
	a.startAgent(flags...)
	b.startAgent()
	a.readyAgent()
	var pods []runtime.Pod
	for _, name := range []string{"p1", "p2", "p3", "p4"} { // one by one: which address each has is part of the files
		pods = append(pods, a.addPods(name)...)
	}
	far := b.podEnd(b.addPods("far")[0])
	first, second := a.podEnd(pods[0]), a.podEnd(l.onSecondENI(pods))
	streams := []*stream{
		streamTo(t, first, far).seenAs(t, first.addr),
		streamTo(t, second, far).seenAs(t, second.addr),
		streamTo(t, far, second).seenAs(t, far.addr),
		streamTo(t, first, l.internet()),
		streamTo(t, second, l.internet()),
	}
	public := l.elastic(t, second.addr)

	for _, tt := range []struct {
		name string
		vars []string
		then func(t *testing.T)
	}{
		{"default", nil, func(t *testing.T) {
			streamTo(t, second, l.internet()).seenAs(t, l.publicOf(t, a.addr))
		}},
		{"external-snat", []string{"AWS_VPC_K8S_CNI_EXTERNALSNAT=true"}, func(t *testing.T) {
			streams = append(streams, streamTo(t, second, l.internet()).seenAs(t, public))
		}},
		{"default", []string{"AWS_VPC_K8S_CNI_EXTERNALSNAT=false"}, func(t *testing.T) {
			streamTo(t, second, l.internet()).seenAs(t, l.publicOf(t, a.addr))
		}},
		{"without-node-port", []string{"AWS_VPC_CNI_NODE_PORT_SUPPORT=false"}, nil},
		{"external-services", []string{"AWS_EXTERNAL_SERVICE_CIDRS=10.0.2.0/24"}, func(t *testing.T) {
			streamTo(t, second, far).seenAs(t, a.addr)
		}},
		{"excluded", []string{"AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS=203.0.113.0/24,nonsense"}, func(t *testing.T) {
			a.logged("level=WARN", "invalid", "AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS", "nonsense")
			streamTo(t, second, l.internet()).seenAs(t, public)
		}},
		{"hashrandom", []string{"AWS_VPC_K8S_CNI_RANDOMIZESNAT=hashrandom"}, nil},
		{"no-random", []string{"AWS_VPC_K8S_CNI_RANDOMIZESNAT=none"}, nil},
		{"rp-filter-left-alone", []string{"AWS_VPC_K8S_CNI_CONFIGURE_RPFILTER=false", "DISABLE_TCP_EARLY_DEMUX=true"}, nil},
		{"strict-host", nil, nil}, // see below
		{"mtu", []string{"AWS_VPC_ENI_MTU=8000", "POD_MTU=1400"}, func(t *testing.T) {
			if mtu := a.podMTU(t, a.addPods("narrow")[0]); mtu != 1400 {
				t.Errorf("MTU of a new pod: %d, want 1400", mtu)
			}
			if mtu := a.podMTU(t, pods[0]); mtu != 9001 {
				t.Errorf("MTU of a pod from before: %d, want 9001", mtu)
			}
			a.delPods("narrow")
		}},
		{"veth-prefix", []string{"AWS_VPC_K8S_CNI_VETHPREFIX=pod"}, nil}, // see below
		{"connection-mark", []string{"AWS_VPC_K8S_CNI_CONNMARK=0x100"}, nil},
	} {
		t.Log(tt.name, tt.vars)
		switch tt.name {
		case "strict-host":
			a.sysctl(t, "net/ipv4/conf/all/rp_filter", "1")
		case "connection-mark":
			// With another bit nobody knows any more what flows are bound to. Those
			// that would choose the same way again go on.
			allEnd(t, streams[5:])
			streams = streams[:5]
		}
		a.vars = tt.vars
		a.restartAgent(unix.SIGTERM, flags...)
		a.readyAgent()
		if tt.name == "veth-prefix" {
			p := a.addPods("named")
			streams = append(streams, streamTo(t, a.podEnd(p[0]), far))
		}
		golden(t, tt.name, listed(a.repaired(tt.name)))
		if tt.then != nil {
			tt.then(t)
		}
		allGoOn(t, streams)
		if tt.name == "strict-host" {
			a.sysctl(t, "net/ipv4/conf/all/rp_filter", "0")
		}
	}
	allEnd(t, streams)
}

// TestLean: with external SNAT and without NodePort the datapath needs no
// connection tracking, and has none.
func TestLean(t *testing.T) {
	t.Parallel()
	l := startLab(t, optionsWorld)
	a, b := l.nodes["node-a"], l.nodes["node-b"]
	a.vars = []string{"AWS_VPC_K8S_CNI_EXTERNALSNAT=true", "AWS_VPC_CNI_NODE_PORT_SUPPORT=false"}
	a.startAgent("--warm-ip-target=0", "--minimum-ip-target=1")
	b.startAgent()
	a.readyAgent()
	var pods []runtime.Pod
	for _, name := range []string{"p1", "p2", "p3", "p4"} {
		pods = append(pods, a.addPods(name)...)
	}
	far := b.podEnd(b.addPods("far")[0])
	second := a.podEnd(l.onSecondENI(pods))
	public := l.elastic(t, second.addr)
	streams := []*stream{
		streamTo(t, a.podEnd(pods[0]), far).seenAs(t, podAddr(pods[0])),
		streamTo(t, far, second).seenAs(t, far.addr),
		streamTo(t, second, l.internet()).seenAs(t, public),
		streamVia(t, l.internet(), second, public).seenAs(t, internetHost),
	}
	actual := listed(a.repaired("lean"))
	golden(t, "lean", actual)
	if strings.Contains(actual, "ct mark") {
		t.Error("connection tracking is asked for")
	}
	allEnd(t, streams)
	l.allReach(t)
}

// TestNodePort: a service's flow that comes by the primary ENI, for a pod of the
// second one, is answered by the primary: also to who would be native.
func TestNodePort(t *testing.T) {
	t.Parallel()
	l := startLab(t, chaosWorld)
	a, b := l.nodes["node-a"], l.nodes["node-b"]
	a.startAgent()
	b.startAgent()
	second := a.podEnd(l.onSecondENI(a.addPods(elevenPods...)))
	port := serve(t, second)
	far := b.podEnd(b.addPods("far")[0])
	err := netns.Do(a.netns(), func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		proxy := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "kube-proxy"})
		nat := c.AddChain(&nftables.Chain{Table: proxy, Name: "nat", Type: nftables.ChainTypeNAT,
			Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest})
		c.AddRule(&nftables.Rule{Table: proxy, Chain: nat, Exprs: append(toService(a.hostEnd(), port), dnatTo(second, port)...)})
		return c.Flush()
	})
	if err != nil {
		t.Fatal(err)
	}
	var streams []*stream
	for _, client := range []struct {
		from end
		to   netip.Addr
	}{{b.hostEnd(), a.addr}, {far, a.addr}, {l.internet(), l.publicOf(t, a.addr)}} {
		s, err := l.ask(t.Context(), client.from, netip.AddrPortFrom(client.to, port))
		if err != nil {
			t.Fatal(err)
		}
		streams = append(streams, s.seenAs(t, client.from.addr))
	}
	allGoOn(t, streams)
	a.restartAgent(unix.SIGKILL)
	a.readyAgent()
	allGoOn(t, streams)

	// Without the option a new flow is answered by the pod's own ENI, where the
	// VPC drops what has the node's address. Old flows keep their way.
	a.vars = []string{"AWS_VPC_CNI_NODE_PORT_SUPPORT=false"}
	a.restartAgent(unix.SIGTERM)
	a.readyAgent()
	ctx, stop := context.WithCancel(t.Context())
	asked := make(chan error, 1)
	before := l.drops(t, second.addr, "SRC_DST_CHECK")
	go func() {
		_, err := l.ask(ctx, b.hostEnd(), netip.AddrPortFrom(a.addr, port))
		asked <- err
	}()
	eventually(t, "the VPC drops answers of the second ENI", func() error {
		if now := l.drops(t, second.addr, "SRC_DST_CHECK"); now == before {
			return errors.New("no drop")
		}
		return nil
	})
	stop()
	if err := <-asked; err == nil {
		t.Error("without NodePort support the service works")
	}
	allEnd(t, streams)
}

// ask opens a stream to whoever listens there.
func (l *lab) ask(ctx context.Context, from end, to netip.AddrPort) (*stream, error) {
	conn, err := dial(ctx, from, to)
	if err != nil {
		return nil, err
	}
	return startStream(l.t, conn, fmt.Sprintf("stream from %s to %s", from.name, to))
}

// drops counts what the VPC dropped at the ENI that has the address.
func (l *lab) drops(t *testing.T, addr netip.Addr, reason string) uint64 {
	t.Helper()
	for _, e := range l.status().ENIs {
		if slices.Contains(e.Secondary, addr) {
			return e.Drops[reason]
		}
	}
	t.Fatalf("no ENI has %s", addr)
	return 0
}

// publicOf is the elastic address that an address is mapped to.
func (l *lab) publicOf(t *testing.T, addr netip.Addr) netip.Addr {
	t.Helper()
	all := l.Cloud().Snapshot().Addresses
	i := slices.IndexFunc(all, func(e ec2sim.Address) bool { return e.PrivateIP == addr })
	if i < 0 {
		t.Fatalf("%s has no elastic address", addr)
	}
	return all[i].PublicIP
}

func (n *node) sysctl(t *testing.T, path, value string) {
	t.Helper()
	if err := netns.Do(n.netns(), func() error { return os.WriteFile("/proc/sys/"+path, []byte(value), 0) }); err != nil {
		t.Fatal(err)
	}
}

func (n *node) podMTU(t *testing.T, p runtime.Pod) (mtu int) {
	t.Helper()
	err := netns.Do(n.podNetns(p), func() error {
		dev, err := netlink.LinkByName(p.IfName)
		if err == nil {
			mtu = dev.Attrs().MTU
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return mtu
}
