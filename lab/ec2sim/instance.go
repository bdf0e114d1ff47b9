package ec2sim

import (
	"cmp"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// RunInstancesInput describes instances to launch. Either SubnetID (with
// Groups and PrivateIP) or Interfaces says how they are on the network.
type RunInstancesInput struct {
	Type            string // such as "m5.large"; empty: "m1.small", as EC2 has it
	ImageID         string // any
	Min, Max        int    // how many; zero: one
	SubnetID        string
	Groups          []string
	PrivateIP       netip.Addr
	Interfaces      []LaunchInterface
	Tags            map[string]string // of each instance
	InterfaceTags   map[string]string // of each ENI that is made
	Metadata        Metadata          // zero: hop limit 2, tokens required
	UserData        string            // as the instance sees it
	InstanceProfile string
	KeyName         string
	ClientToken     string
}

// LaunchInterface is an ENI to make at launch, or one to take.
type LaunchInterface struct {
	DeviceIndex, CardIndex int
	ExistingID             string // an available ENI; excludes the fields from SubnetID to Addresses
	SubnetID               string
	Description            string
	Groups                 []string
	Addresses              Addressing
	DeleteOnTermination    Optional[bool] // left out: true for an ENI that is made
	PublicIP               Optional[bool] // left out: as the subnet says; only for a launch with one ENI, which is made
}

// Reservation is the instances of one launch.
type Reservation struct {
	ID        string
	Instances []Instance
}

// Bounds of a launch. Sources: RunInstances and InstanceMetadataOptionsRequest,
// Amazon EC2 API Reference. The first is assumed, in place of the account's
// quota of vCPUs.
const (
	maxLaunch       = 1000
	maxUserData     = 16 << 10 // bytes, before base64
	maxHopLimit     = 64
	defaultHopLimit = 2
)

// RunInstances launches as many instances as there are addresses for, between
// Min and Max.
func (c *Cloud) RunInstances(in RunInstancesInput) (Reservation, error) {
	r, err := call(c, in, runInstances)
	out := Reservation{ID: r.ID}
	for _, i := range r.Instances {
		out.Instances = append(out.Instances, i.clone())
	}
	return out, err
}

func cloneAll[T interface{ clone() T }](list []T) []T {
	var out []T
	for _, v := range list {
		out = append(out, v.clone())
	}
	return out
}

func runInstances(s *state, in RunInstancesInput) (Reservation, error) {
	r, err := once(s, "RunInstances", in.ClientToken, in, launch)
	r.Instances = slices.Clone(r.Instances) // what is remembered for the token stays as it was
	for n, i := range r.Instances {
		now, ok := s.instances.get(i.ID)
		if !ok || now.State == StateTerminated {
			return r, fail("IdempotentInstanceTerminated", "The instance '%s' launched with this client token has been terminated.", i.ID)
		}
		r.Instances[n] = now
	}
	return r, err
}

func launch(s *state, in RunInstancesInput) (Reservation, error) {
	in.Type = cmp.Or(in.Type, "m1.small")
	in.Min, in.Max = cmp.Or(in.Min, 1), cmp.Or(in.Max, in.Min, 1)
	in.Metadata.HopLimit = cmp.Or(in.Metadata.HopLimit, defaultHopLimit)
	in.Metadata.Tokens = cmp.Or(in.Metadata.Tokens, "required")
	limits, err := in.check()
	if err = cmp.Or(err, s.checkProfile(in.InstanceProfile)); err != nil {
		return Reservation{}, err
	}
	specs, err := in.interfaces(limits)
	if err != nil {
		return Reservation{}, err
	}
	s.forget()
	r := Reservation{ID: s.newID("r-")}
	for n := range in.Max {
		before := s.save()
		i, err := s.launchOne(in, specs, Instance{ReservationID: r.ID, LaunchIndex: n})
		var refused *Error
		if errors.As(err, &refused) && refused.Code == "InsufficientFreeAddressesInSubnet" && n >= in.Min {
			s.rollback(before) // enough run already
			break
		}
		if err != nil {
			return Reservation{}, err
		}
		r.Instances = append(r.Instances, i)
	}
	return r, nil
}

func (in RunInstancesInput) check() (vpc.Limits, error) {
	limits, ok := vpc.LimitsOf(in.Type)
	switch {
	case !ok:
		return limits, invalidValue("Invalid value '%s' for InstanceType.", in.Type)
	case in.Min < 1 || in.Max < in.Min:
		return limits, invalidValue("Invalid values for minCount (%d) and maxCount (%d): 1 <= minCount <= maxCount must hold.", in.Min, in.Max)
	case in.Max > maxLaunch:
		return limits, fail("InstanceLimitExceeded", "You have requested more instances (%d) than your current instance limit of %d allows.", in.Max, maxLaunch)
	case in.Max > 1 && in.fixed():
		return limits, invalidCombination("A specific address or network interface cannot be used with more than one instance.")
	case in.Metadata.HopLimit < 1 || in.Metadata.HopLimit > maxHopLimit:
		return limits, invalidValue("Value (%d) for parameter HttpPutResponseHopLimit is invalid. It must be from 1 to %d.", in.Metadata.HopLimit, maxHopLimit)
	case in.Metadata.Tokens != "required" && in.Metadata.Tokens != "optional":
		return limits, invalidValue("Value (%s) for parameter HttpTokens is invalid. It must be 'required' or 'optional'.", in.Metadata.Tokens)
	case len(in.UserData) > maxUserData:
		return limits, invalidValue("User data is limited to %d bytes", maxUserData)
	}
	return limits, cmp.Or(checkTags(in.Tags), checkTags(in.InterfaceTags))
}

// fixed reports whether the launch names what only one instance can have.
func (in RunInstancesInput) fixed() bool {
	return in.PrivateIP.IsValid() || slices.ContainsFunc(in.Interfaces, func(l LaunchInterface) bool {
		return l.ExistingID != "" || l.Addresses.Primary.IsValid() || len(l.Addresses.Secondary)+len(l.Addresses.Prefixes) > 0
	})
}

// interfaces gives the ENIs of each instance, the primary one first.
func (in RunInstancesInput) interfaces(limits vpc.Limits) ([]LaunchInterface, error) {
	if len(in.Interfaces) == 0 {
		if in.SubnetID == "" {
			return nil, fail("VPCIdNotSpecified", "No default VPC for this user. Specify a subnet.")
		}
		return []LaunchInterface{{
			CardIndex: limits.DefaultCard, SubnetID: in.SubnetID, Groups: in.Groups,
			Addresses: Addressing{Primary: in.PrivateIP},
		}}, nil
	}
	if in.SubnetID != "" || len(in.Groups) > 0 || in.PrivateIP.IsValid() {
		return nil, invalidCombination("Network interfaces and an instance-level subnet ID, security group or private IP address may not be specified on the same request")
	}
	primary := func(l LaunchInterface) bool { return l.DeviceIndex == 0 && l.CardIndex == limits.DefaultCard }
	specs := slices.Clone(in.Interfaces)
	slices.SortStableFunc(specs, func(a, b LaunchInterface) int {
		if pa, pb := primary(a), primary(b); pa != pb {
			return map[bool]int{true: -1, false: 1}[pa]
		}
		return cmp.Or(cmp.Compare(a.CardIndex, b.CardIndex), cmp.Compare(a.DeviceIndex, b.DeviceIndex))
	})
	if !primary(specs[0]) {
		return nil, invalidValue("A network interface with device index 0 is required.")
	}
	for _, l := range specs {
		a := l.Addresses
		if l.ExistingID != "" && (l.SubnetID != "" || l.Description != "" || len(l.Groups) > 0 || a.Primary.IsValid() ||
			a.Count+a.PrefixCount+len(a.Secondary)+len(a.Prefixes) > 0) {
			return nil, invalidCombination("A network interface that exists cannot be given a subnet, groups, a description or addresses.")
		}
		if l.PublicIP.Value && (len(specs) > 1 || l.ExistingID != "") {
			return nil, invalidCombination("The associatePublicIPAddress parameter can only be specified for a single network interface that is created at launch, with device index 0.")
		}
		if l.ExistingID != "" && l.DeleteOnTermination.Value {
			return nil, invalidCombination("DeleteOnTermination can be true only for a network interface that is created at launch.")
		}
	}
	return specs, nil
}

// launchOne makes one instance with its ENIs.
func (s *state) launchOne(in RunInstancesInput, specs []LaunchInterface, i Instance) (Instance, error) {
	i.ID, i.Type, i.ImageID, i.LaunchedAt = s.newID(kindInstance.prefix), in.Type, in.ImageID, s.now
	i.Tags, i.Name = maps.Clone(in.Tags), in.Tags["Name"]
	i.UserData, i.Metadata, i.KeyName, i.ClientToken = in.UserData, in.Metadata, in.KeyName, in.ClientToken
	i.InstanceProfile = in.InstanceProfile
	i.State = StateRunning
	if s.cfg.Devices {
		i.State = StatePending
	}
	s.instances.insert(s.nextRow(), i.ID, i)
	for n, l := range specs {
		e, err := s.launchENI(l, in.InterfaceTags)
		if err != nil {
			return i, err
		}
		if n == 0 {
			if e, err = s.givePublic(e, l, len(specs)); err != nil {
				return i, err
			}
			i, _ = s.instances.get(i.ID)
			i.VPCID, i.SubnetID, i.Zone = e.VPCID, e.SubnetID, e.Zone
			i.PrivateIP, i.PrivateDNSName = e.Primary, s.privateDNS(e.Primary)
			s.instances.put(i.ID, i)
		}
		a := Attachment{DeviceIndex: l.DeviceIndex, CardIndex: l.CardIndex, DeleteOnTermination: l.ExistingID == ""}
		if l.DeleteOnTermination.Given {
			a.DeleteOnTermination = l.DeleteOnTermination.Value
		}
		if _, err := s.attach(e, i, a); err != nil {
			return i, err
		}
		i, _ = s.instances.get(i.ID)
	}
	return i, nil
}

func (s *state) launchENI(l LaunchInterface, tags map[string]string) (NetworkInterface, error) {
	if l.ExistingID != "" {
		return s.findENI(l.ExistingID)
	}
	return makeENI(s, CreateNetworkInterfaceInput{
		SubnetID: l.SubnetID, Description: l.Description, Groups: l.Groups, Addresses: l.Addresses, Tags: tags,
	})
}

// givePublic gives the primary ENI of a launch its public address, if it is to
// have one. Source: "Amazon EC2 instance IP addressing", Amazon EC2 User Guide: a
// launch with more than one ENI gets none.
func (s *state) givePublic(e NetworkInterface, l LaunchInterface, enis int) (NetworkInterface, error) {
	n, _ := s.subnets.get(e.SubnetID)
	wanted := n.MapPublic && enis == 1 && l.ExistingID == ""
	if l.PublicIP.Given {
		wanted = l.PublicIP.Value
	}
	if !wanted {
		return e, nil
	}
	var err error
	if e.AutoPublic, err = s.takePublic(); err == nil {
		s.enis.put(e.ID, e)
	}
	return e, err
}

// StateChange is what became of an instance that was asked to end.
type StateChange struct{ ID, Before, After string }

// TerminateInstancesInput names instances to end.
type TerminateInstancesInput struct{ IDs []string }

// TerminateInstances ends instances, all of those named or none. ENIs marked
// so are deleted with them, the others become available.
func (c *Cloud) TerminateInstances(in TerminateInstancesInput) ([]StateChange, error) {
	return call(c, in, terminateInstances)
}

func terminateInstances(s *state, in TerminateInstancesInput) ([]StateChange, error) {
	if len(in.IDs) == 0 {
		return nil, missing("InstanceId")
	}
	var out []StateChange
	for _, id := range in.IDs {
		i, err := find(&s.instances, kindInstance, id)
		if err != nil {
			return nil, err
		}
		if s.forgotten(i) {
			return nil, kindInstance.missing(id)
		}
		before := i.State
		if before != StateTerminated && before != StateShuttingDown {
			i.State = StateShuttingDown
			s.instances.put(id, i)
			if !s.cfg.Devices {
				i = s.end(i)
			}
		}
		out = append(out, StateChange{id, before, i.State})
	}
	return out, nil
}

// end makes an instance terminated.
func (s *state) end(i Instance) Instance {
	for _, id := range i.Interfaces {
		e, _ := s.enis.get(id)
		doomed := e.Attachment.DeleteOnTermination
		if e = s.detach(e); doomed {
			s.dropENI(e)
		}
	}
	i, _ = s.instances.get(i.ID)
	i.State, i.TerminatedAt = StateTerminated, s.now
	i.PrivateIP, i.PrivateDNSName = netip.Addr{}, "" // they may be another's soon
	s.instances.put(i.ID, i)
	return i
}

// graveTime is how long a terminated instance stays visible: "a short while"
// that is about an hour. Source: "Terminate Amazon EC2 instances", Amazon EC2
// User Guide.
const graveTime = time.Hour

func (s *state) forgotten(i Instance) bool {
	return i.State == StateTerminated && s.now.Sub(i.TerminatedAt) >= graveTime
}

// forget removes the instances that are no longer visible.
func (s *state) forget() {
	var gone []string
	for i := range s.instances.all() {
		if s.forgotten(i) {
			gone = append(gone, i.ID)
		}
	}
	for _, id := range gone {
		s.instances.remove(id)
	}
}

// InstanceRunning reports that a pending instance, in whichever region, runs.
// For one that is no longer pending it says nothing new.
func (c *Cloud) InstanceRunning(id string) error {
	return report(c, id, hasInstance(id), func(s *state, id string) error {
		i, err := find(&s.instances, kindInstance, id)
		if err == nil && i.State == StatePending {
			i.State = StateRunning
			s.instances.put(id, i)
		}
		return err
	})
}

// InstanceTerminated reports that an instance that was shutting down is gone,
// with all its devices. It is an error while nobody asked for that.
func (c *Cloud) InstanceTerminated(id string) error {
	return report(c, id, hasInstance(id), func(s *state, id string) error {
		i, err := find(&s.instances, kindInstance, id)
		if err != nil || i.State == StateTerminated {
			return err
		}
		if i.State != StateShuttingDown {
			return fail("IncorrectState", "Instance '%s' is not 'shutting-down' but '%s'.", id, i.State)
		}
		s.end(i)
		return nil
	})
}

func hasInstance(id string) func(*regional) bool {
	return func(r *regional) bool { _, ok := r.instances.get(id); return ok }
}
