package ipam

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// cloud is EC2 and an agent as far as the planner can tell, around a real Pool:
// changes end late, in any order, and fail at times. It is a judge: it fails the
// test where a change breaks a limit, or takes what is somebody's.
type cloud struct {
	t        *testing.T
	r        *rand.Rand
	now      time.Time
	state    State // all but what follows
	targets  Targets
	attached []vpc.ENI
	detached []vpc.ENI
	others   []vpc.ENI
	pool     *Pool
	waiting  []Owner
	running  []Owner
	inFlight []Change
	blocked  map[BlockKey]Block
	room     map[string]int // free addresses of each subnet
	noPrefix map[string]bool
	next     int
	nextPod  int
	most     int // ENIs that there may be

	done map[Kind]int // changes that succeeded
	log  []string
}

// newCloud is a node that has just started, with its primary ENI.
func newCloud(t *testing.T, r *rand.Rand, s State, targets Targets) *cloud {
	c := &cloud{t: t, r: r, now: t0, state: s, targets: targets, attached: []vpc.ENI{made(eni(0, 0))},
		pool: NewPool(Config{CoolDown: coolDown}), blocked: map[BlockKey]Block{},
		room: map[string]int{"subnet-a": 1000, "subnet-b": 1000}, noPrefix: map[string]bool{}, done: map[Kind]int{}}
	c.setTargets(targets)
	return c
}

func (c *cloud) setTargets(t Targets) {
	c.targets = t
	c.most = max(c.state.maxENIs(t), len(c.attached)+len(c.others)+len(c.detached)+len(c.inFlight))
	c.pool.Prefer(c.state.prefixMode(t))
	c.look()
}

// look tells the pool what the ENIs have, and serves those who wait.
func (c *cloud) look() {
	if c.state.Network.Enabled {
		c.pool.Exclude("eni-0")
	}
	if lost := c.pool.SetENIs(c.attached, nil, c.now); len(lost) > 0 {
		c.t.Errorf("pods lost their addresses: %v", lost)
	}
	waiting := c.waiting
	c.waiting = nil
	for _, o := range waiting {
		c.admit(o)
	}
}

func (c *cloud) admit(o Owner) {
	if _, err := c.pool.Assign(o, c.now); err != nil {
		c.waiting = append(c.waiting, o)
		return
	}
	c.running = append(c.running, o)
}

// pods makes n pods come, or go.
func (c *cloud) pods(n int) {
	for ; n > 0; n-- {
		if c.state.MaxPods > 0 && len(c.running)+len(c.waiting) >= c.state.MaxPods {
			return
		}
		c.nextPod++
		c.admit(pod(c.nextPod))
	}
	for ; n < 0 && len(c.running) > 0; n++ {
		i := c.r.IntN(len(c.running))
		c.pool.Release(c.running[i], c.now)
		c.running = slices.Delete(c.running, i, i+1)
	}
}

// State is what the planner sees.
func (c *cloud) State() State {
	s := c.state
	s.ENIs, s.Others, s.Detached = slices.Clone(c.attached), c.others, slices.Clone(c.detached)
	s.Entries, s.Waiting = c.pool.Entries(c.now), len(c.waiting)
	s.InFlight, s.Blocked = slices.Clone(c.inFlight), c.blocked
	return s
}

// begin plans, and puts what is planned under way. It returns that.
func (c *cloud) begin() []Change {
	s := c.State()
	changes := Plan(s, c.targets, c.now)
	c.judge(s, changes)
	for _, ch := range changes {
		c.log = append(c.log, ch.String())
		if err := c.pool.Withdraw(c.returns(ch)); err != nil {
			c.t.Errorf("%s: %v", ch, err)
		}
	}
	c.inFlight = append(c.inFlight, changes...)
	return changes
}

// returns lists the addresses that a change takes from the pool.
func (c *cloud) returns(ch Change) []netip.Addr {
	addrs := slices.Clone(ch.Addrs)
	for _, p := range ch.Prefixes {
		addrs = append(addrs, addressesOf(p)...)
	}
	if ch.Kind == DetachENI {
		addrs = c.find(ch.ENI).PodAddresses()
	}
	return addrs
}

// judge holds for every plan: each ENI has one change at most, with what is under
// way, beside its tags and its mark; and there are never more addresses than MaxPods pods can use.
func (c *cloud) judge(s State, changes []Change) {
	seen := map[string]bool{}
	growth := 0
	for _, ch := range slices.Concat(s.InFlight, changes) {
		if ch.Why == "" || ch.String() == "" {
			c.t.Errorf("a change without reason: %+v", ch)
		}
		if ch.ENI != "" && seen[ch.ENI] {
			c.t.Errorf("a second change of %s: %s", ch.ENI, ch)
		}
		seen[ch.ENI] = seen[ch.ENI] || ch.Kind != TagENI && ch.Kind != MarkENI
		growth += ch.Count + PrefixSize*ch.PrefixCount
	}
	grows := slices.ContainsFunc(changes, func(ch Change) bool { return ch.Count+ch.PrefixCount > 0 })
	if s.MaxPods == 0 || !grows {
		return
	}
	total, most := growth, s.MaxPods
	for _, e := range s.Entries {
		if e.Orphan || e.State == Leaving || !s.serves(vpc.ENI{DeviceIndex: deviceOf(e.ENI, s)}) {
			continue
		}
		total++
		if e.State == CoolingDown { // of use to nobody
			most++
		}
	}
	if c.targets.Prefixes {
		most = ceil(most, PrefixSize) * PrefixSize
	}
	if total > most && c.done["switch"] == 0 && len(c.blocked) == 0 {
		c.t.Errorf("%d addresses for %d pods, %d with those that cool: %v", total, s.MaxPods, most, changes)
	}
}

func deviceOf(id string, s State) int {
	for _, e := range s.ENIs {
		if e.ID == id {
			return e.DeviceIndex
		}
	}
	return -1
}

func (c *cloud) find(id string) *vpc.ENI {
	for _, all := range []*[]vpc.ENI{&c.attached, &c.detached} {
		for i := range *all {
			if (*all)[i].ID == id {
				return &(*all)[i]
			}
		}
	}
	c.t.Fatalf("no %s", id)
	return nil
}

// finish ends one change under way; fails says that EC2 refuses it.
func (c *cloud) finish(fails bool) {
	i := c.r.IntN(len(c.inFlight))
	ch := c.inFlight[i]
	c.inFlight = slices.Delete(c.inFlight, i, i+1)
	if key, ok := c.refused(ch); ok || fails {
		if !ok {
			key = BlockKey{ch.Kind, []string{"", ch.ENI, ch.SubnetID}[c.r.IntN(3)]}
		}
		if key.Kind == AssignPrefixes && key.Target != "" {
			c.done["no prefix"]++
		}
		c.blocked[key] = Block{Until: c.now.Add(time.Duration(1+c.r.IntN(20)) * time.Second), Reason: "refused"}
		c.pool.Readmit(c.returns(ch), c.now)
		c.look()
		return
	}
	c.apply(ch)
	c.done[ch.Kind]++
	c.look()
}

// refused is what a subnet that is full says.
func (c *cloud) refused(ch Change) (BlockKey, bool) {
	switch {
	case ch.PrefixCount > 0 && c.noPrefix[ch.SubnetID]:
		return BlockKey{AssignPrefixes, ch.SubnetID}, true
	case ch.Count+ch.PrefixCount > 0 && c.room[ch.SubnetID] < c.cost(ch):
		return BlockKey{ch.Kind, ch.SubnetID}, true
	}
	return BlockKey{}, false
}

func (c *cloud) cost(ch Change) int {
	n := ch.Count + PrefixSize*ch.PrefixCount
	if ch.Kind == CreateENI {
		n++
	}
	return n
}

func (c *cloud) apply(ch Change) {
	if ch.Kind == CreateENI {
		c.next++
		c.detached = append(c.detached, vpc.ENI{ID: fmt.Sprintf("eni-new-%d", c.next), SubnetID: ch.SubnetID,
			CreatedAt: c.now, Tags: map[string]string{InstanceTag: "i-1", OwnerTag: OwnerValue}})
		ch.ENI = c.detached[len(c.detached)-1].ID
		if n := c.state.Network; n.Enabled && (ch.SubnetID != n.SubnetID || !slices.Equal(ch.Groups, n.Groups)) {
			c.t.Errorf("not of the custom network: %+v", ch)
		}
	}
	e := c.find(ch.ENI)
	c.room[ch.SubnetID] -= c.cost(ch)
	switch ch.Kind {
	case CreateENI, AssignAddresses, AssignPrefixes:
		if c.state.Network.Enabled && isPrimary(*e) && ch.Kind != CreateENI {
			c.t.Errorf("the primary ENI gets addresses for pods: %s", ch)
		}
		c.give(e, ch)
	case AttachENI:
		for _, have := range slices.Concat(c.attached, c.others) {
			if have.DeviceIndex == ch.DeviceIndex && have.CardIndex == ch.CardIndex {
				c.t.Errorf("device %d is taken: %s", ch.DeviceIndex, ch)
			}
		}
		on := *e
		on.DeviceIndex, on.Status, on.AttachmentID = ch.DeviceIndex, "attached", "attach-"+ch.ENI
		c.detached = slices.DeleteFunc(c.detached, func(d vpc.ENI) bool { return d.ID == ch.ENI })
		c.attached = append(c.attached, on)
	case DetachENI:
		off := *e
		if off.DeviceIndex == 0 || off.AttachmentID != ch.AttachmentID {
			c.t.Errorf("detach %+v by %+v", off, ch)
		}
		off.DeviceIndex, off.Status, off.AttachmentID, off.DeleteOnTermination = 0, "", "", false
		c.attached = slices.DeleteFunc(c.attached, func(d vpc.ENI) bool { return d.ID == ch.ENI })
		c.detached = append(c.detached, off)
	case DeleteENI:
		c.room[e.SubnetID] += 1 + len(e.PodAddresses())
		c.detached = slices.DeleteFunc(c.detached, func(d vpc.ENI) bool { return d.ID == ch.ENI })
	case UnassignAddresses, UnassignPrefixes:
		c.room[e.SubnetID] += len(c.returns(ch))
		e.Secondary = slices.DeleteFunc(e.Secondary, func(a netip.Addr) bool { return slices.Contains(ch.Addrs, a) })
		e.Prefixes = slices.DeleteFunc(e.Prefixes, func(p netip.Prefix) bool { return slices.Contains(ch.Prefixes, p) })
	case MarkENI:
		e.DeleteOnTermination = true
	case TagENI:
		e.Tags = ch.Tags
	}
	if n := len(c.attached) + len(c.others); n > c.most {
		c.t.Errorf("%d ENIs, of %d, by %s", n, c.most, ch)
	}
}

// give adds what a change asks for, and minds the limits.
func (c *cloud) give(e *vpc.ENI, ch Change) {
	for range ch.Count {
		c.next++
		e.Secondary = append(e.Secondary, netip.AddrFrom4([4]byte{10, 2, byte(c.next >> 8), byte(c.next)}))
	}
	for range ch.PrefixCount {
		c.next++
		e.Prefixes = append(e.Prefixes, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(16 + c.next>>12), byte(c.next >> 4), byte(c.next << 4)}), 28))
	}
	if e.Slots() > c.state.Limits.IPv4PerENI || ch.Count+ch.PrefixCount < 1 && ch.Kind != CreateENI {
		c.t.Errorf("%d of %d slots, by %s", e.Slots(), c.state.Limits.IPv4PerENI, ch)
	}
}

// rest lets everything come to an end, with no failures and time passing only
// where there is nothing else to do, and returns how many rounds it took. Time
// jumps where NextPlan says, so that a wrong answer leaves something undone.
func (c *cloud) rest() int {
	clear(c.noPrefix)
	grew, shrunk := false, false
	for round := 1; ; round++ {
		began := c.begin()
		for _, ch := range began {
			switch ch.Kind {
			case UnassignAddresses, UnassignPrefixes, DetachENI:
				shrunk = true
			case AssignAddresses, AssignPrefixes, CreateENI, AttachENI:
				grew = grew || shrunk
			}
		}
		under := len(c.inFlight)
		for len(c.inFlight) > 0 {
			c.finish(false)
		}
		if len(began)+under > 0 {
			if round > 200 {
				c.t.Fatalf("no end after %d rounds: %v", round, c.log[len(c.log)-20:])
			}
			continue
		}
		next := NextPlan(c.State(), c.targets, c.now)
		if next.IsZero() {
			// Single addresses that are left of a time without prefixes make room.
			if grew && c.done["switch"] == 0 && c.done["no prefix"] == 0 {
				c.t.Errorf("it shrank, and grew again: %v", c.log)
			}
			later := c.now.Add(24 * time.Hour)
			if more := Plan(c.State(), c.targets, later); len(more) > 0 {
				c.t.Errorf("NextPlan said never, but later it is %v", more)
			}
			return round
		}
		if !next.After(c.now) {
			c.t.Fatalf("NextPlan says %v, and it is %v", next, c.now)
		}
		c.now = next
		c.look()
	}
}
