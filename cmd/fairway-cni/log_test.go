package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairway-cni/fairway/internal/edge/cniapi"
	"github.com/fairway-cni/fairway/internal/edge/cniapi/cniserver"
)

// logged is a configuration with a log, and the log's path, in a directory that
// is not there.
func (n node) logged(t *testing.T, level string) (config, path string) {
	path = filepath.Join(t.TempDir(), "log", "plugin.log")
	return n.config("1.1.0", fmt.Sprintf(`"pluginLogFile":%q,"pluginLogLevel":%q`, path, level)), path
}

func readLines(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

// TestLogLevels: one line for each call, of its level, where that is asked for.
func TestLogLevels(t *testing.T) {
	n := newNode(t)
	refuse := false
	n.serve(t, func(context.Context, *cniserver.Call) cniserver.Reply {
		if refuse {
			return cniserver.Reply{Err: cniserver.TryAgainLater("an ENI is on its way", "")}
		}
		return cniserver.Reply{}
	})
	for _, tt := range []struct {
		level      string
		ok, again  bool // a line for a success, and for an error that is tried again
		bad, fully bool // for any other error; with arguments
	}{
		{"DEBUG", true, true, true, true},
		{"info", true, true, true, false},
		{"", true, true, true, false},
		{"Warn", false, true, true, false},
		{"ERROR", false, false, true, false},
		{"FATAL", false, false, false, false},
	} {
		t.Run(tt.level, func(t *testing.T) {
			config, path := n.logged(t, tt.level)
			refuse = false
			wantSuccess(t, runPlugin(t, config, append(env("DEL", ""), "CNI_ARGS=K8S_POD_NAME=p")...))
			refuse = true
			wantCNIError(t, runPlugin(t, config, env("DEL", "")...), "1.1.0", 11, "on its way")
			wantCNIError(t, runPlugin(t, config, env("ADD", "")...), "1.1.0", 4, "CNI_NETNS")
			var want []string
			if tt.ok {
				args := ""
				if tt.fully {
					args = `args="K8S_POD_NAME=p" path=/opt/cni/bin `
				}
				want = append(want, `level=INFO msg=DEL network=fairway container=c interface=eth0 `+args+`duration=\d+\.\d{3}ms`)
			}
			if tt.again {
				want = append(want, `level=WARN msg=DEL .*code=11 error="an ENI is on its way".*`)
			}
			if tt.bad {
				want = append(want, `level=ERROR msg=ADD .*code=4 error="missing environment variable: CNI_NETNS"`)
			}
			lines := readLines(t, path)
			if len(lines) != len(want) {
				t.Fatalf("%d lines, want %d:\n%s", len(lines), len(want), strings.Join(lines, "\n"))
			}
			for i, w := range want {
				if !regexp.MustCompile(`^time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ` + w + `$`).MatchString(lines[i]) {
					t.Errorf("line %q, want %s", lines[i], w)
				}
			}
			if fi, err := os.Stat(path); len(want) > 0 && (err != nil || fi.Mode() != fs.FileMode(0o600)) {
				t.Errorf("mode %v, %v", fi.Mode(), err)
			}
		})
	}
}

// TestLogOfWhatIsLeft: with the agent away a DEL is left in the spool, and the
// log says so.
func TestLogOfWhatIsLeft(t *testing.T) {
	config, path := newNode(t).logged(t, "WARN")
	wantSuccess(t, runPlugin(t, config, env("DEL", "")...))
	if lines := readLines(t, path); len(lines) != 1 || !strings.Contains(lines[0], `level=WARN msg=DEL`) ||
		!strings.Contains(lines[0], `result="left for the agent, which is away"`) {
		t.Errorf("%q", lines)
	}
}

// TestLogThatCannotBe: no result depends on the log.
func TestLogThatCannotBe(t *testing.T) {
	n := newNode(t)
	n.serve(t, func(context.Context, *cniserver.Call) cniserver.Reply { return cniserver.Reply{} })
	dir := t.TempDir()
	for _, tt := range []struct{ keys, stderr string }{
		{`"pluginLogFile":"stderr"`, "level=INFO msg=DEL"},
		{`"pluginLogFile":"stderr","pluginLogLevel":"ERROR"`, ""},
		{`"pluginLogFile":"plugin.log"`, `pluginLogFile "plugin.log": must be stderr or an absolute path`},
		{`"pluginLogFile":"stdout"`, `pluginLogFile "stdout": must be stderr or an absolute path`},
		{`"pluginLogFile":"` + dir + `"`, "write log: open " + dir},
		{`"pluginLogFile":"/proc/none/plugin.log"`, "write log: mkdir /proc/none"},
		{`"pluginLogFile":"stderr","pluginLogLevel":"LOUD"`, `pluginLogLevel "LOUD": must be DEBUG`},
		{`"pluginLogLevel":"LOUD"`, ""},
	} {
		got := runPlugin(t, n.config("1.1.0", tt.keys), env("DEL", "")...)
		if got.exit != 0 || got.stdout != "" {
			t.Errorf("%s: exit %d, %q", tt.keys, got.exit, got.stdout)
		}
		if tt.stderr == "" != (got.stderr == "") || !strings.Contains(got.stderr, tt.stderr) {
			t.Errorf("%s: standard error %q, want %q", tt.keys, got.stderr, tt.stderr)
		}
	}
}

// TestLogOfManyCalls: lines of calls at the same time are whole.
func TestLogOfManyCalls(t *testing.T) {
	n := newNode(t)
	config, path := n.logged(t, "DEBUG")
	var calls sync.WaitGroup
	const count = 20
	for range count {
		calls.Go(func() { runPlugin(t, config, append(env("DEL", ""), "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAME=p")...) })
	}
	calls.Wait()
	lines := readLines(t, path)
	if len(lines) != count {
		t.Fatalf("%d lines, want %d", len(lines), count)
	}
	for _, l := range lines {
		if !strings.HasPrefix(l, "time=") || strings.Count(l, "msg=DEL") != 1 || !strings.HasSuffix(l, `away"`) {
			t.Errorf("line %q", l)
		}
	}
}

// TestLogField: a runtime cannot make a second line, or a second field.
func TestLogField(t *testing.T) {
	for value, want := range map[string]string{
		"":                        "",
		"plain/value-1":           " k=plain/value-1",
		"two words":               ` k="two words"`,
		"line\nlevel=INFO":        ` k="line\nlevel=INFO"`,
		`quo"te`:                  ` k="quo\"te"`,
		"µ":                       ` k="µ"`,
		"\xff":                    ` k="\xff"`,
		strings.Repeat("x", 1100): " k=" + strings.Repeat("x", 1024) + "...",
	} {
		if got := string(field(nil, "k", value)); got != want {
			t.Errorf("field %.20q: %.60s, want %.60s", value, got, want)
		}
	}
	l := call{req: cniapi.Request{Command: "ADD"}, started: time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.FixedZone("", 3600)), duration: 1234567}
	if got, want := string(l.line(info, true)), "time=2026-01-02T02:04:05.006Z level=INFO msg=ADD duration=1.235ms\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
