package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
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
	native  []netip.Prefix                 // what the VPC says, and the user
	devices map[vpc.MAC]string             // names by MAC
	pods    map[ipam.Owner]node.Attachment // as the records say
	records map[ipam.Owner]store.Record    // of what is held
	cooling map[netip.Addr]time.Time       // records to remove, and when

	replayAt time.Time // when to look into the spool again
}

// setENIs takes what EC2 says of the node's ENIs and makes the kernel follow.
// Pods get addresses only of ENIs whose device is there.
func (n *nodeState) setENIs(enis []vpc.ENI) error {
	if err := n.follow(enis); err != nil {
		return err
	}
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
	return nil
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

// start does what a new agent must do once: the nftables table is replaced
// whole, by one transaction, since another version may have written it.
func (n *nodeState) start(enis []vpc.ENI) error {
	if err := n.observe(enis); err != nil {
		return err
	}
	if err := n.kernel.ResetFilter(intent.Desired(n.snapshot())); err != nil {
		return err
	}
	return n.setENIs(enis)
}

// observe brings the snapshot up to date: the ENIs, their devices, and for each
// attachment whether its device is there and which ENI has its address. One
// whose address no ENI has gets slot 0, and nothing is written for it.
func (n *nodeState) observe(enis []vpc.ENI) error {
	devices, err := n.kernel.Devices()
	if err != nil {
		return err
	}
	n.enis, n.others = managed(enis)
	n.devices = make(map[vpc.MAC]string, len(devices))
	veths := make(map[string]bool)
	for _, d := range devices {
		switch {
		case d.Group == node.LinkGroup:
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
	s := intent.Snapshot{Native: n.native, MTU: n.cfg.MTU}
	for _, e := range n.enis {
		s.ENIs = append(s.ENIs, intent.ENI{ENI: e, Slot: slot(e), Device: n.devices[e.MAC]})
	}
	return s
}

// slot numbers an ENI by its device index, which EC2 keeps for as long as the
// ENI is attached: the same after every restart.
func slot(e vpc.ENI) node.Slot { return node.Slot(e.DeviceIndex + 1) }

// converge compares the whole kernel with the whole intent.
func (n *nodeState) converge() error {
	want := intent.Desired(n.snapshot())
	have, err := n.kernel.Read(want)
	if err != nil {
		return err
	}
	changes := diff.Compare(have, want)
	if slices.ContainsFunc(changes, func(c diff.Change) bool { return c.Key == node.Admission{}.Key() }) {
		n.log.Warn("the nftables table was damaged by someone; it is restored whole")
		if err := n.kernel.ResetFilter(want); err != nil {
			return err
		}
		if have, err = n.kernel.Read(want); err != nil {
			return err
		}
		changes = diff.Compare(have, want)
	}
	if len(changes) > 0 {
		n.log.Info("kernel changes", "count", len(changes), "first", changes[0].String())
	}
	for _, c := range changes {
		n.log.Debug("kernel change", "change", c.String())
	}
	return n.kernel.Apply(changes)
}

// restore takes the records over, before [nodeState.start].
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
				Addr: a.Addr, Veth: node.VethName(a.Owner.ContainerID, a.Owner.IfName)}
		}
	}
	return nil
}

// request is what an ADD or a CHECK brings.
type request struct {
	owner          ipam.Owner
	netnsPath      string
	netns, netlink *os.File
	podName, podNS string
	mtu            int // bytes
}

// add gives the pod interface an address and makes it work. It is idempotent
// per container and interface name.
func (n *nodeState) add(r request) (node.Attachment, error) {
	if p, ok := n.pods[r.owner]; ok && p.Wired {
		if err := n.kernel.Verify(n.wiring(p, r)); err == nil {
			return p, nil
		}
		// Half made, or in a namespace that is gone: make it again.
		if err := n.unwire(p); err != nil {
			return node.Attachment{}, err
		}
	}
	_, had := n.pool.Lookup(r.owner)
	p, err := n.hold(r)
	if err != nil {
		if !had {
			n.pool.Cancel(r.owner)
		}
		return node.Attachment{}, err
	}
	if err := n.attach(p, r); err != nil {
		if !had {
			n.forget(r.owner, p.Addr)
		}
		return node.Attachment{}, err
	}
	return n.pods[r.owner], nil
}

// hold assigns an address and records it. An address that the records say is
// somebody else's is kept from everybody, and the next one is taken.
func (n *nodeState) hold(r request) (node.Attachment, error) {
	for {
		a, err := n.pool.Assign(r.owner, n.now())
		if err != nil {
			return node.Attachment{}, err
		}
		p := node.Attachment{ContainerID: r.owner.ContainerID, IfName: r.owner.IfName, Addr: a.Addr,
			Veth: node.VethName(r.owner.ContainerID, r.owner.IfName)}
		for _, e := range n.enis {
			if e.ID == a.ENI && n.devices[e.MAC] != "" {
				p.Slot = slot(e)
			}
		}
		if p.Slot == 0 {
			return p, fmt.Errorf("hold %s: %w", a.Addr, errNotReady)
		}
		record := store.Record{
			Addr: a.Addr, ENI: a.ENI, ContainerID: p.ContainerID, IfName: p.IfName, NetNS: r.netnsPath,
			HostVeth: p.Veth, PodName: r.podName, PodNamespace: r.podNS, CreatedAt: n.now(),
		}
		err = n.store.Put(record)
		if errors.Is(err, store.ErrHeld) {
			n.log.Error("the records say that somebody else holds a free address; it stays out of use", "addr", a.Addr, "error", err)
			n.pool.Reserve(a.Addr)
			continue
		}
		if err == nil {
			delete(n.cooling, a.Addr)
			n.records[r.owner] = record
		}
		return p, err
	}
}

// attach makes the interface of an address that is held.
func (n *nodeState) attach(p node.Attachment, r request) error {
	p.Wired = true
	if err := n.kernel.Wire(n.wiring(p, r)); err != nil {
		return err
	}
	delta := diff.Compare(nil, intent.Pod(n.withoutPods(), p))
	err := n.kernel.Apply(delta)
	if errors.Is(err, unix.ENOENT) {
		// Something that the pod's objects refer to is gone: mend, try again.
		if err = n.converge(); err == nil {
			err = n.kernel.Apply(delta)
		}
	}
	if err != nil {
		return errors.Join(err, n.unwire(p))
	}
	n.pods[r.owner] = p
	return nil
}

func (n *nodeState) wiring(p node.Attachment, r request) kernel.Wiring {
	return kernel.Wiring{Attachment: p, MTU: r.mtu, NetNS: r.netns, Netlink: r.netlink}
}

// forget undoes an assignment that never reached the network, so that an ADD
// that fails and is tried again does not use up the pool.
func (n *nodeState) forget(owner ipam.Owner, addr netip.Addr) {
	if err := n.store.Delete(addr); err != nil {
		// The record says held: the address must stay held.
		n.log.Error("remove address record; the address stays out of use until the container is deleted", "addr", addr, "error", err)
		return
	}
	delete(n.records, owner)
	n.pool.Cancel(owner)
}

// del releases what the owner holds. That it holds nothing is success.
func (n *nodeState) del(owner ipam.Owner) error {
	p, ok := n.pods[owner]
	if !ok {
		p = node.Attachment{Veth: node.VethName(owner.ContainerID, owner.IfName)}
	}
	if err := n.unwire(p); err != nil {
		return err
	}
	a, ok := n.pool.Lookup(owner)
	if !ok {
		return nil
	}
	now := n.now()
	record := n.records[owner]
	record.Addr, record.ENI, record.ContainerID, record.IfName = a.Addr, a.ENI, owner.ContainerID, owner.IfName
	record.ReleasedAt = now
	if err := n.store.Put(record); err != nil {
		return err
	}
	delete(n.pods, owner)
	delete(n.records, owner)
	n.pool.Release(owner, now)
	n.cooling[a.Addr] = now.Add(n.cfg.CoolDown)
	return nil
}

// unwire stops delivery to and admission from the pod. The records are not
// touched.
func (n *nodeState) unwire(p node.Attachment) error {
	wired := p
	wired.Wired = true
	if p.Addr.IsValid() {
		// What is not there any more is no error: a device that went with its
		// namespace took its route along.
		if err := n.kernel.Apply(diff.Compare(intent.Pod(n.withoutPods(), wired), nil)); err != nil {
			return err
		}
	}
	if err := n.kernel.Unwire(p); err != nil {
		return err
	}
	if p, ok := n.pods[ipam.Owner{ContainerID: p.ContainerID, IfName: p.IfName}]; ok {
		p.Wired = false
		n.pods[ipam.Owner{ContainerID: p.ContainerID, IfName: p.IfName}] = p
	}
	return nil
}

// check compares one attachment with the kernel.
func (n *nodeState) check(r request) error {
	p, ok := n.pods[r.owner]
	if !ok {
		return fmt.Errorf("check %s: %w", r.owner, errUnknownAttachment)
	}
	if err := n.kernel.Verify(n.wiring(p, r)); err != nil {
		return err
	}
	all, err := n.kernel.Read(nil)
	if err != nil {
		return err
	}
	for _, c := range diff.Compare(all, intent.Pod(n.withoutPods(), p)) {
		if c.Verb != diff.Remove { // the others are not this pod's
			return fmt.Errorf("the node's kernel differs: %s", c)
		}
	}
	return nil
}

// gc releases every attachment that the runtime does not list.
func (n *nodeState) gc(valid []ipam.Owner) error {
	var errs []error
	for owner := range n.pods {
		if !slices.Contains(valid, owner) {
			errs = append(errs, n.del(owner))
		}
	}
	return errors.Join(errs...)
}

// replayInterval is how often a running agent looks into the spool: the plugin
// also leaves a DEL there when the agent was too slow to answer.
const replayInterval = 10 * time.Second

// tick does what time asks for: dead links go, records of addresses that have
// cooled down go, releases that were left in the spool are carried out.
func (n *nodeState) tick() {
	if now := n.now(); !now.Before(n.replayAt) {
		n.replayAt = now.Add(replayInterval)
		if err := n.replay(); err != nil {
			n.log.Error("replay spool", "error", err)
		}
	}
	if err := n.kernel.Reap(); err != nil {
		n.log.Error("reap dead links", "error", err)
	}
	now := n.now()
	for addr, until := range n.cooling {
		if now.Before(until) {
			continue
		}
		if err := n.store.Delete(addr); err != nil {
			n.log.Error("remove record of a cooled down address", "addr", addr, "error", err)
			continue
		}
		delete(n.cooling, addr)
	}
}

// nodeLoop runs the functions that are sent to it, one after the other.
type nodeLoop struct {
	state    *nodeState
	commands chan func(*nodeState)
}

const tickInterval = time.Second

// run is the node loop. It ends with ctx, after the function at hand.
func (l *nodeLoop) run(ctx context.Context) {
	ticker := time.NewTicker(tickInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case f := <-l.commands:
			f(l.state)
		case <-ticker.C:
			l.state.tick()
		}
	}
}

// do runs f in the node loop and waits for it.
func (l *nodeLoop) do(ctx context.Context, f func(*nodeState)) error {
	done := make(chan struct{})
	select {
	case l.commands <- func(n *nodeState) { defer close(done); f(n) }:
		<-done
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
