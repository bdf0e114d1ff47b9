package ec2sim

import (
	"slices"
	"strconv"
	"time"
)

// EC2 limits how often an account calls it in a region. Each action has a bucket
// of tokens of its own; a request takes one, and is refused if there is none.
//
//	tokens  max ~~~\        /~~~   fills by so many per second, up to max
//	                \/\/\/\/
//
// Some actions have a second bucket, of which a request takes a token for each
// instance. Source of the sizes: "Request throttling for the Amazon EC2 API",
// Amazon EC2 Developer Guide, tables "Request token bucket sizes and refill
// rates" and "Resource token bucket sizes and refill rates". The category of
// requests from the console is not here: they come from nowhere else.

// rate is the size of a bucket.
type rate struct{ most, perSecond float64 }

// The categories that hold for what is not listed.
var (
	reading    = rate{100, 20}
	readingAll = rate{50, 10} // reads without filter or pages, of the actions in wholeLists
	writing    = rate{50, 5}
)

// wholeLists are the actions of which a request without filter or pages counts
// by itself.
var wholeLists = []string{
	"DescribeInstances", "DescribeInstanceStatus", "DescribeNetworkInterfaces", "DescribeSecurityGroups",
	"DescribeSnapshots", "DescribeSpotInstanceRequests", "DescribeVolumes",
}

// rates are the actions with sizes of their own. Those of the category
// "resource-intensive" have the size of the mutating ones.
var rates = map[string]rate{
	"AssignIpv6Addresses":             {100, 5},
	"AssignPrivateIpAddresses":        {100, 5},
	"CreateNatGateway":                {10, 1},
	"CreateNetworkInterface":          {100, 5},
	"CreateSubnetCidrReservation":     {5, 1},
	"CreateTags":                      {100, 10},
	"CreateVpcEndpoint":               {4, 0.3},
	"DeleteNatGateway":                {10, 1},
	"DeleteNetworkInterface":          {100, 5},
	"DeleteSubnetCidrReservation":     {5, 1},
	"DeleteTags":                      {100, 10},
	"DescribeSecurityGroupReferences": {20, 5},
	"ModifyNetworkInterfaceAttribute": {100, 5},
	"RunInstances":                    {5, 2},
	"StartInstances":                  {5, 2},
	"TerminateInstances":              {100, 5},
	"UnassignPrivateIpAddresses":      {100, 5},
}

// resourceRates are the buckets that count instances.
var resourceRates = map[string]rate{
	"RunInstances":       {1000, 2},
	"StartInstances":     {1000, 2},
	"StopInstances":      {1000, 20},
	"TerminateInstances": {1000, 20},
}

// rateOf gives the bucket that a request counts in, by name, and its size.
func rateOf(action string, root *node) (string, rate) {
	if r, ok := rates[action]; ok {
		return action, r
	}
	switch {
	case !reads(action):
		return action, writing
	case slices.Contains(wholeLists, action) && isWhole(root):
		return action + " of all", readingAll
	}
	return action, reading
}

// isWhole tells whether a request asks for everything at once. Naming what is
// asked for counts as a filter: the page does not say.
func isWhole(root *node) bool {
	for name := range root.kids {
		if name != "Action" && name != "Version" && name != "DryRun" {
			return false
		}
	}
	return true
}

// instancesOf is how many instances a request is about.
func instancesOf(action string, root *node) float64 {
	if action == "RunInstances" {
		if most := root.kids["MaxCount"]; most != nil {
			n, _ := strconv.ParseUint(most.value, 10, 16) // if it is no number, the request fails without our doing
			return float64(n)
		}
		return 0
	}
	if list := root.kids["InstanceId"]; list != nil {
		return float64(len(list.kids))
	}
	return 0
}

// bucketKey names a bucket of the account.
type bucketKey struct{ region, name string }

// bucket is what was in a bucket at a time.
type bucket struct {
	tokens float64
	at     time.Time
}

// throttle takes the tokens of a request, or refuses it; then it takes none.
func (c *Cloud) throttle(action string, root *node) error {
	if !c.state.cfg.Throttle {
		return nil
	}
	type take struct {
		key  bucketKey
		size rate
		n    float64
	}
	name, size := rateOf(action, root)
	takes := []take{{bucketKey{c.region, name}, size, 1}}
	if size, ok := resourceRates[action]; ok {
		takes = append(takes, take{bucketKey{c.region, action + " instances"}, size, instancesOf(action, root)})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.state.cfg.Now()
	for _, t := range takes {
		c.buckets[t.key] = c.buckets[t.key].filled(t.size, now)
		if c.buckets[t.key].tokens < t.n {
			return fail("RequestLimitExceeded", "Request limit exceeded.")
		}
	}
	for _, t := range takes {
		b := c.buckets[t.key]
		b.tokens -= t.n
		c.buckets[t.key] = b
	}
	return nil
}

// filled is the bucket at a later time; a new one is full. It fills without
// steps: the page says "every second", and has rates below one.
func (b bucket) filled(size rate, now time.Time) bucket {
	if b.at.IsZero() {
		return bucket{size.most, now}
	}
	gone := max(now.Sub(b.at), 0).Seconds()
	return bucket{min(b.tokens+gone*size.perSecond, size.most), now}
}
