package ec2sim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/google/go-cmp/cmp"
)

// TestIPAMDaemonOfTheVPCCNI makes, by the SDK that it uses, the calls that the
// daemon of amazon-vpc-cni-k8s 1.23 was seen to make: at its start, to grow by an
// ENI, to shrink, in its sweep for leaked ENIs. The recorder holds the test to
// that sequence. Its program itself is not run here: it wants a cluster's API.
func TestIPAMDaemonOfTheVPCCNI(t *testing.T) {
	c := New(Config{Now: newClock().Now})
	var calls []string
	w := newWorld(t, c)
	api, ctx, instance := recorded(t, c, &calls), t.Context(), w.instance.InstanceId
	primary := *w.instance.NetworkInterfaces[0].NetworkInterfaceId
	tag := func(key, value string) types.Tag { return types.Tag{Key: &key, Value: &value} }
	nodeTag := tag("node.k8s.amazonaws.com/instance_id", *instance)
	subnets := &ec2.DescribeSubnetsInput{Filters: []types.Filter{
		{Name: aws.String("vpc-id"), Values: []string{w.vpc}}, {Name: aws.String("availability-zone"), Values: []string{"eu-west-1b"}},
	}}

	// Its start: what is attached, in its own words, and a warm ENI.
	found := must(api.DescribeNetworkInterfaces(ctx, &ec2.DescribeNetworkInterfacesInput{NetworkInterfaceIds: []string{primary}}))(t).NetworkInterfaces[0]
	if found.InterfaceType != "interface" || *found.Attachment.DeviceIndex != 0 || !*found.PrivateIpAddresses[0].Primary || len(found.TagSet) != 1 {
		t.Fatalf("the primary ENI: %+v", found)
	}
	must(api.CreateTags(ctx, &ec2.CreateTagsInput{Resources: []string{primary}, Tags: []types.Tag{nodeTag}}))(t)
	if n := must(api.DescribeSubnets(ctx, subnets))(t).Subnets; len(n) != 1 || *n[0].AvailableIpAddressCount != 250 || len(n[0].Tags) != 1 {
		t.Fatalf("subnets: %+v", n)
	}
	must(api.ModifyNetworkInterfaceAttribute(ctx, &ec2.ModifyNetworkInterfaceAttributeInput{NetworkInterfaceId: &primary, Groups: []string{*found.Groups[0].GroupId}}))(t)
	assigned := must(api.AssignPrivateIpAddresses(ctx, &ec2.AssignPrivateIpAddressesInput{NetworkInterfaceId: &primary, SecondaryPrivateIpAddressCount: aws.Int32(9)}))(t)
	if len(assigned.AssignedPrivateIpAddresses) != 9 {
		t.Errorf("%d addresses assigned", len(assigned.AssignedPrivateIpAddresses))
	}

	// Growth by one ENI.
	must(api.DescribeSubnets(ctx, subnets))(t)
	must(api.DescribeSubnets(ctx, subnets))(t)
	made := must(api.CreateNetworkInterface(ctx, &ec2.CreateNetworkInterfaceInput{
		Description: aws.String("aws-K8S-" + *instance), Groups: []string{*found.Groups[0].GroupId}, SubnetId: &w.subnet, SecondaryPrivateIpAddressCount: aws.Int32(9),
		TagSpecifications: []types.TagSpecification{{ResourceType: "network-interface", Tags: []types.Tag{nodeTag, tag("node.k8s.amazonaws.com/createdAt", "2026-01-02T03:04:05Z")}}},
	}))(t).NetworkInterface
	held := must(api.DescribeInstances(ctx, &ec2.DescribeInstancesInput{InstanceIds: []string{*instance}}))(t).Reservations[0].Instances[0].NetworkInterfaces
	if len(held) != 1 || *held[0].Attachment.DeviceIndex != 0 || *held[0].Attachment.NetworkCardIndex != 0 {
		t.Fatalf("attachments: %+v", held)
	}
	attached := must(api.AttachNetworkInterface(ctx, &ec2.AttachNetworkInterfaceInput{DeviceIndex: aws.Int32(1), InstanceId: instance, NetworkInterfaceId: made.NetworkInterfaceId, NetworkCardIndex: aws.Int32(0)}))(t)
	must(api.ModifyNetworkInterfaceAttribute(ctx, &ec2.ModifyNetworkInterfaceAttributeInput{
		NetworkInterfaceId: made.NetworkInterfaceId, Attachment: &types.NetworkInterfaceAttachmentChanges{AttachmentId: attached.AttachmentId, DeleteOnTermination: aws.Bool(true)},
	}))(t)
	must(api.DescribeNetworkInterfaces(ctx, &ec2.DescribeNetworkInterfacesInput{NetworkInterfaceIds: []string{*made.NetworkInterfaceId}}))(t)

	// It asks for more than there is room, and goes by the code.
	if _, err := api.AssignPrivateIpAddresses(ctx, &ec2.AssignPrivateIpAddressesInput{NetworkInterfaceId: made.NetworkInterfaceId, SecondaryPrivateIpAddressCount: aws.Int32(1)}); code(err) != "PrivateIpAddressLimitExceeded" {
		t.Errorf("a full ENI: %v", err)
	}

	// It shrinks.
	last := *made.PrivateIpAddresses[9].PrivateIpAddress
	must(api.UnassignPrivateIpAddresses(ctx, &ec2.UnassignPrivateIpAddressesInput{NetworkInterfaceId: made.NetworkInterfaceId, PrivateIpAddresses: []string{last}}))(t)
	must(api.DescribeNetworkInterfaces(ctx, &ec2.DescribeNetworkInterfacesInput{NetworkInterfaceIds: []string{*made.NetworkInterfaceId}}))(t)
	must(api.DetachNetworkInterface(ctx, &ec2.DetachNetworkInterfaceInput{AttachmentId: attached.AttachmentId}))(t)

	// The hourly sweep finds it available, by pages, and deletes it.
	leaked := must(api.DescribeNetworkInterfaces(ctx, &ec2.DescribeNetworkInterfacesInput{MaxResults: aws.Int32(1000), Filters: []types.Filter{
		{Name: aws.String("tag-key"), Values: []string{*nodeTag.Key}}, {Name: aws.String("status"), Values: []string{"available"}}, {Name: aws.String("vpc-id"), Values: []string{w.vpc}},
	}}))(t)
	if len(leaked.NetworkInterfaces) != 1 || *leaked.NetworkInterfaces[0].NetworkInterfaceId != *made.NetworkInterfaceId || leaked.NextToken != nil {
		t.Errorf("leaked: %+v", leaked)
	}
	must(api.DeleteNetworkInterface(ctx, &ec2.DeleteNetworkInterfaceInput{NetworkInterfaceId: made.NetworkInterfaceId}))(t)
	_, err := api.DescribeNetworkInterfaces(ctx, &ec2.DescribeNetworkInterfacesInput{NetworkInterfaceIds: []string{*made.NetworkInterfaceId}})
	if code(err) != "InvalidNetworkInterfaceID.NotFound" || !strings.Contains(err.Error(), "'"+*made.NetworkInterfaceId+"'") {
		t.Errorf("describe what is gone: %v", err)
	}

	want := []string{
		"DescribeNetworkInterfaces", "CreateTags", "DescribeSubnets", "ModifyNetworkInterfaceAttribute", "AssignPrivateIpAddresses",
		"DescribeSubnets", "DescribeSubnets", "CreateNetworkInterface", "DescribeInstances", "AttachNetworkInterface", "ModifyNetworkInterfaceAttribute", "DescribeNetworkInterfaces",
		"AssignPrivateIpAddresses",
		"UnassignPrivateIpAddresses", "DescribeNetworkInterfaces", "DetachNetworkInterface",
		"DescribeNetworkInterfaces", "DeleteNetworkInterface", "DescribeNetworkInterfaces",
	}
	if diff := cmp.Diff(want, calls); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

// recorded is a client whose actions are written down.
func recorded(t *testing.T, c *Cloud, calls *[]string) *ec2.Client {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		form, err := url.ParseQuery(string(body))
		if err != nil {
			t.Error(err)
		}
		*calls = append(*calls, form.Get("Action"))
		r.Body = io.NopCloser(bytes.NewReader(body))
		c.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return ec2.New(ec2.Options{
		Region: "eu-west-1", BaseEndpoint: aws.String(server.URL), Retryer: aws.NopRetryer{},
		Credentials: aws.CredentialsProviderFunc(testCredentials), HTTPClient: wholeReplies{server.Client()},
	})
}

// The aws command, as it is, with nothing but the endpoint set: a life cycle from
// a VPC to its end. The endpoint is a flag, since AWS_ENDPOINT_URL_EC2 is known
// from 2.13 on, and Debian 12 has 2.9.
func TestAWSCommand(t *testing.T) {
	t.Parallel() // each command takes a second to start
	program, err := exec.LookPath("aws")
	if err == nil {
		err = exec.Command(program, "--version").Run()
	}
	if err != nil {
		t.Skip("needs the aws command (Debian package awscli):", err)
	}
	server := httptest.NewServer(New(Config{}))
	defer server.Close()
	home := t.TempDir()
	names := map[string]string{}
	aws := func(line string) string {
		t.Helper()
		args := strings.Fields(line)
		for i := range args {
			for name, id := range names {
				args[i] = strings.ReplaceAll(args[i], "@"+name, id)
			}
		}
		cmd := exec.CommandContext(t.Context(), program, append([]string{"ec2", "--output", "json", "--endpoint-url", server.URL}, args...)...)
		cmd.WaitDelay = time.Second
		cmd.Env = append(os.Environ(), "HOME="+home, "AWS_CONFIG_FILE="+home+"/none", "AWS_SHARED_CREDENTIALS_FILE="+home+"/none",
			"AWS_REGION=eu-west-1", "AWS_DEFAULT_REGION=eu-west-1", "AWS_ACCESS_KEY_ID=AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY=secret", "AWS_EC2_METADATA_DISABLED=true", "AWS_MAX_ATTEMPTS=1", "NO_PROXY=127.0.0.1")
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Sprintf("%v: %s", err, out)
		}
		return string(out)
	}
	for _, step := range []struct{ line, name, at, says string }{
		{"create-vpc --cidr-block 10.0.0.0/16", "vpc", "Vpc.VpcId", "available"},
		{"create-subnet --vpc-id @vpc --cidr-block 10.0.1.0/24", "subnet", "Subnet.SubnetId", "251"},
		{"run-instances --image-id ami-1 --instance-type m5.large --subnet-id @subnet", "instance", "Instances.0.InstanceId", "running"},
		{"create-network-interface --subnet-id @subnet --ipv4-prefix-count 1", "eni", "NetworkInterface.NetworkInterfaceId", "10.0.1.16/28"},
		{"attach-network-interface --network-interface-id @eni --instance-id @instance --device-index 1", "attachment", "AttachmentId", "eni-attach-"},
		{"describe-network-interfaces --filters Name=attachment.instance-id,Values=@instance --max-items 1", "", "", "NextToken"},
		{"detach-network-interface --attachment-id @attachment", "", "", ""},
		{"delete-network-interface --network-interface-id @eni", "", "", ""},
		{"delete-vpc --vpc-id @vpc", "", "", "DependencyViolation"},
		{"terminate-instances --instance-ids @instance", "", "", "terminated"},
		{"delete-subnet --subnet-id @subnet --dry-run", "", "", "DryRunOperation"},
		{"delete-subnet --subnet-id @subnet", "", "", ""},
		{"delete-vpc --vpc-id @vpc", "", "", ""},
	} {
		out := aws(step.line)
		if !strings.Contains(out, step.says) || step.says == "" && strings.Contains(out, "exit status") {
			t.Fatalf("aws ec2 %s: %s\nwant %q", step.line, out, step.says)
		}
		if step.name == "" {
			continue
		}
		var answer any
		if err := json.Unmarshal([]byte(out), &answer); err != nil {
			t.Fatalf("aws ec2 %s: %v\n%s", step.line, err, out)
		}
		for key := range strings.SplitSeq(step.at, ".") {
			switch at := answer.(type) {
			case map[string]any:
				answer = at[key]
			case []any:
				answer = at[0]
			}
		}
		names[step.name], _ = answer.(string)
	}
}
