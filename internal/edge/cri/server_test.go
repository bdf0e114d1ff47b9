package cri

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"testing"

	"google.golang.org/grpc"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// lister answers ListPodSandbox, by grpc-go and the CRI's own types: the half of
// the exchange that containerd and CRI-O have too.
type lister struct {
	runtime.UnimplementedRuntimeServiceServer
	list func(context.Context, *runtime.ListPodSandboxRequest) (*runtime.ListPodSandboxResponse, error)
}

func (l lister) ListPodSandbox(ctx context.Context, r *runtime.ListPodSandboxRequest) (*runtime.ListPodSandboxResponse, error) {
	return l.list(ctx, r)
}

// having is a lister of these.
func having(items ...*runtime.PodSandbox) lister {
	return lister{list: func(_ context.Context, r *runtime.ListPodSandboxRequest) (*runtime.ListPodSandboxResponse, error) {
		if r.GetFilter() != nil {
			return nil, fmt.Errorf("asked with the filter %v", r.GetFilter())
		}
		return &runtime.ListPodSandboxResponse{Items: items}, nil
	}}
}

// refusing is a lister with nothing but that error.
func refusing(err error) lister {
	return lister{list: func(context.Context, *runtime.ListPodSandboxRequest) (*runtime.ListPodSandboxResponse, error) {
		return nil, err
	}}
}

// counted is a listener that knows how many of its connections are open.
type counted struct {
	net.Listener
	mu   sync.Mutex
	cond *sync.Cond
	open int
	all  int
}

func listen(t *testing.T, socket string) *counted {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	c := &counted{Listener: l}
	c.cond = sync.NewCond(&c.mu)
	return c
}

func (c *counted) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c.add(1)
	return &countedConn{Conn: conn, closed: sync.OnceFunc(func() { c.add(-1) })}, nil
}

func (c *counted) add(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open += n
	c.all += max(n, 0)
	c.cond.Broadcast()
}

// wait returns how many connections there were, once that many are and none is
// open.
func (c *counted) wait(want int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.open > 0 || c.all < want {
		c.cond.Wait()
	}
	return c.all
}

type countedConn struct {
	net.Conn
	closed func()
}

func (c *countedConn) Close() error {
	c.closed()
	return c.Conn.Close()
}

// serve runs a CRI server at the socket until stop is called or the test ends.
func serve(t *testing.T, socket string, services ...lister) (*counted, func()) {
	t.Helper()
	l := listen(t, socket)
	s := grpc.NewServer()
	for _, service := range services {
		runtime.RegisterRuntimeServiceServer(s, service)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	stop := sync.OnceFunc(func() {
		s.Stop()
		if err := <-done; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return l, stop
}

// serveHTTP runs h, by HTTP/2 without TLS or by HTTP/1, at a socket.
func serveHTTP(t *testing.T, http2 bool, h http.HandlerFunc) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(http2)
	protocols.SetHTTP1(!http2)
	s := &http.Server{Handler: h, Protocols: &protocols, ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan error, 1)
	l := listen(t, socket)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return socket
}
