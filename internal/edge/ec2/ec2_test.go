package ec2

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/vpc"
)

var cmpAddr = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})

func credentials(context.Context) (aws.Credentials, error) {
	return aws.Credentials{AccessKeyID: "AKIATEST", SecretAccessKey: "test"}, nil
}

func TestENIs(t *testing.T) {
	page := func(next string, items ...string) reply {
		body := "<networkInterfaceSet>"
		for _, i := range items {
			body += "<item>" + i + "</item>"
		}
		return reply{body: body + "</networkInterfaceSet>" + next}
	}
	w := &wire{answers: map[string][]reply{
		"DescribeNetworkInterfaces": {
			page("<nextToken>more</nextToken>",
				eniXML("eni-2", "subnet-b", attachmentXML("att-2", "attaching", 0, 1), addressesXML),
				eniXML("eni-9", "subnet-a", attachmentXML("att-9", "detaching", 0, 2), addressesXML)),
			page("",
				eniXML("eni-3", "subnet-six", attachmentXML("att-3", "attached", 1, 0), ""), // EFA only, IPv6
				eniXML("eni-1", "subnet-a", attachmentXML("att-1", "attached", 0, 0), addressesXML)),
		},
		"DescribeSubnets": {{body: subnetsXML}},
	}}
	c := w.client(t)
	got, err := c.ENIs(t.Context(), "i-1")
	if err != nil {
		t.Fatal(err)
	}
	full := vpc.ENI{
		ID: "eni-1", AttachmentID: "att-1", Status: "attached", DeleteOnTermination: true, Zone: "eu-west-1a", Type: "interface",
		Tags: map[string]string{TagInstance: "i-1", TagCreated: "2026-01-02T03:04:05Z"}, CreatedAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), MAC: vpc.MAC{2, 0, 0, 0, 0, 1}, SubnetID: "subnet-a",
		Subnet: netip.MustParsePrefix("10.0.1.0/24"), Primary: netip.MustParseAddr("10.0.1.4"), Groups: []string{"sg-1"},
		Secondary: []netip.Addr{netip.MustParseAddr("10.0.1.10"), netip.MustParseAddr("10.0.1.11")},
		Prefixes:  []netip.Prefix{netip.MustParsePrefix("10.0.1.32/28")},
	}
	second, leaving, efa := full, full, full
	second.ID, second.AttachmentID, second.DeviceIndex, second.Status = "eni-2", "att-2", 1, "attaching"
	second.SubnetID, second.Subnet = "subnet-b", netip.MustParsePrefix("10.0.2.0/24")
	leaving.ID, leaving.AttachmentID, leaving.DeviceIndex, leaving.Status = "eni-9", "att-9", 2, "detaching"
	efa.ID, efa.AttachmentID, efa.CardIndex, efa.Primary, efa.Secondary, efa.Prefixes = "eni-3", "att-3", 1, netip.Addr{}, nil, nil
	efa.SubnetID, efa.Subnet = "subnet-six", netip.Prefix{}
	if d := cmp.Diff([]vpc.ENI{full, second, leaving, efa}, got, cmpAddr); d != "" {
		t.Errorf("ENIs (-want +got):\n%s", d)
	}
	if first := w.calls[0]; first.Get("Filter.1.Name") != "attachment.instance-id" || first.Get("Filter.1.Value.1") != "i-1" {
		t.Errorf("filter of %v", first)
	}
	if _, err := c.ENIs(t.Context(), "i-1"); err != nil {
		t.Fatal(err)
	}
	want := "DescribeNetworkInterfaces DescribeNetworkInterfaces DescribeSubnets DescribeNetworkInterfaces"
	if got := w.actions(); got != want {
		t.Errorf("calls %s\nwant  %s (the subnets are remembered)", got, want)
	}
}

func TestBadAnswers(t *testing.T) {
	attached := attachmentXML("att-1", "attached", 0, 0)
	one := func(eni string) reply {
		return reply{body: "<networkInterfaceSet><item>" + eni + "</item></networkInterfaceSet>"}
	}
	good := eniXML("eni-1", "subnet-a", attached, addressesXML)
	cases := []struct {
		name         string
		enis, subnet reply
		want         string
	}{
		{"mac", one(strings.Replace(good, "02:00:00:00:00:01", "02:00", 1)), reply{body: subnetsXML}, "eni-1: EC2 answered: parse mac"},
		{"address", one(strings.Replace(good, "10.0.1.11", "10.0.1.999", 1)), reply{body: subnetsXML}, "eni-1: EC2 answered: ParseAddr"},
		{"prefix", one(strings.Replace(good, "10.0.1.32/28", "10.0.1.32", 1)), reply{body: subnetsXML}, "eni-1: EC2 answered: netip.ParsePrefix"},
		{"large prefix", one(strings.Replace(good, "10.0.1.32/28", "10.0.0.0/8", 1)), reply{body: subnetsXML}, "eni-1: EC2 answered: prefix 10.0.0.0/8 is no"},
		{"unknown subnet", one(good), reply{body: "<subnetSet/>"}, "eni-1: EC2 does not know its subnet subnet-a"},
		{"subnet CIDR", one(good), reply{body: strings.Replace(subnetsXML, "10.0.1.0/24", "ten", 1)}, "subnet subnet-a: EC2 answered: netip.ParsePrefix"},
		{"subnets refused", one(good), refuse(403, "UnauthorizedOperation", "no"), "list the ENIs of i-1: EC2 refused DescribeSubnets"},
		{"no XML", reply{status: 200, body: "<html>"}, reply{}, "list the ENIs of i-1"},
		{"error without XML", reply{status: 502, body: "Bad gateway"}, reply{}, "list the ENIs of i-1"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			w := &wire{answers: map[string][]reply{"DescribeNetworkInterfaces": {tc.enis}, "DescribeSubnets": {tc.subnet}}}
			enis, err := w.client(t).ENIs(t.Context(), "i-1")
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("ENIs = %v, %v; want an error with %q", enis, err, tc.want)
			}
		})
	}
}

func TestClasses(t *testing.T) {
	cases := []struct {
		status        int
		code, message string
		class         error
		advice        string
	}{
		{403, "UnauthorizedOperation", "You are not authorized to perform this operation.", ErrUnauthorized, "IAM action ec2:AssignPrivateIpAddresses "},
		{403, "UnauthorizedOperation", "User: arn:aws:sts::1:assumed-role/node is not authorized to perform: ec2:CreateTags on resource: arn", ErrUnauthorized, "IAM action ec2:CreateTags "},
		{401, "AuthFailure", "AWS was not able to validate the provided access credentials", ErrUnauthorized, "credentials"},
		{503, "RequestLimitExceeded", "Request limit exceeded.", ErrThrottled, "ec2:AssignPrivateIpAddresses"},
		{400, "Throttling", "Rate exceeded", ErrThrottled, "request rate"},
		{400, "InsufficientFreeAddressesInSubnet", "no", ErrSubnetFull, "another subnet"},
		{400, "InsufficientCidrBlocks", "no", ErrSubnetFull, "fragmented"},
		{400, "InvalidParameterValue", "There aren't sufficient free Ipv4 addresses or prefixes", ErrSubnetFull, "another subnet"},
		{400, "InvalidParameterValue", "something else", nil, ""},
		{400, "AttachmentLimitExceeded", "Interface count 4 exceeds the limit for m5.large", ErrLimit, "larger instance type"},
		{400, "PrivateIpAddressLimitExceeded", "Number of private addresses will exceed limit.", ErrLimit, "larger instance type"},
		{400, "InvalidInterface.IpAddressLimitExceeded", "Address count 7", ErrLimit, "larger instance type"},
		{400, "NetworkInterfaceLimitExceeded", "no", ErrLimit, "quota"},
		{400, "InvalidNetworkInterfaceID.NotFound", "The networkInterface ID 'eni-1' does not exist", ErrNotFound, "deleted"},
		{400, "InvalidSubnetID.NotFound", "no", ErrNotFound, "deleted"},
		{400, "InvalidInstanceType", "The following supplied instance types do not exist: [m99.large]", ErrNotFound, "region"},
		{400, "IncorrectState", "no", ErrState, "planned anew"},
		{400, "InvalidNetworkInterface.InUse", "Interface: [eni-1] in use", ErrState, "planned anew"},
		{400, "InvalidParameterValue", "Instance 'i-1' already has an interface attached at device index '1'.", ErrState, "planned anew"},
		{400, "InvalidParameterValue", "Network interface 'eni-1' is currently in use.", ErrState, "planned anew"},
		{400, "InvalidParameterValue", "Some of [10.0.1.4] are not assigned to interface eni-1", ErrState, "planned anew"},
		{400, "DependencyViolation", "no", nil, ""},
	}
	classes := []error{ErrUnauthorized, ErrThrottled, ErrSubnetFull, ErrLimit, ErrNotFound, ErrState, ErrUnreachable, ErrNotMarked}
	for _, tc := range cases {
		t.Run(tc.code+" "+tc.message, func(t *testing.T) {
			w := &wire{answers: map[string][]reply{"AssignPrivateIpAddresses": {refuse(tc.status, tc.code, tc.message)}}}
			_, err := w.client(t).AssignAddresses(t.Context(), "eni-1", 2)
			for _, class := range classes {
				if errors.Is(err, class) != (class == tc.class) {
					t.Errorf("error %v is %v: %v", err, class, errors.Is(err, class))
				}
			}
			want := "assign 2 addresses to eni-1: EC2 refused AssignPrivateIpAddresses: " + tc.code + ": " + tc.message + " (request id req-1)"
			if err.Error() != want {
				t.Errorf("error %s\n want %s", err, want)
			}
			if got := Advice(err); !strings.Contains(got, tc.advice) || (tc.advice == "") != (got == "") {
				t.Errorf("advice %q, want %q", got, tc.advice)
			}
		})
	}
	if got := Advice(errors.New("other")); got != "" {
		t.Errorf("advice on an error that is not ours: %q", got)
	}
}

// closedPort is an address where nobody listens, and where nobody can while the test runs:
// a port that is merely free may be another's in a moment, or the client's own.
func closedPort(t *testing.T) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", at.(*unix.SockaddrInet4).Port)
}

func TestUnreachable(t *testing.T) {
	_, err := clientAt("http://"+closedPort(t)).AssignAddresses(t.Context(), "eni-1", 1)
	if !errors.Is(err, ErrUnreachable) || !strings.Contains(Advice(err), "endpoint") {
		t.Errorf("closed port: %v, advice %q", err, Advice(err))
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = (&wire{}).client(t).AssignAddresses(ctx, "eni-1", 1)
	if errors.Is(err, ErrUnreachable) || !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}

	ctx, cancel = context.WithCancel(t.Context())
	hangs := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then does the server see the client go
		cancel()
		<-r.Context().Done()
	}))
	t.Cleanup(hangs.Close)
	_, err = clientAt(hangs.URL).AssignAddresses(ctx, "eni-1", 1)
	if errors.Is(err, ErrUnreachable) || !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled under way: %v", err)
	}

	without := func(reason error) error {
		c := New(aws.Config{Region: "eu-west-1", Retryer: func() aws.Retryer { return aws.NopRetryer{} },
			BaseEndpoint: aws.String(hangs.URL), // never asked
			Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
				return aws.Credentials{}, reason
			})})
		_, err := c.AssignAddresses(t.Context(), "eni-1", 1)
		return err
	}
	if err := without(context.Canceled); errors.Is(err, ErrUnauthorized) || !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled while getting credentials: %v", err)
	}
	err = without(errors.New("no instance profile"))
	if !errors.Is(err, ErrUnauthorized) || !strings.Contains(Advice(err), "credentials") || !strings.Contains(err.Error(), "no instance profile") {
		t.Errorf("no credentials: %v, advice %q", err, Advice(err))
	}
}
