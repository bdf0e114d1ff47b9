package ec2sim

import "net/netip"

type xmlENI struct {
	ID          string          `xml:"networkInterfaceId"`
	SubnetID    string          `xml:"subnetId"`
	VPCID       string          `xml:"vpcId"`
	Zone        string          `xml:"availabilityZone"`
	ZoneID      string          `xml:"availabilityZoneId"`
	Description string          `xml:"description"`
	OwnerID     string          `xml:"ownerId"`
	Managed     bool            `xml:"requesterManaged"`
	Status      string          `xml:"status"`
	MAC         string          `xml:"macAddress"`
	Address     string          `xml:"privateIpAddress"`
	DNSName     string          `xml:"privateDnsName"`
	SourceDest  bool            `xml:"sourceDestCheck"`
	Groups      set[xmlGroupID] `xml:"groupSet"`
	Attachment  *xmlAttachment  `xml:"attachment"`
	Tags        set[xmlTag]     `xml:"tagSet"`
	Addresses   set[xmlAddress] `xml:"privateIpAddressesSet"`
	Prefixes    set[xmlPrefix]  `xml:"ipv4PrefixSet"`
	Type        string          `xml:"interfaceType"`
	Association *xmlAssociation `xml:"association"`
	Tracking    *xmlTracking    `xml:"connectionTrackingConfiguration"`
}

type xmlGroupID struct {
	ID   string `xml:"groupId"`
	Name string `xml:"groupName"`
}

// xmlAttachment shows the instance only where the reply is not about it.
type xmlAttachment struct {
	ID            string `xml:"attachmentId"`
	InstanceID    string `xml:"instanceId,omitempty"`
	InstanceOwner string `xml:"instanceOwnerId,omitempty"`
	DeviceIndex   int    `xml:"deviceIndex"`
	CardIndex     int    `xml:"networkCardIndex"`
	Status        string `xml:"status"`
	At            string `xml:"attachTime"`
	DeleteOnEnd   bool   `xml:"deleteOnTermination"`
}

type xmlAddress struct {
	Address string `xml:"privateIpAddress"`
	DNSName string `xml:"privateDnsName"`
	Primary bool   `xml:"primary"`

	Association *xmlAssociation `xml:"association"`
}

// xmlAssociation is the public address of a private one. An instance shows it
// without the identifiers.
type xmlAssociation struct {
	PublicIP      string `xml:"publicIp"`
	DNSName       string `xml:"publicDnsName"`
	Owner         string `xml:"ipOwnerId"`
	AllocationID  string `xml:"allocationId,omitempty"`
	AssociationID string `xml:"associationId,omitempty"`
}

func (s *state) showAssociation(e NetworkInterface, private netip.Addr) *xmlAssociation {
	public, a := s.publicOf(e, private)
	switch {
	case !public.IsValid():
		return nil
	case a.ID == "":
		return &xmlAssociation{PublicIP: public.String(), DNSName: s.publicDNS(public), Owner: "amazon"}
	}
	return &xmlAssociation{public.String(), s.publicDNS(public), s.cfg.Account, a.ID, a.AssociationID}
}

type xmlPrefix struct {
	Prefix string `xml:"ipv4Prefix"`
}

func showPrefix(p netip.Prefix) xmlPrefix { return xmlPrefix{p.String()} }

func (s *state) showGroup(id string) xmlGroupID {
	g, _ := s.groups.get(id)
	return xmlGroupID{id, g.Name}
}

func (s *state) showAddresses(e NetworkInterface) set[xmlAddress] {
	list := set[xmlAddress]{Items: []xmlAddress{{e.Primary.String(), s.privateDNS(e.Primary), true, s.showAssociation(e, e.Primary)}}}
	for _, a := range e.Secondary {
		list.Items = append(list.Items, xmlAddress{a.String(), s.privateDNS(a), false, s.showAssociation(e, a)})
	}
	return list
}

func showAttachment(a *Attachment) *xmlAttachment {
	if a == nil {
		return nil
	}
	return &xmlAttachment{
		ID: a.ID, DeviceIndex: a.DeviceIndex, CardIndex: a.CardIndex,
		Status: a.Status, At: stamp(a.At), DeleteOnEnd: a.DeleteOnTermination,
	}
}

func (s *state) showENI(e NetworkInterface) xmlENI {
	out := xmlENI{
		ID: e.ID, SubnetID: e.SubnetID, VPCID: e.VPCID, Zone: e.Zone, ZoneID: s.zoneID(e.Zone),
		Description: e.Description, OwnerID: s.cfg.Account, Status: e.Status, MAC: e.MAC.String(),
		Address: e.Primary.String(), DNSName: s.privateDNS(e.Primary), SourceDest: e.SourceDestCheck,
		Groups: setOf(e.Groups, s.showGroup), Attachment: showAttachment(e.Attachment), Tags: showTags(e.Tags),
		Addresses: s.showAddresses(e), Prefixes: setOf(e.Prefixes, showPrefix), Type: e.typeName(),
		Association: s.showAssociation(e, e.Primary), Tracking: showTracking(e.Tracking),
	}
	if e.Attachment != nil {
		out.Attachment.InstanceID, out.Attachment.InstanceOwner = e.Attachment.InstanceID, s.cfg.Account
	}
	return out
}

// renderCreateENI shows the status as "pending", as EC2 does in this reply
// only.
func renderCreateENI(s *state, e NetworkInterface) replier {
	shown := s.showENI(e)
	shown.Status = "pending"
	return &struct {
		reply
		ENI xmlENI `xml:"networkInterface"`
	}{ENI: shown}
}

func renderENIs(s *state, page Page[NetworkInterface]) replier {
	return &struct {
		reply
		Set  set[xmlENI] `xml:"networkInterfaceSet"`
		Next string      `xml:"nextToken,omitempty"`
	}{Set: setOf(page.Items, s.showENI), Next: page.NextToken}
}

func renderAttach(_ *state, a Attachment) replier {
	return &struct {
		reply
		ID        string `xml:"attachmentId"`
		CardIndex int    `xml:"networkCardIndex"`
	}{ID: a.ID, CardIndex: a.CardIndex}
}

type xmlAssigned struct {
	Address string `xml:"privateIpAddress"`
}

func renderAssigned(_ *state, a Assigned) replier {
	return &struct {
		doneReply
		ID        string           `xml:"networkInterfaceId"`
		Addresses set[xmlAssigned] `xml:"assignedPrivateIpAddressesSet"`
		Prefixes  set[xmlPrefix]   `xml:"assignedIpv4PrefixSet"`
	}{
		doneReply: doneReply{Return: true}, ID: a.ID, Prefixes: setOf(a.Prefixes, showPrefix),
		Addresses: setOf(a.Addresses, func(a netip.Addr) xmlAssigned { return xmlAssigned{a.String()} }),
	}
}
