package world

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/fairway-cni/fairway/lab/ec2sim"
	"github.com/fairway-cni/fairway/lab/fabric"
)

// LinkStatus is a way out of a VPC, with what the fabric dropped of the packets
// that came by it, by reason.
type LinkStatus struct {
	ID    string            `json:"id"`
	Kind  string            `json:"kind"` // KindPeering, KindTransitVPC, KindInternetGateway or KindNATGateway
	Name  string            `json:"name,omitempty"`
	VPCs  []string          `json:"vpcs"` // IDs
	Drops map[string]uint64 `json:"drops,omitempty"`
	Joins string            `json:"joins"` // what it joins, for a person
}

// links are the ways out of the VPCs of a snapshot, without drops.
func links(snap ec2sim.Snapshot) []LinkStatus {
	names := map[string]string{}
	for _, v := range snap.VPCs {
		names[v.ID] = cmp.Or(v.Tags["Name"], v.ID)
	}
	hubs := map[string]string{}
	for _, h := range snap.TransitGateways {
		hubs[h.ID] = cmp.Or(h.Tags["Name"], h.ID)
	}
	var out []LinkStatus
	for _, p := range snap.Peerings {
		if p.Status == ec2sim.PeeringActive {
			a, b := p.Requester.VPCID, p.Accepter.VPCID
			out = append(out, LinkStatus{
				ID: p.ID, Kind: KindPeering, Name: p.Tags["Name"], VPCs: []string{a, b}, Joins: names[a] + ", " + names[b],
			})
		}
	}
	for _, a := range snap.TransitAttachments {
		out = append(out, LinkStatus{
			ID: a.ID, Kind: KindTransitVPC, Name: a.Tags["Name"], VPCs: []string{a.VPCID}, Joins: names[a.VPCID] + ", " + hubs[a.GatewayID],
		})
	}
	for _, g := range snap.Gateways {
		if g.VPCID != "" {
			out = append(out, LinkStatus{
				ID: g.ID, Kind: KindInternetGateway, Name: g.Tags["Name"], VPCs: []string{g.VPCID}, Joins: names[g.VPCID] + ", internet",
			})
		}
	}
	for _, g := range snap.NATGateways {
		if g.State == ec2sim.NATAvailable {
			out = append(out, LinkStatus{ID: g.ID, Kind: KindNATGateway, Name: g.Tags["Name"], VPCs: []string{g.VPCID}, Joins: names[g.VPCID]})
		}
	}
	return out
}

func (l *Lab) linkStatus(snap ec2sim.Snapshot) ([]LinkStatus, error) {
	counters, err := l.fabric.LinkCounters()
	if err != nil {
		return nil, err
	}
	out := links(snap)
	for i := range out {
		out[i].Drops = dropsByName(counters[out[i].ID])
	}
	return out, nil
}

func dropsByName(counts map[fabric.Reason]fabric.Count) map[string]uint64 {
	if len(counts) == 0 {
		return nil
	}
	out := make(map[string]uint64)
	for reason, n := range counts {
		out[reason.String()] = n.Packets
	}
	return out
}

// writeLinks prints the table of the links, if there are any.
func (s Status) writeLinks(t io.Writer) {
	if len(s.Links) == 0 {
		return
	}
	fmt.Fprintln(t)
	fmt.Fprintln(t, "LINK\tNAME\tKIND\tJOINS\tDROPPED")
	for _, l := range s.Links {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", l.ID, cmp.Or(l.Name, "-"), strings.ReplaceAll(l.Kind, "-", " "), l.Joins, drops(l.Drops))
	}
}

// where tells what an ENI's VPC and filters are.
func (e *ENIStatus) where(snap ec2sim.Snapshot, from ec2sim.NetworkInterface) {
	e.VPC, e.Subnet, e.Groups = from.VPCID, from.SubnetID, from.Groups
	if k := slices.IndexFunc(snap.VPCs, func(v ec2sim.VPC) bool { return v.ID == from.VPCID }); k >= 0 {
		e.Region = snap.VPCs[k].Region
	}
}
