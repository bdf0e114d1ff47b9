package agent

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairway-cni/fairway/api/v1alpha1"
	"github.com/fairway-cni/fairway/internal/core/cluster"
	"github.com/fairway-cni/fairway/internal/core/ipam"
	"github.com/fairway-cni/fairway/internal/edge/agentapi"
)

// statusOf is a status as the API has it, but for the conditions.
func statusOf(s agentapi.Status) v1alpha1.ENINodeStatus {
	p := s.Pool
	out := v1alpha1.ENINodeStatus{
		InstanceID: s.Node.InstanceID, InstanceType: s.Node.InstanceType, VPC: s.Node.VPC, AvailabilityZone: s.Node.Zone,
		Addresses: v1alpha1.Addresses{Total: int32(p.Total), Used: int32(p.Assigned), Free: int32(p.Free), Cooling: int32(p.Cooling),
			Wanted: int32(s.Wanted.Addresses), Capacity: int32(p.Capacity), Waiting: int32(len(s.Waiting)), Scheduled: int32(s.Scheduled)},
		Limits: v1alpha1.Limits{ENIs: int32(s.Node.MaxENIs), PodsFit: int32(s.Node.MaxPodsFit), PodsAllowed: int32(s.Node.MaxPods)},
		Targets: v1alpha1.Targets{WarmENIs: int32(s.Targets.WarmENIs), WarmIPs: int32(s.Targets.WarmIPs), MinimumIPs: int32(s.Targets.MinimumIPs),
			WarmPrefixes: int32(s.Targets.WarmPrefixes), MaxENIs: int32(s.Targets.MaxENIs), Prefixes: s.Targets.Prefixes},
		ENIConfig: s.Node.Custom,
	}
	for _, e := range s.ENIs {
		if e.State == agentapi.Attached {
			out.AttachedENIs++
		}
		if e.State == agentapi.Missing { // of which the API knows nothing, and it refuses what it does not know
			e.State, e.Why = agentapi.Attaching, "its device is gone"
		}
		out.ENIs = append(out.ENIs, v1alpha1.ENI{ID: e.ID, DeviceIndex: int32(e.DeviceIndex), Device: e.Device, MAC: e.MAC, Subnet: e.Subnet,
			Address: e.Address, State: e.State, Why: e.Why, Addresses: int32(e.Addresses), Prefixes: int32(e.Prefixes), Pods: int32(e.Pods)})
	}
	for _, n := range s.Subnets {
		out.Subnets = append(out.Subnets, v1alpha1.Subnet{ID: n.ID, CIDR: n.CIDR})
	}
	for i, pod := range s.Pods {
		if i == v1alpha1.MaxPodAddresses {
			out.PodsOmitted = int32(len(s.Pods) - i)
			break
		}
		out.Pods = append(out.Pods, v1alpha1.PodAddress{Address: pod.Address, Namespace: pod.Namespace, Name: pod.Name, ENI: pod.ENI, Lost: pod.Lost})
	}
	return out
}

// The reasons of conditions, which are those of events also. Recovered is an event's
// only.
const (
	reasonServing      = "Serving"
	reasonKernelBehind = "KernelBehind"

	reasonAvailable  = "Available"
	reasonNodeFull   = "NodeFull"
	reasonPodsWait   = "PodsWait"
	reasonNoneToGet  = "NoAddressToBeHad"
	reasonPodsLost   = "PodsLostAddresses"
	reasonAsExpected = "AsExpected"

	reasonSubnetFull   = "SubnetFull"
	reasonRightsMiss   = "RightsMissing"
	reasonAnswers      = "Answers"
	reasonNotUsed      = "NotUsed"
	reasonNoAnswer     = "NoAnswer"
	reasonFit          = "Fit"
	reasonTooManyPods  = "TooManyPods"
	reasonNotKnown     = "NotKnown"
	reasonENIConfig    = "ENIConfigUnusable"
	reasonNodeConfig   = "NodeConfigFailed"
	reasonInForce      = "InForce"
	reasonRecovered    = "Recovered"
	reasonNothingAsked = "NothingRefused"
)

// refusalHold is for how long a refusal counts after EC2 was last heard to refuse: it
// is tried again after a minute at most.
const refusalHold = 2 * time.Minute

// waitsTooLong is for how long a pod may wait for an address before that is worth a
// condition: an ENI is made and attached in some ten seconds.
const waitsTooLong = 20 * time.Second

// judge keeps what one status alone does not say: when EC2 refused last.
type judge struct {
	refused map[ipam.Cause]refusal
}

type refusal struct {
	last time.Time
	text string
}

// conditions says how the node stands. problem is what is wrong with the NodeConfig;
// empty: nothing.
func (j *judge) conditions(s agentapi.Status, problem string) []metav1.Condition {
	if j.refused == nil {
		j.refused = make(map[ipam.Cause]refusal)
	}
	for _, r := range s.Refused {
		if r.Cause != "" && r.Times > 0 {
			j.refused[ipam.Cause(r.Cause)] = refusal{s.At, steady(r.Reason)}
		}
	}
	return []metav1.Condition{
		ready(s), j.available(s), j.refusal(s, v1alpha1.SubnetHasAddresses, ipam.SubnetFull, reasonSubnetFull),
		j.refusal(s, v1alpha1.RightsSuffice, ipam.NoRights, reasonRightsMiss), reachable(s), maxPodsFit(s), configured(s, problem),
	}
}

func condition(kind string, is bool, reason, message string) metav1.Condition {
	c := metav1.Condition{Type: kind, Status: metav1.ConditionTrue, Reason: reason, Message: message}
	if !is {
		c.Status = metav1.ConditionFalse
	}
	return c
}

func ready(s agentapi.Status) metav1.Condition {
	if s.Kernel.Behind {
		return condition(v1alpha1.Ready, false, reasonKernelBehind,
			"the kernel may lack routes, rules or devices: the last attempt to write them failed, and it is tried again; the agent's log and `fairway plan` on the node say what is missing")
	}
	return condition(v1alpha1.Ready, true, reasonServing, "the agent serves pods")
}

func (j *judge) available(s agentapi.Status) metav1.Condition {
	const kind = v1alpha1.AddressesAvailable
	lost := 0
	for _, p := range s.Pods {
		if p.Lost {
			lost++
		}
	}
	p := s.Pool
	switch {
	case lost > 0:
		return condition(kind, false, reasonPodsLost, fmt.Sprintf("%d pods hold addresses that are on none of the node's ENIs any more, and have no network: delete them, so that they are replaced; status.pods has them as lost", lost))
	case p.Capacity > 0 && p.Assigned >= p.Capacity:
		return condition(kind, false, reasonNodeFull, fmt.Sprintf("pods have all %d addresses that %s can have: use prefixes (ENABLE_PREFIX_DELEGATION), a larger instance type, or fewer pods on the node", p.Capacity, s.Node.InstanceType))
	case len(s.Waiting) > 0 && s.At.Sub(s.Waiting[0].Since) >= waitsTooLong:
		return condition(kind, false, reasonPodsWait, "pods wait for addresses: "+steady(s.Outlook))
	case p.Free == 0 && p.Cooling == 0:
		for _, cause := range []ipam.Cause{ipam.NoRights, ipam.SubnetFull, ipam.AtLimit} {
			if r, ok := j.recent(s, cause); ok {
				return condition(kind, false, reasonNoneToGet, "no address is free, and EC2 gives no more: "+r.text)
			}
		}
		if s.Node.CustomFault != "" {
			return condition(kind, false, reasonNoneToGet, "no address is free, and no ENI can be made: "+s.Node.CustomFault)
		}
	}
	return condition(kind, true, reasonAvailable, "pods that start get addresses")
}

func (j *judge) recent(s agentapi.Status, cause ipam.Cause) (refusal, bool) {
	r, ok := j.refused[cause]
	return r, ok && s.At.Sub(r.last) < refusalHold
}

func (j *judge) refusal(s agentapi.Status, kind string, cause ipam.Cause, reason string) metav1.Condition {
	if r, ok := j.recent(s, cause); ok {
		return condition(kind, false, reason, r.text)
	}
	return condition(kind, true, reasonNothingAsked, "EC2 has refused nothing for this")
}

func reachable(s agentapi.Status) metav1.Condition {
	switch {
	case !s.EC2.Used:
		c := condition(v1alpha1.EC2Reachable, true, reasonNotUsed, "the agent is not to call EC2 (ENABLE_IMDS_ONLY_MODE)")
		c.Status = metav1.ConditionUnknown
		return c
	case s.EC2.Offline:
		return condition(v1alpha1.EC2Reachable, false, reasonNoAnswer,
			"EC2 does not answer: nothing can be added or given back, and pods get what addresses there are; check that the node reaches the EC2 endpoint of its region (NAT gateway or VPC endpoint, DNS, security groups)")
	}
	return condition(v1alpha1.EC2Reachable, true, reasonAnswers, "EC2 answers")
}

func maxPodsFit(s agentapi.Status) metav1.Condition {
	n, fit := s.Node.MaxPods, s.Node.MaxPodsFit
	switch {
	case n == 0 || !s.Node.LimitsKnown:
		c := condition(v1alpha1.MaxPodsFit, true, reasonNotKnown, "kubelet's limit, or that of the instance type, is not known")
		c.Status = metav1.ConditionUnknown
		return c
	case n > fit:
		return condition(v1alpha1.MaxPodsFit, false, reasonTooManyPods, fmt.Sprintf(
			"kubelet starts up to %d pods and the node has room for %d, of which two need no address: pods beyond that stay without one; set kubelet's --max-pods to %d", n, fit, fit))
	}
	return condition(v1alpha1.MaxPodsFit, true, reasonFit, fmt.Sprintf("kubelet starts up to %d pods and the node has room for %d", n, fit))
}

func configured(s agentapi.Status, problem string) metav1.Condition {
	switch {
	case s.Node.CustomFault != "":
		return condition(v1alpha1.ConfigurationValid, false, reasonENIConfig, "no ENI can be made: "+s.Node.CustomFault)
	case problem != "":
		return condition(v1alpha1.ConfigurationValid, false, reasonNodeConfig, problem)
	}
	return condition(v1alpha1.ConfigurationValid, true, reasonInForce, "what is configured is in force")
}

// fleeting is what differs each time in a text: it would be written again and again.
var fleeting = regexp.MustCompile(` ?\(request id [^)]*\)|; (next try|again) in [0-9a-z.<]+| ?\(the next is free in [^)]*\)`)

// maxMessage is what the API takes.
const maxMessage = 4096

func steady(text string) string {
	text = fleeting.ReplaceAllString(text, "")
	if len(text) > maxMessage {
		text = strings.ToValidUTF8(text[:maxMessage], "")
	}
	return text
}

// nodeConfigRef names what is in force.
func nodeConfigRef(o cluster.Options) *v1alpha1.NodeConfigRef {
	if o.Name == "" {
		return nil
	}
	return &v1alpha1.NodeConfigRef{Name: o.Name, Generation: o.Generation}
}
