package ec2sim

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// Config is what a [Cloud] is made from.
type Config struct {
	Region  string           // such as "eu-west-1", the default
	Account string           // twelve digits; the default is 123456789012
	Now     func() time.Time // the only clock; the default is time.Now
	Seed    uint64           // of identifiers and MAC addresses
	Devices bool             // attachments and instances wait for reports of real devices
}

// Cloud is one account in one region. It is an [http.Handler] that speaks the
// EC2 Query protocol; the methods named as actions do the same in-process and
// return an error of type [*Error].
type Cloud struct {
	mu       sync.Mutex
	state    *state
	changed  chan struct{}
	refusals map[string]refusal // by action
	requests uint64             // served over HTTP, for their identifiers
}

// refusal is an injected error.
type refusal struct {
	err   *Error
	times int // left; negative: without end
}

// New makes an empty cloud.
func New(cfg Config) *Cloud {
	if cfg.Region == "" {
		cfg.Region = "eu-west-1"
	}
	if cfg.Account == "" {
		cfg.Account = "123456789012"
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Cloud{state: newState(cfg), changed: make(chan struct{}), refusals: map[string]refusal{}}
}

// InjectError makes the next requests for an action over HTTP fail with err,
// before anything about them is looked at but the action's name: times of
// them, or all if times is negative. A nil err or zero times ends that.
// Calls of the methods are not touched.
func (c *Cloud) InjectError(action string, err *Error, times int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil || times == 0 {
		delete(c.refusals, action)
		return
	}
	injected := *err
	c.refusals[action] = refusal{&injected, times}
}

// refuse gives the injected error for this request, if any, and counts it.
func (c *Cloud) refuse(action string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.refusals[action]
	if !ok {
		return nil
	}
	if r.times--; r.times == 0 {
		delete(c.refusals, action)
	} else if r.times > 0 {
		c.refusals[action] = r
	}
	return r.err
}

// Changed gives a channel that is closed at the next change after this call.
func (c *Cloud) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// Snapshot copies everything.
func (c *Cloud) Snapshot() Snapshot {
	snap, _ := call(c, struct{}{}, func(s *state, _ struct{}) (Snapshot, error) {
		var snap Snapshot
		for v := range s.vpcs.all() {
			snap.VPCs = append(snap.VPCs, v.clone())
		}
		for n := range s.subnets.all() {
			snap.Subnets = append(snap.Subnets, s.withFree(n).clone())
		}
		for g := range s.groups.all() {
			snap.Groups = append(snap.Groups, g.clone())
		}
		for e := range s.enis.all() {
			snap.Interfaces = append(snap.Interfaces, e.clone())
		}
		for i := range s.instances.all() {
			if !s.forgotten(i) {
				snap.Instances = append(snap.Instances, i.clone())
			}
		}
		return snap, nil
	})
	return snap
}

// call does one thing to the state under the lock. If it fails, the state is
// as before; if it wrote, those who wait for a change are told. What do
// returns may share memory with the state: an exported method clones it.
func call[In, Out any](c *Cloud, in In, do func(*state, In) (Out, error)) (Out, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state.now = c.state.cfg.Now().UTC()
	start := c.state.save()
	out, err := do(c.state, in)
	if err != nil {
		c.state.rollback(start)
		var none Out
		return none, err
	}
	if c.state.commit() {
		close(c.changed)
		c.changed = make(chan struct{})
	}
	return out, nil
}

// zones are the availability zones of the region. Every simulated region has
// three.
func (s *state) zones() []string {
	var zones []string
	for _, letter := range "abc" {
		zones = append(zones, s.cfg.Region+string(letter))
	}
	return zones
}

// zoneID gives the identifier of a zone: "euw1-az1" for "eu-west-1a". In an
// account of the real service letters and numbers need not match; here they do.
func (s *state) zoneID(zone string) string {
	parts := strings.Split(s.cfg.Region, "-")
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
