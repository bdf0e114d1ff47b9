package fabric

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// mapEntries are the contents of the BPF maps that follow the topology.
type mapEntries struct {
	enis  map[uint32]bpfEni
	owned map[bpfOwnedKey]uint8
	drops map[uint32]bool
}

func newMapEntries() mapEntries {
	return mapEntries{map[uint32]bpfEni{}, map[bpfOwnedKey]uint8{}, map[uint32]bool{}}
}

const flagSourceDestCheck = 1 // ENI_SOURCE_DEST_CHECK in bpf/fabric.h

// wantedMaps: tableOf is the number of a subnet's route table; filters are by ENI.
func wantedMaps(vpcs []VPC, ports map[string]port, filters map[string]bpfFilter, tableOf func(v VPC, subnet string) int) mapEntries {
	m := newMapEntries()
	for _, v := range vpcs {
		for _, e := range v.ENIs {
			index := uint32(ports[e.ID].index)
			entry := bpfEni{Mac: e.MAC, Primary: beUint32(e.Primary), Router: beUint32(e.Subnet.Masked().Addr().Next()),
				Table: uint32(tableOf(v, e.SubnetID)), Filter: filters[e.ID]}
			if e.SourceDestCheck {
				entry.Flags |= flagSourceDestCheck
			}
			m.enis[index] = entry
			m.drops[index] = true
			for _, p := range e.owned() {
				m.owned[bpfOwnedKey{
					Prefixlen: uint32(32 + p.Bits()),
					Ifindex:   index,
					Addr:      beUint32(p.Addr()),
				}] = 1
			}
		}
	}
	return m
}

// keepTables is m with the route tables that the ENIs have now: a table that is
// new must be in the namespace before packets are marked with its number.
func (f *Fabric) keepTables(m mapEntries) mapEntries {
	early := mapEntries{map[uint32]bpfEni{}, m.owned, m.drops}
	for index, e := range m.enis {
		var have bpfEni
		if err := f.objs.Enis.Lookup(index, &have); err == nil {
			e.Table = have.Table
		}
		early.enis[index] = e
	}
	return early
}

// readMaps asks the kernel.
func (f *Fabric) readMaps() (mapEntries, error) {
	m := newMapEntries()
	var (
		index  uint32
		eni    bpfEni
		key    bpfOwnedKey
		one    uint8
		counts []bpfDrops
	)
	enis := f.objs.Enis.Iterate()
	for enis.Next(&index, &eni) {
		m.enis[index] = eni
	}
	owned := f.objs.Owned.Iterate()
	for owned.Next(&key, &one) {
		m.owned[key] = one
	}
	drops := f.objs.Drops.Iterate()
	for drops.Next(&index, &counts) {
		m.drops[index] = true
	}
	if err := errors.Join(enis.Err(), owned.Err(), drops.Err()); err != nil {
		return mapEntries{}, fmt.Errorf("read bpf maps: %w", err)
	}
	return m, nil
}

// addToMaps writes what is wanted and gives back what is there beyond it. That
// is for removeFromMaps, after the devices and routes have followed.
func (f *Fabric) addToMaps(want mapEntries) (stale mapEntries, err error) {
	have, err := f.readMaps()
	if err != nil {
		return mapEntries{}, err
	}
	for index := range want.drops {
		if have.drops[index] {
			delete(have.drops, index)
			continue
		}
		zero := make([]bpfDrops, ebpf.MustPossibleCPU())
		if err := put(f.objs.Drops, index, zero); err != nil {
			return mapEntries{}, fmt.Errorf("make drop counters of device %d: %w", index, err)
		}
	}
	for key, value := range want.owned {
		if have.owned[key] == 0 {
			if err := f.objs.Owned.Put(key, value); err != nil {
				return mapEntries{}, fmt.Errorf("add owned address of device %d: %w", key.Ifindex, err)
			}
		}
		delete(have.owned, key)
	}
	for index, value := range want.enis {
		if have.enis[index] != value {
			if err := put(f.objs.Enis, index, value); err != nil {
				return mapEntries{}, fmt.Errorf("add eni of device %d: %w", index, err)
			}
		}
		delete(have.enis, index)
	}
	return have, nil
}

func (f *Fabric) removeFromMaps(stale mapEntries) error {
	var errs []error
	for index := range stale.enis {
		errs = append(errs, f.objs.Enis.Delete(index))
	}
	for key := range stale.owned {
		errs = append(errs, f.objs.Owned.Delete(key))
	}
	for index := range stale.drops {
		errs = append(errs, f.objs.Drops.Delete(index))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove from bpf maps: %w", err)
	}
	return nil
}
