package house

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// layer is one rule about imports. Paths of this module begin with "//"; a
// path that ends in "/..." means the package and all below it; "std" is the
// standard library.
type layer struct {
	who    []string // packages that the rule binds
	exempt []string // packages among them that it does not bind
	only   []string // if set, every import must match one of these
	never  []string // no import may match one of these ...
	unless []string // ... except these
	tests  bool     // binds the imports of test files too
	deep   bool     // binds all that the package links, not only what it names
	libs   bool     // does not bind package main: a generator, which nobody can import
	why    string
}

// layers is the direction of the house: cmd -> agent, operator, lab -> edge -> core.
var layers = []layer{
	{
		who:  []string{"//internal/core/..."},
		only: []string{"std", "//internal/core/...", "go4.org/netipx", "github.com/gaissmai/bart"},
		libs: true,
		why:  "the core is pure: the same input gives the same output on any machine, so it knows no outside world and no library that talks to one",
	},
	{
		who: []string{"//internal/core/..."},
		never: []string{"os", "os/...", "syscall", "net/http/...", "net/rpc/...", "net/smtp", "log", "log/...",
			"database/...", "testing/...", "plugin"},
		libs: true,
		why:  "the core does no I/O and does not log: what it needs is handed in, what it finds is returned",
	},
	{
		who:   []string{"//internal/edge/..."},
		never: []string{"log", "log/..."},
		why:   "an edge returns its errors; they are logged once, by the loop that gives up on them",
	},
	{
		who:   []string{"//internal/edge/..."},
		never: []string{"//internal/agent/...", "//internal/operator/...", "//lab/...", "//cmd/...", "//bench/..."},
		why:   "an edge is one outside world turned into core types; who uses it is not its business",
	},
	{
		who:    []string{"//..."},
		exempt: []string{"//lab/...", "//cmd/fairway-lab/...", "//bench/...", "//test/..."},
		never:  []string{"//lab/..."},
		why:    "what ships must not know that the lab exists, or it would be tested in a world made to suit it",
	},
	{
		who:   []string{"//lab/..."},
		never: []string{"//internal/agent/...", "//internal/operator/...", "//cmd/..."},
		why:   "the lab is for every CNI; ours runs in it as a process, with no privilege",
	},
	{
		who:    []string{"//lab/..."},
		exempt: []string{"//lab/pathworld", "//lab/differential", "//lab/cli"},
		never:  []string{"//internal/core/path/..."},
		tests:  true,
		why:    "the fabric and the path explainer judge each other, so they share no code, in tests neither",
	},
	{
		who:    []string{"//lab/pathworld"},
		never:  []string{"//lab/fabric/...", "//lab/world/..."},
		unless: []string{"//lab/fabric/netns"},
		tests:  true,
		deep:   true,
		why:    "what the fabric made of EC2's words must not reach the explainer, whose judge it is",
	},
	{
		who:  []string{"//cmd/fairway-cni"},
		only: []string{"std", "//internal/edge/cniapi/...", "golang.org/x/sys/..."},
		why:  "the plugin is started for every ADD and DEL and owns nothing: it reads, asks the agent, prints",
	},
	{
		who:  []string{"//cmd/fairway-cni"},
		only: []string{"std", "//cmd/fairway-cni", "//internal/edge/cniapi/...", "//internal/core/...", "golang.org/x/sys/..."},
		deep: true,
		why:  "what the plugin links is start-up time of every pod: with gRPC and client-go 12.8 ms from exec to result, with os and syscall 2.2 ms",
	},
	{
		who:   []string{"//cmd/fairway-cni"},
		never: []string{"net/http/...", "crypto/tls/...", "text/template/...", "html/template/..."},
		deep:  true,
		why:   "these packages initialise large tables before main runs, in every ADD and DEL",
	},
	{
		who:   []string{"//internal/agent/..."},
		never: []string{"//internal/operator/...", "//cmd/...", "//bench/..."},
		why:   "agent and operator are two programs that meet in the Kubernetes API; each runs without the other",
	},
	{
		who:   []string{"//internal/operator/..."},
		never: []string{"//internal/agent/...", "//internal/edge/kernel/...", "//internal/edge/bpf/...", "//cmd/...", "//bench/..."},
		why:   "agent and operator are two programs that meet in the Kubernetes API; the operator touches no kernel",
	},
	{
		who:   []string{"//cmd/..."},
		never: []string{"//cmd/...", "//bench/...", "//test/..."},
		why:   "a program is flags and environment, constructors, Run; what two programs share belongs in a room",
	},
	{
		who:   []string{"//api/..."},
		never: []string{"//internal/...", "//lab/...", "//cmd/..."},
		why:   "API types are imported by other people's programs; they bring apimachinery and nothing of ours",
	},
	{
		who: []string{"//..."},
		never: []string{"github.com/stretchr/testify/...", "github.com/onsi/ginkgo/...", "github.com/onsi/ginkgo/v2/...",
			"github.com/onsi/gomega/...", "github.com/golang/mock/...", "go.uber.org/mock/...",
			"go.uber.org/dig/...", "go.uber.org/fx/...", "github.com/google/wire/..."},
		tests: true,
		why:   "one test style (testing and go-cmp, state and not calls), and constructors that a reader can follow",
	},
}

// listed is what the go tool says of one package.
type listed struct {
	ImportPath   string
	Name         string
	Imports      []string
	TestImports  []string
	XTestImports []string
	Deps         []string
}

// ours rewrites a path of this module to its "//" form.
func ours(importPath string) string {
	if importPath == module {
		return "//"
	}
	if rest, ok := strings.CutPrefix(importPath, module+"/"); ok {
		return "//" + rest
	}
	return importPath
}

func matches(pattern, importPath string) bool {
	if pattern == "std" {
		first, _, _ := strings.Cut(importPath, "/")
		return !strings.HasPrefix(importPath, "//") && !strings.Contains(first, ".")
	}
	if pattern == "//..." {
		return strings.HasPrefix(importPath, "//")
	}
	if base, ok := strings.CutSuffix(pattern, "/..."); ok {
		return importPath == base || strings.HasPrefix(importPath, base+"/")
	}
	return importPath == pattern
}

func matchesAny(patterns []string, importPath string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, importPath) })
}

// forbids says whether the rule refuses that a package it binds imports p.
func (l layer) forbids(p string) bool {
	if l.only != nil && !matchesAny(l.only, p) {
		return true
	}
	return matchesAny(l.never, p) && !matchesAny(l.unless, p)
}

// edgeLayers is one rule for each edge that exists: it imports no other.
func edgeLayers(pkgs []listed) []layer {
	var out []layer
	seen := map[string]bool{}
	for _, p := range pkgs {
		rest, ok := strings.CutPrefix(ours(p.ImportPath), "//internal/edge/")
		if !ok {
			continue
		}
		name, _, _ := strings.Cut(rest, "/")
		if seen[name] {
			continue
		}
		seen[name] = true
		self := []string{"//internal/edge/" + name + "/..."}
		out = append(out, layer{
			who: self, never: []string{"//internal/edge/..."}, unless: self,
			why: "edges never import each other: each can be read, tested and replaced alone, and the loops join them by core types",
		})
	}
	return out
}

func checkLayers(pkgs []listed, rules []layer) []string {
	var out []string
	for _, p := range pkgs {
		who := ours(p.ImportPath)
		for _, rule := range rules {
			if !matchesAny(rule.who, who) || matchesAny(rule.exempt, who) || rule.libs && p.Name == "main" {
				continue
			}
			refuse := func(how string, imports []string) {
				for _, i := range imports {
					if rule.forbids(ours(i)) {
						out = append(out, fmt.Sprintf("%s %s %s: %s", strings.TrimPrefix(who, "//"), how, strings.TrimPrefix(ours(i), "//"), rule.why))
					}
				}
			}
			if rule.deep {
				refuse("links", p.Deps)
				continue
			}
			refuse("imports", p.Imports)
			if rule.tests {
				refuse("imports in a test", p.TestImports)
				refuse("imports in a test", p.XTestImports)
			}
		}
	}
	return out
}

// list asks the go tool, whose answer is what a build would do. With -e, so
// that a package that does not compile does not hide the others.
func list(t *testing.T) []listed {
	t.Helper()
	dir, err := rootDir()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-json=ImportPath,Name,Imports,TestImports,XTestImports,Deps", "./...")
	cmd.Dir = dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	text, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var out []listed
	for dec := json.NewDecoder(strings.NewReader(string(text))); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return out
		} else if err != nil {
			t.Fatalf("read go list: %v", err)
		}
		out = append(out, p)
	}
}

func TestLayering(t *testing.T) {
	pkgs := list(t)
	if !slices.ContainsFunc(pkgs, func(p listed) bool { return p.ImportPath == module+"/internal/house" }) {
		t.Fatalf("go list named %d packages and not this one", len(pkgs))
	}
	report(t, checkLayers(pkgs, append(edgeLayers(pkgs), layers...)))
}

func TestLayeringRefuses(t *testing.T) {
	const m = module
	tests := []struct {
		name string
		pkg  listed
		want []string
	}{
		{"core with a library", listed{ImportPath: m + "/internal/core/vpc", Imports: []string{"net", "net/netip", "github.com/vishvananda/netlink"}},
			[]string{"internal/core/vpc imports github.com/vishvananda/netlink: the core is pure"}},
		{"core with os", listed{ImportPath: m + "/internal/core/ipam", Imports: []string{"os", "os/exec", "log/slog", "net/http"}},
			[]string{"imports os:", "imports os/exec:", "imports log/slog:", "imports net/http:"}},
		{"core with an edge", listed{ImportPath: m + "/internal/core/ipam", Imports: []string{m + "/internal/edge/ec2"}},
			[]string{"imports internal/edge/ec2: the core is pure"}},
		{"generator beside the core", listed{ImportPath: m + "/internal/core/vpc/gen", Name: "main", Imports: []string{"os"}}, nil},
		{"core tests are free", listed{ImportPath: m + "/internal/core/ipam", TestImports: []string{"os", "github.com/google/go-cmp/cmp"}}, nil},
		{"edge with another edge", listed{ImportPath: m + "/internal/edge/kernel", Imports: []string{m + "/internal/edge/ec2", m + "/internal/core/node"}},
			[]string{"internal/edge/kernel imports internal/edge/ec2: edges never"}},
		{"edge with its own part", listed{ImportPath: m + "/internal/edge/kernel", Imports: []string{m + "/internal/edge/kernel/nft"}}, nil},
		{"edge whose name begins like another", listed{ImportPath: m + "/internal/edge/ec2", Imports: []string{m + "/internal/edge/ec2x"}},
			[]string{"imports internal/edge/ec2x: edges never"}},
		{"edge that logs", listed{ImportPath: m + "/internal/edge/ec2", Imports: []string{"log/slog"}}, []string{"imports log/slog: an edge returns"}},
		{"agent with lab", listed{ImportPath: m + "/internal/agent", Imports: []string{m + "/lab/fabric"}}, []string{"imports lab/fabric: what ships"}},
		{"agent test with lab", listed{ImportPath: m + "/internal/agent", XTestImports: []string{m + "/lab/ec2sim"}}, nil},
		{"lab with agent", listed{ImportPath: m + "/lab/world", Imports: []string{m + "/internal/agent"}}, []string{"imports internal/agent: the lab is for every CNI"}},
		{"lab test with path", listed{ImportPath: m + "/lab/fabric", TestImports: []string{m + "/internal/core/path"}}, []string{"imports in a test internal/core/path: the fabric"}},
		{"plugin with netlink", listed{ImportPath: m + "/cmd/fairway-cni", Imports: []string{"os", "golang.org/x/sys/unix", "github.com/vishvananda/netlink"}},
			[]string{"imports github.com/vishvananda/netlink: the plugin"}},
		{"plugin that links http", listed{ImportPath: m + "/cmd/fairway-cni", Deps: []string{"internal/abi", m + "/internal/edge/cniapi", "net/http", "google.golang.org/grpc"}},
			[]string{"links google.golang.org/grpc: what the plugin", "links net/http: these packages"}},
		{"program with program", listed{ImportPath: m + "/cmd/fairway-agent", Imports: []string{m + "/cmd/fairway-cni"}}, []string{"imports cmd/fairway-cni: a program"}},
		{"operator with kernel", listed{ImportPath: m + "/internal/operator", Imports: []string{m + "/internal/edge/kernel"}}, []string{"imports internal/edge/kernel: agent and operator"}},
		{"testify", listed{ImportPath: m + "/bench", TestImports: []string{"github.com/stretchr/testify/require"}}, []string{"testify/require: one test style"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pkgs := []listed{tt.pkg}
			wantFindings(t, checkLayers(pkgs, append(edgeLayers(pkgs), layers...)), tt.want...)
		})
	}
}

func TestLayersHaveReasons(t *testing.T) {
	for _, l := range layers {
		if l.why == "" || len(l.who) == 0 || (l.only == nil && l.never == nil) {
			t.Errorf("rule for %v is not whole: it needs who, only or never, and why", l.who)
		}
	}
}
