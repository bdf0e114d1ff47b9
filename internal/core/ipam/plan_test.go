package ipam

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/fairway-cni/fairway/internal/core/vpc"
	"github.com/google/go-cmp/cmp"
)

// Each row is a situation, and what is asked of EC2 then. ENIs are device 0, 1
// and so on of an m5.large, with so many addresses; see node_test.go.
var planCases = []struct {
	name    string
	state   State
	targets Targets
	want    []string
}{
	// Growth, by addresses.
	{"a new node", node(has{eni: eni(0, 0)}), ips(5, 0), []string{
		"assign 5 addresses to eni-0: want 5 addresses (0 used + 5 warm), have 0; eni-0 (device 0) has room for 9",
	}},
	{"a new node, by ENIs: two at once", node(has{eni: eni(0, 0)}), warmENIs(1), []string{
		"assign 9 addresses to eni-0: want 18 addresses (1 ENI for 0 used + 1 warm), have 0; eni-0 (device 0) has room for 9",
		"create an ENI in subnet-a with 9 addresses: want 18 addresses (1 ENI for 0 used + 1 warm), have 0; no more fit on the ENIs there are (1 of 3 for m5.large)",
	}},
	{"enough", node(has{eni: eni(0, 9), held: 4}), ips(5, 0), nil},
	{"cooling is not free", node(has{eni: eni(0, 8), held: 3, cooling: 1}), ips(5, 0), []string{
		"assign 1 address to eni-0: want 9 addresses (3 used + 1 cooling + 5 warm), have 8; eni-0 (device 0) has room for 1",
	}},
	{"reserved is not free", node(has{eni: eni(0, 8), held: 3, reserved: 1}), ips(5, 0), []string{
		"assign 1 address to eni-0: want 9 addresses (4 used + 5 warm), have 8; eni-0 (device 0) has room for 1",
	}},
	{"on the way counts, and the ENI is left alone", node(has{eni: eni(0, 4), held: 4}).under(Change{Kind: AssignAddresses, ENI: "eni-0", Count: 3}), ips(5, 0), nil},
	{"its room counts too: no ENI is made because of it", node(has{eni: eni(0, 4), held: 4}).under(Change{Kind: UnassignAddresses, ENI: "eni-0"}), ips(5, 0), nil},
	{"its tags have nothing to do with it", node(has{eni: eni(0, 4), held: 4}).under(Change{Kind: TagENI, ENI: "eni-0"}), ips(5, 0), []string{
		"assign 5 addresses to eni-0: want 9 addresses (4 used + 5 warm), have 4; eni-0 (device 0) has room for 5",
	}},
	{"beyond its room one is", node(has{eni: eni(0, 4), held: 4}).under(Change{Kind: AssignAddresses, ENI: "eni-0", Count: 5}), ips(7, 0), []string{
		"create an ENI in subnet-a with 2 addresses: want 11 addresses (4 used + 7 warm), have 4, 5 on the way; no more fit on the ENIs there are (1 of 3 for m5.large)",
	}},
	{"those who wait get theirs beside the warm ones", node(has{eni: eni(0, 4), held: 4}).waiting(2), ips(2, 0), []string{
		"assign 4 addresses to eni-0: want 8 addresses (4 used + 2 without address + 2 warm), have 4; eni-0 (device 0) has room for 5",
	}},
	{"so do those who are about to come", node(has{eni: eni(0, 4), held: 4}).scheduled(2), ips(2, 0), []string{
		"assign 4 addresses to eni-0: want 8 addresses (4 used + 2 without address + 2 warm), have 4; eni-0 (device 0) has room for 5",
	}},
	{"MINIMUM_IP_TARGET alone: those who wait count", node(has{eni: eni(0, 5), held: 5}).waiting(1), ips(0, 3), []string{
		"assign 1 address to eni-0: want 6 addresses (5 used + 1 without address + 0 warm), have 5; eni-0 (device 0) has room for 4",
	}},
	{"all ENIs with room at once, in device order", node(has{eni: eni(1, 7), held: 7}, has{eni: eni(0, 8), held: 8}), ips(9, 0), []string{
		"assign 1 address to eni-0: want 24 addresses (15 used + 9 warm), have 15; eni-0 (device 0) has room for 1",
		"assign 2 addresses to eni-1: want 24 addresses (15 used + 9 warm), have 15; eni-1 (device 1) has room for 2",
		"create an ENI in subnet-a with 6 addresses: want 24 addresses (15 used + 9 warm), have 15; no more fit on the ENIs there are (2 of 3 for m5.large)",
	}},
	{"several ENIs at once", node(has{eni: eni(0, 9), held: 9}), ips(18, 0), []string{
		"create an ENI in subnet-a with 9 addresses: want 27 addresses (9 used + 18 warm), have 9; no more fit on the ENIs there are (1 of 3 for m5.large)",
		"create an ENI in subnet-a with 9 addresses: want 27 addresses (9 used + 18 warm), have 9; no more fit on the ENIs there are (2 of 3 for m5.large)",
	}},
	{"no more than the type has", node(has{eni: eni(0, 9), held: 9}).waiting(100), ips(5, 0), []string{
		"create an ENI in subnet-a with 9 addresses: want 114 addresses (9 used + 100 without address + 5 warm), have 9; no more fit on the ENIs there are (1 of 3 for m5.large)",
		"create an ENI in subnet-a with 9 addresses: want 114 addresses (9 used + 100 without address + 5 warm), have 9; no more fit on the ENIs there are (2 of 3 for m5.large)",
	}},
	{"no more than MAX_ENI", node(has{eni: eni(0, 9), held: 9}), Targets{WarmIPs: 5, MaxENIs: 1}, nil},
	{"an ENI under way takes its place", node(has{eni: eni(0, 9), held: 9}).under(Change{Kind: CreateENI, Count: 9, SubnetID: "subnet-a"}).waiting(20), ips(1, 0), []string{
		"create an ENI in subnet-a with 9 addresses: want 30 addresses (9 used + 20 without address + 1 warm), have 9, 9 on the way; no more fit on the ENIs there are (2 of 3 for m5.large)",
	}},
	{"an ENI of others takes its place", node(has{eni: eni(0, 9), held: 9}).but(func(s *State) { s.Others = []vpc.ENI{eni(1, 0)} }).waiting(30), ips(1, 0), []string{
		"create an ENI in subnet-a with 9 addresses: want 40 addresses (9 used + 30 without address + 1 warm), have 9; no more fit on the ENIs there are (2 of 3 for m5.large)",
	}},
	{"one of another card takes none", node(has{eni: eni(0, 9), held: 9}).but(func(s *State) { s.Others = []vpc.ENI{{ID: "eni-x", CardIndex: 1, DeviceIndex: 1}} }).waiting(30), ips(1, 0), []string{
		"create an ENI in subnet-a with 9 addresses: want 40 addresses (9 used + 30 without address + 1 warm), have 9; no more fit on the ENIs there are (1 of 3 for m5.large)",
		"create an ENI in subnet-a with 9 addresses: want 40 addresses (9 used + 30 without address + 1 warm), have 9; no more fit on the ENIs there are (2 of 3 for m5.large)",
	}},
	{"an ENI that is being detached has no room", node(has{eni: eni(0, 9), held: 9}, has{eni: detaching(eni(1, 3))}), ips(5, 0), []string{
		"create an ENI in subnet-a with 5 addresses: want 14 addresses (9 used + 5 warm), have 9; no more fit on the ENIs there are (2 of 3 for m5.large)",
	}},
	{"disputed for a moment: they are about to come", node(has{eni: eni(0, 9), held: 4, disputed: 5}).waiting(1), ips(0, 1), nil},
	{"disputed for long: they do not count", node(has{eni: eni(0, 9), held: 4, disputed: 5}).but(disputedFor(time.Hour)).waiting(1), ips(0, 1), []string{
		"create an ENI in subnet-a with 1 address: want 5 addresses (4 used + 1 without address + 0 warm), have 4; no more fit on the ENIs there are (1 of 3 for m5.large)",
	}},
	{"limits not known", node(has{eni: eni(0, 2)}).but(func(s *State) { s.Limits = vpc.Limits{} }).waiting(5), ips(5, 0), nil},
	{"no ENI known yet", node(), ips(5, 0), nil},
	{"no provisioning", node(has{eni: eni(0, 0)}).waiting(1), Targets{WarmIPs: 5, NoProvisioning: true, MarkAndTag: true}, nil},

	// Kubelet's limit.
	{"pods cannot use more", node(has{eni: eni(0, 9), held: 8}).maxPods(10), ips(5, 0), []string{
		"create an ENI in subnet-a with 1 address: want 10 addresses (8 used + 5 warm, at most 10 addresses for 10 pods), have 9; no more fit on the ENIs there are (1 of 3 for m5.large)",
	}},
	{"nor by ENIs", node(has{eni: eni(0, 9), held: 8}).maxPods(10), warmENIs(2), []string{
		"create an ENI in subnet-a with 1 address: want 10 addresses (1 ENI for 8 used + 2 warm, at most 10 addresses for 10 pods), have 9; no more fit on the ENIs there are (1 of 3 for m5.large)",
	}},
	{"for warmth, cooling ones count", node(has{eni: eni(0, 9), held: 4, cooling: 5}).maxPods(9), ips(5, 0), nil},
	{"for a pod they do not", node(has{eni: eni(0, 8), held: 4, cooling: 4}).maxPods(8).waiting(1), ips(5, 0), []string{
		"assign 1 address to eni-0: want 9 addresses (4 used + 4 cooling + 1 without address + 5 warm, at most 9 addresses for 8 pods), have 8; eni-0 (device 0) has room for 1",
	}},
	{"more pods than can run are not waited for", node(has{eni: eni(0, 9), held: 9}).maxPods(11).scheduled(40), ips(0, 1), []string{
		"create an ENI in subnet-a with 2 addresses: want 11 addresses (9 used + 2 without address + 0 warm), have 9; no more fit on the ENIs there are (1 of 3 for m5.large)",
	}},

	// What EC2 refused.
	{"a refused call is left alone, and no reason for an ENI", node(has{eni: eni(0, 0)}).blocks(AssignAddresses, ""), ips(5, 0), nil},
	{"an ENI that takes no more does not stop others", node(has{eni: eni(0, 5), held: 5}, has{eni: eni(1, 5), held: 5}).blocks(AssignAddresses, "eni-0"), ips(6, 0), []string{
		"assign 4 addresses to eni-1: want 16 addresses (10 used + 6 warm), have 10; eni-1 (device 1) has room for 4",
		"create an ENI in subnet-a with 2 addresses: want 16 addresses (10 used + 6 warm), have 10; no more fit on the ENIs there are (2 of 3 for m5.large)",
	}},
	{"a full subnet: an ENI in another one", node(has{eni: eni(0, 5), held: 5}).blocks(AssignAddresses, "subnet-a").but(subnets(0, 30)), ips(5, 0), []string{
		"create an ENI in subnet-b with 5 addresses: want 10 addresses (5 used + 5 warm), have 5; no more fit on the ENIs there are (1 of 3 for m5.large)",
	}},
	{"a full subnet, and no other", node(has{eni: eni(0, 5), held: 5}).blocks(AssignAddresses, "subnet-a"), ips(5, 0), nil},
	{"a refusal that is over", node(has{eni: eni(0, 0)}).but(func(s *State) {
		s.Blocked = map[BlockKey]Block{{AssignAddresses, ""}: {Until: t0}}
	}), ips(1, 0), []string{
		"assign 1 address to eni-0: want 1 address (0 used + 1 warm), have 0; eni-0 (device 0) has room for 9",
	}},
	{"no ENI can be attached: none is made", node(has{eni: eni(0, 9), held: 9}).blocks(AttachENI, ""), ips(5, 0), nil},
	{"no ENI can be made: what is there is filled", node(has{eni: eni(0, 8), held: 8}).blocks(CreateENI, ""), ips(5, 0), []string{
		"assign 1 address to eni-0: want 13 addresses (8 used + 5 warm), have 8; eni-0 (device 0) has room for 1",
	}},

	// Subnets.
	{"the subnet with the most free addresses", node(has{eni: eni(0, 9), held: 9}).but(subnets(50, 200)), ips(3, 0), []string{
		"create an ENI in subnet-b with 3 addresses: want 12 addresses (9 used + 3 warm), have 9; no more fit on the ENIs there are (1 of 3 for m5.large)",
	}},
	{"no more than it has, less the ENI's own", node(has{eni: eni(0, 9), held: 9}).but(subnets(4, 6)), ips(12, 0), []string{
		"create an ENI in subnet-b with 5 addresses: want 21 addresses (9 used + 12 warm), have 9; no more fit on the ENIs there are (1 of 3 for m5.large)",
		"create an ENI in subnet-a with 3 addresses: want 21 addresses (9 used + 12 warm), have 9; no more fit on the ENIs there are (2 of 3 for m5.large)",
	}},
	{"a count of nothing may be old", node(has{eni: eni(0, 5), held: 5}).but(subnets(0, 0)), ips(3, 0), []string{
		"assign 1 address to eni-0: want 8 addresses (5 used + 3 warm), have 5; eni-0 (device 0) has room for 4",
	}},

	// Prefixes.
	{"a new node", node(has{eni: eni(0, 0)}), prefixes(1), []string{
		"assign 1 prefix to eni-0: want 1 prefix (0 used + 1 prefix warm), have 0; eni-0 (device 0) has room for 9",
	}},
	{"one pod: two with WARM_IP_TARGET 16", node(has{eni: with(eni(0, 0), 1), held: 1}), Targets{Prefixes: true, WarmIPs: 16}, []string{
		"assign 1 prefix to eni-0: want 2 prefixes (1 used + 16 warm), have 1; eni-0 (device 0) has room for 8",
	}},
	{"fifteen free are enough for 15", node(has{eni: with(eni(0, 0), 1), held: 1}), Targets{Prefixes: true, WarmIPs: 15}, nil},
	{"as many as 64 pods need, and a warm one", node(has{eni: with(eni(0, 0), 1), held: 16}).waiting(48), prefixes(1), []string{
		"assign 4 prefixes to eni-0: want 5 prefixes (16 used + 48 without address + 1 prefix warm), have 1; eni-0 (device 0) has room for 8",
	}},
	{"an ENI with prefixes", node(has{eni: with(eni(0, 0), 9), held: 144}), prefixes(2), []string{
		"create an ENI in subnet-a with 2 prefixes: want 11 prefixes (144 used + 2 prefixes warm), have 9; no more fit on the ENIs there are (1 of 3 for m5.large)",
	}},
	{"a type without prefixes", node(has{eni: eni(0, 0)}).but(func(s *State) { s.Limits.Hypervisor = "xen" }), Targets{Prefixes: true, WarmPrefixes: 1, WarmENIs: 0}, []string{
		"assign 9 addresses to eni-0: want 9 addresses (1 ENI for 0 used + 0 warm), have 0; eni-0 (device 0) has room for 9",
	}},
	{"no prefix left: addresses for those who wait", node(has{eni: with(eni(0, 0), 1), held: 16}).blocks(AssignPrefixes, "subnet-a").waiting(3), prefixes(1), []string{
		"assign 3 addresses to eni-0: 3 pods without address, and subnet-a has no prefix left",
	}},
	{"no prefix left: none to be warm", node(has{eni: with(eni(0, 0), 1), held: 16}).blocks(AssignPrefixes, "subnet-a"), prefixes(1), nil},
	{"no prefix left, ENIs full: an ENI with addresses", node(has{eni: with(eni(0, 0), 9), held: 144}).blocks(AssignPrefixes, "subnet-a").waiting(3), prefixes(1), []string{
		"create an ENI in subnet-a with 3 addresses: 3 pods without address, and no subnet has a prefix left",
	}},
	{"no prefix left here: an ENI in another subnet", node(has{eni: with(eni(0, 0), 1), held: 16}).blocks(AssignPrefixes, "subnet-a").but(subnets(90, 40)), prefixes(1), []string{
		"create an ENI in subnet-b with 1 prefix: want 2 prefixes (16 used + 1 prefix warm), have 1; no more fit on the ENIs there are (1 of 3 for m5.large)",
	}},
	{"kubelet's limit, rounded up", node(has{eni: with(eni(0, 0), 1), held: 16}).maxPods(20), prefixes(5), []string{
		"assign 1 prefix to eni-0: want 2 prefixes (16 used + 5 prefixes warm, at most 20 addresses for 20 pods), have 1; eni-0 (device 0) has room for 8",
	}},

	// The other mode.
	{"to prefixes: free addresses do not count", node(has{eni: eni(0, 5), held: 2}), prefixes(1), []string{
		"assign 1 prefix to eni-0: want 1 prefix (2 used, of which 2 not on prefixes + 1 prefix warm), have 0; eni-0 (device 0) has room for 4",
	}},
	{"to prefixes: then they are returned", node(has{eni: with(eni(0, 5), 1), held: 2}), prefixes(1), []string{
		"unassign 10.0.0.14, 10.0.0.13, 10.0.0.12 from eni-0: prefixes take the place of single addresses",
	}},
	{"to prefixes: not those that are young", node(has{eni: with(eni(0, 2), 1), held: 1}).but(young), prefixes(1), nil},
	{"to prefixes: where there is no room they make some", node(has{eni: eni(0, 9), held: 5}), Targets{Prefixes: true, WarmPrefixes: 1, MaxENIs: 1, ReturnAfter: time.Minute}, []string{
		"unassign 10.0.0.18 from eni-0: prefixes take the place of single addresses",
	}},
	{"to addresses: but one that pods will be on does", node(has{eni: with(eni(0, 2), 1), held: 2}).scheduled(10), ips(2, 0), nil},
	{"to addresses: as far as it goes", node(has{eni: with(eni(0, 2), 1), held: 2}).scheduled(20), ips(2, 0), []string{
		"assign 6 addresses to eni-0: want 24 addresses (2 used + 20 without address + 2 warm), have 18; eni-0 (device 0) has room for 6",
	}},
	{"to addresses: a free prefix does not count", node(has{eni: with(eni(0, 2), 1), held: 2}), ips(2, 0), []string{
		"assign 2 addresses to eni-0: want 4 addresses (2 used + 2 warm), have 2; eni-0 (device 0) has room for 6",
	}},
	{"to addresses: then it is returned", node(has{eni: with(eni(0, 4), 1), held: 2}), ips(2, 0), []string{
		"unassign 10.1.0.0/28 from eni-0: single addresses take the place of prefixes",
	}},
	{"to addresses: one with a pod is as good as its addresses", node(has{eni: with(eni(0, 0), 1), held: 1}), ips(2, 0), nil},

	// Custom networking.
	{"the primary ENI gives pods nothing", node(has{eni: eni(0, 0)}).custom("subnet-pods"), ips(5, 0), []string{
		"create an ENI in subnet-pods with 5 addresses: want 5 addresses (0 used + 5 warm), have 0; no more fit on the ENIs there are (1 of 3 for m5.large)",
	}},
	{"and keeps nothing", node(has{eni: eni(0, 3), held: 1}, has{eni: in("subnet-pods", eni(1, 5))}).custom("subnet-pods"), ips(5, 0), []string{
		"unassign 10.0.0.12, 10.0.0.11 from eni-0: pods get no addresses of the primary ENI",
	}},
	{"no ENIConfig: no ENI", node(has{eni: eni(0, 0)}).custom("").but(func(s *State) { s.Network.Problem = "no ENIConfig" }).waiting(1), ips(5, 0), nil},
	{"one that is left over is of another subnet", node(has{eni: eni(0, 0)}).custom("subnet-pods").but(left(eni(5, 5))), ips(5, 0), []string{
		"create an ENI in subnet-pods with 5 addresses: want 5 addresses (0 used + 5 warm), have 0; no more fit on the ENIs there are (1 of 3 for m5.large)",
		"delete eni-5: it is attached to nothing, and not wanted",
	}},

	// ENIs that are left over.
	{"attached rather than made", node(has{eni: eni(0, 9), held: 9}).but(left(eni(5, 5))), ips(5, 0), []string{
		"attach eni-5 as device 1: want 14 addresses (9 used + 5 warm), have 9; it is there already",
	}},
	{"attached, and filled later", node(has{eni: eni(0, 9), held: 9}).but(left(eni(5, 0))), ips(5, 0), []string{
		"attach eni-5 as device 1: want 14 addresses (9 used + 5 warm), have 9; it is there already",
	}},
	{"at the lowest device that is free", node(has{eni: eni(0, 9), held: 9}, has{eni: eni(2, 9), held: 9}).but(left(eni(5, 5))), ips(5, 0), []string{
		"attach eni-5 as device 1: want 23 addresses (18 used + 5 warm), have 18; it is there already",
	}},
	{"not wanted: deleted", node(has{eni: eni(0, 9), held: 2}).but(left(eni(5, 5))), ips(7, 0), []string{
		"delete eni-5: it is attached to nothing, and not wanted",
	}},
	{"it has grown beyond what the type takes, while it was detached", node(has{eni: eni(0, 9), held: 9}).but(left(eni(5, 10))), ips(5, 0), []string{
		"create an ENI in subnet-a with 5 addresses: want 14 addresses (9 used + 5 warm), have 9; no more fit on the ENIs there are (1 of 3 for m5.large)",
		"delete eni-5: it is attached to nothing, and not wanted",
	}},
	{"not wanted, but new: somebody else may be about to attach it", node(has{eni: eni(0, 9), held: 2}).but(left(eni(5, 5))).but(func(s *State) { s.Detached[0].CreatedAt = t0.Add(-time.Second) }), ips(7, 0), nil},
	{"not wanted, and made before the clock was set back an hour", node(has{eni: eni(0, 9), held: 2}).but(left(eni(5, 5))).but(func(s *State) { s.Detached[0].CreatedAt = t0.Add(time.Hour) }), ips(7, 0), []string{"delete eni-5: it is attached to nothing, and not wanted"}},
	{"its attach is refused: no other is made", node(has{eni: eni(0, 9), held: 9}).but(left(eni(5, 5))).blocks(AttachENI, "eni-5"), ips(5, 0), nil},
	{"it is being attached: no other is made", node(has{eni: eni(0, 9), held: 9}).but(left(eni(5, 5))).under(Change{Kind: AttachENI, ENI: "eni-5", DeviceIndex: 1}), ips(5, 0), nil},

	// Shrinking.
	{"what is too much goes", node(has{eni: eni(0, 9), held: 2}), ips(5, 0), []string{
		"unassign 10.0.0.18, 10.0.0.17 from eni-0: not wanted any more",
	}},
	{"what is young stays", node(has{eni: eni(0, 9), held: 2, young: 7}), ips(5, 0), nil},
	{"nothing while EC2 does not answer", node(has{eni: eni(0, 9), held: 2}).but(func(s *State) { s.Offline = true }), ips(5, 0), nil},
	{"nothing while somebody waits", node(has{eni: eni(0, 9), held: 2}).waiting(1), ips(1, 0), nil},
	{"a whole ENI before addresses", node(has{eni: eni(0, 9), held: 3}, has{eni: made(eni(1, 4))}), ips(5, 0), []string{
		"detach eni-1: no pod has been on it for 1m0s; want 8 addresses (3 used + 5 warm), have 13",
		"unassign 10.0.0.18 from eni-0: not wanted any more",
	}},
	{"the last ENI first", node(has{eni: eni(0, 9)}, has{eni: made(eni(1, 9))}, has{eni: made(eni(2, 9))}), warmENIs(1), []string{
		"detach eni-2: no pod has been on it for 1m0s; want 18 addresses (1 ENI for 0 used + 1 warm), have 27",
	}},
	{"not one with a pod", node(has{eni: eni(0, 9), held: 3}, has{eni: made(eni(1, 4)), held: 1}), ips(5, 0), []string{
		"unassign 10.0.1.13, 10.0.1.12, 10.0.1.11 from eni-1: not wanted any more",
		"unassign 10.0.0.18 from eni-0: not wanted any more",
	}},
	{"not yet one where an address cools, and nothing in its stead", node(has{eni: eni(0, 9), held: 3}, has{eni: made(eni(1, 4)), cooling: 1}), ips(5, 0), nil},
	{"not one that somebody has attached by hand, but its addresses", node(has{eni: eni(0, 9), held: 3}, has{eni: eni(1, 2)}), ips(6, 0), []string{
		"unassign 10.0.1.11, 10.0.1.10 from eni-1: not wanted any more",
	}},
	{"by ENIs no single addresses", node(has{eni: eni(0, 9), held: 3}, has{eni: made(eni(1, 9)), held: 1}, has{eni: made(eni(2, 9)), held: 1}), warmENIs(0), nil},
	{"from the ENI with the fewest pods", node(has{eni: eni(0, 9), held: 9}, has{eni: made(eni(1, 5)), held: 1}, has{eni: made(eni(2, 5)), held: 2}), ips(4, 0), []string{
		"unassign 10.0.1.14, 10.0.1.13, 10.0.1.12 from eni-1: not wanted any more",
	}},
	{"whole prefixes only", node(has{eni: with(eni(0, 0), 4), held: 18}), prefixes(1), []string{
		"unassign 10.1.0.48/28 from eni-0: not wanted any more",
	}},
	{"no ENI that a pod's address should be of", node(has{eni: eni(0, 8), held: 3}, has{eni: made(eni(1, 0))}).but(func(s *State) {
		s.Entries = append(s.Entries, Entry{Addr: netip.MustParseAddr("10.1.0.20"), ENI: "eni-1", State: Assigned, Owner: pod(7), Orphan: true})
	}), ips(5, 0), nil},
	{"MAX_ENI was lowered", node(has{eni: eni(0, 9), held: 3}, has{eni: made(eni(1, 9))}), Targets{WarmENIs: 1, MaxENIs: 1, ReturnAfter: time.Minute}, []string{
		"detach eni-1: no pod has been on it for 1m0s; want 18 addresses (1 ENI for 3 used + 1 warm), have 18",
	}},
	{"what is being given back does not count", node(has{eni: eni(0, 9), held: 2, leaving: 2}), ips(5, 0), nil},

	// Marks and tags.
	{"an ENI of ours that would outlive the instance", node(has{eni: eni(0, 9), held: 4}, has{eni: unmarked(made(eni(1, 1))), held: 1}), ips(5, 0), []string{
		"mark eni-1 to be deleted with the instance: EC2 would leave it behind when the instance ends",
	}},
	{"one that somebody attached by hand", node(has{eni: tagged(eni(0, 9), "i-1"), held: 4}, has{eni: tagged(eni(1, 1), ""), held: 1}), ips(5, 0), []string{
		"tag eni-1: it lacks the tag node.k8s.amazonaws.com/instance_id=i-1",
	}},
	{"one whose tags are not known", node(has{eni: eni(0, 9), held: 4}), ips(5, 0), nil},
}

func detaching(e vpc.ENI) vpc.ENI { e.Status = "detaching"; return e }

func unmarked(e vpc.ENI) vpc.ENI { e.DeleteOnTermination = false; return e }

func in(subnet string, e vpc.ENI) vpc.ENI { e.SubnetID = subnet; return e }

func tagged(e vpc.ENI, instance string) vpc.ENI {
	e.Tags = map[string]string{}
	if instance != "" {
		e.Tags[InstanceTag] = instance
	}
	return e
}

func left(e vpc.ENI) func(*State) {
	return func(s *State) { s.Detached = append(s.Detached, loose(e)) }
}

func subnets(a, b int) func(*State) {
	return func(s *State) { s.Subnets = []Subnet{{ID: "subnet-a", Free: a}, {ID: "subnet-b", Free: b}} }
}

func disputedFor(d time.Duration) func(*State) {
	return func(s *State) {
		for i := range s.Entries {
			s.Entries[i].DisputedSince = t0.Add(-d)
		}
	}
}

func young(s *State) {
	for i := range s.Entries {
		s.Entries[i].Since = t0
	}
}

func TestPlan(t *testing.T) {
	for _, tc := range planCases {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			for _, c := range Plan(tc.state, tc.targets, t0) {
				got = append(got, c.String())
				groups := []string{"sg-a"}
				if tc.state.Network.Enabled {
					groups = []string{"sg-pods"}
				}
				if c.Kind == CreateENI && !slices.Equal(c.Groups, groups) {
					t.Errorf("groups %v, want %v", c.Groups, groups)
				}
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("plan (-want +got):\n%s", d)
			}
		})
	}
}
