package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
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
  until TIME lab ARG...
                 repeats a fairway-lab command until it succeeds

Scripts run one after the other.`,
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

// Scripts are the parameters with which scenario scripts run: the verbs, and
// the end of every lab that a script started.
func Scripts(ctx context.Context, env Env) testscript.Params {
	lab := func(ts *testscript.TestScript, args []string) error {
		return scripted(ctx, env, ts, args)
	}
	return testscript.Params{
		RequireExplicitExec: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"lab": func(ts *testscript.TestScript, neg bool, args []string) {
				err := lab(ts, args)
				switch {
				case neg && err == nil:
					ts.Fatalf("lab %s: succeeded, and should not have", strings.Join(args, " "))
				case !neg && err != nil:
					ts.Fatalf("lab %s: %v", strings.Join(args, " "), err)
				}
			},
			"until": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) < 3 || args[1] != "lab" {
					ts.Fatalf("usage: until TIME lab ARG...")
				}
				limit, err := time.ParseDuration(args[0])
				ts.Check(err)
				deadline := time.Now().Add(limit)
				for {
					err := lab(ts, args[2:])
					if err == nil {
						return
					}
					if time.Now().After(deadline) {
						ts.Fatalf("lab %s: not within %s: %v", strings.Join(args[2:], " "), limit, err)
					}
					time.Sleep(100 * time.Millisecond)
				}
			},
		},
	}
}

// scripted runs one command for a script. Its output goes through pipes, as
// what runs in an instance needs files.
func scripted(ctx context.Context, env Env, ts *testscript.TestScript, args []string) error {
	args, err := scriptArgs(ts, args)
	if err != nil {
		return err
	}
	stdout, stdoutDone, err := drain(ts.Stdout())
	if err != nil {
		return err
	}
	stderr, stderrDone, err := drain(ts.Stderr())
	if err != nil {
		stdoutDone()
		return err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	env.Stdin, env.Stdout, env.Stderr = null, stdout, stderr
	status := Main(ctx, env, args)
	stdoutDone()
	stderrDone()
	if len(args) > 0 && args[0] == "up" && status == 0 {
		ts.Defer(func() {
			env.Stdin, env.Stdout, env.Stderr = os.Stdin, os.Stdout, os.Stderr
			if err := Run(context.WithoutCancel(ctx), env, []string{"down"}); err != nil {
				ts.Logf("lab down: %v", err)
			}
		})
	}
	if status != 0 {
		return &ExitError{status}
	}
	return nil
}

// scriptArgs resolves the files of the archive and makes `up` return.
func scriptArgs(ts *testscript.TestScript, args []string) ([]string, error) {
	if len(args) == 0 {
		return nil, errors.New("lab: no command; see fairway-lab --help")
	}
	args = append([]string(nil), args...)
	for i := 1; i < len(args); i++ {
		if args[i] == "--" {
			break
		}
		if args[i-1] == "-f" {
			args[i] = ts.MkAbs(args[i])
		}
	}
	if args[0] == "up" {
		args = append(args, "--detach")
	}
	return args, nil
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
