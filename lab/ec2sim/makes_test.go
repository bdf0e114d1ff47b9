package ec2sim

import (
	"net/url"
	"slices"
	"strings"
	"testing"
)

// Every action that makes something asks for the right to make it, or is here
// with the reason why it asks for what it names only.
func TestMakes(t *testing.T) {
	named := map[string]string{
		"CreateTags":                  "of what there is",
		"CreateRoute":                 "is part of its table",
		"CreateTransitGatewayRoute":   "is part of its table",
		"CreateNetworkAclEntry":       "is part of its ACL",
		"CreateSubnetCidrReservation": "asks for its subnet: see tagsOnly",
	}
	for action := range actions {
		for _, verb := range []string{"Create", "Allocate", "Run"} {
			_, made := makes[action]
			if _, only := named[action]; strings.HasPrefix(action, verb) && made == only {
				t.Errorf("%s: in makes %v, in the list of this test %v: want one of them", action, made, only)
			}
		}
	}
	for _, table := range []map[string][]kind{makes, touched, tagsOnly} {
		for action := range table {
			if _, ok := actions[action]; !ok {
				t.Errorf("%s is no action", action)
			}
		}
	}
}

// Every action has resources in the tables, or is here: the page has none for it.
func TestTouched(t *testing.T) {
	none := []string{
		"AssociateTrunkInterface", "DisassociateTrunkInterface", "DeleteSubnetCidrReservation", "GetSubnetCidrReservations",
		"GetTransitGatewayRouteTableAssociations", "GetTransitGatewayRouteTablePropagations",
	}
	for action := range actions {
		has := touched[action] != nil || makes[action] != nil
		if bare := slices.Contains(none, action); !strings.HasPrefix(action, "Describe") && has == bare {
			t.Errorf("%s: in the tables %v, in the list of this test %v: want one of them", action, has, bare)
		}
	}
}

// required are the resources that have an asterisk in the table of "Actions,
// resources, and condition keys for Amazon EC2", Service Authorization Reference,
// as of September 2026: no request of the action does without a right for them.
var required = map[string]string{
	"AcceptVpcPeeringConnection":                 "vpc vpc-peering-connection",
	"AllocateAddress":                            "elastic-ip",
	"AssignPrivateIpAddresses":                   "network-interface",
	"AssociateRouteTable":                        "route-table",
	"AssociateTransitGatewayRouteTable":          "transit-gateway-attachment transit-gateway-route-table",
	"AssociateVpcCidrBlock":                      "vpc",
	"AttachInternetGateway":                      "internet-gateway vpc",
	"AttachNetworkInterface":                     "instance network-interface",
	"AuthorizeSecurityGroupEgress":               "security-group",
	"AuthorizeSecurityGroupIngress":              "security-group",
	"CreateFlowLogs":                             "vpc-flow-log",
	"CreateInternetGateway":                      "internet-gateway",
	"CreateManagedPrefixList":                    "prefix-list",
	"CreateNatGateway":                           "natgateway",
	"CreateNetworkAcl":                           "network-acl vpc",
	"CreateNetworkAclEntry":                      "network-acl",
	"CreateNetworkInterface":                     "network-interface subnet",
	"CreateRoute":                                "route-table",
	"CreateRouteTable":                           "route-table vpc",
	"CreateSecurityGroup":                        "security-group",
	"CreateSubnet":                               "subnet vpc",
	"CreateSubnetCidrReservation":                "subnet",
	"CreateTransitGateway":                       "transit-gateway",
	"CreateTransitGatewayRoute":                  "transit-gateway-route-table",
	"CreateTransitGatewayRouteTable":             "transit-gateway transit-gateway-route-table",
	"CreateTransitGatewayVpcAttachment":          "subnet transit-gateway transit-gateway-attachment vpc",
	"CreateVpc":                                  "vpc",
	"CreateVpcPeeringConnection":                 "vpc vpc-peering-connection",
	"DeleteFlowLogs":                             "vpc-flow-log",
	"DeleteInternetGateway":                      "internet-gateway",
	"DeleteManagedPrefixList":                    "prefix-list",
	"DeleteNatGateway":                           "natgateway",
	"DeleteNetworkAcl":                           "network-acl",
	"DeleteNetworkAclEntry":                      "network-acl",
	"DeleteNetworkInterface":                     "network-interface",
	"DeleteRoute":                                "route-table",
	"DeleteRouteTable":                           "route-table",
	"DeleteSecurityGroup":                        "security-group",
	"DeleteSubnet":                               "subnet",
	"DeleteTransitGateway":                       "transit-gateway",
	"DeleteTransitGatewayRoute":                  "transit-gateway-route-table",
	"DeleteTransitGatewayRouteTable":             "transit-gateway-route-table",
	"DeleteTransitGatewayVpcAttachment":          "transit-gateway-attachment",
	"DeleteVpc":                                  "vpc",
	"DeleteVpcPeeringConnection":                 "vpc-peering-connection",
	"DescribeVpcAttribute":                       "vpc",
	"DetachInternetGateway":                      "internet-gateway vpc",
	"DetachNetworkInterface":                     "instance network-interface",
	"DisableTransitGatewayRouteTablePropagation": "transit-gateway-route-table",
	"DisassociateTransitGatewayRouteTable":       "transit-gateway-attachment transit-gateway-route-table",
	"EnableTransitGatewayRouteTablePropagation":  "transit-gateway-route-table",
	"GetManagedPrefixListEntries":                "prefix-list",
	"GetSecurityGroupsForVpc":                    "vpc",
	"ModifyInstanceAttribute":                    "instance",
	"ModifyInstanceMetadataOptions":              "instance",
	"ModifyManagedPrefixList":                    "prefix-list",
	"ModifyNetworkInterfaceAttribute":            "network-interface",
	"ModifySubnetAttribute":                      "subnet",
	"ModifyVpcAttribute":                         "vpc",
	"RebootInstances":                            "instance",
	"RejectVpcPeeringConnection":                 "vpc-peering-connection",
	"ReplaceNetworkAclAssociation":               "network-acl subnet",
	"ReplaceNetworkAclEntry":                     "network-acl",
	"ReplaceRoute":                               "route-table",
	"ReplaceRouteTableAssociation":               "route-table",
	"ReplaceTransitGatewayRoute":                 "transit-gateway-route-table",
	"ResetNetworkInterfaceAttribute":             "network-interface",
	"RevokeSecurityGroupEgress":                  "security-group",
	"RevokeSecurityGroupIngress":                 "security-group",
	"RunInstances":                               "image instance network-interface security-group subnet",
	"SearchTransitGatewayRoutes":                 "transit-gateway-route-table",
	"StartInstances":                             "instance",
	"StopInstances":                              "instance",
	"TerminateInstances":                         "instance",
	"UnassignPrivateIpAddresses":                 "network-interface",
}

// A request is asked for each resource that the page requires of its action, and
// for nothing that the page does not know of it.
func TestRequired(t *testing.T) {
	c, names := refusalWorld(t)
	who := Caller{Role: "r", InstanceID: "i-00000001"}
	for action, query := range samples {
		values, err := url.ParseQuery(names.Replace(query))
		if err != nil {
			t.Fatal(err)
		}
		root, err := parseForm(values)
		if err != nil {
			t.Fatal(err)
		}
		var asked []string
		for _, q := range c.state.questions(who, action, root) {
			_, resource, _ := strings.Cut(q.Resource, "arn:aws:ec2:")
			if q.bare != (touched[action] == nil && makes[action] == nil) {
				t.Errorf("%s asks for %s", action, q.Resource)
			}
			kind, _, _ := strings.Cut(resource[strings.LastIndex(resource, ":")+1:], "/")
			asked = append(asked, kind)
		}
		for _, kind := range strings.Fields(required[action]) {
			if !slices.Contains(asked, kind) {
				t.Errorf("%s asks for %q, and not for a %s", action, asked, kind)
			}
		}
	}
	for action := range required {
		if _, ok := samples[action]; !ok {
			t.Errorf("%s has no sample", action)
		}
	}
}
