package ipamd

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/fairway-cni/fairway/internal/core/ipam"
	"github.com/fairway-cni/fairway/internal/core/vpc"
	"github.com/fairway-cni/fairway/internal/edge/ec2"
	"github.com/fairway-cni/fairway/internal/edge/imds"
	"github.com/fairway-cni/fairway/lab/ec2sim"
)

// world is what a seed makes of a run, and what is wrong with it at the moment.
type world struct {
	kind     string // instance type
	self     imds.Identity
	cfg      Config
	lag      time.Duration // of EC2's reads, at most
	delay    time.Duration // of EC2's answers, usually
	pace     time.Duration // between two arrivals of pods
	lifetime time.Duration // of a pod
	most     int           // pods
	crash    int           // the higher, the rarer the agent dies; 0: never
	loss     int           // one of so many requests or answers is lost

	noMetadata  bool
	frozenUntil time.Time
	imdsLag     time.Duration
	losing      bool // more is lost than usual
	tenants     []string
	foreign     map[string]bool // ENIs that must stay
	leaked      map[string]bool // ENIs of other nodes that must go
	others      []string        // somebody else's ENIs on the node
}

const clusterName = "blue"

// kinds of instances: mostly small ones, which are full sooner.
var kinds = []string{"t3.nano", "t3.nano", "t3.small", "t3.small", "t3.medium", "m5.large", "m5.large", "m5.xlarge", "t2.micro", "m4.large"}

// newWorld draws a world, and the cloud that it needs.
func newWorld(s *sim) (world, ec2sim.Config) {
	w := world{kind: kinds[s.draw.IntN(len(kinds))], crash: 2 + s.draw.IntN(3), loss: 60 + s.draw.IntN(200),
		delay: 10*time.Millisecond + s.upTo(200*time.Millisecond), pace: 100*time.Millisecond + s.upTo(2*time.Second),
		lifetime: 3*time.Second + s.upTo(60*time.Second),
		foreign:  make(map[string]bool), leaked: make(map[string]bool)}
	cloud := ec2sim.Config{Seed: s.seed, Chance: s.seed, Throttle: true, Memory: 10 * time.Second}
	if s.chance(2) {
		w.lag = s.upTo(2 * time.Second)
		cloud.Lag = w.lag
	}
	if !s.chance(4) {
		cloud.Attach = time.Second + s.upTo(4*time.Second)
	}
	w.imdsLag = s.upTo(5 * time.Second)
	limits, _ := vpc.LimitsOf(w.kind)
	w.cfg = Config{ManageUntagged: !s.chance(4), LeakedCleanup: s.chance(2), Cluster: clusterName, CoolDown: 30 * time.Second, IMDSOnly: s.chance(25)}
	if s.chance(3) {
		w.cfg.CoolDown = 0
	}
	w.switchMode(s)
	w.most = min(ipam.MaxPodsOf(w.kind, limits, limits.ENIs, false)+3, 45)
	if !s.chance(3) {
		w.cfg.MaxPods = min(ipam.MaxPodsOf(w.kind, limits, limits.ENIs, w.cfg.Targets.Prefixes), 2+s.draw.IntN(60))
		w.most = min(w.most, w.cfg.MaxPods)
	}
	return w, cloud
}

// switchMode draws what the user wants of the pool.
func (w *world) switchMode(s *sim) {
	t := ipam.DefaultTargets()
	t.ReturnAfter = []time.Duration{5 * time.Second, 20 * time.Second, time.Minute}[s.draw.IntN(3)]
	switch s.draw.IntN(7) {
	case 0, 1:
		t.WarmENIs = s.draw.IntN(2)
	case 2:
		t.WarmIPs = 1 + s.draw.IntN(5)
	case 3:
		t.WarmIPs, t.MinimumIPs = 1+s.draw.IntN(3), 1+s.draw.IntN(12)
	case 4:
		t.MinimumIPs = 1 + s.draw.IntN(8)
	case 5:
		t.Prefixes, t.WarmPrefixes = true, s.draw.IntN(3)
	case 6:
		t.Prefixes, t.WarmIPs, t.MinimumIPs = true, 1+s.draw.IntN(20), s.draw.IntN(20)
	}
	if s.chance(6) {
		t.MaxENIs = 1 + s.draw.IntN(4)
	}
	t.MarkAndTag = !w.cfg.IMDSOnly
	w.cfg.Targets = t
}

// furnish makes what the node's surroundings have: further subnets, other nodes.
func (s *sim) furnish() {
	w, c := &s.world, s.r.cloud
	snap := c.Snapshot()
	own := snap.Subnets[0]
	subnet := func(cidr, zone string, tags map[string]string) string {
		n, err := c.CreateSubnet(ec2sim.CreateSubnetInput{VPCID: own.VPCID, CIDR: netip.MustParsePrefix(cidr), Zone: zone, Tags: tags})
		if err != nil {
			s.wrong("create subnet: %v", err)
		}
		return n.ID
	}
	switch {
	case w.cfg.IMDSOnly:
		for _, e := range snap.Interfaces {
			limits, _ := vpc.LimitsOf(w.kind)
			in := ec2sim.AssignPrivateIPAddressesInput{ID: e.ID, Count: limits.IPv4PerENI - 1}
			if _, err := c.AssignPrivateIPAddresses(in); err != nil {
				s.wrong("assign at launch: %v", err)
			}
		}
	case s.chance(8):
		w.cfg.Custom = Custom{Enabled: true, Name: own.Zone, Subnet: subnet("10.0.128.0/22", own.Zone, nil)}
	case s.chance(4):
		w.cfg.SubnetDiscovery = true
		subnet("10.0.128.0/24", own.Zone, map[string]string{tagRole: "1"})
		subnet("10.0.129.0/24", own.Zone, map[string]string{tagRole: "0"})
		subnet("10.0.130.0/24", own.Zone, map[string]string{tagRole: "1", tagCluster + "green": "shared"})
	}
	c.Propagate()
}

// strike is something that goes wrong; most of it ends by itself.
func (s *sim) strike() {
	if s.calm || s.bad != "" {
		return
	}
	s.in(time.Duration(s.draw.ExpFloat64()*float64(10*time.Second)), s.strike)
	f := faults[s.draw.IntN(len(faults))]
	if of, ok := f.do(s); ok {
		s.event(f.name, of)
		s.tally.fault(f.name)
	}
}

var writes = []string{"CreateNetworkInterface", "AttachNetworkInterface", "ModifyNetworkInterfaceAttribute", "AssignPrivateIpAddresses",
	"UnassignPrivateIpAddresses", "DetachNetworkInterface", "DeleteNetworkInterface", "CreateTags", "DescribeNetworkInterfaces", "DescribeSubnets"}

var faults = []struct {
	name string
	do   func(*sim) (string, bool)
}{
	{"throttled by others", func(s *sim) (string, bool) {
		return s.refuse(ec2sim.Fault{Code: "RequestLimitExceeded", Probability: 0.3 + 0.7*s.draw.Float64()}, 20*time.Second)
	}},
	{"rights missing", func(s *sim) (string, bool) {
		return s.refuse(ec2sim.Fault{Code: "UnauthorizedOperation"}, 30*time.Second)
	}},
	{"internal error", func(s *sim) (string, bool) {
		return s.refuse(ec2sim.Fault{Code: "InternalError", Status: 500, Probability: 0.5}, 20*time.Second)
	}},
	{"quota reached", func(s *sim) (string, bool) {
		f := ec2sim.Fault{Action: "CreateNetworkInterface", Code: "NetworkInterfaceLimitExceeded"}
		return s.refuse(f, 30*time.Second)
	}},
	{"outage", func(s *sim) (string, bool) {
		kind := []string{ec2sim.OutageRefuse, ec2sim.OutageError, ec2sim.OutageHang}[s.draw.IntN(3)]
		if err := s.r.cloud.SetOutage(kind, time.Second+s.upTo(40*time.Second)); err != nil {
			s.wrong("outage: %v", err)
		}
		return kind, true
	}},
	{"answers lost", func(s *sim) (string, bool) {
		s.world.losing = true
		s.in(s.upTo(20*time.Second), func() { s.world.losing = false })
		return "", true
	}},
	{"imds away", func(s *sim) (string, bool) {
		s.world.noMetadata = true
		s.in(s.upTo(20*time.Second), func() { s.world.noMetadata = false })
		return "", true
	}},
	{"imds stale", func(s *sim) (string, bool) { // for less than Settle: longer is not to be survived without EC2
		if time.Now().Before(s.world.frozenUntil.Add(10 * time.Second)) {
			return "", false
		}
		_, _ = s.labMetadata() // what it says now it goes on saying
		s.world.frozenUntil = time.Now().Add(s.upTo(20 * time.Second))
		return "", true
	}},
	{"imds lag", func(s *sim) (string, bool) {
		s.world.imdsLag = s.upTo(5 * time.Second)
		return s.world.imdsLag.String(), true
	}},
	{"address taken", func(s *sim) (string, bool) { return s.takeAddress() }},
	{"eni taken", func(s *sim) (string, bool) { return s.takeENI() }},
	{"address added", func(s *sim) (string, bool) { return s.addAddress() }},
	{"eni of others", func(s *sim) (string, bool) { return s.attachForeign() }},
	{"eni of others gone", func(s *sim) (string, bool) { return s.detachForeign() }},
	{"subnet fills", func(s *sim) (string, bool) { return s.fillSubnet() }},
	{"subnet empties", func(s *sim) (string, bool) { return "", s.emptySubnet() }},
	{"eni leaked", func(s *sim) (string, bool) { return s.leak() }},
}

// refuse has requests for some action fail for a while.
func (s *sim) refuse(f ec2sim.Fault, last time.Duration) (string, bool) {
	if f.Action == "" {
		f.Action = writes[s.draw.IntN(len(writes))]
	}
	f.Seed = s.draw.Uint64()
	if err := s.r.cloud.SetFault(f); err != nil {
		s.wrong("fault: %v", err)
	}
	s.in(s.upTo(last), func() { s.r.cloud.ClearFault(f.Action) })
	return f.Action, true
}

// ours lists the ENIs on the node, the primary first.
func (s *sim) ours() []ec2sim.NetworkInterface {
	var list []ec2sim.NetworkInterface
	for _, e := range s.look().snap.Interfaces {
		if a := e.Attachment; a != nil && a.InstanceID == s.r.instance && !slices.Contains(s.world.others, e.ID) {
			list = append(list, e)
		}
	}
	return list
}

func (s *sim) takeAddress() (string, bool) {
	var all []netip.Addr
	for _, e := range s.ours() {
		all = append(all, podAddresses(e)...)
	}
	if len(all) == 0 || !s.chance(3) {
		return "", false
	}
	a := all[s.draw.IntN(len(all))]
	e := s.look().enis[s.look().owner[a]]
	gone := []netip.Addr{a}
	for _, p := range e.Prefixes {
		if p.Contains(a) {
			gone = podAddresses(ec2sim.NetworkInterface{Prefixes: []netip.Prefix{p}})
		}
	}
	if err := s.r.cloud.TakeAddress(a, e.ID); err != nil {
		s.wrong("take %s: %v", a, err)
	}
	s.took(gone)
	return a.String(), true
}

func (s *sim) took(gone []netip.Addr) {
	for _, a := range gone {
		s.truth.taken[a] = time.Now()
	}
}

func (s *sim) takeENI() (string, bool) {
	list := s.ours()
	if len(list) < 2 || !s.chance(4) {
		return "", false
	}
	e := list[1+s.draw.IntN(len(list)-1)]
	if e.Attachment.DeviceIndex == 0 {
		return "", false
	}
	if err := s.r.cloud.TakeENI(e.ID); err != nil {
		s.wrong("take %s: %v", e.ID, err)
	}
	s.took(podAddresses(e))
	return e.ID, true
}

func (s *sim) addAddress() (string, bool) {
	list := s.ours()
	e := list[s.draw.IntN(len(list))]
	_, err := s.r.cloud.AssignPrivateIPAddresses(ec2sim.AssignPrivateIPAddressesInput{ID: e.ID, Count: 1})
	s.truth.disturbed = time.Now()
	return e.ID, err == nil
}

func (s *sim) attachForeign() (string, bool) {
	if len(s.world.others) > 0 || s.world.cfg.IMDSOnly {
		return "", false
	}
	tags := map[string]string{ec2.TagNoManage: "true"}
	if !s.world.cfg.ManageUntagged && s.chance(2) {
		tags = nil
	}
	e, err := s.r.cloud.CreateNetworkInterface(ec2sim.CreateNetworkInterfaceInput{SubnetID: s.r.subnet, Tags: tags})
	if err != nil {
		return "", false
	}
	device := 1
	for _, o := range s.ours() {
		device = max(device, o.Attachment.DeviceIndex+1)
	}
	if _, err = s.r.cloud.AttachNetworkInterface(ec2sim.AttachNetworkInterfaceInput{InterfaceID: e.ID, InstanceID: s.r.instance, DeviceIndex: device}); err != nil {
		err = s.r.cloud.DeleteNetworkInterface(ec2sim.DeleteNetworkInterfaceInput{ID: e.ID})
		return "", err != nil
	}
	s.world.others = append(s.world.others, e.ID)
	s.world.foreign[e.ID] = true
	s.truth.disturbed = time.Now()
	return e.ID, true
}

func (s *sim) detachForeign() (string, bool) {
	if len(s.world.others) == 0 {
		return "", false
	}
	id := s.world.others[0]
	s.world.others = nil
	delete(s.world.foreign, id)
	return id, s.r.cloud.TakeENI(id) == nil
}

// fillSubnet has other tenants take all addresses of a subnet but a few, or one of
// each /28.
func (s *sim) fillSubnet() (string, bool) {
	if len(s.world.tenants) > 0 {
		return "", false
	}
	subnets := s.look().snap.Subnets
	n := subnets[s.draw.IntN(len(subnets))]
	take := func(a ec2sim.Addressing) bool {
		e, err := s.r.cloud.CreateNetworkInterface(ec2sim.CreateNetworkInterfaceInput{SubnetID: n.ID, Addresses: a})
		if err == nil {
			s.world.tenants = append(s.world.tenants, e.ID)
		}
		return err == nil
	}
	if s.chance(2) {
		for a := n.CIDR.Addr(); n.CIDR.Contains(a); {
			take(ec2sim.Addressing{Primary: a})
			for range 16 {
				a = a.Next()
			}
		}
		return n.ID + " is fragmented", true
	}
	for left := n.Available - s.draw.IntN(4); left > 1; left -= 200 {
		take(ec2sim.Addressing{Count: min(left, 200) - 1})
	}
	return n.ID + " is full", true
}

func (s *sim) emptySubnet() bool {
	for _, id := range s.world.tenants {
		if err := s.r.cloud.DeleteNetworkInterface(ec2sim.DeleteNetworkInterfaceInput{ID: id}); err != nil {
			s.wrong("empty the subnet: %v", err)
		}
	}
	was := len(s.world.tenants)
	s.world.tenants = nil
	return was > 0
}

// leak is an ENI that another node has left, of this cluster or another one.
func (s *sim) leak() (string, bool) {
	if len(s.world.leaked)+len(s.world.foreign) > 4 {
		return "", false
	}
	tags := map[string]string{ec2.TagOwner: ec2.Owner, ec2.TagInstance: "i-0123456789abcdef0", ec2.TagCluster: clusterName,
		ec2.TagCreated: time.Now().UTC().Format(time.RFC3339)}
	mine := s.chance(2)
	if !mine {
		tags[ec2.TagCluster] = "green"
	}
	e, err := s.r.cloud.CreateNetworkInterface(ec2sim.CreateNetworkInterfaceInput{SubnetID: s.r.subnet, Tags: tags})
	if err != nil {
		return "", false
	}
	if mine {
		s.world.leaked[e.ID] = true
	} else {
		s.world.foreign[e.ID] = true
	}
	return e.ID, true
}

// peace ends all faults.
func (s *sim) peace() {
	s.calm = true
	s.r.cloud.ClearFaults()
	s.emptySubnet()
	w := &s.world
	w.losing, w.noMetadata, w.frozenUntil, w.imdsLag = false, false, time.Time{}, time.Second
}

// unsettled says in what the agent and EC2 are not at rest; empty: in nothing.
func (s *sim) unsettled(leakedGone bool) string {
	l := s.life
	if l == nil {
		return "the agent is down"
	}
	b, t := l.book, s.look()
	for _, id := range sortedKeys(s.pods.pods) {
		if p := s.pods.pods[id]; !p.addr.IsValid() || p.ending {
			return id + " neither runs nor has ended"
		}
		if held, ok := s.model.byOwner[id]; !ok || held.addr != s.pods.pods[id].addr {
			return id + " has no record"
		}
	}
	if n := len(s.model.byOwner); n != len(s.pods.pods) {
		return "addresses are held by nobody"
	}
	if !l.cfg.IMDSOnly {
		if plan := ipam.Plan(b.State(), l.cfg.Targets, time.Now()); len(plan) > 0 || len(b.flight) > 0 {
			return "there is something to do"
		}
	}
	if len(b.queue) > 0 {
		return "somebody waits"
	}
	believed := make(map[string]vpc.ENI)
	for _, e := range slices.Concat(b.managed, b.others) {
		believed[e.ID] = e
	}
	for _, e := range t.snap.Interfaces {
		switch {
		case e.Attachment != nil && e.Attachment.InstanceID == s.r.instance:
			have, ok := believed[e.ID]
			if !ok || !sameSet(have.PodAddresses(), podAddresses(e)) || len(have.Prefixes) != len(e.Prefixes) {
				return "belief and truth differ about " + e.ID
			}
			delete(believed, e.ID)
		case e.Tags[ec2.TagInstance] == s.r.instance:
			return e.ID + " of this node is attached to nothing"
		case s.world.leaked[e.ID] && leakedGone:
			return "leaked " + e.ID + " is still there"
		}
	}
	if len(believed) > 0 {
		return "belief has ENIs that EC2 has not"
	}
	for _, id := range sortedKeys(s.world.foreign) {
		if _, ok := t.enis[id]; !ok {
			s.wrong("%s, which is not ours, has gone", id)
		}
	}
	return ""
}

func sameSet(a, b []netip.Addr) bool {
	in := make(map[netip.Addr]bool)
	for _, x := range a {
		in[x] = true
	}
	out := make(map[netip.Addr]bool)
	for _, x := range b {
		out[x] = true
	}
	return maps.Equal(in, out)
}
