package ipamd

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/fairway-cni/fairway/internal/core/ipam"
	"github.com/fairway-cni/fairway/internal/core/vpc"
	"github.com/fairway-cni/fairway/internal/edge/agentapi"
)

// Observer is told what the executor does, for whoever counts it. Each function may
// be nil, and may be called by several goroutines at once.
type Observer struct {
	Change        func(c ipam.Change, err error) // its call is over
	Read          func(what Reading, err error)
	LeakedDeleted func()
}

// Reading is one kind of complete listing.
type Reading string

const (
	FromMetadata Reading = "metadata" // the ENIs, as IMDS says
	FromEC2      Reading = "enis"     // the ENIs, as EC2 says
	OfSubnets    Reading = "subnets"
	OfLeaked     Reading = "leaked_enis"
)

// Undecided reports whether EC2 may have made a change although its call failed.
func Undecided(err error) bool { return undecided(err) }

// noteArrivals remembers since when ENIs are on their way: from the begin of the
// call that attaches them, or from when one was first seen without a device.
func (b *Book) noteArrivals(now time.Time) {
	for _, id := range b.arriving {
		if _, known := b.attaching[id]; !known {
			b.attaching[id] = now
		}
	}
	for id := range b.attaching {
		if !slices.Contains(b.arriving, id) && !b.attachUnderWay(id) {
			delete(b.attaching, id)
		}
	}
}

func (b *Book) attachUnderWay(eni string) bool { return b.underWay(ipam.AttachENI, eni) }

func (b *Book) underWay(k ipam.Kind, eni string) bool {
	return slices.ContainsFunc(b.flight, func(f flight) bool { return f.Change.Kind == k && f.Change.ENI == eni })
}

// missing reports whether the ENI has had a device, and has none now.
func (b *Book) missing(eni string) bool {
	there, had := b.devices[eni]
	return had && !there
}

// Status says how the addresses stand. Devices of ENIs, and what the kernel holds,
// are the caller's to fill in; so is Problems. All of it is the caller's own.
func (b *Book) Status() agentapi.Status {
	state, now := b.State(), b.now()
	stats := b.pool.Stats(now)
	wish := ipam.Wanted(state, b.cfg.Targets)
	s := agentapi.Status{
		At:      now,
		Node:    b.nodeStatus(),
		Targets: b.targetStatus(),
		Pool: agentapi.Pool{
			Free: stats.Free, Assigned: stats.Assigned, Cooling: stats.Cooling, Reserved: stats.Reserved, Leaving: stats.Leaving,
			Disputed: stats.Disputed, Total: stats.Total, Orphaned: stats.Orphaned, NextFree: stats.NextFree,
			Capacity: ipam.Capacity(state, b.cfg.Targets),
		},
		Wanted: agentapi.Wanted{Addresses: wish.Addresses, Prefixes: wish.Prefixes, ENIs: wish.ENIs, Why: wish.Why},
		ENIs:   b.eniStatus(state.Entries),
		Pods:   b.podStatus(),
		EC2:    agentapi.EC2{Used: !b.cfg.IMDSOnly, Offline: b.offline, ListedAt: b.listed},
	}
	for _, e := range b.managed {
		s.Pool.Prefixes += len(e.Prefixes)
	}
	for _, e := range state.Entries {
		if s.Pool.Disputed > 0 && e.State == ipam.Free && e.Disputed && !e.Orphan && slices.Contains(b.arriving, e.ENI) {
			s.Pool.Arriving++
			s.Pool.Disputed--
		}
	}
	s.Scheduled = state.Scheduled
	s.Waiting = make([]agentapi.Waiting, 0, len(b.queue))
	for _, w := range b.queue {
		s.Waiting = append(s.Waiting, agentapi.Waiting{ContainerID: w.owner.ContainerID, Interface: w.owner.IfName, Since: w.since})
	}
	if len(b.queue) > 0 {
		s.Outlook = b.Outlook(0).Text
	}
	s.InFlight = make([]agentapi.Flight, 0, len(b.flight))
	for _, f := range b.flight {
		c := f.Change
		s.InFlight = append(s.InFlight, agentapi.Flight{Kind: string(c.Kind), ENI: c.ENI, Text: strings.TrimSuffix(c.String(), ": "+c.Why), Why: c.Why, Since: f.Since})
	}
	s.Refused = b.refusedStatus(state.Blocked)
	s.Subnets = make([]agentapi.Subnet, 0, len(state.Subnets))
	for _, n := range b.subnetsShown(state) {
		s.Subnets = append(s.Subnets, agentapi.Subnet{ID: n.ID, Zone: n.Zone, CIDR: n.CIDR.String(), Free: n.Free})
	}
	return s
}

func (b *Book) nodeStatus() agentapi.Node {
	n := agentapi.Node{
		InstanceID: b.self.InstanceID, InstanceType: b.self.InstanceType, VPC: b.self.VPCID, Zone: b.self.Zone,
		MaxPods: b.cfg.MaxPods, MaxENIs: b.self.Limits.ENIs, LimitsKnown: b.self.Limits.ENIs > 0,
	}
	if most := b.cfg.Targets.MaxENIs; most > 0 {
		n.MaxENIs = min(n.MaxENIs, most)
	}
	for _, e := range b.others {
		if e.CardIndex == b.self.Limits.DefaultCard {
			n.MaxENIs--
		}
	}
	if b.cfg.Custom.Enabled {
		n.MaxENIs-- // the primary
		n.Custom, n.CustomFault = b.cfg.Custom.Name, b.network().Problem
	}
	n.MaxENIs = max(n.MaxENIs, 0)
	n.MaxPodsFit = ipam.MaxPodsOf(b.self.InstanceType, b.self.Limits, n.MaxENIs, b.cfg.Targets.Prefixes)
	return n
}

func (b *Book) targetStatus() agentapi.Targets {
	t := b.cfg.Targets
	return agentapi.Targets{
		WarmENIs: t.WarmENIs, WarmIPs: t.WarmIPs, MinimumIPs: t.MinimumIPs, WarmPrefixes: t.WarmPrefixes,
		MaxENIs: max(t.MaxENIs, 0), Prefixes: t.Prefixes, Provisioning: !t.NoProvisioning,
		CoolDown: b.cfg.CoolDown.Seconds(), ReturnAfter: t.ReturnAfter.Seconds(),
	}
}

// eniStatus lists the attached ENIs by device, then the detached ones.
func (b *Book) eniStatus(entries []ipam.Entry) []agentapi.ENI {
	pods := make(map[string]int)
	for _, e := range entries {
		if e.State == ipam.Assigned && !e.Orphan {
			pods[e.ENI]++
		}
	}
	list := make([]agentapi.ENI, 0, len(b.managed)+len(b.others)+len(b.detached))
	add := func(e vpc.ENI, state, why string) {
		s := agentapi.ENI{
			ID: e.ID, DeviceIndex: e.DeviceIndex, CardIndex: e.CardIndex, MAC: e.MAC.String(), Subnet: e.SubnetID,
			State: state, Why: why, Addresses: len(e.Secondary), Prefixes: len(e.Prefixes), Pods: pods[e.ID],
		}
		if e.Primary.IsValid() {
			s.Address = e.Primary.String()
		}
		if state == agentapi.Attaching || state == agentapi.Missing {
			s.Since = b.attaching[e.ID]
		}
		list = append(list, s)
	}
	for _, e := range b.managed {
		state, why := agentapi.Attached, ""
		switch {
		case e.Status == "detaching", b.underWay(ipam.DetachENI, e.ID): // the device may go before EC2 answers
			state = agentapi.Detaching
		case b.missing(e.ID) && !b.attachUnderWay(e.ID):
			state = agentapi.Missing
		case slices.Contains(b.arriving, e.ID): // EC2's word on it may be an hour old
			state = agentapi.Attaching
		case b.cfg.Custom.Enabled && e.DeviceIndex == 0:
			why = "new pods get nothing from it: custom networking"
		}
		add(e, state, why)
	}
	for _, e := range b.others {
		state := agentapi.Unmanaged
		if e.Status == "detaching" {
			state = agentapi.Detaching
		}
		add(e, state, b.leftAlone(e, false))
	}
	slices.SortStableFunc(list, func(a, b agentapi.ENI) int {
		return cmp.Or(cmp.Compare(a.CardIndex, b.CardIndex), cmp.Compare(a.DeviceIndex, b.DeviceIndex))
	})
	for _, e := range b.detached {
		e.DeviceIndex = -1
		state := agentapi.Detached
		if b.attachUnderWay(e.ID) {
			state = agentapi.Attaching
		}
		add(e, state, "")
	}
	return list
}

func (b *Book) podStatus() []agentapi.Pod {
	list := make([]agentapi.Pod, 0, len(b.records))
	for owner, r := range b.records {
		p := agentapi.Pod{
			Namespace: r.PodNamespace, Name: r.PodName, ContainerID: r.ContainerID, Interface: r.IfName,
			Address: r.Addr.String(), ENI: r.ENI, Device: r.HostVeth, Since: r.CreatedAt, Lost: b.lost[owner],
		}
		if a, ok := b.pool.Lookup(owner); ok {
			p.ENI = a.ENI
		}
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b agentapi.Pod) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ContainerID, b.ContainerID), cmp.Compare(a.Interface, b.Interface))
	})
	return list
}

func (b *Book) refusedStatus(blocked map[ipam.BlockKey]ipam.Block) []agentapi.Refused {
	list := make([]agentapi.Refused, 0, len(blocked))
	for key, v := range blocked {
		mine, own := b.blocked[key]
		own = own && mine == v // else the budget holds for longer
		r := agentapi.Refused{Kind: string(key.Kind), Target: key.Target, Until: v.Until, Reason: v.Reason, Fatal: v.Fatal, Cause: string(v.Cause)}
		if own {
			r.Times = b.failures[key]
		} else if u := b.budgets[actions[key.Kind]]; u != nil { // none: the first listing is waited for
			r.Throttled = u.gap > 0
		}
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b agentapi.Refused) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Target, b.Target))
	})
	return list
}

// subnetsShown is where ENIs may be made, as far as that was looked up: with
// custom networking one subnet, without discovery none.
func (b *Book) subnetsShown(s ipam.State) []vpc.Subnet {
	if !b.cfg.Custom.Enabled {
		return s.Subnets
	}
	var own []vpc.Subnet
	for _, n := range b.subnets {
		if n.ID == b.cfg.Custom.Subnet {
			own = append(own, n)
		}
	}
	return own
}
