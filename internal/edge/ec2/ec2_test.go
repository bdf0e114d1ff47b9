package ec2

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

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
				eniXML("eni-3", "subnet-a", attachmentXML("att-3", "attached", 1, 0), ""), // EFA only
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
		ID: "eni-1", AttachmentID: "att-1", MAC: vpc.MAC{2, 0, 0, 0, 0, 1}, SubnetID: "subnet-a",
		Subnet: netip.MustParsePrefix("10.0.1.0/24"), Primary: netip.MustParseAddr("10.0.1.4"), Groups: []string{"sg-1"},
		Secondary: []netip.Addr{netip.MustParseAddr("10.0.1.10"), netip.MustParseAddr("10.0.1.11")},
		Prefixes:  []netip.Prefix{netip.MustParsePrefix("10.0.1.32/28")},
	}
	second, efa := full, full
	second.ID, second.AttachmentID, second.DeviceIndex = "eni-2", "att-2", 1
	second.SubnetID, second.Subnet = "subnet-b", netip.MustParsePrefix("10.0.2.0/24")
	efa.ID, efa.AttachmentID, efa.CardIndex, efa.Primary, efa.Secondary, efa.Prefixes = "eni-3", "att-3", 1, netip.Addr{}, nil, nil
	if d := cmp.Diff([]vpc.ENI{full, second, efa}, got, cmpAddr); d != "" {
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
	t.Run("assigned address", func(t *testing.T) {
		w := &wire{answers: map[string][]reply{"AssignPrivateIpAddresses": {{
			body: "<assignedPrivateIpAddressesSet><item><privateIpAddress>x</privateIpAddress></item></assignedPrivateIpAddressesSet>"}}}}
		if _, err := w.client(t).AssignAddresses(t.Context(), "eni-1", 1); err == nil || !strings.Contains(err.Error(), "EC2 answered") {
			t.Errorf("AssignAddresses: %v", err)
		}
	})
	t.Run("created nothing", func(t *testing.T) {
		w := &wire{answers: map[string][]reply{"CreateNetworkInterface": {{}}}}
		if _, err := w.client(t).CreateAndAttachENI(t.Context(), spec); err == nil || !strings.Contains(err.Error(), "without the ENI") {
			t.Errorf("CreateAndAttachENI: %v", err)
		}
	})
}

var spec = Spec{InstanceID: "i-1", SubnetID: "subnet-a", Groups: []string{"sg-1"}, DeviceIndex: 2, Addresses: 3,
	Tags: map[string]string{"team": "net"}}

// growing answers a whole creation well, apart from what override says.
func growing(override map[string][]reply) *wire {
	w := &wire{answers: map[string][]reply{
		"CreateNetworkInterface":          {{body: "<networkInterface>" + eniXML("eni-1", "subnet-a", "", addressesXML) + "</networkInterface>"}},
		"DescribeSubnets":                 {{body: subnetsXML}},
		"AttachNetworkInterface":          {{body: "<attachmentId>att-1</attachmentId>"}},
		"ModifyNetworkInterfaceAttribute": {{body: "<return>true</return>"}},
		"DeleteNetworkInterface":          {{body: "<return>true</return>"}},
	}}
	for action, replies := range override {
		w.answers[action] = replies
	}
	return w
}

func TestCreateAndAttachENI(t *testing.T) {
	w := growing(map[string][]reply{
		"CreateNetworkInterface": {refuse(503, "RequestLimitExceeded", "slow down"), growing(nil).answers["CreateNetworkInterface"][0]},
	})
	c := w.client(t)
	e, err := c.CreateAndAttachENI(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if e.ID != "eni-1" || e.AttachmentID != "att-1" || e.DeviceIndex != 2 || len(e.Secondary) != 2 || !e.Subnet.IsValid() {
		t.Errorf("ENI %+v", e)
	}
	const want = "CreateNetworkInterface CreateNetworkInterface DescribeSubnets AttachNetworkInterface ModifyNetworkInterfaceAttribute"
	if got := w.actions(); got != want {
		t.Fatalf("calls %s\nwant  %s", got, want)
	}
	first, second := w.calls[0].Get("ClientToken"), w.calls[1].Get("ClientToken")
	if first == "" || first != second {
		t.Errorf("client tokens %q and %q: attempts must share one", first, second)
	}
	create := w.calls[1]
	var tags []string
	for i := range 3 {
		n := "TagSpecification.1.Tag." + string(rune('1'+i))
		tags = append(tags, create.Get(n+".Key"))
	}
	slices.Sort(tags)
	if d := cmp.Diff([]string{TagCreated, TagInstance, "team"}, tags); d != "" {
		t.Errorf("tags (-want +got):\n%s", d)
	}
	for param, want := range map[string]string{
		"Description": "fairway i-1", "SubnetId": "subnet-a", "SecurityGroupId.1": "sg-1", "SecondaryPrivateIpAddressCount": "3",
	} {
		if got := create.Get(param); got != want {
			t.Errorf("%s = %q, want %q", param, got, want)
		}
	}
	attach, modify := w.calls[3], w.calls[4]
	if attach.Get("DeviceIndex") != "2" || attach.Get("InstanceId") != "i-1" || attach.Has("NetworkCardIndex") {
		t.Errorf("attach %v", attach)
	}
	if modify.Get("Attachment.DeleteOnTermination") != "true" || modify.Get("Attachment.AttachmentId") != "att-1" {
		t.Errorf("modify %v", modify)
	}
	if _, err := c.CreateAndAttachENI(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	if third := w.calls[5].Get("ClientToken"); third == first {
		t.Error("another creation has the same client token: EC2 would answer with the first ENI")
	}
	if got := len(w.calls); got != 5+3 {
		t.Errorf("%d calls for the second ENI, want 3", got-5)
	}
}

func TestCreateFails(t *testing.T) {
	unknown := refuse(400, "InvalidNetworkInterfaceID.NotFound", "The networkInterface ID 'eni-1' does not exist")
	limit := refuse(400, "AttachmentLimitExceeded", "Interface count 4 exceeds the limit for m5.large")
	cases := []struct {
		name     string
		override map[string][]reply
		is       []error
		text     string // of the error; none if empty
		calls    string // after CreateNetworkInterface and DescribeSubnets
	}{
		{"not known everywhere yet", map[string][]reply{"AttachNetworkInterface": {unknown, unknown, {body: "<attachmentId>att-1</attachmentId>"}}},
			nil, "", "AttachNetworkInterface AttachNetworkInterface AttachNetworkInterface ModifyNetworkInterfaceAttribute"},
		{"attach refused", map[string][]reply{"AttachNetworkInterface": {limit}}, []error{ErrLimit},
			"attach eni-1 to i-1 as device 2", "AttachNetworkInterface DeleteNetworkInterface"},
		{"delete refused too", map[string][]reply{
			"AttachNetworkInterface": {limit}, "DeleteNetworkInterface": {refuse(403, "UnauthorizedOperation", "no")},
		}, []error{ErrLimit, ErrUnauthorized}, "delete eni-1 again: EC2 refused DeleteNetworkInterface", "AttachNetworkInterface DeleteNetworkInterface"},
		{"delete must wait too", map[string][]reply{"AttachNetworkInterface": {limit}, "DeleteNetworkInterface": {unknown, {}}},
			[]error{ErrLimit}, "attach eni-1", "AttachNetworkInterface DeleteNetworkInterface DeleteNetworkInterface"},
		{"never known", map[string][]reply{"AttachNetworkInterface": {unknown}, "DeleteNetworkInterface": {unknown}}, []error{ErrNotFound},
			"attach eni-1", strings.Repeat("AttachNetworkInterface ", 6) + strings.TrimSpace(strings.Repeat("DeleteNetworkInterface ", 6))},
		{"bad answer", map[string][]reply{"CreateNetworkInterface": {{body: "<networkInterface>" +
			strings.Replace(eniXML("eni-1", "subnet-a", "", ""), "02:00", "zz", 1) + "</networkInterface>"}}}, nil,
			"parse mac", "DeleteNetworkInterface"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			w := growing(tc.override)
			e, err := w.client(t).CreateAndAttachENI(t.Context(), spec)
			if (err == nil) != (tc.text == "") || (err != nil && !strings.Contains(err.Error(), tc.text)) {
				t.Errorf("error %v, want %q", err, tc.text)
			}
			if err != nil && e.ID != "" {
				t.Errorf("an error, but also ENI %+v", e)
			}
			for _, is := range tc.is {
				if !errors.Is(err, is) {
					t.Errorf("error %v is not %v", err, is)
				}
			}
			want := "CreateNetworkInterface DescribeSubnets " + tc.calls
			if got := w.actions(); got != want {
				t.Errorf("calls %s\nwant  %s", got, want)
			}
		})
	}
	t.Run("not marked", func(t *testing.T) {
		w := growing(map[string][]reply{"ModifyNetworkInterfaceAttribute": {refuse(403, "UnauthorizedOperation", "no")}})
		e, err := w.client(t).CreateAndAttachENI(t.Context(), spec)
		if !errors.Is(err, ErrNotMarked) || !errors.Is(err, ErrUnauthorized) || e.AttachmentID != "att-1" {
			t.Errorf("ENI %+v, error %v; want the ENI and ErrNotMarked", e, err)
		}
		if strings.Contains(w.actions(), "Delete") {
			t.Errorf("an attached ENI was deleted: %s", w.actions())
		}
	})
	t.Run("cancelled while EC2 does not know it", func(t *testing.T) {
		w := growing(map[string][]reply{"AttachNetworkInterface": {unknown}})
		c := w.client(t)
		ctx, cancel := context.WithCancel(t.Context())
		calls := 0
		err := c.onceKnown(ctx, func() error {
			calls++
			cancel()
			return wrap("AttachNetworkInterface", "attach", &fakeAPIError{"InvalidNetworkInterfaceID.NotFound", "no"})
		})
		if !errors.Is(err, context.Canceled) || !errors.Is(err, ErrNotFound) || calls != 1 {
			t.Errorf("error %v after %d calls, want one call, Canceled and ErrNotFound", err, calls)
		}
		if err := c.delete(ctx, "eni-1"); err != nil {
			t.Errorf("the clean-up must outlive the context: %v", err)
		}
	})
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
		{400, "IncorrectState", "no", nil, ""},
	}
	classes := []error{ErrUnauthorized, ErrThrottled, ErrSubnetFull, ErrLimit, ErrNotFound, ErrUnreachable, ErrNotMarked}
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

func TestUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	_, err = clientAt("http://"+l.Addr().String()).AssignAddresses(t.Context(), "eni-1", 1)
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
