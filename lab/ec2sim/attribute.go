package ec2sim

import (
	"strconv"
	"strings"
)

// What has an attribute is asked for one at a time, and most are changed so:
// the actions here read and write those of VPCs, ENIs, instances and the account.

// The attributes of a VPC.
const (
	vpcDNSSupport   = "enableDnsSupport"
	vpcDNSHostnames = "enableDnsHostnames"
	vpcUsageMetrics = "enableNetworkAddressUsageMetrics"
)

// VPCAttributes are switches of a VPC. The lab's resolver does not follow them.
type VPCAttributes struct {
	NoDNSSupport bool // a new VPC has it
	DNSHostnames bool
	UsageMetrics bool // of network address units
}

// VPCAttributeInput names an attribute of a VPC to read.
type VPCAttributeInput struct{ ID, Attribute string }

// attributeValue is one attribute and what it is.
type attributeValue struct {
	id, name string
	on       bool
}

func describeVPCAttribute(s *state, in VPCAttributeInput) (attributeValue, error) {
	v, err := s.findVPC(in.ID)
	if err != nil {
		return attributeValue{}, err
	}
	out := attributeValue{id: v.ID, name: in.Attribute}
	switch in.Attribute {
	case "":
		return out, missing("attribute")
	case vpcDNSSupport:
		out.on = !v.Attributes.NoDNSSupport
	case vpcDNSHostnames:
		out.on = v.Attributes.DNSHostnames
	case vpcUsageMetrics:
		out.on = v.Attributes.UsageMetrics
	}
	return out, nil
}

// ModifyVPCAttributeInput changes exactly one attribute of a VPC.
type ModifyVPCAttributeInput struct {
	ID                                     string
	DNSSupport, DNSHostnames, UsageMetrics Optional[bool]
}

// ModifyVPCAttribute changes one attribute of a VPC.
func (c *Cloud) ModifyVPCAttribute(in ModifyVPCAttributeInput) error {
	_, err := call(c, in, modifyVPCAttribute)
	return err
}

func modifyVPCAttribute(s *state, in ModifyVPCAttributeInput) (struct{}, error) {
	var none struct{}
	v, err := s.findVPC(in.ID)
	if err != nil {
		return none, err
	}
	given := 0
	for _, o := range []Optional[bool]{in.DNSSupport, in.DNSHostnames, in.UsageMetrics} {
		if o.Given {
			given++
		}
	}
	switch {
	case given == 0:
		return none, missing("attribute")
	case given > 1:
		return none, invalidCombination("Fields for multiple attribute types specified")
	case in.DNSSupport.Given:
		v.Attributes.NoDNSSupport = !in.DNSSupport.Value
	case in.DNSHostnames.Given:
		v.Attributes.DNSHostnames = in.DNSHostnames.Value
	default:
		v.Attributes.UsageMetrics = in.UsageMetrics.Value
	}
	s.vpcs.put(v.ID, v)
	return none, nil
}

// ENIAttributeInput names an attribute of an ENI to read.
type ENIAttributeInput struct{ ID, Attribute string }

// eniAttribute is an ENI, and which of its attributes is asked for.
type eniAttribute struct {
	eni  NetworkInterface
	name string
}

func describeENIAttribute(s *state, in ENIAttributeInput) (eniAttribute, error) {
	e, err := s.findENI(in.ID)
	if err == nil && in.Attribute == "" {
		err = missing("attribute")
	}
	return eniAttribute{e, in.Attribute}, err
}

// ResetENIInput names an ENI whose source/destination check is to be as at first.
type ResetENIInput struct {
	ID         string
	SourceDest bool // that this is meant
}

// ResetNetworkInterfaceAttribute turns the source/destination check of an ENI on.
func (c *Cloud) ResetNetworkInterfaceAttribute(in ResetENIInput) error {
	_, err := call(c, in, resetENIAttribute)
	return err
}

func resetENIAttribute(s *state, in ResetENIInput) (struct{}, error) {
	if _, err := s.findENI(in.ID); err != nil {
		return struct{}{}, err
	}
	if !in.SourceDest {
		return struct{}{}, missing("attribute")
	}
	return modifyNetworkInterface(s, ModifyNetworkInterfaceInput{ID: in.ID, SourceDest: Some(true)})
}

// ModifyMetadataOptionsInput changes how the metadata service of an instance
// answers; what is left out stays.
type ModifyMetadataOptionsInput struct {
	ID       string
	HopLimit int    // 0: stays
	Tokens   string // "required" or "optional"; empty: stays
	Endpoint string // "enabled" or "disabled"; empty: stays
}

// ModifyInstanceMetadataOptions changes the metadata service of an instance.
func (c *Cloud) ModifyInstanceMetadataOptions(in ModifyMetadataOptionsInput) (Instance, error) {
	i, err := call(c, in, modifyMetadataOptions)
	return i.clone(), err
}

func modifyMetadataOptions(s *state, in ModifyMetadataOptionsInput) (Instance, error) {
	i, err := s.findInstance(in.ID)
	if err != nil {
		return i, err
	}
	if i.State == StateShuttingDown || i.State == StateTerminated {
		return i, incorrectInstanceState(i, "modify metadata options")
	}
	if in.HopLimit == 0 && in.Tokens == "" && in.Endpoint == "" {
		return i, invalidCombination("At least one of HttpTokens, HttpPutResponseHopLimit and HttpEndpoint must be specified.")
	}
	if in.HopLimit < 0 || in.HopLimit > maxHopLimit {
		return i, invalidValue("Value (%d) for parameter HttpPutResponseHopLimit is invalid. It must be from 1 to %d.", in.HopLimit, maxHopLimit)
	}
	if in.HopLimit != 0 {
		i.Metadata.HopLimit = in.HopLimit
	}
	if in.Tokens != "" {
		i.Metadata.Tokens = in.Tokens
	}
	if in.Endpoint != "" {
		i.Metadata.Disabled = in.Endpoint == "disabled"
	}
	s.instances.put(i.ID, i)
	return i, nil
}

// ModifyInstanceInput changes the primary ENI of an instance by the instance's
// name; exactly one of the fields after ID.
type ModifyInstanceInput struct {
	ID         string
	SourceDest Optional[bool]
	Groups     []string
}

// ModifyInstanceAttribute changes an attribute of an instance.
func (c *Cloud) ModifyInstanceAttribute(in ModifyInstanceInput) error {
	_, err := call(c, in, modifyInstance)
	return err
}

func modifyInstance(s *state, in ModifyInstanceInput) (struct{}, error) {
	i, err := s.findInstance(in.ID)
	if err != nil {
		return struct{}{}, err
	}
	if len(i.Interfaces) > 1 {
		return struct{}{}, fail("InvalidInstanceID", "There are multiple interfaces attached to instance '%s'. Please specify an interface ID for the operation instead.", i.ID)
	}
	e, ok := s.primaryOf(i)
	if !ok {
		return struct{}{}, incorrectInstanceState(i, "modify its network interface")
	}
	return modifyNetworkInterface(s, ModifyNetworkInterfaceInput{ID: e.ID, SourceDest: in.SourceDest, Groups: in.Groups})
}

func (s *state) findInstance(id string) (Instance, error) {
	if id == "" {
		return Instance{}, missing("instanceId")
	}
	i, err := find(&s.instances, kindInstance, id)
	if err == nil && s.forgotten(i) {
		err = kindInstance.missing(id)
	}
	return i, err
}

// accountAttribute is one attribute of the account and its values.
type accountAttribute struct {
	name   string
	values []string
}

// accountAttributes are those of an account that came after EC2-Classic. The
// numbers are the default quotas. Source: DescribeAccountAttributes, Amazon EC2
// API Reference.
var accountAttributes = []accountAttribute{
	{"supported-platforms", []string{"VPC"}},
	{"default-vpc", []string{"none"}},
	{"max-instances", []string{"20"}},
	{"vpc-max-security-groups-per-interface", []string{strconv.Itoa(maxGroups)}},
	{"max-elastic-ips", []string{"5"}},
	{"vpc-max-elastic-ips", []string{"5"}},
}

func describeAccountAttributes(_ *state, names []string) ([]accountAttribute, error) {
	if len(names) == 0 {
		return accountAttributes, nil
	}
	var out []accountAttribute
	var unknown []string
	for _, name := range names {
		found := false
		for _, a := range accountAttributes {
			if a.name == name {
				out, found = append(out, a), true
			}
		}
		if !found {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) > 0 {
		return nil, invalidValue("The following account attributes do not exist: [%s]", strings.Join(unknown, ", "))
	}
	return out, nil
}

// groupsForVPC asks for the groups that ENIs of a VPC can have.
type groupsForVPC struct {
	vpc   string
	query Query
}

func getGroupsForVPC(s *state, in groupsForVPC) (Page[SecurityGroup], error) {
	v, err := s.findVPC(in.vpc)
	if err != nil {
		return Page[SecurityGroup]{}, err
	}
	l := groupListing
	l.action = "GetSecurityGroupsForVpc"
	return l.apply(s, in.query, func(yield func(uint64, SecurityGroup) bool) {
		for at, g := range rows(&s.groups, nil) {
			if g.VPCID == v.ID && !yield(at, g) {
				return
			}
		}
	})
}

func incorrectInstanceState(i Instance, what string) error {
	return fail("IncorrectInstanceState", "The instance '%s' is not in a state from which it is possible to %s: it is '%s'.", i.ID, what, i.State)
}
