package ec2

import (
	"context"
	"errors"
	"strings"
	"testing"
)

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
		"CreateNetworkInterface": {{status: -1}, growing(nil).answers["CreateNetworkInterface"][0]},
	})
	c := w.client(t)
	e, err := c.CreateAndAttachENI(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if e.ID != "eni-1" || e.AttachmentID != "att-1" || e.DeviceIndex != 2 || len(e.Secondary) != 2 || !e.Subnet.IsValid() {
		t.Errorf("ENI %+v", e)
	}
	const want = "DescribeSubnets CreateNetworkInterface CreateNetworkInterface AttachNetworkInterface ModifyNetworkInterfaceAttribute"
	if got := w.actions(); got != want {
		t.Fatalf("calls %s\nwant  %s", got, want)
	}
	first, second := w.calls[1].Get("ClientToken"), w.calls[2].Get("ClientToken")
	if first == "" || first != second {
		t.Errorf("client tokens %q and %q: attempts must share one", first, second)
	}
	create := w.calls[2]
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
		calls    string // after DescribeSubnets and CreateNetworkInterface
	}{
		{"not known everywhere yet", map[string][]reply{"AttachNetworkInterface": {unknown, unknown, {body: "<attachmentId>att-1</attachmentId>"}}},
			nil, "", "AttachNetworkInterface AttachNetworkInterface AttachNetworkInterface ModifyNetworkInterfaceAttribute"},
		{"attach refused", map[string][]reply{"AttachNetworkInterface": {limit}}, []error{ErrLimit},
			"attach eni-1 to i-1 as device 2", "AttachNetworkInterface DeleteNetworkInterface"},
		{"delete refused too", map[string][]reply{
			"AttachNetworkInterface": {limit}, "DeleteNetworkInterface": {refuse(403, "UnauthorizedOperation", "no")},
		}, []error{ErrLimit, ErrUnauthorized}, "delete eni-1: EC2 refused DeleteNetworkInterface", "AttachNetworkInterface DeleteNetworkInterface"},
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
			want := "DescribeSubnets CreateNetworkInterface " + tc.calls
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
