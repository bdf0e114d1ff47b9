package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/diff"
	"github.com/fairway-cni/fairway/internal/core/intent"
	"github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// foreignTable is our table in somebody else's hands.
func foreignTable(t *testing.T) (*nftables.Conn, *nftables.Table) {
	t.Helper()
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	return c, &nftables.Table{Name: node.TableName, Family: nftables.TableFamilyINet}
}

// TestDamageIsNoticedAndRepaired: whatever somebody does to the table, one
// comparison finds it and leads back.
func TestDamageIsNoticedAndRepaired(t *testing.T) {
	newNS(t)
	s := twoENIs(t)
	k := open(t)
	// Pods without devices: their elements are in the table all the same.
	s.Pods = []node.Attachment{attachment("one", "10.0.1.6", 1), attachment("two", "10.0.1.33", 2)}
	want := slices.DeleteFunc(intent.Desired(s), func(o node.Object) bool { return o.Rank() < node.RankSet })
	c, table := foreignTable(t)
	chain := func(name string) *nftables.Chain { return &nftables.Chain{Table: table, Name: name} }
	pods := &nftables.Set{Table: table, Name: "pods", IsMap: true, KeyType: nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeIPAddr), DataType: nftables.TypeVerdict}
	podKey := append(ifName(s.Pods[0].Veth), s.Pods[0].Addr.AsSlice()...)
	drop := nftables.ChainPolicyDrop
	for _, damage := range []struct {
		name string
		do   func() error
	}{
		{"the table is deleted", func() error { c.DelTable(table); return nil }},
		{"the table is asleep", func() error {
			m := ourTable.message(unix.NFT_MSG_NEWTABLE, 0)
			m.be32(unix.NFTA_TABLE_FLAGS, 1)
			return k.nft.commit([]request{{message: m}})
		}},
		{"a chain is flushed", func() error { c.FlushChain(chain("from-pod")); return nil }},
		{"a chain is gone", func() error { c.FlushChain(chain("prerouting")); c.DelChain(chain("prerouting")); return nil }},
		{"a rule of words we know is added", func() error {
			c.AddRule(&nftables.Rule{Table: table, Chain: chain("eni-1"), Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}})
			return nil
		}},
		{"a rule of words we do not know is added", func() error {
			c.AddRule(&nftables.Rule{Table: table, Chain: chain("eni-1"), Exprs: []expr.Any{&expr.Counter{}, &expr.Numgen{Register: 1, Modulus: 2}}})
			return nil
		}},
		{"a policy is changed", func() error {
			c.AddChain(&nftables.Chain{Table: table, Name: "output", Type: nftables.ChainTypeRoute, Hooknum: nftables.ChainHookOutput,
				Priority: nftables.ChainPriorityMangle, Policy: &drop})
			return nil
		}},
		{"a hook is changed", func() error {
			c.FlushChain(chain("output"))
			c.DelChain(chain("output"))
			c.AddChain(&nftables.Chain{Table: table, Name: "output", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityRaw})
			return nil
		}},
		{"a foreign chain, set, counter and quota are added", func() error {
			c.AddChain(chain("mine"))
			c.AddObj(&nftables.NamedObj{Table: table, Name: "mine", Type: nftables.ObjTypeCounter, Obj: &expr.Counter{}})
			c.AddObj(&nftables.NamedObj{Table: table, Name: "mine", Type: nftables.ObjTypeQuota, Obj: &expr.Quota{Bytes: 1}})
			return c.AddSet(&nftables.Set{Table: table, Name: "theirs", KeyType: nftables.TypeMark}, []nftables.SetElement{{Key: []byte{1, 0, 0, 0}}})
		}},
		{"an element is gone", func() error {
			return c.SetDeleteElements(pods, []nftables.SetElement{{Key: podKey, VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: "eni-1"}}})
		}},
		{"an element leads elsewhere", func() error {
			return errors.Join(
				c.SetDeleteElements(pods, []nftables.SetElement{{Key: podKey, VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: "eni-1"}}}),
				c.SetAddElements(pods, []nftables.SetElement{{Key: podKey, VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: "eni-2"}}}))
		}},
		{"a range is added to an interval set", func() error {
			return c.SetAddElements(&nftables.Set{Table: table, Name: "native", Interval: true, KeyType: nftables.TypeIPAddr},
				[]nftables.SetElement{{Key: []byte{9, 0, 0, 1}}, {Key: []byte{9, 0, 0, 7}, IntervalEnd: true}})
		}},
		{"a set has another type", func() error {
			c.DelTable(table)
			c.AddTable(table)
			return c.AddSet(&nftables.Set{Table: table, Name: "flows", KeyType: nftables.TypeIPAddr}, nil)
		}},
	} {
		have, err := k.readTable()
		if err != nil {
			t.Fatal(err)
		}
		if err := k.Converge(diff.Compare(have, want), want); err != nil {
			t.Fatalf("before %s: %v", damage.name, err)
		}
		if err := errors.Join(damage.do(), c.Flush()); err != nil {
			t.Fatalf("%s: %v", damage.name, err)
		}
		if have, err = k.readTable(); err != nil {
			t.Fatal(err)
		}
		changes := diff.Compare(have, want)
		if len(changes) == 0 {
			t.Errorf("%s: nobody notices", damage.name)
		}
		if err := k.Converge(changes, want); err != nil {
			t.Errorf("%s: %v", damage.name, err)
		}
		if have, err = k.readTable(); err != nil {
			t.Fatal(err)
		}
		if changes := diff.Compare(have, want); len(changes) > 0 {
			t.Errorf("%s: after the repair:\n%s", damage.name, lines(changes))
		}
	}
}

// TestChangesOfAnotherTable: between a comparison and its changes somebody may
// write. What is so already is success; what cannot be done says so.
func TestChangesOfAnotherTable(t *testing.T) {
	newNS(t)
	s := twoENIs(t)
	k := open(t)
	converge(t, k, s)
	one, two := attachment("one", "10.0.1.6", 1), attachment("two", "10.0.1.33", 2)
	element := func(p node.Attachment) []node.Object { return intent.Pod(s, p)[2:] }

	both := append(element(one), element(two)...)
	apply(t, k, diff.Compare(nil, both))
	apply(t, k, diff.Compare(nil, both))          // again
	apply(t, k, diff.Compare(element(one), nil))  // one goes
	apply(t, k, diff.Compare(both, nil))          // both go, of which one is gone
	apply(t, k, diff.Compare(both, element(one))) // one is gone, the other is not wanted
	settled(t, k, s)

	if err := k.nft.commit([]request{ourTable.delete()}); err != nil {
		t.Fatal(err)
	}
	apply(t, k, diff.Compare(both, nil)) // with the table all is gone
	if err := k.Apply(diff.Compare(nil, both)); !errors.Is(err, unix.ENOENT) {
		t.Errorf("element without a table: got %v, want %v", err, unix.ENOENT)
	}
	if have, err := k.readTable(); err != nil || len(have) > 0 {
		t.Errorf("a refused transaction left %v, %v", have, err)
	}
	converge(t, k, s)
	settled(t, k, s)
}

// TestOddThingsOfOursGo: routes and rules of our protocol that have no words.
func TestOddThingsOfOursGo(t *testing.T) {
	newNS(t)
	s := twoENIs(t)
	k := open(t)
	converge(t, k, s)
	l, err := netlink.LinkByName("ens6")
	if err != nil {
		t.Fatal(err)
	}
	dst := &net.IPNet{IP: net.IPv4(10, 0, 0, 0), Mask: net.CIDRMask(16, 32)}
	for _, r := range []*netlink.Route{
		{Dst: &net.IPNet{IP: net.IPv4(203, 0, 113, 0), Mask: net.CIDRMask(24, 32)}, Type: unix.RTN_BLACKHOLE},
		{Dst: dst, Priority: 7, LinkIndex: l.Attrs().Index, MTU: 1400},
		{Dst: &net.IPNet{IP: net.IPv4(203, 0, 112, 0), Mask: net.CIDRMask(24, 32)},
			MultiPath: []*netlink.NexthopInfo{{LinkIndex: l.Attrs().Index}, {LinkIndex: l.Attrs().Index, Gw: net.IPv4(10, 0, 1, 1), Flags: unix.RTNH_F_ONLINK}}},
	} {
		r.Protocol, r.Table = node.Protocol, 1001
		if err := netlink.RouteAdd(r); err != nil {
			t.Fatalf("add %v: %v", r, err)
		}
	}
	// The same destination once more: the kernel follows the first.
	if err := netlink.RouteAppend(&netlink.Route{Dst: dst, LinkIndex: l.Attrs().Index, Protocol: node.Protocol, Table: 1001}); err != nil {
		t.Fatal(err)
	}
	for i, change := range []func(*netlink.Rule){
		func(r *netlink.Rule) { r.IifName = "lo" },
		func(r *netlink.Rule) { r.Invert = true },
		func(r *netlink.Rule) { r.IPProto = unix.IPPROTO_UDP },
		func(r *netlink.Rule) { r.SuppressPrefixlen = 0 },
	} {
		r := netlink.NewRule()
		r.Family, r.Priority, r.Table, r.Protocol = unix.AF_INET, node.PodRulePriority+1+i, node.PodTable, node.Protocol
		change(r)
		if err := netlink.RuleAdd(r); err != nil {
			t.Fatal(err)
		}
	}
	want := intent.Desired(s)
	have, err := k.Read(want)
	if err != nil {
		t.Fatal(err)
	}
	changes := diff.Compare(have, want)
	if len(changes) != 8 {
		t.Errorf("got %d changes, want the removal of 8 things:\n%s", len(changes), lines(changes))
	}
	apply(t, k, changes)
	settled(t, k, s)
}

// TestEachFailureNamesItsChange: one bad change among many.
func TestEachFailureNamesItsChange(t *testing.T) {
	newNS(t)
	s := twoENIs(t)
	k := open(t)
	want := append(intent.Desired(s),
		node.Route{Table: 1001, Dst: netip.MustParsePrefix("10.9.0.0/16"), Link: "absent"},
		node.Route{Table: 1001, Dst: netip.MustParsePrefix("10.8.0.0/16"), Gateway: netip.MustParseAddr("10.0.7.1"), Link: "ens5"},
		node.Sysctl{Path: "net/ipv4/no_such_switch", Value: "1"})
	have, err := k.Read(want)
	if err != nil {
		t.Fatal(err)
	}
	err = k.Apply(diff.Compare(have, want))
	if err == nil {
		t.Fatal("no error")
	}
	for _, key := range []string{"add route table 1001 10.9.0.0/16", "add route table 1001 10.8.0.0/16 metric 0: network is unreachable", "no_such_switch"} {
		if !strings.Contains(err.Error(), key) {
			t.Errorf("error %q does not have %q", err, key)
		}
	}
	if n := strings.Count(err.Error(), "\n") + 1; n != 3 {
		t.Errorf("%d failures, want 3:\n%v", n, err)
	}
	settled(t, k, s)
}

// TestEveryFaultIsSurvived: one write in ten fails, again and again; each pass
// does the rest, and in the end all is there.
func TestEveryFaultIsSurvived(t *testing.T) {
	newNS(t)
	k := open(t)
	s := fullNode(t, k, 50)
	want := intent.Desired(s)
	fault := errors.New("fault")
	writes, faults := 0, 0
	k.FailWrites = func() error {
		if writes++; writes%10 == 0 {
			faults++
			return fault
		}
		return nil
	}
	for pass := 1; ; pass++ {
		have, err := k.Read(want)
		if err != nil {
			t.Fatal(err)
		}
		changes := diff.Compare(have, want)
		if len(changes) == 0 {
			break
		}
		before := faults
		err = k.Converge(changes, want)
		if failed := faults > before; failed != errors.Is(err, fault) {
			t.Fatalf("pass %d with %d faults: got %v", pass, faults-before, err)
		}
		if pass == 20 {
			t.Fatalf("after %d passes:\n%s", pass, lines(changes))
		}
	}
	if faults < 5 {
		t.Errorf("%d faults: that is no test", faults)
	}

	k.FailWrites = func() error { t.Error("a write"); return nil }
	for _, o := range []node.Object{want[0], nil} {
		var same []node.Object
		if o != nil {
			same = []node.Object{o}
		}
		if err := k.Converge(diff.Compare(same, same), want); err != nil {
			t.Error(err)
		}
	}

	step(t, "Wire leaves nothing behind when a write fails", func() {
		p := newPod(t)
		w := Wiring{Attachment: attachment("new", "10.0.1.6", 1), MTU: 9001, NetNS: p.ns, Netlink: p.nl}
		for nth := 1; nth <= 2; nth++ { // the node's side, then the pod's
			n := 0
			k.FailWrites = func() error {
				if n++; n == nth {
					return fault
				}
				return nil
			}
			if err := k.Wire(w); !errors.Is(err, fault) {
				t.Errorf("write %d fails: got %v, want %v", nth, err, fault)
			}
			if _, err := netlink.LinkByName(w.Veth); err == nil {
				t.Errorf("write %d fails: %s is left", nth, w.Veth)
			}
		}
		k.FailWrites = nil
		if err := errors.Join(k.Wire(w), k.Verify(w)); err != nil {
			t.Error(err)
		}
	})
}

// TestMoreThanOneDatagram: more routes than one sendmsg takes, more elements
// than one message, more of both than one datagram of a dump.
func TestMoreThanOneDatagram(t *testing.T) {
	newNS(t)
	s := twoENIs(t)
	k := open(t)
	var native []vpc.Native
	for i := range 3000 {
		native = append(native, vpc.Native{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{11, byte(i >> 8), byte(i), 0}), 24)})
	}
	for i := range s.ENIs {
		s.ENIs[i].Native = native
	}
	converge(t, k, s)
	settled(t, k, s)
	for i := range s.ENIs {
		s.ENIs[i].Native = native[1000:1001]
	}
	converge(t, k, s)
	settled(t, k, s)
}

func TestSysctls(t *testing.T) {
	newNS(t)
	s := twoENIs(t)
	k := open(t)
	converge(t, k, s)
	path := "/proc/sys/net/ipv4/conf/ens6/accept_local"
	if err := os.WriteFile(path, []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	gone := node.Sysctl{Path: "net/ipv4/conf/absent/rp_filter", Value: "0"}
	want := append(intent.Desired(s), gone)
	have, err := k.Sysctls(want)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range diff.Compare(have, want) {
		if c.Verb == diff.Replace {
			got = append(got, fmt.Sprint(c.Old, " -> ", c.New))
		}
	}
	if want := "sysctl net/ipv4/conf/ens6/accept_local = 0 -> sysctl net/ipv4/conf/ens6/accept_local = 1"; len(got) != 1 || got[0] != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if slices.ContainsFunc(have, func(o node.Object) bool { return o.Key() == gone.Key() }) {
		t.Error("a sysctl that does not exist was read")
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/conf/all/rp_filter", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	if n, err := k.HostRPFilter(); n != 1 || err != nil {
		t.Errorf("host's rp_filter: got %d, %v, want 1", n, err)
	}
}
