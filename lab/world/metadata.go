package world

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/fairway-cni/fairway/lab/ec2sim"
	"github.com/fairway-cni/fairway/lab/imds"
)

// metadata is what the metadata service of an instance knows of a snapshot;
// false if the instance is not there.
func metadata(snap ec2sim.Snapshot, id string) (imds.Metadata, bool) {
	k := slices.IndexFunc(snap.Instances, func(i ec2sim.Instance) bool { return i.ID == id && alive(i) })
	if k < 0 {
		return imds.Metadata{}, false
	}
	i := snap.Instances[k]
	m := imds.Metadata{
		InstanceID: i.ID, InstanceType: i.Type, Region: regionOf(snap, i), AvailabilityZone: i.Zone,
		AccountID: Account, AMI: i.ImageID, LaunchTime: i.LaunchedAt,
		LocalHostname: i.PrivateDNSName, LocalIPv4: i.PrivateIP, Tags: i.Tags,
	}
	for _, e := range snap.Interfaces {
		if e.Attachment == nil || e.Attachment.InstanceID != id {
			continue
		}
		m.Interfaces = append(m.Interfaces, metadataInterface(snap, e))
		if e.Attachment.DeviceIndex == 0 && e.Attachment.CardIndex == 0 {
			m.MAC = e.MAC.String()
			for _, a := range m.Interfaces[len(m.Interfaces)-1].Public {
				if a.Private == e.Primary {
					m.PublicIPv4 = a.Public
				}
			}
		}
	}
	slices.SortFunc(m.Interfaces, func(a, b imds.Interface) int {
		return cmp.Or(cmp.Compare(a.NetworkCard, b.NetworkCard), cmp.Compare(a.DeviceNumber, b.DeviceNumber))
	})
	return m, true
}

func metadataInterface(snap ec2sim.Snapshot, e ec2sim.NetworkInterface) imds.Interface {
	in := imds.Interface{
		MAC: e.MAC.String(), ID: e.ID, OwnerID: Account,
		DeviceNumber: e.Attachment.DeviceIndex, NetworkCard: e.Attachment.CardIndex,
		LocalIPv4s: append([]netip.Addr{e.Primary}, e.Secondary...), Prefixes: e.Prefixes,
		SubnetID: e.SubnetID, VPCID: e.VPCID, SecurityGroupIDs: e.Groups,
	}
	public := publicAddresses(snap, e.VPCID)
	for _, private := range in.LocalIPv4s {
		if a, ok := public[private]; ok {
			in.Public = append(in.Public, imds.Association{Public: a, Private: private})
		}
	}
	for _, s := range snap.Subnets {
		if s.ID == e.SubnetID {
			in.SubnetCIDR = s.CIDR
		}
	}
	for _, v := range snap.VPCs {
		if v.ID == e.VPCID {
			in.VPCCIDRs = v.CIDRs
		}
	}
	for _, id := range e.Groups {
		for _, g := range snap.Groups {
			if g.ID == id {
				in.SecurityGroups = append(in.SecurityGroups, g.Name)
			}
		}
	}
	return in
}

// Account is the lab's AWS account, the one of AWS's own examples.
const Account = "123456789012"
