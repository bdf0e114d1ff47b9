package differential

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/fairway-cni/fairway/lab/ec2sim"
	"github.com/fairway-cni/fairway/lab/iproute"
)

// enisAndVeths are the host's devices that have another end at a pod.
func (s *scene) enisAndVeths(h *host) ([]string, error) {
	r, err := iproute.Parse([]string{"link", "show"})
	if err != nil {
		return nil, err
	}
	links, err := iproute.Do(h.NetNS, r)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, l := range links.Links {
		if strings.HasPrefix(l.Name, "eni") || strings.HasPrefix(l.Name, "lxc") {
			out = append(out, l.Name)
		}
	}
	return out, nil
}

// dropRule takes one ip rule away, or a route, as a program that cleans up too
// much does.
func (s *scene) dropRule(name string, ns *os.File) error {
	r, err := iproute.Parse([]string{"-4", "rule", "show"})
	if err != nil {
		return err
	}
	all, err := iproute.Do(ns, r)
	if err != nil {
		return err
	}
	rules := slices.Collect(strings.Lines(all.Text(r)))
	rules = slices.DeleteFunc(rules, func(l string) bool {
		return strings.HasPrefix(l, "0:") || strings.HasPrefix(l, "32766:") || strings.HasPrefix(l, "32767:")
	})
	if len(rules) > 0 && !s.d.in(3) {
		prio, rest, _ := strings.Cut(strings.TrimSpace(one(s.d, rules...)), ":")
		return s.ip(name, ns, "rule delete pref "+prio+" "+strings.ReplaceAll(rest, "from all ", ""))
	}
	if r, err = iproute.Parse([]string{"-4", "route", "show"}); err != nil {
		return err
	}
	if all, err = iproute.Do(ns, r); err != nil {
		return err
	}
	routes := slices.Collect(strings.Lines(all.Text(r)))
	if len(routes) == 0 {
		return nil
	}
	return s.ip(name, ns, "route delete "+route.Replace(strings.TrimSpace(one(s.d, routes...))))
}

// route takes away what a route is in just now, which is not what it is known by: a
// device is without a carrier until the other end is up.
var route = strings.NewReplacer(" linkdown", "", " dead", "")

// damageVPCs takes away what routes and rules lead to.
func (s *scene) damageVPCs(ctx context.Context) error {
	snap := s.lab.Cloud().Snapshot()
	for _, p := range snap.Peerings {
		if s.d.in(8) {
			s.note("delete peering %s", p.ID)
			if err := s.lab.Cloud().In(p.Requester.Region).DeleteVPCPeeringConnection(ec2sim.VPCPeeringInput{ID: p.ID}); err != nil {
				return err
			}
		}
	}
	for _, g := range snap.NATGateways {
		if s.d.in(10) {
			s.note("delete NAT gateway %s", g.ID)
			if err := s.lab.Cloud().In(regionOf(snap, g.VPCID)).DeleteNATGateway(ec2sim.DeleteNATGatewayInput{ID: g.ID}); err != nil {
				return err
			}
		}
	}
	if err := s.lab.Settle(ctx); err != nil {
		return fmt.Errorf("settle: %w", err)
	}
	return nil
}
