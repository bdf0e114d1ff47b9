package house

import (
	"fmt"
	"go/ast"
	"go/token"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// ban refuses the mention of names of one package in some folders.
type ban struct {
	under  string   // folder that the rule binds, "" for all
	exempt []string // folders within it that the rule does not bind
	pkg    string
	names  []string // names that are refused; with allow, the only ones that are not
	allow  bool
	why    string
}

var bans = []ban{
	{
		under: "internal/core/", pkg: "time",
		names: []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"},
		why:   "the core is told the time: then a test can be at any moment, and a restart changes nothing",
	},
	{
		under: "internal/core/", pkg: "net", allow: true,
		names: []string{"HardwareAddr", "ParseMAC"},
		why:   "addresses are netip types; of package net the core needs only MAC addresses",
	},
	{
		exempt: []string{"cmd/"}, pkg: "os",
		names: []string{"Getenv", "LookupEnv", "ExpandEnv"},
		why:   "only cmd/ reads the environment, so that one place says what a program can be told",
	},
	{
		exempt: []string{"cmd/"}, pkg: "syscall",
		names: []string{"Getenv"},
		why:   "only cmd/ reads the environment, so that one place says what a program can be told",
	},
}

func (b ban) binds(path string) bool {
	return strings.HasPrefix(path, b.under) &&
		!slices.ContainsFunc(b.exempt, func(e string) bool { return strings.HasPrefix(path, e) })
}

func checkBans(sources []*source, bans []ban) []string {
	var out []string
	for _, s := range sources {
		for _, b := range bans {
			// A package main in the core is a generator, which nobody can import.
			if s.test || !b.binds(s.path) || b.under != "" && s.file.Name.Name == "main" {
				continue
			}
			s.uses(b.pkg, func(name string, at token.Pos) {
				if name == "*" || slices.Contains(b.names, name) != b.allow {
					out = append(out, fmt.Sprintf("%s: %s.%s: %s", s.at(at), b.pkg, name, b.why))
				}
			})
		}
	}
	return out
}

// checkGoroutines: only a loop starts a goroutine, and the core has no loop.
func checkGoroutines(sources []*source) []string {
	var out []string
	for _, s := range sources {
		if s.test || !strings.HasPrefix(s.path, "internal/core/") {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if _, ok := n.(*ast.GoStmt); ok {
				out = append(out, s.at(n.Pos())+": go statement: the core is called, and never runs by itself")
			}
			return true
		})
	}
	return out
}

func TestPurity(t *testing.T) {
	report(t, checkBans(tree(t), bans))
	report(t, checkGoroutines(tree(t)))
}

func TestPurityRefuses(t *testing.T) {
	sources, err := parse(fstest.MapFS{
		"internal/core/a/clock.go":  {Data: []byte("package a\nimport clock \"time\"\nvar _ = clock.Now\nvar _ = clock.Second\nfunc f() { clock := g(); clock.Now() }\n")},
		"internal/core/a/net.go":    {Data: []byte("package a\nimport \"net\"\nvar _ net.HardwareAddr\nvar _ net.IP\n")},
		"internal/core/a/go.go":     {Data: []byte("package a\nfunc h() {\n\tgo h()\n}\n")},
		"internal/core/a/a_test.go": {Data: []byte("package a\nimport \"time\"\nvar _ = time.Now\nfunc i() { go i() }\n")},
		"internal/core/gen/main.go": {Data: []byte("package main\nimport \"time\"\nvar _ = time.Now\n")},
		"internal/agent/env.go":     {Data: []byte("package agent\nimport (\n\t\"os\"\n\t\"time\"\n)\nvar _ = time.Now\nvar _ = os.Getenv(\"X\")\n")},
		"internal/agent/dot.go":     {Data: []byte("package agent\nimport . \"os\"\nvar _ = Getenv(\"X\")\n")},
		"cmd/p/main.go":             {Data: []byte("package main\nimport \"os\"\nvar _ = os.Getenv(\"X\")\n")},
	})
	if err != nil {
		t.Fatal(err)
	}
	wantFindings(t, append(checkBans(sources, bans), checkGoroutines(sources)...),
		"internal/agent/dot.go:1: os.*: only cmd/",
		"internal/agent/env.go:7: os.Getenv: only cmd/",
		"internal/core/a/clock.go:3: time.Now: the core is told",
		"internal/core/a/net.go:4: net.IP: addresses are netip types",
		"internal/core/a/go.go:3: go statement",
	)
}
