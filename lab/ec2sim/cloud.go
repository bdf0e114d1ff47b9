package ec2sim

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fairway-cni/fairway/lab/ec2sim/policy"
)

// Config is what a [Cloud] is made from.
type Config struct {
	Region  string           // such as "eu-west-1", the default; where a call says no other
	Regions []string         // all there are; Region is one of them, named or not
	Account string           // twelve digits; the default is 123456789012
	Now     func() time.Time // the only clock; the default is time.Now
	Seed    uint64           // of identifiers and MAC addresses
	Devices bool             // attachments and instances wait for reports of real devices

	// IAM has every request over HTTP signed by an instance's role, which must
	// have the right to make it; see [Cloud.Credentials].
	IAM   bool
	Roles map[string][]policy.Document // the policies of each role, by its name
	// After is the only timer; the default is time.After. What waits by it is
	// late on purpose.
	After func(time.Duration) <-chan time.Time

	// What follows makes a cloud less than ideal; each is off at zero. Requests
	// over HTTP feel all of it, the methods only Attach and Quotas.

	Throttle bool                     // token buckets of EC2's published sizes
	Lag      time.Duration            // a request may meet the state of up to so long ago
	Attach   time.Duration            // sets how long an attachment takes: see [Attachment]
	Delay    time.Duration            // of every call that is carried out
	Delays   map[string]time.Duration // by action, in place of Delay
	Quotas   Quotas                   // of each region
	Memory   time.Duration            // how far back [Cloud.SnapshotAt] sees; at least Lag
	Chance   uint64                   // the seed of Lag and Attach
}

// Cloud is one account as seen from one of its regions. It is an [http.Handler]
// that speaks the EC2 Query protocol, in the region that each request is signed
// for; the methods named as actions do the same in-process, in the region of the
// view, and return an error of type [*Error].
type Cloud struct {
	*account
	region string
	admin  bool          // see Administrator
	stale  time.Duration // how old what this view sees is; set for one read
}

// account is what all views of a cloud share.
type account struct {
	mu       sync.Mutex
	state    *state
	changed  chan struct{}
	faults   faults
	requests uint64 // served over HTTP, for their identifiers
	buckets  map[bucketKey]bucket
	calls    callLog
}

// New makes an empty cloud.
func New(cfg Config) *Cloud {
	if cfg.Region == "" {
		cfg.Region = append(slices.Clone(cfg.Regions), "eu-west-1")[0]
	}
	if !slices.Contains(cfg.Regions, cfg.Region) {
		cfg.Regions = append([]string{cfg.Region}, cfg.Regions...)
	}
	if cfg.Account == "" {
		cfg.Account = "123456789012"
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.After == nil {
		cfg.After = time.After
	}
	cfg.Memory = max(cfg.Memory, cfg.Lag)
	a := &account{state: newState(cfg), changed: make(chan struct{}), buckets: map[bucketKey]bucket{}}
	return &Cloud{account: a, region: cfg.Region}
}

// In is the same cloud seen from another region. Where the cloud does not have
// it, every call is refused.
func (c *Cloud) In(region string) *Cloud {
	return &Cloud{account: c.account, region: region, admin: c.admin}
}

// Region is where the calls of this view are done.
func (c *Cloud) Region() string { return c.region }

// Changed gives a channel that is closed at the next change after this call.
func (c *Cloud) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// call does one thing to the state under the lock, in the region of the view.
// If it fails, the state is as before; if it wrote, those who wait for a change
// are told. What do returns may share memory with the state: an exported method
// clones it.
func call[In, Out any](c *Cloud, in In, do func(*state, In) (Out, error)) (Out, error) {
	return callIn(c, func(s *state) (string, error) { return c.region, nil }, in, do)
}

// callIn is call, in a region that is found out under the lock.
func callIn[In, Out any](c *Cloud, where func(*state) (string, error), in In, do func(*state, In) (Out, error)) (Out, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var none Out
	s := c.state
	c.catchUp()
	region, err := where(s)
	if err != nil {
		return none, err
	}
	if s.regions[region] == nil {
		return none, fail("AuthFailure", "Credential should be scoped to a valid region, not '%s'.", region)
	}
	s.regional = s.regions[region]
	var out Out
	run := func() {
		start := s.save()
		if out, err = do(s, in); err != nil {
			s.rollback(start)
			out = none
		}
	}
	if c.stale > 0 {
		s.asOf(s.now.Add(-c.stale), run)
		return out, err
	}
	run()
	if s.commit(s.now) {
		c.tell()
	}
	return out, err
}

// tell wakes those who wait for a change.
func (a *account) tell() {
	close(a.changed)
	a.changed = make(chan struct{})
}

// catchUp makes true what has become so by itself since the last call.
func (a *account) catchUp() {
	a.state.now = a.state.cfg.Now().UTC()
	if a.state.ripen() {
		a.tell()
	}
}

// report is call for the owner of the devices, who need not know in which
// region they are: in the one where has holds, or in that of the view.
func report[In any](c *Cloud, in In, has func(*regional) bool, do func(*state, In) error) error {
	where := func(s *state) (string, error) {
		for _, name := range s.cfg.Regions {
			if has(s.regions[name]) {
				return name, nil
			}
		}
		return c.region, nil
	}
	_, err := callIn(c, where, in, func(s *state, in In) (struct{}, error) { return struct{}{}, do(s, in) })
	return err
}

// zones are the availability zones of the region. Every simulated region has
// three.
func (r *regional) zones() []string {
	var zones []string
	for _, letter := range "abc" {
		zones = append(zones, r.region+string(letter))
	}
	return zones
}

// zoneID gives the identifier of a zone: "euw1-az1" for "eu-west-1a". In an
// account of the real service letters and numbers need not match; here they do.
func (r *regional) zoneID(zone string) string {
	parts := strings.Split(r.region, "-")
	if len(parts) < 3 || zone == "" {
		return zone
	}
	short := parts[0]
	for _, word := range parts[1 : len(parts)-1] {
		switch word {
		case "northeast", "northwest", "southeast", "southwest":
			short += word[:1] + word[5:6]
		case "gov":
			short += "g"
		default:
			short += word[:1]
		}
	}
	return fmt.Sprintf("%s%s-az%d", short, parts[len(parts)-1], zone[len(zone)-1]-'a'+1)
}
