package ec2sim

// stateCode is the number that goes with an instance's state. Source:
// InstanceState, Amazon EC2 API Reference.
var stateCode = map[string]int{
	StatePending: 0, StateRunning: 16, StateShuttingDown: 32, StateTerminated: 48, StateStopping: 64, StateStopped: 80,
}

type xmlState struct {
	Code int    `xml:"code"`
	Name string `xml:"name"`
}

func showState(name string) xmlState { return xmlState{stateCode[name], name} }

type xmlReservation struct {
	ID        string           `xml:"reservationId"`
	OwnerID   string           `xml:"ownerId"`
	Groups    struct{}         `xml:"groupSet"`
	Instances set[xmlInstance] `xml:"instancesSet"`
}

type xmlInstance struct {
	ID          string              `xml:"instanceId"`
	ImageID     string              `xml:"imageId"`
	State       xmlState            `xml:"instanceState"`
	DNSName     string              `xml:"privateDnsName"`
	PublicName  string              `xml:"dnsName"`
	KeyName     string              `xml:"keyName,omitempty"`
	LaunchIndex int                 `xml:"amiLaunchIndex"`
	Type        string              `xml:"instanceType"`
	LaunchedAt  string              `xml:"launchTime"`
	Placement   xmlPlacement        `xml:"placement"`
	SubnetID    string              `xml:"subnetId,omitempty"`
	VPCID       string              `xml:"vpcId,omitempty"`
	Address     string              `xml:"privateIpAddress,omitempty"`
	PublicIP    string              `xml:"ipAddress,omitempty"`
	SourceDest  *bool               `xml:"sourceDestCheck"`
	Groups      set[xmlGroupID]     `xml:"groupSet"`
	Hypervisor  string              `xml:"hypervisor"`
	ClientToken string              `xml:"clientToken"`
	Tags        set[xmlTag]         `xml:"tagSet"`
	Interfaces  set[xmlInstanceENI] `xml:"networkInterfaceSet"`
	Profile     *xmlProfile         `xml:"iamInstanceProfile"`
	Metadata    xmlMetadata         `xml:"metadataOptions"`
}

type xmlPlacement struct {
	Zone    string `xml:"availabilityZone"`
	ZoneID  string `xml:"availabilityZoneId"`
	Tenancy string `xml:"tenancy"`
}

type xmlProfile struct {
	ARN string `xml:"arn"`
}

type xmlMetadata struct {
	State    string `xml:"state"`
	Tokens   string `xml:"httpTokens"`
	HopLimit int    `xml:"httpPutResponseHopLimit"`
	Endpoint string `xml:"httpEndpoint"`
}

type xmlInstanceENI struct {
	ID          string          `xml:"networkInterfaceId"`
	SubnetID    string          `xml:"subnetId"`
	VPCID       string          `xml:"vpcId"`
	Description string          `xml:"description"`
	OwnerID     string          `xml:"ownerId"`
	Status      string          `xml:"status"`
	MAC         string          `xml:"macAddress"`
	Address     string          `xml:"privateIpAddress"`
	DNSName     string          `xml:"privateDnsName"`
	SourceDest  bool            `xml:"sourceDestCheck"`
	Groups      set[xmlGroupID] `xml:"groupSet"`
	Attachment  *xmlAttachment  `xml:"attachment"`
	Addresses   set[xmlAddress] `xml:"privateIpAddressesSet"`
	Prefixes    set[xmlPrefix]  `xml:"ipv4PrefixSet"`
	Type        string          `xml:"interfaceType"`
	Association *xmlAssociation `xml:"association"`
}

func (s *state) showInstanceENI(id string) xmlInstanceENI {
	e, _ := s.enis.get(id)
	return xmlInstanceENI{
		ID: e.ID, SubnetID: e.SubnetID, VPCID: e.VPCID, Description: e.Description, OwnerID: s.cfg.Account,
		Status: e.Status, MAC: e.MAC.String(), Address: e.Primary.String(), DNSName: s.privateDNS(e.Primary),
		SourceDest: e.SourceDestCheck, Groups: setOf(e.Groups, s.showGroup), Attachment: showAttachment(e.Attachment),
		Addresses: s.showAddresses(e), Prefixes: setOf(e.Prefixes, showPrefix), Type: e.typeName(),
		Association: s.showAssociation(e, e.Primary),
	}
}

func (s *state) showInstance(i Instance) xmlInstance {
	out := xmlInstance{
		ID: i.ID, ImageID: i.ImageID, State: showState(i.State), DNSName: i.PrivateDNSName, KeyName: i.KeyName,
		LaunchIndex: i.LaunchIndex, Type: i.Type, LaunchedAt: stamp(i.LaunchedAt),
		Placement: xmlPlacement{i.Zone, s.zoneID(i.Zone), "default"},
		SubnetID:  i.SubnetID, VPCID: i.VPCID, Address: addrText(i.PrivateIP), Hypervisor: "xen", // also on Nitro
		ClientToken: i.ClientToken, Tags: showTags(i.Tags), Interfaces: setOf(i.Interfaces, s.showInstanceENI),
		Metadata: xmlMetadata{"applied", i.Metadata.Tokens, i.Metadata.HopLimit, "enabled"},
	}
	if i.Metadata.Disabled {
		out.Metadata.Endpoint = "disabled"
	}
	if i.InstanceProfile != "" {
		out.Profile = &xmlProfile{s.profileARN(i.InstanceProfile)}
	}
	if i.State == StateTerminated {
		out.SubnetID, out.VPCID = "", "" // it is on no network any more
	} else if e, ok := s.primaryOf(i); ok {
		out.SourceDest, out.Groups = &e.SourceDestCheck, setOf(e.Groups, s.showGroup)
		public, _ := s.publicOf(e, e.Primary)
		out.PublicIP, out.PublicName = addrText(public), s.publicDNS(public)
	}
	return out
}

// primaryOf gives the ENI that has the instance's own address.
func (s *state) primaryOf(i Instance) (NetworkInterface, bool) {
	for _, id := range i.Interfaces {
		if e, _ := s.enis.get(id); e.Attachment.DeviceIndex == 0 && e.Attachment.CardIndex == s.limitsOf(i.ID).DefaultCard {
			return e, true
		}
	}
	return NetworkInterface{}, false
}

func renderRun(s *state, r Reservation) replier {
	return &struct {
		reply
		xmlReservation
	}{xmlReservation: xmlReservation{ID: r.ID, OwnerID: s.cfg.Account, Instances: setOf(r.Instances, s.showInstance)}}
}

func renderInstances(s *state, page Page[Instance]) replier {
	var list set[xmlReservation]
	at := map[string]int{}
	for _, i := range page.Items {
		n, ok := at[i.ReservationID]
		if !ok {
			n = len(list.Items)
			at[i.ReservationID] = n
			list.Items = append(list.Items, xmlReservation{ID: i.ReservationID, OwnerID: s.cfg.Account})
		}
		list.Items[n].Instances.Items = append(list.Items[n].Instances.Items, s.showInstance(i))
	}
	return &struct {
		reply
		Set  set[xmlReservation] `xml:"reservationSet"`
		Next string              `xml:"nextToken,omitempty"`
	}{Set: list, Next: page.NextToken}
}

type xmlStateChange struct {
	ID     string   `xml:"instanceId"`
	After  xmlState `xml:"currentState"`
	Before xmlState `xml:"previousState"`
}

// renderPower is for all actions that change the state of instances.
func renderPower(_ *state, changes []StateChange) replier {
	return &struct {
		reply
		Set set[xmlStateChange] `xml:"instancesSet"`
	}{Set: setOf(changes, func(ch StateChange) xmlStateChange {
		return xmlStateChange{ch.ID, showState(ch.After), showState(ch.Before)}
	})}
}
