package kernel

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/diff"
	"github.com/fairway-cni/fairway/internal/core/node"
)

// Apply carries out changes in the order of [diff.Compare]: what is added to
// routing, then one nftables transaction with all additions and removals, then
// what is removed from routing. Routing goes in as few system calls as it fits
// into. Apply goes on past a failure, and returns all failures joined, each
// naming its change. What is so already is no failure.
func (k *Kernel) Apply(changes []diff.Change) error {
	w := routeWriter{kernel: k, changes: changes, index: make(map[string]int32)}
	return w.apply(nil)
}

// Converge is Apply for changes that lead from the last [Kernel.Read] to want,
// all that the kernel should hold. If no nftables transaction can carry them
// out, because a set changes its type or the table is not the one that they were
// made for, the table is replaced whole by what want says.
func (k *Kernel) Converge(changes []diff.Change, want []node.Object) error {
	w := routeWriter{kernel: k, changes: changes, index: k.devices}
	k.devices = nil
	if w.index == nil {
		w.index = make(map[string]int32)
	}
	return w.apply(slices.Concat([]node.Object{}, want)) // not nil
}

// routeWriter carries out changes, and collects those of routing to send them
// at once.
type routeWriter struct {
	kernel  *Kernel
	changes []diff.Change
	index   map[string]int32 // of devices that were looked up
	batch   []request
	whose   []int // beside each request, its place in changes
	errs    []error
}

func (w *routeWriter) apply(want []node.Object) error {
	var table []diff.Change
	for i, c := range w.changes {
		switch {
		case isTable(c):
			table = append(table, c)
		case c.Verb != diff.Remove:
			w.change(i)
		}
	}
	w.send()
	if len(table) > 0 {
		w.errs = append(w.errs, w.kernel.applyTable(table, want))
	}
	for i, c := range w.changes {
		if !isTable(c) && c.Verb == diff.Remove {
			w.change(i)
		}
	}
	w.send()
	return errors.Join(w.errs...)
}

func isTable(c diff.Change) bool {
	o := c.New
	if o == nil {
		o = c.Old
	}
	return o.Rank() >= node.RankSet
}

func (w *routeWriter) send() {
	w.kernel.route.send(w.batch, func(i int, err error) { w.failed(w.whose[i], err) })
	w.batch, w.whose = w.batch[:0], w.whose[:0]
}

func (w *routeWriter) failed(i int, err error) {
	w.errs = append(w.errs, fmt.Errorf("%s %s: %w", w.changes[i].Verb, w.changes[i].Key, err))
}

// change queues the requests of one change. A sysctl is a file, written here.
func (w *routeWriter) change(i int) {
	before := len(w.batch)
	err := w.queue(w.changes[i])
	if err == nil && len(w.batch) > before {
		err = w.kernel.refuse()
	}
	if err != nil {
		w.batch = w.batch[:before]
		w.failed(i, err)
	}
	for len(w.whose) < len(w.batch) {
		w.whose = append(w.whose, i)
	}
}

func (w *routeWriter) add(m *message, fine func(unix.Errno) bool) {
	w.batch = append(w.batch, request{message: m, fine: fine})
}

func (w *routeWriter) queue(c diff.Change) error {
	if c.Verb == diff.Remove {
		w.remove(c.Old)
		return nil
	}
	const create = unix.NLM_F_CREATE
	switch o := c.New.(type) {
	case node.Sysctl:
		return w.kernel.writeSysctl(o)
	case node.Link:
		index, err := w.device(o.Name)
		if old, ok := c.Old.(node.Link); ok && old.MAC == o.MAC {
			// Writing a device's MAC, the same one too, takes its neighbours away.
			o.MAC = ""
		}
		w.add(linkSettings(index, o), nil)
		return err
	case node.Address:
		index, err := w.device(o.Link)
		w.add(newAddress(index, o.Prefix, unix.IFA_F_NOPREFIXROUTE), exists)
		return err
	case node.Route:
		index, err := w.device(o.Link)
		w.add(routeMessage(unix.RTM_NEWROUTE, create|unix.NLM_F_REPLACE, o, index), nil)
		if o.Neighbor != "" {
			w.add(permanentNeighbor(index, o.Dst.Addr(), o.Neighbor), nil)
		}
		return err
	case node.Rule:
		if c.Old != nil {
			w.remove(c.Old)
		}
		w.add(ruleMessage(unix.RTM_NEWRULE, create|unix.NLM_F_EXCL, o), exists)
		return nil
	default:
		return fmt.Errorf("no way to write a %T", o)
	}
}

// remove queues nothing for addresses, links and sysctls, which carry no owner
// and are never removed.
func (w *routeWriter) remove(o node.Object) {
	switch o := o.(type) {
	case node.Route:
		key := node.Route{Table: o.Table, Dst: o.Dst, Metric: o.Metric, Kind: o.Kind}
		w.add(routeMessage(unix.RTM_DELROUTE, 0, key, 0), gone)
	case node.Rule:
		w.add(ruleMessage(unix.RTM_DELRULE, 0, o), gone)
	case odd:
		w.add(o.removal(), gone)
	}
}

// device is the index of a device; 0 for no name.
func (w *routeWriter) device(name string) (int32, error) {
	index, ok := w.index[name]
	if ok || name == "" {
		return index, nil
	}
	index, err := w.kernel.index(name)
	if err == nil {
		w.index[name] = index
	}
	return index, err
}

func (k *Kernel) writeSysctl(s node.Sysctl) error {
	have, err := k.readSysctl(s.Path)
	if err != nil || have == s.Value {
		return err // a write would wake whoever watches the file
	}
	if err := k.refuse(); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(k.procSys, s.Path), []byte(s.Value), 0)
}
