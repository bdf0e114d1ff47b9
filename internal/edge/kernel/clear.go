package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/fairway-cni/fairway/internal/core/diff"
	"github.com/fairway-cni/fairway/internal/core/node"
)

// Clear removes all that is ours from the kernel: the nftables table, rules, routes,
// the devices of released pods, and the addresses that secondary ENIs were given. It
// returns what it removed. The devices of pods that live stay; the caller sees to it
// that there are none. Sysctls keep their values, as nobody knows the former ones.
func (k *Kernel) Clear() ([]diff.Change, error) {
	have, err := k.Read(nil)
	if err != nil {
		return nil, err
	}
	addresses, err := k.ownAddresses(have)
	if err != nil {
		return nil, err
	}
	// The table goes whole. Its parts are listed for whoever asked.
	changes := diff.Compare(have, nil)
	routing := slices.DeleteFunc(slices.Clone(changes), isTable)
	errs := []error{k.dropTable(), k.Apply(routing)}
	for _, a := range addresses {
		errs = append(errs, k.route.do(request{message: oldAddress(a.index, a.prefix), what: "remove address " + a.prefix.String(), fine: gone}))
		changes = append(changes, diff.Change{Verb: diff.Remove, Key: "addr " + a.prefix.String(), Old: node.Address{Link: k.nameOf(a.index), Prefix: a.prefix}})
	}
	return changes, errors.Join(append(errs, k.Reap())...)
}

// dropTable deletes our table, if it is there.
func (k *Kernel) dropTable() error {
	// The first makes sure that the deletion finds one.
	if err := k.commit([]request{ourTable.create(), ourTable.delete()}); err != nil {
		return fmt.Errorf("delete nftables table %s: %w", node.TableName, err)
	}
	return nil
}

// ownAddresses are those that ENIs' devices have from us. An address carries no
// owner, but a rule of ours leads what is sent from it to a table of ours, whose
// route names the device.
func (k *Kernel) ownAddresses(have []node.Object) ([]ifAddr, error) {
	links := make(map[int]string) // by table
	from := make(map[netip.Addr]int)
	for _, o := range have {
		switch o := o.(type) {
		case node.Route:
			if o.Link != "" {
				links[o.Table] = o.Link
			}
		case node.Rule:
			if o.Priority == node.FromRulePriority && o.From.IsValid() {
				from[o.From.Addr()] = o.Table
			}
		}
	}
	all, err := readAddresses(k.route, 0)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(a ifAddr) bool {
		table, ok := from[a.prefix.Addr()]
		return !ok || links[table] == "" || k.devices[links[table]] != a.index
	}), nil
}

// nameOf is the name of a device as the last Read saw it.
func (k *Kernel) nameOf(index int32) string {
	for name, i := range k.devices {
		if i == index {
			return name
		}
	}
	return ""
}
