// Command bench runs the project's benchmarks: each compares, in one run and on
// the same machine, what we do with the least that it could cost.
//
//	go run ./bench        lists them
//	go run ./bench add    runs one
//
// A bench prints a table on standard output and writes bench/out/NAME.json in
// the form of package result; progress goes to standard error. It removes all
// that it made, also after Ctrl-C.
//
// Exit status: 0 if it ran, whatever it found; 1 if it failed; 2 for wrong usage
// or missing rights.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/fairway-cni/fairway/bench/add"
	"github.com/fairway-cni/fairway/bench/apply"
	"github.com/fairway-cni/fairway/bench/burst"
	"github.com/fairway-cni/fairway/bench/ec2"
	"github.com/fairway-cni/fairway/bench/fabric"
	"github.com/fairway-cni/fairway/bench/packet"
	"github.com/fairway-cni/fairway/bench/path"
	"github.com/fairway-cni/fairway/bench/pods"
	"github.com/fairway-cni/fairway/bench/result"
	"github.com/fairway-cni/fairway/lab/guest"
)

// bench is one benchmark.
type bench struct {
	name, what string
	packages   []string // programs that it runs
	run        func(context.Context, place) (result.Report, error)
	// inside is the half that the bench itself runs in an instance of its lab;
	// nil: there is none.
	inside func(ctx context.Context, arg string) error
}

// place is where a bench runs.
type place struct {
	program string // path of this program
	bin     string // directory of the programs built
	root    string // of the source tree
}

var benches = []bench{{
	name: "add", what: "CNI ADD and DEL from exec to exit, beside a program that only does the same kernel writes; takes a minute",
	packages: add.Packages,
	run: func(ctx context.Context, p place) (result.Report, error) {
		f, err := add.Run(ctx, add.Env{Program: p.program, Argv: []string{insideWord, "add"}, BinDir: p.bin, Progress: os.Stderr}, os.Stdout)
		if err != nil {
			return result.Report{}, err
		}
		return f.Report(), nil
	},
	inside: func(ctx context.Context, arg string) error { return add.Inside(ctx, arg, os.Stdout, os.Stderr) },
}, {
	name: "fabric", what: "packets through a VPC's rules, beside plain routing, and the start of 50 instances; takes two minutes",
	run: func(ctx context.Context, _ place) (result.Report, error) {
		f, err := fabric.Run(ctx, fabric.Env{Progress: os.Stderr}, os.Stdout)
		if err != nil {
			return result.Report{}, err
		}
		return f.Report(), nil
	},
}, {
	name: "ec2", what: "the lab's EC2 with 10,000 network interfaces, by the AWS SDK over a socket; takes half a minute",
	run: func(ctx context.Context, _ place) (result.Report, error) {
		f, err := ec2.Run(ctx, ec2.Env{Progress: os.Stderr}, os.Stdout)
		if err != nil {
			return result.Report{}, err
		}
		return f.Report(), nil
	},
}, {
	name: "packet", what: "a packet from pod to pod, 1 to 737 pods on each node, beside host to host and beside rules per pod; takes two minutes",
	run: func(ctx context.Context, _ place) (result.Report, error) {
		f, err := packet.Run(ctx, os.Stdout, os.Stderr)
		if err != nil {
			return result.Report{}, err
		}
		return f.Report(), nil
	},
}, {
	name: "apply", what: "the kernel's state of 737 pods: rebuilt, compared, one change, a restart, beside raw netlink; takes ten seconds",
	run: func(ctx context.Context, _ place) (result.Report, error) {
		f, err := apply.Run(ctx, os.Stderr)
		if err != nil {
			return result.Report{}, err
		}
		return f.Report(), f.WriteTable(os.Stdout)
	},
}, {
	name: "burst", what: "27 pods at once on a node without addresses, 60 with prefixes, beside EC2's own calls; idle calls, memory; takes seven minutes",
	packages: burst.Packages,
	run: func(ctx context.Context, p place) (result.Report, error) {
		f, err := burst.Run(ctx, burst.Env{Program: p.program, Argv: []string{insideWord, "burst"}, BinDir: p.bin, Progress: os.Stderr}, os.Stdout)
		if err != nil {
			return result.Report{}, err
		}
		return f.Report(), nil
	},
	inside: func(ctx context.Context, arg string) error { return burst.Inside(ctx, arg, os.Stdout) },
}, {
	name: "path", what: "an explanation with 737 pods on each node, and the matrix of 1,000 pods; takes ten seconds",
	run: func(ctx context.Context, _ place) (result.Report, error) {
		f, err := path.Run(ctx, os.Stdout, os.Stderr)
		if err != nil {
			return result.Report{}, err
		}
		return f.Report(), nil
	},
}, {
	name: "pods", what: "300 pods at once in a real Kubernetes, beside ptp and host-local; after make kubernetes; takes a quarter of an hour",
	packages: pods.Packages,
	run: func(ctx context.Context, p place) (result.Report, error) {
		f, err := pods.Run(ctx, pods.Env{BinDir: p.bin, Programs: filepath.Join(p.root, "bin", "kubernetes"),
			Deploy: filepath.Join(p.root, "deploy"), Progress: os.Stderr}, os.Stdout)
		if err != nil {
			return result.Report{}, err
		}
		return f.Report(), nil
	},
}}

// insideWord is the argument by which a bench calls its own other half.
const insideWord = "--inside"

var errUsage = errors.New("usage")

func main() {
	guest.MaybeInit()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	err := command(ctx, os.Args[1:], os.Stdout)
	switch {
	case err == nil:
		return
	case errors.Is(err, context.Canceled):
		err = errors.New("interrupted; all that was made is removed")
	}
	fmt.Fprintln(os.Stderr, "bench:", err)
	if errors.Is(err, errUsage) {
		os.Exit(2)
	}
	os.Exit(1)
}

func command(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 3 && args[0] == insideWord {
		b, err := find(args[1])
		if err != nil {
			return err
		}
		if b.inside == nil {
			return fmt.Errorf("%w: bench %s has no other half", errUsage, b.name)
		}
		return b.inside(ctx, args[2])
	}
	switch len(args) {
	case 0:
		return list(out)
	case 1:
		b, err := find(args[0])
		if err != nil {
			return err
		}
		if os.Geteuid() != 0 {
			return fmt.Errorf("%w: bench %s needs root: it makes namespaces and devices; run it with sudo", errUsage, b.name)
		}
		return measure(ctx, b, out)
	}
	return fmt.Errorf("%w: bench [NAME]: one name, or none for the list", errUsage)
}

func list(out io.Writer) error {
	for _, b := range benches {
		if _, err := fmt.Fprintf(out, "%-8s %s\n", b.name, b.what); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(out, "\nRun one with `make bench B=NAME`, as root.")
	return err
}

func find(name string) (bench, error) {
	var names []string
	for _, b := range benches {
		if b.name == name {
			return b, nil
		}
		names = append(names, b.name)
	}
	return bench{}, fmt.Errorf("%w: there is no bench %q; there are: %s", errUsage, name, strings.Join(names, ", "))
}

// measure builds what the bench needs, runs it, and writes down what came out.
func measure(ctx context.Context, b bench, out io.Writer) (err error) {
	root, err := moduleRoot(ctx)
	if err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own program: %w", err)
	}
	bin, err := os.MkdirTemp("", "fairway-bench-")
	if err != nil {
		return fmt.Errorf("make directory for programs: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(bin)) }()
	if len(b.packages) > 0 {
		if err := build(ctx, bin, b.packages); err != nil {
			return err
		}
	}
	report, err := b.run(ctx, place{program: program, bin: bin, root: root})
	if err != nil {
		return fmt.Errorf("%s: %w", b.name, err)
	}
	if _, err := fmt.Fprintln(out); err != nil {
		return err
	}
	if err := report.WriteTable(out); err != nil {
		return err
	}
	file, err := report.Write(filepath.Join(root, "bench", "out"), b.name)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "\nwritten to %s\n", file)
	return err
}

func moduleRoot(ctx context.Context) (string, error) {
	text, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w (run it in the source tree, with go in PATH)", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// build makes the programs with the flags of the Makefile, in one go, so that
// no two of them differ in how they were built.
func build(ctx context.Context, dir string, packages []string) error {
	if len(packages) == 0 {
		return nil
	}
	cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-trimpath", "-ldflags=-s -w", "-o", dir + "/"}, packages...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build programs: %w", err)
	}
	return nil
}
