package preflight

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fairway-cni/fairway/internal/core/ipam"
)

const (
	// fewFree is when a subnet is nearly empty: one ENI of a middling type takes as many.
	fewFree = 16
	// slowMetadata is what a healthy metadata service never takes.
	slowMetadata = time.Second
	// skewBound is from which difference on AWS refuses signatures ("Signature
	// Version 4": five minutes); skewSeen is what no synchronised clock has.
	skewBound = 5 * time.Minute
	skewSeen  = 5 * time.Second
)

// cloud looks at what instance metadata and EC2 say.
func (j *judge) cloud() {
	j.metadata()
	j.maxPods()
	j.groups()
	if !j.EC2Used {
		for _, check := range []string{"clock", "rights", "subnets"} {
			j.skip(check, "the agent is told never to call EC2")
		}
		return
	}
	j.clock()
	j.rights()
	j.subnets()
}

func (j *judge) metadata() {
	const check = "instance metadata"
	if !j.Metadata.Known {
		j.say(check, Failed, j.Metadata.Why, "Fairway learns from it who the node is; in a container that is not on the host's network the hop limit must be 2 (aws ec2 modify-instance-metadata-options --http-put-response-hop-limit 2)")
		return
	}
	m := j.Metadata.Value
	if m.Took >= slowMetadata {
		j.say(check, Warning, fmt.Sprintf("it took %s to answer", m.Took.Round(100*time.Millisecond)), "see what else asks it on this node: each process that does shares its budget of packets")
	} else {
		j.ok(check, "a token was had (IMDSv2), and it lists %s", count(len(m.ENIs), "ENI"))
	}
	if l := j.Limits; l.Known {
		j.ok("instance type", "%s: %d ENIs of %d addresses", m.InstanceType, l.Value.ENIs, l.Value.IPv4PerENI)
	} else {
		j.say("instance type", Warning, fmt.Sprintf("limits of %s are not known: %s", m.InstanceType, l.Why), "allow ec2:DescribeInstanceTypes, or use a newer release: without limits the node keeps the ENIs and addresses it has")
	}
}

// maxPods compares what kubelet runs with what the node has addresses for.
func (j *judge) maxPods() {
	const check = "max-pods"
	switch {
	case !j.Kubelet.Known:
		j.skip(check, j.Kubelet.Why)
		return
	case !j.Limits.Known:
		j.skip(check, "the limits of the instance type are not known")
		return
	}
	k, l := j.Kubelet.Value, j.Limits.Value
	fit := ipam.MaxPodsOf(j.Metadata.Value.InstanceType, l, l.ENIs, false)
	how := fmt.Sprintf("%d with single addresses", fit)
	if l.PrefixCapable() {
		fit = max(fit, ipam.MaxPodsOf(j.Metadata.Value.InstanceType, l, l.ENIs, true))
		how += fmt.Sprintf(", %d with prefixes", ipam.MaxPodsOf(j.Metadata.Value.InstanceType, l, l.ENIs, true))
	}
	if a := j.Agent; a.Known {
		fit = a.Value.MaxPodsFit
		how = fmt.Sprintf("%d as the agent is configured", fit)
	}
	seen := fmt.Sprintf("kubelet runs %d (%s); the node has room for %s", k.MaxPods, k.Source, how)
	if k.MaxPods > fit {
		j.say(check, Warning, seen, fmt.Sprintf("set kubelet's --max-pods to %d, or use prefixes or a larger type: pods beyond that stay without an address", fit))
		return
	}
	j.ok(check, "%s", seen)
}

// groups tells where pods of one ENI pass other security groups than those of another.
func (j *judge) groups() {
	const check = "security groups"
	if !j.Metadata.Known {
		j.skip(check, "instance metadata does not answer")
		return
	}
	var first []string
	var others []string
	for i, e := range j.Metadata.Value.ENIs {
		g := slices.Sorted(slices.Values(e.Groups))
		if i == 0 {
			first = g
		} else if !slices.Equal(first, g) {
			others = append(others, fmt.Sprintf("%s has %s", e.ID, strings.Join(g, " ")))
		}
	}
	if len(others) == 0 {
		j.ok(check, "all ENIs have %s", strings.Join(first, " "))
		return
	}
	j.say(check, Warning, fmt.Sprintf("the primary ENI has %s, and %s", strings.Join(first, " "), join(others)),
		"right with custom networking; else give all ENIs the same groups: whether a pod is reached depends on the ENI that its address is of")
}

func (j *judge) clock() {
	const check = "clock"
	if !known(j, check, j.Skew) {
		return
	}
	skew := j.Skew.Value
	switch size := skew.Abs(); {
	case size >= skewBound:
		j.say(check, Failed, fmt.Sprintf("%s from EC2's", skew.Round(time.Second)), "synchronise it (chrony with 169.254.169.123): EC2 refuses requests that are signed five minutes off")
	case size >= skewSeen:
		j.say(check, Warning, fmt.Sprintf("%s from EC2's", skew.Round(time.Second)), "synchronise it (chrony with 169.254.169.123)")
	default:
		j.ok(check, "within %s of EC2's", skewSeen)
	}
}

// rights has a line for each action.
func (j *judge) rights() {
	const check = "rights"
	if !known(j, check, j.Rights) {
		return
	}
	for _, r := range j.Rights.Value {
		switch r.Verdict {
		case Granted:
			j.ok(r.Action, "%s", "allowed")
		case Denied:
			result := Failed
			if r.Minor {
				result = Warning
			}
			j.say(r.Action, result, cmp.Or(r.Text, "refused"), "allow it for the role of this node, as docs/iam.md says: without it "+r.Without)
		case Untried:
			j.skip(r.Action, r.Text)
		case Unclear:
			j.blind(r.Action, r.Text, "")
		}
	}
}

func (j *judge) subnets() {
	const check = "subnets"
	if !known(j, check, j.Subnets) {
		return
	}
	for _, s := range j.Subnets.Value {
		what := "subnet " + s.ID
		switch {
		case s.Free < 0:
			j.blind(what, "how many addresses are free is not known", "")
		case s.Free == 0:
			j.say(what, Failed, "no address is free", "free addresses there, or have ENIs made in another subnet of the zone (--subnet-discovery, custom networking)")
		case s.Free < fewFree:
			j.say(what, Warning, freeText(s.Free), "it is nearly empty: free addresses there, or have ENIs made in another subnet of the zone (--subnet-discovery, custom networking)")
		default:
			j.ok(what, "%s", freeText(s.Free))
		}
	}
}

func freeText(n int) string {
	if n == 1 {
		return "1 address is free"
	}
	return fmt.Sprintf("%d addresses are free", n)
}
