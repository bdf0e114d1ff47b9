package agentapi

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// serve answers on a socket until the test ends.
func serve(t *testing.T, a Answers) *Client {
	t.Helper()
	dir, err := os.MkdirTemp("", "fairway") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "agent.sock")
	if err := os.WriteFile(socket, nil, 0o666); err != nil { // what an agent that was killed leaves
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, socket, a) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	c := NewClient(socket)
	for c.ask(t.Context(), "/ready", new(bool)) != nil {
		if t.Context().Err() != nil {
			t.Fatal("the server has not begun")
		}
	}
	info, err := os.Stat(socket)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o600 {
		t.Errorf("mode of the socket %v, want 0600", got)
	}
	return c
}

func ready() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("true")) })
	return mux
}

func TestServe(t *testing.T) {
	plan := Plan{Changes: []Change{{Verb: "add", Key: "rule 20", Why: "missing", Text: "+ rule 20"}}, Desired: "a\n", Actual: "b\n"}
	status := Status{Node: Node{InstanceID: "i-1"}, Pods: []Pod{{Name: "p", Address: "10.0.0.5"}}}
	c := serve(t, Answers{
		Plan:   func(context.Context) (Plan, error) { return plan, nil },
		Status: func(context.Context) (Status, error) { return status, nil },
		Other:  ready(),
	})
	gotPlan, err := c.Plan(t.Context())
	if d := cmp.Diff(plan, gotPlan); err != nil || d != "" {
		t.Errorf("plan: %v (-want +got):\n%s", err, d)
	}
	gotStatus, err := c.Status(t.Context())
	if d := cmp.Diff(status, gotStatus); err != nil || d != "" {
		t.Errorf("status: %v (-want +got):\n%s", err, d)
	}
}

func TestServeFails(t *testing.T) {
	c := serve(t, Answers{
		Plan:   func(context.Context) (Plan, error) { return Plan{}, errors.New("the kernel says no") },
		Status: func(context.Context) (Status, error) { return Status{}, nil },
		Other:  ready(),
	})
	if _, err := c.Plan(t.Context()); err == nil || !strings.HasSuffix(err.Error(), "500 Internal Server Error: the kernel says no") {
		t.Errorf("plan: %v, want the agent's words", err)
	}
	if err := c.ask(t.Context(), "/v1/later", new(Plan)); err == nil || !strings.Contains(err.Error(), "another release") {
		t.Errorf("a path that this agent does not have: %v", err)
	}
	if _, err := NewClient(filepath.Join(t.TempDir(), "none")).Status(t.Context()); !errors.Is(err, ErrNoAgent) {
		t.Errorf("no socket: %v, want ErrNoAgent", err)
	}
	file := filepath.Join(t.TempDir(), "left")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewClient(file).Status(t.Context()); !errors.Is(err, ErrNoAgent) {
		t.Errorf("a socket that nobody listens on: %v, want ErrNoAgent", err)
	}
}

// TestListenRefuses: what is no socket, and not empty, is not taken away.
func TestListenRefuses(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "full", "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(dir, "full"), filepath.Join(dir, "no", "such", "dir.sock")} {
		if ln, err := Listen(path); err == nil {
			ln.Close()
			t.Errorf("%s: no error", path)
		}
	}
}
