package fabric

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

func TestSyncErrors(t *testing.T) {
	f := newFabric(t)
	a, b := newGuest(t, f, "i-a"), newGuest(t, f, "i-b")
	taken := eniA() // the guest has a device of that name already
	taken.Device = "lo"
	lost := testENI("eni-0ccccccccccccccc1", "i-nowhere", MAC{2, 0xc, 0, 0, 0, 1}, "10.0.3.10")
	bad := testENI("eni-0ddddddddddddddd1", "i-a", MAC{2, 0xd, 0, 0, 0, 1}, "10.0.2.10") // eniB's address
	res, err := f.Sync(context.Background(), Topology{VPCs: []VPC{vpcOf(taken, eniB(), lost, bad)}})
	if !res.ENIs[eniB().ID].Plugged {
		t.Errorf("one failure kept another ENI from being plugged: %v", err)
	}
	for id, want := range map[string]string{
		taken.ID: "plug eni eni-0aaaaaaaaaaaaaaa1 into i-a as lo: create veth: file exists",
		lost.ID:  "plug eni eni-0ccccccccccccccc1 into i-nowhere: no such guest in the fabric",
		bad.ID:   "eni eni-0ddddddddddddddd1: address 10.0.2.10/32 belongs to eni-0bbbbbbbbbbbbbbb1",
	} {
		if got := res.ENIs[id]; got.Plugged || got.Err == nil || got.Err.Error() != want {
			t.Errorf("%s: status %+v, want error %q", id, got, want)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("joined error %q lacks %q", err, want)
		}
	}
	// The same again with the causes gone.
	mustSync(t, f, vpcOf(eniA(), eniB()))
	a.boot(eniA())
	b.boot(eniB())
	b.serve("10.0.2.10:80", "b")
	a.mustAsk("10.0.1.10", "10.0.2.10:80", "b to 10.0.1.10")

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := f.Sync(ctx, Topology{VPCs: []VPC{vpcOf(eniA())}}); err == nil || !strings.Contains(err.Error(), "context canceled") {
		t.Errorf("sync with a cancelled context: %v", err)
	}
}

func TestReboot(t *testing.T) {
	f := newFabric(t)
	newGuest(t, f, "i-a")
	mustSync(t, f, vpcOf(eniA()))
	// The instance comes back with a namespace of its own, under the same ID.
	again := newGuest(t, f, "i-a")
	mustSync(t, f, vpcOf(eniA()))
	if got := links(t, again); !cmp.Equal(got, []string{"lo", "ens5"}) {
		t.Errorf("devices after the reboot: %v", got)
	}
	f.RemoveGuest("i-a")
	res, err := f.Sync(context.Background(), Topology{VPCs: []VPC{vpcOf(eniA())}})
	if err == nil || res.ENIs[eniA().ID].Plugged {
		t.Errorf("plugged into a removed guest: %+v, %v", res, err)
	}
	if got := links(t, again); !cmp.Equal(got, []string{"lo"}) {
		t.Errorf("devices of a removed guest: %v", got)
	}
}

// TestRemoveWhatIsGone has the kernel be faster: it takes a dead guest's devices
// away, and what leads to them, when it comes to it, which may be after Sync has
// listed them.
func TestRemoveWhatIsGone(t *testing.T) {
	f := newFabric(t)
	newGuest(t, f, "i-a")
	mustSync(t, f, vpcOf(eniA()))
	v := f.vpcs["vpc-1"]
	neighbours, err := v.permanentNeighbours()
	if err != nil || len(neighbours) != 1 {
		t.Fatalf("neighbours: %v, %v; want one", neighbours, err)
	}
	routes, err := v.allRoutes()
	routes = slices.DeleteFunc(routes, func(r netlink.Route) bool { return r.LinkIndex != neighbours[0].LinkIndex })
	if err != nil || len(routes) == 0 {
		t.Fatalf("routes: %v, %v; want some to the eni", routes, err)
	}
	device, err := v.nl.LinkByIndex(neighbours[0].LinkIndex)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.nl.LinkDel(device); err != nil {
		t.Fatal(err)
	}
	if errs := v.removeNeighbours(neighbours); len(errs) > 0 {
		t.Error(errs)
	}
	if errs := v.removeRoutes(routes); len(errs) > 0 {
		t.Error(errs)
	}
	if err := v.removeLinks([]netlink.Link{device}); err != nil {
		t.Error(err)
	}
}

// TestMarkedForDeletion: a removal that failed half-way has left a device in the
// group that the next one deletes, and by then it is wanted again.
func TestMarkedForDeletion(t *testing.T) {
	f := newFabric(t)
	newGuest(t, f, "i-a")
	newGuest(t, f, "i-b")
	mustSync(t, f, vpcOf(eniA(), eniB()))
	v := f.vpcs["vpc-1"]
	device := func() netlink.Link {
		t.Helper()
		l, err := v.nl.LinkByIndex(f.ports[eniA().ID].index)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	if err := v.nl.LinkSetGroup(device(), deadGroup); err != nil {
		t.Fatal(err)
	}
	mustSync(t, f, vpcOf(eniA(), eniB()))
	if group := device().Attrs().Group; group == deadGroup {
		t.Error("the device is still marked for deletion")
	}
	mustSync(t, f, vpcOf(eniA())) // removes the other's
	device()
}

// vpcDump is what the kernel says of a VPC's namespace, less what changes by
// itself: carrier, statistics, ages.
func vpcDump(t *testing.T, f *Fabric, vpc string) []any {
	t.Helper()
	return placeDump(t, f, f.vpcs[vpc])
}

func placeDump(t *testing.T, f *Fabric, n *vpcNet) []any {
	t.Helper()
	var all []any
	err := netns.Do(n.ns, func() error {
		list, err := netlink.LinkList()
		if err != nil {
			return err
		}
		for _, l := range list {
			at := *l.Attrs()
			at.Statistics, at.OperState, at.ParentIndex = nil, 0, 0 // the parent is the guest's
			at.Flags &= net.FlagUp
			at.RawFlags &= unix.IFF_UP | unix.IFF_NOARP
			all = append(all, at)
			for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
				filters, err := netlink.FilterList(l, parent)
				if err != nil {
					return err
				}
				all = append(all, filters)
			}
			addrs, err := netlink.AddrList(l, unix.AF_INET)
			if err != nil {
				return err
			}
			all = append(all, addrs)
		}
		for _, table := range []int{unix.RT_TABLE_MAIN, unix.RT_TABLE_DEFAULT, unix.RT_TABLE_LOCAL} {
			routes, err := netlink.RouteListFiltered(unix.AF_INET, &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
			if err != nil {
				return err
			}
			all = append(all, routes)
		}
		tables, err := n.allRoutes()
		if err != nil {
			return err
		}
		for _, r := range tables {
			all = append(all, r.String())
		}
		rules, err := netlink.RuleList(unix.AF_INET)
		if err != nil {
			return err
		}
		var lines []string
		for _, r := range rules {
			lines = append(lines, fmt.Sprint(r.Priority, r.Mark, r.Mask != nil, r.IifName, r.Table))
		}
		slices.Sort(lines)
		all = append(all, lines)
		neighs, err := netlink.NeighList(0, unix.AF_INET)
		slices.SortFunc(neighs, func(a, b netlink.Neigh) int { return a.LinkIndex - b.LinkIndex })
		for _, n := range neighs {
			if n.State == unix.NUD_PERMANENT {
				n.Confirmed, n.Used, n.Updated = 0, 0, 0
				all = append(all, n)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	maps, err := f.readMaps()
	if err != nil {
		t.Fatal(err)
	}
	return append(all, maps.enis, maps.owned, maps.drops)
}

var dumpOptions = cmp.Options{
	cmp.AllowUnexported(netlink.BpfFilter{}),
	cmp.Comparer(func(a, b map[uint32]bpfEni) bool { return maps.Equal(a, b) }),
	cmp.Comparer(func(a, b map[bpfOwnedKey]uint8) bool { return maps.Equal(a, b) }),
}

func TestSyncTwiceChangesNothingAndDriftIsMended(t *testing.T) {
	f := newFabric(t)
	newGuest(t, f, "i-a")
	newGuest(t, f, "i-b")
	ea := eniA()
	ea.Prefixes = []netip.Prefix{netip.MustParsePrefix("10.0.1.32/28")}
	topology := vpcOf(ea, eniB(), testENI("eni-0ccccccccccccccc1", "", MAC{2, 0xc, 0, 0, 0, 1}, "10.0.3.10"))
	mustSync(t, f, topology)
	want := vpcDump(t, f, "vpc-1")
	mustSync(t, f, topology)
	if diff := cmp.Diff(want, vpcDump(t, f, "vpc-1"), dumpOptions); diff != "" {
		t.Fatalf("second Sync changed the kernel (-first +second):\n%s", diff)
	}

	v := f.vpcs["vpc-1"]
	endA, err := v.nl.LinkByName(DeviceName(ea.ID))
	if err != nil {
		t.Fatal(err)
	}
	drifts := []struct {
		name string
		harm func() error
	}{
		{"route gone", func() error {
			return v.nl.RouteDel(&netlink.Route{Dst: ipNet(netip.MustParsePrefix("10.0.2.10/32")), Table: unix.RT_TABLE_MAIN})
		}},
		{"route stolen", func() error {
			return v.nl.RouteReplace(&netlink.Route{
				Dst: ipNet(netip.MustParsePrefix("10.0.2.10/32")), LinkIndex: endA.Attrs().Index,
				Protocol: unix.RTPROT_STATIC,
			})
		}},
		{"route added", func() error {
			return v.nl.RouteAdd(&netlink.Route{Dst: ipNet(netip.MustParsePrefix("8.8.8.8/32")), LinkIndex: endA.Attrs().Index})
		}},
		{"neighbour changed", func() error {
			return v.nl.NeighSet(&netlink.Neigh{LinkIndex: endA.Attrs().Index, State: unix.NUD_PERMANENT, IP: ea.Primary.AsSlice(), HardwareAddr: macB[:]})
		}},
		{"program detached", func() error {
			return v.nl.FilterDel(&netlink.BpfFilter{FilterAttrs: netlink.FilterAttrs{
				LinkIndex: endA.Attrs().Index, Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1, Priority: mainPriority, Protocol: unix.ETH_P_ALL,
			}})
		}},
		{"owned address gone", func() error {
			return f.objs.Owned.Delete(bpfOwnedKey{Prefixlen: 64, Ifindex: uint32(endA.Attrs().Index), Addr: beUint32(ea.Primary)})
		}},
		{"check turned off", func() error {
			return f.writeENIs(map[uint32]bpfEni{uint32(endA.Attrs().Index): {Mac: macA, Ifindex: uint32(endA.Attrs().Index)}})
		}},
		{"filter set", func() error {
			entry, _, err := f.readENI(uint32(endA.Attrs().Index))
			if err != nil {
				return err
			}
			entry.Filter.Flags = filterGroups
			return f.writeENIs(map[uint32]bpfEni{entry.Ifindex: entry})
		}},
		{"eni forgotten", func() error { return f.removeENI(uint32(endA.Attrs().Index)) }},
		{"place of another", func() error {
			return f.objs.Places.Put(uint32(endA.Attrs().Index)%eniSlots, uint32(eniSlots-1))
		}},
		{"end set down", func() error { return v.nl.LinkSetDown(endA) }},
		{"alias and mtu changed", func() error {
			if err := v.nl.LinkSetMTU(endA, 1500); err != nil {
				return err
			}
			return v.nl.LinkSetAlias(endA, "mine")
		}},
	}
	for _, d := range drifts {
		t.Run(d.name, func(t *testing.T) {
			if err := d.harm(); err != nil {
				t.Fatal(err)
			}
			if cmp.Equal(want, vpcDump(t, f, "vpc-1"), dumpOptions) {
				t.Fatal("the dump does not see the harm")
			}
			mustSync(t, f, topology)
			if diff := cmp.Diff(want, vpcDump(t, f, "vpc-1"), dumpOptions); diff != "" {
				t.Errorf("not mended (-want +got):\n%s", diff)
			}
		})
	}
}
