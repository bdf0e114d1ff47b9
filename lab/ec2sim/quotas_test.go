package ec2sim

import (
	"fmt"
	"testing"
)

// Each quota refuses the one too many with its code, and changes nothing.
func TestQuotas(t *testing.T) {
	q := Quotas{VPCs: 2, Subnets: 2, SecurityGroups: 3, RouteTables: 3, ElasticAddresses: 2, NetworkInterfaces: 3}
	c := New(Config{Quotas: q, Regions: []string{"eu-west-1", "us-east-1"}})
	v, n := place(t, c)
	other := must(c.CreateVPC(CreateVPCInput{CIDR: prefix("10.1.0.0/16")}))(t)
	for _, tt := range []struct {
		code string
		fit  int // more that there is room for
		do   func(i int, c *Cloud) error
	}{
		{"VpcLimitExceeded", 0, func(i int, c *Cloud) error {
			_, err := c.CreateVPC(CreateVPCInput{CIDR: prefix("10.0.0.0/16")})
			return err
		}},
		{"SubnetLimitExceeded", 1, func(i int, c *Cloud) error {
			_, err := c.CreateSubnet(CreateSubnetInput{VPCID: v.ID, CIDR: prefix(fmt.Sprintf("10.0.%d.0/24", 100+i))})
			return err
		}},
		{"SecurityGroupLimitExceeded", 1, func(i int, c *Cloud) error {
			_, err := c.CreateSecurityGroup(CreateSecurityGroupInput{VPCID: v.ID, Name: fmt.Sprint("g", i), Description: "d"})
			return err
		}},
		{"RouteTableLimitExceeded", 2, func(i int, c *Cloud) error {
			_, err := c.CreateRouteTable(CreateRouteTableInput{VPCID: v.ID})
			return err
		}},
		{"AddressLimitExceeded", 2, func(i int, c *Cloud) error {
			_, err := c.AllocateAddress(AllocateAddressInput{})
			return err
		}},
		{"NetworkInterfaceLimitExceeded", 3, func(i int, c *Cloud) error {
			_, err := c.CreateNetworkInterface(CreateNetworkInterfaceInput{SubnetID: n.ID})
			return err
		}},
	} {
		for i := range tt.fit {
			if err := tt.do(i, c); err != nil {
				t.Errorf("%s: the %dth: %v", tt.code, i+1, err)
			}
		}
		before := c.Snapshot()
		if err := tt.do(tt.fit, c); errCode(err) != tt.code {
			t.Errorf("one too many: %v, want %s", err, tt.code)
		}
		if diff := sameSnapshot(before, c.Snapshot()); diff != "" {
			t.Errorf("%s: a refusal has changed:\n%s", tt.code, diff)
		}
	}
	if _, err := c.RunInstances(RunInstancesInput{Type: "m5.large", SubnetID: n.ID}); errCode(err) != "NetworkInterfaceLimitExceeded" {
		t.Errorf("a launch: %v", err)
	}
	if _, err := c.In("us-east-1").CreateVPC(CreateVPCInput{CIDR: prefix("10.0.0.0/16")}); err != nil {
		t.Errorf("another region: %v", err)
	}
	if _, err := c.CreateSubnet(CreateSubnetInput{VPCID: other.ID, CIDR: prefix("10.1.0.0/24")}); err != nil {
		t.Errorf("another VPC: %v", err)
	}
	if q := DefaultQuotas(); len(q.All()) != 8 || *q.All()[5].Limit != 5000 {
		t.Errorf("defaults %+v", q)
	}
}

// A VPC of twelve units: instances' addresses, prefixes and further ENIs count,
// what is on no instance does not.
func TestAddressUsage(t *testing.T) {
	c := New(Config{Quotas: Quotas{AddressUsage: 12, PeeredAddressUsage: 15}})
	v, n := place(t, c)
	i := must(c.RunInstances(RunInstancesInput{Type: "m5.4xlarge", SubnetID: n.ID}))(t).Instances[0]
	usage := func(want int) {
		t.Helper()
		if got := c.state.usage()[v.ID]; got != want {
			t.Errorf("%d units, want %d", got, want)
		}
	}
	usage(1)
	e := must(c.CreateNetworkInterface(CreateNetworkInterfaceInput{SubnetID: n.ID, Addresses: Addressing{Count: 5}}))(t)
	usage(1)
	must(c.AttachNetworkInterface(AttachNetworkInterfaceInput{InterfaceID: e.ID, InstanceID: i.ID, DeviceIndex: 1}))(t)
	usage(8) // its six addresses and itself
	must(c.AssignPrivateIPAddresses(AssignPrivateIPAddressesInput{ID: e.ID, PrefixCount: 2}))(t)
	usage(10)
	before := c.Snapshot()
	if _, err := c.AssignPrivateIPAddresses(AssignPrivateIPAddressesInput{ID: e.ID, PrefixCount: 3}); errCode(err) != "NetworkAddressUsageLimitExceeded" {
		t.Errorf("assign: %v", err)
	}
	two := must(c.CreateNetworkInterface(CreateNetworkInterfaceInput{SubnetID: n.ID, Addresses: Addressing{Count: 1}}))(t)
	if _, err := c.AttachNetworkInterface(AttachNetworkInterfaceInput{InterfaceID: two.ID, InstanceID: i.ID, DeviceIndex: 2}); errCode(err) != "NetworkAddressUsageLimitExceeded" {
		t.Errorf("attach: %v", err)
	}
	if _, err := c.RunInstances(RunInstancesInput{Type: "m5.large", SubnetID: n.ID, Min: 3, Max: 3}); errCode(err) != "NetworkAddressUsageLimitExceeded" {
		t.Errorf("launch: %v", err)
	}
	if err := c.DeleteNetworkInterface(DeleteNetworkInterfaceInput{ID: two.ID}); err != nil {
		t.Fatal(err)
	}
	if diff := sameSnapshot(before, c.Snapshot()); diff != "" {
		t.Errorf("refusals have changed:\n%s", diff)
	}

	// With the VPC that it is peered with it may have fifteen.
	w := must(c.CreateVPC(CreateVPCInput{CIDR: prefix("10.9.0.0/16")}))(t)
	m := must(c.CreateSubnet(CreateSubnetInput{VPCID: w.ID, CIDR: prefix("10.9.1.0/24")}))(t)
	must(c.RunInstances(RunInstancesInput{Type: "m5.large", SubnetID: m.ID, Min: 5, Max: 5}))(t)
	p := must(c.CreateVPCPeeringConnection(CreateVPCPeeringInput{VPCID: v.ID, PeerVPCID: w.ID}))(t)
	must(c.AcceptVPCPeeringConnection(VPCPeeringInput{ID: p.ID}))(t)
	if _, err := c.RunInstances(RunInstancesInput{Type: "m5.large", SubnetID: m.ID}); errCode(err) != "NetworkAddressUsagePeeredLimitExceeded" {
		t.Errorf("a launch beside a peer: %v", err)
	}
}
