package ec2sim

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// touched are the sorts of resources that a right must be had for, of those that a
// request names or that follow from what it names. An action that is not here has
// no resources: its right is for all of the account and region. What an action
// makes is in [makes].
//
// Source: the table of "Actions, resources, and condition keys for Amazon EC2",
// Service Authorization Reference, row by row. Of its optional resources those of
// kinds that the lab has not are left out.
var touched = map[string][]kind{
	"AcceptVpcPeeringConnection":                 {kindVPC, kindPeering},
	"AssignPrivateIpAddresses":                   {kindENI},
	"AssociateAddress":                           {kindAddress, kindInstance, kindENI},
	"AssociateRouteTable":                        {kindRouteTable, kindSubnet},
	"AssociateTransitGatewayRouteTable":          {kindSpoke, kindHubTable},
	"AssociateVpcCidrBlock":                      {kindVPC},
	"AttachInternetGateway":                      {kindGateway, kindVPC},
	"AttachNetworkInterface":                     {kindInstance, kindENI},
	"AuthorizeSecurityGroupEgress":               {kindGroup},
	"AuthorizeSecurityGroupIngress":              {kindGroup},
	"CreateFlowLogs":                             {kindNAT, kindENI, kindSubnet, kindHub, kindSpoke, kindVPC},
	"CreateNatGateway":                           {kindAddress, kindSubnet},
	"CreateNetworkAcl":                           {kindVPC},
	"CreateNetworkAclEntry":                      {kindACL},
	"CreateNetworkInterface":                     {kindGroup, kindSubnet},
	"CreateRoute":                                {kindRouteTable},
	"CreateRouteTable":                           {kindVPC},
	"CreateSecurityGroup":                        {kindVPC},
	"CreateSubnet":                               {kindVPC},
	"CreateSubnetCidrReservation":                {kindSubnet},
	"CreateTags":                                 taggable,
	"CreateTransitGatewayRoute":                  {kindSpoke, kindHubTable},
	"CreateTransitGatewayRouteTable":             {kindHub},
	"CreateTransitGatewayVpcAttachment":          {kindSubnet, kindHub, kindVPC},
	"CreateVpcPeeringConnection":                 {kindVPC},
	"DeleteFlowLogs":                             {kindFlowLog},
	"DeleteInternetGateway":                      {kindGateway},
	"DeleteManagedPrefixList":                    {kindPrefixList},
	"DeleteNatGateway":                           {kindNAT},
	"DeleteNetworkAcl":                           {kindACL},
	"DeleteNetworkAclEntry":                      {kindACL},
	"DeleteNetworkInterface":                     {kindENI},
	"DeleteRoute":                                {kindRouteTable},
	"DeleteRouteTable":                           {kindRouteTable},
	"DeleteSecurityGroup":                        {kindGroup},
	"DeleteSubnet":                               {kindSubnet},
	"DeleteTags":                                 taggable,
	"DeleteTransitGateway":                       {kindHub},
	"DeleteTransitGatewayRoute":                  {kindHubTable},
	"DeleteTransitGatewayRouteTable":             {kindHubTable},
	"DeleteTransitGatewayVpcAttachment":          {kindSpoke},
	"DeleteVpc":                                  {kindVPC},
	"DeleteVpcPeeringConnection":                 {kindPeering},
	"DescribeVpcAttribute":                       {kindVPC},
	"DetachInternetGateway":                      {kindGateway, kindVPC},
	"DetachNetworkInterface":                     {kindInstance, kindENI},
	"DisableTransitGatewayRouteTablePropagation": {kindSpoke, kindHubTable},
	"DisassociateAddress":                        {kindAddress, kindENI},
	"DisassociateRouteTable":                     {kindRouteTable, kindSubnet},
	"DisassociateTransitGatewayRouteTable":       {kindSpoke, kindHubTable},
	"DisassociateVpcCidrBlock":                   {kindVPC},
	"EnableTransitGatewayRouteTablePropagation":  {kindSpoke, kindHubTable},
	"GetManagedPrefixListEntries":                {kindPrefixList},
	"GetSecurityGroupsForVpc":                    {kindVPC},
	"ModifyInstanceAttribute":                    {kindInstance, kindGroup},
	"ModifyInstanceMetadataOptions":              {kindInstance},
	"ModifyManagedPrefixList":                    {kindPrefixList},
	"ModifyNetworkInterfaceAttribute":            {kindInstance, kindENI, kindGroup},
	"ModifySubnetAttribute":                      {kindSubnet},
	"ModifyVpcAttribute":                         {kindVPC},
	"RebootInstances":                            {kindInstance},
	"RejectVpcPeeringConnection":                 {kindPeering},
	"ReleaseAddress":                             {kindAddress},
	"ReplaceNetworkAclAssociation":               {kindACL, kindSubnet},
	"ReplaceNetworkAclEntry":                     {kindACL},
	"ReplaceRoute":                               {kindRouteTable},
	"ReplaceRouteTableAssociation":               {kindRouteTable, kindSubnet},
	"ReplaceTransitGatewayRoute":                 {kindSpoke, kindHubTable},
	"ResetNetworkInterfaceAttribute":             {kindENI},
	"RevokeSecurityGroupEgress":                  {kindGroup},
	"RevokeSecurityGroupIngress":                 {kindGroup},
	"RunInstances":                               {kindGroup, kindENI, kindSubnet},
	"SearchTransitGatewayRoutes":                 {kindHubTable},
	"StartInstances":                             {kindInstance},
	"StopInstances":                              {kindInstance},
	"TerminateInstances":                         {kindInstance},
	"UnassignPrivateIpAddresses":                 {kindENI},
}

// taggable are the kinds that can have tags, all of which have ARNs.
var taggable = slices.DeleteFunc(slices.Clone(kinds), func(k kind) bool { return k.resource == "" })

// makes says what the actions make. A right is needed for it although it has no
// identifier yet. Source: as for [touched].
var makes = map[string][]kind{
	"AllocateAddress":                   {kindAddress},
	"CreateFlowLogs":                    {kindFlowLog},
	"CreateInternetGateway":             {kindGateway},
	"CreateManagedPrefixList":           {kindPrefixList},
	"CreateNatGateway":                  {kindNAT},
	"CreateNetworkAcl":                  {kindACL},
	"CreateNetworkInterface":            {kindENI},
	"CreateRouteTable":                  {kindRouteTable},
	"CreateSecurityGroup":               {kindGroup},
	"CreateSubnet":                      {kindSubnet},
	"CreateTransitGateway":              {kindHub},
	"CreateTransitGatewayRouteTable":    {kindHubTable},
	"CreateTransitGatewayVpcAttachment": {kindSpoke},
	"CreateVpc":                         {kindVPC},
	"CreateVpcPeeringConnection":        {kindPeering},
	"RunInstances":                      {kindInstance, kindENI, {resource: "volume"}},
}

// tagsOnly are things whose tags need a right when they are made with some, and
// they themselves none: the page's row has the subnet alone.
var tagsOnly = map[string][]kind{
	"CreateSubnetCidrReservation": {kindReservation},
}

// notTouched are parameters whose identifiers no right is asked for. The other
// VPC of a peering may be of another account: the one that is asked for is the
// requester's ("Identity and access management for VPC peering", Amazon VPC
// Peering Guide).
var notTouched = []string{"Filter", "Tag", "TagSpecification", "TagSpecifications", "ClientToken", "IpPermissions", "PeerVpcId"}

// named gives the identifiers of the resources that a request touches, in the
// order of its parameters, and last what it leaves to EC2.
func (s *state) named(action string, root *node) []string {
	var out []string
	add := func(id string) {
		k := kindOf(id)
		if slices.ContainsFunc(touched[action], func(t kind) bool { return t == k }) && !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	var walk func(name string, n *node)
	walk = func(name string, n *node) {
		if n.given && (strings.HasSuffix(name, "Id") || strings.HasSuffix(name, "Ids")) {
			add(n.value)
			for _, id := range s.tied(action, n.value) {
				add(id)
			}
		}
		for _, kid := range slices.Sorted(maps.Keys(n.kids)) {
			below := kid
			if _, err := strconv.Atoi(kid); err == nil {
				below = name // of a list, each has its name
			}
			if !slices.Contains(notTouched, kid) {
				walk(below, n.kids[kid])
			}
		}
	}
	walk("", root)
	if action == "RunInstances" {
		out = append(out, s.launchGroups(out)...)
	}
	return out
}

// launchGroups are the security groups of a launch that names none: the default
// one of its VPC.
func (s *state) launchGroups(named []string) []string {
	if slices.ContainsFunc(named, func(id string) bool { return kindOf(id) == kindGroup }) {
		return nil
	}
	for _, id := range named {
		if n, ok := s.subnets.get(id); ok {
			return []string{s.defaultGroupOf(n.VPCID).ID}
		}
	}
	return nil
}

// tied are the resources that something without an ARN holds together, such as
// an attachment the ENI and the instance. Of one that is not there it gives none;
// then the request fails for that.
func (s *state) tied(action, id string) []string {
	switch kindOf(id) {
	case kindAttachment:
		if e, err := s.findAttached(id); err == nil {
			return []string{e.ID, e.Attachment.InstanceID}
		}
	case kindTableAssociation:
		n, v, err := s.findTableAssociation(id)
		switch {
		case err != nil:
		case action == "ReplaceRouteTableAssociation": // of the tables, the one that it names
			return []string{n.ID}
		case n.ID == "":
			return []string{v.MainRouteTable}
		default:
			return []string{n.RouteTable, n.ID}
		}
	case kindACLAssociation:
		for n := range s.subnets.all() {
			if n.ACLAssociation == id {
				return []string{n.ID}
			}
		}
	case kindMapping:
		for a := range s.addresses.all() {
			if a.AssociationID == id {
				return []string{a.ID, a.InterfaceID}
			}
		}
	case kindBlockAssociation:
		for v := range s.vpcs.all() {
			if slices.ContainsFunc(v.CIDRs, func(p netip.Prefix) bool { return BlockAssociationID(v.ID, p) == id }) {
				return []string{v.ID}
			}
		}
	case kindPeering: // who accepts one needs a right for his VPC
		if p, err := s.findPeering(id); err == nil {
			return []string{p.Accepter.VPCID}
		}
	}
	return nil
}
