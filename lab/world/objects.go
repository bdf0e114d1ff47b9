package world

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/fairway-cni/fairway/lab/ec2sim"
)

// The kinds of an [Object], in EC2's words.
const (
	KindVPC              = "vpc"
	KindBlock            = "vpc-cidr-block-association"
	KindSubnet           = "subnet"
	KindInstance         = "instance"
	KindENI              = "network-interface"
	KindAttachment       = "network-interface-attachment"
	KindGroup            = "security-group"
	KindPrefixList       = "prefix-list"
	KindACL              = "network-acl"
	KindACLAssociation   = "network-acl-association"
	KindRouteTable       = "route-table"
	KindTableAssociation = "route-table-association"
	KindInternetGateway  = "internet-gateway"
	KindNATGateway       = "nat-gateway"
	KindAddress          = "elastic-ip"
	KindMapping          = "elastic-ip-association"
	KindPeering          = "vpc-peering-connection"
	KindTransitGateway   = "transit-gateway"
	KindTransitVPC       = "transit-gateway-attachment"
	KindTransitTable     = "transit-gateway-route-table"
	KindFlowLog          = "vpc-flow-log"
)

// Object is a name that something in the lab's EC2 has. One thing may have
// several: a route table its own, those of the subnets that it serves, and as
// the main one that of its VPC.
type Object struct {
	Kind   string `json:"kind"`
	ID     string `json:"id"`
	Name   string `json:"name"`
	Scope  string `json:"scope,omitempty"`  // name of the VPC, transit gateway or instance that it is in
	Region string `json:"region,omitempty"` // empty: of no one region
	After  string `json:"after,omitempty"`  // kind of what it is named after; empty: the name is its own
}

// Objects is all that has a name, and the region of calls that name none.
type Objects struct {
	Region  string   `json:"region"`
	Objects []Object `json:"objects"`
}

// roster collects the names of a snapshot.
type roster struct {
	vpcs    map[string]ec2sim.VPC
	subnets map[string]ec2sim.Subnet
	hubs    map[string]ec2sim.TransitGateway
	found   []Object
}

func tagged(tags map[string]string) string { return tags["Name"] }

// add takes what has a name.
func (n *roster) add(o Object) {
	if o.ID != "" && o.Name != "" {
		n.found = append(n.found, o)
	}
}

// in takes what has a name of its own in a VPC.
func (n *roster) in(vpcID, kind, id, name string) {
	v := n.vpcs[vpcID]
	n.add(Object{Kind: kind, ID: id, Name: name, Scope: tagged(v.Tags), Region: v.Region})
}

// after takes what is named after something else in a VPC, or the VPC itself.
func (n *roster) after(vpcID, kind, id, of, name string) {
	v := n.vpcs[vpcID]
	n.add(Object{Kind: kind, ID: id, Name: name, Scope: tagged(v.Tags), Region: v.Region, After: of})
}

// allNames lists all names of a snapshot. It is pure.
func allNames(snap ec2sim.Snapshot) []Object {
	n := &roster{vpcs: map[string]ec2sim.VPC{}, subnets: map[string]ec2sim.Subnet{}, hubs: map[string]ec2sim.TransitGateway{}}
	for _, v := range snap.VPCs {
		n.vpcs[v.ID] = v
	}
	for _, s := range snap.Subnets {
		n.subnets[s.ID] = s
	}
	for _, h := range snap.TransitGateways {
		n.hubs[h.ID] = h
	}
	n.networks(snap)
	n.filters(snap)
	n.instances(snap)
	n.gateways(snap)
	n.transit(snap)
	return n.found
}

func (n *roster) networks(snap ec2sim.Snapshot) {
	for _, v := range snap.VPCs {
		name := tagged(v.Tags)
		n.add(Object{Kind: KindVPC, ID: v.ID, Name: name, Region: v.Region})
		for _, p := range v.CIDRs {
			n.after(v.ID, KindBlock, ec2sim.BlockAssociationID(v.ID, p), KindVPC, p.String())
		}
		n.after(v.ID, KindRouteTable, v.MainRouteTable, KindVPC, name)
		n.after(v.ID, KindTableAssociation, v.MainAssociation, KindVPC, name)
	}
	for _, s := range snap.Subnets {
		name := tagged(s.Tags)
		n.in(s.VPCID, KindSubnet, s.ID, name)
		n.after(s.VPCID, KindRouteTable, cmp.Or(s.RouteTable, n.vpcs[s.VPCID].MainRouteTable), KindSubnet, name)
		n.after(s.VPCID, KindTableAssociation, s.RouteTableAssociation, KindSubnet, name)
		n.after(s.VPCID, KindACL, s.ACL, KindSubnet, name)
		n.after(s.VPCID, KindACLAssociation, s.ACLAssociation, KindSubnet, name)
	}
	for _, t := range snap.RouteTables {
		n.in(t.VPCID, KindRouteTable, t.ID, tagged(t.Tags))
	}
	for _, l := range snap.FlowLogs {
		v, ok := n.vpcs[l.ResourceID]
		if !ok {
			v = n.vpcs[n.subnets[l.ResourceID].VPCID]
		}
		n.add(Object{Kind: KindFlowLog, ID: l.ID, Name: tagged(l.Tags), Region: v.Region})
	}
}

func (n *roster) filters(snap ec2sim.Snapshot) {
	for _, l := range snap.PrefixLists {
		n.add(Object{Kind: KindPrefixList, ID: l.ID, Name: l.Name, Region: l.Region})
	}
	for _, g := range snap.Groups {
		n.in(g.VPCID, KindGroup, g.ID, g.Name)
	}
	for _, a := range snap.ACLs {
		n.in(a.VPCID, KindACL, a.ID, tagged(a.Tags))
		if a.Default {
			n.in(a.VPCID, KindACL, a.ID, defaultName)
		}
	}
}

func (n *roster) instances(snap ec2sim.Snapshot) {
	names := map[string]string{}
	for _, i := range snap.Instances {
		if i.State == ec2sim.StateTerminated {
			continue
		}
		names[i.ID] = i.Name
		n.add(Object{Kind: KindInstance, ID: i.ID, Name: i.Name, Region: n.vpcs[i.VPCID].Region})
	}
	for _, e := range snap.Interfaces {
		region := n.vpcs[e.VPCID].Region
		n.add(Object{Kind: KindENI, ID: e.ID, Name: tagged(e.Tags), Region: region})
		a := e.Attachment
		if a == nil {
			continue
		}
		on := cmp.Or(names[a.InstanceID], a.InstanceID)
		n.add(Object{Kind: KindENI, ID: e.ID, Name: deviceName(*a), Scope: on, Region: region})
		n.add(Object{Kind: KindAttachment, ID: a.ID, Name: deviceName(*a), Scope: on, Region: region})
		if a.DeviceIndex == 0 && a.CardIndex == 0 {
			n.add(Object{Kind: KindENI, ID: e.ID, Name: on, Region: region, After: KindInstance})
		}
	}
}

func (n *roster) gateways(snap ec2sim.Snapshot) {
	for _, g := range snap.Gateways {
		n.in(g.VPCID, KindInternetGateway, g.ID, tagged(g.Tags))
		n.after(g.VPCID, KindInternetGateway, g.ID, KindVPC, tagged(n.vpcs[g.VPCID].Tags))
	}
	for _, g := range snap.NATGateways {
		n.in(g.VPCID, KindNATGateway, g.ID, tagged(g.Tags))
	}
	for _, a := range snap.Addresses {
		n.add(Object{Kind: KindAddress, ID: a.ID, Name: tagged(a.Tags), Region: a.Region})
		n.add(Object{Kind: KindMapping, ID: a.AssociationID, Name: tagged(a.Tags), Region: a.Region})
	}
	for _, p := range snap.Peerings {
		if p.EndedAt.IsZero() {
			n.add(Object{Kind: KindPeering, ID: p.ID, Name: tagged(p.Tags)})
		}
	}
}

func (n *roster) transit(snap ec2sim.Snapshot) {
	for _, h := range snap.TransitGateways {
		n.add(Object{Kind: KindTransitGateway, ID: h.ID, Name: tagged(h.Tags), Region: h.Region})
		n.add(Object{Kind: KindTransitTable, ID: h.AssociationTable, Name: tagged(h.Tags), Region: h.Region, After: KindTransitGateway})
	}
	for _, a := range snap.TransitAttachments {
		h := n.hubs[a.GatewayID]
		n.add(Object{Kind: KindTransitVPC, ID: a.ID, Name: tagged(a.Tags), Scope: tagged(h.Tags), Region: h.Region})
		n.add(Object{Kind: KindTransitVPC, ID: a.ID, Name: tagged(n.vpcs[a.VPCID].Tags), Scope: tagged(h.Tags), Region: h.Region, After: KindVPC})
	}
	for _, t := range snap.TransitTables {
		h := n.hubs[t.GatewayID]
		n.add(Object{Kind: KindTransitTable, ID: t.ID, Name: tagged(t.Tags), Scope: tagged(h.Tags), Region: h.Region})
	}
}

func (l *Lab) objectRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET /objects", func(w http.ResponseWriter, _ *http.Request) {
		l.writeJSON(w, Objects{Region: l.cfg.World.Region, Objects: allNames(l.cloud.Snapshot())})
	})
}

// Objects asks for all that has a name.
func (r *Remote) Objects(ctx context.Context) (Objects, error) {
	var all Objects
	b, err := r.call(ctx, http.MethodGet, "/objects")
	if err != nil {
		return all, err
	}
	if err := json.Unmarshal(b, &all); err != nil {
		return all, fmt.Errorf("read objects: %w", err)
	}
	return all, nil
}
