package symmetry

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/fairway-cni/fairway/internal/core/intent"
	"github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/internal/core/vpc"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }

// site is a node with two ENIs in two subnets and a pod on each, in a VPC with a
// peering, a transit gateway and a way to the internet.
func site(change func(*intent.Config)) Site {
	s := Site{VPC: "vpc-1", Routing: vpc.Routing{
		CIDRs: []netip.Prefix{prefix("10.0.0.0/16"), prefix("100.64.0.0/16")},
		Tables: []vpc.RouteTable{
			{ID: "rtb-1", Main: true, Routes: []vpc.Route{
				{Dst: prefix("10.0.0.0/16")},
				{Dst: prefix("0.0.0.0/0"), TargetID: "igw-1"},
				{Dst: prefix("10.12.0.0/16"), Target: vpc.PeeringTarget, TargetID: "pcx-1"},
				{Dst: prefix("10.13.0.0/16"), Target: vpc.PeeringTarget, TargetID: "pcx-gone"},
				{PrefixList: "pl-1", Target: vpc.TransitTarget, TargetID: "tgw-1"},
			}},
			{ID: "rtb-2", Subnets: []string{"subnet-2"}, Routes: []vpc.Route{{Dst: prefix("10.12.0.0/16"), Target: vpc.PeeringTarget, TargetID: "pcx-1"}}},
		},
		PrefixLists: map[string][]netip.Prefix{"pl-1": {prefix("172.20.0.0/16"), prefix("172.21.0.0/16")}},
		Peerings:    map[string]bool{"pcx-1": true},
	}, Want: intent.Snapshot{Config: intent.Default()}}
	if change != nil {
		change(&s.Want.Config)
	}
	host := path.Namespace{
		Devices: path.Known([]path.Device{{Name: "lo", Kind: "loopback", MTU: 65536, Addresses: []netip.Prefix{prefix("127.0.0.1/8")}}}),
		Rules:   kernelRules(), Neighbours: path.Known([]path.Neighbour{}),
		Routes:  path.Known(parse[path.IPRoute]("default via 10.0.1.1 dev ens5", "10.0.1.0/24 dev ens5 scope link src 10.0.1.4")),
		Sysctls: path.Known(map[string]string{"net/ipv4/conf/all/rp_filter": "0", "net/ipv4/conf/all/accept_local": "0", "net/ipv4/conf/all/src_valid_mark": "0"}),
	}
	for i := range 2 {
		e := vpc.ENI{ID: fmt.Sprintf("eni-%d", i), DeviceIndex: i, SubnetID: fmt.Sprintf("subnet-%d", i+1), Subnet: prefix(fmt.Sprintf("10.0.%d.0/24", i+1)),
			Primary: addr(fmt.Sprintf("10.0.%d.4", i+1)), Secondary: []netip.Addr{addr(fmt.Sprintf("10.0.%d.5", i+1)), addr(fmt.Sprintf("10.0.%d.6", i+1))}}
		device := fmt.Sprintf("ens%d", 5+i)
		s.Want.ENIs = append(s.Want.ENIs, intent.ENI{ENI: e, Slot: node.Slot(i + 1), Device: device,
			Native: vpc.NativeOf(s.Routing, vpc.NativePolicy{}, e.SubnetID, e.Subnet)})
		veth := fmt.Sprintf("fwy%d", i)
		for j, a := range e.Secondary {
			s.Want.Pods = append(s.Want.Pods, node.Attachment{ContainerID: a.String(), IfName: "eth0", Addr: a, Slot: node.Slot(i + 1), Veth: fmt.Sprint(veth, j), Wired: true})
			host.Devices.Value = append(host.Devices.Value, path.Device{Name: fmt.Sprint(veth, j), Kind: "veth", MTU: 9001, Group: node.LinkGroup})
			conf(&host, fmt.Sprint(veth, j))
		}
		host.Devices.Value = append(host.Devices.Value, path.Device{Name: device, Kind: "eni", MTU: 9001, ENI: e.ID, Addresses: []netip.Prefix{netip.PrefixFrom(e.Primary, 24)}})
		host.Routes.Value = append(host.Routes.Value, parse[path.IPRoute](fmt.Sprintf("local %s dev %s table local proto kernel src %[1]s", e.Primary, device))...)
		conf(&host, device)
	}
	if err := host.Add(intent.Desired(s.Want)); err != nil {
		panic(err)
	}
	host.Nftables = path.Part[path.Ruleset]{} // which the agent does not read
	s.Host = host
	return s
}

func conf(ns *path.Namespace, device string) {
	for _, name := range []string{"rp_filter", "accept_local", "src_valid_mark"} {
		ns.Sysctls.Value["net/ipv4/conf/"+device+"/"+name] = "0"
	}
}

// TestWanted: what package intent wants is symmetric, in every configuration.
func TestWanted(t *testing.T) {
	for name, change := range map[string]func(*intent.Config){
		"default":               nil,
		"external SNAT":         func(c *intent.Config) { c.ExternalSNAT = true },
		"stateless":             func(c *intent.Config) { c.ExternalSNAT, c.NodePort = true, false },
		"random source ports":   func(c *intent.Config) { c.RandomizeSNAT = intent.PRNG },
		"without NodePort":      func(c *intent.Config) { c.NodePort = false },
		"rp_filter of the host": func(c *intent.Config) { c.ConfigureRPFilter = false },
	} {
		t.Run(name, func(t *testing.T) {
			s := site(change)
			proof, err := Prove(s)
			if err != nil {
				t.Fatal(err)
			}
			broken := slices.DeleteFunc(proof.Broken, func(f Finding) bool {
				// The second subnet has no way there, and nobody translates.
				return s.Want.Config.ExternalSNAT && f.ENI == "eni-1" && f.Code == path.CodeNoRoute
			})
			if proof.Classes < 20 || len(broken)+len(proof.Unknown) > 0 {
				t.Errorf("%d classes; broken %v; unknown %v", proof.Classes, broken, proof.Unknown)
			}
		})
	}
}

// TestBroken: what makes a way asymmetric is found, for the pods that it concerns.
func TestBroken(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*Site)
		eni    string
		code   path.Code
	}{
		{"the second ENI's table is lost", func(s *Site) {
			s.Host.Routes.Value = slices.DeleteFunc(s.Host.Routes.Value, func(r path.IPRoute) bool { return r.Table == 1002 || r.Table == 2002 })
		}, "eni-1", path.CodeSrcDstCheck},
		{"a rule of somebody else's comes first", func(s *Site) {
			s.Host.Rules.Value = slices.Insert(s.Host.Rules.Value, 1, parse[path.IPRule]("5: from 10.0.2.0/24 lookup main")...)
		}, "eni-1", path.CodeSrcDstCheck},
		{"the second ENI filters strictly", func(s *Site) {
			s.Host.Sysctls.Value["net/ipv4/conf/ens6/rp_filter"] = "1"
			s.Host.Sysctls.Value["net/ipv4/conf/ens6/accept_local"] = "0"
		}, "eni-1", path.CodeStrict},
		{"pods have no route", func(s *Site) {
			s.Host.Routes.Value = slices.DeleteFunc(s.Host.Routes.Value, func(r path.IPRoute) bool { return r.Table == node.PodTable && r.Kind == "unicast" })
		}, "eni-0", path.CodeHostRefuses},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := site(nil)
			tc.change(&s)
			proof, err := Prove(s)
			if err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(proof.Broken, func(f Finding) bool { return f.ENI == tc.eni && f.Code == tc.code })
			if i < 0 || !strings.Contains(proof.Broken[i].String(), string(tc.code)) {
				t.Errorf("no %s of %s in %v", tc.code, tc.eni, proof.Broken)
			}
		})
	}
}

// TestLittleKnown: a node of which EC2 has said nothing, and one without pods.
func TestLittleKnown(t *testing.T) {
	s := site(nil)
	s.Routing.Tables, s.Routing.Peerings = nil, nil
	if proof, err := Prove(s); err != nil || proof.Classes == 0 || len(proof.Broken) > 0 {
		t.Errorf("%+v, %v", proof, err)
	}
	s.Want.Pods = nil
	if proof, err := Prove(s); err != nil || proof.Classes != 0 {
		t.Errorf("without pods: %+v, %v", proof, err)
	}
}

func BenchmarkProve(b *testing.B) {
	s := site(nil)
	for b.Loop() {
		if _, err := Prove(s); err != nil {
			b.Fatal(err)
		}
	}
}

// TestEnough: who asks why one pod fails gets one answer.
func TestEnough(t *testing.T) {
	s := site(nil)
	s.Host.Routes.Value = slices.DeleteFunc(s.Host.Routes.Value, func(r path.IPRoute) bool { return r.Table == node.PodTable && r.Kind == "unicast" })
	s.Enough, s.Table = 1, []node.Object{}
	for _, o := range intent.Desired(s.Want) {
		if o.Rank() >= node.RankSet {
			s.Table = append(s.Table, o)
		}
	}
	if proof, err := Prove(s); err != nil || len(proof.Broken) != 1 {
		t.Errorf("%+v, %v", proof, err)
	}
	// A table that the kernel does not hold admits no pod.
	s.Table = slices.DeleteFunc(s.Table, func(o node.Object) bool { _, ok := o.(node.Element); return ok })
	if proof, err := Prove(s); err != nil || len(proof.Broken) != 1 || proof.Broken[0].Code != path.CodeSpoofed {
		t.Errorf("without elements: %+v, %v", proof, err)
	}
}
