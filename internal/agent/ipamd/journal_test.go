package ipamd

import (
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/fairway-cni/fairway/internal/core/ipam"
	"github.com/fairway-cni/fairway/internal/core/vpc"
	"github.com/fairway-cni/fairway/internal/edge/ec2"
	"github.com/fairway-cni/fairway/internal/edge/store"
)

// desk is books on one directory of records, one after the other, with a clock
// that a test moves.
type desk struct {
	t       *testing.T
	dir     string
	now     time.Time
	records *store.Store
	*Book
}

const self = "i-0123456789abcdef0"

func newDesk(t *testing.T) *desk {
	d := &desk{t: t, dir: recordsDir(t), now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	d.restart()
	t.Cleanup(func() { d.records.Close(); os.RemoveAll(d.dir) })
	return d
}

// restart is the end of an agent at this moment, and the next one.
func (d *desk) restart() {
	d.t.Helper()
	var err error
	if d.records != nil {
		if err := d.records.Close(); err != nil {
			d.t.Fatal(err)
		}
	}
	if d.records, err = store.Open(d.dir); err != nil {
		d.t.Fatal(err)
	}
	limits, _ := vpc.LimitsOf("m5.large")
	d.Book = NewBook(Config{Targets: ipam.DefaultTargets(), CoolDown: 30 * time.Second, ManageUntagged: true},
		Identity{InstanceID: self, InstanceType: "m5.large", Limits: limits, Zone: "eu-west-1a"},
		d.records, slog.New(slog.DiscardHandler), func() time.Time { return d.now })
	if err := d.Restore(); err != nil {
		d.t.Fatal(err)
	}
}

// device is an ENI of the node with addresses and prefixes.
func device(index int, units ...string) vpc.ENI {
	names := []string{"eni-a", "eni-b", "eni-c"}
	e := vpc.ENI{ID: names[index], AttachmentID: "attach-" + names[index], DeviceIndex: index, Status: "attached", SubnetID: "subnet-1",
		Primary: netip.AddrFrom4([4]byte{10, 0, byte(index), 4}), Tags: map[string]string{ec2.TagInstance: self}, DeleteOnTermination: true}
	for _, u := range units {
		if p, err := netip.ParsePrefix(u); err == nil {
			e.Prefixes = append(e.Prefixes, p)
		} else {
			e.Secondary = append(e.Secondary, netip.MustParseAddr(u))
		}
	}
	return e
}

// begin takes a change into flight as Begin does.
func (d *desk) begin(c ipam.Change) {
	d.t.Helper()
	f := flight{Change: c, Since: d.now, addrs: d.given(c)}
	if err := d.withdraw(c, f.addrs, d.now); err != nil {
		d.t.Fatal(err)
	}
	d.flight = append(d.flight, f)
}

func (d *desk) hold(name string) (netip.Addr, error) {
	r, err := d.Hold(store.Record{ContainerID: name, IfName: "eth0"})
	return r.Addr, err
}

func (d *desk) mustHold(name string) netip.Addr {
	d.t.Helper()
	a, err := d.hold(name)
	if err != nil {
		d.t.Fatal(err)
	}
	return a
}

// fine fails where a pod of the node has lost its address.
func (d *desk) fine() {
	d.t.Helper()
	if st := d.Stats(); st.Orphaned > 0 {
		d.t.Errorf("%d pods have lost their address: %+v", st.Orphaned, st)
	}
}

var errRefused = errors.New("EC2 refused")

// TestJournalOfRefusals: what EC2 has refused to take is given to a pod, and the
// next agent knows that the pod has it.
func TestJournalOfRefusals(t *testing.T) {
	for _, second := range []vpc.ENI{device(1, "10.0.1.5", "10.0.1.6"), device(1, "10.0.1.16/28")} {
		d := newDesk(t)
		enis := []vpc.ENI{device(0), second}
		d.SawMetadata(enis, d.now)
		d.SawENIs(enis, d.now)
		c := ipam.Change{Kind: ipam.DetachENI, ENI: "eni-b", AttachmentID: "attach-eni-b"}
		d.begin(c)
		if a, err := d.hold("early"); err == nil {
			t.Errorf("%s was given to a pod while EC2 is asked to take it", a)
		}
		d.Conclude(c, ipam.Result{}, errRefused)
		a := d.mustHold("late")
		d.now = d.now.Add(time.Second)
		d.restart()
		d.SawMetadata(enis, d.now)
		d.fine()
		if again := d.mustHold("late"); again != a {
			t.Errorf("the pod has %s after the restart, want %s", again, a)
		}
		if leaving, err := d.records.Leaving(); err != nil || len(leaving) > 0 {
			t.Errorf("the journal has %v, %v", leaving, err)
		}
	}
}

// TestJournalOfDetached: an ENI that comes back right after it was detached has its
// addresses still, and a pod that gets one keeps it under the next agent.
func TestJournalOfDetached(t *testing.T) {
	for _, second := range []vpc.ENI{device(1, "10.0.1.5"), device(1, "10.0.1.16/28")} {
		d := newDesk(t)
		enis := []vpc.ENI{device(0), second}
		d.SawMetadata(enis, d.now)
		d.SawENIs(enis, d.now)
		c := ipam.Change{Kind: ipam.DetachENI, ENI: "eni-b", AttachmentID: "attach-eni-b"}
		d.begin(c)
		d.Conclude(c, ipam.Result{}, nil)
		d.now = d.now.Add(2 * time.Second)
		c = ipam.Change{Kind: ipam.AttachENI, ENI: "eni-b", DeviceIndex: 1}
		d.begin(c)
		d.Conclude(c, ipam.Result{AttachmentID: "attach-again"}, nil)
		a := d.mustHold("pod")
		d.now = d.now.Add(time.Second)
		d.restart()
		d.SawMetadata(enis, d.now)
		d.fine()
		if again := d.mustHold("pod"); again != a {
			t.Errorf("the pod has %s after the restart, want %s", again, a)
		}
	}
}

// TestJournalOfReturns: an address that EC2 gives again right after it was given
// back is a pod's as any other, also for the next agent.
func TestJournalOfReturns(t *testing.T) {
	d := newDesk(t)
	enis := []vpc.ENI{device(0, "10.0.0.5")}
	d.SawMetadata(enis, d.now)
	d.SawENIs(enis, d.now)
	addr := netip.MustParseAddr("10.0.0.5")
	back := ipam.Change{Kind: ipam.UnassignAddresses, ENI: "eni-a", Addrs: []netip.Addr{addr}}
	d.begin(back)
	d.Conclude(back, ipam.Result{}, nil)
	d.now = d.now.Add(time.Second)
	d.Conclude(ipam.Change{Kind: ipam.AssignAddresses, ENI: "eni-a", Count: 1}, ipam.Result{Addrs: []netip.Addr{addr}}, nil)
	if a := d.mustHold("pod"); a != addr {
		t.Fatalf("the pod has %s", a)
	}
	d.now = d.now.Add(time.Second)
	d.restart()
	d.SawMetadata(enis, d.now)
	d.fine()
}

// TestJournal: what EC2 was asked to take is given to nobody by the next agent,
// whatever the metadata service says, until reads can be trusted again.
func TestJournal(t *testing.T) {
	for _, tt := range []struct {
		name   string
		second vpc.ENI
		change ipam.Change
	}{
		{"addresses", device(1, "10.0.1.5"), ipam.Change{Kind: ipam.UnassignAddresses, ENI: "eni-b", Addrs: []netip.Addr{netip.MustParseAddr("10.0.1.5")}}},
		{"a prefix", device(1, "10.0.1.16/28"), ipam.Change{Kind: ipam.UnassignPrefixes, ENI: "eni-b", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.1.16/28")}}},
		{"an ENI", device(1, "10.0.1.5"), ipam.Change{Kind: ipam.DetachENI, ENI: "eni-b", AttachmentID: "attach-eni-b"}},
		{"an ENI with a prefix", device(1, "10.0.1.16/28"), ipam.Change{Kind: ipam.DetachENI, ENI: "eni-b", AttachmentID: "attach-eni-b"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDesk(t)
			enis := []vpc.ENI{device(0), tt.second}
			d.SawMetadata(enis, d.now)
			d.SawENIs(enis, d.now)
			d.begin(tt.change)
			for _, after := range []time.Duration{0, time.Second, Settle / 2} {
				d.now = d.now.Add(after)
				d.restart()
				d.SawMetadata(enis, d.now) // it is late
				d.SawENIs(enis, d.now)
				if a, err := d.hold("pod"); err == nil {
					t.Fatalf("%s was given to a pod", a)
				}
			}
			d.now = d.now.Add(Settle)
			d.restart()
			d.SawMetadata(enis, d.now)
			d.SawENIs(enis, d.now)
			d.mustHold("pod") // the call never reached EC2
		})
	}
}
