package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/fairway-cni/fairway/lab/guest"
	"github.com/fairway-cni/fairway/lab/world"
)

func TestMain(m *testing.M) {
	guest.MaybeInit()
	os.Exit(m.Run())
}

// said is what one command line printed, and its exit status.
type said struct {
	status         int
	stdout, stderr string
}

func runCLI(t *testing.T, args ...string) said {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, as every command does")
	}
	dir := t.TempDir()
	var files [2]*os.File
	for i, name := range []string{"stdout", "stderr"} {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files[i] = f
	}
	s := said{status: Main(t.Context(), Env{Stdout: files[0], Stderr: files[1], Program: "/no/such/program"}, args)}
	for i, text := range []*string{&s.stdout, &s.stderr} {
		if _, err := files[i].Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(files[i])
		if err != nil {
			t.Fatal(err)
		}
		*text = string(b)
	}
	return s
}

// absent is the name of a lab that is not there.
func absent() string { return fmt.Sprintf("c%d", os.Getpid()) }

// TestUsage: what the caller has to mend is one paragraph and exit status 2;
// what fails is 1.
func TestUsage(t *testing.T) {
	lab := absent()
	for _, tt := range []struct {
		args   string
		status int
		stderr string // a part
	}{
		{"nonsense", 2, `no command "nonsense"; see fairway-lab --help`},
		{"up --nonsense", 2, "unknown flag: --nonsense"},
		{"up surplus", 2, "surplus"},
		{"up --proxy-mode=nftables", 2, "--proxy-mode is for --kubernetes"},
		{"up --kubernetes --proxy-mode=ipvs", 2, `--proxy-mode "ipvs": must be one of iptables, nftables`},
		{"up --kubernetes --outside=node-z", 2, `--outside "node-z": the world has no such instance`},
		{"up --kubernetes", 2, "programs of Kubernetes are missing in /no/such/kubernetes: etcd,"},
		{"kubectl", 2, "requires at least 1 arg(s)"},
		{"--lab " + lab + " kubectl get pods", 1, "no lab of this name is running"},
		{"exec node-a", 2, "requires at least 2 arg(s)"},
		{"pod add node-a", 2, "requires at least 2 arg(s)"},
		{"pod add node-a p{1..}", 2, `pod name "p{1..}": must be NAME or NAME{1..9}`},
		{"pod add node-a -- -x", 2, `pod name "-x"`},
		{"pod list --output xml", 2, `--output "xml": must be table or json`},
		{"run no-such-file.txtar", 2, "no-such-file.txtar"},
		{"down --lab a/b", 2, `lab name "a/b"`},
		{"down --lab ..", 2, `lab name ".."`},
		{"up --lab " + strings.Repeat("x", 21), 2, "at most 20 characters"},
		{"pod nonsense", 2, `no command "nonsense"; see fairway-lab pod --help`},
		{"status --lab " + lab, 1, "no lab of this name is running"},
		{"down --lab " + lab, 1, "no lab of this name is running"},
		{"flows --lab " + lab, 1, "no lab of this name is running"},
		{"exec --lab " + lab + " node-a -- true", 1, "start one with `fairway-lab up`"},
		{"up --detach --lab " + lab, 1, "start lab"}, // the program is not there
	} {
		t.Run(tt.args, func(t *testing.T) {
			s := runCLI(t, strings.Fields(tt.args)...)
			if s.status != tt.status || !strings.Contains(s.stderr, tt.stderr) || !strings.HasPrefix(s.stderr, "fairway-lab: ") {
				t.Errorf("status %d, stderr %q: want %d and %q", s.status, s.stderr, tt.status, tt.stderr)
			}
			if s.stdout != "" || strings.Contains(s.stderr, "Usage:") {
				t.Errorf("stdout %q, stderr %q: want no usage text", s.stdout, s.stderr)
			}
		})
	}
	if _, err := os.Stat(world.Dir(lab)); !os.IsNotExist(err) {
		t.Errorf("%s is left behind (%v)", world.Dir(lab), err)
	}
}

// TestHelp: every command says what it is for, and how it is used.
func TestHelp(t *testing.T) {
	root := command(&Env{})
	walk := slices.Clone(root.Commands())
	for len(walk) > 0 {
		c := walk[0]
		walk = append(walk[1:], c.Commands()...)
		if c.Hidden || c.Name() == "help" || c.Parent().Hidden {
			continue
		}
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: short help %q: want one sentence without a full stop", c.CommandPath(), c.Short)
		}
		if !c.HasSubCommands() && (c.Example == "" || !strings.Contains(c.Example, c.CommandPath())) {
			t.Errorf("%s: example %q: want one that shows the command", c.CommandPath(), c.Example)
		}
	}
}

func TestExpand(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want []string // nil: refused
	}{
		{"web", []string{"web"}},
		{"web db", []string{"web", "db"}},
		{"p{1..3}", []string{"p1", "p2", "p3"}},
		{"a{9..10}b c", []string{"a9b", "a10b", "c"}},
		{"p{2..2}", []string{"p2"}},
		{"p{3..1}", nil}, {"p{1..}", nil}, {"p{..3}", nil}, {"p{a..b}", nil}, {"p}1{", nil}, {"p{1..3", nil},
		{"p{1..10000000}", nil}, {"-p", nil}, {"Web", nil}, {"a/b", nil}, {"p{1..2}-", nil}, {"p{1..2}{1..2}", nil},
	} {
		got, err := expand(strings.Fields(tt.in))
		if err != nil {
			got = nil
		}
		if d := cmp.Diff(tt.want, got); d != "" || (err == nil) != (tt.want != nil) {
			t.Errorf("expand %q: %v (-want +got):\n%s", tt.in, err, d)
		}
	}
	if _, err := expand([]string{""}); err == nil {
		t.Error("an empty name is accepted")
	}
}

func TestLabOf(t *testing.T) {
	for script, want := range map[string]string{
		"two-pods": "two-pods", "Second_ENI": "second-eni", "a-very-long-name-of-a-story": "a-very-long-name-of", "x/y z": "x-y-z",
	} {
		got := labOf(script)
		if got != want {
			t.Errorf("lab of %q: got %q, want %q", script, got, want)
		}
		if err := world.CheckName(got); err != nil {
			t.Errorf("lab of %q: %v", script, err)
		}
	}
}

// TestRunScripts runs scripts as a person does, without go test.
func TestRunScripts(t *testing.T) {
	dir := t.TempDir()
	script := func(name, text string) string {
		path := filepath.Join(dir, name+".txtar")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := script("good", "! lab status\nstderr 'no lab of this name is running'\n! lab --help-me\nstderr 'unknown flag'\n")
	named := script("named", "env LAB=not/a/name\n! lab status\nstderr 'not/a/name'\n")
	skips := script("skips", "skip 'nothing to do'\n")
	fails := script("fails", "lab status\n")
	late := script("late", "until 1ms lab status\n")
	unlike := script("unlike", "until 1ms 'no such word' lab help\n")
	usage := script("usage", "until 1ms status\n")
	golden := script("golden", "! lab status\ncmp stdout want\n-- want --\nsomething\n")

	s := runCLI(t, "run", good, named, skips)
	if s.status != 0 || strings.Count(s.stdout, "ok ") != 2 || strings.Count(s.stdout, "skipped ") != 1 {
		t.Errorf("good scripts: %+v", s)
	}
	for path, words := range map[string]string{
		fails: "lab status: exit status 1", late: "not within 1ms", unlike: `does not match "no such word"`,
		usage: "usage: until TIME [PATTERN] lab ARG...", golden: "stdout and want differ",
	} {
		s := runCLI(t, "run", path, good)
		if s.status != 1 || !strings.Contains(s.stdout, words) || !strings.Contains(s.stdout, "FAILED ") || !strings.Contains(s.stderr, "script failed") {
			t.Errorf("%s: %+v, want %q", path, s, words)
		}
		if !strings.Contains(s.stdout, "ok       good") {
			t.Errorf("%s: the next script did not run:\n%s", path, s.stdout)
		}
	}
	if s := runCLI(t, "run", "--update", golden); s.status != 0 {
		t.Errorf("update: %+v", s)
	}
	if text, err := os.ReadFile(golden); err != nil || strings.Contains(string(text), "something") {
		t.Errorf("after an update: %v\n%s", err, text)
	}
}

// TestScriptArgs: what a script says becomes a command line on its own lab.
func TestScriptArgs(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Files: []string{filepath.Join("testdata", "args.txtar")},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"args": func(ts *testscript.TestScript, _ bool, args []string) {
				made, err := scriptArgs(ts, args)
				ts.Check(err)
				for i := range made {
					made[i] = strings.ReplaceAll(made[i], ts.Getenv("WORK"), "WORK")
				}
				fmt.Fprintln(ts.Stdout(), strings.Join(made, " "))
			},
		},
	})
}

func TestProgress(t *testing.T) {
	var b strings.Builder
	progress(&b, "doing nothing")()
	if b.Len() > 0 {
		t.Errorf("something that is done at once says %q", &b)
	}
}

func TestMainInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if os.Geteuid() != 0 {
		t.Skip("needs root, as every command does")
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if got := Main(ctx, Env{Stdout: null, Stderr: null}, []string{"status", "--lab", absent()}); got != 1 {
		t.Errorf("a command whose time is up: status %d, want 1", got)
	}
}
