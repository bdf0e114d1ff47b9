package fabric

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/lab/fabric/netns"
	"github.com/fairway-cni/fairway/lab/fabric/relay"
)

// Priorities of the filters of faults around mainPriority: see bpf/fault.c.
const (
	beforeMain = 1
	afterMain  = 20
)

// tapQueue is how many frames may wait for a relay to read them.
const tapQueue = 16384

// wires is what the kernel and this process hold because of faults: nothing
// while there are none.
type wires struct {
	objs  *faultObjects
	byENI map[string]*badWire
	count map[string]relay.Stats // of the relays that have ended, by ENI
}

// badWire is an ENI's relays.
type badWire struct {
	fault ENIFault
	vpc   *vpcNet // where the taps are
	taps  map[Direction]tap
}

type tap struct {
	index int
	relay *relay.Relay
}

// lost is what relays of the ENI lost.
func (w *wires) lost(eni string) Count {
	stats := w.stats(eni)
	return Count{Packets: stats.Lost, Bytes: stats.LostBytes - stats.Lost*relay.HeaderLen}
}

func (w *wires) stats(eni string) relay.Stats {
	stats := w.count[eni]
	if have := w.byENI[eni]; have != nil {
		for _, t := range have.taps {
			stats = plus(stats, t.relay.Stats())
		}
	}
	return stats
}

func plus(a, b relay.Stats) relay.Stats {
	return relay.Stats{
		Frames: a.Frames + b.Frames, Lost: a.Lost + b.Lost, LostBytes: a.LostBytes + b.LostBytes,
		Reordered: a.Reordered + b.Reordered,
	}
}

// FaultStats gives what the relays of each ENI have done since it is in the
// topology, by ENI ID.
func (f *Fabric) FaultStats() map[string]relay.Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := map[string]relay.Stats{}
	for id := range f.ports {
		if s := f.wires.stats(id); s.Frames > 0 {
			all[id] = s
		}
	}
	return all
}

// load gets the programs into the kernel; they share the counters of the VPC's.
func (w *wires) load(drops *ebpf.Map) error {
	if w.objs != nil {
		return nil
	}
	spec, err := loadFault()
	if err != nil {
		return fmt.Errorf("read bpf programs of faults: %w", err)
	}
	objs := &faultObjects{}
	loaded := struct {
		*faultPrograms
		Zones *ebpf.Map `ebpf:"zones"`
	}{faultPrograms: &objs.faultPrograms}
	err = spec.LoadAndAssign(&loaded, &ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{faultMapDrops: drops}})
	if err != nil {
		return fmt.Errorf("load bpf programs of faults: %w", err)
	}
	objs.Zones = loaded.Zones
	w.objs = objs
	w.byENI = map[string]*badWire{}
	return nil
}

// unload needs that no relay is left.
func (w *wires) unload() error {
	if w.objs == nil {
		return nil
	}
	err := errors.Join(w.objs.faultPrograms.Close(), w.objs.Zones.Close())
	w.objs, w.byENI = nil, nil
	return err
}

// closeAll is the end of all relays, before their VPCs go.
func (w *wires) closeAll() error {
	var errs []error
	for id := range w.byENI {
		errs = append(errs, w.stop(id))
	}
	return errors.Join(append(errs, w.unload())...)
}

// stop ends the relays of an ENI, whose packets must not be led to them any
// more, and closes their taps.
func (w *wires) stop(eni string) error {
	have := w.byENI[eni]
	if have == nil {
		return nil
	}
	var errs []error
	for _, t := range have.taps {
		errs = append(errs, t.relay.Stop())
		if w.count == nil {
			w.count = map[string]relay.Stats{}
		}
		w.count[eni] = plus(w.count[eni], t.relay.Stats())
	}
	delete(w.byENI, eni)
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("end fault of eni %s: %w", eni, err)
	}
	return nil
}

// syncFaults makes relays, zones and filters those of the faults. It comes last
// in a Sync: an ENI's device is there.
func (f *Fabric) syncFaults(vpcs []VPC, res Result) error {
	for id := range f.wires.count {
		if _, ok := f.ports[id]; !ok {
			delete(f.wires.count, id)
		}
	}
	if f.wires.objs == nil && !f.faulty() {
		return nil // nothing is wrong, and nothing was
	}
	if err := f.wires.load(f.objs.Drops); err != nil {
		return err
	}
	errs := []error{f.syncZones(vpcs)}
	keep := map[string]bool{}
	for _, v := range vpcs {
		n := f.vpcs[v.ID]
		if n == nil {
			continue
		}
		for _, e := range v.ENIs {
			if !res.ENIs[e.ID].Plugged {
				continue
			}
			keep[e.ID] = true
			if err := f.syncWire(n, e); err != nil {
				errs = append(errs, fmt.Errorf("fault of eni %s: %w", e.ID, err))
			}
		}
	}
	for id := range f.wires.byENI {
		if !keep[id] {
			errs = append(errs, f.wires.stop(id))
		}
	}
	if !f.faulty() && errors.Join(errs...) == nil {
		errs = append(errs, f.wires.unload())
	}
	return errors.Join(errs...)
}

func (f *Fabric) faulty() bool { return len(f.faults.ENIs) > 0 || len(f.faults.Partitions) > 0 }

// syncZones writes the zones of all ENIs, or none where there is no partition.
func (f *Fabric) syncZones(vpcs []VPC) error {
	want := map[uint32]faultZone{}
	if bits := f.faults.zoneBits(); len(bits) > 0 {
		for _, v := range vpcs {
			zones := map[string]string{}
			for _, s := range v.Subnets {
				zones[s.ID] = s.Zone
			}
			for _, e := range v.ENIs {
				if zone := zones[e.SubnetID]; zone != "" {
					want[uint32(f.ports[e.ID].index)] = f.faults.zone(zone, bits)
				}
			}
		}
	}
	var (
		errs  []error
		index uint32
		have  faultZone
		extra []uint32
	)
	entries := f.wires.objs.Zones.Iterate()
	for entries.Next(&index, &have) {
		if z, ok := want[index]; !ok {
			extra = append(extra, index)
		} else if z == have {
			delete(want, index)
		}
	}
	errs = append(errs, entries.Err())
	for index, z := range want {
		errs = append(errs, f.wires.objs.Zones.Put(index, z))
	}
	for _, index := range extra {
		errs = append(errs, f.wires.objs.Zones.Delete(index))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("write zones of partitions: %w", err)
	}
	return nil
}

// syncWire makes the relays of one ENI and the filters at its device.
func (f *Fabric) syncWire(n *vpcNet, e ENI) error {
	fault := f.faults.ENIs[e.ID]
	link, err := n.nl.LinkByIndex(f.ports[e.ID].index)
	if err != nil {
		return fmt.Errorf("find device: %w", err)
	}
	have := f.wires.byENI[e.ID]
	if have != nil && (have.fault != fault || have.vpc != n) {
		// Nothing may be on its way to a tap that goes: filters first.
		if err := f.syncFilters(n, link, nil, false); err != nil {
			return err
		}
		if err := f.wires.stop(e.ID); err != nil {
			return err
		}
		have = nil
	}
	if have == nil && (fault.has(Out) || fault.has(In)) {
		if have, err = f.newWire(n, e, fault); err != nil {
			return err
		}
		f.wires.byENI[e.ID] = have
	}
	var taps map[Direction]tap
	if have != nil {
		taps = have.taps
	}
	return f.syncFilters(n, link, taps, len(f.faults.Partitions) > 0)
}

// syncFilters attaches and detaches the programs of faults at an ENI's device.
func (f *Fabric) syncFilters(n *vpcNet, link netlink.Link, taps map[Direction]tap, partition bool) error {
	objs := f.wires.objs
	err := n.filter(link, hook{netlink.HANDLE_MIN_EGRESS, beforeMain, 0}, objs.Check, taps[In].index != 0 || partition)
	return errors.Join(err,
		n.filter(link, hook{netlink.HANDLE_MIN_INGRESS, beforeMain, taps[Out].index}, objs.TakeOut, taps[Out].index != 0),
		n.filter(link, hook{netlink.HANDLE_MIN_EGRESS, afterMain, taps[In].index}, objs.TakeOut, taps[In].index != 0))
}

// newWire makes the taps and starts the relays.
func (f *Fabric) newWire(n *vpcNet, e ENI, fault ENIFault) (_ *badWire, err error) {
	w := &badWire{fault: fault, vpc: n, taps: map[Direction]tap{}}
	defer func() {
		if err != nil {
			for _, t := range w.taps {
				err = errors.Join(err, t.relay.Stop())
			}
		}
	}()
	for stream, d := range directions {
		if !fault.has(d) {
			continue
		}
		index := f.next
		f.next++
		file, err := f.newTap(n, e.ID, d, index)
		if err != nil {
			return nil, err
		}
		r := relay.Start(file, relay.NewSchedule(fault.relayed(), uint64(stream)))
		w.taps[d] = tap{index, r}
	}
	return w, nil
}

// tapName is "out-" or "in-" and the end of the ENI's ID.
func tapName(eni string, d Direction) string {
	return string(d) + "-" + eni[max(0, len(eni)-(maxName-len("out-"))):]
}

// newTap makes a tap whose packets go to the ENI's device.
func (f *Fabric) newTap(n *vpcNet, eni string, d Direction, index int) (_ *os.File, err error) {
	name := tapName(eni, d)
	var file *os.File
	if err := netns.Do(n.ns, func() (err error) {
		file, err = relay.Tap(name, index)
		return err
	}); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, file.Close())
		}
	}()
	link, err := n.nl.LinkByIndex(index)
	if err != nil {
		return nil, fmt.Errorf("find tap %s: %w", name, err)
	}
	prog := f.wires.objs.PutBackIn
	if d == In {
		prog = f.wires.objs.PutBackOut
	}
	if err := errors.Join(
		n.nl.LinkSetAlias(link, fmt.Sprintf("relay of faults, %s of %s", d, eni)),
		n.nl.LinkSetTxQLen(link, tapQueue),
		n.filter(link, hook{netlink.HANDLE_MIN_INGRESS, mainPriority, f.ports[eni].index}, prog, true),
		n.nl.LinkSetUp(link),
	); err != nil {
		return nil, fmt.Errorf("set up tap %s: %w", name, err)
	}
	return file, nil
}

// hook is a place for a program on a device.
type hook struct {
	parent   uint32 // ingress or egress
	priority uint16
	class    int // for the program to read
}

// filter makes sure that a program is attached at a hook, or that nothing is: by
// clsact and cls_bpf, as attaching by tcx would hold RTNL for 10 ms.
func (v *vpcNet) filter(l netlink.Link, at hook, prog *ebpf.Program, wanted bool) error {
	parent, priority, class := at.parent, at.priority, at.class
	info, err := prog.Info()
	if err != nil {
		return fmt.Errorf("inspect bpf program: %w", err)
	}
	id, _ := info.ID()
	filters, err := dump(func() ([]netlink.Filter, error) { return v.nl.FilterList(l, parent) })
	if err != nil {
		return fmt.Errorf("list tc filters: %w", err)
	}
	attrs := netlink.FilterAttrs{
		LinkIndex: l.Attrs().Index, Parent: parent, Handle: 1, Priority: priority, Protocol: unix.ETH_P_ALL,
	}
	for _, have := range filters {
		if have.Attrs().Priority != priority {
			continue
		}
		if b, ok := have.(*netlink.BpfFilter); ok && wanted && b.Id == int(id) && b.DirectAction && b.ClassId == uint32(class) {
			return nil
		}
		if wanted {
			continue // is replaced
		}
		if err := v.nl.FilterDel(&netlink.BpfFilter{FilterAttrs: attrs}); err != nil {
			return fmt.Errorf("detach bpf program %s: %w", info.Name, err)
		}
		return nil
	}
	if !wanted {
		return nil
	}
	qdisc := &netlink.GenericQdisc{QdiscType: "clsact", QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: l.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
	if err := v.nl.QdiscAdd(qdisc); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add clsact qdisc: %w", err)
	}
	err = v.nl.FilterReplace(&netlink.BpfFilter{
		FilterAttrs: attrs, Fd: prog.FD(), Name: info.Name, DirectAction: true, ClassId: uint32(class),
	})
	if err != nil {
		return fmt.Errorf("attach bpf program %s: %w", info.Name, err)
	}
	return nil
}

// setLinksDown sets the fabric ends down whose ENIs have that fault: the guest's
// device loses its carrier. By now no route leads there. Those that come up
// again have been set up by syncEnds, before their routes.
func (v *vpcNet) setLinksDown(vpc VPC, plugged map[string]int) []error {
	var errs []error
	for _, e := range vpc.ENIs {
		index, ok := plugged[e.ID]
		if !ok || !e.down {
			continue
		}
		link, err := v.nl.LinkByIndex(index)
		if err == nil && link.Attrs().Flags&net.FlagUp != 0 {
			err = v.nl.LinkSetDown(link)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("take link of eni %s down: %w", e.ID, err))
		}
	}
	return errs
}
