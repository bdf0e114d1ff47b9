package agentapi

import (
	"fmt"
	"time"
)

// Problem is something that is not as it should be.
type Problem struct {
	Severity Severity `json:"severity"`
	Text     string   `json:"text"` // what is wrong, where, and what to do
}

// Severity of a [Problem].
type Severity string

const (
	// mostBroken is how many ways are said one by one: they share a cause.
	mostBroken = 3
	// Wrong: pods are without network, or the node cannot get what it wants.
	Wrong Severity = "wrong"
	// Warning: it works, and somebody should look.
	Warning Severity = "warning"
)

const (
	// longWait is how long an ADD may wait before it is a problem: an ENI is made
	// and attached in some ten seconds.
	longWait = 30 * time.Second
	// longAttach is how long a device may take to appear; the worst that others
	// measured in production is 150 s.
	longAttach = 150 * time.Second
)

// Diagnose lists what is wrong with a status, the worst first. It does not look at
// Problems.
func (s Status) Diagnose() []Problem {
	var list []Problem
	say := func(level Severity, format string, args ...any) {
		list = append(list, Problem{level, fmt.Sprintf(format, args...)})
	}
	s.diagnosePods(say)
	s.diagnoseSupply(say)
	s.diagnoseRest(say)
	worst := make([]Problem, 0, len(list))
	for _, level := range []Severity{Wrong, Warning} {
		for _, p := range list {
			if p.Severity == level {
				worst = append(worst, p)
			}
		}
	}
	return worst
}

type sayer func(level Severity, format string, args ...any)

// diagnosePods looks at who has no network.
func (s Status) diagnosePods(say sayer) {
	for _, p := range s.Pods {
		if p.Lost {
			say(Wrong, "pod %s has no network: its address %s is on none of the node's ENIs any more; delete the pod, so that it is replaced", p.title(), p.Address)
		}
	}
	if s.Kernel.Behind {
		say(Wrong, "the kernel may lack routes, rules or devices: the last attempt to write them failed; it is tried again by itself, and the agent's log and `fairway plan` say what is missing")
	}
	for i, text := range s.Paths.Broken {
		if i == mostBroken {
			say(Wrong, "%d more ways of pods are broken; `fairway status -o json` lists them", len(s.Paths.Broken)-i)
			break
		}
		say(Wrong, "a way is broken: %s; `fairway path` from one of those pods says what mends it", text)
	}
	if len(s.Waiting) > 0 {
		if wait := s.At.Sub(s.Waiting[0].Since); wait >= longWait {
			say(Wrong, "%s for an address, the first for %s: %s", count(len(s.Waiting), "pod waits", "pods wait"), Span(wait), s.Outlook)
		}
	}
}

// diagnoseSupply looks at what keeps addresses away.
func (s Status) diagnoseSupply(say sayer) {
	if s.EC2.Offline {
		say(Wrong, "EC2 does not answer: nothing can be added or given back; pods get what addresses there are. Check that the node reaches the EC2 endpoint of its region (NAT gateway or VPC endpoint, DNS, security groups)")
	} else if s.EC2.Used && s.EC2.ListedAt.IsZero() {
		say(Warning, "EC2 has not listed the ENIs of this node since the agent started; the agent's log says why, if it has tried")
	}
	if s.Node.CustomFault != "" {
		say(Wrong, "custom networking: no ENI can be made: %s", s.Node.CustomFault)
	}
	for _, r := range s.Refused {
		again := Span(r.Until.Sub(s.At))
		if r.Times == 0 {
			if r.Throttled {
				say(Warning, "%s; again in %s", r.Reason, again)
			}
			continue
		}
		say(Wrong, "%s is refused, %s in a row, again in %s: %s", r.title(), count(r.Times, "time", "times"), again, r.Reason)
	}
	for _, e := range s.ENIs {
		if e.State == Missing {
			level, pods := Warning, ""
			if e.Pods > 0 {
				level, pods = Wrong, "; "+count(e.Pods, "pod on it has no network", "pods on it have no network")
			}
			say(level, "the device of %s is gone since %s%s: has somebody taken the ENI off the instance? Where EC2 and instance metadata say so too, it counts no longer, and another is made where pods need it", e.ID, Span(s.At.Sub(e.Since)), pods)
		}
		if took := s.At.Sub(e.Since); e.State == Attaching && !e.Since.IsZero() && took >= longAttach {
			say(Wrong, "%s is being attached for %s and the node has no device for it; see the kernel's log, and whether the instance can take another interface", e.ID, Span(took))
		}
	}
}

// diagnoseRest looks at what works and should be seen to.
func (s Status) diagnoseRest(say sayer) {
	if n := s.Pool.Reserved; n > 0 {
		say(Warning, "%s out of use, as the records of who holds them cannot be read or contradict each other; `fairway-agent records list` shows them while no agent runs", count(n, "address is", "addresses are"))
	}
	if s.Pool.Capacity > 0 && s.Pool.Assigned >= s.Pool.Capacity {
		say(Warning, "the node is full: pods have all %d addresses that %s can have", s.Pool.Capacity, s.Node.InstanceType)
	}
	if !s.Node.LimitsKnown {
		say(Warning, "the limits of the instance type %s are not known: the node keeps the ENIs and addresses it has", s.Node.InstanceType)
		return
	}
	switch n, fit := s.Node.MaxPods, s.Node.MaxPodsFit; {
	case n > fit:
		say(Warning, "kubelet may run %d pods and the node has room for %d, of which two need no address: pods beyond that stay without one; set kubelet's --max-pods to %d", n, fit, fit)
	case n > 0 && n < fit:
		say(Warning, "kubelet runs %d pods at most and the node has room for %d; kubelet's --max-pods can be %d", n, fit, fit)
	}
}

// title names a pod as people do.
func (p Pod) title() string {
	switch {
	case p.Name != "":
		return p.Namespace + "/" + p.Name
	case p.ContainerID != "":
		return "of container " + p.ContainerID
	}
	return "with interface " + p.Interface
}

func (r Refused) title() string {
	if r.Target == "" {
		return r.Kind
	}
	return r.Kind + " (" + r.Target + ")"
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// Span is a duration for people: no more of it than tells it apart from others.
func Span(d time.Duration) string {
	d = max(d, 0)
	switch s := int64(d / time.Second); {
	case d > 0 && s == 0:
		return "<1s"
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 10*60:
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	case s < 60*60:
		return fmt.Sprintf("%dm", s/60)
	case s < 24*60*60:
		return fmt.Sprintf("%dh%02dm", s/3600, s/60%60)
	default:
		return fmt.Sprintf("%dd%02dh", s/86400, s/3600%24)
	}
}
