package ec2sim

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// ErrFault says that a fault asked for makes no sense.
var ErrFault = errors.New("bad fault")

// Fault is one thing that goes wrong on purpose with requests for an action: it
// comes late, fails, or both. It meets requests before anything about them is
// looked at but the action's name and who asks.
//
//	request -> outage? -> action known? -> fault: delay, then error -> the call
//
// Which of the requests it meets follows from the seed and their number, so the
// same seed and the same requests give the same run.
type Fault struct {
	Action      string        `json:"action"`            // such as "CreateNetworkInterface"; * and ? as in a [Filter]
	Code        string        `json:"code,omitempty"`    // of the error; empty: only the delay
	Message     string        `json:"message,omitempty"` // of the error
	Status      int           `json:"status,omitempty"`  // HTTP status; 0: the usual one for the code
	Delay       time.Duration `json:"delay,omitempty"`   // nanoseconds, before the error or the call
	Times       int           `json:"times,omitempty"`   // how many requests it meets, then it ends; 0: without end
	Probability float64       `json:"probability,omitempty"`
	Seed        uint64        `json:"seed,omitempty"`
}

// FaultStatus is a fault and what came of it.
type FaultStatus struct {
	Fault
	Seen uint64 `json:"seen"` // requests for the action
	Met  uint64 `json:"met"`  // of these, that it met
}

// Check refuses what makes no sense.
func (f Fault) Check() error {
	switch {
	case f.Action == "":
		return fmt.Errorf("%w: an action is missing", ErrFault)
	case !anyAction(f.Action):
		return fmt.Errorf("%w: action %q: the lab's EC2 has none such", ErrFault, f.Action)
	case f.Code == "" && f.Delay == 0:
		return fmt.Errorf("%w: %s: neither an error nor a delay", ErrFault, f.Action)
	case f.Code == "" && (f.Message != "" || f.Status != 0):
		return fmt.Errorf("%w: %s: a message or status without an error code", ErrFault, f.Action)
	case f.Delay < 0:
		return fmt.Errorf("%w: delay %s: must not be negative", ErrFault, f.Delay)
	case f.Times < 0:
		return fmt.Errorf("%w: times %d: must not be negative", ErrFault, f.Times)
	case !(f.Probability >= 0 && f.Probability <= 1): // no number, too
		return fmt.Errorf("%w: probability %v: must be from 0 to 1", ErrFault, f.Probability)
	case f.Status != 0 && (f.Status < 400 || f.Status > 599):
		return fmt.Errorf("%w: status %d: must be from 400 to 599", ErrFault, f.Status)
	}
	return nil
}

func anyAction(pattern string) bool {
	for name := range actions {
		if wildcard(pattern, name) {
			return true
		}
	}
	return false
}

// meets tells whether a fault meets the nth request for its action. A
// probability of zero is the one that was not given: it meets all.
func (f Fault) meets(n uint64) bool {
	if f.Probability == 0 || f.Probability == 1 {
		return true
	}
	const bits = 53 // of a float64's fraction
	return float64(mix(n+mix(f.Seed)*seedStep)>>(64-bits)) < f.Probability*(1<<bits)
}

// faults are what goes wrong on purpose, under the account's mutex.
type faults struct {
	list   []FaultStatus // in the order they were set
	outage Outage
	lifted chan struct{} // closed when the outage ends or is another; nil: there was none yet
}

// SetFault makes requests for an action over HTTP go wrong, in place of the
// fault that the same action (or the same pattern) has. Calls of the methods
// are not touched. Where several match, all their delays add up until one has
// an error; they are asked in the order in which they were set.
func (c *Cloud) SetFault(f Fault) error {
	if err := f.Check(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.setFault(f)
	return nil
}

func (c *Cloud) setFault(f Fault) {
	at := slices.IndexFunc(c.faults.list, func(s FaultStatus) bool { return s.Action == f.Action })
	if at < 0 {
		c.faults.list = append(c.faults.list, FaultStatus{Fault: f})
		return
	}
	c.faults.list[at] = FaultStatus{Fault: f}
}

// ClearFault ends the fault of an action, and reports whether it had one.
func (c *Cloud) ClearFault(action string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := len(c.faults.list)
	c.dropFault(action)
	return len(c.faults.list) < before
}

func (c *Cloud) dropFault(action string) {
	c.faults.list = slices.DeleteFunc(c.faults.list, func(s FaultStatus) bool { return s.Action == action })
}

// Faults gives the faults of actions, in the order in which they were set.
func (c *Cloud) Faults() []FaultStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.faults.list)
}

// ClearFaults ends all faults of actions, and the outage.
func (c *Cloud) ClearFaults() {
	c.mu.Lock()
	c.faults.list = nil
	c.mu.Unlock()
	c.ClearOutage()
}

// InjectError makes the next requests for an action over HTTP fail with err:
// times of them, or all if times is negative. A nil err or zero times ends that.
// It is [Cloud.SetFault] for tests, which may name any code and any action.
func (c *Cloud) InjectError(action string, err *Error, times int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil || times == 0 {
		c.dropFault(action)
		return
	}
	c.setFault(Fault{Action: action, Code: err.Code, Message: err.Message, Status: err.Status, Times: max(times, 0)})
}

// refuse gives what the faults have for this request: how late it is, and the
// error, if any.
func (c *Cloud) refuse(action string) (time.Duration, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var late time.Duration
	var refused error
	for i := 0; i < len(c.faults.list) && refused == nil; i++ {
		f := &c.faults.list[i]
		if f.Times > 0 && f.Met >= uint64(f.Times) || !wildcard(f.Action, action) {
			continue
		}
		f.Seen++
		if !f.meets(f.Seen) {
			continue
		}
		f.Met++
		late += f.Delay
		if f.Code != "" {
			refused = &Error{Code: f.Code, Message: f.message(), Status: f.Status}
		}
	}
	return late, refused
}

func (f Fault) message() string {
	if f.Message != "" {
		return f.Message
	}
	return "A fault of the lab (" + f.Code + ")."
}

// The kinds of an [Outage].
const (
	OutageRefuse = "refuse" // connections are refused, or broken off where one is there
	OutageError  = "503"    // every request gets the error Unavailable
	OutageHang   = "hang"   // requests are taken, and not answered
)

// Outage is when no request is served. The zero value is none.
type Outage struct {
	Kind  string    `json:"kind,omitempty"`
	Until time.Time `json:"until,omitzero"` // zero: until it is cleared
}

// SetOutage begins an outage that ends by itself after a time, unless that is
// zero. Another one that is going on ends.
func (c *Cloud) SetOutage(kind string, last time.Duration) error {
	if !slices.Contains([]string{OutageRefuse, OutageError, OutageHang}, kind) {
		return fmt.Errorf("%w: outage %q: must be %s, %s or %s", ErrFault, kind, OutageRefuse, OutageError, OutageHang)
	}
	if last < 0 {
		return fmt.Errorf("%w: outage for %s: must not be negative", ErrFault, last)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	o := Outage{Kind: kind}
	if last > 0 {
		o.Until = c.state.cfg.Now().Add(last)
	}
	c.changeOutage(o)
	return nil
}

// ClearOutage ends the outage, if there is one.
func (c *Cloud) ClearOutage() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.faults.outage != (Outage{}) {
		c.changeOutage(Outage{})
	}
}

// changeOutage lets go of the requests that hang, and tells those who wait for
// a change: the owner of listeners has some to close or to open.
func (c *Cloud) changeOutage(o Outage) {
	c.faults.outage = o
	if c.faults.lifted != nil {
		close(c.faults.lifted)
	}
	c.faults.lifted = make(chan struct{})
	c.tell()
}

// Outage gives the outage of this moment.
func (c *Cloud) Outage() Outage {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.outageNow()
}

func (c *Cloud) outageNow() Outage {
	o := c.faults.outage
	if !o.Until.IsZero() && !c.state.cfg.Now().Before(o.Until) {
		return Outage{}
	}
	return o
}

// blackOut does to a request what the outage does. It panics with
// http.ErrAbortHandler, which is how a handler breaks off a connection; the
// in-memory transport turns that into an error of the client's.
func (c *Cloud) blackOut(r *http.Request) error {
	c.mu.Lock()
	o, lifted := c.outageNow(), c.faults.lifted
	c.mu.Unlock()
	switch o.Kind {
	case "":
		return nil
	case OutageError:
		return fail("Unavailable", "The server is overloaded and can't handle the request.")
	case OutageHang:
		// Only a server that has read all of a request sees its client go.
		if _, err := io.CopyN(io.Discard, r.Body, maxBody); err != nil && !errors.Is(err, io.EOF) {
			panic(http.ErrAbortHandler)
		}
		over := make(<-chan time.Time)
		if !o.Until.IsZero() {
			over = c.state.cfg.After(o.Until.Sub(c.state.cfg.Now()))
		}
		select {
		case <-r.Context().Done():
		case <-lifted:
		case <-over:
		}
	}
	panic(http.ErrAbortHandler)
}

// wait is for a request that comes late; false if its client has gone.
func (c *Cloud) wait(r *http.Request, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	select {
	case <-r.Context().Done():
		return false
	case <-c.state.cfg.After(d):
		return true
	}
}

// TakeENI takes an ENI away behind its node's back, as if another client of the
// account had detached it by force and deleted it: in whichever region, at once,
// and whatever its marks say. The primary ENI of an instance cannot be taken.
func (c *Cloud) TakeENI(id string) error {
	has := func(r *regional) bool { _, ok := r.enis.get(id); return ok }
	return report(c, id, has, func(s *state, id string) error {
		e, err := s.findENI(id)
		if err != nil {
			return err
		}
		if a := e.Attachment; a != nil {
			if a.DeviceIndex == 0 && a.CardIndex == s.limitsOf(a.InstanceID).DefaultCard {
				return fail("OperationNotPermitted", "The network interface at device index 0 cannot be detached.")
			}
			e = s.detach(e)
		}
		s.dropENI(e)
		return nil
	})
}

// TakeAddress takes a secondary address, or the /28 prefix that it is in, away
// from its ENI behind the node's back. VPCs may overlap: where more than one ENI
// has the address, eni says which is meant; else it may be empty.
func (c *Cloud) TakeAddress(a netip.Addr, eni string) error {
	c.mu.Lock()
	var owners []string
	for _, r := range c.state.regions {
		for e := range r.enis.all() {
			if (eni == "" || eni == e.ID) && (slices.Contains(e.Secondary, a) || slices.ContainsFunc(e.Prefixes, func(p netip.Prefix) bool { return p.Contains(a) })) {
				owners = append(owners, e.ID)
			}
		}
	}
	c.mu.Unlock()
	slices.Sort(owners)
	switch {
	case len(owners) == 0:
		return fmt.Errorf("%w: no ENI has the secondary address %s, or a prefix with it", ErrFault, a)
	case len(owners) > 1:
		return fmt.Errorf("%w: several ENIs have the address %s: name one: %s", ErrFault, a, strings.Join(owners, ", "))
	}
	id := owners[0]
	has := func(r *regional) bool { _, ok := r.enis.get(id); return ok }
	return report(c, a, has, func(s *state, a netip.Addr) error {
		e, err := s.findENI(id)
		if err != nil {
			return err
		}
		in := UnassignPrivateIPAddressesInput{ID: id}
		if slices.Contains(e.Secondary, a) {
			in.Addresses = []netip.Addr{a}
		}
		for _, p := range e.Prefixes {
			if p.Contains(a) {
				in.Prefixes = []netip.Prefix{p}
			}
		}
		_, err = unassignPrivateIPs(s, in)
		return err
	})
}
