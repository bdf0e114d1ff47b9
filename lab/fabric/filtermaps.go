package fabric

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// readFilters asks the kernel.
func (f *Fabric) readFilters() (filterEntries, error) {
	m := newFilterEntries()
	var (
		index   uint32
		filter  bpfFilter
		remote  bpfRemoteKey
		class   uint64
		port    bpfPortKey
		verdict uint8
	)
	filters := f.objs.Filters.Iterate()
	for filters.Next(&index, &filter) {
		m.filters[index] = filter
	}
	remotes := f.objs.Remotes.Iterate()
	for remotes.Next(&remote, &class) {
		m.remotes[remote] = class
	}
	verdicts := f.objs.Verdicts.Iterate()
	for verdicts.Next(&port, &verdict) {
		m.verdicts[port] = verdict
	}
	if err := errors.Join(filters.Err(), remotes.Err(), verdicts.Err()); err != nil {
		return filterEntries{}, fmt.Errorf("read bpf maps of filters: %w", err)
	}
	return m, nil
}

// addFilters writes what is wanted: the rules first, then the filters that lead
// to them. It gives back what is there beyond it, for removeFilters.
func (f *Fabric) addFilters(want filterEntries) (stale filterEntries, err error) {
	have, err := f.readFilters()
	if err != nil {
		return filterEntries{}, err
	}
	for key, value := range want.verdicts {
		if got, ok := have.verdicts[key]; !ok || got != value {
			if err := put(f.objs.Verdicts, key, value); err != nil {
				return filterEntries{}, fmt.Errorf("add verdict of rules: %w", err)
			}
		}
		delete(have.verdicts, key)
	}
	for key, value := range want.remotes {
		if got, ok := have.remotes[key]; !ok || got != value {
			if err := put(f.objs.Remotes, key, value); err != nil {
				return filterEntries{}, fmt.Errorf("add remote of rules: %w", err)
			}
		}
		delete(have.remotes, key)
	}
	for index, value := range want.filters {
		if have.filters[index] != value {
			if err := put(f.objs.Filters, index, value); err != nil {
				return filterEntries{}, fmt.Errorf("add filter of device %d: %w", index, err)
			}
		}
		delete(have.filters, index)
	}
	return have, nil
}

// removeFilters takes filters away before the rules that they lead to.
func (f *Fabric) removeFilters(stale filterEntries) error {
	var errs []error
	for index := range stale.filters {
		errs = append(errs, f.objs.Filters.Delete(index))
	}
	for key := range stale.remotes {
		errs = append(errs, f.objs.Remotes.Delete(key))
	}
	for key := range stale.verdicts {
		errs = append(errs, f.objs.Verdicts.Delete(key))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove from bpf maps of filters: %w", err)
	}
	return nil
}

// put writes an entry. The kernel fills up the memory for new entries behind our
// back, and for a moment may have none left after many at once.
func put(m *ebpf.Map, key, value any) error {
	var err error
	for wait := time.Millisecond; wait < time.Second; wait *= 2 {
		if err = m.Put(key, value); !errors.Is(err, unix.ENOMEM) {
			break
		}
		time.Sleep(wait)
	}
	return err
}
