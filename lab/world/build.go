package world

import (
	"fmt"

	"github.com/fairway-cni/fairway/lab/ec2sim"
)

// build makes what the World describes, by the calls that anyone would use.
func build(c *ec2sim.Cloud, w *World) error {
	subnets := make(map[[2]string]string)
	for _, v := range w.VPCs {
		made, err := c.CreateVPC(ec2sim.CreateVPCInput{CIDR: v.CIDRs[0], Tags: named(v.Name)})
		if err != nil {
			return fmt.Errorf("%s: create vpc %q: %w", v.Pos, v.Name, err)
		}
		for _, cidr := range v.CIDRs[1:] {
			if _, err := c.AssociateVPCCIDRBlock(ec2sim.AssociateVPCCIDRBlockInput{VPCID: made.ID, CIDR: cidr}); err != nil {
				return fmt.Errorf("%s: add cidr %s to vpc %q: %w", v.Pos, cidr, v.Name, err)
			}
		}
		for _, s := range v.Subnets {
			subnet, err := c.CreateSubnet(ec2sim.CreateSubnetInput{VPCID: made.ID, CIDR: s.CIDR, Zone: s.Zone, Tags: named(s.Name)})
			if err != nil {
				return fmt.Errorf("%s: create subnet %q: %w", s.Pos, s.Name, err)
			}
			subnets[[2]string{v.Name, s.Name}] = subnet.ID
		}
	}
	for _, i := range w.Instances {
		_, err := c.RunInstances(ec2sim.RunInstancesInput{
			Type: i.Type,
			Interfaces: []ec2sim.LaunchInterface{{
				SubnetID: subnets[[2]string{i.VPC, i.Subnet}],
				Addresses: ec2sim.Addressing{
					Count:       i.SecondaryAddresses,
					PrefixCount: i.Prefixes,
				},
			}},
			Tags:            named(i.Name),
			Metadata:        ec2sim.Metadata{HopLimit: i.HopLimit, Tokens: "required"},
			InstanceProfile: roleName,
		})
		if err != nil {
			return fmt.Errorf("%s: run instance %q: %w", i.Pos, i.Name, err)
		}
	}
	return nil
}

func named(name string) map[string]string { return map[string]string{"Name": name} }
