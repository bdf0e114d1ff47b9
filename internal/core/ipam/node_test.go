package ipam

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// What the planner's tests say of a node, in few words.

// m5large has 3 ENIs of 10 addresses: 27 for pods.
var m5large = vpc.Limits{ENIs: 3, IPv4PerENI: 10, Cards: []int{3}, Hypervisor: "nitro"}

// has is one ENI and what its addresses do, in their order: so many are held by
// pods, then so many cool and so on; the rest is free since an hour, but for the
// last few, which are free since now.
type has struct {
	eni                              vpc.ENI
	held, cooling, reserved, leaving int
	disputed, young                  int
}

// node is the state of an m5.large with the ENIs.
func node(all ...has) State {
	s := State{InstanceType: "m5.large", InstanceID: "i-1", Limits: m5large}
	for _, h := range all {
		s.ENIs = append(s.ENIs, h.eni)
		s.Entries = append(s.Entries, h.entries()...)
	}
	return s
}

func (h has) entries() []Entry {
	var all []Entry
	addrs := h.eni.PodAddresses()
	for i, a := range addrs {
		e := Entry{Addr: a, ENI: h.eni.ID, Since: t0.Add(-time.Hour)}
		for _, p := range h.eni.Prefixes {
			if p.Contains(a) {
				e.Prefix = p
			}
		}
		n := i
		is := func(count int) bool { n -= count; return n < 0 }
		switch {
		case is(h.held):
			e.State, e.Owner, e.Since = Assigned, pod(1000*h.eni.DeviceIndex+i), time.Time{}
		case is(h.cooling):
			e.State, e.Until, e.Since = CoolingDown, afterCool, time.Time{}
		case is(h.reserved):
			e.State = Reserved
		case is(h.leaving):
			e.State = Leaving
		case is(h.disputed):
			e.Disputed, e.DisputedSince = true, t0.Add(-time.Second)
		case i >= len(addrs)-h.young:
			e.Since = t0
		}
		all = append(all, e)
	}
	return all
}

// but changes a state.
func (s State) but(change func(*State)) State {
	change(&s)
	return s
}

func (s State) waiting(n int) State   { s.Waiting = n; return s }
func (s State) scheduled(n int) State { s.Scheduled = n; return s }
func (s State) maxPods(n int) State   { s.MaxPods = n; return s }

func (s State) under(way ...Change) State {
	s.InFlight = way
	return s
}

func (s State) blocks(k Kind, target string) State {
	blocked := map[BlockKey]Block{}
	for key, b := range s.Blocked {
		blocked[key] = b
	}
	blocked[BlockKey{k, target}] = Block{Until: t0.Add(30 * time.Second), Reason: "EC2 said no"}
	s.Blocked = blocked
	return s
}

func (s State) custom(subnet string) State {
	s.Network = Network{Enabled: true, SubnetID: subnet, Groups: []string{"sg-pods"}}
	return s
}

// of makes it a node of another type, by the table.
func (s State) of(t *testing.T, instanceType string) State {
	t.Helper()
	l, ok := vpc.LimitsOf(instanceType)
	if !ok {
		t.Fatalf("type %s is not known", instanceType)
	}
	s.InstanceType, s.Limits = instanceType, l
	return s
}

// What users set.

func warmENIs(n int) Targets {
	t := DefaultTargets()
	t.WarmENIs = n
	return t
}

func ips(warm, minimum int) Targets {
	t := DefaultTargets()
	t.WarmIPs, t.MinimumIPs = warm, minimum
	return t
}

func prefixes(warm int) Targets {
	t := DefaultTargets()
	t.Prefixes, t.WarmPrefixes = true, warm
	return t
}

// with gives an ENI n prefixes: 10.1.<device>.0/28, .16/28 and so on.
func with(e vpc.ENI, n int) vpc.ENI {
	for i := range n {
		e.Prefixes = append(e.Prefixes, prefix(e.DeviceIndex, i))
	}
	return e
}

func prefix(device, i int) netip.Prefix {
	return netip.MustParsePrefix(fmt.Sprintf("10.1.%d.%d/28", device, 16*i))
}

// made is an ENI that this node has made an hour ago.
func made(e vpc.ENI) vpc.ENI {
	e.Tags = map[string]string{InstanceTag: "i-1", OwnerTag: OwnerValue}
	e.CreatedAt = t0.Add(-time.Hour)
	e.Status, e.AttachmentID, e.DeleteOnTermination = "attached", fmt.Sprintf("eni-attach-%d", e.DeviceIndex), true
	return e
}

// loose is such an ENI that is attached to nothing.
func loose(e vpc.ENI) vpc.ENI {
	e = made(e)
	e.Status, e.AttachmentID, e.DeleteOnTermination, e.DeviceIndex = "", "", false, 0
	return e
}
