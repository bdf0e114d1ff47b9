package kube

import (
	"cmp"
	"fmt"
	"slices"
	"sync"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
)

// mirror holds what a watch has said of one kind, as core types. It is the store of
// a reflector.
type mirror[W, T any] struct {
	take    func(*W) (T, error)
	changed func()

	mu     sync.Mutex
	synced bool // a whole list was seen once
	items  map[string]item[T]
}

type item[T any] struct {
	is  T
	err error // why it cannot be used
}

func newMirror[W, T any](take func(*W) (T, error), changed func()) *mirror[W, T] {
	return &mirror[W, T]{take: take, changed: changed, items: make(map[string]item[T])}
}

// key is namespace and name.
func key(obj any) (string, error) {
	m, err := apimeta.Accessor(obj)
	if err != nil {
		return "", err
	}
	return m.GetNamespace() + "/" + m.GetName(), nil
}

func (m *mirror[W, T]) Add(obj any) error {
	k, i, err := m.read(obj)
	if err != nil {
		return err
	}
	m.mu.Lock()
	m.items[k] = i
	m.mu.Unlock()
	m.changed()
	return nil
}

func (m *mirror[W, T]) Update(obj any) error { return m.Add(obj) }

func (m *mirror[W, T]) Delete(obj any) error {
	k, err := key(obj)
	if err != nil {
		return err
	}
	m.mu.Lock()
	delete(m.items, k)
	m.mu.Unlock()
	m.changed()
	return nil
}

// Replace takes a whole list. The items of the first are a list that is empty, too.
func (m *mirror[W, T]) Replace(objs []any, _ string) error {
	items := make(map[string]item[T], len(objs))
	for _, obj := range objs {
		k, i, err := m.read(obj)
		if err != nil {
			return err
		}
		items[k] = i
	}
	m.mu.Lock()
	m.items, m.synced = items, true
	m.mu.Unlock()
	m.changed()
	return nil
}

// Resync has nothing to do: whoever reads reads what is held.
func (m *mirror[W, T]) Resync() error { return nil }

func (m *mirror[W, T]) read(obj any) (string, item[T], error) {
	w, ok := obj.(*W)
	if !ok {
		return "", item[T]{}, fmt.Errorf("a watch gave a %T", obj)
	}
	k, err := key(obj)
	if err != nil {
		return "", item[T]{}, err
	}
	is, err := m.take(w)
	return k, item[T]{is, err}, nil
}

// absent says that the server does not know the kind: there is none of it.
func (m *mirror[W, T]) absent() {
	m.mu.Lock()
	news := !m.synced || len(m.items) > 0
	m.synced = true
	clear(m.items)
	m.mu.Unlock()
	if news {
		m.changed()
	}
}

// all is what can be used, by namespace and name, why the rest cannot, and whether a
// whole list was ever seen.
func (m *mirror[W, T]) all() (list []T, errs []error, synced bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	keys := make([]string, 0, len(m.items))
	for k := range m.items {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, cmp.Compare[string])
	for _, k := range keys {
		if i := m.items[k]; i.err != nil {
			errs = append(errs, i.err)
		} else {
			list = append(list, i.is)
		}
	}
	return list, errs, m.synced
}
