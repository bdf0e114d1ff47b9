package scenarios

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairway-cni/fairway/lab/world"
)

// fairwayLab runs the program on one lab.
func fairwayLab(t *testing.T, name string, args ...string) answer {
	t.Helper()
	var out, errOut bytes.Buffer
	c := exec.CommandContext(t.Context(), program("fairway-lab"), append([]string{"--lab", name}, args...)...)
	c.Stdout, c.Stderr = &out, &errOut
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return answer{out.String(), errOut.String(), c.ProcessState.ExitCode()}
}

func mustFairwayLab(t *testing.T, name string, args ...string) string {
	t.Helper()
	a := fairwayLab(t, name, args...)
	if a.status != 0 {
		t.Fatalf("fairway-lab %q: status %d\n%s%s", args, a.status, a.stdout, a.stderr)
	}
	return a.stdout
}

// TestUpAndDown: while it runs a lab must not change the host either, but for its own traces.
func TestUpAndDown(t *testing.T) {
	name := scratchLab("updown")
	check := untouched(t, name)
	before, err := lookAtHost(name)
	if err != nil {
		t.Fatal(err)
	}
	mustFairwayLab(t, name, "up", "--detach")
	mustFairwayLab(t, name, "pod", "add", "node-a", "p{1..10}", "--parallel=4")
	while, err := lookAtHost(name)
	if err != nil {
		t.Fatal(err)
	}
	if d := difference(before.shared, while.shared); d != nil {
		t.Errorf("a lab that runs has changed the host:\n%s", joined(d))
	}
	if len(while.labs) == 0 {
		t.Error("no trace of a lab that runs: this test cannot fail")
	}
	again := fairwayLab(t, name, "up", "--detach")
	if again.status != 1 || !strings.Contains(again.stderr, "a lab of this name is running") || !strings.Contains(again.stderr, "fairway-lab down") {
		t.Errorf("a second lab of the same name: %+v", again)
	}
	if out := mustFairwayLab(t, name, "pod", "list"); strings.Count(out, "\n") != 11 {
		t.Errorf("after a second start was refused, pods are:\n%s", out)
	}
	mustFairwayLab(t, name, "down")
	check()
	if gone := fairwayLab(t, name, "down"); gone.status != 1 || !strings.Contains(gone.stderr, "no lab of this name is running") {
		t.Errorf("down of nothing: %+v", gone)
	}
	check()
}

// TestLabKilled: what kill -9 leaves, down removes.
func TestLabKilled(t *testing.T) {
	name := scratchLab("killed")
	check := untouched(t, name)
	mustFairwayLab(t, name, "up", "--detach")
	mustFairwayLab(t, name, "pod", "add", "node-a", "p{1..10}", "--parallel=4")
	var s world.Status
	if err := json.Unmarshal([]byte(mustFairwayLab(t, name, "status", "-o", "json")), &s); err != nil {
		t.Fatal(err)
	}
	if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", s.PID)); err != nil || exe != program("fairway-lab") {
		t.Fatalf("process %d is %s (%v), not the lab", s.PID, exe, err)
	}
	if err := syscall.Kill(s.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the lab is dead", func() error {
		if a := fairwayLab(t, name, "status"); a.status != 1 || !strings.Contains(a.stderr, "no lab of this name is running") {
			return fmt.Errorf("status: %+v", a)
		}
		return nil
	})
	if left, err := traces(name); err != nil || len(left) == 0 {
		t.Errorf("a killed lab leaves %q (%v): this test cannot fail", left, err)
	}
	mustFairwayLab(t, name, "down")
	check()

	// And the name is free again.
	mustFairwayLab(t, name, "up", "--detach")
	mustFairwayLab(t, name, "down")
	check()
}

// TestStartFails: a start that cannot succeed leaves nothing.
func TestStartFails(t *testing.T) {
	name := scratchLab("fails")
	check := untouched(t, name)
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte("name: bad\nvpcs: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	starving := filepath.Join(t.TempDir(), "starving.yaml")
	if err := os.WriteFile(starving, []byte("name: starving"+strings.Replace(oneNode("m5.large"), "subnet: a}",
		"subnet: a, daemons: [{name: agent, command: [no-such-program]}]}", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args   []string
		status int
		says   []string
	}{
		{[]string{"up", "-f", bad}, 2, []string{bad + ":2"}},
		{[]string{"up", "--detach", "-f", bad}, 2, []string{bad + ":2"}},
		{[]string{"up", "--detach", "-f", bad + ".not"}, 1, []string{bad + ".not", "no such file"}},
		{[]string{"up", "--detach", "--lab", "Not/A/Name"}, 2, []string{`"Not/A/Name"`}},
		{[]string{"up", "--detach", "surplus"}, 2, []string{"surplus"}},
	} {
		a := fairwayLab(t, name, tt.args...)
		if word := missingWord(a.stderr, tt.says); a.status != tt.status || word != "" {
			t.Errorf("%q: %+v, want status %d and %q", tt.args, a, tt.status, tt.says)
		}
		check()
	}

	// A daemon that does not exist is tried again for as long as a start may
	// take; a signal ends that.
	c := exec.CommandContext(t.Context(), program("fairway-lab"), "--lab", name, "up", "--detach", "-f", starving)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	var errOut bytes.Buffer
	c.Stderr = &errOut
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the lab's log names the daemon", func() error {
		log, err := os.ReadFile(filepath.Join(world.Dir(name), "lab.log"))
		if err == nil && !strings.Contains(string(log), "no-such-program") {
			err = fmt.Errorf("it has %q", log)
		}
		return err
	})
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err == nil {
		t.Errorf("a start that was ended by a signal succeeded: %s", &errOut)
	}
	check()
}

// TestDemoInterrupted presses Ctrl-C at every stage of the demo, and at random
// moments in between.
func TestDemoInterrupted(t *testing.T) {
	random := rand.New(rand.NewPCG(2, 20261121))
	for i, tt := range []struct {
		after string // the line of output that is waited for
		delay time.Duration
	}{
		{"Starting lab", 0},
		{"Starting lab", time.Duration(random.IntN(100)) * time.Millisecond},
		{"Making 14 pods on node-a", 0},
		{"Making 14 pods on node-a", time.Duration(random.IntN(100)) * time.Millisecond},
		{"Making 14 pods on node-b", time.Duration(random.IntN(100)) * time.Millisecond},
		{"INSTANCE", 0},
		{"POD", time.Duration(random.IntN(100)) * time.Millisecond},
	} {
		t.Run(fmt.Sprintf("%s+%v", tt.after, tt.delay), func(t *testing.T) {
			name := scratchLab(fmt.Sprintf("demo%d", i))
			check := untouched(t, name)
			c := exec.CommandContext(t.Context(), program("fairway-lab"), "--lab", name, "demo")
			// As from a terminal, where the whole group gets the signal.
			c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			out, err := c.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			var errOut bytes.Buffer
			c.Stderr = &errOut
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			said := bufio.NewReader(out)
			for line := ""; !strings.HasPrefix(line, tt.after); {
				if line, err = said.ReadString('\n'); err != nil {
					t.Fatalf("wait for %q: %v\n%s", tt.after, err, &errOut)
				}
			}
			<-time.After(tt.delay) // the moment, no wait for anything
			if err := syscall.Kill(-c.Process.Pid, syscall.SIGINT); err != nil && !errors.Is(err, syscall.ESRCH) {
				t.Fatal(err)
			}
			rest, err := io.ReadAll(said)
			if err != nil {
				t.Error(err)
			}
			err = c.Wait()
			if strings.Contains(string(rest), "demo: ok") {
				t.Logf("the demo was faster than the signal: %v", err)
			} else if c.ProcessState.ExitCode() != 1 {
				t.Errorf("interrupted demo: %v, want status 1\n%s%s", err, rest, &errOut)
			}
			t.Logf("it said: %s", &errOut)
			check()
		})
	}
}

// TestInterruptedInTheForeground: `up` without --detach ends with the terminal's
// signals, and that is no failure.
func TestInterruptedInTheForeground(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		t.Run(sig.String(), func(t *testing.T) {
			name := scratchLab("fg" + fmt.Sprint(int(sig)))
			check := untouched(t, name)
			c := exec.CommandContext(t.Context(), program("fairway-lab"), "--lab", name, "up")
			c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			out, err := c.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			var errOut bytes.Buffer
			c.Stderr = &errOut
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			line, err := bufio.NewReader(out).ReadString('\n')
			if err != nil || !strings.Contains(line, "is up") {
				t.Errorf("up said %q (%v)", line, err)
			}
			if err := syscall.Kill(-c.Process.Pid, sig); err != nil {
				t.Fatal(err)
			}
			if err := c.Wait(); err != nil {
				t.Errorf("up after %v: %v\n%s", sig, err, &errOut)
			}
			check()
		})
	}
}
