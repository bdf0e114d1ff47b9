package path

import "slices"

// Verdict is what becomes of a packet: at a hop, or altogether.
type Verdict string

// The verdicts of a hop and of an answer.
const (
	Pass    Verdict = "pass"
	Drop    Verdict = "drop"
	Blind   Verdict = "unknown" // the hop depends on what is not known or not modelled
	Arrived Verdict = "delivered"
	Dropped Verdict = "dropped"
	Unsure  Verdict = "cannot tell"
)

// Kind is what a place is.
type Kind string

// The kinds of places.
const (
	KindPod      Kind = "pod"
	KindNode     Kind = "node"
	KindENI      Kind = "eni"
	KindACL      Kind = "acl"
	KindTable    Kind = "rtb"
	KindPeering  Kind = "pcx"
	KindTransit  Kind = "tgw"
	KindGateway  Kind = "igw"
	KindNAT      Kind = "nat"
	KindInternet Kind = "internet"
)

// Where is a place that a packet passes.
type Where struct {
	Site string `json:"site,omitempty"` // cluster or VPC
	Kind Kind   `json:"kind"`
	Name string `json:"name"`
}

func (w Where) String() string {
	if w.Site == "" {
		return w.Name
	}
	return w.Site + "/" + w.Name
}

// Hop is one decision about the packet.
type Hop struct {
	Where   Where   `json:"where"`
	Matched string  `json:"matched"` // what decided, in the words of who decides
	Result  string  `json:"result"`  // what came of it, where it passed
	Verdict Verdict `json:"verdict"`
	Code    Code    `json:"code,omitempty"`
	Reply   bool    `json:"reply,omitempty"`
	// Diverts says that a blind hop could have sent the packet elsewhere; one that
	// does not could only have passed or dropped it.
	Diverts bool   `json:"diverts,omitempty"`
	Before  Packet `json:"before"`
	After   Packet `json:"after"`
	Device  string `json:"device,omitempty"` // of a node: where it left or came in

	near *nearMiss // of a routing decision: a rule that nearly matched
	rule *IPRule   // of a routing decision: the one that decided
	mtu  int       // of a drop for the size: what would have fitted, in bytes
	ns   *Namespace
	eni  *ENI
	vpc  *VPC
}

// Answer is the way of a packet and of its reply.
type Answer struct {
	Probe   Probe   `json:"probe"`
	Verdict Verdict `json:"verdict"`
	Hops    []Hop   `json:"hops"`
	MTU     int     `json:"mtu,omitempty"` // bytes, the smallest on both ways
	// Translated says that somebody changed an address on the way.
	Translated bool `json:"translated"`
	// SameENIs says that the reply took the ENIs of the packet.
	SameENIs bool     `json:"sameENIs"`
	Cost     []string `json:"cost,omitempty"`
	// Outcomes is how many ways a choice on the way, such as a service's backend,
	// leaves open; the hops are those of the worst.
	Outcomes int `json:"outcomes"`
	// Failing is how many of the outcomes are not "delivered".
	Failing int `json:"failing"`
	// More says that there are further ways, which were not walked.
	More bool `json:"more,omitempty"`
	// Ways are the outcomes by where they end, where there is more than one or a
	// Service was asked for; the worst first.
	Ways []Way `json:"ways,omitempty"`
	// Service is the one that the probe named.
	Service *AskedService `json:"service,omitempty"`

	destination *nsRef // where the packet was delivered, if it was
}

// Faults are the numbers, from 0, of the hops that drop.
func (a *Answer) Faults() []int { return a.hopsOf(Drop) }

// Blind are the numbers of the hops that depend on what is not known.
func (a *Answer) Blind() []int { return a.hopsOf(Blind) }

// diverters are the places before hop n that could have sent the packet elsewhere.
func (a *Answer) diverters(n int) []string {
	var out []string
	for _, h := range a.Hops[:n] {
		if at := h.Where.String(); h.Verdict == Blind && h.Diverts && !slices.Contains(out, at) {
			out = append(out, at)
		}
	}
	return out
}

func (a *Answer) hopsOf(v Verdict) []int {
	var out []int
	for i := range a.Hops {
		if a.Hops[i].Verdict == v {
			out = append(out, i)
		}
	}
	return out
}

// verdict is the whole's: a drop counts unless something before it could have
// sent the packet elsewhere.
func (a *Answer) verdict() Verdict {
	blind := false
	for i := range a.Hops {
		switch h := &a.Hops[i]; {
		case h.Verdict == Drop:
			return Dropped
		case h.Verdict == Blind && h.Diverts:
			return Unsure
		case h.Verdict == Blind:
			blind = true
		}
	}
	if blind {
		return Unsure
	}
	return Arrived
}
