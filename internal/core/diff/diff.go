// Package diff compares what a kernel holds with what it should hold and says
// what to change, in an order that is safe to apply, and why.
//
// A change is data: the plan that a person reads and the list that the kernel
// edge applies are the same values. The package is pure and holds no state.
package diff

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/fairway-cni/fairway/internal/core/node"
)

// Verb is what a change does to an object.
type Verb string

// The verbs. Replace keeps the object's key and changes the rest.
const (
	Add     Verb = "add"
	Replace Verb = "replace"
	Remove  Verb = "remove"
)

// Change is one step from the actual to the desired state.
type Change struct {
	Verb Verb
	Key  string
	Old  node.Object // nil for Add
	New  node.Object // nil for Remove
	Why  string
}

func (c Change) String() string {
	switch c.Verb {
	case Add:
		return fmt.Sprintf("+ %s  (%s)", c.New, c.Why)
	case Remove:
		return fmt.Sprintf("- %s  (%s)", c.Old, c.Why)
	default:
		return fmt.Sprintf("~ %s -> %s  (%s)", c.Old, c.New, c.Why)
	}
}

// Compare lists the changes that lead from have to want. Adds and replacements
// come first, by ascending rank, so that an object finds what it refers to;
// removals follow in reverse, so that nothing is referred to when it goes. The
// order within a rank is that of the keys: the same input gives the same list.
// Of objects with the same key in one list the last counts.
func Compare(have, want []node.Object) []Change {
	old := byKey(have)
	wanted := byKey(want)
	var changes []Change
	for key, w := range wanted {
		h, ok := old[key]
		switch {
		case !ok:
			changes = append(changes, Change{Verb: Add, Key: key, New: w, Why: "missing"})
		case h != w:
			changes = append(changes, Change{Verb: Replace, Key: key, Old: h, New: w, Why: "differs"})
		}
	}
	for key, h := range old {
		if _, ok := wanted[key]; !ok {
			changes = append(changes, Change{Verb: Remove, Key: key, Old: h, Why: "not wanted any more"})
		}
	}
	slices.SortFunc(changes, order)
	return changes
}

// Explain adds to the changes the reasons of what is wanted, by key.
func Explain(changes []Change, reasons map[string]string) {
	for i, c := range changes {
		if why := reasons[c.Key]; why != "" && c.New != nil {
			changes[i].Why += ": " + why
		}
	}
}

func byKey(objects []node.Object) map[string]node.Object {
	m := make(map[string]node.Object, len(objects))
	for _, o := range objects {
		m[o.Key()] = o
	}
	return m
}

func order(a, b Change) int {
	if ar, br := a.Verb == Remove, b.Verb == Remove; ar != br {
		if ar {
			return 1
		}
		return -1
	}
	if a.Verb == Remove {
		return cmp.Or(cmp.Compare(b.Old.Rank(), a.Old.Rank()), cmp.Compare(a.Key, b.Key))
	}
	return cmp.Or(cmp.Compare(a.New.Rank(), b.New.Rank()), cmp.Compare(a.Key, b.Key))
}
