package kernel

import (
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"github.com/fairway-cni/fairway/internal/core/node"
)

// TestClear: nothing of ours is left, and all that others have is.
func TestClear(t *testing.T) {
	newNS(t)
	k := open(t)
	s := twoENIs(t)
	foreign, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	foreign.AddTable(&nftables.Table{Name: "theirs", Family: nftables.TableFamilyINet})
	if err := foreign.Flush(); err != nil {
		t.Fatal(err)
	}
	dev, err := netlink.LinkByName(s.ENIs[1].Device)
	if err != nil {
		t.Fatal(err)
	}
	theirs, _ := netlink.ParseAddr("192.0.2.7/24")
	if err := netlink.AddrAdd(dev, theirs); err != nil {
		t.Fatal(err)
	}
	before := addressesOf(t, k)
	converge(t, k, s)
	if after := addressesOf(t, k); len(after) != len(before)+1 {
		t.Fatalf("addresses %v, then %v: want one of ours more", before, after)
	}
	for range 2 { // again is no failure
		if _, err := k.Clear(); err != nil {
			t.Fatal(err)
		}
		have, err := k.Read(nil)
		if err != nil || len(have) > 0 {
			t.Errorf("left: %v (%v)", have, err)
		}
	}
	after := addressesOf(t, k)
	if strings.Join(after, " ") != strings.Join(before, " ") {
		t.Errorf("addresses %v, want those of before, %v", after, before)
	}
	tables, err := foreign.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil || len(tables) != 1 || tables[0].Name == node.TableName {
		t.Errorf("tables %v (%v), want the foreign one alone", tables, err)
	}
	converge(t, k, s) // and it can be there again
	settled(t, k, s)
}

func addressesOf(t *testing.T, k *Kernel) []string {
	t.Helper()
	all, err := readAddresses(k.route, 0)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, a := range all {
		list = append(list, a.prefix.String())
	}
	return list
}
