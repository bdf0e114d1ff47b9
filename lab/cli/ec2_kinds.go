package cli

import (
	"strconv"
	"strings"

	"github.com/fairway-cni/fairway/lab/world"
)

// kindOfParam says what a parameter of EC2's API names, by the last word of its
// name. Those that are not here may name anything.
var kindOfParam = map[string]string{
	"InstanceId":                  world.KindInstance,
	"VpcId":                       world.KindVPC,
	"PeerVpcId":                   world.KindVPC,
	"SubnetId":                    world.KindSubnet,
	"SubnetIds":                   world.KindSubnet,
	"NetworkInterfaceId":          world.KindENI,
	"AttachmentId":                world.KindAttachment,
	"GroupId":                     world.KindGroup,
	"SecurityGroupId":             world.KindGroup,
	"PrefixListId":                world.KindPrefixList,
	"NetworkAclId":                world.KindACL,
	"RouteTableId":                world.KindRouteTable,
	"GatewayId":                   world.KindInternetGateway,
	"InternetGatewayId":           world.KindInternetGateway,
	"NatGatewayId":                world.KindNATGateway,
	"AllocationId":                world.KindAddress,
	"VpcPeeringConnectionId":      world.KindPeering,
	"TransitGatewayId":            world.KindTransitGateway,
	"TransitGatewayIds":           world.KindTransitGateway,
	"TransitGatewayAttachmentId":  world.KindTransitVPC,
	"TransitGatewayAttachmentIds": world.KindTransitVPC,
	"TransitGatewayRouteTableId":  world.KindTransitTable,
	"TransitGatewayRouteTableIds": world.KindTransitTable,
	"FlowLogId":                   world.KindFlowLog,
}

// kindOfFilter is the same for the values of a filter, by the last word of the
// filter's name: attachment.instance-id is an instance's.
var kindOfFilter = map[string]string{
	"instance-id":                    world.KindInstance,
	"vpc-id":                         world.KindVPC,
	"subnet-id":                      world.KindSubnet,
	"network-interface-id":           world.KindENI,
	"attachment-id":                  world.KindAttachment,
	"group-id":                       world.KindGroup,
	"prefix-list-id":                 world.KindPrefixList,
	"network-acl-id":                 world.KindACL,
	"route-table-id":                 world.KindRouteTable,
	"internet-gateway-id":            world.KindInternetGateway,
	"nat-gateway-id":                 world.KindNATGateway,
	"allocation-id":                  world.KindAddress,
	"vpc-peering-connection-id":      world.KindPeering,
	"transit-gateway-id":             world.KindTransitGateway,
	"transit-gateway-attachment-id":  world.KindTransitVPC,
	"transit-gateway-route-table-id": world.KindTransitTable,
	"flow-log-id":                    world.KindFlowLog,
}

// kindOfResource is for the ResourceType of CreateFlowLogs.
var kindOfResource = map[string]string{
	"VPC": world.KindVPC, "Subnet": world.KindSubnet, "NetworkInterface": world.KindENI,
}

// kind says what a parameter of the call names; empty: it may be anything.
func (c ec2Call) kind(name string) string {
	words := strings.Split(name, ".")
	for len(words) > 1 {
		if _, err := strconv.Atoi(words[len(words)-1]); err != nil {
			break
		}
		words = words[:len(words)-1]
	}
	switch last := words[len(words)-1]; {
	case last == "AssociationId":
		return c.association()
	case last == "ResourceId":
		return kindOfResource[c.value("ResourceType")]
	case words[0] == "Filter" && len(words) == 3 && last == "Value":
		filter := c.value("Filter." + words[1] + ".Name")
		return kindOfFilter[filter[strings.LastIndex(filter, ".")+1:]]
	default:
		return kindOfParam[last]
	}
}

// association says between what the action's AssociationId is.
func (c ec2Call) association() string {
	for _, of := range []struct{ part, kind string }{
		{"NetworkAcl", world.KindACLAssociation}, {"RouteTable", world.KindTableAssociation},
		{"CidrBlock", world.KindBlock}, {"Address", world.KindMapping},
	} {
		if strings.Contains(c.Action, of.part) {
			return of.kind
		}
	}
	return ""
}

func (c ec2Call) value(name string) string {
	for _, p := range c.Params {
		if p.name == name {
			return p.value
		}
	}
	return ""
}
