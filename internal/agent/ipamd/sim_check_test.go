package ipamd

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/fairway-cni/fairway/internal/core/ipam"
	"github.com/fairway-cni/fairway/internal/core/vpc"
	"github.com/fairway-cni/fairway/internal/edge/ec2"
	"github.com/fairway-cni/fairway/internal/edge/store"
	"github.com/fairway-cni/fairway/lab/ec2sim"
)

// ledger is who has which address, kept beside the agent's own books: by what it
// answered, and after a death by what is on the disk.
type ledger struct {
	addrs   map[netip.Addr]*tenure
	byOwner map[string]*tenure // who holds one
}

// tenure is the last time that somebody had an address.
type tenure struct {
	addr     netip.Addr
	owner    string
	released time.Time // zero: held
	answered bool      // the runtime knows
}

// grant notes an address that was given out, if it could be.
func (m *ledger) grant(s *sim, l *simLife, r store.Record) {
	if t, ok := m.addrs[r.Addr]; ok {
		switch {
		case t.released.IsZero():
			s.wrong("%s was given to %s, and %s has it", r.Addr, r.ContainerID, t.owner)
		case time.Since(t.released) < s.world.cfg.CoolDown:
			s.wrong("%s was given to %s, %s after %s released it", r.Addr, r.ContainerID, time.Since(t.released), t.owner)
		}
	}
	if t, ok := m.byOwner[r.ContainerID]; ok {
		s.wrong("%s was given %s, and has %s", r.ContainerID, r.Addr, t.addr)
	}
	s.checkGiven(r)
	m.hold(r.ContainerID, r.Addr)
}

func (m *ledger) hold(owner string, a netip.Addr) {
	t := &tenure{addr: a, owner: owner}
	m.addrs[a], m.byOwner[owner] = t, t
}

// cancel takes back what never reached the network.
func (m *ledger) cancel(owner string) {
	if t, ok := m.byOwner[owner]; ok {
		delete(m.addrs, t.addr)
		delete(m.byOwner, owner)
	}
}

func (m *ledger) release(owner string) {
	if t, ok := m.byOwner[owner]; ok {
		t.released = time.Now()
		delete(m.byOwner, owner)
	}
}

func (m *ledger) answered(s *sim, owner string, a netip.Addr) {
	t, ok := m.byOwner[owner]
	if !ok || t.addr != a {
		s.wrong("%s was answered %s, which it has not got", owner, a)
		return
	}
	t.answered = true
}

func (m *ledger) deleted(s *sim, owner string) {
	if t, ok := m.byOwner[owner]; ok {
		s.wrong("the DEL of %s was answered, and it still has %s", owner, t.addr)
	}
}

// inUse says who needs an address: who has it, or had it a moment ago.
func (m *ledger) inUse(a netip.Addr, coolDown time.Duration) string {
	switch t, ok := m.addrs[a]; {
	case !ok:
	case t.released.IsZero():
		return "held by " + t.owner
	case time.Since(t.released) < coolDown:
		return "cooling down after " + t.owner
	}
	return ""
}

// checkRecords compares the disk with the ledger, between two lives. What the
// death interrupted is as the disk says.
func (s *sim) checkRecords(records *store.Store) {
	all, err := records.All()
	if err != nil {
		s.wrong("read the records: %v", err)
		return
	}
	m := &s.model
	onDisk := make(map[netip.Addr]store.Record, len(all))
	for _, r := range all {
		onDisk[r.Addr] = r
		t, known := m.addrs[r.Addr]
		switch {
		case known && t.owner == r.ContainerID && t.released.IsZero() == r.Held():
			continue
		case s.interrupted == operation{}:
			s.wrong("the record of %s says %s, released %v; the runtime knows of %+v", r.Addr, r.ContainerID, r.ReleasedAt, t)
		case r.Held() && s.interrupted.owner == r.ContainerID:
			if known && (t.released.IsZero() || time.Since(t.released) < s.world.cfg.CoolDown) {
				s.wrong("the record of %s says %s, %+v has it", r.Addr, r.ContainerID, t)
			}
			m.hold(r.ContainerID, r.Addr)
		case !r.Held() && known && t.owner == r.ContainerID && s.interrupted.owner == r.ContainerID:
			t.released = r.ReleasedAt
			delete(m.byOwner, t.owner)
		case !r.Held() && (!known || !t.released.IsZero()): // older than what the ledger knows, and over
		default:
			s.wrong("the record of %s says %s, released %v; the runtime knows of %+v; %+v was under way", r.Addr, r.ContainerID, r.ReleasedAt, t, s.interrupted)
		}
	}
	for _, a := range slices.SortedFunc(maps.Keys(m.addrs), netip.Addr.Compare) {
		t := m.addrs[a]
		_, there := onDisk[a]
		switch {
		case there:
		case t.released.IsZero() && s.interrupted.kind == "cancel" && s.interrupted.owner == t.owner:
			m.cancel(t.owner)
		case t.released.IsZero():
			s.wrong("no record of %s, which %s has", a, t.owner)
		case time.Since(t.released) < s.world.cfg.CoolDown && s.diedAt.Sub(t.released) < s.world.cfg.CoolDown:
			s.wrong("no record of %s, which %s released %s ago", a, t.owner, time.Since(t.released))
		}
	}
	s.interrupted = operation{}
}

// verify checks what must hold after each event.
func (s *sim) verify() {
	l := s.life
	if l == nil || s.bad != "" {
		return
	}
	b := l.book
	if len(b.records) != len(s.model.byOwner) {
		s.wrong("%d records in the book, %d pods with an address", len(b.records), len(s.model.byOwner))
		return
	}
	if st := b.Stats(); st.Assigned+st.Orphaned != len(b.records) || st.Reserved != 0 ||
		st.Free+st.Assigned+st.Cooling+st.Leaving+st.Disputed != st.Total {
		s.wrong("pool %+v with %d records", st, len(b.records))
	}
	if s.events%128 == 0 {
		s.checkBook(l)
	}
}

// checkBook compares the book with the ledger, and with the disk.
func (s *sim) checkBook(l *simLife) {
	for owner, r := range l.book.records {
		t, ok := s.model.byOwner[owner.ContainerID]
		if a, has := l.book.pool.Lookup(owner); !ok || !has || t.addr != r.Addr || a.Addr != r.Addr {
			s.wrong("the book has %s for %s, the pool %s, the runtime %+v", r.Addr, owner, a.Addr, t)
		}
	}
	all, err := l.records.All()
	if err != nil {
		s.wrong("read the records: %v", err)
	}
	held := 0
	for _, r := range all {
		if r.Held() {
			held++
			if t, ok := s.model.byOwner[r.ContainerID]; !ok || t.addr != r.Addr {
				s.wrong("the record of %s says %s; the runtime knows of %+v", r.Addr, r.ContainerID, t)
			}
		}
	}
	if held != len(s.model.byOwner) {
		s.wrong("%d records of %d pods", held, len(s.model.byOwner))
	}
}

// truth is what EC2 really has, and when the agent must know.
type truth struct {
	snap    ec2sim.Snapshot
	changed <-chan struct{}
	next    time.Time
	version int
	enis    map[string]ec2sim.NetworkInterface
	owner   map[netip.Addr]string // ENI by pod address

	taken      map[netip.Addr]time.Time // behind the agent's back
	known      time.Time                // what was taken until then, the agent knows
	metadataAt time.Time                // the time that IMDS speaks of
	disturbed  time.Time                // when something grew that the agent cannot know of
	listed     time.Time                // when the last complete listing by EC2 began
	heardAt    time.Time                // and when the agent had it
}

// look brings the truth up to date.
func (s *sim) look() *truth {
	t := &s.truth
	now := time.Now()
	if t.changed != nil && (t.next.IsZero() || now.Before(t.next)) {
		select {
		case <-t.changed:
		default:
			return t
		}
	}
	t.changed = s.r.cloud.Changed()
	t.snap = s.r.cloud.Snapshot()
	t.next = s.r.cloud.Next()
	t.version++
	t.enis, t.owner = make(map[string]ec2sim.NetworkInterface), make(map[netip.Addr]string)
	for _, e := range t.snap.Interfaces {
		t.enis[e.ID] = e
		for _, a := range podAddresses(e) {
			t.owner[a] = e.ID
		}
		if a := e.Attachment; a != nil && a.DeviceAt.After(now) && (t.next.IsZero() || a.DeviceAt.Before(t.next)) {
			t.next = a.DeviceAt
		}
	}
	return t
}

func podAddresses(e ec2sim.NetworkInterface) []netip.Addr {
	addrs := slices.Clone(e.Secondary)
	for _, p := range e.Prefixes {
		for a := p.Addr(); p.Contains(a); a = a.Next() {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

// heard notes a complete reading that began at a time, of content of a time.
func (t *truth) heard(began, content time.Time, start bool) {
	t.known = content
	if own := began.Add(-Settle); !start && own.Before(content) {
		t.known = own // before that the agent trusts its own calls more
	}
}

// read is told of the executor's readings.
func (s *sim) read(l *simLife, what Reading, err error) {
	if l.over || err != nil {
		return
	}
	switch what {
	case FromMetadata:
		s.truth.heard(time.Now(), s.truth.metadataAt, false)
	case FromEC2:
		s.truth.heardAt = time.Now()
		s.truth.listed = time.Now().Add(-10 * time.Second) // it may have begun so long ago
	}
}

// checkGiven: a pod's address is on an ENI of the node, in EC2's truth.
func (s *sim) checkGiven(r store.Record) {
	t := s.look()
	id, ok := t.owner[r.Addr]
	e := t.enis[id]
	problem := ""
	switch {
	case !ok:
		problem = "no ENI has it"
	case e.Attachment == nil || e.Attachment.InstanceID != s.r.instance:
		problem = id + ", which has it, is not attached to the node"
	case e.Attachment.Status == ec2sim.StatusDetaching:
		problem = id + ", which has it, is being detached"
	case e.Tags[ec2.TagNoManage] == "true":
		problem = id + ", which has it, is not ours to use"
	case s.world.cfg.Custom.Enabled && e.Attachment.DeviceIndex == 0:
		problem = "it is the primary ENI's, with custom networking"
	case e.Attachment.DeviceAt.After(time.Now()):
		problem = "the device of " + id + " is not there"
	}
	if problem == "" {
		return
	}
	if at, ok := t.taken[r.Addr]; ok && t.known.Before(at) {
		s.tally.count("given in the window", 1)
		return
	}
	s.wrong("%s was given to %s: %s (taken %v, known until %v)", r.Addr, r.ContainerID, problem, t.taken[r.Addr].Sub(s.began), t.known.Sub(s.began))
}

// checkRequest: no call takes what is somebody's, or is not ours.
func (s *sim) checkRequest(e *exchange) {
	if !e.changes() || s.bad != "" {
		return
	}
	t := s.look()
	eni := t.enis[e.form.Get("NetworkInterfaceId")]
	var gone []netip.Addr
	switch e.action {
	case "UnassignPrivateIpAddresses":
		for k, v := range e.form {
			if a, err := netip.ParseAddr(v[0]); err == nil && strings.HasPrefix(k, "PrivateIpAddress.") {
				gone = append(gone, a)
			}
			if p, err := netip.ParsePrefix(v[0]); err == nil && strings.HasPrefix(k, "Ipv4Prefix.") {
				gone = append(gone, podAddresses(ec2sim.NetworkInterface{Prefixes: []netip.Prefix{p}})...)
			}
		}
		if len(gone) == 0 {
			s.wrong("nothing to unassign: %s", e.text)
		}
	case "DetachNetworkInterface":
		for _, n := range t.enis {
			if n.Attachment != nil && n.Attachment.ID == e.form.Get("AttachmentId") {
				eni, gone = n, podAddresses(n)
			}
		}
	case "DeleteNetworkInterface":
		if eni.ID != "" && (eni.Tags[ec2.TagOwner] != ec2.Owner || s.world.foreign[eni.ID]) {
			s.wrong("%s deletes %s, which is not ours: %v", e.action, eni.ID, eni.Tags)
		}
	}
	if eni.ID != "" && eni.Tags[ec2.TagNoManage] == "true" {
		s.wrong("%s of an ENI that is not to be managed", e.text)
	}
	for _, a := range gone {
		if who := s.model.inUse(a, s.world.cfg.CoolDown); who != "" && t.owner[a] == eni.ID {
			s.wrong("%s takes %s, %s", e.text, a, who)
		}
	}
}

// changed is told of each change whose call is over.
func (s *sim) changed(l *simLife, c ipam.Change, err error) {
	if err == nil {
		s.tally.change(c.Kind)
		return
	}
	var refusal *ec2.Error
	if l.over || !errors.Is(err, ec2.ErrLimit) || errors.As(err, &refusal) && refusal.Code == "NetworkInterfaceLimitExceeded" {
		if Undecided(err) {
			s.truth.disturbed = time.Now()
		}
		return
	}
	s.tally.count("limit met", 1)
	for _, f := range l.book.flight {
		if t := &s.truth; !same(f.Change, c) || f.Since.Before(t.heardAt) || t.listed.Before(t.disturbed.Add(Settle+s.world.lag)) {
			continue
		}
		s.wrong("%s: %v; nothing has grown that the agent could not know", c, err)
	}
}

// checkFlight: what is asked for is no more than max-pods can use.
func (s *sim) checkFlight(l *simLife) {
	b := l.book
	if l.cfg.MaxPods == 0 || !slices.ContainsFunc(b.flight, func(f flight) bool {
		return f.Since.Equal(time.Now()) && (f.Change.Kind == ipam.CreateENI || f.Change.Kind == ipam.AssignAddresses || f.Change.Kind == ipam.AssignPrefixes)
	}) {
		return
	}
	prefixes := l.cfg.Targets.Prefixes && b.self.Limits.PrefixCapable()
	usable := 0
	for _, e := range b.Entries() {
		if l.cfg.Custom.Enabled && e.ENI == b.managed[0].ID && b.managed[0].DeviceIndex == 0 {
			continue // the primary ENI's serve nobody
		}
		if e.Orphan || e.State == ipam.CoolingDown || e.State == ipam.Leaving || e.State == ipam.Free && (e.Disputed || e.Prefix.IsValid() != prefixes) {
			continue
		}
		usable++
	}
	for _, f := range b.flight {
		if f.Change.Kind != ipam.CreateENI && !slices.ContainsFunc(b.managed, func(e vpc.ENI) bool { return e.ID == f.Change.ENI }) {
			continue // somebody has taken the ENI away meanwhile: what it gets serves nobody
		}
		usable += f.Change.Count + ipam.PrefixSize*f.Change.PrefixCount
	}
	most := l.cfg.MaxPods
	if prefixes {
		most += 2 * (ipam.PrefixSize - 1) // those of pods, and those of single addresses beside them
	}
	if usable > most {
		s.wrong("%d addresses that pods could use with what was just asked for, at most %d: %v", usable, most, b.flight)
	}
}

// table is the last events.
func (s *sim) table() string {
	var b strings.Builder
	for _, n := range s.log[max(0, len(s.log)-logged):] {
		fmt.Fprintf(&b, "%14s  life %-3d %-24s %s\n", n.at, n.life, n.what, n.of)
	}
	return b.String()
}

// state is everybody's view, for a failure.
func (s *sim) state() string {
	var b strings.Builder
	t := s.look()
	for _, id := range sortedKeys(t.enis) {
		e := t.enis[id]
		fmt.Fprintf(&b, "ec2     %s %v %v %v tags %v", e.ID, e.Primary, e.Secondary, e.Prefixes, e.Tags)
		if e.Attachment != nil {
			fmt.Fprintf(&b, " %s to %s as %d", e.Attachment.Status, e.Attachment.InstanceID, e.Attachment.DeviceIndex)
		}
		b.WriteByte('\n')
	}
	for _, a := range slices.SortedFunc(maps.Keys(s.model.addrs), netip.Addr.Compare) {
		if t := s.model.addrs[a]; t.released.IsZero() {
			fmt.Fprintf(&b, "runtime %s %s\n", a, t.owner)
		}
	}
	if l := s.life; l != nil {
		for _, e := range l.book.managed {
			fmt.Fprintf(&b, "belief  %s device %d %s %v %v\n", e.ID, e.DeviceIndex, e.Status, e.Secondary, e.Prefixes)
		}
		for _, e := range l.book.detached {
			fmt.Fprintf(&b, "belief  %s detached %s\n", e.ID, e.Status)
		}
		for _, e := range l.book.others {
			fmt.Fprintf(&b, "belief  %s other: %s\n", e.ID, l.book.leftAlone(e, false))
		}
		for _, e := range l.book.Entries() {
			fmt.Fprintf(&b, "pool    %s %s %s %s disputed %v orphan %v\n", e.Addr, e.State, e.ENI, e.Owner, e.Disputed, e.Orphan)
		}
		for _, f := range l.book.flight {
			fmt.Fprintf(&b, "flight  %s\n", f.Change)
		}
		for _, k := range slices.SortedFunc(maps.Keys(l.book.blocked), func(a, b ipam.BlockKey) int {
			return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Target, b.Target))
		}) {
			fmt.Fprintf(&b, "block   %s %s %s\n", k.Kind, k.Target, l.book.blocked[k].Reason)
		}
		for _, c := range ipam.Plan(l.book.State(), l.cfg.Targets, time.Now()) {
			fmt.Fprintf(&b, "plan    %s\n", c)
		}
		fmt.Fprintf(&b, "wanted  %+v\n", ipam.Wanted(l.book.State(), l.cfg.Targets))
	}
	return b.String()
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
