package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// linked is every package that the plugin may link, apart from the internal
// ones of the standard library, which come with those named here. What is here
// was measured: see docs/design/cni.md, "Start-up time".
var linked = map[string]string{
	"github.com/fairway-cni/fairway/cmd/fairway-cni":      "itself",
	"github.com/fairway-cni/fairway/internal/edge/cniapi": "the protocol, the client, the spool",

	"os":      "environment, standard input and output, files: 0.1 ms over bare syscall, and worth it for what it checks",
	"syscall": "sockets with descriptors, namespaces",
	"time":    "deadlines, the spool's time stamp",

	"cmp":          "by slices",
	"errors":       "no cost",
	"hash":         "by hash/fnv",
	"hash/fnv":     "names of spool files; a few instructions, where crypto/sha256 has FIPS tests at its start",
	"io":           "no cost",
	"io/fs":        "by os",
	"iter":         "by slices",
	"math/bits":    "by hash/fnv",
	"path":         "by io/fs",
	"runtime":      "every Go program",
	"slices":       "no cost",
	"strconv":      "no cost",
	"sync":         "by os",
	"sync/atomic":  "by os",
	"unicode/utf8": "strings in JSON",
	"unsafe":       "not a package",
}

// unwanted is what one would reach for next, with the reason why not.
var unwanted = map[string]string{
	"encoding/json":         "0.22 ms at every start, by reflect and its tables; cniapi reads the few fields itself and the agent uses the real one",
	"fmt":                   "brings reflect; errors are put together with +",
	"golang.org/x/sys/unix": "0.07 ms at every start, by encoding/binary and reflect; of its names the plugin needs three numbers",
	"net":                   "0.5 ms at every start; unix sockets are four system calls",
	"net/http":              "0.7 ms at every start",
	"reflect":               "its tables, and whoever brings it",
	"unicode":               "tables; names are ASCII by our rule",
	"log/slog":              "reflect and encoding/json with it; the one line of log.go is put together with append",
	"os/exec":               "the plugin runs nothing; CNI plugins that delegate do",
	"crypto/sha256":         "self-tests at the start; nothing here is a secret",
	"github.com/containernetworking/cni/pkg/types": "encoding/json and net with it; the agent writes the results",
	"github.com/containernetworking/cni/pkg/skel":  "all of the above",
}

func TestDependencies(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	found := map[string]bool{}
	for _, pkg := range strings.Fields(string(out)) {
		found[pkg] = true
		if strings.HasPrefix(pkg, "internal/") || strings.HasPrefix(pkg, "vendor/") {
			continue
		}
		if why, bad := unwanted[pkg]; bad {
			t.Errorf("the plugin links %s: %s", pkg, why)
		} else if _, ok := linked[pkg]; !ok {
			t.Errorf("the plugin links %s: measure what it costs at the start, and add it to the list with the reason, or do without", pkg)
		}
	}
	for pkg := range linked {
		if !found[pkg] {
			t.Errorf("%s is on the list and not linked: remove it", pkg)
		}
	}
}
