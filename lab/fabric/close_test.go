package fabric

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
)

func TestCloseLeavesNothing(t *testing.T) {
	before := openNamespaces(t)
	f := newFabric(t)
	a := newGuest(t, f, "i-a")
	mustSync(t, f, vpcOf(eniA(), eniB2Unplugged()))
	if _, err := f.Listen("vpc-1", netip.AddrPortFrom(ec2, 80)); err != nil {
		t.Fatal(err)
	}
	l := listenENI(t, f, eniA().ID, "imds", 64)
	var programs []ebpf.ProgramID
	for _, p := range []*ebpf.Program{f.objs.FromEni, f.objs.ToEni, f.objs.ToSink} {
		info, err := p.Info()
		if err != nil {
			t.Fatal(err)
		}
		id, ok := info.ID()
		if !ok {
			t.Fatal("program without ID")
		}
		programs = append(programs, id)
	}
	var maps []ebpf.MapID
	for _, m := range []*ebpf.Map{f.objs.Enis, f.objs.Places, f.objs.Owned, f.objs.Drops, f.objs.Services} {
		info, err := m.Info()
		if err != nil {
			t.Fatal(err)
		}
		id, _ := info.ID()
		maps = append(maps, id)
	}
	if hostLinks := ownHostLinks(t); len(hostLinks) != 0 {
		t.Errorf("devices in the host's namespace while the fabric is up: %v", hostLinks)
	}

	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if got := links(t, a); !cmp.Equal(got, []string{"lo"}) {
		t.Errorf("devices of the guest after Close: %v", got)
	}
	if _, err := l.Accept(); err == nil {
		t.Error("listener accepts after Close")
	}
	// One namespace is left: the guest's, which is the test's.
	if got := openNamespaces(t); len(got) != len(before)+1 {
		t.Errorf("open namespaces after Close: %v, want %d", got, len(before)+1)
	}
	// The kernel frees programs and maps a moment later.
	waitFor(t, "programs and maps to be freed", func() bool {
		for _, id := range programs {
			if p, err := ebpf.NewProgramFromID(id); err == nil {
				p.Close()
				return false
			}
		}
		for _, id := range maps {
			if m, err := ebpf.NewMapFromID(id); err == nil {
				m.Close()
				return false
			}
		}
		return true
	})

	_, err := f.Sync(context.Background(), Topology{})
	_, counters := f.Counters()
	_, listen := f.Listen("vpc-1", netip.AddrPortFrom(ec2, 80))
	_, listenENI := f.ListenENI(eniA().ID, netip.AddrPortFrom(imds, 80), 1)
	for what, err := range map[string]error{
		"Sync": err, "Counters": counters, "Listen": listen, "ListenENI": listenENI, "AddGuest": f.AddGuest("i-z", a.ns),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s after Close: %v, want ErrClosed", what, err)
		}
	}
	if err := f.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func TestCloseLeavesNothingOfAWholeWorld(t *testing.T) {
	before := openNamespaces(t)
	f := newFabric(t)
	w := wholeWorld()
	var guests []*testGuest
	for _, v := range w.VPCs {
		for _, e := range v.ENIs {
			guests = append(guests, newGuest(t, f, e.Guest))
		}
	}
	mustHold(t, f, w)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if got := openNamespaces(t); len(got) != len(before)+len(guests) {
		t.Errorf("open namespaces after Close: %v, want %d", got, len(before)+len(guests))
	}
	for _, g := range guests {
		if got := links(t, g); !cmp.Equal(got, []string{"lo"}) {
			t.Errorf("devices of %s after Close: %v", g.id, got)
		}
	}
	_, err := f.LinkCounters()
	if !errors.Is(err, ErrClosed) || f.Internet() != nil {
		t.Errorf("after Close: LinkCounters gives %v, Internet %v", err, f.Internet())
	}
}

func eniB2Unplugged() ENI {
	e := eniB()
	e.Guest = ""
	return e
}

// openNamespaces lists the namespace files that this process holds.
func openNamespaces(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var open []string
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(to, "net:") {
			open = append(open, to)
		}
	}
	return open
}

// ownHostLinks lists what looks like the fabric's in the namespace of the test
// process.
func ownHostLinks(t *testing.T) []string {
	t.Helper()
	list, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	var own []string
	for _, l := range list {
		name := l.Attrs().Name
		if _, sink := sinkReasons[name]; sink || name == DeviceName(eniA().ID) {
			own = append(own, name)
		}
	}
	return own
}

func TestNewErrors(t *testing.T) {
	for _, a := range []string{"10.0.0.1", "fe80::1"} {
		if _, err := New(Config{Services: []netip.Addr{netip.MustParseAddr(a)}}); err == nil {
			t.Errorf("service address %s: no error", a)
		}
	}
}

func TestProbe(t *testing.T) {
	newFabric(t) // skips without root
	if err := Probe(); err != nil {
		t.Error(err)
	}
	for _, f := range Features() {
		if f.Name == "" || f.Since == "" || f.Why == "" {
			t.Errorf("feature %+v has a gap", f)
		}
	}
}

// The checked-in programs are those of the checked-in sources.
func TestProgramsAreGenerated(t *testing.T) {
	var sums strings.Builder
	for _, pattern := range []string{"bpf/*.[ch]", "*_bpfel.o"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("find %s: %v, %v", pattern, files, err)
		}
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(b), file)
		}
	}
	recorded, err := os.ReadFile("bpf_sources.sha256")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(recorded), sums.String()); diff != "" {
		t.Errorf("bpf sources changed without regenerating: run go generate ./lab/fabric (-recorded +now):\n%s", diff)
	}
}
