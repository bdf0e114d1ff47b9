package ec2sim

func parseVPCAttribute(f form) VPCAttributeInput {
	return VPCAttributeInput{ID: f.in("VpcId").text(), Attribute: f.in("Attribute").choice(vpcDNSSupport, vpcDNSHostnames, vpcUsageMetrics)}
}

func parseModifyVPC(f form) ModifyVPCAttributeInput {
	return ModifyVPCAttributeInput{
		ID:           f.in("VpcId").text(),
		DNSSupport:   f.in("EnableDnsSupport").in("Value").flag(),
		DNSHostnames: f.in("EnableDnsHostnames").in("Value").flag(),
		UsageMetrics: f.in("EnableNetworkAddressUsageMetrics").in("Value").flag(),
	}
}

// The attributes of an ENI that can be asked for.
const (
	eniDescription = "description"
	eniGroups      = "groupSet"
	eniSourceDest  = "sourceDestCheck"
	eniAttachment  = "attachment"
)

func parseENIAttribute(f form) ENIAttributeInput {
	return ENIAttributeInput{
		ID:        f.in("NetworkInterfaceId").text(),
		Attribute: f.in("Attribute").choice(eniDescription, eniGroups, eniSourceDest, eniAttachment),
	}
}

func parseResetENI(f form) ResetENIInput {
	_, given := f.in("SourceDestCheck").raw() // any value: the SDK's own example has "true"
	return ResetENIInput{ID: f.in("NetworkInterfaceId").text(), SourceDest: given}
}

func parseMetadataOptions(f form) ModifyMetadataOptionsInput {
	f.in("HttpProtocolIpv6").choice("disabled")
	f.in("InstanceMetadataTags").choice("enabled") // the lab's service always has them
	return ModifyMetadataOptionsInput{
		ID:       f.in("InstanceId").text(),
		HopLimit: f.in("HttpPutResponseHopLimit").count(1),
		Tokens:   f.in("HttpTokens").choice("required", "optional"),
		Endpoint: f.in("HttpEndpoint").choice("enabled", "disabled"),
	}
}

func parseModifyInstance(f form) ModifyInstanceInput {
	return ModifyInstanceInput{
		ID: f.in("InstanceId").text(), SourceDest: f.in("SourceDestCheck").in("Value").flag(), Groups: f.in("GroupId").texts(),
	}
}

func parseAccountAttributes(f form) []string { return f.in("AttributeName").texts() }

func parseGroupsForVPC(f form) groupsForVPC { return groupsForVPC{f.in("VpcId").text(), f.query("")} }

type xmlFlag struct {
	Value bool `xml:"value"`
}

func renderVPCAttribute(_ *state, v attributeValue) replier {
	out := &struct {
		reply
		ID           string   `xml:"vpcId"`
		DNSSupport   *xmlFlag `xml:"enableDnsSupport"`
		DNSHostnames *xmlFlag `xml:"enableDnsHostnames"`
		UsageMetrics *xmlFlag `xml:"enableNetworkAddressUsageMetrics"`
	}{ID: v.id}
	value := &xmlFlag{v.on}
	switch v.name {
	case vpcDNSSupport:
		out.DNSSupport = value
	case vpcDNSHostnames:
		out.DNSHostnames = value
	default:
		out.UsageMetrics = value
	}
	return out
}

func renderENIAttribute(s *state, v eniAttribute) replier {
	out := &struct {
		reply
		ID          string           `xml:"networkInterfaceId"`
		Description *string          `xml:"description>value"`
		Groups      *set[xmlGroupID] `xml:"groupSet"`
		SourceDest  *bool            `xml:"sourceDestCheck>value"`
		Attachment  *xmlAttachment   `xml:"attachment"`
	}{ID: v.eni.ID}
	switch v.name {
	case eniDescription:
		out.Description = &v.eni.Description
	case eniGroups:
		groups := setOf(v.eni.Groups, s.showGroup)
		out.Groups = &groups
	case eniSourceDest:
		out.SourceDest = &v.eni.SourceDestCheck
	default:
		out.Attachment = s.showENI(v.eni).Attachment
	}
	return out
}

// renderMetadataOptions says "pending", as EC2 does in this reply only.
func renderMetadataOptions(s *state, i Instance) replier {
	shown := s.showInstance(i).Metadata
	shown.State = "pending"
	return &struct {
		reply
		ID      string      `xml:"instanceId"`
		Options xmlMetadata `xml:"instanceMetadataOptions"`
	}{ID: i.ID, Options: shown}
}

type xmlAccountAttribute struct {
	Name   string          `xml:"attributeName"`
	Values set[xmlAccount] `xml:"attributeValueSet"`
}

type xmlAccount struct {
	Value string `xml:"attributeValue"`
}

func renderAccountAttributes(_ *state, list []accountAttribute) replier {
	return &struct {
		reply
		Set set[xmlAccountAttribute] `xml:"accountAttributeSet"`
	}{Set: setOf(list, func(a accountAttribute) xmlAccountAttribute {
		return xmlAccountAttribute{a.name, setOf(a.values, func(v string) xmlAccount { return xmlAccount{v} })}
	})}
}

type xmlGroupForVPC struct {
	Description string      `xml:"description"`
	Name        string      `xml:"groupName"`
	OwnerID     string      `xml:"ownerId"`
	ID          string      `xml:"groupId"`
	Tags        set[xmlTag] `xml:"tagSet"`
	VPCID       string      `xml:"primaryVpcId"`
}

func renderGroupsForVPC(s *state, page Page[SecurityGroup]) replier {
	return &struct {
		reply
		Next string              `xml:"nextToken,omitempty"`
		Set  set[xmlGroupForVPC] `xml:"securityGroupForVpcSet"`
	}{Next: page.NextToken, Set: setOf(page.Items, func(g SecurityGroup) xmlGroupForVPC {
		return xmlGroupForVPC{g.Description, g.Name, s.cfg.Account, g.ID, showTags(g.Tags), g.VPCID}
	})}
}
