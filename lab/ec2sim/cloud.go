package ec2sim

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Config is what a [Cloud] is made from.
type Config struct {
	Region  string           // such as "eu-west-1", the default; where a call says no other
	Regions []string         // all there are; Region is one of them, named or not
	Account string           // twelve digits; the default is 123456789012
	Now     func() time.Time // the only clock; the default is time.Now
	Seed    uint64           // of identifiers and MAC addresses
	Devices bool             // attachments and instances wait for reports of real devices
}

// Cloud is one account as seen from one of its regions. It is an [http.Handler]
// that speaks the EC2 Query protocol, in the region that each request is signed
// for; the methods named as actions do the same in-process, in the region of the
// view, and return an error of type [*Error].
type Cloud struct {
	*account
	region string
}

// account is what all views of a cloud share.
type account struct {
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
	a := &account{state: newState(cfg), changed: make(chan struct{}), refusals: map[string]refusal{}}
	return &Cloud{a, cfg.Region}
}

// In is the same cloud seen from another region. Where the cloud does not have
// it, every call is refused.
func (c *Cloud) In(region string) *Cloud { return &Cloud{c.account, region} }

// Region is where the calls of this view are done.
func (c *Cloud) Region() string { return c.region }

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
	region, err := where(s)
	if err != nil {
		return none, err
	}
	if s.regions[region] == nil {
		return none, fail("AuthFailure", "Credential should be scoped to a valid region, not '%s'.", region)
	}
	s.regional = s.regions[region]
	s.now = s.cfg.Now().UTC()
	start := s.save()
	out, err := do(s, in)
	if err != nil {
		s.rollback(start)
		return none, err
	}
	if s.commit() {
		close(c.changed)
		c.changed = make(chan struct{})
	}
	return out, nil
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
