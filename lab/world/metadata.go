package world

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/fairway-cni/fairway/lab/ec2sim"
	"github.com/fairway-cni/fairway/lab/imds"
)

// roleName is the instance profile of every instance that a World describes.
const roleName = "fairway-lab"

// credentialLife is how long the role's credentials are said to be good for;
// EC2's last about six hours.
const credentialLife = 6 * time.Hour

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
		AccountID: account, AMI: i.ImageID, LaunchTime: i.LaunchedAt,
		LocalHostname: i.PrivateDNSName, LocalIPv4: i.PrivateIP, Tags: i.Tags,
	}
	if i.InstanceProfile != "" {
		// Nobody checks them; they are shaped like the real ones.
		m.Credentials = &imds.Credentials{
			Role: roleName, AccessKeyID: "ASIALAB0000000000000", SecretAccessKey: "lab", Token: "lab",
			LastUpdated: i.LaunchedAt, Expiration: time.Now().Add(credentialLife),
		}
	}
	for _, e := range snap.Interfaces {
		if e.Attachment == nil || e.Attachment.InstanceID != id {
			continue
		}
		m.Interfaces = append(m.Interfaces, metadataInterface(snap, e))
		if e.Attachment.DeviceIndex == 0 && e.Attachment.CardIndex == 0 {
			m.MAC = e.MAC.String()
		}
	}
	slices.SortFunc(m.Interfaces, func(a, b imds.Interface) int {
		return cmp.Or(cmp.Compare(a.NetworkCard, b.NetworkCard), cmp.Compare(a.DeviceNumber, b.DeviceNumber))
	})
	return m, true
}

func metadataInterface(snap ec2sim.Snapshot, e ec2sim.NetworkInterface) imds.Interface {
	in := imds.Interface{
		MAC: e.MAC.String(), ID: e.ID, OwnerID: account,
		DeviceNumber: e.Attachment.DeviceIndex, NetworkCard: e.Attachment.CardIndex,
		LocalIPv4s: append([]netip.Addr{e.Primary}, e.Secondary...), Prefixes: e.Prefixes,
		SubnetID: e.SubnetID, VPCID: e.VPCID, SecurityGroupIDs: e.Groups,
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

// account is the lab's AWS account, the one of AWS's own examples.
const account = "123456789012"
