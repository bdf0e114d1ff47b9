package ipamd

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairway-cni/fairway/internal/core/ipam"
	"github.com/fairway-cni/fairway/internal/core/vpc"
	"github.com/fairway-cni/fairway/internal/edge/agentapi"
	"github.com/fairway-cni/fairway/internal/edge/ec2"
	"github.com/fairway-cni/fairway/internal/edge/store"
	"github.com/fairway-cni/fairway/lab/ec2sim"
)

func (a *agent) status() (s agentapi.Status) {
	a.must(func(b *Book) { s = b.Status() })
	return s
}

// TestStatusOfAttach: an ENI on its way says since when, from the call that
// attaches it until its device is there.
func TestStatusOfAttach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t, ec2sim.Config{Delay: 100 * time.Millisecond, Attach: 20 * time.Second}, "m5.large", "10.0.0.0/20")
		r.cfg.MaxPods = 29
		a := r.start()
		defer a.stop()
		// Until the call that attaches the second ENI is under way.
		var begun time.Time
		for begun.IsZero() {
			time.Sleep(10 * time.Millisecond)
			s := a.status()
			for _, f := range s.InFlight {
				if f.Kind == string(ipam.AttachENI) {
					begun = f.Since
					if f.Text != "attach "+f.ENI+" as device 1" || f.Why == "" {
						t.Errorf("the change is told as %q, %q", f.Text, f.Why)
					}
				}
			}
		}
		seen := make(map[bool]bool) // by whether the call is under way
		for s := a.status(); !slices.ContainsFunc(s.ENIs, func(e agentapi.ENI) bool { return e.DeviceIndex == 1 && e.State == agentapi.Attached }); s = a.status() {
			if s.At.Sub(begun) > time.Minute {
				t.Fatalf("not attached after a minute: %+v", s.ENIs)
			}
			i := slices.IndexFunc(s.ENIs, func(e agentapi.ENI) bool { return e.State == agentapi.Attaching })
			if i < 0 || !s.ENIs[i].Since.Equal(begun) {
				t.Fatalf("%+v, want one that is attaching since %s", s.ENIs, begun)
			}
			if p := s.Pool; s.ENIs[i].DeviceIndex == 1 && (p.Arriving != 9 || p.Disputed != 0 || p.Total != 18) {
				t.Fatalf("pool while it is attaching: %+v", p)
			}
			seen[slices.ContainsFunc(s.InFlight, func(f agentapi.Flight) bool { return f.Kind == string(ipam.AttachENI) })] = true
			time.Sleep(10 * time.Millisecond)
		}
		if !seen[true] || !seen[false] {
			t.Errorf("seen with the call under way: %t, and after it: %t, want both", seen[true], seen[false])
		}
		time.Sleep(time.Minute)
		s := a.status()
		if len(s.ENIs) != 2 || s.ENIs[0].DeviceIndex != 0 || s.ENIs[1].DeviceIndex != 1 || s.ENIs[1].State != agentapi.Attached || !s.ENIs[1].Since.IsZero() || s.ENIs[1].Addresses != 9 {
			t.Errorf("attached: %+v", s.ENIs)
		}
		if n := s.Node; n.InstanceID != r.instance || n.InstanceType != "m5.large" || n.MaxENIs != 3 || n.MaxPodsFit != 29 || !n.LimitsKnown {
			t.Errorf("node: %+v", n)
		}
		if p := s.Pool; p.Total != 18 || p.Free != 18 || p.Capacity != 27 {
			t.Errorf("pool: %+v", p)
		}
		if s.Wanted.Addresses != 18 || s.Wanted.ENIs != 2 || s.Wanted.Why == "" {
			t.Errorf("wanted: %+v", s.Wanted)
		}
		if !s.EC2.Used || s.EC2.Offline || s.EC2.ListedAt.Before(a.book.started) || s.EC2.ListedAt.After(s.At) {
			t.Errorf("ec2: %+v, started %s, now %s", s.EC2, a.book.started, s.At)
		}
		if p := s.Diagnose(); len(p) != 0 {
			t.Errorf("nothing is wrong, and it says: %v", p)
		}
	})
}

// TestStatusOfMissing: an ENI that has lost its device is not said to be attaching, for as
// long as it is not certain that it is gone; and to be attached when the device is back.
func TestStatusOfMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t, ec2sim.Config{Delay: 100 * time.Millisecond}, "m5.large", "10.0.0.0/20")
		a := r.start()
		defer a.stop()
		time.Sleep(time.Minute)
		at := func(s agentapi.Status) agentapi.ENI {
			for _, e := range s.ENIs {
				if e.DeviceIndex == 1 {
					return e
				}
			}
			return agentapi.ENI{}
		}
		want := at(a.status())
		if want.State != agentapi.Attached {
			t.Fatalf("to begin with: %+v", want)
		}
		pull := func(out bool) {
			a.must(func(b *Book) {
				b.Drives(func(managed, others []vpc.ENI) (map[string]bool, error) {
					ready, err := r.devices(managed, others)
					if out {
						delete(ready, want.ID)
					}
					return ready, err
				})
				if err := b.Refresh(); err != nil {
					t.Error(err)
				}
			})
		}
		pull(true)
		gone := time.Now()
		time.Sleep(12 * time.Second)
		s := a.status()
		if e := at(s); e.State != agentapi.Missing || !e.Since.Equal(gone) {
			t.Errorf("without its device: %+v", e)
		}
		if p := s.Diagnose(); len(p) != 1 || !strings.Contains(p[0].Text, want.ID+" is gone since 12s") {
			t.Errorf("diagnosis: %v", p)
		}
		pull(false)
		if e := at(a.status()); e.State != agentapi.Attached || !e.Since.IsZero() {
			t.Errorf("with its device again: %+v", e)
		}
		// This time somebody has really taken it, and both sources come to say so.
		attached, _ := r.enis()
		for _, e := range attached {
			if e.ID == want.ID {
				if err := r.cloud.DetachNetworkInterface(ec2sim.DetachNetworkInterfaceInput{AttachmentID: e.Attachment.ID, Force: true}); err != nil {
					t.Fatal(err)
				}
			}
		}
		pull(true)
		if e := at(a.status()); e.State != agentapi.Missing {
			t.Errorf("taken away: %+v", e)
		}
		time.Sleep(2 * time.Minute)
		if e := at(a.status()); e.State == agentapi.Missing {
			t.Errorf("taken away for two minutes: %+v", e)
		}
	})
}

// TestStatusOfWaiting: who waits, since when and why, and what EC2 refuses how often.
func TestStatusOfWaiting(t *testing.T) {
	for _, tt := range []struct {
		code      string
		throttled bool
	}{{"RequestLimitExceeded", true}, {"IncorrectState", false}} {
		t.Run(tt.code, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRegion(t, ec2sim.Config{}, "t3.nano", "10.0.1.0/24") // two ENIs of one address
				r.cfg.Targets.WarmENIs = 0
				if err := r.cloud.SetFault(ec2sim.Fault{Action: "CreateNetworkInterface", Code: tt.code}); err != nil {
					t.Fatal(err)
				}
				a := r.start()
				defer a.stop()
				if _, err := a.add("a"); err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				var adds sync.WaitGroup
				adds.Go(func() {
					if _, err := a.add("b"); err == nil {
						t.Error("b got an address that EC2 did not give")
					}
				})
				time.Sleep(40 * time.Second)
				s := a.status()
				if len(s.Waiting) != 1 || s.Waiting[0].ContainerID != "b" || !s.Waiting[0].Since.Equal(start) || s.Outlook == "" {
					t.Errorf("waiting: %+v, %q", s.Waiting, s.Outlook)
				}
				i := slices.IndexFunc(s.Refused, func(r agentapi.Refused) bool { return r.Kind == string(ipam.CreateENI) })
				if i < 0 {
					t.Fatalf("refused: %+v, want create eni", s.Refused)
				}
				if got := s.Refused[i]; got.Throttled != tt.throttled || got.Times > 0 == tt.throttled || got.Reason == "" || !got.Until.After(s.At) {
					t.Errorf("refused: %+v", got)
				}
				if p := s.Diagnose(); len(p) == 0 || p[0].Severity != agentapi.Wrong || !strings.HasPrefix(p[0].Text, "1 pod waits for an address, the first for 40s: ") {
					t.Errorf("problems: %v", p)
				}
				adds.Wait()
				if s := a.status(); len(s.Waiting) != 0 || s.Outlook != "" {
					t.Errorf("after it has given up: %+v, %q", s.Waiting, s.Outlook)
				}
			})
		})
	}
}

// TestStatusOfPods: who holds what, and whose address EC2 has taken away.
func TestStatusOfPods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t, ec2sim.Config{}, "m5.large", "10.0.1.0/24")
		a := r.start()
		defer a.stop()
		time.Sleep(time.Minute) // the pool is full, and pods come to the primary ENI first
		start := time.Now()
		addrs := make(map[string]netip.Addr)
		for _, name := range []string{"z", "a"} {
			addr, err := a.add(name)
			if err != nil {
				t.Fatal(err)
			}
			addrs[name] = addr
		}
		attached, _ := r.enis()
		s := a.status()
		if len(s.Pods) != 2 || s.Pods[0].Name != "a" || s.Pods[1].Name != "z" {
			t.Fatalf("pods: %+v, want a and z", s.Pods)
		}
		for _, p := range s.Pods {
			if p.Address != addrs[p.Name].String() || p.ENI != attached[0].ID || p.Lost || !p.Since.Equal(start) || p.ContainerID != p.Name || p.Interface != "eth0" || p.Namespace != "default" {
				t.Errorf("pod: %+v", p)
			}
		}
		if s.ENIs[0].Pods != 2 || s.Pool.Assigned != 2 {
			t.Errorf("%d pods on the ENI, %d assigned, want 2", s.ENIs[0].Pods, s.Pool.Assigned)
		}
		time.Sleep(5 * time.Minute)
		// Or the node asks for one more, and gets the same.
		if err := r.cloud.SetFault(ec2sim.Fault{Action: "AssignPrivateIpAddresses", Code: "InsufficientFreeAddressesInSubnet"}); err != nil {
			t.Fatal(err)
		}
		err := r.cloud.UnassignPrivateIPAddresses(ec2sim.UnassignPrivateIPAddressesInput{ID: attached[0].ID, Addresses: []netip.Addr{addrs["z"]}})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute)
		s = a.status()
		if s.Pods[0].Lost || !s.Pods[1].Lost || s.Pool.Orphaned != 1 || s.Pool.Assigned != 1 {
			t.Errorf("pods %+v, pool %+v, want z to be lost", s.Pods, s.Pool)
		}
		if err := a.del("z"); err != nil {
			t.Fatal(err)
		}
		if s := a.status(); len(s.Pods) != 1 || s.Pool.Orphaned != 0 {
			t.Errorf("after it was deleted: pods %+v, pool %+v", s.Pods, s.Pool)
		}
	})
}

// TestObserver is told of what the executor did, and what came of it.
func TestObserver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t, ec2sim.Config{}, "m5.large", "10.0.1.0/24")
		var mu sync.Mutex
		got := make(map[string]int)
		count := func(what string, err error) {
			mu.Lock()
			defer mu.Unlock()
			got[fmt.Sprint(what, " ", err == nil)]++
		}
		r.observe = Observer{
			Change: func(c ipam.Change, err error) { count(string(c.Kind), err) },
			Read:   func(what Reading, err error) { count(string(what), err) },
		}
		if err := r.cloud.SetFault(ec2sim.Fault{Action: "AttachNetworkInterface", Code: "IncorrectState", Times: 1}); err != nil {
			t.Fatal(err)
		}
		a := r.start()
		time.Sleep(5 * time.Minute)
		a.stop()
		mu.Lock()
		defer mu.Unlock()
		for what, want := range map[string]int{"create eni true": 1, "attach eni false": 1, "attach eni true": 1} {
			if got[what] != want {
				t.Errorf("%s: %d times, want %d; all: %v", what, got[what], want, got)
			}
		}
		for _, what := range []string{"enis true", "metadata true"} {
			if got[what] == 0 {
				t.Errorf("%s: never; all: %v", what, got)
			}
		}
	})
}

// TestLeftAlone: an ENI that gives pods nothing has a reason for people.
func TestLeftAlone(t *testing.T) {
	addr := netip.MustParseAddr("10.0.1.9")
	own := map[string]string{ec2.TagInstance: "i-1"}
	for _, tt := range []struct {
		name    string
		eni     vpc.ENI
		cfg     Config
		hasPods bool
		want    string // begins with; empty: it is managed
	}{
		{"the primary", vpc.ENI{Primary: addr}, Config{}, false, ""},
		{"ours", vpc.ENI{DeviceIndex: 1, Primary: addr, Tags: own}, Config{}, false, ""},
		{"untagged", vpc.ENI{DeviceIndex: 1, Primary: addr, Tags: map[string]string{}}, Config{}, false, "not tagged"},
		{"untagged, and wanted", vpc.ENI{DeviceIndex: 1, Primary: addr, Tags: map[string]string{}}, Config{ManageUntagged: true}, false, ""},
		{"no_manage", vpc.ENI{DeviceIndex: 1, Primary: addr, Tags: map[string]string{ec2.TagNoManage: "true", ec2.TagInstance: "i-1"}}, Config{ManageUntagged: true}, false, "tagged"},
		{"no_manage with pods", vpc.ENI{DeviceIndex: 1, Primary: addr, Tags: map[string]string{ec2.TagNoManage: "true"}}, Config{}, true, ""},
		{"another card", vpc.ENI{CardIndex: 1, Primary: addr}, Config{}, true, "on network card 1"},
		{"no address", vpc.ENI{DeviceIndex: 1}, Config{}, false, "it has no IPv4"},
		{"trunk", vpc.ENI{DeviceIndex: 1, Primary: addr, Type: "trunk", Tags: own}, Config{}, false, "of type trunk"},
		{"detaching", vpc.ENI{DeviceIndex: 1, Primary: addr, Status: "detaching", Tags: own}, Config{}, false, "being detached"},
		{"ec2 has not spoken", vpc.ENI{DeviceIndex: 1, Primary: addr}, Config{ManageUntagged: true}, false, "EC2 has not said"},
		{"ec2 never speaks", vpc.ENI{DeviceIndex: 1, Primary: addr}, Config{IMDSOnly: true}, false, ""},
	} {
		b := &Book{cfg: tt.cfg, self: Identity{InstanceID: "i-1"}}
		got := b.leftAlone(tt.eni, tt.hasPods)
		if !strings.HasPrefix(got, tt.want) || (got == "") != (tt.want == "") {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
		if b.manages(tt.eni, tt.hasPods) != (tt.want == "") {
			t.Errorf("%s: managed, and left alone", tt.name)
		}
	}
}

// BenchmarkStatus is what a scrape takes of the node loop on a large node: 3920 addresses,
// and as many pods as the largest runs.
func BenchmarkStatus(b *testing.B) {
	limits, ok := vpc.LimitsOf("m5.24xlarge")
	if !ok {
		b.Fatal("the type is not known")
	}
	records, err := store.Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer records.Close()
	cfg := Config{Targets: ipam.DefaultTargets(), CoolDown: 30 * time.Second, ManageUntagged: true, IMDSOnly: true}
	cfg.Targets.Prefixes = true
	book := NewBook(cfg, Identity{InstanceID: "i-1", InstanceType: "m5.24xlarge", Limits: limits}, records, slog.New(slog.DiscardHandler), time.Now)
	var enis []vpc.ENI
	for i := range 5 {
		e := vpc.ENI{ID: fmt.Sprint("eni-", i), DeviceIndex: i, MAC: vpc.MAC{2, 0, 0, 0, 0, byte(i)}, Primary: netip.AddrFrom4([4]byte{10, byte(i), 255, 4})}
		for j := range 49 {
			e.Prefixes = append(e.Prefixes, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), byte(j), 0}), 28))
		}
		enis = append(enis, e)
	}
	book.SawMetadata(enis, time.Now())
	for i := range 737 {
		if _, err := book.Hold(store.Record{ContainerID: fmt.Sprint("c", i), IfName: "eth0", PodName: fmt.Sprint("pod", i), PodNamespace: "default"}); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if s := book.Status(); s.Pool.Assigned != 737 || s.Pool.Total != 5*49*16 {
			b.Fatalf("%+v", s.Pool)
		}
	}
}

// TestStatusBeforeTheFirstListing: what is waited for at the start is no refusal of
// any call, and the status says it all the same.
func TestStatusBeforeTheFirstListing(t *testing.T) {
	now := time.Unix(1e9, 0)
	b := NewBook(Config{}, Identity{}, nil, slog.New(slog.DiscardHandler), func() time.Time { return now })
	key := ipam.BlockKey{Kind: ipam.CreateENI}
	got := b.refusedStatus(map[ipam.BlockKey]ipam.Block{key: {Until: now.Add(time.Second), Reason: "not yet"}})
	if len(got) != 1 || got[0].Reason != "not yet" || got[0].Throttled {
		t.Errorf("refused: %+v", got)
	}
}
