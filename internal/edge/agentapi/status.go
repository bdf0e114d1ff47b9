package agentapi

import "time"

// Status is what the agent has, what it wants, and what keeps it from that, at one
// moment. It is versioned by its field names: a field is added, and never changes
// its meaning. Times are the node's clock; a time that is not known is missing.
type Status struct {
	At        time.Time `json:"at"`
	Version   string    `json:"version,omitempty"` // the agent's release, as its build says
	Node      Node      `json:"node"`
	Targets   Targets   `json:"targets"`
	Pool      Pool      `json:"pool"`
	Wanted    Wanted    `json:"wanted"`
	ENIs      []ENI     `json:"enis"`                // by device index; then those that are not attached
	Pods      []Pod     `json:"pods"`                // by namespace and name
	Waiting   []Waiting `json:"waiting"`             // ADDs, in the order they came
	Scheduled int       `json:"scheduled,omitempty"` // pods bound to the node that will ask and have not
	Outlook   string    `json:"outlook,omitempty"`   // of those that wait: why, and whether it helps
	InFlight  []Flight  `json:"inFlight"`            // changes that EC2 is asked for
	Refused   []Refused `json:"refused"`             // what is left alone for now
	Subnets   []Subnet  `json:"subnets"`             // that ENIs may be made in, where that is looked up
	EC2       EC2       `json:"ec2"`
	Kernel    Kernel    `json:"kernel"`
	Paths     Paths     `json:"paths"`
	Problems  []Problem `json:"problems"` // the worst first
}

// Node is who the agent is.
type Node struct {
	InstanceID   string `json:"instanceID"`
	InstanceType string `json:"instanceType"`
	VPC          string `json:"vpc"`
	Zone         string `json:"zone"`
	MaxENIs      int    `json:"maxENIs"`                    // that can give pods addresses
	MaxPods      int    `json:"maxPods,omitempty"`          // what kubelet was told, as far as the agent knows
	MaxPodsFit   int    `json:"maxPodsFit"`                 // what kubelet should be told: see `fairway-agent max-pods`
	LimitsKnown  bool   `json:"limitsKnown"`                // of the instance type
	Custom       string `json:"eniConfig,omitempty"`        // the ENIConfig of custom networking
	CustomFault  string `json:"eniConfigProblem,omitempty"` // why no ENI can be made by it
}

// Targets is what the user wants of the pool.
type Targets struct {
	WarmENIs     int     `json:"warmENIs"`
	WarmIPs      int     `json:"warmIPs,omitempty"`
	MinimumIPs   int     `json:"minimumIPs,omitempty"`
	WarmPrefixes int     `json:"warmPrefixes,omitempty"`
	MaxENIs      int     `json:"maxENIs,omitempty"`
	Prefixes     bool    `json:"prefixes"`
	Provisioning bool    `json:"provisioning"` // EC2 is asked for changes
	CoolDown     float64 `json:"coolDownSeconds"`
	ReturnAfter  float64 `json:"returnAfterSeconds"` // with this node's jitter
}

// Pool counts addresses. Total is the sum of the first seven; Orphaned ones are on
// none of the node's ENIs.
type Pool struct {
	Free     int `json:"free"`
	Assigned int `json:"assigned"`
	Cooling  int `json:"cooling"`
	Reserved int `json:"reserved"`
	Leaving  int `json:"leaving"`
	Arriving int `json:"arriving"` // of ENIs whose device is not there
	Disputed int `json:"disputed"` // that EC2 and instance metadata do not agree about
	Total    int `json:"total"`
	Orphaned int `json:"orphaned"`

	Capacity int       `json:"capacity"`          // that the node could have at most
	Prefixes int       `json:"prefixes"`          // /28s; their addresses are among the others
	NextFree time.Time `json:"nextFree,omitzero"` // when the next cool-down ends
}

// Wanted is what the planner wants the node to have.
type Wanted struct {
	Addresses int    `json:"addresses"`
	Prefixes  int    `json:"prefixes,omitempty"`
	ENIs      int    `json:"enis"`
	Why       string `json:"why"`
}

// What an ENI can be.
const (
	Attached  = "attached"    // it gives pods addresses
	Attaching = "attaching"   // asked for, or EC2 says so, and the device is not there
	Missing   = "device gone" // attached as far as EC2 and IMDS say; it had a device, and has none
	Detaching = "detaching"
	Detached  = "detached"    // of this node, attached to nothing
	Unmanaged = "not managed" // attached, and left alone
)

// ENI is one interface.
type ENI struct {
	ID          string    `json:"id"`
	Device      string    `json:"device,omitempty"` // name in the kernel; empty while it is not there
	DeviceIndex int       `json:"deviceIndex"`      // -1 of one that is not attached
	CardIndex   int       `json:"cardIndex"`
	MAC         string    `json:"mac"`
	Address     string    `json:"address,omitempty"` // its own
	Subnet      string    `json:"subnet"`
	State       string    `json:"state"`
	Since       time.Time `json:"since,omitzero"` // of Attaching and Missing
	Why         string    `json:"why,omitempty"`  // of Unmanaged
	Addresses   int       `json:"addresses"`      // single ones for pods
	Prefixes    int       `json:"prefixes"`
	Pods        int       `json:"pods"`
}

// Pod is one interface of a pod.
type Pod struct {
	Namespace   string    `json:"namespace,omitempty"`
	Name        string    `json:"name,omitempty"`
	ContainerID string    `json:"containerID,omitempty"`
	Interface   string    `json:"interface"`
	Address     string    `json:"address"`
	ENI         string    `json:"eni"`
	Device      string    `json:"device"` // on the node
	Since       time.Time `json:"since,omitzero"`
	Lost        bool      `json:"lost,omitempty"` // its address is on none of the ENIs
}

// Waiting is one ADD.
type Waiting struct {
	ContainerID string    `json:"containerID,omitempty"`
	Interface   string    `json:"interface"`
	Since       time.Time `json:"since"`
}

// Flight is a change whose call is under way.
type Flight struct {
	Kind  string    `json:"kind"`
	ENI   string    `json:"eni,omitempty"`
	Text  string    `json:"text"` // what, in words
	Why   string    `json:"why"`
	Since time.Time `json:"since"`
}

// Refused is what EC2 does not do at present.
type Refused struct {
	Kind   string    `json:"kind"`
	Target string    `json:"target,omitempty"` // an ENI or subnet; empty: every one
	Until  time.Time `json:"until"`            // when it is tried again
	Reason string    `json:"reason"`
	Times  int       `json:"times"`           // refusals in a row; 0: it is only too early
	Fatal  bool      `json:"fatal,omitempty"` // waiting does not help
	Cause  string    `json:"cause,omitempty"` // unauthorized, subnet_full, limit or unreachable, where it is one of them

	Throttled bool `json:"throttled,omitempty"` // EC2 takes no more such requests at present
}

// Subnet is where further ENIs can be made.
type Subnet struct {
	ID   string `json:"id"`
	Zone string `json:"zone"`
	CIDR string `json:"cidr"`
	Free int    `json:"free"` // addresses, as EC2 last counted them; -1: not known
}

// EC2 is how the agent stands with EC2.
type EC2 struct {
	Used     bool      `json:"used"` // false: it is never called
	Offline  bool      `json:"offline"`
	ListedAt time.Time `json:"listedAt,omitzero"` // when it last listed this node's ENIs
}

// Kernel is how the node's kernel stands.
type Kernel struct {
	Behind bool `json:"behind"` // it may lack something: the last attempt to write failed
}

// Paths is what the last proof of pods' ways found: for each ENI with pods, each
// destination that the VPC's routes lead to, and each direction.
type Paths struct {
	ProvedAt time.Time `json:"provedAt,omitzero"`
	Classes  int       `json:"classes"`           // that were looked at
	Broken   []string  `json:"broken,omitempty"`  // whose packets or replies are lost, or pass another ENI
	Unknown  int       `json:"unknown,omitempty"` // that cannot be computed
	Problem  string    `json:"problem,omitempty"` // why there was no proof
}

// Date moves all times of the status such that At is at, and what is between them stays
// as it is. The agent counts time by a clock that nobody sets; people and other programs
// have the node's. What ENIs, pods and others have their own times in must be the
// status's own.
func (s *Status) Date(at time.Time) {
	was := s.At
	move := func(t *time.Time) {
		if !t.IsZero() {
			*t = at.Add(t.Sub(was))
		}
	}
	for _, t := range []*time.Time{&s.At, &s.Pool.NextFree, &s.EC2.ListedAt, &s.Paths.ProvedAt} {
		move(t)
	}
	for i := range s.ENIs {
		move(&s.ENIs[i].Since)
	}
	for i := range s.Pods {
		move(&s.Pods[i].Since)
	}
	for i := range s.Waiting {
		move(&s.Waiting[i].Since)
	}
	for i := range s.InFlight {
		move(&s.InFlight[i].Since)
	}
	for i := range s.Refused {
		move(&s.Refused[i].Until)
	}
}

// WithoutContainers is the status less what only root should see: the ids by which
// a runtime knows containers.
func (s Status) WithoutContainers() Status {
	s.Pods = append([]Pod(nil), s.Pods...)
	for i := range s.Pods {
		s.Pods[i].ContainerID = ""
	}
	s.Waiting = append([]Waiting(nil), s.Waiting...)
	for i := range s.Waiting {
		s.Waiting[i].ContainerID = ""
	}
	if s.Problems != nil {
		s.Problems = s.Diagnose() // which may have named one
	}
	return s
}
