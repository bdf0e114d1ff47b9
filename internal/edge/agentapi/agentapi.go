// Package agentapi is how the person's tool, `fairway`, asks the agent of the
// node it is on: HTTP with JSON on a unix socket that only root may use.
//
//	GET /v1/plan   what the agent would change in the kernel now, and why
//
// It only reads: nothing that is asked here changes anything. [Serve] answers
// each request in a goroutine of its own and ends all of them with its context.
// A [Client] holds no connection and is safe for concurrent use.
package agentapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultSocket is where an agent listens that is told nothing.
const DefaultSocket = "/run/fairway/agent.sock"

// Plan is the node's kernel as it is, as it should be, and what lies between.
type Plan struct {
	Changes []Change `json:"changes"` // in the order in which they would be made
	Desired string   `json:"desired"` // a line for each object, as the agent renders them
	Actual  string   `json:"actual"`
}

// Change is one step.
type Change struct {
	Verb string `json:"verb"` // add, replace or remove
	Key  string `json:"key"`
	Why  string `json:"why"`
	Text string `json:"text"` // all of it, for a person
}

// ErrNoAgent says that no agent listens on the socket.
var ErrNoAgent = errors.New("no agent answers")

// maxAnswer bounds an answer, in bytes: a full node has some thousand objects of
// a hundred bytes each.
const maxAnswer = 64 << 20

// Serve answers on the socket with what plan says, until ctx ends.
func Serve(ctx context.Context, socket string, plan func(context.Context) (Plan, error)) error {
	ln, err := listen(socket)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/plan", func(w http.ResponseWriter, r *http.Request) {
		p, err := plan(r.Context())
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(p) // whoever asked is gone
	})
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	if err := s.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", socket, err)
	}
	return nil
}

// listen makes the socket, in the place of one that was left behind. The umask
// is of the process, so the mode is set afterwards: the directory is the
// agent's own and closed to others.
func listen(socket string) (net.Listener, error) {
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove stale socket: %w", err)
	}
	ln, err := net.Listen("unix", socket)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("protect socket: %w", err), ln.Close())
	}
	return ln, nil
}

// Client asks an agent.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient asks the agent that listens on the socket.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

// Plan asks for the plan. [ErrNoAgent] if nobody listens.
func (c *Client) Plan(ctx context.Context) (Plan, error) {
	var p Plan
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent/v1/plan", nil)
	if err != nil {
		return p, err
	}
	resp, err := c.http.Do(req)
	if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return p, fmt.Errorf("%w on %s: is fairway-agent running on this node?", ErrNoAgent, c.socket)
	}
	if err != nil {
		return p, fmt.Errorf("ask the agent: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return p, fmt.Errorf("read the agent's answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return p, fmt.Errorf("ask the agent: %s: %s", resp.Status, body)
	}
	if err := json.Unmarshal(body, &p); err != nil {
		return p, fmt.Errorf("read the agent's answer: %w", err)
	}
	return p, nil
}
