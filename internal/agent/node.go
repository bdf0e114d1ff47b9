package agent

import (
	"cmp"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/agent/ipamd"
	"github.com/fairway-cni/fairway/internal/core/diff"
	"github.com/fairway-cni/fairway/internal/core/intent"
	"github.com/fairway-cni/fairway/internal/core/ipam"
	"github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/internal/core/vpc"
	"github.com/fairway-cni/fairway/internal/edge/agentapi"
	"github.com/fairway-cni/fairway/internal/edge/bootclock"
	"github.com/fairway-cni/fairway/internal/edge/kernel"
	"github.com/fairway-cni/fairway/internal/edge/metrics"
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
	cfg     Config
	log     *slog.Logger
	clock   bootclock.Clock // by which the records are written
	kernel  *kernel.Kernel
	book    *ipamd.Book      // addresses, their records, and what EC2 is asked for
	metrics *metrics.Metrics // may be nil

	enis    []vpc.ENI                      // those that we manage
	others  []vpc.ENI                      // and those that we do not
	routing vpc.Routing                    // as EC2 said last
	native  map[string][]vpc.Native        // what follows from it, by ENI
	strict  int                            // net.ipv4.conf.all.rp_filter
	behind  bool                           // the kernel may lack something: converge has failed
	changed bool                           // converge has changed something
	reason  string                         // why the kernel is looked at now, for the log
	devices map[vpc.MAC]string             // names by MAC
	pods    map[ipam.Owner]node.Attachment // as the records say
	gone    map[ipam.Owner]time.Time       // pods whose device is not there, and since when

	replayAt time.Time // when to look into the spool again

	unproven chan struct{}  // wakes the prover; nil: nobody proves
	paths    agentapi.Paths // what it found
}

// drive makes the kernel follow the ENIs, and says which of them have a device. It
// is the book's [ipamd.Datapath]. What the kernel refuses is tried again by the node
// loop, and by an ADD that meets it.
func (n *nodeState) drive(managed, others []vpc.ENI) (map[string]bool, error) {
	n.reason = "what is known of the ENIs"
	n.enis, n.others = managed, others
	defer n.stale()
	err := n.follow()
	ready := make(map[string]bool, len(managed))
	for _, e := range managed {
		ready[e.ID] = n.devices[e.MAC] != ""
	}
	return ready, err
}

// follow observes and converges. A pod's namespace may end in between and take
// its device along, which the next look will see.
func (n *nodeState) follow() error {
	const tries = 10
	for i := 1; ; i++ {
		err := n.observe()
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
	defer n.stale()
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
func (n *nodeState) observe() error {
	devices, err := n.kernel.Devices()
	if err != nil {
		return err
	}
	if n.strict, err = n.kernel.HostRPFilter(); err != nil {
		return err
	}
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
	n.changed = n.changed || len(changes) > 0
	return nil
}

// repair looks at the devices and the kernel after something else changed them.
// It reports whether the kernel now holds what it should.
func (n *nodeState) repair(why string) bool {
	before := maps.Clone(n.devices)
	n.reason, n.changed = why, false
	defer func() {
		if n.changed {
			n.stale()
		}
	}()
	err := n.follow()
	if err != nil {
		n.metrics.Unmended()
		n.log.Error("repair the kernel", "reason", why, "error", err, "retry", retryDelay)
		return false
	}
	if !maps.Equal(before, n.devices) { // an ENI's device came, went, or has another name
		if err := n.book.Refresh(); err != nil {
			n.metrics.Unmended()
			n.log.Error("repair the kernel", "reason", why, "error", err, "retry", retryDelay)
			return false
		}
	}
	if n.changed && maps.Equal(before, n.devices) { // else a device of ours has brought the change
		n.metrics.Repaired()
	}
	return true
}

// watchSysctls repairs the switches of which the kernel sends no news. One that is
// not there is a device's that is not: of that there is news.
func (n *nodeState) watchSysctls() {
	want := slices.DeleteFunc(intent.Desired(n.withoutPods()), func(o node.Object) bool { return o.Rank() != node.RankSysctl })
	have, err := n.kernel.Sysctls(want)
	if err == nil {
		changes := slices.DeleteFunc(diff.Compare(have, want), func(c diff.Change) bool { return c.Verb != diff.Replace })
		if len(changes) == 0 {
			return
		}
		n.log.Info("kernel changes", "count", len(changes), "first", changes[0].String())
		err = n.kernel.Apply(changes)
	}
	if err != nil {
		n.metrics.Unmended()
		n.log.Error("repair sysctls", "error", err)
		return
	}
	n.metrics.Repaired()
}

// restore takes the records over, before anything is known of the ENIs.
func (n *nodeState) restore() error {
	if err := n.book.Restore(); err != nil {
		return err
	}
	for owner, r := range n.book.Held() {
		n.pods[owner] = n.attachment(r)
	}
	return nil
}

// attachment is what a record says of a pod interface.
func (n *nodeState) attachment(r store.Record) node.Attachment {
	p := node.Attachment{ContainerID: r.ContainerID, IfName: r.IfName, Addr: r.Addr,
		Veth: cmp.Or(r.HostVeth, node.VethName(n.cfg.VethPrefix, r.ContainerID, r.IfName))}
	for _, e := range n.enis {
		if e.Owns(p.Addr) && n.devices[e.MAC] != "" {
			p.Slot = slot(e)
		}
	}
	return p
}
