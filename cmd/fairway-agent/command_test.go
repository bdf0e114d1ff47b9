package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairway-cni/fairway/internal/core/ipam"
	"github.com/fairway-cni/fairway/internal/core/vpc"
	"github.com/fairway-cni/fairway/internal/edge/store"
)

// call runs the program's command line.
func call(args ...string) (string, error) {
	var out bytes.Buffer
	cmd := command()
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	err := cmd.Execute()
	return out.String(), err
}

func TestWrongUsage(t *testing.T) {
	for _, tt := range []struct{ line, want string }{
		{"--colour", "unknown flag: --colour"},
		{"start", `no command "start"`},
		{"config now", "fairway-agent config takes no arguments"},
		{"config -o yaml", `--output "yaml": must be text or json`},
		{"config --max-pods x", `--max-pods "x"`},
		{"records", ""},
		{"records drop", `no command "drop"`},
		{"records remove", "takes one argument"},
		{"records list --state-dir /absent/dir", `--state-dir "/absent/dir": is not there`},
		{"max-pods --type m5.largest", `--type "m5.largest": is not known; of m5 there are m5.12xlarge`},
		{"max-pods --type huge", "must be as in m5.large"},
		{"max-pods --type m5.large --reserved-enis 4", "--reserved-enis 4: must be from 0 to 3"},
		{"max-pods --type m5.large --reserved-enis=-1", "--reserved-enis -1"},
		{"max-pods --type t2.small --prefixes", "ENIs of t2.small cannot have prefixes"},
	} {
		out, err := call(strings.Fields(tt.line)...)
		if tt.want == "" {
			if err != nil || !strings.Contains(out, "Usage:") {
				t.Errorf("%s: %v, %s", tt.line, err, out)
			}
		} else if !errors.Is(err, errUsage) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want one of usage with %q", tt.line, err, tt.want)
		}
	}
}

func TestMaxPods(t *testing.T) {
	limits, _ := vpc.LimitsOf("m5.large") // 3 ENIs of 10 addresses
	for _, tt := range []struct {
		args string
		want int
	}{
		{"", 3*9 + 2},
		{"--reserved-enis 1", 2*9 + 2},
		{"--prefixes", ipam.MaxPodsOf("m5.large", limits, 3, true)},
		{"--prefixes --reserved-enis 2", ipam.MaxPodsOf("m5.large", limits, 1, true)},
	} {
		out, err := call(append([]string{"max-pods", "--type", "m5.large"}, strings.Fields(tt.args)...)...)
		if err != nil || out != strconv.Itoa(tt.want)+"\n" {
			t.Errorf("max-pods %s: %q, %v; want %d", tt.args, out, err, tt.want)
		}
	}
}

// putRecords fills a directory as an agent does.
func putRecords(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	s, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	created := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, r := range []store.Record{
		{Addr: netip.MustParseAddr("10.0.1.5"), ENI: "eni-1", ContainerID: "c1", IfName: "eth0", PodName: "web", PodNamespace: "shop", CreatedAt: created},
		{Addr: netip.MustParseAddr("10.0.1.6"), ENI: "eni-1", ContainerID: "c2", IfName: "eth0", CreatedAt: created, ReleasedAt: created.Add(time.Hour)},
		{Addr: netip.MustParseAddr("10.0.1.8"), ENI: "eni-1", ContainerID: "c3", IfName: "eth0", Network: "fairway", CreatedAt: created},
	} {
		if err := s.Put(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "10.0.1.7"), []byte("{"), 0o600), s.Close()); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestRecords(t *testing.T) {
	dir := putRecords(t)
	out, err := call("records", "list", "--state-dir", dir)
	var bad *store.BadRecordsError
	if !errors.As(err, &bad) || errors.Is(err, errUsage) {
		t.Errorf("list: %v; want the unreadable record to be an error", err)
	}
	for _, line := range []string{
		`ADDRESS +STATE +SINCE +ENI +POD +CONTAINER +INTERFACE`,
		`10\.0\.1\.5 +held +2026-01-02T03:04:05Z +eni-1 +shop/web +c1 +eth0`,
		`10\.0\.1\.6 +released +2026-01-02T04:04:05Z +eni-1 +- +c2 +eth0`,
		`10\.0\.1\.7 +unreadable: 10\.0\.1\.7: .*`,
	} {
		if !regexp.MustCompile(`(?m)^` + line + `$`).MatchString(out) {
			t.Errorf("list lacks %s:\n%s", line, out)
		}
	}

	if out, err := call("records", "remove", "10.0.1.7", "--state-dir", dir); err != nil || out != "" {
		t.Errorf("remove: %q, %v", out, err)
	}
	if _, err := call("records", "remove", "web", "--state-dir", dir); !errors.Is(err, errUsage) {
		t.Errorf("remove web: %v", err)
	}
	// The directory may be named by the agent's settings file too.
	file := writeFile(t, "state-dir: "+dir+"\n")
	if out, err := call("records", "downgrade", "--config", file); err != nil || out != "records rewritten: 1\n" {
		t.Errorf("downgrade: %q, %v", out, err)
	}
	out, err = call("records", "list", "-o", "json", "--config", file)
	var list []map[string]any
	if err := errors.Join(err, json.Unmarshal([]byte(out), &list)); err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	if len(list) != 3 || list[0]["addr"] != "10.0.1.5" || list[0]["podName"] != "web" || list[2]["network"] != nil {
		t.Errorf("%v", list)
	}
}

func TestRecordsOfARunningAgent(t *testing.T) {
	dir := putRecords(t)
	s, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, args := range [][]string{{"list"}, {"remove", "10.0.1.5"}, {"downgrade"}} {
		_, err := call(append(append([]string{"records"}, args...), "--state-dir", dir)...)
		if !errors.Is(err, store.ErrLocked) || !strings.Contains(err.Error(), "stop fairway-agent first") {
			t.Errorf("records %s: %v", args[0], err)
		}
	}
}

// TestLogRotation: a rename and a SIGHUP make a new file at the next line, and
// no line is lost.
func TestLogRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log", "agent.log")
	s := defaults()
	s.logFile, s.logLevel = path, "WARN"
	log, done, err := newLog(s)
	if err != nil {
		t.Fatal(err)
	}
	log.Info("quiet")
	log.Warn("one")
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	wantLines(t, path, "one")
	if err := done(); err != nil {
		t.Fatal(err)
	}
	if log, done, err = newLog(s); err != nil { // a restart appends
		t.Fatal(err)
	}
	log.Error("two")
	wantLines(t, path, "one", "two")
	if err := done(); err != nil {
		t.Fatal(err)
	}

	hangup := make(chan os.Signal, 1)
	f, err := openLog(path)
	if err != nil {
		t.Fatal(err)
	}
	var complaints bytes.Buffer
	l := &logFile{path: path, hangup: hangup, complain: &complaints, file: f}
	lines := slog.New(slog.NewTextHandler(l, nil))
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	lines.Info("three")
	wantLines(t, path+".1", "one", "two", "three")
	hangup <- syscall.SIGHUP
	lines.Info("four")
	wantLines(t, path+".1", "one", "two", "three")
	wantLines(t, path, "four")
	if complaints.Len() > 0 {
		t.Error(complaints.String())
	}

	l.path = filepath.Join(path, "no-directory")
	hangup <- syscall.SIGHUP
	lines.Info("five")
	wantLines(t, path, "four", "five")
	if !strings.Contains(complaints.String(), "open log file again") {
		t.Errorf("complaints: %q", complaints.String())
	}
	if err := l.close(); err != nil {
		t.Error(err)
	}
}

func wantLines(t *testing.T, path string, messages ...string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(text)) {
		_, msg, _ := strings.Cut(strings.TrimSpace(line), "msg=")
		got = append(got, msg)
	}
	if strings.Join(got, " ") != strings.Join(messages, " ") {
		t.Errorf("%s has %q, want %q", path, got, messages)
	}
}

func TestLogFileThatCannotBe(t *testing.T) {
	s := defaults()
	s.logFile = t.TempDir() // a directory
	if _, _, err := newLog(s); err == nil || !strings.Contains(err.Error(), "open log file") {
		t.Errorf("%v", err)
	}
}
