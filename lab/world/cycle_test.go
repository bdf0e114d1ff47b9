package world

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"github.com/fairway-cni/fairway/lab/fabric"
	"github.com/fairway-cni/fairway/lab/guest"
)

var cycles = flag.Int("cycles", 5, "how often TestCyclesLeaveTheHostAsItWas starts and ends a lab")

// host is what can be left behind, as lines per kind. Other programs and tests
// run on the machine too: what is not of this process and not the host's own
// network is counted only if a lab of this process was seen to have it.
type host map[string][]string

// seen is what labs of this process had while they ran.
type seen struct {
	processes, namespaces, programs, maps map[string]bool
}

// lookAtHost gives what is there now.
func lookAtHost(cgroup, dir string, s seen) (host, error) {
	h := host{}
	add := func(kind string, lines []string, err error) error {
		slices.Sort(lines)
		h[kind] = lines
		if err != nil {
			return fmt.Errorf("list %s: %w", kind, err)
		}
		return nil
	}
	var links []string
	list, err := netlink.LinkList()
	for _, l := range list {
		links = append(links, l.Attrs().Name)
	}
	errs := []error{add("links", links, err)}

	nft, err := nftables.New()
	if err == nil {
		var tables []string
		var found []*nftables.Table
		found, err = nft.ListTables()
		for _, t := range found {
			tables = append(tables, fmt.Sprintf("%d %s", t.Family, t.Name))
		}
		errs = append(errs, add("nft tables", tables, err))
	} else {
		errs = append(errs, err)
	}

	mounts, err := os.ReadFile("/proc/self/mountinfo")
	errs = append(errs, add("mounts", strings.Split(string(mounts), "\n"), err))

	for kind, root := range map[string]string{"cgroups": cgroup, "files": dir} {
		var paths []string
		err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
			if err == nil && (kind != "cgroups" || d.IsDir()) {
				paths = append(paths, p)
			}
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		})
		errs = append(errs, add(kind, paths, err))
	}

	open, err := openFiles()
	errs = append(errs, add("open files", open, err))
	errs = append(errs, add("goroutines", []string{fmt.Sprint(runtime.NumGoroutine())}, nil))

	processes, err := lookAtProcesses()
	namespaces, nsErr := ownNamespaces()
	var left, leftNS []string
	for pid := range processes {
		if s.processes[pid] {
			left = append(left, pid)
		}
	}
	for ns := range namespaces {
		if s.namespaces[ns] {
			leftNS = append(leftNS, ns)
		}
	}
	errs = append(errs, add("processes", left, err), add("namespaces", leftNS, nsErr))

	var programs, bpfMaps []string
	for id := range s.programs {
		if p, err := ebpf.NewProgramFromID(ebpf.ProgramID(number(id))); err == nil {
			programs = append(programs, p.String())
			p.Close()
		}
	}
	for id := range s.maps {
		if m, err := ebpf.NewMapFromID(ebpf.MapID(number(id))); err == nil {
			bpfMaps = append(bpfMaps, m.String())
			m.Close()
		}
	}
	errs = append(errs, add("bpf programs", programs, nil), add("bpf maps", bpfMaps, nil))
	return h, errors.Join(errs...)
}

func number(s string) (n uint32) {
	fmt.Sscan(s, &n) // from fdinfo, which has numbers
	return n
}

// openFiles lists the files of this process; sockets and pipes without their
// numbers.
func openFiles() ([]string, error) {
	entries, err := os.ReadDir("/proc/self/fd")
	var open []string
	for _, e := range entries {
		to, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil || strings.HasSuffix(to, "/fd") {
			continue // that of this very list
		}
		if kind, _, numbered := strings.Cut(to, ":["); numbered {
			to = kind
		}
		open = append(open, to)
	}
	return open, err
}

var namespaceKinds = []string{"net", "mnt", "pid", "uts", "ipc", "cgroup"}

// lookAtProcesses lists all processes, each with its start time, which tells a
// PID that is used again, and its parent.
func lookAtProcesses() (map[string]int, error) {
	processes := map[string]int{}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // has ended
		}
		pid, rest, _ := strings.Cut(string(stat), " ")
		fields := strings.Fields(rest[strings.LastIndexByte(rest, ')')+1:])
		if fields[0] == "Z" {
			continue
		}
		processes[pid+" started "+fields[19]] = int(number(fields[1])) // proc_pid_stat(5): starttime is field 22
	}
	return processes, err
}

// ownNamespaces lists those that the threads and open files of this process are
// in or hold. Those of other processes are not looked at: the kernel uses the
// numbers again.
func ownNamespaces() (map[string]bool, error) {
	namespaces := map[string]bool{}
	links, err := filepath.Glob("/proc/self/task/*/ns/*")
	files, filesErr := filepath.Glob("/proc/self/fd/*")
	for _, l := range append(links, files...) {
		if to, err := os.Readlink(l); err == nil {
			namespaces[to] = true
		}
	}
	return namespaces, errors.Join(err, filesErr)
}

// note adds to s what this process and its descendants have now, less what the
// host's own first process shares with them.
func (s seen) note() error {
	processes, err := lookAtProcesses()
	if err != nil {
		return err
	}
	family := map[int]bool{os.Getpid(): true}
	for grown := true; grown; {
		grown = false
		for p, parent := range processes {
			pid := int(number(p))
			if family[parent] && !family[pid] {
				family[pid], grown = true, true
				s.processes[p] = true
			}
		}
	}
	own := map[string]bool{}
	for _, kind := range namespaceKinds {
		ns, err := os.Readlink("/proc/self/ns/" + kind)
		if err != nil {
			return err
		}
		own[ns] = true
	}
	for pid := range family {
		for _, kind := range namespaceKinds {
			if ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind)); err == nil && !own[ns] {
				s.namespaces[ns] = true
			}
		}
	}
	return s.noteFiles(own)
}

// noteFiles adds what is held by open files: namespaces, BPF programs and maps.
func (s seen) noteFiles(own map[string]bool) error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(to, "net:[") && !own[to] {
			s.namespaces[to] = true
		}
		info, err := os.Open("/proc/self/fdinfo/" + e.Name())
		if err != nil {
			continue
		}
		lines := bufio.NewScanner(info)
		for lines.Scan() {
			key, id, _ := strings.Cut(lines.Text(), ":")
			switch key {
			case "prog_id":
				s.programs[strings.TrimSpace(id)] = true
			case "map_id":
				s.maps[strings.TrimSpace(id)] = true
			}
		}
		err = errors.Join(lines.Err(), info.Close())
		if err != nil {
			return err
		}
	}
	return nil
}

// cycle is one life of a lab: pods, faults, packets, a power cut, the end.
func cycle(ctx context.Context, n int, dir, name string, s seen) (err error) {
	l, err := startLab(ctx, name, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	instances, enis := l.Cloud().Snapshot().Instances, l.Cloud().Snapshot().Interfaces
	faults := fabric.Faults{
		ENIs: map[string]fabric.ENIFault{
			enis[0].ID: {LossPercent: 1, Delay: time.Millisecond, ReorderPercent: 10, Seed: uint64(n)},
		},
		Partitions: []fabric.Partition{{A: "eu-west-1a", B: "eu-west-1c"}},
	}
	if err := l.Fabric().SetFaults(ctx, faults); err != nil {
		return err
	}
	if err := reaches(l, instances[0], instances[1]); err != nil {
		return err
	}
	if err := awaitPod(ctx, l, instances[0].ID); err != nil {
		return err
	}
	if err := s.note(); err != nil {
		return err
	}
	if err := l.Kill(ctx, instances[0].ID); err != nil {
		return err
	}
	faults.ENIs[enis[1].ID] = fabric.ENIFault{Down: true}
	if err := errors.Join(l.Fabric().SetFaults(ctx, faults), l.Reboot(ctx, instances[0].ID), s.note()); err != nil {
		return err
	}
	if n%2 == 1 {
		return nil // ends with faults, and perhaps while the pod comes up
	}
	return l.Fabric().SetFaults(ctx, fabric.Faults{})
}

func awaitPod(ctx context.Context, l *Lab, instance string) error {
	for end := time.Now().Add(patience); ; {
		status, err := l.machine(instance).Exec(ctx, guest.Cmd{Argv: []string{"/bin/sh", "-c", "test -e /run/pod-is-up"}})
		if err != nil || status.Code == 0 {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("no pod in %s within %s", instance, patience)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func TestCyclesLeaveTheHostAsItWas(t *testing.T) {
	requireLab(t)
	name, dir := testLab(t), t.TempDir()
	cgroup, err := Cgroup(name)
	if err != nil {
		t.Fatal(err)
	}
	s := seen{map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]bool{}}
	// What a process opens once and keeps, such as the poller, is no leftover.
	if err := cycle(t.Context(), 0, dir, name, s); err != nil {
		t.Fatal(err)
	}
	before, err := lookAtHost(cgroup, dir, seen{})
	if err != nil {
		t.Fatal(err)
	}
	if s.empty() {
		t.Fatalf("a running lab was not seen: %d processes, %d namespaces, %d programs, %d maps",
			len(s.processes), len(s.namespaces), len(s.programs), len(s.maps))
	}
	start := time.Now()
	for n := range *cycles {
		if err := cycle(t.Context(), n, dir, name, s); err != nil {
			t.Fatalf("cycle %d: %v", n, err)
		}
	}
	t.Logf("%d cycles in %.1f s: %d processes, %d namespaces, %d bpf programs, %d bpf maps came and went",
		*cycles, time.Since(start).Seconds(), len(s.processes), len(s.namespaces), len(s.programs), len(s.maps))
	// The kernel frees programs and namespaces, and the servers their
	// connections, a moment later.
	var diff string
	for end := time.Now().Add(patience); ; {
		after, err := lookAtHost(cgroup, dir, s)
		if err != nil {
			t.Fatal(err)
		}
		for kind := range maps.Keys(after) {
			if len(after[kind]) == 0 && len(before[kind]) == 0 {
				delete(after, kind)
				delete(before, kind)
			}
		}
		// What the first cycle's end had left for a moment, and is gone since, is no
		// difference: only what is there in addition is.
		for _, kind := range []string{"open files", "goroutines"} {
			after[kind] = moreThan(before[kind], after[kind])
		}
		if diff = cmp.Diff(before, after); diff == "" || time.Now().After(end) {
			break
		}
		<-time.After(20 * time.Millisecond)
	}
	if diff != "" {
		t.Errorf("left on the host after %d cycles (-before +after):\n%s", *cycles, diff)
	}
}

// moreThan gives before, if after has nothing that it lacks, and else after. Both are
// sorted; numbers are compared as such.
func moreThan(before, after []string) []string {
	if len(before) == 1 && len(after) == 1 && number(before[0]) > number(after[0]) {
		return before
	}
	rest := slices.Clone(before)
	for _, line := range after {
		i := slices.Index(rest, line)
		if i < 0 {
			return after
		}
		rest = slices.Delete(rest, i, i+1)
	}
	return before
}

func (s seen) empty() bool {
	return len(s.processes) == 0 || len(s.namespaces) == 0 || len(s.programs) == 0 || len(s.maps) == 0
}
