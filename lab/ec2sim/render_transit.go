package ec2sim

type xmlHub struct {
	ID          string        `xml:"transitGatewayId"`
	ARN         string        `xml:"transitGatewayArn"`
	State       string        `xml:"state"`
	OwnerID     string        `xml:"ownerId"`
	Description string        `xml:"description"`
	CreatedAt   string        `xml:"creationTime"`
	Options     xmlHubOptions `xml:"options"`
	Tags        set[xmlTag]   `xml:"tagSet"`
}

type xmlHubOptions struct {
	ASN              int    `xml:"amazonSideAsn"`
	AutoAccept       string `xml:"autoAcceptSharedAttachments"`
	Associate        string `xml:"defaultRouteTableAssociation"`
	AssociationTable string `xml:"associationDefaultRouteTableId,omitempty"`
	Propagate        string `xml:"defaultRouteTablePropagation"`
	PropagationTable string `xml:"propagationDefaultRouteTableId,omitempty"`
}

func enableText(on bool) string {
	if on {
		return "enable"
	}
	return "disable"
}

// showHub shows the state that EC2 has in the reply to a change, or "available".
func (s *state) showHub(doing string) func(TransitGateway) xmlHub {
	return func(h TransitGateway) xmlHub {
		return xmlHub{
			ID: h.ID, ARN: s.arn("transit-gateway", h.ID), State: doing, OwnerID: s.cfg.Account, Description: h.Description,
			CreatedAt: stamp(h.CreatedAt), Tags: showTags(h.Tags),
			Options: xmlHubOptions{
				h.ASN, "disable", enableText(h.AssociationTable != ""), h.AssociationTable, enableText(h.PropagationTable != ""), h.PropagationTable,
			},
		}
	}
}

func renderHub(doing string) func(*state, TransitGateway) replier {
	return func(s *state, h TransitGateway) replier {
		return &struct {
			reply
			Hub xmlHub `xml:"transitGateway"`
		}{Hub: s.showHub(doing)(h)}
	}
}

func renderHubs(s *state, page Page[TransitGateway]) replier {
	return &struct {
		reply
		Set  set[xmlHub] `xml:"transitGatewaySet"`
		Next string      `xml:"nextToken,omitempty"`
	}{Set: setOf(page.Items, s.showHub("available")), Next: page.NextToken}
}

type xmlSpoke struct {
	ID        string      `xml:"transitGatewayAttachmentId"`
	GatewayID string      `xml:"transitGatewayId"`
	VPCID     string      `xml:"vpcId"`
	OwnerID   string      `xml:"vpcOwnerId"`
	State     string      `xml:"state"`
	Subnets   set[string] `xml:"subnetIds"`
	CreatedAt string      `xml:"creationTime"`
	Tags      set[xmlTag] `xml:"tagSet"`
}

func (s *state) showSpoke(doing string) func(TransitAttachment) xmlSpoke {
	return func(a TransitAttachment) xmlSpoke {
		return xmlSpoke{a.ID, a.GatewayID, a.VPCID, s.cfg.Account, doing, set[string]{a.Subnets}, stamp(a.CreatedAt), showTags(a.Tags)}
	}
}

func renderSpoke(doing string) func(*state, TransitAttachment) replier {
	return func(s *state, a TransitAttachment) replier {
		return &struct {
			reply
			Spoke xmlSpoke `xml:"transitGatewayVpcAttachment"`
		}{Spoke: s.showSpoke(doing)(a)}
	}
}

func renderSpokes(s *state, page Page[TransitAttachment]) replier {
	return &struct {
		reply
		Set  set[xmlSpoke] `xml:"transitGatewayVpcAttachments"`
		Next string        `xml:"nextToken,omitempty"`
	}{Set: setOf(page.Items, s.showSpoke("available")), Next: page.NextToken}
}

type xmlAnySpoke struct {
	ID           string             `xml:"transitGatewayAttachmentId"`
	GatewayID    string             `xml:"transitGatewayId"`
	GatewayOwner string             `xml:"transitGatewayOwnerId"`
	Owner        string             `xml:"resourceOwnerId"`
	Type         string             `xml:"resourceType"`
	ResourceID   string             `xml:"resourceId"`
	State        string             `xml:"state"`
	Association  *xmlHubAssociation `xml:"association"`
	CreatedAt    string             `xml:"creationTime"`
	Tags         set[xmlTag]        `xml:"tagSet"`
}

type xmlHubAssociation struct {
	Table string `xml:"transitGatewayRouteTableId"`
	State string `xml:"state"`
}

func (s *state) showAnySpoke(a TransitAttachment) xmlAnySpoke {
	out := xmlAnySpoke{
		ID: a.ID, GatewayID: a.GatewayID, GatewayOwner: s.cfg.Account, Owner: s.cfg.Account, Type: "vpc", ResourceID: a.VPCID,
		State: "available", CreatedAt: stamp(a.CreatedAt), Tags: showTags(a.Tags),
	}
	if a.Table != "" {
		out.Association = &xmlHubAssociation{a.Table, "associated"}
	}
	return out
}

func renderAnySpokes(s *state, page Page[TransitAttachment]) replier {
	return &struct {
		reply
		Set  set[xmlAnySpoke] `xml:"transitGatewayAttachments"`
		Next string           `xml:"nextToken,omitempty"`
	}{Set: setOf(page.Items, s.showAnySpoke), Next: page.NextToken}
}

type xmlHubTable struct {
	ID                 string      `xml:"transitGatewayRouteTableId"`
	GatewayID          string      `xml:"transitGatewayId"`
	State              string      `xml:"state"`
	DefaultAssociation bool        `xml:"defaultAssociationRouteTable"`
	DefaultPropagation bool        `xml:"defaultPropagationRouteTable"`
	CreatedAt          string      `xml:"creationTime"`
	Tags               set[xmlTag] `xml:"tagSet"`
}

func (s *state) showHubTable(doing string) func(TransitRouteTable) xmlHubTable {
	return func(t TransitRouteTable) xmlHubTable {
		return xmlHubTable{t.ID, t.GatewayID, doing, s.defaultAssociation(t), s.defaultPropagation(t), stamp(t.CreatedAt), showTags(t.Tags)}
	}
}

func renderHubTable(doing string) func(*state, TransitRouteTable) replier {
	return func(s *state, t TransitRouteTable) replier {
		return &struct {
			reply
			Table xmlHubTable `xml:"transitGatewayRouteTable"`
		}{Table: s.showHubTable(doing)(t)}
	}
}

func renderHubTables(s *state, page Page[TransitRouteTable]) replier {
	return &struct {
		reply
		Set  set[xmlHubTable] `xml:"transitGatewayRouteTables"`
		Next string           `xml:"nextToken,omitempty"`
	}{Set: setOf(page.Items, s.showHubTable("available")), Next: page.NextToken}
}

type xmlHubRoute struct {
	Dst         string                     `xml:"destinationCidrBlock"`
	Attachments set[xmlHubRouteAttachment] `xml:"transitGatewayAttachments"`
	Type        string                     `xml:"type"`
	State       string                     `xml:"state"`
}

type xmlHubRouteAttachment struct {
	ID         string `xml:"transitGatewayAttachmentId"`
	ResourceID string `xml:"resourceId"`
	Type       string `xml:"resourceType"`
}

func (s *state) showHubRoute(r TransitRoute) xmlHubRoute {
	out := xmlHubRoute{Dst: r.Dst.String(), Type: r.kind(), State: r.State}
	if a, ok := s.spokes.get(r.Attachment); ok {
		out.Attachments.Items = []xmlHubRouteAttachment{{a.ID, a.VPCID, "vpc"}}
	}
	return out
}

func renderHubRoute(s *state, r TransitRoute) replier {
	return &struct {
		reply
		Route xmlHubRoute `xml:"route"`
	}{Route: s.showHubRoute(r)}
}

func renderHubRoutes(s *state, page Page[TransitRoute]) replier {
	return &struct {
		reply
		Set  set[xmlHubRoute] `xml:"routeSet"`
		More bool             `xml:"additionalRoutesAvailable"`
		Next string           `xml:"nextToken,omitempty"`
	}{Set: setOf(page.Items, s.showHubRoute), More: page.NextToken != "", Next: page.NextToken}
}

type xmlTie struct {
	AttachmentID string `xml:"transitGatewayAttachmentId"`
	ResourceID   string `xml:"resourceId"`
	Type         string `xml:"resourceType"`
	TableID      string `xml:"transitGatewayRouteTableId,omitempty"`
	State        string `xml:"state"`
}

func (s *state) showTie(in TransitTieInput, doing string) xmlTie {
	a, _ := s.spokes.get(in.AttachmentID)
	return xmlTie{in.AttachmentID, a.VPCID, "vpc", in.TableID, doing}
}

func renderAssociation(doing string) func(*state, TransitTieInput) replier {
	return func(s *state, in TransitTieInput) replier {
		return &struct {
			reply
			Tie xmlTie `xml:"association"`
		}{Tie: s.showTie(in, doing)}
	}
}

func renderPropagation(doing string) func(*state, TransitTieInput) replier {
	return func(s *state, in TransitTieInput) replier {
		return &struct {
			reply
			Tie xmlTie `xml:"propagation"`
		}{Tie: s.showTie(in, doing)}
	}
}

func renderAssociations(s *state, page Page[TransitAttachment]) replier {
	return &struct {
		reply
		Set  set[xmlTie] `xml:"associations"`
		Next string      `xml:"nextToken,omitempty"`
	}{Next: page.NextToken, Set: setOf(page.Items, func(a TransitAttachment) xmlTie {
		return s.showTie(TransitTieInput{AttachmentID: a.ID}, "associated")
	})}
}

func renderPropagations(s *state, page Page[TransitAttachment]) replier {
	return &struct {
		reply
		Set  set[xmlTie] `xml:"transitGatewayRouteTablePropagations"`
		Next string      `xml:"nextToken,omitempty"`
	}{Next: page.NextToken, Set: setOf(page.Items, func(a TransitAttachment) xmlTie {
		return s.showTie(TransitTieInput{AttachmentID: a.ID}, "enabled")
	})}
}
