package burst

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/fairway-cni/fairway/lab/ec2sim"
)

// bound is how long the EC2 calls of a burst take that no agent can do without,
// where each is made at once: the longest of the ways by which the ENIs that the
// pods are on came to their addresses.
//
//	an ENI of before    |- assign -|
//	a further ENI       |- create -|- attach -|......... until the device is there
//
// One call is enough for all addresses of an ENI, so that a second one is the
// agent's own time. So is what lies between two calls.
func bound(calls []ec2sim.Call, enis []ec2sim.NetworkInterface, used []netip.Addr) (time.Duration, error) {
	var longest time.Duration
	for _, e := range enis {
		if !slices.ContainsFunc(used, func(a netip.Addr) bool { return has(e, a) }) {
			continue
		}
		way, err := wayOf(calls, e)
		if err != nil {
			return 0, fmt.Errorf("eni %s: %w", e.ID, err)
		}
		longest = max(longest, way)
	}
	if longest == 0 {
		return 0, fmt.Errorf("none of %d addresses is on an ENI", len(used))
	}
	return longest, nil
}

func has(e ec2sim.NetworkInterface, a netip.Addr) bool {
	return slices.Contains(e.Secondary, a) || slices.ContainsFunc(e.Prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}

func wayOf(calls []ec2sim.Call, e ec2sim.NetworkInterface) (time.Duration, error) {
	if e.Attachment == nil {
		return 0, fmt.Errorf("it is attached to nothing")
	}
	if e.Attachment.DeviceIndex == 0 {
		c, ok := nearest(calls, "AssignPrivateIpAddresses", time.Time{})
		if !ok {
			return 0, fmt.Errorf("no call has given it addresses")
		}
		return c.Took, nil
	}
	// The log names no ENI: the calls are known by when they were done.
	attach, ok := nearest(calls, "AttachNetworkInterface", e.Attachment.At)
	if !ok {
		return 0, fmt.Errorf("no call has attached it")
	}
	create, ok := nearest(calls, "CreateNetworkInterface", attach.Start)
	if !ok {
		return 0, fmt.Errorf("no call has created it")
	}
	there := e.Attachment.DeviceAt
	if there.IsZero() { // at once
		there = end(attach)
	}
	return create.Took + there.Sub(attach.Start), nil
}

func end(c ec2sim.Call) time.Time { return c.Start.Add(c.Took) }

// nearest is the successful call of an action whose end is nearest to a time.
func nearest(calls []ec2sim.Call, action string, at time.Time) (best ec2sim.Call, ok bool) {
	for _, c := range calls {
		if c.Action != action || c.Code != "" {
			continue
		}
		if !ok || end(c).Sub(at).Abs() < end(best).Sub(at).Abs() {
			best, ok = c, true
		}
	}
	return best, ok
}

// growth are the calls by which a node gets more addresses; of each new ENI the
// last three.
var growth = []string{"AssignPrivateIpAddresses", "CreateNetworkInterface", "AttachNetworkInterface", "ModifyNetworkInterfaceAttribute"}

// firstGrowth is when the first of them was made.
func firstGrowth(calls []ec2sim.Call) time.Time {
	var first time.Time
	for _, c := range calls {
		if slices.Contains(growth, c.Action) && (first.IsZero() || c.Start.Before(first)) {
			first = c.Start
		}
	}
	return first
}

// ofRoutes are the calls of the agent's other loop, which follows the VPC's
// routes. All else is the pool's.
var ofRoutes = []string{"DescribeVpcs", "DescribeRouteTables", "DescribeVpcPeeringConnections", "GetManagedPrefixListEntries"}

func ofPool(calls []ec2sim.Call) []ec2sim.Call {
	return slices.DeleteFunc(slices.Clone(calls), func(c ec2sim.Call) bool { return slices.Contains(ofRoutes, c.Action) })
}
