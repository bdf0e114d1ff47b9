package ec2sim

import (
	"net/netip"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/google/go-cmp/cmp"
)

// An instance's power, as the SDK's own waiters see it.
func TestPowerLifeCycle(t *testing.T) {
	k := newClock()
	c := New(Config{Now: k.Now})
	w := newWorld(t, c)
	must(w.api.ModifySubnetAttribute(w.ctx, &ec2.ModifySubnetAttributeInput{SubnetId: &w.subnet, MapPublicIpOnLaunch: &types.AttributeBooleanValue{Value: aws.Bool(true)}}))(t)
	i := must(w.api.RunInstances(w.ctx, &ec2.RunInstancesInput{ImageId: aws.String("ami-1"), InstanceType: "m5.large", MinCount: aws.Int32(1), MaxCount: aws.Int32(1), SubnetId: &w.subnet}))(t).Instances[0]
	ids := []string{*i.InstanceId}
	if i.PublicIpAddress == nil {
		t.Fatal("no public address at launch")
	}
	stopped := must(w.api.StopInstances(w.ctx, &ec2.StopInstancesInput{InstanceIds: ids}))(t).StoppingInstances[0]
	if stopped.PreviousState.Name != "running" || stopped.CurrentState.Name != "stopped" || *stopped.CurrentState.Code != 80 {
		t.Errorf("stop: %s -> %s (%d)", stopped.PreviousState.Name, stopped.CurrentState.Name, *stopped.CurrentState.Code)
	}
	seen := must(w.api.DescribeInstances(w.ctx, &ec2.DescribeInstancesInput{InstanceIds: ids}))(t).Reservations[0].Instances[0]
	if seen.PublicIpAddress != nil || *seen.PrivateIpAddress != *i.PrivateIpAddress || len(seen.NetworkInterfaces) != 1 {
		t.Errorf("stopped: public %v, private %s, %d ENIs", seen.PublicIpAddress, *seen.PrivateIpAddress, len(seen.NetworkInterfaces))
	}
	if n := len(must(w.api.DescribeInstanceStatus(w.ctx, &ec2.DescribeInstanceStatusInput{InstanceIds: ids}))(t).InstanceStatuses); n != 0 {
		t.Error("a stopped instance has a status without being asked for all")
	}
	if _, err := w.api.RebootInstances(w.ctx, &ec2.RebootInstancesInput{InstanceIds: ids}); code(err) != "IncorrectInstanceState" {
		t.Errorf("reboot of a stopped one: %v", err)
	}
	made := must(w.api.CreateNetworkInterface(w.ctx, &ec2.CreateNetworkInterfaceInput{SubnetId: &w.subnet}))(t)
	must(w.api.AttachNetworkInterface(w.ctx, &ec2.AttachNetworkInterfaceInput{NetworkInterfaceId: made.NetworkInterface.NetworkInterfaceId, InstanceId: &ids[0], DeviceIndex: aws.Int32(1)}))(t)
	k.advance(time.Hour)
	started := must(w.api.StartInstances(w.ctx, &ec2.StartInstancesInput{InstanceIds: ids}))(t).StartingInstances[0]
	if started.PreviousState.Name != "stopped" || started.CurrentState.Name != "running" {
		t.Errorf("start: %s -> %s", started.PreviousState.Name, started.CurrentState.Name)
	}
	must(w.api.RebootInstances(w.ctx, &ec2.RebootInstancesInput{InstanceIds: ids}))(t)
	if err := ec2.NewInstanceStatusOkWaiter(w.api).Wait(w.ctx, &ec2.DescribeInstanceStatusInput{InstanceIds: ids}, time.Second); err != nil {
		t.Errorf("the SDK waits: %v", err)
	}
	must(w.api.TerminateInstances(w.ctx, &ec2.TerminateInstancesInput{InstanceIds: ids}))(t)
	checkInvariants(t, c)
}

// With real devices an instance stops and starts when the owner of them says so.
func TestPowerWithDevices(t *testing.T) {
	c := New(Config{Devices: true})
	_, n := place(t, c)
	i := must(c.RunInstances(RunInstancesInput{Type: "m5.large", SubnetID: n.ID}))(t).Instances[0]
	id := PowerInput{[]string{i.ID}}
	state := func(want string) {
		t.Helper()
		if got := c.Snapshot().Instances[0].State; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	must(c.StopInstances(id))(t) // while it is pending, and its ENI attaching
	state(StateStopping)
	if _, err := c.StartInstances(id); errCode(err) != "IncorrectInstanceState" {
		t.Errorf("start while it stops: %v", err)
	}
	for range 2 {
		if err := c.InstanceStopped(i.ID); err != nil {
			t.Fatal(err)
		}
	}
	state(StateStopped)
	if a := c.Snapshot().Interfaces[0].Attachment; a.Status != StatusAttached {
		t.Errorf("attachment to a stopped instance is %s", a.Status)
	}
	must(c.StartInstances(id))(t)
	state(StatePending)
	if err := c.InstanceRunning(i.ID); err != nil {
		t.Fatal(err)
	}
	state(StateRunning)
	if err := c.InstanceStopped(i.ID); err != nil { // late
		t.Fatal(err)
	}
	state(StateRunning)
}

func TestTrunkLifeCycle(t *testing.T) {
	c := New(Config{})
	w := newWorld(t, c)
	make := func(kind types.NetworkInterfaceCreationType) string {
		t.Helper()
		out := must(w.api.CreateNetworkInterface(w.ctx, &ec2.CreateNetworkInterfaceInput{SubnetId: &w.subnet, InterfaceType: kind}))(t)
		if out.NetworkInterface.InterfaceType != types.NetworkInterfaceType(kind) {
			t.Errorf("asked for %s, got %s", kind, out.NetworkInterface.InterfaceType)
		}
		return *out.NetworkInterface.NetworkInterfaceId
	}
	trunk := make("trunk")
	must(w.api.AttachNetworkInterface(w.ctx, &ec2.AttachNetworkInterfaceInput{NetworkInterfaceId: &trunk, InstanceId: w.instance.InstanceId, DeviceIndex: aws.Int32(1)}))(t)
	second := make("trunk")
	if _, err := w.api.AttachNetworkInterface(w.ctx, &ec2.AttachNetworkInterfaceInput{NetworkInterfaceId: &second, InstanceId: w.instance.InstanceId, DeviceIndex: aws.Int32(2)}); code(err) != "AttachmentLimitExceeded" {
		t.Errorf("a second trunk: %v", err)
	}
	var first string
	for vlan := range int32(9) { // as many as an m5.large has
		branch := make("branch")
		out := must(w.api.AssociateTrunkInterface(w.ctx, &ec2.AssociateTrunkInterfaceInput{TrunkInterfaceId: &trunk, BranchInterfaceId: &branch, VlanId: aws.Int32(vlan + 1)}))(t)
		if a := out.InterfaceAssociation; *a.TrunkInterfaceId != trunk || *a.BranchInterfaceId != branch || *a.VlanId != vlan+1 || a.InterfaceProtocol != "VLAN" {
			t.Errorf("association %+v", a)
		}
		if first == "" {
			first = *out.InterfaceAssociation.AssociationId
		}
	}
	more := make("branch")
	if _, err := w.api.AssociateTrunkInterface(w.ctx, &ec2.AssociateTrunkInterfaceInput{TrunkInterfaceId: &trunk, BranchInterfaceId: &more, VlanId: aws.Int32(10)}); code(err) != "AttachmentLimitExceeded" {
		t.Errorf("a tenth branch: %v", err)
	}
	must(w.api.DisassociateTrunkInterface(w.ctx, &ec2.DisassociateTrunkInterfaceInput{AssociationId: &first}))(t)
	again := &ec2.AssociateTrunkInterfaceInput{TrunkInterfaceId: &trunk, BranchInterfaceId: &more, VlanId: aws.Int32(10), ClientToken: aws.String("t")}
	one, two := must(w.api.AssociateTrunkInterface(w.ctx, again))(t), must(w.api.AssociateTrunkInterface(w.ctx, again))(t)
	if *one.InterfaceAssociation.AssociationId != *two.InterfaceAssociation.AssociationId || *two.ClientToken != "t" {
		t.Error("the same token made two associations")
	}
	all := must(w.api.DescribeTrunkInterfaceAssociations(w.ctx, &ec2.DescribeTrunkInterfaceAssociationsInput{}))(t).InterfaceAssociations
	if len(all) != 9 {
		t.Errorf("%d associations, want 9", len(all))
	}
	if e := w.eni(more); e.Status != "in-use" || e.InterfaceType != "branch" || e.Attachment != nil {
		t.Errorf("branch: %s %s %+v", e.Status, e.InterfaceType, e.Attachment)
	}
	must(w.api.ModifyNetworkInterfaceAttribute(w.ctx, &ec2.ModifyNetworkInterfaceAttributeInput{NetworkInterfaceId: &trunk, Attachment: &types.NetworkInterfaceAttachmentChanges{AttachmentId: w.eni(trunk).Attachment.AttachmentId, DeleteOnTermination: aws.Bool(true)}}))(t)
	must(w.api.TerminateInstances(w.ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{*w.instance.InstanceId}}))(t)
	if e := w.eni(more); e.Status != "available" {
		t.Errorf("branch of a trunk that is gone: %s", e.Status)
	}
	checkInvariants(t, c)
}

// A reservation keeps what EC2 chooses away, and not what is named.
func TestReservations(t *testing.T) {
	c := New(Config{})
	w := newWorld(t, c)
	reserve := func(cidr string, kind types.SubnetCidrReservationType) string {
		t.Helper()
		out := must(w.api.CreateSubnetCidrReservation(w.ctx, &ec2.CreateSubnetCidrReservationInput{SubnetId: &w.subnet, Cidr: &cidr, ReservationType: kind}))(t)
		return *out.SubnetCidrReservation.SubnetCidrReservationId
	}
	forPrefixes := reserve("10.0.1.128/27", "prefix") // two of them
	reserve("10.0.1.0/28", "explicit")                // .4 is the instance's already
	reserve("10.0.1.16/30", "explicit")               // spoils the block for prefixes
	e := must(c.CreateNetworkInterface(CreateNetworkInterfaceInput{SubnetID: w.subnet, Addresses: Addressing{Count: 1}}))(t)
	if e.Primary != addr("10.0.1.20") || e.Secondary[0] != addr("10.0.1.21") {
		t.Errorf("chose %s %s, want the first two that are not reserved, 10.0.1.20 and .21", e.Primary, e.Secondary)
	}
	got := must(c.AssignPrivateIPAddresses(AssignPrivateIPAddressesInput{ID: e.ID, PrefixCount: 3}))(t)
	want := []netip.Prefix{prefix("10.0.1.128/28"), prefix("10.0.1.144/28"), prefix("10.0.1.32/28")}
	if diff := cmp.Diff(want, got.Prefixes, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("prefixes (-want +got):\n%s", diff)
	}
	must(c.AssignPrivateIPAddresses(AssignPrivateIPAddressesInput{ID: e.ID, Addresses: []netip.Addr{addr("10.0.1.5")}}))(t)
	list := must(w.api.GetSubnetCidrReservations(w.ctx, &ec2.GetSubnetCidrReservationsInput{SubnetId: &w.subnet}))(t).SubnetIpv4CidrReservations
	if len(list) != 3 || *list[0].SubnetCidrReservationId != forPrefixes || *list[0].Cidr != "10.0.1.128/27" {
		t.Errorf("reservations %+v", list)
	}
	for _, r := range list {
		must(w.api.DeleteSubnetCidrReservation(w.ctx, &ec2.DeleteSubnetCidrReservationInput{SubnetCidrReservationId: r.SubnetCidrReservationId}))(t)
	}
	if e := must(c.CreateNetworkInterface(CreateNetworkInterfaceInput{SubnetID: w.subnet}))(t); e.Primary != addr("10.0.1.6") {
		t.Errorf("after the reservations chose %s, want 10.0.1.6", e.Primary)
	}
	checkInvariants(t, c)
}

// Attributes are read as they were written.
func TestAttributes(t *testing.T) {
	w := newWorld(t, New(Config{}))
	attribute := func(name types.VpcAttributeName) *ec2.DescribeVpcAttributeOutput {
		return must(w.api.DescribeVpcAttribute(w.ctx, &ec2.DescribeVpcAttributeInput{VpcId: &w.vpc, Attribute: name}))(t)
	}
	if !*attribute("enableDnsSupport").EnableDnsSupport.Value || *attribute("enableDnsHostnames").EnableDnsHostnames.Value {
		t.Error("a new VPC has DNS support, and no host names")
	}
	must(w.api.ModifyVpcAttribute(w.ctx, &ec2.ModifyVpcAttributeInput{VpcId: &w.vpc, EnableDnsHostnames: &types.AttributeBooleanValue{Value: aws.Bool(true)}}))(t)
	if a := attribute("enableDnsHostnames"); !*a.EnableDnsHostnames.Value || a.EnableDnsSupport != nil {
		t.Errorf("attribute %+v", a)
	}
	id := w.instance.NetworkInterfaces[0].NetworkInterfaceId
	must(w.api.ModifyInstanceAttribute(w.ctx, &ec2.ModifyInstanceAttributeInput{InstanceId: w.instance.InstanceId, SourceDestCheck: &types.AttributeBooleanValue{Value: aws.Bool(false)}}))(t)
	eni := func(name types.NetworkInterfaceAttribute) *ec2.DescribeNetworkInterfaceAttributeOutput {
		return must(w.api.DescribeNetworkInterfaceAttribute(w.ctx, &ec2.DescribeNetworkInterfaceAttributeInput{NetworkInterfaceId: id, Attribute: name}))(t)
	}
	if *eni("sourceDestCheck").SourceDestCheck.Value {
		t.Error("the check is on after it was turned off")
	}
	must(w.api.ResetNetworkInterfaceAttribute(w.ctx, &ec2.ResetNetworkInterfaceAttributeInput{NetworkInterfaceId: id, SourceDestCheck: aws.String("sourceDestCheck")}))(t)
	if !*eni("sourceDestCheck").SourceDestCheck.Value || *eni("attachment").Attachment.InstanceId != *w.instance.InstanceId || *eni("groupSet").Groups[0].GroupName != "default" {
		t.Error("attributes of the ENI are not as they should be")
	}
	m := must(w.api.ModifyInstanceMetadataOptions(w.ctx, &ec2.ModifyInstanceMetadataOptionsInput{InstanceId: w.instance.InstanceId, HttpPutResponseHopLimit: aws.Int32(3), HttpTokens: "required"}))(t).InstanceMetadataOptions
	if m.State != "pending" || *m.HttpPutResponseHopLimit != 3 || m.HttpTokens != "required" || m.HttpEndpoint != "enabled" {
		t.Errorf("metadata options %+v", m)
	}
	groups := must(w.api.GetSecurityGroupsForVpc(w.ctx, &ec2.GetSecurityGroupsForVpcInput{VpcId: &w.vpc}))(t).SecurityGroupForVpcs
	if len(groups) != 1 || *groups[0].GroupName != "default" || *groups[0].PrimaryVpcId != w.vpc {
		t.Errorf("groups %+v", groups)
	}
	account := must(w.api.DescribeAccountAttributes(w.ctx, &ec2.DescribeAccountAttributesInput{AttributeNames: []types.AccountAttributeName{"supported-platforms"}}))(t).AccountAttributes
	if len(account) != 1 || *account[0].AttributeValues[0].AttributeValue != "VPC" {
		t.Errorf("account %+v", account)
	}
}
