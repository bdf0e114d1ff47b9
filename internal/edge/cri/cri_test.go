package cri

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// wantError wants an error that has all the fragments, and no list.
func wantError(t *testing.T, list []Sandbox, err error, fragments ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, and a list of %d", len(list))
	}
	if list != nil {
		t.Errorf("a list of %d beside the error %q", len(list), err)
	}
	for _, f := range fragments {
		if !strings.Contains(err.Error(), f) {
			t.Errorf("error %q does not contain %q", err, f)
		}
	}
}

// many are n sandboxes as kubelet makes them, and as they are expected.
func many(n int) (items []*runtime.PodSandbox, want []Sandbox) {
	for i := range n {
		id, name, uid := fmt.Sprintf("%064x", i), fmt.Sprintf("web-%d", i), fmt.Sprintf("%08d-0000-4000-8000-000000000000", i)
		state := runtime.PodSandboxState(i % 2)
		at := time.Date(2026, 1, 2, 3, 4, i, 567, time.UTC)
		items = append(items, &runtime.PodSandbox{
			Id:       id,
			Metadata: &runtime.PodSandboxMetadata{Name: name, Namespace: "shop", Uid: uid, Attempt: 3},
			State:    state, CreatedAt: at.UnixNano(),
			Labels:         map[string]string{"io.kubernetes.pod.name": name, "io.kubernetes.pod.uid": uid},
			Annotations:    map[string]string{"kubernetes.io/config.source": "api", "long": strings.Repeat("x", 1000)},
			RuntimeHandler: "runc",
		})
		want = append(want, Sandbox{ID: id, PodName: name, PodNamespace: "shop", PodUID: uid,
			Ready: state == runtime.PodSandboxState_SANDBOX_READY, CreatedAt: at})
	}
	return items, want
}

func TestSandboxes(t *testing.T) {
	thousands, wantThousands := many(4000)
	tests := []struct {
		name  string
		items []*runtime.PodSandbox
		want  []Sandbox
	}{
		{"none", nil, nil},
		{"ready", []*runtime.PodSandbox{{Id: "a", Metadata: &runtime.PodSandboxMetadata{Name: "n", Namespace: "ns", Uid: "u"}, CreatedAt: 1}},
			[]Sandbox{{ID: "a", PodName: "n", PodNamespace: "ns", PodUID: "u", Ready: true, CreatedAt: time.Unix(0, 1).UTC()}}},
		{"not ready", []*runtime.PodSandbox{{Id: "a", State: runtime.PodSandboxState_SANDBOX_NOTREADY, CreatedAt: 1}},
			[]Sandbox{{ID: "a", CreatedAt: time.Unix(0, 1).UTC()}}},
		{"state of a later CRI", []*runtime.PodSandbox{{Id: "a", State: 7}}, []Sandbox{{ID: "a"}}},
		{"no time, and one before 1970", []*runtime.PodSandbox{{Id: "a"}, {Id: "b", CreatedAt: -1}}, []Sandbox{{ID: "a", Ready: true}, {ID: "b", Ready: true}}},
		{"more than the windows of HTTP/2", thousands, wantThousands},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "s")
			serve(t, socket, having(tt.items...))
			got, err := Open(socket).Sandboxes(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestRestart is a runtime that comes, goes and comes: the client needs nothing,
// and keeps no connection to one that waits for its own to end.
func TestRestart(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	c := Open(socket)
	list, err := c.Sandboxes(t.Context())
	if wantError(t, list, err, socket); !errors.Is(err, ErrAway) {
		t.Errorf("before the start: %v", err)
	}
	for run := range 2 {
		id := fmt.Sprint("run", run)
		l, stop := serve(t, socket, having(&runtime.PodSandbox{Id: id}))
		for call := range 3 {
			list, err := c.Sandboxes(t.Context())
			if err != nil || len(list) != 1 || list[0].ID != id {
				t.Fatalf("run %d, call %d: %v, %v", run, call, list, err)
			}
			if n := l.wait(call + 1); n != call+1 {
				t.Errorf("run %d: %d connections for %d calls", run, n, call+1)
			}
		}
		stop()
		if _, err := c.Sandboxes(t.Context()); !errors.Is(err, ErrAway) {
			t.Errorf("after the stop of run %d: %v", run, err)
		}
	}
}

func TestAway(t *testing.T) {
	dir := t.TempDir()
	file, left := filepath.Join(dir, "file"), filepath.Join(dir, "left")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: left})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	tests := []struct {
		name, socket string
		away         bool
		want         string
	}{
		{"nothing there", filepath.Join(dir, "none"), true, "check that the runtime runs"},
		{"below a file", filepath.Join(file, "s"), true, "check that the runtime runs"},
		{"left by a runtime that died", left, true, "connection refused"},
		{"a file", file, true, "that is no socket"},
		{"a directory", dir, true, "that is no socket"},
		{"a path that no socket can have", "/" + strings.Repeat("x", 120), false, "invalid argument"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			list, err := Open(tt.socket).Sandboxes(t.Context())
			wantError(t, list, err, tt.socket, tt.want)
			if errors.Is(err, ErrAway) != tt.away {
				t.Errorf("error %q is ErrAway: %v", err, !tt.away)
			}
		})
	}
}

// TestForbidden: root, who runs the tests, may connect anywhere.
func TestForbidden(t *testing.T) {
	err := explainDial("/run/s", &net.OpError{Op: "dial", Net: "unix", Err: os.NewSyscallError("connect", syscall.EACCES)})
	wantError(t, nil, err, "permission denied", "run the agent as root")
	if errors.Is(err, ErrAway) {
		t.Errorf("a runtime that listens is away: %v", err)
	}
}

// TestStatus: an error of the runtime's is told in its words, and is no list.
func TestStatus(t *testing.T) {
	big, _ := many(20000)
	huge := &runtime.PodSandbox{Id: "a", Annotations: map[string]string{"x": strings.Repeat("x", maxItem)}}
	tests := []struct {
		name    string
		service []lister
		want    []string
	}{
		{"no CRI", nil, []string{"Unimplemented", "unknown service runtime.v1.RuntimeService", "CRI plugin"}},
		{"unavailable", []lister{refusing(status.Error(codes.Unavailable, "100% of \"größe\"\nis used"))},
			[]string{"Unavailable", `"100% of \"größe\"\nis used"`}},
		{"starting", []lister{refusing(errors.New("server is not initialized yet"))}, []string{"Unknown", "server is not initialized yet"}},
		{"code of a later gRPC", []lister{refusing(status.Error(99, "x"))}, []string{"status 99"}},
		{"long text", []lister{refusing(status.Error(codes.Internal, strings.Repeat("x", 5000)))}, []string{`xxx..."`}},
		{"too long a list", []lister{having(big...)}, []string{"at most 16777216 are read"}},
		{"too long a sandbox", []lister{having(huge)}, []string{"at most 2097152 are read"}},
		{"no ID", []lister{having(&runtime.PodSandbox{})}, []string{"sandbox 1 of the list: it has no ID"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "s")
			serve(t, socket, tt.service...)
			list, err := Open(socket).Sandboxes(t.Context())
			wantError(t, list, err, append(tt.want, socket)...)
			if errors.Is(err, ErrAway) {
				t.Errorf("a runtime that answers is away: %v", err)
			}
			if len(err.Error()) > 1000 {
				t.Errorf("error has %d bytes", len(err.Error()))
			}
		})
	}
}

// TestHang: whatever a runtime does not do, the call ends, and what it had begun
// there too.
func TestHang(t *testing.T) {
	ended := make(chan struct{}, 2)
	hang := lister{list: func(ctx context.Context, _ *runtime.ListPodSandboxRequest) (*runtime.ListPodSandboxResponse, error) {
		<-ctx.Done()
		ended <- struct{}{}
		return nil, ctx.Err()
	}}
	slow := filepath.Join(t.TempDir(), "s")
	serve(t, slow, hang)

	silent := filepath.Join(t.TempDir(), "s")
	l := listen(t, silent)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			// Reads until the client goes away, and says nothing.
			io.Copy(io.Discard, conn)
			conn.Close()
		}
	}()

	deaf := filepath.Join(t.TempDir(), "s")
	listen(t, deaf)

	half := serveHTTP(t, true, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.Write([]byte{0, 0, 0, 1, 0, 0x0a})
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})

	for _, tt := range []struct{ name, socket string }{
		{"does not answer", slow}, {"says nothing", silent}, {"does not accept", deaf}, {"stops in the middle", half},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := Open(tt.socket)
			c.timeout = 50 * time.Millisecond
			list, err := c.Sandboxes(t.Context())
			wantError(t, list, err, tt.socket, "no answer within 50ms", "check the runtime's log")
			if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrAway) {
				t.Errorf("error is %v", err)
			}

			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			list, err = Open(tt.socket).Sandboxes(ctx)
			wantError(t, list, err, tt.socket)
			if !errors.Is(err, context.Canceled) {
				t.Errorf("error of a call that was called off: %v", err)
			}
		})
	}
	<-ended
	if n := l.wait(1); n < 1 {
		t.Errorf("%d connections", n)
	}
}

// frame is a gRPC message as it stands in the stream.
func frame(message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
}

// TestNoRuntime is what else may listen at a socket, or answer wrongly.
func TestNoRuntime(t *testing.T) {
	one := frame([]byte{0x0a, 3, 0x0a, 1, 'a'})
	reply := func(trailer http.Header, body []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", contentType)
			w.WriteHeader(http.StatusOK)
			w.Write(body)
			for k, v := range trailer {
				w.Header()[http.TrailerPrefix+k] = v
			}
		}
	}
	ok := http.Header{"Grpc-Status": {"0"}}
	tests := []struct {
		name    string
		http1   bool
		handler http.HandlerFunc
		want    []string // none: a list
	}{
		{"as it should be", false, reply(ok, one), nil},
		{"HTTP/1", true, http.NotFound, []string{"CRI socket"}},
		{"another HTTP/2", false, http.NotFound, []string{"does not speak gRPC", "status 404", `"text/plain`, "CRI socket"}},
		{"gRPC behind a proxy that fails", false, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", contentType)
			w.WriteHeader(http.StatusBadGateway)
		}, []string{"status 502"}},
		{"no status", false, reply(nil, one), []string{`gRPC status "", which is none`}},
		{"no number for status", false, reply(http.Header{"Grpc-Status": {"-1"}}, one), []string{`gRPC status "-1"`}},
		{"list and an error", false, reply(http.Header{"Grpc-Status": {"8"}, "Grpc-Message": {"%zz"}}, one), []string{"ResourceExhausted", `"%zz"`}},
		{"error without text", false, reply(http.Header{"Grpc-Status": {"14"}}, nil), []string{"Unavailable"}},
		{"success without message", false, reply(ok, nil), []string{"no message"}},
		{"success in the headers", false, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", contentType)
			w.Header().Set("Grpc-Status", "0")
		}, []string{"no message"}},
		{"two messages", false, reply(ok, append(one, one...)), []string{"more than one message"}},
		{"compressed", false, reply(ok, append([]byte{1}, one[1:]...)), []string{"compressed"}},
		{"half a prefix", false, reply(ok, one[:3]), []string{"unexpected EOF"}},
		{"half a message", false, reply(ok, one[:8]), []string{"unexpected EOF"}},
		{"less than announced", false, reply(ok, append([]byte{0, 0, 0, 1, 0}, one[5:]...)), []string{"unexpected EOF"}},
		{"cut off", false, func(w http.ResponseWriter, r *http.Request) {
			reply(nil, one)(w, r)
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, []string{"read answer", "stream error"}},
		{"too long headers", false, func(w http.ResponseWriter, r *http.Request) {
			for i := range 100 {
				w.Header().Set(fmt.Sprint("X-", i), strings.Repeat("x", maxHeader/50))
			}
			reply(ok, one)(w, r)
		}, []string{"connection error"}},
		{"too many", false, reply(ok, frame([]byte(strings.Repeat("\x0a\x03\x0a\x01a", maxSandboxes+1)))), []string{"more than 16384 sandboxes"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			socket := serveHTTP(t, !tt.http1, tt.handler)
			list, err := Open(socket).Sandboxes(t.Context())
			if tt.want != nil {
				wantError(t, list, err, append(tt.want, socket)...)
				if errors.Is(err, ErrAway) || errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("error is %v", err)
				}
				return
			}
			if diff := cmp.Diff([]Sandbox{{ID: "a", Ready: true}}, list); err != nil || diff != "" {
				t.Errorf("error %v, -want +got:\n%s", err, diff)
			}
		})
	}
}

// TestGarbage is bytes that are not even HTTP/2.
func TestGarbage(t *testing.T) {
	for _, garbage := range []string{"", "\x00", "SSH-2.0-x\r\n", strings.Repeat("\xff", 100<<10), "\x00\x00\x00\x04\x00\x00\x00\x00\x00garbage after SETTINGS"} {
		t.Run(short(garbage), func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "s")
			l := listen(t, socket)
			go func() {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				io.WriteString(conn, garbage)
				conn.(*countedConn).Conn.(*net.UnixConn).CloseWrite()
				io.Copy(io.Discard, conn)
				conn.Close()
			}()
			list, err := Open(socket).Sandboxes(t.Context())
			wantError(t, list, err, socket, "CRI socket")
			if errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the end of what was said is not noticed: %v", err)
			}
			l.wait(1)
		})
	}
}
