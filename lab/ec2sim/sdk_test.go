package ec2sim

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/smithy-go"
	"github.com/google/go-cmp/cmp"
)

// sdkClient is the real SDK, with nothing set but the endpoint, the region and
// credentials, and without retries, so that a refusal is seen at once.
func sdkClient(t *testing.T, c *Cloud) *ec2.Client {
	t.Helper()
	server := httptest.NewServer(c)
	t.Cleanup(server.Close)
	return ec2.New(ec2.Options{
		Region:       "eu-west-1",
		BaseEndpoint: aws.String(server.URL),
		Retryer:      aws.NopRetryer{},
		Credentials:  aws.CredentialsProviderFunc(testCredentials),
		HTTPClient:   wholeReplies{server.Client()},
	})
}

// wholeReplies reads a reply to its end before the SDK sees its head, so that
// no test depends on the race that the constant settle is about.
type wholeReplies struct{ *http.Client }

func (c wholeReplies) Do(r *http.Request) (*http.Response, error) {
	resp, err := c.Client.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, err
}

func testCredentials(context.Context) (aws.Credentials, error) {
	return aws.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "secret", SessionToken: "token"}, nil
}

// clock is a hand-set time.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)} }

func (k *clock) Now() time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.now
}

func (k *clock) advance(d time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.now = k.now.Add(d)
}

// code gives the code of an API error, or what else there is.
func code(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	if err != nil {
		return "no API error: " + err.Error()
	}
	return ""
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func tagSpec(resource types.ResourceType, pairs ...string) []types.TagSpecification {
	spec := types.TagSpecification{ResourceType: resource}
	for i := 0; i < len(pairs); i += 2 {
		spec.Tags = append(spec.Tags, types.Tag{Key: aws.String(pairs[i]), Value: aws.String(pairs[i+1])})
	}
	return []types.TagSpecification{spec}
}

func tagMap(tags []types.Tag) map[string]string {
	m := map[string]string{}
	for _, tag := range tags {
		m[*tag.Key] = *tag.Value
	}
	return m
}

// world is a VPC with a subnet and a running instance, made by the SDK.
type world struct {
	t        *testing.T
	ctx      context.Context
	api      *ec2.Client
	vpc      string
	subnet   string
	instance types.Instance
}

func newWorld(t *testing.T, c *Cloud) world {
	t.Helper()
	w := world{t: t, ctx: t.Context(), api: sdkClient(t, c)}
	v := must(w.api.CreateVpc(w.ctx, &ec2.CreateVpcInput{CidrBlock: aws.String("10.0.0.0/16"), TagSpecifications: tagSpec("vpc", "Name", "main")}))(t)
	w.vpc = *v.Vpc.VpcId
	n := must(w.api.CreateSubnet(w.ctx, &ec2.CreateSubnetInput{
		VpcId: &w.vpc, CidrBlock: aws.String("10.0.1.0/24"), AvailabilityZone: aws.String("eu-west-1b"),
		TagSpecifications: tagSpec("subnet", "role", "pods"),
	}))(t)
	w.subnet = *n.Subnet.SubnetId
	r := must(w.api.RunInstances(w.ctx, &ec2.RunInstancesInput{
		ImageId: aws.String("ami-1"), InstanceType: "m5.large", MinCount: aws.Int32(1), MaxCount: aws.Int32(1), SubnetId: &w.subnet,
		TagSpecifications:  append(tagSpec("instance", "Name", "node-1"), tagSpec("network-interface", "eni", "0")...),
		IamInstanceProfile: &types.IamInstanceProfileSpecification{Name: aws.String("node")},
		MetadataOptions:    &types.InstanceMetadataOptionsRequest{HttpPutResponseHopLimit: aws.Int32(1), HttpTokens: "optional"},
		UserData:           aws.String("aGVsbG8="),
	}))(t)
	w.instance = r.Instances[0]
	return w
}

func (w world) eni(id string) types.NetworkInterface {
	w.t.Helper()
	out := must(w.api.DescribeNetworkInterfaces(w.ctx, &ec2.DescribeNetworkInterfacesInput{NetworkInterfaceIds: []string{id}}))(w.t)
	return out.NetworkInterfaces[0]
}

func (w world) free() int32 {
	w.t.Helper()
	out := must(w.api.DescribeSubnets(w.ctx, &ec2.DescribeSubnetsInput{SubnetIds: []string{w.subnet}}))(w.t)
	return *out.Subnets[0].AvailableIpAddressCount
}

func addresses(e types.NetworkInterface) []string {
	var list []string
	for _, a := range e.PrivateIpAddresses {
		list = append(list, *a.PrivateIpAddress)
	}
	return list
}

func TestInstanceAsTheSDKSeesIt(t *testing.T) {
	k := newClock()
	w := newWorld(t, New(Config{Now: k.Now}))
	out := must(w.api.DescribeInstances(w.ctx, &ec2.DescribeInstancesInput{
		Filters: []types.Filter{{Name: aws.String("tag:Name"), Values: []string{"node-*"}}, {Name: aws.String("vpc-id"), Values: []string{w.vpc}}},
	}))(t)
	if len(out.Reservations) != 1 || len(out.Reservations[0].Instances) != 1 {
		t.Fatalf("reservations: %+v", out.Reservations)
	}
	i := out.Reservations[0].Instances[0]
	e := i.NetworkInterfaces[0]
	got := map[string]any{
		"state": i.State.Name, "type": i.InstanceType, "zone": *i.Placement.AvailabilityZone, "dns": *i.PrivateDnsName,
		"ip": *i.PrivateIpAddress, "hops": *i.MetadataOptions.HttpPutResponseHopLimit, "tokens": i.MetadataOptions.HttpTokens,
		"profile": *i.IamInstanceProfile.Arn, "launched": i.LaunchTime.Equal(k.Now()), "tags": tagMap(i.Tags),
		"eni status": e.Status, "attachment": e.Attachment.Status, "device": *e.Attachment.DeviceIndex, "card": *e.Attachment.NetworkCardIndex,
		"dies": *e.Attachment.DeleteOnTermination, "primary": *e.PrivateIpAddresses[0].Primary, "group": *i.SecurityGroups[0].GroupName,
	}
	want := map[string]any{
		"state": types.InstanceStateNameRunning, "type": types.InstanceTypeM5Large, "zone": "eu-west-1b",
		"dns": "ip-10-0-1-4.eu-west-1.compute.internal", "ip": "10.0.1.4", "hops": int32(1), "tokens": types.HttpTokensStateOptional,
		"profile": "arn:aws:iam::123456789012:instance-profile/node", "launched": true, "tags": map[string]string{"Name": "node-1"},
		"eni status": types.NetworkInterfaceStatusInUse, "attachment": types.AttachmentStatusAttached, "device": int32(0), "card": int32(0),
		"dies": true, "primary": true, "group": "default",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("instance (-want +got):\n%s", diff)
	}
	if tags := tagMap(w.eni(*e.NetworkInterfaceId).TagSet); tags["eni"] != "0" {
		t.Errorf("tags of the ENI: %v", tags)
	}
}

func TestENILifeCycle(t *testing.T) {
	c := New(Config{Now: newClock().Now})
	w := newWorld(t, c)
	free := w.free()
	made := must(w.api.CreateNetworkInterface(w.ctx, &ec2.CreateNetworkInterfaceInput{
		SubnetId: &w.subnet, Description: aws.String("pods"), SecondaryPrivateIpAddressCount: aws.Int32(2),
		TagSpecifications: tagSpec("network-interface", "node.k8s.amazonaws.com/instance_id", *w.instance.InstanceId),
	}))(t).NetworkInterface
	if made.Status != "pending" {
		t.Errorf("status in the reply %q, want pending", made.Status)
	}
	id := *made.NetworkInterfaceId
	attached := must(w.api.AttachNetworkInterface(w.ctx, &ec2.AttachNetworkInterfaceInput{
		NetworkInterfaceId: &id, InstanceId: w.instance.InstanceId, DeviceIndex: aws.Int32(1), NetworkCardIndex: aws.Int32(0),
	}))(t)
	must(w.api.ModifyNetworkInterfaceAttribute(w.ctx, &ec2.ModifyNetworkInterfaceAttributeInput{
		NetworkInterfaceId: &id,
		Attachment:         &types.NetworkInterfaceAttachmentChanges{AttachmentId: attached.AttachmentId, DeleteOnTermination: aws.Bool(true)},
	}))(t)
	must(w.api.ModifyNetworkInterfaceAttribute(w.ctx, &ec2.ModifyNetworkInterfaceAttributeInput{
		NetworkInterfaceId: &id, SourceDestCheck: &types.AttributeBooleanValue{Value: aws.Bool(false)},
	}))(t)

	assigned := must(w.api.AssignPrivateIpAddresses(w.ctx, &ec2.AssignPrivateIpAddressesInput{NetworkInterfaceId: &id, SecondaryPrivateIpAddressCount: aws.Int32(3)}))(t)
	if n := len(assigned.AssignedPrivateIpAddresses); n != 3 || *assigned.NetworkInterfaceId != id {
		t.Errorf("assigned %d addresses on %s", n, *assigned.NetworkInterfaceId)
	}
	prefixed := must(w.api.AssignPrivateIpAddresses(w.ctx, &ec2.AssignPrivateIpAddressesInput{NetworkInterfaceId: &id, Ipv4PrefixCount: aws.Int32(1)}))(t)
	if got := *prefixed.AssignedIpv4Prefixes[0].Ipv4Prefix; got != "10.0.1.16/28" {
		t.Errorf("prefix %s, want the lowest free block 10.0.1.16/28", got)
	}

	e := w.eni(id)
	if diff := cmp.Diff([]string{"10.0.1.5", "10.0.1.6", "10.0.1.7", "10.0.1.8", "10.0.1.9", "10.0.1.10"}, addresses(e)); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
	if !*e.Attachment.DeleteOnTermination || *e.SourceDestCheck || *e.Attachment.InstanceId != *w.instance.InstanceId {
		t.Errorf("after changes: %+v", e)
	}
	if got := free - w.free(); got != 6+16 {
		t.Errorf("%d addresses taken, want 22", got)
	}

	must(w.api.UnassignPrivateIpAddresses(w.ctx, &ec2.UnassignPrivateIpAddressesInput{NetworkInterfaceId: &id, PrivateIpAddresses: []string{"10.0.1.9"}}))(t)
	must(w.api.UnassignPrivateIpAddresses(w.ctx, &ec2.UnassignPrivateIpAddressesInput{NetworkInterfaceId: &id, Ipv4Prefixes: []string{"10.0.1.16/28"}}))(t)
	if e = w.eni(id); slices.Contains(addresses(e), "10.0.1.9") || len(e.Ipv4Prefixes) != 0 {
		t.Errorf("after unassign: %v %v", addresses(e), e.Ipv4Prefixes)
	}

	if _, err := w.api.DeleteNetworkInterface(w.ctx, &ec2.DeleteNetworkInterfaceInput{NetworkInterfaceId: &id}); code(err) != "InvalidParameterValue" {
		t.Errorf("delete while attached: %v", err)
	}
	must(w.api.DetachNetworkInterface(w.ctx, &ec2.DetachNetworkInterfaceInput{AttachmentId: attached.AttachmentId}))(t)
	if e = w.eni(id); e.Attachment != nil || e.Status != types.NetworkInterfaceStatusAvailable {
		t.Errorf("after detach: %s %+v", e.Status, e.Attachment)
	}
	must(w.api.DeleteNetworkInterface(w.ctx, &ec2.DeleteNetworkInterfaceInput{NetworkInterfaceId: &id}))(t)
	if w.free() != free {
		t.Errorf("%d addresses free in the end, %d in the beginning", w.free(), free)
	}
	_, err := w.api.DescribeNetworkInterfaces(w.ctx, &ec2.DescribeNetworkInterfacesInput{NetworkInterfaceIds: []string{id}})
	var api smithy.APIError
	if !errors.As(err, &api) || api.ErrorCode() != "InvalidNetworkInterfaceID.NotFound" || api.ErrorMessage() != "The networkInterface ID '"+id+"' does not exist" {
		t.Errorf("describe the deleted: %v", err)
	}
}

func TestTerminateDeletesWhatIsMarked(t *testing.T) {
	k := newClock()
	w := newWorld(t, New(Config{Now: k.Now}))
	primary := *w.instance.NetworkInterfaces[0].NetworkInterfaceId
	made := must(w.api.CreateNetworkInterface(w.ctx, &ec2.CreateNetworkInterfaceInput{SubnetId: &w.subnet}))(t)
	kept := *made.NetworkInterface.NetworkInterfaceId
	must(w.api.AttachNetworkInterface(w.ctx, &ec2.AttachNetworkInterfaceInput{NetworkInterfaceId: &kept, InstanceId: w.instance.InstanceId, DeviceIndex: aws.Int32(1)}))(t)
	ids := []string{*w.instance.InstanceId}
	out := must(w.api.TerminateInstances(w.ctx, &ec2.TerminateInstancesInput{InstanceIds: ids}))(t)
	if ch := out.TerminatingInstances[0]; ch.PreviousState.Name != "running" || *ch.PreviousState.Code != 16 || ch.CurrentState.Name != "terminated" {
		t.Errorf("state change: %+v -> %+v", ch.PreviousState, ch.CurrentState)
	}
	if e := w.eni(kept); e.Status != types.NetworkInterfaceStatusAvailable || e.Attachment != nil {
		t.Errorf("the ENI that stays: %s", e.Status)
	}
	if _, err := w.api.DescribeNetworkInterfaces(w.ctx, &ec2.DescribeNetworkInterfacesInput{NetworkInterfaceIds: []string{primary}}); code(err) != "InvalidNetworkInterfaceID.NotFound" {
		t.Errorf("the primary ENI: %v", err)
	}
	seen := must(w.api.DescribeInstances(w.ctx, &ec2.DescribeInstancesInput{InstanceIds: ids}))(t)
	if i := seen.Reservations[0].Instances[0]; i.State.Name != "terminated" || len(i.NetworkInterfaces) != 0 {
		t.Errorf("the terminated instance: %+v", i)
	}
	k.advance(time.Hour)
	if _, err := w.api.DescribeInstances(w.ctx, &ec2.DescribeInstancesInput{InstanceIds: ids}); code(err) != "InvalidInstanceID.NotFound" {
		t.Errorf("an hour later: %v", err)
	}
}

func TestRunInstancesWithInterfaces(t *testing.T) {
	w := newWorld(t, New(Config{}))
	out := must(w.api.RunInstances(w.ctx, &ec2.RunInstancesInput{
		ImageId: aws.String("ami-1"), InstanceType: "m5.large", MinCount: aws.Int32(1), MaxCount: aws.Int32(1),
		NetworkInterfaces: []types.InstanceNetworkInterfaceSpecification{
			{DeviceIndex: aws.Int32(1), SubnetId: &w.subnet, Ipv4PrefixCount: aws.Int32(2), DeleteOnTermination: aws.Bool(false)},
			{DeviceIndex: aws.Int32(0), SubnetId: &w.subnet, PrivateIpAddress: aws.String("10.0.1.100"), SecondaryPrivateIpAddressCount: aws.Int32(4)},
		},
	}))(t)
	enis := out.Instances[0].NetworkInterfaces
	if len(enis) != 2 || *enis[0].PrivateIpAddress != "10.0.1.100" || len(enis[0].PrivateIpAddresses) != 5 || len(enis[1].Ipv4Prefixes) != 2 {
		t.Fatalf("interfaces: %+v", enis)
	}
	if !*enis[0].Attachment.DeleteOnTermination || *enis[1].Attachment.DeleteOnTermination {
		t.Error("delete on termination is not as asked for")
	}
	if *out.Instances[0].PrivateDnsName != "ip-10-0-1-100.eu-west-1.compute.internal" {
		t.Errorf("name %s", *out.Instances[0].PrivateDnsName)
	}
}

func TestTags(t *testing.T) {
	w := newWorld(t, New(Config{}))
	ids := []string{w.vpc, w.subnet, *w.instance.InstanceId, *w.instance.NetworkInterfaces[0].NetworkInterfaceId}
	must(w.api.CreateTags(w.ctx, &ec2.CreateTagsInput{Resources: ids, Tags: []types.Tag{{Key: aws.String("a"), Value: aws.String("1")}, {Key: aws.String("b"), Value: aws.String("")}}}))(t)
	must(w.api.DeleteTags(w.ctx, &ec2.DeleteTagsInput{Resources: ids, Tags: []types.Tag{{Key: aws.String("a"), Value: aws.String("other")}, {Key: aws.String("b")}}}))(t)
	out := must(w.api.DescribeTags(w.ctx, &ec2.DescribeTagsInput{Filters: []types.Filter{{Name: aws.String("key"), Values: []string{"a", "b"}}}}))(t)
	var got []string
	for _, tag := range out.Tags {
		got = append(got, string(tag.ResourceType)+" "+*tag.Key+"="+*tag.Value)
	}
	want := []string{"vpc a=1", "subnet a=1", "network-interface a=1", "instance a=1"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tags (-want +got):\n%s", diff)
	}
	must(w.api.DeleteTags(w.ctx, &ec2.DeleteTagsInput{Resources: ids}))(t)
	if out = must(w.api.DescribeTags(w.ctx, &ec2.DescribeTagsInput{}))(t); len(out.Tags) != 0 {
		t.Errorf("tags left: %+v", out.Tags)
	}
}

func TestDescribePagesAndFilters(t *testing.T) {
	w := newWorld(t, New(Config{}))
	for range 12 {
		must(w.api.CreateNetworkInterface(w.ctx, &ec2.CreateNetworkInterfaceInput{SubnetId: &w.subnet, TagSpecifications: tagSpec("network-interface", "k", "v")}))(t)
	}
	in := &ec2.DescribeNetworkInterfacesInput{MaxResults: aws.Int32(5), Filters: []types.Filter{{Name: aws.String("tag-key"), Values: []string{"k"}}}}
	var sizes []int
	seen := map[string]bool{}
	for pages := ec2.NewDescribeNetworkInterfacesPaginator(w.api, in); pages.HasMorePages(); {
		page := must(pages.NextPage(w.ctx))(t)
		sizes = append(sizes, len(page.NetworkInterfaces))
		for _, e := range page.NetworkInterfaces {
			seen[*e.NetworkInterfaceId] = true
		}
	}
	if diff := cmp.Diff([]int{5, 5, 2}, sizes); diff != "" || len(seen) != 12 {
		t.Errorf("pages %v with %d ENIs, want 5 5 2 with 12", sizes, len(seen))
	}
	count := func(name string, values ...string) int {
		out := must(w.api.DescribeNetworkInterfaces(w.ctx, &ec2.DescribeNetworkInterfacesInput{Filters: []types.Filter{{Name: &name, Values: values}}}))(t)
		return len(out.NetworkInterfaces)
	}
	for _, tt := range []struct {
		name, value string
		want        int
	}{
		{"attachment.instance-id", *w.instance.InstanceId, 1},
		{"status", "available", 12},
		{"status", "in-use", 1},
		{"vpc-id", w.vpc, 13},
		{"subnet-id", w.subnet, 13},
		{"subnet-id", "subnet-*", 13},
		{"private-ip-address", "10.0.1.5", 1},
		{"addresses.private-ip-address", "10.0.1.?", 6},
		{"tag:k", "v", 12},
		{"tag:k", "V", 0},
		{"description", "none", 0},
	} {
		if got := count(tt.name, tt.value); got != tt.want {
			t.Errorf("filter %s=%s: %d ENIs, want %d", tt.name, tt.value, got, tt.want)
		}
	}
	subnets := must(w.api.DescribeSubnets(w.ctx, &ec2.DescribeSubnetsInput{Filters: []types.Filter{
		{Name: aws.String("vpc-id"), Values: []string{w.vpc}}, {Name: aws.String("availability-zone"), Values: []string{"eu-west-1b"}}}}))(t)
	if len(subnets.Subnets) != 1 || *subnets.Subnets[0].AvailableIpAddressCount != 251-13 || tagMap(subnets.Subnets[0].Tags)["role"] != "pods" {
		t.Errorf("subnets: %+v", subnets.Subnets)
	}
}

func TestInstanceTypesAndZones(t *testing.T) {
	api := sdkClient(t, New(Config{}))
	out := must(api.DescribeInstanceTypes(t.Context(), &ec2.DescribeInstanceTypesInput{InstanceTypes: []types.InstanceType{"m5.large", "p5.48xlarge"}}))(t)
	m5, p5 := out.InstanceTypes[0].NetworkInfo, out.InstanceTypes[1].NetworkInfo
	if *m5.MaximumNetworkInterfaces != 3 || *m5.Ipv4AddressesPerInterface != 10 || len(p5.NetworkCards) != 32 || *p5.NetworkCards[31].MaximumNetworkInterfaces != 2 {
		t.Errorf("m5.large %+v, p5.48xlarge %+v", m5, p5)
	}
	count := 0 // with a client that has all its defaults
	server := httptest.NewServer(New(Config{}))
	defer server.Close()
	plain := ec2.New(ec2.Options{Region: "eu-west-1", BaseEndpoint: &server.URL, Credentials: aws.CredentialsProviderFunc(testCredentials)})
	for pages := ec2.NewDescribeInstanceTypesPaginator(plain, &ec2.DescribeInstanceTypesInput{}); pages.HasMorePages(); {
		count += len(must(pages.NextPage(t.Context()))(t).InstanceTypes)
	}
	if count != 1391 {
		t.Errorf("%d types, want 1391", count)
	}
	zones := must(api.DescribeAvailabilityZones(t.Context(), &ec2.DescribeAvailabilityZonesInput{}))(t)
	if z := zones.AvailabilityZones; len(z) != 3 || *z[1].ZoneName != "eu-west-1b" || *z[1].ZoneId != "euw1-az2" {
		t.Errorf("zones: %+v", z)
	}
}

func TestClientToken(t *testing.T) {
	k := newClock()
	w := newWorld(t, New(Config{Now: k.Now}))
	in := ec2.CreateNetworkInterfaceInput{SubnetId: &w.subnet, ClientToken: aws.String("once")}
	first := must(w.api.CreateNetworkInterface(w.ctx, &in))(t)
	again := must(w.api.CreateNetworkInterface(w.ctx, &in))(t)
	if *first.NetworkInterface.NetworkInterfaceId != *again.NetworkInterface.NetworkInterfaceId {
		t.Error("the same token made two ENIs")
	}
	in.Description = aws.String("other")
	if _, err := w.api.CreateNetworkInterface(w.ctx, &in); code(err) != "IdempotentParameterMismatch" {
		t.Errorf("the same token for another request: %v", err)
	}
	k.advance(tokenLife)
	if other := must(w.api.CreateNetworkInterface(w.ctx, &in))(t); *other.NetworkInterface.NetworkInterfaceId == *first.NetworkInterface.NetworkInterfaceId {
		t.Error("the token outlived its day")
	}

	run := ec2.RunInstancesInput{InstanceType: "t3.small", MinCount: aws.Int32(1), MaxCount: aws.Int32(1), SubnetId: &w.subnet, ClientToken: aws.String("run")}
	one := must(w.api.RunInstances(w.ctx, &run))(t).Instances[0].InstanceId
	if two := must(w.api.RunInstances(w.ctx, &run))(t).Instances[0].InstanceId; *one != *two {
		t.Error("the same token launched twice")
	}
	must(w.api.TerminateInstances(w.ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{*one}}))(t)
	if _, err := w.api.RunInstances(w.ctx, &run); code(err) != "IdempotentInstanceTerminated" {
		t.Errorf("the token of a terminated instance: %v", err)
	}
}

// Two clients race for the last address of a subnet, many times: always one
// has it, and the other the right error.
func TestRaceForTheLastAddress(t *testing.T) {
	c := New(Config{})
	api := sdkClient(t, c)
	v := must(c.CreateVPC(CreateVPCInput{CIDR: prefix("10.0.0.0/16")}))(t)
	n := must(c.CreateSubnet(CreateSubnetInput{VPCID: v.ID, CIDR: prefix("10.0.0.0/28")}))(t)
	must(c.CreateNetworkInterface(CreateNetworkInterfaceInput{SubnetID: n.ID, Addresses: Addressing{Count: 9}}))(t)
	for range 20 {
		var group sync.WaitGroup
		codes, ids := make([]string, 2), make([]string, 2)
		start := make(chan struct{})
		for i := range codes {
			group.Go(func() {
				<-start
				out, err := api.CreateNetworkInterface(t.Context(), &ec2.CreateNetworkInterfaceInput{SubnetId: &n.ID})
				if codes[i] = code(err); err == nil {
					ids[i] = *out.NetworkInterface.NetworkInterfaceId
				}
			})
		}
		close(start)
		group.Wait()
		if sorted := slices.Sorted(slices.Values(codes)); !slices.Equal(sorted, []string{"", "InsufficientFreeAddressesInSubnet"}) {
			t.Fatalf("codes %q", codes)
		}
		if err := c.DeleteNetworkInterface(DeleteNetworkInterfaceInput{ID: ids[0] + ids[1]}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestInjectError(t *testing.T) {
	c := New(Config{})
	api := sdkClient(t, c)
	describe := func() error {
		_, err := api.DescribeVpcs(t.Context(), &ec2.DescribeVpcsInput{})
		return err
	}
	status := func(err error) int {
		var response interface{ HTTPStatusCode() int }
		if !errors.As(err, &response) {
			return 0
		}
		return response.HTTPStatusCode()
	}
	c.InjectError("DescribeVpcs", &Error{Code: "RequestLimitExceeded", Message: "Request limit exceeded."}, 2)
	for range 2 {
		if err := describe(); code(err) != "RequestLimitExceeded" || status(err) != http.StatusServiceUnavailable {
			t.Errorf("injected: %v", err)
		}
	}
	if err := describe(); err != nil {
		t.Errorf("after the injected: %v", err)
	}
	c.InjectError("DescribeVpcs", &Error{Code: "UnauthorizedOperation", Message: "You are not authorized to perform this operation."}, -1)
	for range 3 {
		if err := describe(); code(err) != "UnauthorizedOperation" || status(err) != http.StatusForbidden {
			t.Errorf("injected: %v", err)
		}
	}
	if _, err := api.DescribeSubnets(t.Context(), &ec2.DescribeSubnetsInput{}); err != nil {
		t.Errorf("another action: %v", err)
	}
	c.InjectError("DescribeVpcs", nil, 0)
	if err := describe(); err != nil {
		t.Errorf("after the end: %v", err)
	}
}
