package cli

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"github.com/fairway-cni/fairway/lab/world"
)

// errScript says that a script failed; what failed has been printed.
var errScript = errors.New("script failed")

func runCommand(o *options) *cobra.Command {
	var update, verbose bool
	cmd := &cobra.Command{
		Use:   "run SCRIPT.txtar...",
		Short: "Run scenario scripts",
		Long: `Run scenarios: txtar archives of a script and its files. Beside the commands of
the script language (cmp, stdout, stderr, grep, env, cp, ! ...) there is

  lab ARG...     any fairway-lab command; up leaves the lab running, as with
                 --detach, and the end of the script takes it down
  until TIME [PATTERN] lab ARG...
                 repeats a fairway-lab command until it succeeds and, where
                 there is one, the pattern matches what it prints

A script's lab is named after the script, or as the variable LAB says. Scripts
run one after the other.`,
		Example: `  fairway-lab run lab/scenarios/two-pods.txtar`,
		Args:    arguments(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, f := range args {
				if _, err := os.Stat(f); err != nil {
					return fmt.Errorf("%w: %w", ErrUsage, err)
				}
			}
			t := &reporter{out: o.Stdout, verbose: verbose}
			p := Scripts(cmd.Context(), *o.Env)
			p.Files, p.UpdateScripts = args, update
			t.Run("", func(t testscript.T) { testscript.RunT(t, p) })
			if t.failed {
				return errScript
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&update, "update", false, "rewrite what cmp compares with; read what changed")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "print the whole transcript, also of what succeeds")
	return cmd
}

// Scripts are the parameters with which scenario scripts run: the verbs, the
// condition [runs:PROGRAM], which holds where `PROGRAM --version` succeeds, and the
// end of every lab that a script started.
func Scripts(ctx context.Context, env Env) testscript.Params {
	s := scripts{ctx, env}
	return testscript.Params{
		RequireExplicitExec: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"lab": func(ts *testscript.TestScript, neg bool, args []string) {
				err := s.run(ts, args, ts.Stdout(), ts.Stderr())
				switch {
				case neg && err == nil:
					ts.Fatalf("lab %s: succeeded, and should not have", strings.Join(args, " "))
				case !neg && err != nil:
					ts.Fatalf("lab %s: %v", strings.Join(args, " "), err)
				}
			},
			"until": s.until,
		},
		Condition: func(cond string) (bool, error) {
			if program, ok := strings.CutPrefix(cond, "runs:"); ok {
				return exec.Command(program, "--version").Run() == nil, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
	}
}

// scripts runs the verbs.
type scripts struct {
	ctx context.Context
	env Env
}

// until repeats a command until it succeeds and its output matches. Only the
// output of the last time is the script's.
func (s scripts) until(ts *testscript.TestScript, neg bool, args []string) {
	pattern := ""
	if len(args) > 2 && args[1] != "lab" {
		pattern = args[1]
		args = append(args[:1:1], args[2:]...)
	}
	if neg || len(args) < 3 || args[1] != "lab" {
		ts.Fatalf("usage: until TIME [PATTERN] lab ARG...")
	}
	limit, err := time.ParseDuration(args[0])
	ts.Check(err)
	wanted, err := regexp.Compile("(?m)" + pattern)
	ts.Check(err)
	deadline := time.Now().Add(limit)
	for {
		var stdout, stderr bytes.Buffer
		err := s.run(ts, args[2:], &stdout, &stderr)
		matched := wanted.Match(stdout.Bytes())
		if err == nil && matched || time.Now().After(deadline) {
			io.Copy(ts.Stdout(), &stdout)
			io.Copy(ts.Stderr(), &stderr)
		}
		switch {
		case err == nil && matched:
			return
		case !time.Now().After(deadline):
			time.Sleep(100 * time.Millisecond)
		case err != nil:
			ts.Fatalf("lab %s: not within %s: %v", strings.Join(args[2:], " "), limit, err)
		default:
			ts.Fatalf("lab %s: output does not match %q within %s", strings.Join(args[2:], " "), pattern, limit)
		}
	}
}

// run runs one command for a script. Its output goes through pipes, as what
// runs in an instance needs files.
func (s scripts) run(ts *testscript.TestScript, args []string, out, errOut io.Writer) error {
	args, err := scriptArgs(ts, args)
	if err != nil {
		return err
	}
	stdout, stdoutDone, err := drain(out)
	if err != nil {
		return err
	}
	stderr, stderrDone, err := drain(errOut)
	if err != nil {
		stdoutDone()
		return err
	}
	env := s.env
	env.Stdin, env.Stdout, env.Stderr = nil, stdout, stderr
	status := Main(s.ctx, env, args)
	stdoutDone()
	stderrDone()
	if status != 0 {
		return &ExitError{status}
	}
	if args[2] == "up" {
		ts.Defer(func() { s.down(ts, args[:2]) })
	}
	return nil
}

// down ends the lab of a script that has ended, however it has.
func (s scripts) down(ts *testscript.TestScript, lab []string) {
	env := s.env
	env.Stdin, env.Stdout, env.Stderr = nil, os.Stdout, os.Stderr
	err := Run(context.WithoutCancel(s.ctx), env, append(lab[:2:2], "down"))
	if err != nil && !errors.Is(err, world.ErrNotRunning) { // the script may have done it
		ts.Logf("lab down: %v", err)
	}
}

// scriptArgs resolves the files of the archive, names the script's lab and makes
// `up` return.
func scriptArgs(ts *testscript.TestScript, args []string) ([]string, error) {
	if len(args) == 0 {
		return nil, errors.New("lab: no command; see fairway-lab --help")
	}
	args = append([]string{"--lab", cmp.Or(ts.Getenv(labVariable), labOf(ts.Name()))}, args...)
	for i := 3; i < len(args); i++ {
		if args[i] == "--" {
			break
		}
		if args[i-1] == "-f" {
			args[i] = ts.MkAbs(args[i])
		}
	}
	if args[2] == "up" {
		args = append(args, "--detach")
	}
	return args, nil
}

// labVariable is the environment variable of a script that names its lab.
const labVariable = "LAB"

// labOf is the lab of the script of that name: one for each, so that scripts
// and labs that run already do not meet.
func labOf(script string) string {
	const most = 20 // what a lab's name may have
	name := []byte(strings.ToLower(script))
	for i, c := range name {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			name[i] = '-'
		}
	}
	return strings.Trim(string(name[:min(len(name), most)]), "-")
}

// drain gives a file that writes to w, and what waits until all is written.
func drain(w io.Writer) (*os.File, func(), error) {
	r, pipe, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(w, r) // w is a buffer of the script's
		r.Close()
	}()
	return pipe, func() { pipe.Close(); <-done }, nil
}

// reporter is the test that a script runs in, outside of go test.
type reporter struct {
	name    string
	out     io.Writer
	verbose bool
	failed  bool
	log     strings.Builder
}

// stopped is how a script leaves its test early.
type stopped struct{ skipped bool }

func (r *reporter) Parallel()     {}
func (r *reporter) Verbose() bool { return r.verbose }
func (r *reporter) Log(args ...any) {
	fmt.Fprintln(&r.log, args...)
}
func (r *reporter) Skip(args ...any)  { r.Log(args...); panic(stopped{skipped: true}) }
func (r *reporter) Fatal(args ...any) { r.Log(args...); r.FailNow() }
func (r *reporter) FailNow()          { r.failed = true; panic(stopped{}) }

// Run runs one script and prints how it went.
func (r *reporter) Run(name string, f func(testscript.T)) {
	sub := &reporter{name: filepath.Join(r.name, name), out: r.out, verbose: r.verbose}
	start, word := time.Now(), "ok"
	func() {
		defer func() {
			switch p := recover().(type) {
			case nil:
			case stopped:
				if p.skipped {
					word = "skipped"
				}
			default:
				panic(p)
			}
		}()
		f(sub)
	}()
	if sub.failed {
		word, r.failed = "FAILED", true
	}
	if sub.name == "" {
		return
	}
	if sub.failed || r.verbose {
		fmt.Fprint(r.out, sub.log.String())
	}
	fmt.Fprintf(r.out, "%-8s %s  %.1f s\n", word, sub.name, time.Since(start).Seconds())
}
