// Package example holds built-in worlds, so that the first explanation needs
// neither root nor a cluster. They are made by the program in gen.
//
// The package is pure and safe for concurrent use; every call parses anew, and
// its result is the caller's own.
package example

import (
	"embed"
	"fmt"
	"slices"
	"strings"

	"github.com/fairway-cni/fairway/internal/core/path"
)

//go:generate go run ./gen .

//go:embed *.json
var files embed.FS

// Example is a world and the probe that tells its story.
type Example struct {
	Name  string
	Story string // one line
	From  string
	To    string
}

// All lists the examples.
func All() []Example {
	return []Example{
		{"seed003", "two peered clusters on Cilium: it works sometimes", "b:default/sleep", "a:default/httpbin:80"},
		{"seed002", "pod to pod across two nodes on Cilium", "default/pod1", "default/pod2:80"},
		{"healthy", "seed003 with Fairway on both sides", "b:default/sleep", "a:default/httpbin:80"},
		{"nodeport", "a NodePort on the VPC CNI without its connection mark: every other try fails", "node:client", "node:node-1:30080"},
	}
}

// Names are the examples' names.
func Names() []string {
	var out []string
	for _, e := range All() {
		out = append(out, e.Name)
	}
	return out
}

// Load gives an example's world. An unknown name is an error that lists those
// that there are.
func Load(name string) (Example, *path.World, error) {
	all := All()
	i := slices.IndexFunc(all, func(e Example) bool { return e.Name == name })
	if i < 0 {
		return Example{}, nil, fmt.Errorf("no example %q: there are %s", name, strings.Join(Names(), ", "))
	}
	b, err := files.ReadFile(name + ".json")
	if err != nil {
		return Example{}, nil, fmt.Errorf("read example %s: %w", name, err)
	}
	w, err := path.ParseWorld(b)
	if err != nil {
		return Example{}, nil, fmt.Errorf("read example %s: %w", name, err)
	}
	return all[i], w, nil
}
