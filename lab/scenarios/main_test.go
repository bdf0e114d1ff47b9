package scenarios

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/fairway-cni/fairway/lab/cli"
	"github.com/fairway-cni/fairway/lab/ec2sim"
	"github.com/fairway-cni/fairway/lab/fabric"
	"github.com/fairway-cni/fairway/lab/guest"
	"github.com/fairway-cni/fairway/test/upstream"
)

var update = flag.Bool("update", false, "rewrite what the scripts compare with; read what changed before committing it")

// programs is the directory of the three programs, built once.
var programs string

func TestMain(m *testing.M) {
	guest.MaybeInit()
	flag.Parse()
	waitTogether()
	os.Exit(runTests(m))
}

// waitTogether lets some tests run beside each other also on few processors:
// what they do most is wait. Who gives -parallel is heard.
func waitTogether() {
	const atLeast = 4
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given && runtime.GOMAXPROCS(0) < atLeast {
		if err := flag.Set("test.parallel", strconv.Itoa(atLeast)); err != nil {
			panic(err) // the flag is package testing's
		}
	}
}

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "fairway-scenarios-")
	if err == nil {
		defer os.RemoveAll(dir)
		programs = dir
		err = build(dir)
	}
	if err == nil {
		err = upstream.Netfilter(dir, "nft")
	}
	if errors.Is(err, upstream.ErrNone) {
		err = nil // what needs it is skipped
	}
	if err == nil {
		err = os.Setenv("PATH", dir+":"+os.Getenv("PATH")) // for who asks in this process
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// build makes the programs as `make build` does. Others than root run them too.
func build(dir string) error {
	c := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", dir+"/", "./cmd/...")
	c.Dir = filepath.Join("..", "..")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return os.Chmod(dir, 0o755)
}

func program(name string) string { return filepath.Join(programs, name) }

// needLab skips a test where no lab can run.
func needLab(t *testing.T) {
	t.Helper()
	err := guest.Check()
	if err == nil {
		err = fabric.Probe()
	}
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, os.ErrPermission) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// scratchLab is a lab name that nothing else on the machine has: other runs of
// the same test, say.
func scratchLab(story string) string {
	const most = 20 // bytes of a lab's name: stories that begin alike are told apart by a hash
	sum := sha256.Sum256([]byte(story))
	name := fmt.Sprintf("t%d-%x-%s", os.Getpid(), sum[:2], strings.ToLower(story))
	return strings.Trim(name[:min(len(name), most)], "-")
}

func TestScripts(t *testing.T) {
	t.Parallel()
	runScripts(t, ".")
}

// runScripts runs the stories of a directory beside each other.
func runScripts(t *testing.T, dir string) {
	t.Helper()
	needLab(t)
	p := cli.Scripts(context.Background(), cli.Env{
		Program: program("fairway-lab"), BinDirs: []string{programs}, Term: "dumb",
	})
	p.Dir, p.UpdateScripts = dir, *update
	p.Setup = func(env *testscript.Env) error {
		// WORK is the directory of the script: script-two-pods.
		story := strings.TrimPrefix(filepath.Base(env.WorkDir), "script-")
		env.Setenv("LAB", scratchLab(story))
		env.Setenv("FAIRWAY_LAB", program("fairway-lab"))
		return nil
	}
	verb := p.Cmds["lab"]
	p.Cmds["lab"] = func(ts *testscript.TestScript, neg bool, args []string) {
		if !neg {
			args = patiently(args)
		}
		verb(ts, neg, args)
		if len(args) > 0 && args[0] == "up" && !neg {
			ts.Defer(func() { scriptRightsSuffice(t, ts) })
		}
	}
	testscript.Run(t, p)
}

// patiently has a conversation that is to succeed wait for longer than a person would:
// on a machine that is busy an answer takes its time.
func patiently(args []string) []string {
	if len(args) == 0 || args[0] != "probe" || slices.Contains(args, "--timeout") {
		return args
	}
	return append(slices.Clone(args), "--timeout", patience.String())
}

// scriptRightsSuffice looks at what the agents of a script called, before its lab
// ends.
func scriptRightsSuffice(t *testing.T, ts *testscript.TestScript) {
	out, err := exec.Command(program("fairway-lab"), "--lab", ts.Getenv("LAB"), "calls", "-o", "json").Output()
	if err != nil {
		return // the script has ended its lab by itself
	}
	var calls []ec2sim.Call
	if err := json.Unmarshal(out, &calls); err != nil {
		t.Errorf("%s: %v in %.200s", ts.Name(), err, out)
	}
	rightsSuffice(func(format string, args ...any) { t.Errorf(ts.Name()+": "+format, args...) }, calls)
}
