package cniserver

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/edge/cniapi"
)

// start serves with h until the test ends, and gives a client.
func start(t *testing.T, h func(context.Context, *Call) Reply) cniapi.Client {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: the agent takes calls from uid 0 only")
	}
	path := filepath.Join(t.TempDir(), "s")
	ln, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, ln, h) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return cniapi.Client{Socket: path, Answer: time.Minute}
}

func refuseAll(t *testing.T) func(context.Context, *Call) Reply {
	return func(_ context.Context, c *Call) Reply {
		t.Errorf("the handler was called with %+v", c)
		return Reply{}
	}
}

func do(t *testing.T, c cniapi.Client, req cniapi.Request, fds ...int) cniapi.Reply {
	t.Helper()
	reply, err := c.Do(req, fds...)
	if err != nil {
		t.Fatal(err)
	}
	return reply
}

func wantError(t *testing.T, err *cniapi.Error, code uint, msg string) {
	t.Helper()
	if err == nil || err.Code != code || !strings.Contains(err.Msg+" "+err.Details, msg) {
		t.Errorf("error %v, want code %d with %q", err, code, msg)
	}
}

const conf = `{"cniVersion":"1.1.0","name":"n","type":"fairway-cni"}`

func openFDs(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

func TestServeFiles(t *testing.T) {
	p, other := newPod(t), newPod(t)
	route := p.socket(t, unix.NETLINK_ROUTE)
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	uts, err := os.Open("/proc/self/ns/uts")
	if err != nil {
		t.Fatal(err)
	}
	defer uts.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	ns, n := int(p.netns.Fd()), int(null.Fd())

	add := cniapi.Request{Command: "ADD", ContainerID: "c", IfName: "eth0", NetNS: p.path, Config: []byte(conf)}
	del := cniapi.Request{Command: "DEL", ContainerID: "c", IfName: "eth0", Config: []byte(conf)}
	start(t, refuseAll(t)) // the runtime's poller has its descriptors now
	tests := []struct {
		name string
		req  cniapi.Request
		fds  []int
		code uint // 0: the handler is called
		msg  string
	}{
		{"right", add, []int{ns, route}, 0, ""},
		{"none", add, nil, 4, "0 file descriptors came with the request, want 2"},
		{"one", add, []int{ns}, 4, "1 file descriptors"},
		{"ten", add, []int{ns, route, n, n, n, n, n, n, n, n}, 4, "10 file descriptors"},
		{"a hundred", add, make([]int, 100), 6, "more than 16 file descriptors"},
		{"no namespace", add, []int{n, route}, 4, "first file descriptor is not a network namespace"},
		{"a namespace of another kind", add, []int{int(uts.Fd()), route}, 4, "first file descriptor is not a network namespace"},
		{"the agent's own namespace", add, []int{int(own.Fd()), route}, 4, "agent's own"},
		{"no socket", add, []int{ns, n}, 4, "second file descriptor is not a netlink socket"},
		{"the wrong order", add, []int{route, ns}, 4, "first file descriptor is not a network namespace"},
		{"another netlink protocol", add, []int{ns, p.socket(t, unix.NETLINK_GENERIC)}, 4, "of protocol 16, not NETLINK_ROUTE"},
		{"a socket of another pod", add, []int{ns, other.socket(t, unix.NETLINK_ROUTE)}, 4, "belongs to another network namespace"},
		{"DEL with files", del, []int{ns, route}, 4, "2 file descriptors came with the request, want 0"},
		{"DEL without", del, nil, 0, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var called int
			var kept *Call // or the garbage collector closes its files
			h := func(_ context.Context, c *Call) Reply {
				called++
				kept = c
				if (c.NetNS != nil) != (len(tt.fds) > 0) || (c.Netlink != nil) != (len(tt.fds) > 0) {
					t.Errorf("files %v, %v, want them to be there: %v", c.NetNS, c.Netlink, len(tt.fds) > 0)
				}
				return Reply{Result: &Result{}}
			}
			before := openFDs(t)
			c := start(t, h)
			reply := do(t, c, tt.req, tt.fds...)
			if tt.code == 0 {
				if reply.Err != nil || called != 1 {
					t.Errorf("reply %+v, handler called %d times", reply, called)
				}
			} else {
				wantError(t, reply.Err, tt.code, tt.msg)
				if called != 0 {
					t.Error("the handler was called")
				}
			}
			// The answer is there a moment before the connection is closed.
			waitFor(t, "the call's descriptors to be closed", func() bool { return openFDs(t) == before+1 }) // the listener
			runtime.KeepAlive(kept)
		})
	}
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		pause := time.NewTimer(time.Millisecond)
		<-pause.C
	}
}

// raw sends bytes as they are and gives the error in the answer, nil if the
// server closed without one.
func raw(t *testing.T, path string, hangUp bool, bytes []byte) *cniapi.Error {
	t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.Write(bytes)
	if hangUp {
		conn.CloseWrite()
	}
	conn.SetReadDeadline(time.Now().Add(time.Minute))
	answer, err := io.ReadAll(conn)
	if len(answer) == 0 {
		return nil
	}
	if err != nil && !errors.Is(err, unix.ECONNRESET) {
		t.Fatal(err)
	}
	n, err := cniapi.Length(answer)
	if err != nil || n != len(answer)-cniapi.HeaderLen {
		t.Fatalf("answer of %d bytes says %d, %v", len(answer), n, err)
	}
	var r reply
	if err := json.Unmarshal(answer[cniapi.HeaderLen:], &r); err != nil {
		t.Fatal(err)
	}
	if r.Exit != 1 {
		t.Errorf("exit %d with error %v", r.Exit, r.Error)
	}
	return r.Error
}

func framed(text string) []byte {
	b := make([]byte, cniapi.HeaderLen)
	cniapi.PutLength(b, len(text))
	return append(b, text...)
}

func TestServeGarbage(t *testing.T) {
	tests := []struct {
		name   string
		hangUp bool
		bytes  []byte
		code   uint // 0: closed without an answer
		msg    string
	}{
		{"nothing", true, nil, 0, ""},
		{"half a length", true, []byte{0, 0}, 6, "read length"},
		{"too large", false, []byte{0, 16, 0, 1}, 6, "1048577"},
		{"another protocol", false, []byte("GET / HTTP/1.1\r\n\r\n"), 6, "not of this protocol"},
		{"cut", true, framed(`{"version":1}`)[:10], 6, "read frame of 13 bytes"},
		{"two frames", false, append(framed(`{"version":1}`), framed(`{"version":1}`)...), 6, "17 bytes follow the frame"},
		{"empty", false, framed(""), 6, "unexpected end of JSON"},
		{"not JSON", false, framed("hello"), 6, "invalid character"},
		{"a wrong type", false, framed(`{"version":"1"}`), 6, "version"},
		{"another version", false, framed(`{"version":2,"command":"ADD"}`), 103, "speaks protocol version 2 and this agent 1"},
		{"no version", false, framed(`{}`), 103, "protocol version 0"},
		{"no command", false, framed(`{"version":1}`), 4, "CNI_COMMAND"},
		{"unknown command", false, framed(`{"version":1,"command":"VERSION"}`), 4, `CNI_COMMAND "VERSION"`},
		{"no configuration", false, framed(`{"version":1,"command":"STATUS"}`), 6, "must be a JSON object"},
		{"configuration null", false, framed(`{"version":1,"command":"STATUS","config":null}`), 6, "must be a JSON object"},
		{"hostile container ID", false, framed(`{"version":1,"command":"DEL","containerID":"../x","ifName":"a/b","config":` + conf + `}`), 4, `CNI_CONTAINERID "../x"`},
		{"all zero", false, make([]byte, 4096), 6, "4092 bytes follow"},
	}
	c := start(t, refuseAll(t))
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := raw(t, c.Socket, tt.hangUp, tt.bytes)
			if tt.code == 0 {
				if got != nil {
					t.Errorf("answer %v to nothing", got)
				}
				return
			}
			wantError(t, got, tt.code, tt.msg)
		})
	}
}

// TestServeShutdown: a call that runs is waited for and learns of the end.
func TestServeShutdown(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: the agent takes calls from uid 0 only")
	}
	path := filepath.Join(t.TempDir(), "s")
	ln, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	running, finish := make(chan bool), make(chan struct{})
	served := make(chan error, 1)
	go func() {
		served <- Serve(ctx, ln, func(ctx context.Context, _ *Call) Reply {
			_, limited := ctx.Deadline()
			running <- limited
			<-ctx.Done()
			<-finish
			return Reply{Err: TryAgainLater("the agent is stopping", "")}
		})
	}()
	replied := make(chan *cniapi.Error, 1)
	go func() {
		r, err := cniapi.Client{Socket: path, Answer: time.Minute}.Do(cniapi.Request{Command: "STATUS", Config: []byte(conf)})
		if err != nil {
			r.Err = &cniapi.Error{Msg: err.Error()}
		}
		replied <- r.Err
	}()
	if !<-running {
		t.Error("the call's context has no deadline")
	}
	cancel()
	waitFor(t, "the socket to go", func() bool { _, err := os.Lstat(path); return err != nil })
	select {
	case err := <-served:
		t.Fatalf("serve returned %v while a call ran", err)
	default:
	}
	close(finish)
	if err := <-served; err != nil {
		t.Errorf("serve: %v", err)
	}
	wantError(t, <-replied, 11, "stopping")
}

// TestServeCallerGone: a call that waits learns that nobody waits for it.
func TestServeCallerGone(t *testing.T) {
	why := make(chan error, 1)
	client := start(t, func(ctx context.Context, _ *Call) Reply {
		<-ctx.Done()
		why <- ctx.Err()
		return Reply{}
	})
	client.Answer = 50 * time.Millisecond // then it closes the connection
	if _, err := client.Do(cniapi.Request{Command: "STATUS", Config: []byte(conf)}); err == nil {
		t.Error("the client had an answer, want it to have given up")
	}
	if err := <-why; !errors.Is(err, context.Canceled) {
		t.Errorf("the call's context ended with %v, want canceled, long before its deadline", err)
	}
}

func TestServeListenerError(t *testing.T) {
	ln, err := Listen(filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	if err := Serve(t.Context(), ln, refuseAll(t)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("serve on a closed listener: %v, want %v", err, net.ErrClosed)
	}
}

// TestServeBound: not more than MaxCalls run at once, and all get their turn.
func TestServeBound(t *testing.T) {
	var mu sync.Mutex
	running, most := 0, 0
	var once sync.Once
	full, finish := make(chan struct{}), make(chan struct{})
	c := start(t, func(context.Context, *Call) Reply {
		mu.Lock()
		running++
		most = max(most, running)
		if running == MaxCalls {
			once.Do(func() { close(full) })
		}
		mu.Unlock()
		<-finish
		mu.Lock()
		running--
		mu.Unlock()
		return Reply{}
	})
	var wg sync.WaitGroup
	errs := make(chan error, MaxCalls+32)
	for range MaxCalls + 32 {
		wg.Go(func() {
			r, err := c.Do(cniapi.Request{Command: "STATUS", Config: []byte(conf)})
			if err == nil && r.Err != nil {
				err = r.Err
			}
			errs <- err
		})
	}
	select {
	case <-full:
	case <-time.After(time.Minute):
		t.Error("never full")
	}
	close(finish)
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
	if most > MaxCalls {
		t.Errorf("%d calls at once, at most %d", most, MaxCalls)
	}
}

func TestServeBadHandler(t *testing.T) {
	p := newPod(t)
	var answer Reply
	c := start(t, func(context.Context, *Call) Reply { return answer })
	req := cniapi.Request{Command: "ADD", ContainerID: "c", IfName: "eth0", NetNS: p.path, Config: []byte(conf)}
	for _, tt := range []struct {
		name  string
		reply Reply
		code  uint
		msg   string
	}{
		{"nothing", Reply{}, 999, "neither result nor error"},
		{"interface out of range", Reply{Result: &Result{IPs: []IP{{Address: prefix("10.0.0.1/32"), Interface: 0}}}}, 999, "on interface 0 of 0"},
		{"no address", Reply{Result: &Result{IPs: []IP{{Interface: NoInterface}}}}, 999, "an address that is none"},
		{"mixed families", Reply{Result: &Result{IPs: []IP{{Address: prefix("10.0.0.1/32"), Gateway: prefix("fe80::1/64").Addr(), Interface: NoInterface}}}}, 999, "other family"},
		{"no destination", Reply{Result: &Result{Routes: []Route{{}}}}, 999, "without a destination"},
		{"too large", Reply{Result: &Result{DNS: DNS{Domain: strings.Repeat("a", cniapi.MaxFrame)}}}, 999, "at most 1048576"},
		{"both", Reply{Result: &Result{}, Err: NoAddress("a", "b")}, 100, "no free address: a b"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			answer = tt.reply
			wantError(t, do(t, c, req, int(p.netns.Fd()), p.socket(t, unix.NETLINK_ROUTE)).Err, tt.code, tt.msg)
		})
	}
}

func TestErrorsHaveCodes(t *testing.T) {
	c := &Call{ContainerID: "c", IfName: "eth0", NetNSPath: "/ns", Network: NetConf{Name: "n"}}
	got := map[uint]string{}
	for _, e := range []*cniapi.Error{TryAgainLater("m", ""), NoAddress("m", ""), InterfaceTaken(c), UnknownContainer(c), InvalidConfig("k", "m"), Unavailable("m", ""), Internal(errors.New("m"))} {
		got[e.Code] = e.Msg
	}
	want := map[uint]string{
		11: "m", 100: "no free address: m", 7: "network configuration: k: m", 50: "m", 999: "m",
		101: `CNI_IFNAME "eth0": the pod in /ns has an interface of that name already, which is not of this network`,
		3:   `container c has no interface "eth0" in network n on this node`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("errors (-want +got):\n%s", diff)
	}
}
