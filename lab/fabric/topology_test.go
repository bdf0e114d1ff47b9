package fabric

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestDeviceName(t *testing.T) {
	for id, want := range map[string]string{
		"eni-1":                 "eni-1",
		"eni-0123456789a":       "eni-0123456789a",
		"eni-0123456789abcdef0": "eni-6789abcdef0",
	} {
		if got := DeviceName(id); got != want || len(got) > maxName {
			t.Errorf("DeviceName(%q) = %q, want %q", id, got, want)
		}
	}
}

func TestCheckENI(t *testing.T) {
	tests := []struct {
		name   string
		change func(*ENI)
		want   string
	}{
		{"good", func(e *ENI) {}, ""},
		{"not attached needs no device", func(e *ENI) { e.Guest, e.Device = "", "" }, ""},
		{"no id", func(e *ENI) { e.ID = "" }, `id "" is not 1 to 100 letters, digits, - and _`},
		{"id with a slash", func(e *ENI) { e.ID = "eni/1" }, `id "eni/1" is not 1 to 100 letters, digits, - and _`},
		{"no mac", func(e *ENI) { e.MAC = MAC{} }, "mac 00:00:00:00:00:00 is not the address of one device"},
		{"group mac", func(e *ENI) { e.MAC[0] = 3 }, "mac 03:0a:00:00:00:01 is not the address of one device"},
		{"router's mac", func(e *ENI) { e.MAC = RouterMAC }, "mac 02:00:00:00:00:01 is the implied router's"},
		{"no subnet", func(e *ENI) { e.Subnet = netip.Prefix{} }, "subnet invalid Prefix is not an IPv4 prefix"},
		{"no primary", func(e *ENI) { e.Primary = netip.Addr{} }, "primary address invalid IP is not in its subnet 10.0.1.0/24"},
		{"primary elsewhere", func(e *ENI) { e.Primary = netip.MustParseAddr("10.0.2.1") }, "primary address 10.0.2.1 is not in its subnet 10.0.1.0/24"},
		{"ipv6 address", func(e *ENI) { e.Addresses = []netip.Addr{netip.IPv6Loopback()} }, "address ::1 is not IPv4"},
		{"host bits", func(e *ENI) { e.Prefixes = []netip.Prefix{netip.MustParsePrefix("10.0.1.1/28")} }, "prefix 10.0.1.1/28 is not an IPv4 prefix without host bits"},
		{"everything", func(e *ENI) { e.Prefixes = []netip.Prefix{everything} }, "prefix 0.0.0.0/0 is not an IPv4 prefix without host bits"},
		{"mtu", func(e *ENI) { e.MTU = 67 }, "mtu 67 is not within 68..65535"},
		{"long device", func(e *ENI) { e.Device = "ens5678901234567" }, `device "ens5678901234567" is no device name of 1 to 15 characters`},
		{"device with a slash", func(e *ENI) { e.Device = "a/b" }, `device "a/b" is no device name of 1 to 15 characters`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := eniA()
			tt.change(&e)
			got := ""
			if err := e.check(); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestCheckTopology(t *testing.T) {
	same, clash := eniA(), eniB()
	clash.ID = "eni-1aaaaaaaaaaaaaaa1" // the same last 11 characters as eniA's
	twice := eniB()
	twice.Addresses = []netip.Addr{twice.Primary}
	other := vpcOf(eniA())
	badCIDR := VPC{ID: "vpc-3", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/16")}}
	got := Topology{VPCs: []VPC{vpcOf(eniA(), same, clash, twice, eniB()), other, badCIDR, {ID: ""}}}.check()
	want := `eni eni-0aaaaaaaaaaaaaaa1: is in the topology twice
eni eni-1aaaaaaaaaaaaaaa1: device eni-aaaaaaaaaa1 belongs to eni-0aaaaaaaaaaaaaaa1
eni eni-0bbbbbbbbbbbbbbb1: address 10.0.2.10/32 is given twice
vpc vpc-1: is in the topology twice
vpc vpc-3: cidr 10.0.0.1/16 is not an IPv4 prefix without host bits
vpc : id "" is not 1 to 100 letters, digits, - and _`
	if diff := cmp.Diff(want, errors.Join(got.errs...).Error()); diff != "" {
		t.Errorf("errors (-want +got):\n%s", diff)
	}
	if len(got.vpcs) != 1 || len(got.vpcs[0].ENIs) != 2 {
		t.Errorf("left of the topology: %+v, want vpc-1 with two ENIs", got.vpcs)
	}
}

func TestWantedRoutes(t *testing.T) {
	ea, eb := eniA(), eniB()
	ea.Prefixes = []netip.Prefix{netip.MustParsePrefix("10.0.1.32/28")}
	sinks := map[string]int{sinkNoOwner: 2, sinkNotAttached: 3, sinkNoRoute: 4}
	got := map[string]nextHop{}
	for k, hop := range wantedRoutes(vpcOf(ea, eb), map[string]int{ea.ID: 1000}, sinks) {
		name := k.dst.String()
		if k.table == unix.RT_TABLE_DEFAULT {
			name += " answers"
		}
		got[name] = hop
	}
	want := map[string]nextHop{
		"0.0.0.0/0":         {4, sinkGateway},
		"10.0.0.0/16":       {2, sinkGateway},
		"10.0.1.10/32":      {1000, ea.Primary},
		"10.0.1.32/28":      {1000, ea.Primary},
		"10.0.2.10/32":      {3, sinkGateway},
		"0.0.0.0/0 answers": {1000, ea.Primary},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(nextHop{}), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("routes (-want +got):\n%s", diff)
	}
}
