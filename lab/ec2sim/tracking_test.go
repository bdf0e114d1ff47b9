package ec2sim

import (
	"errors"
	"net/netip"
	"testing"
	"time"
)

// TestConnectionTracking: time-outs of idle flows are set when an ENI is made
// and afterwards, each by itself, within EC2's ranges.
func TestConnectionTracking(t *testing.T) {
	c := New(Config{})
	v, err := c.CreateVPC(CreateVPCInput{CIDR: netip.MustParsePrefix("10.0.0.0/16")})
	if err != nil {
		t.Fatal(err)
	}
	n, err := c.CreateSubnet(CreateSubnetInput{VPCID: v.ID, CIDR: netip.MustParsePrefix("10.0.1.0/24")})
	if err != nil {
		t.Fatal(err)
	}
	e, err := c.CreateNetworkInterface(CreateNetworkInterfaceInput{SubnetID: n.ID, Tracking: ConnectionTracking{UDP: 45 * time.Second}})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.ModifyNetworkInterfaceAttribute(ModifyNetworkInterfaceInput{ID: e.ID, Tracking: ConnectionTracking{TCPEstablished: time.Hour}}); err != nil {
		t.Fatal(err)
	}
	want := ConnectionTracking{UDP: 45 * time.Second, TCPEstablished: time.Hour}
	if got := c.Snapshot().Interfaces[0].Tracking; got != want {
		t.Errorf("tracking %+v, want %+v", got, want)
	}
	for _, bad := range []ConnectionTracking{{UDP: 29 * time.Second}, {UDP: 61 * time.Second}, {UDPStream: 59 * time.Second},
		{UDPStream: 181 * time.Second}, {TCPEstablished: 59 * time.Second}, {TCPEstablished: 432_001 * time.Second}} {
		var refused *Error
		err := c.ModifyNetworkInterfaceAttribute(ModifyNetworkInterfaceInput{ID: e.ID, Tracking: bad})
		if !errors.As(err, &refused) || refused.Code != "InvalidParameterValue" {
			t.Errorf("%+v: %v, want InvalidParameterValue", bad, err)
		}
	}
}
