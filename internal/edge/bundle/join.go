package bundle

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/fairway-cni/fairway/internal/core/path"
)

// ErrConflict says that two worlds say different things of the same. The text
// names each part.
var ErrConflict = errors.New("the worlds contradict each other")

// Source is a world and where it is from, for people.
type Source struct {
	Name     string
	World    *path.World
	Redacted bool // its names are its own: another's of the same spelling is another
}

// joiner puts worlds together.
type joiner struct {
	have, next string // names of sources
	conflicts  []string
}

func (j *joiner) conflict(what string) {
	j.conflicts = append(j.conflicts, fmt.Sprintf("%s differs between %s and %s", what, j.have, j.next))
}

// Join makes one world of several, of two accounts for example. What one does
// not know the other may; of what both know they must say the same. Lists of a
// whole account, such as peerings, are unknown if one side's is: a list with half
// of its entries would be taken for all. Those of a cluster, Services and pods, are
// as long as they are.
func Join(sources []Source) (*path.World, error) {
	if len(sources) == 1 {
		return sources[0].World, nil
	}
	sources, err := apart(sources)
	if err != nil {
		return nil, err
	}
	w := &path.World{Form: path.Form}
	j := &joiner{}
	var names, taken []string
	for i, s := range sources {
		j.next = s.Name
		o, empty := s.World, len(w.VPCs) == 0
		names, taken = appendNew(names, o.Name), appendNew(taken, o.Taken)
		for k := range o.VPCs {
			j.vpc(w, &o.VPCs[k])
		}
		for k := range o.Nodes {
			n := &o.Nodes[k]
			at := slices.IndexFunc(w.Nodes, func(p path.Node) bool { return p.Name == n.Name && p.Cluster == n.Cluster })
			switch {
			case at < 0:
				w.Nodes = append(w.Nodes, *n)
			case !same(w.Nodes[at], *n):
				j.conflict("node " + n.Name)
			}
		}
		if i == 0 {
			w.Peerings, w.TransitGateways, w.Services, w.Pods = o.Peerings, o.TransitGateways, o.Services, o.Pods
		} else {
			of := account{empty, len(o.VPCs) == 0}
			w.Peerings = joinList(j, of, w.Peerings, o.Peerings, func(p path.Peering) string { return "peering " + p.ID })
			w.TransitGateways = joinList(j, of, w.TransitGateways, o.TransitGateways, func(g path.TransitGateway) string { return g.ID })
			// A name that is in no list is looked for in the nodes' rules too, so half of
			// the clusters' lists are better than none.
			names := account{!w.Services.Known, !o.Services.Known}
			w.Services = joinList(j, names, w.Services, o.Services, func(s path.Service) string { return "Service " + s.Cluster + ":" + s.ID() })
			names = account{!w.Pods.Known, !o.Pods.Known}
			w.Pods = joinList(j, names, w.Pods, o.Pods, func(p path.ListedPod) string { return "listed pod " + p.Cluster + ":" + p.ID() })
		}
		j.have = strings.Trim(j.have+", "+s.Name, ", ")
	}
	w.Name, w.Taken = strings.Join(names, "+"), strings.Join(taken, ", ")
	if len(j.conflicts) > 0 {
		return nil, fmt.Errorf("%w: %s; make one of them with --node alone, or both anew", ErrConflict, strings.Join(j.conflicts, "; "))
	}
	if err := w.Validate(); err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	return w, nil
}

func appendNew(list []string, s string) []string {
	if s == "" || slices.Contains(list, s) {
		return list
	}
	return append(list, s)
}

// same compares what two things say, as JSON.
func same(a, b any) bool {
	x, err1 := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && bytes.Equal(x, y)
}

// account says of two worlds which has no VPC, so that its lists are no account's.
type account struct{ noneHave, noneNext bool }

func joinList[T any](j *joiner, of account, a, b path.Part[[]T], id func(T) string) path.Part[[]T] {
	switch {
	case of.noneNext && !b.Known:
		return a
	case of.noneHave && !a.Known:
		return b
	case !a.Known:
		return a
	case !b.Known:
		return b
	}
	all := slices.Clone(a.Value)
	for _, v := range b.Value {
		i := slices.IndexFunc(all, func(o T) bool { return id(o) == id(v) })
		switch {
		case i < 0:
			all = append(all, v)
		case !same(all[i], v):
			j.conflict(id(v))
		}
	}
	return path.Known(all)
}

// vpc adds a VPC, or what another world knows of one that is there.
func (j *joiner) vpc(w *path.World, v *path.VPC) {
	i := slices.IndexFunc(w.VPCs, func(o path.VPC) bool { return o.ID == v.ID })
	if i < 0 {
		w.VPCs = append(w.VPCs, *v)
		return
	}
	h := &w.VPCs[i]
	if h.Name == h.ID {
		h.Name = v.Name
	}
	if h.Account == "" {
		h.Account = v.Account
	}
	if v.Name != v.ID && h.Name != v.Name || v.Account != "" && h.Account != v.Account || h.Region != v.Region {
		j.conflict(v.ID + " name, account or region")
	}
	have, next := reflect.ValueOf(h).Elem(), reflect.ValueOf(v).Elem()
	for f := range have.NumField() {
		a, b := have.Field(f), next.Field(f)
		if !isPart(a) {
			continue
		}
		knowA, knowB := a.FieldByName("Known").Bool(), b.FieldByName("Known").Bool()
		switch {
		case !knowA && (knowB || a.IsZero()):
			a.Set(b)
		case knowA && knowB && !same(a.Interface(), b.Interface()):
			j.conflict(v.ID + " " + jsonName(have.Type().Field(f)))
		}
	}
}

// isPart tells a path.Part of any type.
func isPart(v reflect.Value) bool {
	return v.Kind() == reflect.Struct && strings.HasPrefix(v.Type().Name(), "Part[") && v.Type().PkgPath() == reflect.TypeFor[path.World]().PkgPath()
}

func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

const mostBlind = 1000 // lines; a world without rights has as many for each node

// Blind lists what is not known of a world, a line each: which part, and why.
func Blind(w *path.World) []string {
	var out []string
	var walk func(v reflect.Value, label string)
	walk = func(v reflect.Value, label string) {
		switch {
		case len(out) >= mostBlind:
		case isPart(v):
			if v.FieldByName("Known").Bool() {
				walk(v.FieldByName("Value"), label)
				return
			}
			line := strings.TrimSpace(label)
			if why := v.FieldByName("Why").String(); why != "" {
				line += ": " + why
			}
			out = append(out, line)
		case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Struct:
			for i := range v.Len() {
				walk(v.Index(i), label)
			}
		case v.Kind() == reflect.Struct && v.Type().PkgPath() == reflect.TypeFor[path.World]().PkgPath():
			label = within(label, v)
			for i := range v.NumField() {
				if f := v.Type().Field(i); f.IsExported() && jsonName(f) != "" {
					walk(v.Field(i), label+" "+jsonName(f))
				}
			}
		}
	}
	walk(reflect.ValueOf(w).Elem(), "")
	return out
}

// within names a thing that has parts by itself, and not by the list it is in.
func within(label string, v reflect.Value) string {
	switch t := v.Interface().(type) {
	case path.VPC:
		return t.ID
	case path.ENI:
		return t.ID
	case path.Node:
		return "node " + t.Name
	case path.Pod:
		return "pod " + t.ID()
	case path.Namespace:
		return strings.TrimSuffix(strings.TrimSuffix(label, " host"), " net")
	}
	return label
}
