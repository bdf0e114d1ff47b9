package path

import "slices"

// Code is a stable name of a reason. Programs branch on it.
type Code string

// The reasons.
const (
	CodeSrcDstCheck      Code = "SRC_DST_CHECK"
	CodeStrict           Code = "RPFILTER_STRICT"
	CodeLoose            Code = "RPFILTER_LOOSE"
	CodeMartian          Code = "MARTIAN_SOURCE"
	CodeNoHostRoute      Code = "HOST_NO_ROUTE"
	CodeHostRefuses      Code = "HOST_ROUTE_REFUSES"
	CodeForwarding       Code = "FORWARDING_OFF"
	CodeFirewall         Code = "FIREWALL"
	CodeSpoofed          Code = "SPOOFED_SOURCE"
	CodeNeighbour        Code = "NO_NEIGHBOUR"
	CodeDown             Code = "DEVICE_DOWN"
	CodeLoop             Code = "LOOP"
	CodeMTU              Code = "MTU"
	CodeNotListening     Code = "NOT_LISTENING"
	CodeStranger         Code = "REPLY_UNEXPECTED"
	CodeReceiver         Code = "WRONG_RECEIVER"
	CodeGroupIn          Code = "SG_INGRESS"
	CodeGroupOut         Code = "SG_EGRESS"
	CodeGroupRegion      Code = "SG_REFERENCE_REGION"
	CodeACLIn            Code = "NACL_INGRESS"
	CodeACLOut           Code = "NACL_EGRESS"
	CodePorts            Code = "SOME_PORTS"
	CodeNoRoute          Code = "NO_ROUTE"
	CodeBlackhole        Code = "BLACKHOLE"
	CodePeering          Code = "PEERING_INACTIVE"
	CodeTransitive       Code = "PEERING_NOT_TRANSITIVE"
	CodeNoOwner          Code = "NO_OWNER"
	CodeNotAttached      Code = "NOT_ATTACHED"
	CodeNoPublic         Code = "NO_PUBLIC_ADDRESS"
	CodePrivate          Code = "PRIVATE_TO_INTERNET"
	CodeNATGateway       Code = "NAT_UNAVAILABLE"
	CodeTransitZone      Code = "TGW_NO_ATTACHMENT_IN_ZONE"
	CodeTransitNoRoute   Code = "TGW_NO_ROUTE"
	CodeNotKnown         Code = "NOT_KNOWN"
	CodeNotModelled      Code = "NOT_MODELLED"
	CodeKernelNotInWorld Code = "KERNEL_NOT_KNOWN"
)

// Reason is what `fairway explain` says of a code.
type Reason struct {
	Code      Code
	Means     string // what happened, and by which rule
	Elsewhere string // how it looks to somebody without this tool
	Mend      string
	Source    string // whose word it is
	Counter   string // nstat's counter that grows, if one does
}

// Reasons lists all, sorted by code.
func Reasons() []Reason { return slices.Clone(reasons) }

// Explain finds a code's reason.
func Explain(c Code) (Reason, bool) {
	i := slices.IndexFunc(reasons, func(r Reason) bool { return r.Code == c })
	if i < 0 {
		return Reason{}, false
	}
	return reasons[i], true
}
