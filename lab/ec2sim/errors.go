package ec2sim

import (
	"fmt"
	"net/http"
	"strings"
)

// Error is a refusal as EC2 sends it.
type Error struct {
	Code    string // such as "InvalidSubnetID.NotFound"
	Message string
	Status  int // HTTP status; 0 means the usual one for the code
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

// HTTPStatus is the status the error travels with.
func (e *Error) HTTPStatus() int {
	if e.Status != 0 {
		return e.Status
	}
	if status, ok := statusOf[e.Code]; ok {
		return status
	}
	return http.StatusBadRequest
}

// statusOf lists the codes that are not 400. Source: "Error codes for the
// Amazon EC2 API", Amazon EC2 Developer Guide.
var statusOf = map[string]int{
	"AuthFailure":                  http.StatusUnauthorized,
	"DryRunOperation":              http.StatusPreconditionFailed,
	"UnauthorizedOperation":        http.StatusForbidden,
	"MissingAuthenticationToken":   http.StatusForbidden,
	"SignatureDoesNotMatch":        http.StatusForbidden,
	"OptInRequired":                http.StatusForbidden,
	"RequestEntityTooLarge":        http.StatusRequestEntityTooLarge,
	"MethodNotAllowed":             http.StatusMethodNotAllowed,
	"InternalError":                http.StatusInternalServerError,
	"InternalFailure":              http.StatusInternalServerError,
	"InsufficientInstanceCapacity": http.StatusInternalServerError,
	"RequestLimitExceeded":         http.StatusServiceUnavailable,
	"ServiceUnavailable":           http.StatusServiceUnavailable,
	"Unavailable":                  http.StatusServiceUnavailable,
}

func fail(code, format string, args ...any) error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

func missing(parameter string) error {
	return fail("MissingParameter", "The request must contain the parameter %s", parameter)
}

func invalidValue(format string, args ...any) error {
	return fail("InvalidParameterValue", format, args...)
}

func invalidCombination(format string, args ...any) error {
	return fail("InvalidParameterCombination", format, args...)
}

func noFreeAddress() error {
	return fail("InsufficientFreeAddressesInSubnet",
		"The specified subnet does not have enough free addresses to satisfy the request.")
}

func noFreeBlock() error {
	return fail("InsufficientCidrBlocks",
		"The specified subnet does not have enough free cidr blocks to satisfy the request.")
}

// kind is a sort of resource: how its identifiers look and what EC2 answers to
// a wrong one. The spelling of the codes follows no rule; each is EC2's own.
type kind struct {
	prefix    string // of the identifier, with the dash
	noun      string // in "The <noun> 'x' does not exist"
	resource  string // in TagSpecification and DescribeTags
	notFound  string
	malformed string
}

var (
	kindVPC        = kind{"vpc-", "vpc ID", "vpc", "InvalidVpcID.NotFound", "InvalidVpcID.Malformed"}
	kindSubnet     = kind{"subnet-", "subnet ID", "subnet", "InvalidSubnetID.NotFound", "InvalidSubnetID.Malformed"}
	kindGroup      = kind{"sg-", "security group", "security-group", "InvalidGroup.NotFound", "InvalidGroupId.Malformed"}
	kindENI        = kind{"eni-", "networkInterface ID", "network-interface", "InvalidNetworkInterfaceID.NotFound", "InvalidNetworkInterfaceId.Malformed"}
	kindAttachment = kind{"eni-attach-", "attachment ID", "", "InvalidAttachmentID.NotFound", "InvalidNetworkInterfaceAttachmentId.Malformed"}
	kindInstance   = kind{"i-", "instance ID", "instance", "InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed"}

	kindGroupRule        = kind{"sgr-", "security group rule ID", "", "InvalidSecurityGroupRuleId.NotFound", "InvalidSecurityGroupRuleId.Malformed"}
	kindPrefixList       = kind{"pl-", "prefix list ID", "prefix-list", "InvalidPrefixListID.NotFound", "InvalidPrefixListId.Malformed"}
	kindACL              = kind{"acl-", "networkAcl ID", "network-acl", "InvalidNetworkAclID.NotFound", "InvalidNetworkAclId.Malformed"}
	kindACLAssociation   = kind{"aclassoc-", "association ID", "", "InvalidAssociationID.NotFound", "InvalidAssociationID.Malformed"}
	kindRouteTable       = kind{"rtb-", "routeTable ID", "route-table", "InvalidRouteTableID.NotFound", "InvalidRouteTableId.Malformed"}
	kindTableAssociation = kind{"rtbassoc-", "association ID", "", "InvalidAssociationID.NotFound", "InvalidRouteTableAssociationID.Malformed"}
	kindBlockAssociation = kind{"vpc-cidr-assoc-", "vpc CIDR block association ID", "", "InvalidVpcCidrBlockAssociationID.NotFound", "InvalidVpcCidrBlockAssociationID.Malformed"}
	kindGateway          = kind{"igw-", "internetGateway ID", "internet-gateway", "InvalidInternetGatewayID.NotFound", "InvalidInternetGatewayId.Malformed"}
	kindNAT              = kind{"nat-", "natGateway ID", "natgateway", "NatGatewayNotFound", "NatGatewayMalformed"}
	kindAddress          = kind{"eipalloc-", "allocation ID", "elastic-ip", "InvalidAllocationID.NotFound", "InvalidAllocationID.Malformed"}
	kindMapping          = kind{"eipassoc-", "association ID", "", "InvalidAssociationID.NotFound", "InvalidAssociationID.Malformed"}
	kindPeering          = kind{"pcx-", "vpcPeeringConnection ID", "vpc-peering-connection", "InvalidVpcPeeringConnectionID.NotFound", "InvalidVpcPeeringConnectionId.Malformed"}
	kindHub              = kind{"tgw-", "transitGateway ID", "transit-gateway", "InvalidTransitGatewayID.NotFound", "InvalidTransitGatewayID.Malformed"}
	kindSpoke            = kind{"tgw-attach-", "transitGatewayAttachment ID", "transit-gateway-attachment", "InvalidTransitGatewayAttachmentID.NotFound", "InvalidTransitGatewayAttachmentID.Malformed"}
	kindFlowLog          = kind{"fl-", "flow log ID", "vpc-flow-log", "InvalidFlowLogId.NotFound", "InvalidFlowLogId.Malformed"}
	kindHubTable         = kind{"tgw-rtb-", "transitGatewayRouteTable ID", "transit-gateway-route-table", "InvalidRouteTableID.NotFound", "InvalidRouteTableId.Malformed"}
)

// kinds are all there are, those whose prefix begins with another's first.
var kinds = []kind{
	kindBlockAssociation, kindAttachment, kindSpoke, kindHubTable, kindTrunkAssociation, kindReservation,
	kindVPC, kindSubnet, kindGroup, kindENI, kindInstance, kindGroupRule, kindPrefixList, kindACL, kindACLAssociation,
	kindRouteTable, kindTableAssociation, kindGateway, kindNAT, kindAddress, kindMapping, kindPeering, kindHub, kindFlowLog,
}

// kindOf tells what an identifier names, or the zero kind.
func kindOf(id string) kind {
	for _, k := range kinds {
		if strings.HasPrefix(id, k.prefix) {
			return k
		}
	}
	return kind{}
}

// dependency refuses to delete what something else needs.
func dependency(noun, id string) error {
	return fail("DependencyViolation", "The %s '%s' has dependencies and cannot be deleted.", noun, id)
}

func (k kind) missing(id string) error {
	return fail(k.notFound, "The %s '%s' does not exist", k.noun, id)
}

// check refuses an identifier that no resource of the kind can have: not the
// prefix and then 8 (the form until 2016) or 17 hexadecimal digits.
func (k kind) check(id string) error {
	hex, ok := strings.CutPrefix(id, k.prefix)
	if ok && (len(hex) == 8 || len(hex) == 17) && isHex(hex) {
		return nil
	}
	return fail(k.malformed, "Invalid id: %q (expecting %q)", id, k.prefix+"...")
}

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
