package scenarios

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/lab/fabric/netns"
	"github.com/fairway-cni/fairway/lab/world"
)

// How an agent is killed at an exact point of what it does: at a system call by a
// BPF program that runs when a system call begins,
//
//	agent --fsync, rename, link, unlink--> raw_syscalls:sys_enter
//	                                       count of its instance + 1 == limit? SIGKILL
//
// and at a call of EC2 by a proxy in front of the lab's EC2, which knows the lab
// only by its HTTP.

// durable are the system calls by which an agent's records change: what is
// between two of them no crash can tell apart.
func durable() []int32 {
	calls := []int32{unix.SYS_FSYNC, unix.SYS_FDATASYNC, unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2, unix.SYS_LINKAT, unix.SYS_UNLINKAT}
	if runtime.GOARCH == "amd64" {
		// rename, link and unlink, which newer architectures do not have:
		// arch/x86/entry/syscalls/syscall_64.tbl.
		calls = append(calls, 82, 86, 87)
	}
	return calls
}

// guillotine kills agents at a durable system call. It serves all nodes of a test.
type guillotine struct {
	counts *ebpf.Map // by cgroup: calls seen, and the one to die with
}

// tally is a value of the map.
type tally struct{ Seen, Limit uint64 }

// newGuillotine puts it up until the test ends.
func newGuillotine(t *testing.T) *guillotine {
	t.Helper()
	if err := rlimit.RemoveMemlock(); err != nil {
		t.Fatal(err)
	}
	counts, err := ebpf.NewMap(&ebpf.MapSpec{Name: "counts", Type: ebpf.Hash, KeySize: 8, ValueSize: 16, MaxEntries: 256})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { counts.Close() })
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "die_at_call", Type: ebpf.RawTracepoint, License: "GPL", Instructions: dieAtCall(counts.FD())})
	if err != nil {
		t.Fatalf("load the program that kills at a system call: %v", err)
	}
	t.Cleanup(func() { p.Close() })
	l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: "sys_enter", Program: p})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return &guillotine{counts}
}

// dieAtCall is the program. It counts without a lock: the records have one of their
// own. The number of the system call is the second argument of
// the tracepoint (include/trace/events/syscalls.h). The signal is pending when the
// call begins, and none of the records' calls is interrupted by it; so the process
// ends with that call done, and does nothing after it.
func dieAtCall(counts int) asm.Instructions {
	const comm = "fairway-agent" // of all threads; TASK_COMM_LEN is 16
	name := make([]byte, 16)
	copy(name, comm)
	word := func(i int) int32 { // of the name, as the stack has it
		return int32(uint32(name[4*i]) | uint32(name[4*i+1])<<8 | uint32(name[4*i+2])<<16 | uint32(name[4*i+3])<<24)
	}
	out := asm.Instructions{asm.LoadMem(asm.R6, asm.R1, 8, asm.DWord)}
	for _, nr := range durable() {
		out = append(out, asm.JEq.Imm(asm.R6, nr, "counted"))
	}
	out = append(out,
		asm.Ja.Label("done"),
		asm.Mov.Reg(asm.R1, asm.RFP).WithSymbol("counted"),
		asm.Add.Imm(asm.R1, -16),
		asm.Mov.Imm(asm.R2, 16),
		asm.FnGetCurrentComm.Call(),
	)
	for i := range 3 { // twelve of the letters are enough
		out = append(out, asm.LoadMem(asm.R1, asm.RFP, int16(-16+4*i), asm.Word), asm.JNE.Imm32(asm.R1, word(i), "done"))
	}
	return append(out,
		asm.FnGetCurrentCgroupId.Call(),
		asm.StoreMem(asm.RFP, -24, asm.R0, asm.DWord),
		asm.LoadMapPtr(asm.R1, counts),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -24),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "done"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord),
		asm.Add.Imm(asm.R1, 1),
		asm.StoreMem(asm.R0, 0, asm.R1, asm.DWord),
		asm.LoadMem(asm.R2, asm.R0, 8, asm.DWord),
		asm.JNE.Reg(asm.R1, asm.R2, "done"),
		asm.Mov.Imm(asm.R1, int32(unix.SIGKILL)),
		asm.FnSendSignal.Call(),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("done"),
		asm.Return(),
	)
}

// arm has the agent of an instance die with its nth durable call from now on; 0
// counts them only.
func (g *guillotine) arm(cgroup uint64, nth int) error {
	return g.counts.Put(cgroup, tally{Limit: uint64(nth)})
}

// seen is how many there were. The agent is left alone from then on.
func (g *guillotine) seen(cgroup uint64) (int, error) {
	var v tally
	if err := g.counts.LookupAndDelete(cgroup, &v); err != nil {
		return 0, err
	}
	return int(v.Seen), nil
}

// cgroupOf is the number by which BPF knows the cgroup of an instance: its
// directory's inode.
func cgroupOf(lab, instance string) (uint64, error) {
	dir, err := world.Cgroup(lab)
	if err != nil {
		return 0, err
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, instance), &st); err != nil {
		return 0, err
	}
	return st.Ino, nil
}

// ec2Moment is when an agent dies around a call of EC2.
type ec2Moment string

const (
	beforeCall ec2Moment = "before" // EC2 never gets it
	afterCall  ec2Moment = "after"  // EC2 has done it, and nobody hears
)

// ec2Wire is between one agent and the lab's EC2.
type ec2Wire struct {
	cloud http.Handler
	kill  func() error // ends the agent; it is dead when kill returns

	mu     sync.Mutex
	writes []string // actions since it was armed
	nth    int      // of them at which to kill; 0: none
	moment ec2Moment
}

// newWire listens in the node's network namespace until the test ends, and gives
// the URL that the node's agent is to use.
func newWire(t *testing.T, n *node, cloud http.Handler) (*ec2Wire, string) {
	t.Helper()
	w := &ec2Wire{cloud: cloud, kill: func() error { return n.endAgent(context.WithoutCancel(t.Context())) }}
	var ln net.Listener
	err := netns.Do(n.netns(), func() (err error) {
		ln, err = net.Listen("tcp4", "127.0.0.1:0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: w}
	go func() { _ = s.Serve(ln) }() // until it is closed
	t.Cleanup(func() { s.Close() })
	return w, "http://" + ln.Addr().String()
}

// endAgent is killAgent for goroutines that are not the test's own.
func (n *node) endAgent(ctx context.Context) error {
	if err := n.SignalDaemon(ctx, "agent", unix.SIGKILL); err != nil {
		return err
	}
	_, err := n.WaitDaemon(ctx, "agent")
	return err
}

func (w *ec2Wire) arm(nth int, moment ec2Moment) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writes, w.nth, w.moment = nil, nth, moment
}

// seen is the changes that EC2 was asked for since the wire was armed. It does no
// harm from then on.
func (w *ec2Wire) seen() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.nth = 0
	return slices.Clone(w.writes)
}

// strikes counts a request, and says whether it is the one.
func (w *ec2Wire) strikes(action string) bool {
	if strings.HasPrefix(action, "Describe") || strings.HasPrefix(action, "Get") {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writes = append(w.writes, action)
	return w.nth == len(w.writes)
}

func (w *ec2Wire) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return // the agent has died
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	form, err := url.ParseQuery(string(body))
	if err != nil || !w.strikes(form.Get("Action")) {
		w.cloud.ServeHTTP(rw, r)
		return
	}
	if w.moment == afterCall {
		answer := httptest.NewRecorder()
		w.cloud.ServeHTTP(answer, r)
		if answer.Code != http.StatusOK {
			err = fmt.Errorf("%s was refused: %s", form.Get("Action"), answer.Body)
		}
	}
	if err = errors.Join(err, w.kill()); err != nil {
		fmt.Fprintln(os.Stderr, "kill an agent at a call of EC2:", err) // the test will miss the end of the agent
	}
	panic(http.ErrAbortHandler)
}
