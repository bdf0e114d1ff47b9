package world

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
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNotRunning says that no lab answers at the place where it should.
var ErrNotRunning = errors.New("no lab of this name is running")

// A running lab listens on lab.sock in its directory, root only:
//
//	GET  /status   what it is now, as JSON
//	POST /stop     ends it
//	     /ec2      its EC2 Query API
//	GET  /objects  what in it has a name
//	POST /settle   returns when the fabric is as EC2 says
//	POST /flowlog  the flow records since the last time
//	GET  /capture  what crosses an ENI, as a pcap file
//	GET  /calls    the calls of its EC2 Query API
//	GET  /snapshot all that its EC2 holds, as JSON
const controlSocket = "lab.sock"

// maxStatus bounds the answer of a lab, in bytes.
const maxStatus = 64 << 20

// Serve answers on the lab's control socket until ctx ends or someone asks the
// lab to stop; it does not close the lab. It calls listening once it can be
// asked.
func (l *Lab) Serve(ctx context.Context, listening func()) error {
	path := filepath.Join(l.cfg.Dir, controlSocket)
	// A leftover: nobody listens on it, since the lock is ours.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove stale control socket: %w", err)
	}
	// The directory is 0700, so nobody but root gets to the socket even
	// before the chmod.
	ln, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("listen on control socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return errors.Join(fmt.Errorf("protect control socket: %w", err), ln.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		s, err := l.Status(r.Context(), os.Getpid())
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(s); err != nil {
			l.cfg.Log.Error("answer status", "error", err)
		}
	})
	mux.HandleFunc("POST /settle", l.settle)
	mux.HandleFunc("POST /stop", func(http.ResponseWriter, *http.Request) { cancel() })
	// The Query protocol has one path, "/".
	mux.HandleFunc("/ec2", func(w http.ResponseWriter, r *http.Request) {
		r.URL.Path = "/"
		l.cloud.Administrator().ServeHTTP(w, r)
	})
	l.faultRoutes(mux)
	l.objectRoutes(mux)
	l.flowLogRoutes(mux)
	l.captureRoutes(mux)
	l.callRoutes(mux)
	l.snapshotRoutes(mux)
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	listening()
	if err := s.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve control socket: %w", err)
	}
	return nil
}

// writeJSON answers a control request.
func (l *Lab) writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		l.cfg.Log.Error("answer control request", "error", err)
	}
}

// Remote is a lab that runs in another process.
type Remote struct {
	dir    string
	client *http.Client
}

// Connect gives the lab whose state is in dir. It does not ask whether it runs.
func Connect(dir string) *Remote {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(dir, controlSocket))
	}
	return &Remote{dir: dir, client: &http.Client{Transport: &http.Transport{DialContext: dial}}}
}

// Status asks the lab; [ErrNotRunning] if there is none.
func (r *Remote) Status(ctx context.Context) (Status, error) {
	var s Status
	b, err := r.call(ctx, http.MethodGet, "/status")
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("read status: %w", err)
	}
	return s, nil
}

// Down ends the lab, and waits until all of it is gone. A lab that was killed,
// or one that does not answer, leaves things behind, which it removes.
func (r *Remote) Down(ctx context.Context, name string) error {
	if _, err := os.Stat(r.dir); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s", ErrNotRunning, name)
	}
	lock, err := r.stop(ctx)
	if lock == nil || err != nil {
		return err
	}
	return sweep(lock, r.dir, name)
}

// sweep removes what is left of a lab whose lock is held, and gives it back.
func sweep(lock *os.File, dir, name string) error {
	cgroup, err := Cgroup(name)
	if err == nil {
		err = reap(dir, cgroup)
	}
	return errors.Join(err, lock.Close())
}

// Sweep removes what a lab of this name left behind, unless it is running: then
// it does nothing.
func Sweep(name string) error {
	lock, err := takeLock(Dir(name))
	if errors.Is(err, ErrRunning) {
		return nil
	}
	if err != nil {
		return err
	}
	return sweep(lock, Dir(name), name)
}

// stop asks the lab to end until its lock can be had: its process is gone. It
// gives the lock; nil where nothing of the lab is left. It asks more than once,
// as a lab that is starting does not listen yet, and one that is dying breaks off.
func (r *Remote) stop(ctx context.Context) (*os.File, error) {
	for {
		_, refused := r.call(ctx, http.MethodPost, "/stop")
		if _, err := os.Stat(r.dir); errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		lock, err := takeLock(r.dir)
		if err == nil || !errors.Is(err, ErrRunning) {
			return lock, err
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("wait for the lab to end: %w", ctx.Err()), refused)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// unreachable says why a request came to nothing.
func (r *Remote) unreachable(err error) error {
	if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w (looked in %s); start one with `fairway-lab up`", ErrNotRunning, r.dir)
	}
	return fmt.Errorf("ask the lab: %w", err)
}

func (r *Remote) call(ctx context.Context, method, path string) ([]byte, error) {
	return r.send(ctx, method, path, nil)
}

func (r *Remote) send(ctx context.Context, method, path string, body io.Reader) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://lab"+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, r.unreachable(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxStatus))
	if err != nil {
		return nil, fmt.Errorf("read the lab's answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask the lab: %s: %s", resp.Status, b)
	}
	return b, nil
}
