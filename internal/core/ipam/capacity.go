package ipam

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// Capacity is how many pod addresses the node can have at most: what EC2's limits
// and MaxENIs allow, ENIs that are not ours taken off. Free slots count sixteen
// where prefixes are asked for; what subnets have left is not looked at.
func Capacity(s State, t Targets) int {
	slot := 1
	if s.prefixMode(t) {
		slot = PrefixSize
	}
	total := 0
	for _, e := range s.ENIs {
		if s.serves(e) && !leaving(e) {
			total += max(s.Limits.IPv4PerENI-e.Slots(), 0)*slot + len(e.PodAddresses())
		}
	}
	if more := s.maxENIs(t) - s.onCard(); more > 0 {
		total += more * s.perENI() * slot
	}
	return total
}

// Ceilings of kubelet's --max-pods where a node has more addresses than pods do
// it good: the first up to 30 vCPUs, the other above. Source: max-pods-calculator
// of Amazon EKS.
const (
	maxPodsSmall = 110
	maxPodsLarge = 250
)

// MaxPodsOf is what kubelet's --max-pods should be on a type: ENIs x (addresses
// of an ENI - 1) + 2, as the AWS VPC CNI says; the two are pods of the host
// network. ENIs that give pods nothing are to be taken off managedENIs before:
// those tagged no_manage, and the primary ENI in custom networking. With prefixes
// each address is sixteen, and the result is held at 110, or 250 on large types.
func MaxPodsOf(instanceType string, l vpc.Limits, managedENIs int, prefixes bool) int {
	const onHostNetwork = 2
	n := max(min(managedENIs, l.ENIs), 0) * max(l.IPv4PerENI-1, 0)
	if !prefixes || !l.PrefixCapable() {
		return n + onHostNetwork
	}
	most := maxPodsSmall
	if manyVCPUs(instanceType, l) {
		most = maxPodsLarge
	}
	return min(n*PrefixSize+onHostNetwork, most)
}

// manyVCPUs reports whether a type has more than 30 vCPUs. The sizes say it: an
// xlarge has four, an Nxlarge or a metal-Nxl N times as many ("Instance types",
// Amazon EC2). A size that is just "metal" says nothing. Of those, all that have
// 50 addresses per ENI, and the u- family, are large; the others are Macs and the
// a1, none of which has more.
func manyVCPUs(instanceType string, l vpc.Limits) bool {
	family, size, _ := strings.Cut(instanceType, ".")
	if n, ok := strings.CutSuffix(strings.TrimPrefix(size, "metal-"), "xl"); ok {
		size = n + "xlarge"
	}
	if n, ok := strings.CutSuffix(size, "xlarge"); ok {
		times, err := strconv.Atoi(n)
		return err == nil && times >= 8
	}
	return size == "metal" && (l.IPv4PerENI >= 50 || strings.HasPrefix(family, "u-"))
}

// Outlook is what a pod that got no address is told.
type Outlook struct {
	Text string    // why, whether an address is on its way, and what a person can do
	Hope bool      // waiting may help
	Free time.Time // when the next address has cooled down; zero if none does
}

// Refusal says why an ADD has no address now. The ADD counts as waiting, whether
// or not the state says so already.
func Refusal(s State, t Targets, now time.Time) Outlook {
	s.Waiting = max(s.Waiting, 1)
	r := refusal{s: s, t: t, now: now, l: newLedger(s, t, now)}
	o := r.growing()
	if o.Text == "" {
		o = r.stuck()
	}
	o.Free = r.nextFree()
	o.Hope = o.Hope || !o.Free.IsZero()
	return o
}

type refusal struct {
	s   State
	t   Targets
	now time.Time
	l   *ledger
}

// growing is the outlook while addresses are on their way; zero if none are.
func (r refusal) growing() Outlook {
	for _, c := range r.s.InFlight {
		switch c.Kind {
		case CreateENI, AttachENI, AssignAddresses, AssignPrefixes:
			return Outlook{Hope: true, Text: fmt.Sprintf("no free address yet: %s under way, one to %s",
				plural(len(r.s.InFlight), "change"), c)}
		}
	}
	if n := r.l.comingNow; n > 0 {
		return Outlook{Hope: true, Text: fmt.Sprintf("no free address yet: %s of ENIs that are just coming up, or of which EC2 and the node do not say the same",
			addresses(n))}
	}
	for _, c := range Plan(r.s, r.t, r.now) {
		switch c.Kind {
		case CreateENI, AttachENI, AssignAddresses, AssignPrefixes:
			return Outlook{Hope: true, Text: fmt.Sprintf("no free address yet: the node has %d of the %d it can have, and is about to ask EC2 for more",
				r.total(), Capacity(r.s, r.t))}
		}
	}
	return Outlook{}
}

// stuck is the outlook where nothing is on its way and nothing will be asked for
// now.
func (r refusal) stuck() Outlook {
	s, capacity := r.s, Capacity(r.s, r.t)
	switch {
	case s.Unsorted: // one of them may have room
		return Outlook{Hope: true, Text: "no free address yet: EC2 has not said whose the further ENIs of the instance are"}
	case r.t.NoProvisioning:
		return Outlook{Text: fmt.Sprintf("no free address: %s, and the node is not to ask EC2 for more (DISABLE_NETWORK_RESOURCE_PROVISIONING or ENABLE_IMDS_ONLY_MODE)", r.inUse(r.total()))}
	case s.Limits.ENIs == 0:
		return Outlook{Text: fmt.Sprintf("node is full: %s; the limits of the instance type %s are not known", r.inUse(r.total()), s.InstanceType)}
	case s.Network.Enabled && s.Network.Problem != "":
		return Outlook{Text: "no free address, and no ENI can be made for custom networking: " + s.Network.Problem}
	case s.MaxPods > 0 && r.total()-r.l.cooling >= s.MaxPods && r.total() < capacity:
		return Outlook{Text: fmt.Sprintf("node is full: %s, which is what the %d pods of kubelet's --max-pods can use; raise it, or look for addresses that no pod has", r.inUse(r.total()), s.MaxPods)}
	case r.total() >= capacity:
		return Outlook{Text: r.full(capacity)}
	}
	if b, ok := r.block(); ok {
		return Outlook{Hope: !b.Fatal, Text: fmt.Sprintf("no free address, and the node cannot get more now: %s; next try in %s", b.Reason, seconds(b.Until.Sub(r.now)))}
	}
	// What is under way on an ENI may be all that keeps it from being asked for more.
	return Outlook{Hope: len(s.InFlight) > 0, Text: fmt.Sprintf("no free address: the node has %d of the %d it can have, and nothing that it could ask EC2 for just now", r.total(), capacity)}
}

// block is the refusal that keeps the node from growing: one that time may end
// before one that it will not.
func (r refusal) block() (Block, bool) {
	var found Block
	ok := false
	for key, b := range r.s.Blocked {
		switch key.Kind {
		case CreateENI, AttachENI, AssignAddresses, AssignPrefixes:
		default:
			continue
		}
		if !r.now.Before(b.Until) {
			continue
		}
		if !ok || found.Fatal && !b.Fatal || found.Fatal == b.Fatal && (b.Until.Before(found.Until) || b.Until.Equal(found.Until) && b.Reason < found.Reason) {
			found, ok = b, true
		}
	}
	return found, ok
}

// full says that the limits are reached, and which of them.
func (r refusal) full(capacity int) string {
	s, t := r.s, r.t
	text := "node is full: " + r.inUse(capacity)
	if free := r.nextFree(); !free.IsZero() {
		text += fmt.Sprintf(" (the next is free in %s)", seconds(free.Sub(r.now)))
	}
	if n := len(s.Others); n > 0 {
		text += fmt.Sprintf("; %s of the instance not managed here", plural(n, "ENI"))
	}
	if s.maxENIs(t) < s.Limits.ENIs {
		return text + fmt.Sprintf("; the configured maximum of %s holds it below the %d of the type: raise it, or use a larger instance type",
			plural(t.MaxENIs, "ENI"), s.Limits.ENIs)
	}
	if s.Limits.PrefixCapable() && !t.Prefixes {
		return text + "; use prefixes (ENABLE_PREFIX_DELEGATION), or a larger instance type"
	}
	return text + "; use a larger instance type"
}

// inUse counts what pods have, of so many.
func (r refusal) inUse(of int) string {
	used := r.l.usedOwn + r.l.usedOther - r.l.cooling
	text := fmt.Sprintf("%d of %d addresses of %s in use", used, of, r.s.InstanceType)
	if r.l.cooling > 0 {
		text += fmt.Sprintf(", %d cooling down", r.l.cooling)
	}
	return text
}

// total is how many addresses the ENIs have that serve pods.
func (r refusal) total() int {
	n := 0
	for _, a := range r.l.accounts {
		if a.serves && !a.going {
			n += len(a.PodAddresses())
		}
	}
	return n
}

func (r refusal) nextFree() time.Time {
	var next time.Time
	serves := map[string]bool{}
	for _, a := range r.l.accounts {
		serves[a.ID] = a.serves && !a.going
	}
	for _, e := range r.s.Entries {
		if e.State == CoolingDown && !e.Orphan && serves[e.ENI] && (next.IsZero() || e.Until.Before(next)) {
			next = e.Until
		}
	}
	return next
}
