package preflight

import (
	"time"

	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// Facts are what was seen of a node. An unknown part has its reason.
type Facts struct {
	Kernel   path.Part[Kernel]
	Devices  path.Part[[]path.Device]
	Rules    path.Part[[]path.IPRule]
	Sysctls  path.Part[map[string]string] // by path below /proc/sys
	Chains   path.Part[[]Chain]
	Programs path.Part[[]string] // names of processes, as /proc/PID/comm has them
	DropIns  map[string]bool     // whether the files of deploy/node are there, by name of the program
	Kubelet  path.Part[Kubelet]

	Lists   path.Part[[]List] // of the runtime's directory, by name
	ListDir string
	Plugin  path.Part[Program]

	Metadata path.Part[Metadata]
	Limits   path.Part[vpc.Limits]
	EC2Used  bool // false: the agent is told to call EC2 never
	Rights   path.Part[[]Right]
	Subnets  path.Part[[]vpc.Subnet]
	Skew     path.Part[time.Duration] // of this node's clock, ahead of EC2's

	Agent   path.Part[Agent]
	Records path.Part[Records]
	Drift   path.Part[[]string] // changes that the agent would make in the kernel
}

// Kernel is what the datapath's probe found.
type Kernel struct {
	Release  string
	Features int
	Missing  []string // each with the kernel that has it
}

// Chain is one of nftables or iptables, which are told apart by Legacy alone.
type Chain struct {
	Table  string // "ip nat", "inet fairway"
	Name   string
	Legacy bool
}

// Kubelet is how many pods it runs at most, and what says so.
type Kubelet struct {
	MaxPods int
	Source  string
}

// List is a network configuration of the container runtime.
type List struct {
	File    string
	Name    string
	Plugins []string // their types; a runtime calls them in this order
	Problem string   // why it is none
}

// Program is an executable and the release it was built from.
type Program struct {
	File    string
	Package string // its main package; empty for what is not written in Go
	Version string
	Problem string // why it cannot be run
}

// Metadata is what the instance metadata service says.
type Metadata struct {
	InstanceID   string
	InstanceType string
	ENIs         []vpc.ENI
	Took         time.Duration
}

// Right is one action of EC2's API that a policy of docs/iam.md grants.
type Right struct {
	Action  string // "ec2:AttachNetworkInterface"
	Verdict RightVerdict
	Text    string // EC2's words, or why it was not tried
	Without string // what a node is like without it
	Minor   bool   // pods have their network without it
}

// RightVerdict is what a dry run came to.
type RightVerdict string

// The verdicts.
const (
	Granted RightVerdict = "granted"
	Denied  RightVerdict = "denied"
	Untried RightVerdict = "untried" // it cannot be tried here
	Unclear RightVerdict = "unclear" // EC2 did not say
)

// Agent is what the agent says of itself.
type Agent struct {
	Version    string
	MaxPodsFit int
	Wrong      []string
	Warnings   []string
}

// Records are the files that say who has which address.
type Records struct {
	Dir  string
	Read int
	Bad  []string
}
