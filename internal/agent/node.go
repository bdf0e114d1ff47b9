package agent

import (
	"cmp"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/diff"
	"github.com/fairway-cni/fairway/internal/core/intent"
	"github.com/fairway-cni/fairway/internal/core/ipam"
	"github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/internal/core/vpc"
	"github.com/fairway-cni/fairway/internal/edge/kernel"
	"github.com/fairway-cni/fairway/internal/edge/store"
)

var (
	// errNotReady says that the address's ENI has no device on this node (yet).
	errNotReady = errors.New("the ENI of the address has no device on this node")
	// errUnknownAttachment says that no such container and interface is here.
	errUnknownAttachment = errors.New("no such attachment on this node")
)

// nodeState is what the node loop owns. Its methods run in that loop only.
type nodeState struct {
	cfg    Config
	log    *slog.Logger
	now    func() time.Time
	kernel *kernel.Kernel
	store  *store.Store
	pool   *ipam.Pool

	enis    []vpc.ENI                      // as EC2 said last, those that we manage
	others  []vpc.ENI                      // and those that we do not
	routing vpc.Routing                    // as EC2 said last
	native  map[string][]vpc.Native        // what follows from it, by ENI
	strict  int                            // net.ipv4.conf.all.rp_filter
	behind  bool                           // the kernel may lack something: converge has failed
	reason  string                         // why the kernel is looked at now, for the log
	devices map[vpc.MAC]string             // names by MAC
	pods    map[ipam.Owner]node.Attachment // as the records say
	records map[ipam.Owner]store.Record    // of what is held
	cooling map[netip.Addr]time.Time       // records to remove, and when

	replayAt time.Time // when to look into the spool again
}

// setENIs takes what EC2 says of the node's ENIs and makes the kernel follow.
// Pods get addresses only of ENIs whose device is there. What the kernel refuses
// is tried again by the node loop, and by an ADD that meets it.
func (n *nodeState) setENIs(enis []vpc.ENI) error {
	n.reason = "what EC2 says of the ENIs"
	err := n.follow(enis)
	n.offer()
	return err
}

// offer gives the pool the ENIs whose device is there.
func (n *nodeState) offer() {
	var ready []vpc.ENI
	for _, e := range n.enis {
		if n.devices[e.MAC] != "" {
			ready = append(ready, e)
		}
	}
	for _, a := range n.pool.SetENIs(ready, n.now()) {
		n.log.Warn("address of a running pod is on none of the node's ENIs; the pod has no network until it is replaced",
			"addr", a.Addr, "container", a.Owner.ContainerID)
	}
}

// follow observes and converges. A pod's namespace may end in between and take
// its device along, which the next look will see.
func (n *nodeState) follow(enis []vpc.ENI) error {
	const tries = 10
	for i := 1; ; i++ {
		err := n.observe(enis)
		if err == nil {
			err = n.converge()
		}
		if i == tries || !errors.Is(err, unix.ENODEV) {
			return err
		}
	}
}

// setRouting takes what EC2 says of the VPC's routes, and makes the kernel follow
// where that changes what is native.
func (n *nodeState) setRouting(r vpc.Routing) error {
	before := n.native
	n.routing = r
	n.native = n.nativeOf(n.enis)
	if maps.EqualFunc(before, n.native, slices.Equal) {
		return nil
	}
	n.log.Info("native destinations", "prefixes", n.nativeText())
	n.reason = "what EC2 says of the VPC's routes"
	return n.converge()
}

// nativeText is for the log: ENIs of one subnet have the same.
func (n *nodeState) nativeText() []string {
	var text []string
	for _, e := range n.enis {
		line := e.SubnetID + ":"
		for _, p := range n.native[e.ID] {
			line += " " + p.Prefix.String()
		}
		if !slices.Contains(text, line) {
			text = append(text, line)
		}
	}
	return text
}

func (n *nodeState) nativeOf(enis []vpc.ENI) map[string][]vpc.Native {
	native := make(map[string][]vpc.Native)
	for _, e := range enis {
		native[e.ID] = vpc.NativeOf(n.routing, n.cfg.Native, e.SubnetID, e.Subnet)
	}
	return native
}

// observe brings the snapshot up to date: the ENIs, their devices, and for each
// attachment whether its device is there and which ENI has its address. One
// whose address no ENI has gets slot 0, and nothing is written for it.
func (n *nodeState) observe(enis []vpc.ENI) error {
	devices, err := n.kernel.Devices()
	if err != nil {
		return err
	}
	if n.strict, err = n.kernel.HostRPFilter(); err != nil {
		return err
	}
	n.enis, n.others = managed(enis)
	n.native = n.nativeOf(n.enis)
	n.devices = make(map[vpc.MAC]string, len(devices))
	named := make(map[string]bool, len(n.pods))
	for _, p := range n.pods {
		named[p.Veth] = true
	}
	veths := make(map[string]bool)
	for _, d := range devices {
		switch {
		case d.Group == node.LinkGroup, named[d.Name] && d.Group != node.DeadLinkGroup: // somebody may have changed the group
			veths[d.Name] = true
		case n.devices[d.MAC] == "": // a VLAN or bridge on top has the same MAC, and came later
			n.devices[d.MAC] = d.Name
		}
	}
	for owner, p := range n.pods {
		p.Wired, p.Slot = veths[p.Veth], 0
		for _, e := range n.enis {
			if e.Owns(p.Addr) {
				p.Slot = slot(e)
			}
		}
		n.pods[owner] = p
	}
	return nil
}

// managed parts the ENIs that give pods addresses from the others of the
// instance: those on further network cards, and those without an IPv4 address
// (EFA only). The others take their places, and are left alone.
func managed(enis []vpc.ENI) (ours, others []vpc.ENI) {
	for _, e := range enis {
		if e.CardIndex == 0 && e.Primary.IsValid() {
			ours = append(ours, e)
		} else {
			others = append(others, e)
		}
	}
	return ours, others
}

// missing lists the ENIs whose device has not appeared.
func (n *nodeState) missing() []string {
	var ids []string
	for _, e := range n.enis {
		if n.devices[e.MAC] == "" {
			ids = append(ids, e.ID)
		}
	}
	return ids
}

func (n *nodeState) snapshot() intent.Snapshot {
	s := n.withoutPods()
	for _, p := range n.pods {
		s.Pods = append(s.Pods, p)
	}
	return s
}

// withoutPods is enough of the snapshot for the delta of one pod, and costs the
// same whatever their number.
func (n *nodeState) withoutPods() intent.Snapshot {
	s := intent.Snapshot{Config: n.cfg.Datapath, HostRPFilter: n.strict}
	for _, e := range n.enis {
		s.ENIs = append(s.ENIs, intent.ENI{ENI: e, Slot: slot(e), Device: n.devices[e.MAC], Native: n.native[e.ID]})
	}
	return s
}

// slot numbers an ENI by its device index, which EC2 keeps for as long as the
// ENI is attached: the same after every restart.
func slot(e vpc.ENI) node.Slot { return node.Slot(e.DeviceIndex + 1) }

// plan compares the whole kernel with the whole intent: what there is, what
// should be, and what leads from one to the other.
func (n *nodeState) plan() (have, want []node.Object, changes []diff.Change, err error) {
	s := n.snapshot()
	want = intent.Desired(s)
	if have, err = n.kernel.Read(want); err != nil {
		return nil, nil, nil, err
	}
	changes = diff.Compare(have, want)
	diff.Explain(changes, intent.Reasons(s))
	return have, want, changes, nil
}

// converge makes the kernel hold what it should. After a failure the node loop
// tries again by itself.
func (n *nodeState) converge() error {
	n.behind = true
	_, want, changes, err := n.plan()
	if err != nil {
		return err
	}
	if len(changes) > 0 {
		n.log.Info("kernel changes", "count", len(changes), "first", changes[0].String(), "reason", n.reason)
	}
	for _, c := range changes {
		n.log.Debug("kernel change", "change", c.String())
	}
	if err := n.kernel.Converge(changes, want); err != nil {
		return err
	}
	n.behind = false
	return nil
}

// repair looks at the devices and the kernel after something else changed them.
// It reports whether the kernel now holds what it should.
func (n *nodeState) repair(why string) bool {
	before := maps.Clone(n.devices)
	n.reason = why
	err := n.follow(slices.Concat(n.enis, n.others))
	if err != nil {
		n.log.Error("repair the kernel", "reason", why, "error", err, "retry", retryDelay)
		return false
	}
	if !maps.Equal(before, n.devices) {
		n.offer() // an ENI's device came, went, or has another name
	}
	return true
}

// watchSysctls repairs the switches of which the kernel sends no news.
func (n *nodeState) watchSysctls() {
	want := slices.DeleteFunc(intent.Desired(n.withoutPods()), func(o node.Object) bool { return o.Rank() != node.RankSysctl })
	have, err := n.kernel.Sysctls(want)
	if err == nil {
		changes := slices.DeleteFunc(diff.Compare(have, want), func(c diff.Change) bool { return c.Verb == diff.Remove })
		if len(changes) == 0 {
			return
		}
		n.log.Info("kernel changes", "count", len(changes), "first", changes[0].String())
		err = n.kernel.Apply(changes)
	}
	if err != nil {
		n.log.Error("repair sysctls", "error", err)
	}
}

// restore takes the records over, before [nodeState.setENIs].
func (n *nodeState) restore() error {
	records, err := n.store.All()
	var bad *store.BadRecordsError
	restored := ipam.Restored{}
	if errors.As(err, &bad) {
		restored.Unreadable = bad.Addrs()
		n.log.Error("unreadable address records; their addresses stay out of use", "error", bad)
	} else if err != nil {
		return err
	}
	byAddr := make(map[netip.Addr]store.Record)
	for _, r := range records {
		byAddr[r.Addr] = r
		owner := ipam.Owner{ContainerID: r.ContainerID, IfName: r.IfName}
		if r.Held() {
			restored.Held = append(restored.Held, ipam.Assignment{Owner: owner, Addr: r.Addr, ENI: r.ENI})
			continue
		}
		restored.Cooling = append(restored.Cooling, ipam.Cooling{Addr: r.Addr, ENI: r.ENI, ReleasedAt: r.ReleasedAt})
		n.cooling[r.Addr] = r.ReleasedAt.Add(n.cfg.CoolDown)
	}
	if err := n.pool.Restore(restored, n.now()); err != nil {
		n.log.Error("address records contradict each other; the addresses in question stay out of use", "error", err)
	}
	for _, a := range restored.Held {
		if got, ok := n.pool.Lookup(a.Owner); ok && got.Addr == a.Addr {
			n.records[a.Owner] = byAddr[a.Addr]
			n.pods[a.Owner] = node.Attachment{ContainerID: a.Owner.ContainerID, IfName: a.Owner.IfName,
				Addr: a.Addr, Veth: cmp.Or(byAddr[a.Addr].HostVeth, node.VethName(n.cfg.VethPrefix, a.Owner.ContainerID, a.Owner.IfName))}
		}
	}
	return nil
}
