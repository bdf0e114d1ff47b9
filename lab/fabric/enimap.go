package fabric

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// eniSlots is ENI_SLOTS in bpf/fabric.h, which says what places and slots are.
// Half of the slots can be in use: in a change that is for all ENIs each has two.
const eniSlots = 1 << 14

// errNoSlot: there are too many ENIs.
var errNoSlot = fmt.Errorf("more than %d enis", eniSlots/2)

// readPlaces asks the kernel for the slot of every place that has one.
func (f *Fabric) readPlaces() (map[uint32]uint32, error) {
	taken := map[uint32]uint32{}
	var cursor ebpf.MapBatchCursor
	places, slots := make([]uint32, eniSlots), make([]uint32, eniSlots)
	for {
		n, err := f.objs.Places.BatchLookup(&cursor, places, slots, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil, err
		}
		for i, slot := range slots[:n] {
			if slot != 0 {
				taken[places[i]] = slot
			}
		}
		if err != nil { // the last batch
			return taken, nil
		}
	}
}

// readENIs asks the kernel for what the programs find.
func (f *Fabric) readENIs() (map[uint32]bpfEni, error) {
	taken, err := f.readPlaces()
	if err != nil {
		return nil, err
	}
	enis := map[uint32]bpfEni{}
	for place, slot := range taken {
		var e bpfEni
		if err := f.objs.Enis.Lookup(slot, &e); err != nil {
			return nil, err
		}
		if e.Ifindex%eniSlots == place { // else no program finds it
			enis[e.Ifindex] = e
		}
	}
	return enis, nil
}

// readENI asks for one, by its ifindex; ok: there is one.
func (f *Fabric) readENI(index uint32) (e bpfEni, ok bool, err error) {
	var slot uint32
	if err := f.objs.Places.Lookup(index%eniSlots, &slot); err != nil {
		return e, false, err
	}
	if err := f.objs.Enis.Lookup(slot, &e); err != nil {
		return e, false, err
	}
	return e, e.Ifindex == index, nil
}

// writeENIs puts each into a slot of its own, and turns its place to it.
func (f *Fabric) writeENIs(enis map[uint32]bpfEni) error {
	if len(enis) == 0 {
		return nil
	}
	taken, err := f.readPlaces()
	if err != nil {
		return err
	}
	inUse := map[uint32]bool{0: true} // 0 is none
	for _, slot := range taken {
		inUse[slot] = true
	}
	if len(inUse)+len(enis) > eniSlots {
		return errNoSlot
	}
	for index, e := range enis {
		for inUse[f.slot] {
			f.slot = (f.slot + 1) % eniSlots
		}
		if err := f.objs.Enis.Put(f.slot, e); err != nil {
			return fmt.Errorf("add eni of device %d: %w", index, err)
		}
		if err := f.objs.Places.Put(index%eniSlots, f.slot); err != nil {
			return fmt.Errorf("add eni of device %d: %w", index, err)
		}
		f.slot = (f.slot + 1) % eniSlots
	}
	return nil
}

// removeENI empties the place of one.
func (f *Fabric) removeENI(index uint32) error { return f.objs.Places.Put(index%eniSlots, uint32(0)) }
