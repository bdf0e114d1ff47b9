package ec2

import (
	"errors"
	"testing"
)

// TestCreateAttachMark looks at what the calls that add an ENI send.
func TestCreateAttachMark(t *testing.T) {
	made := reply{body: "<networkInterface>" + eniXML("eni-1", "subnet-a", "", addressesXML) + "</networkInterface>"}
	w := &wire{answers: map[string][]reply{
		"DescribeSubnets":        {{body: subnetsXML}},
		"CreateNetworkInterface": {{status: -1}, made},
		"AttachNetworkInterface": {{body: "<attachmentId>att-1</attachmentId>"}},
		"ModifyNetworkInterfaceAttribute": {
			{body: "<return>true</return>"}, refuse(403, "UnauthorizedOperation", "no"),
		},
	}}
	c := w.client(t)
	spec := Spec{InstanceID: "i-1", SubnetID: "subnet-a", Groups: []string{"sg-1"}, Addresses: 3, Tags: map[string]string{"team": "net"}}
	e, err := c.CreateENI(t.Context(), spec)
	if err != nil || e.ID != "eni-1" || len(e.Secondary) != 2 || !e.Subnet.IsValid() {
		t.Fatalf("ENI %+v, %v", e, err)
	}
	attachment, err := c.AttachENI(t.Context(), e.ID, "i-1", 2, 0)
	if err != nil || attachment != "att-1" {
		t.Errorf("attachment %q, %v", attachment, err)
	}
	if err := c.MarkDeleteOnTermination(t.Context(), e.ID, attachment); err != nil {
		t.Error(err)
	}
	if err := c.MarkDeleteOnTermination(t.Context(), e.ID, attachment); !errors.Is(err, ErrNotMarked) || !errors.Is(err, ErrUnauthorized) {
		t.Errorf("mark, refused: %v", err)
	}
	if _, err := c.CreateENI(t.Context(), spec); err != nil {
		t.Error(err)
	}
	if _, err := c.AttachENI(t.Context(), e.ID, "i-1", 1, 1); err != nil {
		t.Error(err)
	}
	const want = "DescribeSubnets CreateNetworkInterface CreateNetworkInterface AttachNetworkInterface " +
		"ModifyNetworkInterfaceAttribute ModifyNetworkInterfaceAttribute CreateNetworkInterface AttachNetworkInterface"
	if got := w.actions(); got != want {
		t.Fatalf("calls %s\nwant  %s", got, want)
	}
	for i, params := range map[int]map[string]string{
		2: {"Description": "fairway i-1", "SubnetId": "subnet-a", "SecurityGroupId.1": "sg-1", "SecondaryPrivateIpAddressCount": "3", "Ipv4PrefixCount": ""},
		3: {"DeviceIndex": "2", "InstanceId": "i-1", "NetworkInterfaceId": "eni-1", "NetworkCardIndex": ""},
		4: {"Attachment.DeleteOnTermination": "true", "Attachment.AttachmentId": "att-1", "NetworkInterfaceId": "eni-1"},
		7: {"DeviceIndex": "1", "NetworkCardIndex": "1"},
	} {
		for param, want := range params {
			if got := w.calls[i].Get(param); got != want {
				t.Errorf("%s: %s = %q, want %q", w.calls[i].Get("Action"), param, got, want)
			}
		}
	}
	lost, again, other := w.calls[1].Get("ClientToken"), w.calls[2].Get("ClientToken"), w.calls[6].Get("ClientToken")
	if lost == "" || lost != again {
		t.Errorf("client tokens %q and %q: attempts must share one", lost, again)
	}
	if other == lost {
		t.Error("another creation has the same client token: EC2 would answer with the first ENI")
	}
}
