package scenarios

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairway-cni/fairway/internal/edge/cniapi"
	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

var cycles = flag.Int("cycles", 1000, "pods that TestCycles makes and deletes")

// What an agent may have more after TestCycles. Its heap is read right after a
// collection; what the process has beside it follows Go's runtime, which keeps
// memory for a while and threads for ever.
const (
	heapSlack = 1 << 20 // bytes
	rssSlack  = 8 << 10 // KiB
)

// TestCycles makes and deletes many pods, 16 at a time, over the plugin's own
// protocol: a process for each call would take most of the time. The agent has
// afterwards what it had before: memory, goroutines, descriptors, records.
func TestCycles(t *testing.T) {
	t.Parallel()
	const workers = 16
	l := startLab(t, oneNode("m5.large"))
	n := l.nodes["node-a"]
	n.startAgent("--cool-down=0s", "--warm-ip-target=27")
	n.readyAgent()
	// The first ones make what stays: buffers, threads, caches.
	n.cycle(t, workers, 300, "warm")
	n.pristine(t)
	before := n.footprint(t)
	began := time.Now()
	n.cycle(t, workers, *cycles, "pod")
	took := time.Since(began)
	n.pristine(t)
	var after footprint
	// Fewer are no leak: connections to EC2 are kept for a while and then closed, and
	// memory that is free goes back to the kernel bit by bit.
	eventually(t, "the agent has no more than it had", func() error {
		after = n.footprint(t)
		for what, n := range after.files {
			if n > before.files[what] {
				return fmt.Errorf("descriptors (-before +after):\n%s", cmp.Diff(before.files, after.files))
			}
		}
		if after.goroutines > before.goroutines {
			return fmt.Errorf("%d goroutines, before %d", after.goroutines, before.goroutines)
		}
		if after.heap > before.heap+heapSlack {
			return fmt.Errorf("the heap had %d bytes and has %d", before.heap, after.heap)
		}
		if after.rss > before.rss+rssSlack {
			return fmt.Errorf("%d KiB were resident, and %d are", before.rss, after.rss)
		}
		return nil
	})
	t.Logf("%d pods in %s: heap %d KiB, then %d; resident %d KiB, then %d; %d goroutines, then %d; %d descriptors",
		*cycles, took.Round(time.Millisecond), before.heap>>10, after.heap>>10, before.rss, after.rss, before.goroutines, after.goroutines, before.open())
	if d := cmp.Diff(before.records, after.records); d != "" {
		t.Errorf("directory of records (-before +after):\n%s", d)
	}
}

// cycle makes pods and deletes them, each in a new namespace.
func (n *node) cycle(t *testing.T, workers, pods int, prefix string) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < pods && ctx.Err() == nil; i += workers {
				if err := n.addAndDel(fmt.Sprintf("%s-%d", prefix, i)); err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		t.Fatal(context.Cause(ctx))
	}
}

func (n *node) addAndDel(id string) error {
	ns, err := netns.New()
	if err != nil {
		return err
	}
	defer ns.Close()
	client := cniapi.Client{Socket: n.file(cniapi.DefaultSocket), Connect: patience, Answer: patience}
	r := cniapi.Request{Command: cniapi.CommandAdd, ContainerID: id, IfName: "eth0", NetNS: "/run/netns/" + id, Config: []byte(conf10),
		Args: "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=" + id}
	ask := func(fds ...int) error {
		reply, err := client.Do(r, fds...)
		if err == nil && reply.Err != nil {
			err = fmt.Errorf("%+v", reply.Err)
		}
		if err != nil {
			return fmt.Errorf("%s of %s: %w", r.Command, id, err)
		}
		return nil
	}
	if err := inPod(fmt.Sprintf("/proc/self/fd/%d", ns.Fd()), ask); err != nil {
		return err
	}
	r.Command = cniapi.CommandDel
	return ask()
}

// inPod does what the plugin does with a pod's namespace, on a thread that ends with
// it: [cniapi.OpenPod] leaves it there.
func inPod(path string, do func(fds ...int) error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // also where OpenPod fails before it does
		pod, failed := cniapi.OpenPod(path)
		if failed != nil {
			done <- fmt.Errorf("open %s: %+v", path, failed)
			return
		}
		err := do(pod.FDs()...)
		for _, fd := range pod.FDs() {
			err = errors.Join(err, syscall.Close(fd))
		}
		done <- err
	}()
	return <-done
}

// pristine waits until no record is left of a pod.
func (n *node) pristine(t *testing.T) {
	t.Helper()
	eventually(t, "records of pods are gone", func() error {
		if r := n.records(); len(r) > 0 {
			return fmt.Errorf("%d records, the first %+v", len(r), r[0])
		}
		return nil
	})
}

// footprint is what a process has.
type footprint struct {
	heap       int // bytes that are in use after a collection
	rss        int // KiB
	goroutines int
	files      map[string]int // descriptors, by what they are
	records    []string       // names in the agent's directory
}

// open is how many descriptors there are.
func (f footprint) open() int {
	n := 0
	for _, of := range f.files {
		n += of
	}
	return n
}

// footprint looks at the agent.
func (n *node) footprint(t *testing.T) (f footprint) {
	t.Helper()
	daemons, err := n.Daemons(t.Context())
	if err != nil || len(daemons) != 1 {
		t.Fatalf("daemons %v: %v", daemons, err)
	}
	proc := n.file(filepath.Join("proc", strconv.Itoa(daemons[0].PID)))
	f.heap = n.figure(t, "heap?gc=1&debug=1", "# HeapAlloc = ")
	f.goroutines = n.figure(t, "goroutine?debug=1", "goroutine profile: total ")
	status, err := os.ReadFile(filepath.Join(proc, "status"))
	if err != nil {
		t.Fatal(err)
	}
	f.rss = number(t, string(status), "VmRSS:")
	fds, err := os.ReadDir(filepath.Join(proc, "fd"))
	if err != nil {
		t.Fatal(err)
	}
	f.files = map[string]int{}
	for _, fd := range fds {
		to, err := os.Readlink(filepath.Join(proc, "fd", fd.Name()))
		if err != nil {
			continue // the connection that has just been answered
		}
		kind, _, _ := strings.Cut(to, ":[") // socket:[1234]
		f.files[kind]++
	}
	records, err := os.ReadDir(n.file("run/fairway/addresses"))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		f.records = append(f.records, r.Name())
	}
	slices.Sort(f.records)
	return f
}

// figure reads a number of one of the agent's profiles.
func (n *node) figure(t *testing.T, profile, before string) int {
	t.Helper()
	dial := func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", n.file("run/fairway/agent.sock"))
	}
	c := http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	r, err := c.Get("http://agent/debug/pprof/" + profile)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("profile %s: %s, %v", profile, r.Status, err)
	}
	return number(t, string(text), before)
}

// number is the one behind certain words at the beginning of a line.
func number(t *testing.T, text, before string) int {
	t.Helper()
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), before); ok {
			v, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	t.Fatalf("no %q in %.200q", before, text)
	return 0
}
