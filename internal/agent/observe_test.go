package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairway-cni/fairway/internal/agent/ipamd"
	"github.com/fairway-cni/fairway/internal/core/ipam"
	"github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/internal/core/vpc"
	"github.com/fairway-cni/fairway/internal/edge/agentapi"
	"github.com/fairway-cni/fairway/internal/edge/cniapi"
	"github.com/fairway-cni/fairway/internal/edge/cniapi/cniserver"
	"github.com/fairway-cni/fairway/internal/edge/ec2"
	"github.com/fairway-cni/fairway/internal/edge/metrics"
	"github.com/fairway-cni/fairway/internal/edge/store"
)

// seen is a node loop whose state can be looked at: it has a book with one pod, and
// no kernel.
func seen(t *testing.T) *nodeLoop {
	t.Helper()
	records, err := store.Open(filepath.Join(t.TempDir(), "addresses"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := records.Close(); err != nil {
			t.Error(err)
		}
	})
	limits, _ := vpc.LimitsOf("m5.large")
	cfg := Default()
	cfg.Targets.Prefixes = true
	pool := poolConfig(cfg)
	pool.IMDSOnly = true
	book := ipamd.NewBook(pool, ipamd.Identity{InstanceID: "i-1", InstanceType: "m5.large", Limits: limits}, records, quiet(t), time.Now)
	enis := []vpc.ENI{
		{ID: "eni-0", MAC: eniMAC(0), Primary: netip.MustParseAddr("10.0.1.4"), SubnetID: "subnet-1", Prefixes: prefixes("10.0.1.16/28"),
			Secondary: []netip.Addr{netip.MustParseAddr("10.0.1.7")}},
		{ID: "eni-1", MAC: eniMAC(1), DeviceIndex: 1, Primary: netip.MustParseAddr("10.0.1.5"), SubnetID: "subnet-1"},
	}
	book.SawMetadata(enis, time.Now())
	for _, name := range []string{"web", "gone"} {
		r, err := book.Hold(store.Record{ContainerID: name + "-container", IfName: "eth0", PodName: name, PodNamespace: "default"})
		if err != nil {
			t.Fatal(err)
		}
		if name == "gone" {
			if err := book.Release(ipam.Owner{ContainerID: r.ContainerID, IfName: r.IfName}); err != nil {
				t.Fatal(err)
			}
		}
	}
	n := &nodeState{cfg: cfg, log: quiet(t), book: book,
		devices: map[vpc.MAC]string{eniMAC(0): "ens5"},
		pods:    map[ipam.Owner]node.Attachment{{ContainerID: "web-container", IfName: "eth0"}: {Veth: "fwyweb"}}}
	loop := &nodeLoop{state: n, commands: make(chan func(*nodeState))}
	ended := make(chan struct{})
	go func() {
		for f := range loop.commands {
			f(n)
		}
		close(ended)
	}()
	t.Cleanup(func() { close(loop.commands); <-ended })
	return loop
}

func get(h http.Handler, method, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w
}

// ask reads the answer of a path.
func ask[T any](t *testing.T, h http.Handler, path string) (v T) {
	t.Helper()
	w := get(h, http.MethodGet, path)
	if w.Code != http.StatusOK {
		t.Fatalf("%s: %d %s", path, w.Code, w.Body)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		t.Fatalf("%s: %v in %s", path, err, w.Body)
	}
	return v
}

func TestLoopStatus(t *testing.T) {
	s, err := seen(t).status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(s.ENIs) != 2 || s.ENIs[0].Device != "ens5" || s.ENIs[1].Device != "" {
		t.Errorf("ENIs: %+v, want the first to have a device", s.ENIs)
	}
	if len(s.Pods) != 1 || s.Pods[0].Device != "fwyweb" || s.Pods[0].ENI != "eni-0" || s.Pods[0].Address != "10.0.1.16" {
		t.Errorf("pods: %+v", s.Pods)
	}
	if s.Problems == nil {
		t.Error("nobody has looked for problems")
	}
	p := poolOf(s)
	p.OldestWait = 0
	want := metrics.Pool{ENIs: 2, MaxENIs: 3, Total: 17, Assigned: 1, MaxAddresses: s.Pool.Capacity, Prefixes: 1, Pods: 1,
		Addresses:  map[string]int{"free": 15, "assigned": 1, "cooling": 1, "reserved": 0, "leaving": 0, "arriving": 0, "disputed": 0, "orphaned": 0},
		AssignedOf: map[string]int{"eni-0": 1, "eni-1": 0}, SubnetFree: map[string]int{}}
	if d := cmp.Diff(want, p); d != "" {
		t.Errorf("metrics (-want +got):\n%s", d)
	}
}

func TestPoolOf(t *testing.T) {
	now := time.Unix(1e9, 0)
	p := poolOf(agentapi.Status{
		At:      now,
		ENIs:    []agentapi.ENI{{ID: "a", State: agentapi.Attached, Why: "custom networking"}, {ID: "b", State: agentapi.Attached, Pods: 4}, {ID: "c", State: agentapi.Attaching}, {ID: "d", State: agentapi.Unmanaged}},
		Pods:    []agentapi.Pod{{}, {Lost: true}},
		Waiting: []agentapi.Waiting{{Since: now.Add(-3 * time.Second)}, {Since: now}},
		InFlight: []agentapi.Flight{{Kind: string(ipam.AttachENI)}, {Kind: string(ipam.AssignPrefixes)}, {Kind: string(ipam.DeleteENI)},
			{Kind: string(ipam.TagENI)}},
		Refused: []agentapi.Refused{{}},
		Subnets: []agentapi.Subnet{{ID: "s", Free: 7}, {ID: "t", Free: -1}},
		EC2:     agentapi.EC2{Offline: true},
		Kernel:  agentapi.Kernel{Behind: true},
	})
	p.Addresses = nil
	want := metrics.Pool{ENIs: 1, AssignedOf: map[string]int{"b": 4}, Pods: 2, Lost: 1, Waiting: 2, OldestWait: 3 * time.Second,
		Growing: 2, Shrinking: 1, Blocked: 1, Offline: true, Behind: true, SubnetFree: map[string]int{"s": 7}}
	if d := cmp.Diff(want, p); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func newTestSight(t *testing.T, loop *nodeLoop) *sight {
	cfg := Default()
	cfg.Native.Also = prefixes("192.168.0.0/16")
	return newSight(cfg, quiet(t), loop, metrics.New())
}

// TestIntrospection: the paths and fields that the VPC CNI's has, and who may see
// containers.
func TestIntrospection(t *testing.T) {
	s := newTestSight(t, seen(t))
	open, closed := s.introspection(false), s.rootOnly()
	paths := ask[map[string][]string](t, open, "/")["AvailableCommands"]
	want := []string{"/v1/eni-configs", "/v1/enis", "/v1/ipamd-env-settings", "/v1/networkutils-env-settings", "/v1/status"}
	if !slices.Equal(paths, want) {
		t.Errorf("paths %v, want %v", paths, want)
	}
	for _, path := range paths {
		if w := get(open, http.MethodGet, path); w.Code != http.StatusOK || strings.Contains(w.Body.String(), "-container") {
			t.Errorf("%s: %d, and no container is to be in it:\n%s", path, w.Code, w.Body)
		}
		if w := get(open, http.MethodPost, path); w.Code != http.StatusMethodNotAllowed {
			t.Errorf("POST %s: %d", path, w.Code)
		}
	}
	for path, where := range map[string]struct{ open, closed int }{
		"/debug/pprof/": {404, 200}, "/debug/pprof/cmdline": {404, 200}, "/debug/pprof/heap": {404, 200}, "/v1/pods": {404, 404},
	} {
		if got := get(open, http.MethodGet, path).Code; got != where.open {
			t.Errorf("%s over the network: %d, want %d", path, got, where.open)
		}
		if got := get(closed, http.MethodGet, path).Code; got != where.closed {
			t.Errorf("%s for root: %d, want %d", path, got, where.closed)
		}
	}
	enis := ask[eniInfos](t, closed, "/v1/enis")
	if enis.TotalIPs != 17 || enis.AssignedIPs != 1 || len(enis.ENIs) != 2 || !enis.ENIs["eni-0"].IsPrimary || enis.ENIs["eni-1"].DeviceNumber != 1 {
		t.Errorf("enis: %+v", enis)
	}
	cidrs := enis.ENIs["eni-0"].AvailableIPv4Cidrs
	prefix := cidrs["10.0.1.16/28"]
	if len(cidrs) != 2 || !prefix.IsPrefix || prefix.Cidr.String() != "10.0.1.16/28" || len(prefix.IPAddresses) != 2 || cidrs["10.0.1.7/32"].IsPrefix {
		t.Fatalf("cidrs: %+v", cidrs)
	}
	a := prefix.IPAddresses["10.0.1.16"]
	if a.IPAMKey != (ipamKey{"fairway", "web-container", "eth0"}) || a.IPAMMetadata != (ipamMetadata{"default", "web"}) || a.AssignedTime.IsZero() || !a.UnassignedTime.IsZero() {
		t.Errorf("a pod's address: %+v", a)
	}
	if b := prefix.IPAddresses["10.0.1.17"]; b.IPAMKey != (ipamKey{}) || time.Since(b.UnassignedTime) > time.Hour || b.UnassignedTime.After(time.Now()) {
		t.Errorf("one that rests: %+v", b)
	}
	if status := ask[agentapi.Status](t, closed, "/v1/status"); status.Pods[0].ContainerID != "web-container" {
		t.Errorf("root does not see the container: %+v", status.Pods)
	}
	settings := ask[map[string]any](t, open, "/v1/networkutils-env-settings")
	if d := cmp.Diff([]any{"192.168.0.0/16"}, settings["AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS"]); d != "" {
		t.Error(d)
	}
	if n := ask[map[string]any](t, open, "/v1/ipamd-env-settings")["WARM_ENI_TARGET"]; n != 1.0 {
		t.Errorf("WARM_ENI_TARGET %v", n)
	}
}

// TestIntrospectionOfStuckLoop: whoever asks is told, and not kept.
func TestIntrospectionOfStuckLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTestSight(t, &nodeLoop{commands: make(chan func(*nodeState))}) // nobody receives
		began := time.Now()
		w := get(s.introspection(false), http.MethodGet, "/v1/status")
		if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "busy or stuck") || time.Since(began) != loopPatience {
			t.Errorf("%d %s after %s", w.Code, w.Body, time.Since(began))
		}
	})
}

// TestShared: any number of callers is one question a second.
func TestShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		s := share(func(ctx context.Context) (int, error) {
			asked++
			time.Sleep(100 * time.Millisecond)
			if asked == 2 {
				return 0, errors.New("busy")
			}
			return asked, nil
		})
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				if v, err := s.get(t.Context()); v != 1 || err != nil {
					t.Errorf("got %d, %v, want the first answer", v, err)
				}
			})
		}
		all.Wait()
		time.Sleep(answerAge)
		if _, err := s.get(t.Context()); err == nil {
			t.Error("the second question has failed, and nobody heard")
		}
		if v, err := s.get(t.Context()); v != 3 || err != nil {
			t.Errorf("after a failure: %d, %v, want to be asked again at once", v, err)
		}
		late, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		s.turn <- struct{}{}
		if _, err := s.get(late); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a turn that does not come: %v", err)
		}
	})
}

// lines is a log that can be waited for.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}

// TestTakenPort: it is said once, with what to do, and had as soon as it is free.
func TestTakenPort(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := taken.Addr().String()
	s := newTestSight(t, seen(t))
	said := make(lines, 100)
	s.log, s.retry = slog.New(slog.NewTextHandler(said, nil)), time.Millisecond
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { s.listen(ctx, "metrics", address, s.metrics.Handler(s.pool)); close(ended) }()
	line := <-said
	for _, word := range []string{"level=ERROR", address, "address already in use", "aws-node", "--metrics-address"} {
		if !strings.Contains(line, word) {
			t.Errorf("the log has no %q in %s", word, line)
		}
	}
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	var text string
	for text == "" {
		resp, err := http.Get("http://" + address + "/metrics")
		if err != nil {
			continue // not yet
		}
		body, err := io.ReadAll(resp.Body)
		if err = errors.Join(err, resp.Body.Close()); err != nil {
			t.Fatal(err)
		}
		text = string(body)
	}
	if !strings.Contains(text, "\nawscni_total_ip_addresses 17\n") {
		t.Errorf("what is served:\n%s", text)
	}
	stop()
	<-ended
	if len(said) > 0 {
		t.Errorf("it is said again: %s", <-said)
	}
}

// TestListenOnSocket: an address may be a socket, of which only root knows the
// containers.
func TestListenOnSocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "i.sock")
	s := newTestSight(t, seen(t))
	s.cfg.Introspection, s.cfg.Metrics, s.cfg.Admin = unixScheme+socket, "", ""
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { s.serve(ctx); close(ended) }()
	for {
		status, err := agentapi.NewClient(socket).Status(t.Context())
		if errors.Is(err, agentapi.ErrNoAgent) {
			continue // not yet
		}
		if err != nil || status.Pods[0].ContainerID != "web-container" {
			t.Errorf("%v, %+v", err, status.Pods)
		}
		break
	}
	stop()
	<-ended
}

// TestFewConnections: who holds connections holds those of others up, not the
// agent's descriptors; and they are given back.
func TestFewConnections(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &fewListener{Listener: inner, places: make(chan struct{}, 2)}
	accepted := make(chan net.Conn)
	go func() {
		defer close(accepted)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	var mine []net.Conn
	for range 3 {
		c, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		mine = append(mine, c)
	}
	first, second := <-accepted, <-accepted
	if len(l.places) != 2 {
		t.Errorf("%d places taken, want 2", len(l.places))
	}
	for range 2 { // closing twice gives one place back
		_ = first.Close()
	}
	third := <-accepted
	if len(l.places) != 2 {
		t.Errorf("%d places taken, want 2", len(l.places))
	}
	_, _, _ = second.Close(), third.Close(), inner.Close()
	for range accepted {
		t.Error("a fourth connection")
	}
	for _, c := range mine {
		_ = c.Close()
	}
	if len(l.places) != 0 {
		t.Errorf("%d places taken in the end", len(l.places))
	}
}

func TestResultWords(t *testing.T) {
	for want, err := range map[string]error{
		"ok": nil, "throttled": fmt.Errorf("x: %w", ec2.ErrThrottled), "unreachable": ec2.ErrUnreachable, "canceled": context.Canceled,
		"subnet_full": ec2.ErrSubnetFull, "failed": errors.New("x"),
	} {
		if got := requestResult(err); got != want {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
		if got := changeResult(err); got != want {
			t.Errorf("change: %v: %q, want %q", err, got, want)
		}
	}
	for want, e := range map[metrics.Result]*cniapi.Error{
		metrics.OK: nil, metrics.NoAddress: {Code: cniapi.CodeNoAddress}, metrics.TryAgain: {Code: cniapi.CodeTryAgainLater},
		metrics.Unknown: {Code: cniapi.CodeUnknownContainer}, metrics.NameTaken: {Code: cniapi.CodeInterfaceTaken},
		metrics.Failed: {Code: cniapi.CodeInternal}, metrics.BadRequest: {Code: cniapi.CodeInvalidConfig},
	} {
		if got := callResult(cniserver.Reply{Err: e}); got != want {
			t.Errorf("%+v: %q, want %q", e, got, want)
		}
	}
}

// TestCallsAreCounted: an ADD that finds nothing free, by its result and its time.
func TestCallsAreCounted(t *testing.T) {
	loop := seen(t)
	m := metrics.New()
	cfg := Default()
	cfg.AddWait = time.Millisecond
	h := &handlers{cfg: cfg, log: quiet(t), loop: loop, metrics: m}
	for i := range 16 { // 15 are free
		err := loop.do(t.Context(), func(n *nodeState) {
			_, err := n.book.Hold(store.Record{ContainerID: fmt.Sprint("c", i), IfName: "eth0"})
			if err != nil && i < 15 {
				t.Error(err)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if r := h.handle(t.Context(), &cniserver.Call{Command: cniapi.CommandAdd, ContainerID: "late", IfName: "eth0"}); r.Err == nil {
		t.Fatal("an ADD got an address that is not there")
	}
	text := get(m.Handler(newTestSight(t, loop).pool), http.MethodGet, "/metrics").Body.String()
	for _, line := range []string{
		"awscni_add_ip_req_count 1", "awscni_no_available_ip_addresses 1", `fairway_addresses{state="free"} 0`,
	} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
	if !strings.Contains(text, `fairway_cni_duration_seconds_count{command="ADD",result="`) {
		t.Error("the call's time is missing")
	}
}
