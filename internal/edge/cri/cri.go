package cri

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"time"
)

// Timeout bounds [Client.Sandboxes]. A runtime answers from its memory, within
// milliseconds; one that has just been started on a busy node may need seconds.
const Timeout = 10 * time.Second

// listMethod is the path of the gRPC call: package, service and method of the
// CRI's api.proto.
const listMethod = "/runtime.v1.RuntimeService/ListPodSandbox"

const (
	// maxHeader bounds the answer's headers and trailers, in bytes. The longest
	// is the text of an error.
	maxHeader = 64 << 10
	// window is how much of an answer may be under way, in bytes. net/http's own
	// is 4 MiB; a list of 250 sandboxes has some 400 KB.
	window = 256 << 10
)

// Sandbox is one pod sandbox, as the runtime knows it.
type Sandbox struct {
	ID           string // the CNI container ID; never empty
	PodName      string
	PodNamespace string
	PodUID       string
	Ready        bool      // false: it has stopped, or the runtime does not know
	CreatedAt    time.Time // UTC; the zero value where the runtime does not say
}

// Client asks one container runtime.
type Client struct {
	socket    string
	timeout   time.Duration
	transport *http.Transport // makes connections, keeps none
}

// Open makes a client of the runtime that listens at the unix socket with that
// path, such as /run/containerd/containerd.sock. It does not connect: whether the
// runtime is there, each call of [Client.Sandboxes] says for itself.
func Open(socket string) *Client {
	var h2c http.Protocols
	h2c.SetUnencryptedHTTP2(true)
	return &Client{
		socket:  socket,
		timeout: Timeout,
		transport: &http.Transport{
			Protocols:              &h2c,
			DisableCompression:     true,
			MaxResponseHeaderBytes: maxHeader,
			HTTP2:                  &http.HTTP2Config{MaxReceiveBufferPerConnection: window, MaxReceiveBufferPerStream: window},
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, "unix", socket)
			},
		},
	}
}

// Sandboxes lists every pod sandbox of the runtime, those of pods with host
// network and those that have stopped too, in the runtime's order. Read the
// package comment before taking an ID that is missing for a container that is
// gone.
//
// Errors: [ErrAway]; context.DeadlineExceeded where the runtime takes longer than
// [Timeout]; ctx's own; and others where it refuses, or what answers is no
// container runtime. Each names the socket.
func (c *Client) Sandboxes(ctx context.Context) ([]Sandbox, error) {
	limited, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	list, err := c.list(limited)
	switch {
	case err == nil:
		return list, nil
	case ctx.Err() != nil:
		err = ctx.Err()
	case limited.Err() != nil:
		err = fmt.Errorf("no answer within %v: %w; check the runtime's log", c.timeout, limited.Err())
	}
	return nil, fmt.Errorf("list pod sandboxes of the container runtime at %s: %w", c.socket, err)
}

func (c *Client) list(ctx context.Context) ([]Sandbox, error) {
	// The name goes into the request and is looked up by nobody.
	conn, err := c.transport.NewClientConn(ctx, "http", "localhost:80")
	if err != nil {
		return nil, explainDial(c.socket, err)
	}
	defer conn.Close()
	// A ListPodSandboxRequest without filter has no bytes: what is left is the
	// gRPC prefix, "not compressed" and the length 0.
	body := bytes.NewReader(make([]byte, prefixLen))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://localhost"+listMethod, body)
	if err != nil {
		return nil, err
	}
	req.Header = http.Header{"Content-Type": {contentType}, "Te": {"trailers"}, "User-Agent": {"fairway"}}
	resp, err := conn.RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("%w; %s", err, checkSocket)
	}
	defer resp.Body.Close()
	return readAnswer(resp)
}
