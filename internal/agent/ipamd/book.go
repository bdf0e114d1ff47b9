package ipamd

import (
	"cmp"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/fairway-cni/fairway/internal/core/cluster"
	"github.com/fairway-cni/fairway/internal/core/ipam"
	"github.com/fairway-cni/fairway/internal/core/vpc"
	"github.com/fairway-cni/fairway/internal/edge/store"
)

// Settle is how long what EC2 and IMDS say may lag behind what they did: a read
// that began earlier than this after a write is no evidence against it. EC2's own
// page names no bound ("Eventual consistency in the Amazon EC2 API"); seconds are
// usual.
const Settle = 30 * time.Second

// Config is what a user can set of the pool.
type Config struct {
	Targets         ipam.Targets
	CoolDown        time.Duration // 0: none
	MaxPods         int           // 0: not known
	ManageUntagged  bool          // ENIs without this node's tag give pods addresses too
	IMDSOnly        bool          // EC2 is never called
	SubnetDiscovery bool          // further ENIs may be in any subnet that is tagged for it
	LeakedCleanup   bool          // ENIs that nodes of this cluster left behind are deleted
	Cluster         string        // CLUSTER_NAME: of the tag of ENIs; empty: none
	Tags            map[string]string
	Custom          Custom
}

// Custom is the ENIConfig that this node selects (custom networking).
type Custom struct {
	Enabled bool
	Name    string // of the ENIConfig
	Subnet  string
	Groups  []string
	Problem string // why none can be used
}

// Identity is what the agent knows of its instance.
type Identity struct {
	InstanceID, InstanceType string
	Limits                   vpc.Limits
	VPCID, Zone              string
	Groups                   []string // of the primary ENI
}

// Datapath makes the node's kernel follow the ENIs, and says which of them have
// a device: pods get addresses of those only.
type Datapath func(managed, others []vpc.ENI) (ready map[string]bool, err error)

// Book is the node's addresses; see the package comment. Its methods belong to
// one goroutine.
type Book struct {
	cfg    Config
	self   Identity
	log    *slog.Logger
	now    func() time.Time
	store  *store.Store
	follow Datapath
	kick   chan struct{} // wakes the executor; one pending wake-up is enough

	pool      *ipam.Pool
	belief    *ipam.Belief
	records   map[ipam.Owner]store.Record
	cooling   map[netip.Addr]time.Time // records to remove, and when
	queue     queue
	managed   []vpc.ENI
	others    []vpc.ENI
	detached  []vpc.ENI
	arriving  []string             // managed ENIs that have no device yet
	devices   map[string]bool      // managed ENIs that have had one: whether they have it now
	listAt    time.Time            // when EC2 is to be asked for the ENIs, for another reason than the belief's
	attaching map[string]time.Time // the arriving, and ENIs whose attach is under way: since when
	lost      map[ipam.Owner]bool
	subnets   []vpc.Subnet

	flight    []flight
	leaving   []store.Leaving // what the journal says
	unsure    map[netip.Addr]time.Time
	budgets   map[string]*budget
	blocked   map[ipam.BlockKey]ipam.Block
	failures  map[ipam.BlockKey]int
	offline   bool
	heard     bool      // EC2 has listed the ENIs since the start
	listed    time.Time // when it was last asked for the list that it gave
	started   time.Time
	scheduled map[cluster.PodName]bool // pods that are bound to the node and will ask
	coming    atomic.Int32             // ADDs that have had no turn yet; anybody's to change
	subnetsAt time.Time                // when EC2 is to be asked for the subnets

	subnetsTried bool // EC2 was asked for them, whatever it said
}

// NewBook makes an empty book; [Book.Restore] fills it.
func NewBook(cfg Config, self Identity, s *store.Store, log *slog.Logger, now func() time.Time) *Book {
	coolDown := cfg.CoolDown
	if coolDown == 0 {
		coolDown = -1 // the user's zero means none
	}
	b := &Book{
		cfg: cfg, self: self, log: log, now: now, store: s, started: now(),
		follow:   func(m, _ []vpc.ENI) (map[string]bool, error) { return allReady(m), nil },
		kick:     make(chan struct{}, 1),
		pool:     ipam.NewPool(ipam.Config{CoolDown: coolDown}),
		belief:   ipam.NewBelief(Settle),
		records:  make(map[ipam.Owner]store.Record),
		cooling:  make(map[netip.Addr]time.Time),
		lost:     make(map[ipam.Owner]bool),
		unsure:   make(map[netip.Addr]time.Time),
		budgets:  make(map[string]*budget),
		blocked:  make(map[ipam.BlockKey]ipam.Block),
		failures: make(map[ipam.BlockKey]int),

		attaching: make(map[string]time.Time),
	}
	b.pool.Prefer(cfg.Targets.Prefixes && self.Limits.PrefixCapable())
	return b
}

func allReady(enis []vpc.ENI) map[string]bool {
	ready := make(map[string]bool, len(enis))
	for _, e := range enis {
		ready[e.ID] = true
	}
	return ready
}

// Drives says what makes the kernel follow. Without it every ENI counts as ready.
func (b *Book) Drives(d Datapath) { b.follow = d }

// wake makes the executor plan again.
func (b *Book) wake() {
	select {
	case b.kick <- struct{}{}:
	default:
	}
}

// Restore takes the records and the journal over, before anything else is said
// of the ENIs. What cannot be read keeps its address out of use.
func (b *Book) Restore() error {
	records, err := b.store.All()
	var bad *store.BadRecordsError
	restored := ipam.Restored{}
	if errors.As(err, &bad) {
		restored.Unreadable = bad.Addrs()
		b.log.Error("unreadable address records; their addresses stay out of use", "error", bad)
	} else if err != nil {
		return err
	}
	byAddr := make(map[netip.Addr]store.Record, len(records))
	for _, r := range records {
		byAddr[r.Addr] = r
		if r.Held() {
			restored.Held = append(restored.Held, ipam.Assignment{Owner: ownerOf(r), Addr: r.Addr, ENI: r.ENI})
			continue
		}
		restored.Cooling = append(restored.Cooling, ipam.Cooling{Addr: r.Addr, ENI: r.ENI, ReleasedAt: r.ReleasedAt})
		b.cooling[r.Addr] = r.ReleasedAt.Add(b.cfg.CoolDown)
	}
	if err := b.pool.Restore(restored, b.now()); err != nil {
		b.log.Error("address records contradict each other; the addresses in question stay out of use", "error", err)
	}
	for _, a := range restored.Held {
		if got, ok := b.pool.Lookup(a.Owner); ok && got.Addr == a.Addr {
			b.records[a.Owner] = byAddr[a.Addr]
		}
	}
	return b.restoreLeaving()
}

// restoreLeaving distrusts reads about what EC2 was asked to take back shortly
// before the end of the last agent, as if this one had asked.
func (b *Book) restoreLeaving() error {
	leaving, err := b.store.Leaving()
	if err != nil {
		// Worst case: an address that EC2 took back a moment ago is given out,
		// and found lost when EC2's reads have caught up.
		b.log.Error("read the journal of addresses that were being given back", "error", err)
	}
	now := b.now()
	for _, l := range leaving {
		since := l.Since
		if since.After(now) { // the clock was set back
			since = now
		}
		if now.Sub(since) >= Settle {
			continue
		}
		b.leaving = append(b.leaving, l)
		c := ipam.Change{Kind: ipam.UnassignAddresses, ENI: l.ENI, Addrs: []netip.Addr{l.Prefix.Addr()}}
		if l.Prefix.Bits() < l.Prefix.Addr().BitLen() {
			c = ipam.Change{Kind: ipam.UnassignPrefixes, ENI: l.ENI, Prefixes: []netip.Prefix{l.Prefix}}
		}
		b.belief.Wrote(c, ipam.Result{}, since)
	}
	return nil
}

func ownerOf(r store.Record) ipam.Owner {
	return ipam.Owner{ContainerID: r.ContainerID, IfName: r.IfName}
}

// Refresh brings kernel and pool in line with what is believed of the ENIs. It
// is called after every news of them, and when devices came or went. What the
// kernel refuses is an error; the pool has followed all the same.
func (b *Book) Refresh() error {
	now := b.now()
	view := b.belief.View(now)
	b.managed, b.others = b.sort(view.Attached)
	b.detached = view.Detached
	ready, err := b.follow(b.managed, b.others)
	b.offer(view, ready, now)
	b.wake()
	return err
}

// offer gives the pool the addresses of the managed ENIs. Those of an ENI whose
// device has not appeared, or has gone, are on their way: they count, and nobody gets
// them.
func (b *Book) offer(view ipam.View, ready map[string]bool, now time.Time) {
	disputed := view.Disputed
	devices := b.devices
	b.arriving, b.devices = nil, make(map[string]bool)
	var exclude []string
	for _, e := range b.managed {
		if b.cfg.Custom.Enabled && e.DeviceIndex == 0 {
			exclude = append(exclude, e.ID)
		}
		if ready[e.ID] {
			b.devices[e.ID] = true
			continue
		}
		if was, known := devices[e.ID]; known {
			b.devices[e.ID] = false
			if was && b.listAt.IsZero() { // somebody has taken it off the instance
				b.listAt = now
			}
		}
		b.arriving = append(b.arriving, e.ID)
		for _, a := range e.PodAddresses() {
			disputed[a] = true
		}
	}
	b.noteArrivals(now)
	b.pool.Exclude(exclude...)
	b.report(b.pool.SetENIs(b.managed, disputed, now), now)
	b.tell()
}

// report names the pods that have lost their address, each once. Shortly after
// the start a read may be older than an address that the last agent was given.
func (b *Book) report(lost []ipam.Assignment, now time.Time) {
	was := b.lost
	b.lost = make(map[ipam.Owner]bool, len(lost))
	for _, a := range lost {
		if now.Sub(b.started) < Settle && now.Sub(b.records[a.Owner].CreatedAt) < 2*Settle {
			continue
		}
		b.lost[a.Owner] = true
		if r := b.records[a.Owner]; !was[a.Owner] {
			b.log.Warn("address of a running pod is on none of the node's ENIs; the pod has no network until it is replaced",
				"addr", a.Addr, "eni", a.ENI, "pod", r.PodNamespace+"/"+r.PodName, "container", a.Owner.ContainerID)
		}
	}
}

// Managed is the ENIs that give pods addresses, and Others those of the instance
// that do not.
func (b *Book) Managed() []vpc.ENI { return b.managed }

// Others is the ENIs of the instance that are left alone.
func (b *Book) Others() []vpc.ENI { return b.others }

// Held is the record of every attachment.
func (b *Book) Held() map[ipam.Owner]store.Record { return b.records }

// Entries lists every address the pool remembers.
func (b *Book) Entries() []ipam.Entry { return b.pool.Entries(b.now()) }

// Stats counts the pool's addresses.
func (b *Book) Stats() ipam.Stats { return b.pool.Stats(b.now()) }

// Lost lists the attachments whose address no ENI has any more.
func (b *Book) Lost() []ipam.Owner {
	var lost []ipam.Owner
	for o := range b.lost {
		lost = append(lost, o)
	}
	slices.SortFunc(lost, func(a, b ipam.Owner) int { return cmp.Compare(a.String(), b.String()) })
	return lost
}
