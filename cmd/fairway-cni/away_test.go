package main

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairway-cni/fairway/internal/edge/cniapi"
	"github.com/fairway-cni/fairway/internal/edge/cniapi/cniserver"
)

// TestDelAway: a DEL without an agent succeeds and is in the spool, whole.
func TestDelAway(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	before := time.Now()
	out := runPlugin(t, n.config("1.0.0"), env("DEL", "/run/netns/x")...)
	wantSuccess(t, out)
	if out.stdout != "" {
		t.Errorf("stdout %q, want nothing", out.stdout)
	}
	files, err := os.ReadDir(n.spool)
	if err != nil || len(files) != 1 || !strings.HasPrefix(files[0].Name(), "c-") {
		t.Fatalf("spool %v, %v, want one file c-*", files, err)
	}
	text, err := os.ReadFile(filepath.Join(n.spool, files[0].Name()))
	if err != nil {
		t.Fatal(err)
	}
	var raw map[string]any
	if err := json.Unmarshal(text, &raw); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	delete(raw, "time")
	want := map[string]any{"version": 1.0, "containerID": "c", "ifName": "eth0", "netns": "/run/netns/x", "network": "fairway"}
	if diff := cmp.Diff(want, raw); diff != "" {
		t.Errorf("spool file (-want +got):\n%s", diff)
	}
	entries, err := cniapi.ReadSpool(n.spool)
	if err != nil || len(entries) != 1 {
		t.Fatalf("read spool: %v, %v", entries, err)
	}
	if at := entries[0].Time; at.Before(before) || at.After(time.Now()) {
		t.Errorf("spooled at %s, not between %s and now", at, before)
	}
}

func TestDelAwayNoSpool(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	if err := os.WriteFile(n.spool, nil, 0o600); err != nil { // a file where the directory should be
		t.Fatal(err)
	}
	e := wantCNIError(t, runPlugin(t, n.config("1.0.0"), env("DEL", "")...), "1.0.0", 11, "could not be left for it")
	if !strings.Contains(e.Msg, n.spool) || !strings.Contains(e.Msg, n.socket) {
		t.Errorf("the error names neither %s nor %s: %s", n.spool, n.socket, e.Msg)
	}
}

// TestDelAgentReturns: an agent that comes back while a DEL tries gets it.
func TestDelAgentReturns(t *testing.T) {
	t.Parallel()
	needRoot(t)
	n := newNode(t)
	called := make(chan *cniserver.Call, 1)
	done := make(chan outcome, 1)
	go func() { done <- runPlugin(t, n.config("1.0.0"), env("DEL", "")...) }()
	n.serve(t, func(_ context.Context, c *cniserver.Call) cniserver.Reply {
		called <- c
		return cniserver.Reply{}
	})
	wantSuccess(t, <-done)
	if len(called) != 1 {
		t.Error("the agent was not asked")
	}
	if _, err := os.Stat(n.spool); err == nil {
		t.Error("a DEL that the agent did is in the spool")
	}
}

func TestOthersAway(t *testing.T) {
	t.Parallel()
	pod := newPod(t)
	n := newNode(t)
	tests := []struct {
		command string
		more    []string
		code    uint
	}{{"ADD", nil, 11}, {"CHECK", []string{`"prevResult":{}`}, 11}, {"STATUS", nil, 50}, {"GC", nil, 11}}
	out := make([]outcome, len(tests))
	var wg sync.WaitGroup
	for i, tt := range tests {
		wg.Go(func() { out[i] = runPlugin(t, n.config("1.1.0", tt.more...), env(tt.command, pod)...) })
	}
	wg.Wait()
	for i, tt := range tests {
		e := wantCNIError(t, out[i], "1.1.0", tt.code, n.socket)
		if !strings.Contains(e.Details, "fairway-agent") {
			t.Errorf("%s: the error does not say what to do: %+v", tt.command, e)
		}
	}
	if _, err := os.Stat(n.spool); err == nil {
		t.Error("something other than a DEL is in the spool")
	}
}

// stuck listens and does with each connection what it is told.
func (n node) stuck(t *testing.T, with func(*net.UnixConn)) {
	t.Helper()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: n.socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := ln.AcceptUnix()
			if err != nil {
				return
			}
			with(conn)
			defer conn.Close()
		}
	}()
	t.Cleanup(func() { ln.Close(); <-done })
}

// TestHangingAgent: one that takes the call and does not answer holds up
// neither a DEL, which is spooled, nor a STATUS for long.
func TestHangingAgent(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.stuck(t, func(*net.UnixConn) {})
	var del, status outcome
	var wg sync.WaitGroup
	wg.Go(func() { del = runPlugin(t, n.config("1.0.0"), env("DEL", "")...) })
	wg.Go(func() { status = runPlugin(t, n.config("1.1.0"), "CNI_COMMAND=STATUS") })
	wg.Wait()
	wantCNIError(t, status, "1.1.0", 50, "time is up")
	wantSuccess(t, del)
	if entries, err := cniapi.ReadSpool(n.spool); err != nil || len(entries) != 1 {
		t.Errorf("spool %v, %v, want one entry", entries, err)
	}
}

func TestGarbageAgent(t *testing.T) {
	t.Parallel()
	pod := newPod(t)
	n := newNode(t)
	n.stuck(t, func(c *net.UnixConn) { c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")) })
	wantCNIError(t, runPlugin(t, n.config("1.0.0"), env("ADD", pod)...), "1.0.0", 6, "not of this protocol")
	wantSuccess(t, runPlugin(t, n.config("1.0.0"), env("DEL", "")...))
	if entries, err := cniapi.ReadSpool(n.spool); err != nil || len(entries) != 1 {
		t.Errorf("spool %v, %v, want the DEL", entries, err)
	}
}

func TestOtherProtocolVersion(t *testing.T) {
	t.Parallel()
	pod := newPod(t)
	n := newNode(t)
	n.stuck(t, func(c *net.UnixConn) {
		text := `{"version":2,"exit":0,"result":{}}`
		header := make([]byte, cniapi.HeaderLen)
		cniapi.PutLength(header, len(text))
		c.Write(append(header, text...))
	})
	wantCNIError(t, runPlugin(t, n.config("1.0.0"), env("ADD", pod)...), "1.0.0", 103, "same release")
}

// TestPeer: the agent refuses a caller that is not root, even where the mode of
// the socket lets it in.
func TestPeer(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.serve(t, func(context.Context, *cniserver.Call) cniserver.Reply {
		t.Error("the handler was called")
		return cniserver.Reply{}
	})
	status := func() outcome {
		cmd := exec.CommandContext(t.Context(), plugin)
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		return runCmd(t, cmd, n.config("1.1.0"), "CNI_COMMAND=STATUS")
	}
	for dir := filepath.Dir(n.socket); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	wantCNIError(t, status(), "1.1.0", 50, "permission denied") // by the socket's mode
	if err := os.Chmod(n.socket, 0o666); err != nil {
		t.Fatal(err)
	}
	wantCNIError(t, status(), "1.1.0", 102, "this one is from uid 65534")
}

// TestStdoutFull: a runtime that is gone is not an agent's success.
func TestStdoutFull(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("needs /dev/full")
	}
	defer full.Close()
	cmd := exec.CommandContext(t.Context(), plugin)
	cmd.Env, cmd.Stdout = []string{"CNI_COMMAND=VERSION"}, full
	if err := cmd.Run(); err == nil || cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("with nowhere to print: %v, want exit 1", err)
	}
}
