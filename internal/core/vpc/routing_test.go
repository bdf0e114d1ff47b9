package vpc

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNativeOf(t *testing.T) {
	p := netip.MustParsePrefix
	r := Routing{
		CIDRs: []netip.Prefix{p("10.0.0.0/16"), p("100.64.0.0/16")},
		Tables: []RouteTable{
			{ID: "rtb-main", Main: true, Routes: []Route{
				{Dst: p("10.0.0.0/16")},
				{Dst: p("0.0.0.0/0"), TargetID: "igw-1"},
				{Dst: p("10.12.0.0/16"), Target: PeeringTarget, TargetID: "pcx-1"},
				{Dst: p("10.13.0.0/16"), Target: PeeringTarget, TargetID: "pcx-pending"},
				{Dst: p("10.14.0.0/16"), Target: PeeringTarget, TargetID: "pcx-1", Blackhole: true},
				{Dst: p("10.15.0.0/16"), TargetID: "eni-1"},
				{PrefixList: "pl-1", Target: TransitTarget, TargetID: "tgw-1"},
			}},
			{ID: "rtb-own", Subnets: []string{"subnet-own"}, Routes: []Route{
				{Dst: p("0.0.0.0/0"), Target: TransitTarget, TargetID: "tgw-1"},
				{Dst: p("192.168.0.0/16"), Target: VPNTarget, TargetID: "vgw-1"},
				{Dst: p("10.0.0.0/16"), Target: TransitTarget, TargetID: "tgw-1"},
			}},
		},
		PrefixLists: map[string][]netip.Prefix{"pl-1": {p("172.20.0.0/16"), p("10.12.0.0/16")}},
		Peerings:    map[string]bool{"pcx-1": true, "pcx-pending": false},
	}
	here := []Native{{p("10.0.0.0/16"), "CIDR of the VPC"}, {p("100.64.0.0/16"), "CIDR of the VPC"}}
	for _, tt := range []struct {
		name, subnet, cidr string
		policy             NativePolicy
		want               []Native
	}{
		{"main table", "subnet-other", "10.0.1.0/24", NativePolicy{}, []Native{
			here[0], {p("10.12.0.0/16"), "route to pcx-1 in rtb-main"}, here[1], {p("172.20.0.0/16"), "route to tgw-1 in rtb-main"},
		}},
		{"own table, default never, the VPC's reason first", "subnet-own", "10.0.2.0/24", NativePolicy{}, []Native{
			here[0], here[1], {p("192.168.0.0/16"), "route to vgw-1 in rtb-own"},
		}},
		{"not routable outside", "subnet-own", "100.64.1.0/24", NativePolicy{}, here},
		{"not routable outside, but configured", "subnet-own", "198.19.1.0/24", NativePolicy{Also: []netip.Prefix{p("192.168.7.0/24")}}, []Native{
			here[0], here[1], {p("192.168.7.0/24"), "configured"},
		}},
		{"vpc only", "subnet-other", "10.0.1.0/24", NativePolicy{VPCOnly: true, Also: []netip.Prefix{p("10.12.0.0/16")}}, []Native{
			here[0], {p("10.12.0.0/16"), "configured"}, here[1],
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := NativeOf(r, tt.policy, tt.subnet, p(tt.cidr))
			if d := cmp.Diff(tt.want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
				t.Errorf("native (-want +got):\n%s", d)
			}
		})
	}
	if got := NativeOf(Routing{}, NativePolicy{}, "subnet-1", netip.Prefix{}); len(got) != 0 {
		t.Errorf("of nothing: %v, want nothing", got)
	}
}
