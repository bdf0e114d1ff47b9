package ec2sim

import "strings"

// actions are all that the API has. The parameters are those of the Amazon EC2
// API Reference; one that is not read here is refused as unknown.
var actions = map[string]action{
	"DescribeRegions":                 act(parseRegions, describeRegions, renderRegions),
	"CreateVpc":                       act(parseCreateVPC, createVPC, renderCreateVPC),
	"DescribeVpcs":                    act(queryBy("VpcId"), describeVPCs, renderVPCs),
	"AssociateVpcCidrBlock":           noDryRun(act(parseAssociateVPCBlock, associateVPCBlock, renderAssociateVPCBlock)),
	"CreateSubnet":                    act(parseCreateSubnet, createSubnet, renderCreateSubnet),
	"DescribeSubnets":                 act(queryBy("SubnetId"), describeSubnets, renderSubnets),
	"CreateSecurityGroup":             act(parseCreateGroup, createSecurityGroup, renderCreateGroup),
	"DescribeSecurityGroups":          act(queryBy("GroupId"), describeGroups, renderGroups),
	"CreateNetworkInterface":          act(parseCreateENI, createNetworkInterface, renderCreateENI),
	"DescribeNetworkInterfaces":       act(queryBy("NetworkInterfaceId"), describeENIs, renderENIs),
	"DeleteNetworkInterface":          act(parseDeleteENI, deleteNetworkInterface, renderDone),
	"AttachNetworkInterface":          act(parseAttach, attachNetworkInterface, renderAttach),
	"DetachNetworkInterface":          act(parseDetach, detachNetworkInterface, renderDone),
	"ModifyNetworkInterfaceAttribute": act(parseModify, modifyNetworkInterface, renderDone),
	"AssignPrivateIpAddresses":        noDryRun(act(parseAssign, assignPrivateIPs, renderAssigned)),
	"UnassignPrivateIpAddresses":      noDryRun(act(parseUnassign, unassignPrivateIPs, renderDone)),
	"RunInstances":                    act(parseRun, runInstances, renderRun),
	"TerminateInstances":              act(parseTerminate, terminateInstances, renderPower),
	"DescribeInstances":               act(queryBy("InstanceId"), describeInstances, renderInstances),
	"DescribeInstanceTypes":           act(queryBy("InstanceType"), describeInstanceTypes, renderTypes),
	"DescribeAvailabilityZones":       act(parseZones, describeZones, renderZones),
	"CreateTags":                      act(parseCreateTags, createTags, renderDone),
	"DeleteTags":                      act(parseDeleteTags, deleteTags, renderDone),
	"DescribeTags":                    act(queryBy(""), describeTags, renderTags),

	"DeleteVpc":                act(parseDeleteVPC, deleteVPC, renderDone),
	"DisassociateVpcCidrBlock": noDryRun(act(parseDisassociateVPCBlock, disassociateVPCBlock, renderDisassociateVPCBlock)),
	"DeleteSubnet":             act(parseDeleteSubnet, deleteSubnet, renderDone),
	"ModifySubnetAttribute":    noDryRun(act(parseModifySubnet, modifySubnet, renderDone)),

	"DeleteSecurityGroup":           act(parseDeleteGroup, deleteSecurityGroup, renderDeletedGroup),
	"DescribeSecurityGroupRules":    act(queryBy("SecurityGroupRuleId"), describeRules, renderRules),
	"AuthorizeSecurityGroupIngress": act(parseRules, authorize(Ingress), renderAuthorized),
	"AuthorizeSecurityGroupEgress":  act(parseRules, authorize(Egress), renderAuthorized),
	"RevokeSecurityGroupIngress":    act(parseRules, revoke(Ingress), renderRevoked),
	"RevokeSecurityGroupEgress":     act(parseRules, revoke(Egress), renderRevoked),

	"CreateManagedPrefixList":     act(parseCreateList, createPrefixList, renderList("create-in-progress")),
	"ModifyManagedPrefixList":     act(parseModifyList, modifyPrefixList, renderList("modify-in-progress")),
	"DeleteManagedPrefixList":     act(parseDeleteList, deletePrefixList, renderList("delete-in-progress")),
	"DescribeManagedPrefixLists":  act(queryBy("PrefixListId"), describePrefixLists, renderLists),
	"GetManagedPrefixListEntries": act(parseListEntries, getListEntries, renderListEntries),

	"CreateNetworkAcl":             act(parseCreateACL, createACL, renderCreateACL),
	"DeleteNetworkAcl":             act(parseDeleteACL, deleteACL, renderDone),
	"DescribeNetworkAcls":          act(queryBy("NetworkAclId"), describeACLs, renderACLs),
	"CreateNetworkAclEntry":        act(parseACLEntry, createACLEntry, renderDone),
	"ReplaceNetworkAclEntry":       act(parseACLEntry, replaceACLEntry, renderDone),
	"DeleteNetworkAclEntry":        act(parseACLNumber, deleteACLEntry, renderDone),
	"ReplaceNetworkAclAssociation": act(parseReplaceACLAssociation, replaceACLAssociation, renderNewAssociation),

	"CreateRouteTable":             act(parseCreateRouteTable, createRouteTable, renderCreateRouteTable),
	"DeleteRouteTable":             act(parseDeleteRouteTable, deleteRouteTable, renderDone),
	"DescribeRouteTables":          act(queryBy("RouteTableId"), describeRouteTables, renderRouteTables),
	"CreateRoute":                  act(parseRoute, createRoute, renderDone),
	"ReplaceRoute":                 act(parseRoute, replaceRoute, renderDone),
	"DeleteRoute":                  act(parseDestination, deleteRoute, renderDone),
	"AssociateRouteTable":          act(parseAssociateTable, associateRouteTable, renderAssociated),
	"DisassociateRouteTable":       act(parseDisassociateTable, disassociateRouteTable, renderDone),
	"ReplaceRouteTableAssociation": act(parseReplaceTable, replaceTableAssociation, renderReassociated),

	"CreateInternetGateway":    act(parseCreateGateway, createGateway, renderCreateGateway),
	"AttachInternetGateway":    act(parseGateway, attachGateway, renderDone),
	"DetachInternetGateway":    act(parseGateway, detachGateway, renderDone),
	"DeleteInternetGateway":    act(parseDeleteGateway, deleteGateway, renderDone),
	"DescribeInternetGateways": act(queryBy("InternetGatewayId"), describeGateways, renderGateways),
	"CreateNatGateway":         act(parseCreateNAT, createNAT, renderCreateNAT),
	"DeleteNatGateway":         act(parseDeleteNAT, deleteNAT, renderDeleteNAT),
	"DescribeNatGateways":      act(queryBy("NatGatewayId"), describeNATs, renderNATs),

	"AllocateAddress":     act(parseAllocate, allocateAddress, renderAllocated),
	"ReleaseAddress":      act(parseRelease, releaseAddress, renderDone),
	"AssociateAddress":    act(parseAssociateAddress, associateAddress, renderMapped),
	"DisassociateAddress": act(parseDisassociateAddress, disassociateAddress, renderDone),
	"DescribeAddresses":   act(parseAddresses, describeAddresses, renderElastics),

	"CreateVpcPeeringConnection":    act(parseCreatePeering, createPeering, renderCreatePeering),
	"AcceptVpcPeeringConnection":    act(parsePeering, acceptPeering, renderPeering),
	"RejectVpcPeeringConnection":    act(parsePeering, rejectPeering, renderDone),
	"DeleteVpcPeeringConnection":    act(parsePeering, deletePeering, renderDone),
	"DescribeVpcPeeringConnections": act(queryBy("VpcPeeringConnectionId"), describePeerings, renderPeerings),

	"CreateTransitGateway":                       act(parseCreateHub, createHub, renderHub("pending")),
	"DeleteTransitGateway":                       act(parseHub, deleteHub, renderHub("deleting")),
	"DescribeTransitGateways":                    act(queryBy("TransitGatewayIds"), describeHubs, renderHubs),
	"CreateTransitGatewayVpcAttachment":          act(parseCreateSpoke, createSpoke, renderSpoke("pending")),
	"DeleteTransitGatewayVpcAttachment":          act(parseSpoke, deleteSpoke, renderSpoke("deleting")),
	"DescribeTransitGatewayVpcAttachments":       act(queryBy("TransitGatewayAttachmentIds"), describeSpokes(spokeListing), renderSpokes),
	"DescribeTransitGatewayAttachments":          act(queryBy("TransitGatewayAttachmentIds"), describeSpokes(anySpokeListing), renderAnySpokes),
	"CreateTransitGatewayRouteTable":             act(parseCreateHubTable, createHubTable, renderHubTable("pending")),
	"DeleteTransitGatewayRouteTable":             act(parseHubTable, deleteHubTable, renderHubTable("deleting")),
	"DescribeTransitGatewayRouteTables":          act(queryBy("TransitGatewayRouteTableIds"), describeHubTables, renderHubTables),
	"CreateTransitGatewayRoute":                  act(parseHubRoute, createHubRoute, renderHubRoute),
	"ReplaceTransitGatewayRoute":                 act(parseHubRoute, replaceHubRoute, renderHubRoute),
	"DeleteTransitGatewayRoute":                  act(parseHubDestination, deleteHubRoute, renderHubRoute),
	"SearchTransitGatewayRoutes":                 act(parseHubSearch, searchHubRoutes, renderHubRoutes),
	"AssociateTransitGatewayRouteTable":          act(parseTie, associateHubTable, renderAssociation("associating")),
	"DisassociateTransitGatewayRouteTable":       act(parseTie, disassociateHubTable, renderAssociation("disassociating")),
	"EnableTransitGatewayRouteTablePropagation":  act(parseTie, enablePropagation, renderPropagation("enabled")),
	"DisableTransitGatewayRouteTablePropagation": act(parseTie, disablePropagation, renderPropagation("disabled")),
	"GetTransitGatewayRouteTableAssociations":    act(parseHubSearch, hubTies(associatedSpokes), renderAssociations),
	"GetTransitGatewayRouteTablePropagations":    act(parseHubSearch, hubTies(propagatingSpokes), renderPropagations),

	"DescribeVpcAttribute":              act(parseVPCAttribute, describeVPCAttribute, renderVPCAttribute),
	"ModifyVpcAttribute":                noDryRun(act(parseModifyVPC, modifyVPCAttribute, renderDone)),
	"DescribeNetworkInterfaceAttribute": act(parseENIAttribute, describeENIAttribute, renderENIAttribute),
	"ResetNetworkInterfaceAttribute":    act(parseResetENI, resetENIAttribute, renderDone),
	"ModifyInstanceMetadataOptions":     act(parseMetadataOptions, modifyMetadataOptions, renderMetadataOptions),
	"ModifyInstanceAttribute":           act(parseModifyInstance, modifyInstance, renderDone),
	"DescribeAccountAttributes":         act(parseAccountAttributes, describeAccountAttributes, renderAccountAttributes),
	"GetSecurityGroupsForVpc":           act(parseGroupsForVPC, getGroupsForVPC, renderGroupsForVPC),

	"StopInstances":          act(parseStop, stopInstances, renderPower),
	"StartInstances":         act(parsePower, startInstances, renderPower),
	"RebootInstances":        act(parsePower, rebootInstances, renderDone),
	"DescribeInstanceStatus": act(parseStatus, describeStatus, renderStatus),

	"CreateSubnetCidrReservation": act(parseCreateReservation, createReservation, renderReservation),
	"DeleteSubnetCidrReservation": act(parseDeleteReservation, deleteReservation, renderDeletedReservation),
	"GetSubnetCidrReservations":   act(parseReservations, getReservations, renderReservations),

	"AssociateTrunkInterface":            act(parseAssociateTrunk, associateTrunk, renderTrunk),
	"DisassociateTrunkInterface":         act(parseDisassociateTrunk, disassociateTrunk, renderUntied),
	"DescribeTrunkInterfaceAssociations": act(queryBy("AssociationId"), describeTrunks, renderTrunks),

	"CreateFlowLogs":   act(parseCreateFlowLogs, createFlowLogs, renderFlowLogsMade),
	"DeleteFlowLogs":   act(parseDeleteFlowLogs, deleteFlowLogs, renderFlowLogsDeleted),
	"DescribeFlowLogs": act(queryBy("FlowLogId"), describeFlowLogs, renderFlowLogs),
}

func queryBy(ids string) func(form) Query {
	return func(f form) Query { return f.query(ids) }
}

func parseCreateVPC(f form) CreateVPCInput {
	f.in("InstanceTenancy").choice("default")
	return CreateVPCInput{CIDR: f.in("CidrBlock").cidr(), Tags: f.tagsFor(kindVPC)[kindVPC]}
}

func parseAssociateVPCBlock(f form) AssociateVPCCIDRBlockInput {
	return AssociateVPCCIDRBlockInput{VPCID: f.in("VpcId").text(), CIDR: f.in("CidrBlock").cidr()}
}

func parseDeleteVPC(f form) DeleteVPCInput { return DeleteVPCInput{ID: f.in("VpcId").text()} }

func parseDisassociateVPCBlock(f form) DisassociateVPCCIDRBlockInput {
	return DisassociateVPCCIDRBlockInput{AssociationID: f.in("AssociationId").text()}
}

func parseDeleteSubnet(f form) DeleteSubnetInput {
	return DeleteSubnetInput{ID: f.in("SubnetId").text()}
}

func parseModifySubnet(f form) ModifySubnetInput {
	return ModifySubnetInput{ID: f.in("SubnetId").text(), MapPublic: f.in("MapPublicIpOnLaunch").in("Value").flag()}
}

func parseCreateSubnet(f form) CreateSubnetInput {
	return CreateSubnetInput{
		VPCID: f.in("VpcId").text(), CIDR: f.in("CidrBlock").cidr(),
		Zone: f.in("AvailabilityZone").text(), ZoneID: f.in("AvailabilityZoneId").text(),
		Tags: f.tagsFor(kindSubnet)[kindSubnet],
	}
}

func parseCreateGroup(f form) CreateSecurityGroupInput {
	return CreateSecurityGroupInput{
		VPCID: f.in("VpcId").text(), Name: f.in("GroupName").text(), Description: f.in("GroupDescription").text(),
		Tags: f.tagsFor(kindGroup)[kindGroup],
	}
}

func parseCreateENI(f form) CreateNetworkInterfaceInput {
	sort := f.in("InterfaceType").choice(TypeInterface, TypeTrunk, TypeBranch)
	if sort == TypeInterface {
		sort = "" // that is what the rest are
	}
	return CreateNetworkInterfaceInput{
		Type:     sort,
		SubnetID: f.in("SubnetId").text(), Description: f.in("Description").text(),
		Groups: f.in("SecurityGroupId").texts(), Addresses: f.addressing(),
		Tracking: parseTracking(f.in("ConnectionTrackingSpecification")),
		Tags:     f.tagsFor(kindENI)[kindENI], ClientToken: f.in("ClientToken").text(),
	}
}

func parseDeleteENI(f form) DeleteNetworkInterfaceInput {
	return DeleteNetworkInterfaceInput{ID: f.in("NetworkInterfaceId").text()}
}

func parseAttach(f form) AttachNetworkInterfaceInput {
	f.in("DeviceIndex").required()
	return AttachNetworkInterfaceInput{
		InterfaceID: f.in("NetworkInterfaceId").text(), InstanceID: f.in("InstanceId").text(),
		DeviceIndex: f.in("DeviceIndex").count(0), CardIndex: f.in("NetworkCardIndex").count(0),
	}
}

func parseDetach(f form) DetachNetworkInterfaceInput {
	return DetachNetworkInterfaceInput{AttachmentID: f.in("AttachmentId").text(), Force: f.in("Force").flag().Value}
}

func parseModify(f form) ModifyNetworkInterfaceInput {
	return ModifyNetworkInterfaceInput{
		ID:          f.in("NetworkInterfaceId").text(),
		Description: f.in("Description").in("Value").optional(),
		SourceDest:  f.in("SourceDestCheck").in("Value").flag(),
		Groups:      f.in("SecurityGroupId").texts(),
		Tracking:    parseTracking(f.in("ConnectionTrackingSpecification")),
		Attachment: AttachmentChange{
			ID:                  f.in("Attachment").in("AttachmentId").text(),
			DeleteOnTermination: f.in("Attachment").in("DeleteOnTermination").flag(),
		},
	}
}

func parseAssign(f form) AssignPrivateIPAddressesInput {
	return AssignPrivateIPAddressesInput{
		ID:    f.in("NetworkInterfaceId").text(),
		Count: f.in("SecondaryPrivateIpAddressCount").count(1), Addresses: f.in("PrivateIpAddress").addrs(),
		PrefixCount: f.in("Ipv4PrefixCount").count(1), Prefixes: f.in("Ipv4Prefix").cidrs(),
		AllowReassignment: f.in("AllowReassignment").flag().Value,
	}
}

func parseUnassign(f form) UnassignPrivateIPAddressesInput {
	return UnassignPrivateIPAddressesInput{
		ID:        f.in("NetworkInterfaceId").text(),
		Addresses: f.in("PrivateIpAddress").addrs(), Prefixes: f.in("Ipv4Prefix").cidrs(),
	}
}

func parseRun(f form) RunInstancesInput {
	f.in("MinCount").required()
	f.in("MaxCount").required()
	tags := f.tagsFor(kindInstance, kindENI)
	metadata, profile := f.in("MetadataOptions"), f.in("IamInstanceProfile")
	in := RunInstancesInput{
		Type: f.in("InstanceType").text(), ImageID: f.in("ImageId").text(),
		Min: f.in("MinCount").count(1), Max: f.in("MaxCount").count(1),
		SubnetID: f.in("SubnetId").text(), Groups: f.in("SecurityGroupId").texts(), PrivateIP: f.in("PrivateIpAddress").addr(),
		Tags: tags[kindInstance], InterfaceTags: tags[kindENI],
		Metadata: Metadata{
			HopLimit: metadata.in("HttpPutResponseHopLimit").count(1),
			Tokens:   metadata.in("HttpTokens").choice("required", "optional"),
			Disabled: metadata.in("HttpEndpoint").choice("enabled", "disabled") == "disabled",
		},
		UserData: f.in("UserData").base64(), KeyName: f.in("KeyName").text(), ClientToken: f.in("ClientToken").text(),
	}
	arn, name := profile.in("Arn").text(), profile.in("Name").text()
	if arn != "" && name != "" {
		f.fail(invalidCombination("The parameter 'iamInstanceProfile.name' may not be used in combination with 'iamInstanceProfile.arn'"))
	}
	in.InstanceProfile = arn + name
	for _, m := range f.in("NetworkInterface").members() {
		m.in("DeviceIndex").required()
		m.in("InterfaceType").choice("interface")
		in.Interfaces = append(in.Interfaces, LaunchInterface{
			DeviceIndex: m.in("DeviceIndex").count(0), CardIndex: m.in("NetworkCardIndex").count(0),
			ExistingID: m.in("NetworkInterfaceId").text(), SubnetID: m.in("SubnetId").text(),
			Description: m.in("Description").text(), Groups: m.in("SecurityGroupId").texts(),
			Addresses: m.addressing(), DeleteOnTermination: m.in("DeleteOnTermination").flag(),
			PublicIP: m.in("AssociatePublicIpAddress").flag(),
		})
	}
	return in
}

func parseTerminate(f form) TerminateInstancesInput {
	return TerminateInstancesInput{IDs: f.in("InstanceId").texts()}
}

func parseZones(f form) zoneQuery {
	f.in("AllAvailabilityZones").flag() // there are none to opt in to
	return zoneQuery{names: f.in("ZoneName").texts(), ids: f.in("ZoneId").texts(), filters: f.filters()}
}

func parseCreateTags(f form) CreateTagsInput {
	return CreateTagsInput{IDs: f.in("ResourceId").texts(), Tags: f.tags()}
}

func parseDeleteTags(f form) DeleteTagsInput {
	in := DeleteTagsInput{IDs: f.in("ResourceId").texts()}
	for _, m := range f.in("Tag").members() {
		if in.Tags == nil {
			in.Tags = map[string]Optional[string]{}
		}
		in.Tags[m.in("Key").text()] = m.in("Value").optional()
	}
	return in
}

// profileARN gives the ARN of an instance profile that was named either way.
func (s *state) profileARN(profile string) string {
	if strings.HasPrefix(profile, "arn:") {
		return profile
	}
	return "arn:aws:iam::" + s.cfg.Account + ":instance-profile/" + profile
}
