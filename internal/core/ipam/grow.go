package ipam

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// grow asks for what is missing: first by attaching ENIs that were left over and
// have nothing but what is wanted, then from the ENIs there are, in device order,
// then by attaching what else was left over, then by creating some.
func (p *planner) grow() {
	l := p.l
	p.short = max(p.wanted()-l.own-l.ownComing, 0)
	p.urgent = max(l.demand-l.freeNow-l.comingNow, 0)
	if p.s.MaxPods > 0 {
		have := l.usedOwn + l.usedOther + l.freeNow + l.comingNow
		p.urgent = max(min(p.urgent, p.s.MaxPods+l.cooling-have), 0)
	}
	p.why = p.reason()
	p.attach(func(own int) bool { return own > 0 && own <= p.short })
	p.fill(p.kind())
	p.await(l.roomComing)
	if l.prefixes {
		p.urgent = max(p.urgent-PrefixSize*(p.asked()+p.later), 0)
		p.fillSingly()
	}
	p.attach(func(int) bool { return true })
	p.create()
}

// kind is the call that gives an ENI more own units.
func (p *planner) kind() Kind {
	if p.l.prefixes {
		return AssignPrefixes
	}
	return AssignAddresses
}

// reason says what is wanted and what there is of it.
func (p *planner) reason() string {
	wanted := addresses(p.wanted())
	if p.l.prefixes {
		wanted = prefixCount(p.wanted())
	}
	text := fmt.Sprintf("want %s (%s), have %d", wanted, p.wish.Why, p.l.own)
	if n := p.l.ownComing; n > 0 {
		text += fmt.Sprintf(", %d on the way", n)
	}
	return text
}

// asked is the number of prefixes that this plan asks existing ENIs for.
func (p *planner) asked() int {
	n := 0
	for _, c := range p.changes {
		n += c.PrefixCount
	}
	return n
}

// await leaves what fits on ENIs that are on their way to them: they are filled once
// they are attached, and no other is created meanwhile.
func (p *planner) await(room int) {
	n := min(p.short, room)
	p.short -= n
	p.later += n
}

// fill gives existing ENIs what they have room for. Room counts also where
// nothing can be asked for just now, as that is no reason to create an ENI: some
// change of the ENI is under way, or all calls of the kind are refused. It does
// not where EC2 says that this ENI, or its subnet, has no more.
func (p *planner) fill(k Kind) {
	for i := range p.l.accounts {
		a := &p.l.accounts[i]
		if p.short == 0 || !a.serves || a.going || a.room == 0 || p.blocked(k, a.ID) || p.blocked(k, a.SubnetID) {
			continue
		}
		n := min(p.short, a.room)
		if a.busy || p.blocked(k, "") {
			p.short -= n
			p.later += n
			continue
		}
		if n = min(n, p.inSubnet(a.SubnetID, k)); n == 0 {
			continue
		}
		p.short -= n
		c := Change{Kind: k, ENI: a.ID, SubnetID: a.SubnetID, Count: n, Why: p.whyFill(*a)}
		if k == AssignPrefixes {
			c.Count, c.PrefixCount = 0, n
		}
		p.do(c)
	}
}

func (p *planner) whyFill(a account) string {
	return fmt.Sprintf("%s; %s (device %d) has room for %d", p.why, a.ID, a.DeviceIndex, a.room)
}

// fillSingly asks for single addresses in subnets that have no prefix left: as
// many as pods need now.
func (p *planner) fillSingly() {
	for i := range p.l.accounts {
		a := &p.l.accounts[i]
		if p.urgent == 0 || !a.serves || a.going || a.room == 0 || !p.noPrefixes(a.SubnetID) ||
			p.blocked(AssignAddresses, a.ID) || p.blocked(AssignAddresses, a.SubnetID) {
			continue
		}
		n := min(p.urgent, a.room)
		if !a.busy && !p.blocked(AssignAddresses, "") {
			if n = min(n, p.inSubnet(a.SubnetID, AssignAddresses)); n == 0 {
				continue
			}
			p.do(Change{Kind: AssignAddresses, ENI: a.ID, SubnetID: a.SubnetID, Count: n,
				Why: fmt.Sprintf("%s without address, and %s has no prefix left", plural(p.l.demand, "pod"), a.SubnetID)})
		}
		p.urgent -= n
	}
}

// noPrefixes reports whether the subnet has no free /28.
func (p *planner) noPrefixes(subnetID string) bool { return p.blocked(AssignPrefixes, subnetID) }

// inSubnet is the most that a call may ask for in a subnet. It is at least 1 where
// nothing else is asked for there: EC2's count may be old, and its refusal is news.
func (p *planner) inSubnet(subnetID string, k Kind) int {
	free, ok := p.l.subnetFree[subnetID]
	if !ok || free < 0 {
		return p.s.Limits.IPv4PerENI
	}
	if k == AssignPrefixes {
		free /= PrefixSize
	}
	if p.l.spent[subnetID] {
		return free
	}
	return max(free, 1)
}

// attach takes ENIs of this node that are not attached: one is left over where
// the agent died between two calls, or has just been created.
func (p *planner) attach(which func(own int) bool) {
	for _, e := range p.leftOver() {
		if p.l.places <= 0 || p.short == 0 && p.urgent == 0 {
			return
		}
		own := len(e.Secondary)
		if p.l.prefixes {
			own = len(e.Prefixes)
		}
		if !which(own) {
			continue
		}
		p.l.places--
		p.l.attaching[e.ID] = true
		// Its room counts as well: it is filled once it is attached.
		p.short = max(p.short-own-max(p.s.Limits.IPv4PerENI-e.Slots(), 0), 0)
		p.urgent = max(p.urgent-len(e.PodAddresses()), 0)
		if !idle(e) || p.blocked(AttachENI, e.ID, "") {
			continue
		}
		p.do(Change{Kind: AttachENI, ENI: e.ID, DeviceIndex: p.device(), CardIndex: p.s.Limits.DefaultCard,
			Why: p.why + "; it is there already"})
	}
}

// leftOver lists detached ENIs that could serve, those with the most addresses
// first.
func (p *planner) leftOver() []vpc.ENI {
	var list []vpc.ENI
	for _, e := range p.s.Detached {
		if !p.l.touched[e.ID] && !p.l.attaching[e.ID] && p.fits(e) {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b vpc.ENI) int {
		return cmp.Or(-cmp.Compare(a.Slots(), b.Slots()), cmp.Compare(a.ID, b.ID))
	})
	return list
}

// fits reports whether a detached ENI can be used on this node as it is
// configured now.
func (p *planner) fits(e vpc.ENI) bool {
	primary, ok := p.s.primary()
	switch {
	case !ok, e.Zone != "" && primary.Zone != "" && e.Zone != primary.Zone:
		return false
	case e.Slots() > p.s.Limits.IPv4PerENI: // EC2 lets one that is detached have any number, and never attaches it
		return false
	case p.s.Network.Enabled:
		return p.s.Network.Problem == "" && e.SubnetID == p.s.Network.SubnetID
	}
	return true
}

// device takes the lowest free device index: EC2 refuses a taken one, and the
// name of the device in the instance follows from it.
func (p *planner) device() int {
	device := 1
	for p.l.devices[device] {
		device++
	}
	p.l.devices[device] = true
	return device
}

// create makes as many ENIs as are missing, each with its first addresses or
// prefixes. None is made while none can be attached: it would be left over.
func (p *planner) create() {
	for p.short > 0 || p.urgent > 0 {
		if p.l.places <= 0 || p.s.perENI() == 0 {
			p.full = true
			return
		}
		if p.blocked(CreateENI, "") || p.blocked(AttachENI, "") {
			return
		}
		c, ok := p.newENI()
		if !ok {
			return
		}
		p.l.places--
		p.short -= c.Count + c.PrefixCount
		if p.l.prefixes && c.Count > 0 { // no prefix is to be had, so no more than this
			p.short = 0
		}
		p.urgent = max(p.urgent-c.Count-PrefixSize*c.PrefixCount, 0)
		p.do(c)
	}
}

// newENI is the next ENI to create; false if there is no subnet for one.
func (p *planner) newENI() (Change, bool) {
	primary, ok := p.s.primary()
	if !ok {
		return Change{}, false
	}
	c := Change{Kind: CreateENI, Groups: primary.Groups}
	if p.s.Network.Enabled {
		c.Groups = p.s.Network.Groups
	}
	if p.short > 0 {
		if c.SubnetID, ok = p.subnet(p.l.prefixes); ok {
			p.reserveOwn(c.SubnetID)
			n := min(p.short, p.s.perENI(), max(p.inSubnet(c.SubnetID, p.kind()), 1))
			c.Count = n
			if p.l.prefixes {
				c.Count, c.PrefixCount = 0, n
			}
			c.Why = p.whyCreate()
			return c, true
		}
	}
	if !p.l.prefixes || p.urgent == 0 {
		return Change{}, false
	}
	if c.SubnetID, ok = p.subnet(false); !ok {
		return Change{}, false
	}
	p.reserveOwn(c.SubnetID)
	c.Count = min(p.urgent, p.s.perENI(), max(p.inSubnet(c.SubnetID, AssignAddresses), 1))
	c.Why = fmt.Sprintf("%s without address, and no subnet has a prefix left", plural(p.l.demand, "pod"))
	return c, true
}

// reserveOwn takes the address that the ENI itself needs off its subnet's count.
func (p *planner) reserveOwn(subnetID string) {
	if free := p.l.subnetFree[subnetID]; free > 0 {
		p.l.subnetFree[subnetID] = free - 1
	}
}

func (p *planner) whyCreate() string {
	most := p.s.maxENIs(p.t)
	return fmt.Sprintf("%s; no more fit on the ENIs there are (%d of %d for %s)", p.why, most-p.l.places, most, p.s.InstanceType)
}

// subnet is where the next ENI is made: the custom network's subnet, else of
// those that are allowed the one with the most free addresses. One whose number is
// not known comes after all that have some.
func (p *planner) subnet(prefixes bool) (string, bool) {
	best, most := "", 0
	for _, id := range p.subnets() {
		free, known := p.l.subnetFree[id]
		if !known || free < 0 {
			free = -1
		}
		if free == 0 {
			free = -2 // only where there is no other; the count may be old
			if len(p.changes) > 0 {
				continue
			}
		}
		if p.blocked(CreateENI, id) || p.blocked(AssignAddresses, id) || prefixes && p.noPrefixes(id) {
			continue
		}
		if best == "" || free > most {
			best, most = id, free
		}
	}
	return best, best != ""
}

func (p *planner) subnets() []string {
	primary, _ := p.s.primary()
	switch {
	case p.s.Network.Enabled && p.s.Network.Problem != "":
		return nil
	case p.s.Network.Enabled:
		return []string{p.s.Network.SubnetID}
	case len(p.s.Subnets) == 0:
		return []string{primary.SubnetID}
	}
	var ids []string
	for _, n := range p.s.Subnets {
		ids = append(ids, n.ID)
	}
	slices.Sort(ids)
	return ids
}
