package ipam

import (
	"fmt"
	"time"

	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// DefaultWarmAddresses is how many addresses stay free where nothing else is
// said: enough for a usual burst on a small node, few enough for small subnets.
const DefaultWarmAddresses = 5

// Kind is what a [Change] does. It is also the class by which refusals are
// remembered, as EC2 grants rights and throttles by action.
type Kind string

const (
	// AssignAddresses gives an ENI more secondary addresses.
	AssignAddresses Kind = "assign addresses"
	// CreateENI makes an ENI with its first addresses and attaches it.
	CreateENI Kind = "create eni"
)

// Change is one thing to ask of EC2.
type Change struct {
	Kind  Kind
	Count int    // secondary addresses to ask for, at least 1
	ENI   string // AssignAddresses: the ENI's ID

	// For CreateENI. Subnet and groups are those of the primary ENI.
	DeviceIndex int
	CardIndex   int
	SubnetID    string
	Groups      []string

	Why string // a sentence for people
}

// String says what and why in one line.
func (c Change) String() string {
	if c.Kind == CreateENI {
		return fmt.Sprintf("create an ENI as device %d in %s with %s: %s", c.DeviceIndex, c.SubnetID, addresses(c.Count), c.Why)
	}
	return fmt.Sprintf("assign %s to %s: %s", addresses(c.Count), c.ENI, c.Why)
}

// Block says that EC2 refused an action lately and should be left alone.
type Block struct {
	Until  time.Time
	Reason string // what was refused and what to do about it, for people
}

// State is what the planner knows of the node.
type State struct {
	InstanceType string
	Limits       vpc.Limits
	ENIs         []vpc.ENI // the ENIs we manage, the primary among them
	Others       []vpc.ENI // ENIs of the instance that are not ours, but take their places
	Pool         Stats
	Waiting      int // ADDs that found the pool empty and wait for an address
	InFlight     []Change
	Blocked      map[Kind]Block
}

// Targets is what the user wants.
type Targets struct {
	WarmAddresses int // free addresses to have ready
	MaxENIs       int // ENIs of the instance, the primary included; zero means what the type allows
}

// Plan lists what to ask of EC2 so that WarmAddresses are free once all who
// wait are served. The ENIs that exist are filled first, in device order; one
// more is created only for what does not fit, one in each call. Cooling
// addresses do not count as free: they are of no use to a pod that comes now.
//
// Changes under way count as done, so the caller may plan at any moment, as long
// as it puts what it started into InFlight. The limits of the instance type
// hold even if all of them succeed. At the limits the plan is empty, and
// [Refusal] says so.
func Plan(s State, t Targets, now time.Time) []Change {
	incoming := 0
	for _, c := range s.InFlight {
		incoming += c.Count
	}
	want := max(t.WarmAddresses, 0) + max(s.Waiting, 0)
	need := want - s.Pool.Free - incoming
	if need <= 0 {
		return nil
	}
	why := fmt.Sprintf("%d free, want %d", s.Pool.Free, want)
	if s.Waiting > 0 {
		why += fmt.Sprintf(" of which %d for pods that wait", s.Waiting)
	}
	if incoming > 0 {
		why += fmt.Sprintf(", %d on the way", incoming)
	}

	var changes []Change
	for _, e := range byDevice(s.ENIs) {
		room := s.room(e)
		n := min(need, room)
		if n <= 0 {
			continue
		}
		need -= n // also while blocked: a refused assign is no reason for an ENI
		if s.blocked(AssignAddresses, now) {
			continue
		}
		changes = append(changes, Change{
			Kind: AssignAddresses, ENI: e.ID, Count: n,
			Why: fmt.Sprintf("%s; %s (device %d) has room for %d", why, e.ID, e.DeviceIndex, room),
		})
	}
	if need > 0 && !s.blocked(CreateENI, now) {
		if c, ok := s.another(t); ok {
			c.Count = min(need, s.Limits.IPv4PerENI-1)
			c.Why = fmt.Sprintf("%s; no more fit on the ENIs there are (%d of %d for %s)",
				why, s.onCard(), s.maxENIs(t), s.InstanceType)
			changes = append(changes, c)
		}
	}
	return changes
}

// another is the ENI to create next, less its addresses; false if the instance
// may have no more.
func (s State) another(t Targets) (Change, bool) {
	if s.onCard() >= s.maxENIs(t) || s.Limits.IPv4PerENI < 2 || len(s.ENIs) == 0 {
		return Change{}, false
	}
	// The lowest free device index: EC2 refuses a taken one, and the name of
	// the device in the instance follows from it. Index 0 is the primary's.
	taken := map[int]bool{0: true}
	for _, e := range s.all() {
		if e.CardIndex == s.Limits.DefaultCard {
			taken[e.DeviceIndex] = true
		}
	}
	for _, c := range s.InFlight {
		if c.Kind == CreateENI {
			taken[c.DeviceIndex] = true
		}
	}
	device := 1
	for taken[device] {
		device++
	}
	primary := byDevice(s.ENIs)[0]
	return Change{
		Kind: CreateENI, DeviceIndex: device, CardIndex: s.Limits.DefaultCard,
		SubnetID: primary.SubnetID, Groups: primary.Groups,
	}, true
}

// Capacity is how many pod addresses the node can have at most: what EC2 limits
// and MaxENIs allow, ENIs that are not ours taken off. Existing prefixes count
// with all their addresses; new ones are not planned.
func Capacity(s State, t Targets) int {
	total := 0
	for _, e := range s.ENIs {
		total += max(s.Limits.IPv4PerENI-e.Slots(), 0) + len(e.PodAddresses())
	}
	if more := s.maxENIs(t) - len(s.enisOnCard()); more > 0 {
		total += more * max(s.Limits.IPv4PerENI-1, 0)
	}
	return total
}

// Refusal is the sentence for a pod that got no address: why the node has none
// to give, whether one is on its way, and what a person can do.
func Refusal(s State, t Targets, now time.Time) string {
	capacity := Capacity(s, t)
	switch {
	case len(s.InFlight) > 0:
		return fmt.Sprintf("no free address yet: %s under way, the first to %s", plural(len(s.InFlight), "change"), s.InFlight[0])
	case s.Pool.Total >= capacity:
		return s.full(capacity, t, now)
	}
	for _, k := range []Kind{AssignAddresses, CreateENI} {
		if b, ok := s.Blocked[k]; ok && s.blocked(k, now) {
			return fmt.Sprintf("no free address, and the node cannot get more now: %s; next try in %s",
				b.Reason, seconds(b.Until.Sub(now)))
		}
	}
	return fmt.Sprintf("no free address yet: the node has %d of the %d it can have, and is about to ask EC2 for more",
		s.Pool.Total, capacity)
}

// full says that the limits are reached, and which of them.
func (s State) full(capacity int, t Targets, now time.Time) string {
	inUse := s.Pool.Total - s.Pool.Free - s.Pool.Cooling
	text := fmt.Sprintf("node is full: %d of %d addresses of %s in use", inUse, capacity, s.InstanceType)
	if s.Pool.Cooling > 0 {
		text += fmt.Sprintf(", %d cooling down", s.Pool.Cooling)
	}
	if s.Pool.Cooling > 0 && !s.Pool.NextFree.IsZero() {
		text += fmt.Sprintf(" (the next is free in %s)", seconds(s.Pool.NextFree.Sub(now)))
	}
	switch {
	case s.Limits.ENIs == 0:
		return text + "; the limits of this instance type are not known"
	case len(s.Others) > 0:
		text += fmt.Sprintf("; %s of the instance not managed here", plural(len(s.Others), "ENI"))
	}
	if s.maxENIs(t) < s.Limits.ENIs {
		return text + fmt.Sprintf("; the configured maximum of %s holds it below the %d of the type: raise it, or use a larger instance type",
			plural(t.MaxENIs, "ENI"), s.Limits.ENIs)
	}
	return text + "; use a larger instance type"
}

// room is how many more addresses the ENI may have once all under way is done.
func (s State) room(e vpc.ENI) int {
	room := s.Limits.IPv4PerENI - e.Slots()
	for _, c := range s.InFlight {
		if c.Kind == AssignAddresses && c.ENI == e.ID {
			room -= c.Count
		}
	}
	return max(room, 0)
}

// maxENIs is how many ENIs the default card may hold. ENIs are only ever
// created there: the other cards of accelerated types carry no usual traffic.
func (s State) maxENIs(t Targets) int {
	if t.MaxENIs > 0 {
		return min(t.MaxENIs, s.Limits.ENIs)
	}
	return s.Limits.ENIs
}

// onCard counts the ENIs of the default card, those under way included.
func (s State) onCard() int {
	n := len(s.enisOnCard())
	for _, c := range s.InFlight {
		if c.Kind == CreateENI {
			n++
		}
	}
	return n
}

func (s State) enisOnCard() []vpc.ENI {
	var on []vpc.ENI
	for _, e := range s.all() {
		if e.CardIndex == s.Limits.DefaultCard {
			on = append(on, e)
		}
	}
	return on
}

func (s State) all() []vpc.ENI {
	return append(append([]vpc.ENI(nil), s.ENIs...), s.Others...)
}

func (s State) blocked(k Kind, now time.Time) bool {
	b, ok := s.Blocked[k]
	return ok && now.Before(b.Until)
}

func addresses(n int) string {
	if n == 1 {
		return "1 address"
	}
	return fmt.Sprintf("%d addresses", n)
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
