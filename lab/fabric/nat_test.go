package fabric

import (
	"net/netip"
	"os"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// masquerade translates all that leaves the namespace that it is called in.
func masquerade(to netip.Addr) error {
	self, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer self.Close()
	c, err := nftables.New(nftables.WithNetNSFd(int(self.Fd())))
	if err != nil {
		return err
	}
	table := c.AddTable(&nftables.Table{Name: "nat", Family: nftables.TableFamilyIPv4})
	chain := c.AddChain(&nftables.Chain{
		Name: "post", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Immediate{Register: 1, Data: to.AsSlice()},
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1},
	}})
	return c.Flush()
}

// private is a behind a NAT gateway in b's subnet.
func private() Topology {
	v := routed("vpc-1", eniA(), eniB()).public("10.0.2.200", "198.51.100.200")
	v.NATGateways = []NATGateway{{"nat-0123456789abcdef0", "subnet-i-b", adr("10.0.2.200")}}
	return world(v.route("i-a", Route{everything, ToNATGateway, "nat-0123456789abcdef0"}).route("i-b", v.toInternet()))
}

func TestNATGateway(t *testing.T) {
	f := newFabric(t)
	g := start(t, f, private())
	g["internet"].web(host)
	mustReach(t, g["i-a"], "10.0.1.10", host, "198.51.100.200")
	g["i-a"].mustPing("10.0.1.10", host)
	g["i-a"].mustBeRefused("10.0.1.10:0", host+":99")
	// The connection outlives another Sync.
	conn := g["i-a"].udp("10.0.1.10:5000")
	in := g["internet"].udp(host + ":53")
	for range 2 {
		if _, err := conn.WriteToUDPAddrPort([]byte("x"), netip.MustParseAddrPort(host+":53")); err != nil {
			t.Fatal(err)
		}
		_, from := receiveUDP(t, in)
		if from.Addr() != adr("198.51.100.200") {
			t.Errorf("from %s", from)
		}
		mustHold(t, f, private())
		if _, err := in.WriteToUDPAddrPort([]byte("y"), from); err != nil {
			t.Fatal(err)
		}
		receiveUDP(t, conn)
	}
	waitDrops(t, f, eniA().ID, map[Reason]uint64{})
	all, err := f.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := all["nat-0123456789abcdef0"]; ok {
		t.Error("the NAT gateway is counted as an ENI")
	}
}

func TestNATGatewayDropsWhatNobodyAskedFor(t *testing.T) {
	f := newFabric(t)
	g := start(t, f, private())
	// From outside to the public address, and from inside to the private one.
	to := func(guest *testGuest, from, dst string) {
		c := guest.udp(from)
		if _, err := c.WriteToUDPAddrPort([]byte("x"), netip.MustParseAddrPort(dst)); err != nil {
			t.Fatal(err)
		}
	}
	to(g["internet"], host+":7", "198.51.100.200:80")
	to(g["i-a"], "10.0.1.10:7", "10.0.2.200:80")
	g["i-a"].send(eniA(), host) // protocol 253
	waitFor(t, "three drops", func() bool {
		all, err := f.LinkCounters()
		return err == nil && all["nat-0123456789abcdef0"][NoTranslation].Packets == 3
	})
}

func TestNATGatewayGoes(t *testing.T) {
	f := newFabric(t)
	g := start(t, f, private())
	w := private()
	w.VPCs[0].NATGateways = nil
	mustHold(t, f, w)
	g["i-a"].send(eniA(), host)
	waitDrops(t, f, eniA().ID, map[Reason]uint64{NoRouteTarget: 1})
	if _, ok := f.guests[natGuest("nat-0123456789abcdef0")]; ok {
		t.Error("its namespace is held still")
	}
}
