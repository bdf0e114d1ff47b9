package fabric

// The MTUs, in bytes, of what leaves a VPC; inside it is an ENI's own. What is
// longer is fragmented; if it must not be, it is dropped and its sender told by
// ICMP (type 3, code 4) in the name of the implied router of its subnet: the
// kernel of the VPC's namespace refuses it, and to_eni counts it for the ENI that
// gets the message.
//
// Source: "Network maximum transmission unit (MTU) for your EC2 instance", Amazon
// EC2 User Guide (internet gateway, peering); "Quotas for your transit gateways",
// AWS Transit Gateway; "NAT gateway basics", Amazon VPC User Guide. A transit
// gateway sends the ICMP since November 2024 ("Performance and metrics
// enhancements for AWS Transit Gateway and AWS Cloud WAN", AWS Networking &
// Content Delivery Blog); before, it dropped without a word.
const (
	internetMTU    = 1500
	transitMTU     = 8500
	crossRegionMTU = 8500
	natMTU         = 8500
)

func peeringMTU(a, b VPC) int {
	if a.Region == b.Region {
		return DefaultMTU
	}
	return crossRegionMTU
}
