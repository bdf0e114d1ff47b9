// Package agentapi is how the person's tool, `fairway`, asks the agent of the
// node it is on: HTTP with JSON on a unix socket that only root may use.
//
//	GET /v1/plan     what the agent would change in the kernel now, and why
//	GET /v1/status   what it has, what it wants, and what keeps it from that
//	all else         what the agent adds, such as its profiles
//
// It only reads: nothing that is asked here changes anything. [Serve] answers
// each request in a goroutine of its own and ends all of them with its context.
// A [Client] holds no connection and is safe for concurrent use.
package agentapi

import (
	"bytes"
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

// Answers is what an agent says.
type Answers struct {
	Plan   func(context.Context) (Plan, error)
	Status func(context.Context) (Status, error)
	Other  http.Handler // of all other paths; nil: there are none
}

// Serve answers on the socket until ctx ends.
func Serve(ctx context.Context, socket string, a Answers) error {
	ln, err := Listen(socket)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/plan", answer(a.Plan))
	mux.HandleFunc("GET /v1/status", answer(a.Status))
	if a.Other != nil {
		mux.Handle("/", a.Other)
	}
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	if err := s.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", socket, err)
	}
	return nil
}

// answer writes what f says as JSON.
func answer[T any](f func(context.Context) (T, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := f(r.Context())
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v) // whoever asked is gone
	}
}

// Listen makes a socket that only root may use, in the place of one that was left
// behind. The umask is of the process, so the mode is set afterwards: the directory
// should be the agent's own and closed to others.
func Listen(socket string) (net.Listener, error) {
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
func (c *Client) Plan(ctx context.Context) (p Plan, err error) {
	err = c.ask(ctx, "/v1/plan", &p)
	return p, err
}

// Status asks for the status. [ErrNoAgent] if nobody listens.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	err = c.ask(ctx, "/v1/status", &s)
	return s, err
}

// ask gets a path and reads the answer into v.
func (c *Client) ask(ctx context.Context, path string, v any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent"+path, nil)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w on %s: is fairway-agent running on this node?", ErrNoAgent, c.socket)
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("ask the agent: %w: only root may", err)
	}
	if err != nil {
		return fmt.Errorf("ask the agent: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read the agent's answer: %w", err)
	}
	switch {
	case resp.StatusCode == http.StatusNotFound:
		return fmt.Errorf("ask the agent: it does not know %s: it is of another release than this program", path)
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("ask the agent: %s: %s", resp.Status, bytes.TrimSpace(body))
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("read the agent's answer: %w", err)
	}
	return nil
}
