package fabric

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// readRules asks the kernel.
func (f *Fabric) readRules() (ruleEntries, error) {
	m := newRuleEntries()
	var (
		remote  bpfRemoteKey
		class   uint64
		port    bpfPortKey
		verdict uint8
	)
	remotes := f.objs.Remotes.Iterate()
	for remotes.Next(&remote, &class) {
		m.remotes[remote] = class
	}
	verdicts := f.objs.Verdicts.Iterate()
	for verdicts.Next(&port, &verdict) {
		m.verdicts[port] = verdict
	}
	if err := errors.Join(remotes.Err(), verdicts.Err()); err != nil {
		return ruleEntries{}, fmt.Errorf("read bpf maps of rules: %w", err)
	}
	return m, nil
}

// addRules writes what is wanted. The filters that lead to the rules come after
// them, with their ENIs. It gives back what is there beyond it, for removeRules.
func (f *Fabric) addRules(want ruleEntries) (stale ruleEntries, err error) {
	have, err := f.readRules()
	if err != nil {
		return ruleEntries{}, err
	}
	for key, value := range want.verdicts {
		if got, ok := have.verdicts[key]; !ok || got != value {
			if err := put(f.objs.Verdicts, key, value); err != nil {
				return ruleEntries{}, fmt.Errorf("add verdict of rules: %w", err)
			}
		}
		delete(have.verdicts, key)
	}
	for key, value := range want.remotes {
		if got, ok := have.remotes[key]; !ok || got != value {
			if err := put(f.objs.Remotes, key, value); err != nil {
				return ruleEntries{}, fmt.Errorf("add remote of rules: %w", err)
			}
		}
		delete(have.remotes, key)
	}
	return have, nil
}

// removeRules is for when no filter leads to them any more.
func (f *Fabric) removeRules(stale ruleEntries) error {
	var errs []error
	for key := range stale.remotes {
		errs = append(errs, f.objs.Remotes.Delete(key))
	}
	for key := range stale.verdicts {
		errs = append(errs, f.objs.Verdicts.Delete(key))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove from bpf maps of rules: %w", err)
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
