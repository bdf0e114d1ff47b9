package fabric

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestGroupRules(t *testing.T) {
	l := newFilterLab(t, eniA(), eniB())
	udp53, ping := udp(5000, 53), message(8, 0, 1, nil)
	tests := []struct {
		name     string
		groups   []string
		sg1, sg2 []GroupRule
		protocol Protocol
		payload  []byte
		pass     bool
	}{
		{"nil is not filtered", nil, nil, nil, UDP, udp53, true},
		{"no group allows nothing", []string{}, nil, nil, UDP, udp53, false},
		{"no rule allows nothing", []string{"sg-1"}, nil, nil, UDP, udp53, false},
		{"all", []string{"sg-1"}, []GroupRule{allRule}, nil, UDP, udp53, true},
		{"port", []string{"sg-1"}, []GroupRule{allow(UDP, 53, 53, "10.0.0.0/16")}, nil, UDP, udp53, true},
		{"another port", []string{"sg-1"}, []GroupRule{allow(UDP, 54, 60, "10.0.0.0/16")}, nil, UDP, udp53, false},
		{"last port of a range", []string{"sg-1"}, []GroupRule{allow(UDP, 7, 53, "10.0.0.0/16")}, nil, UDP, udp53, true},
		{"another protocol", []string{"sg-1"}, []GroupRule{allow(TCP, 0, 65535, "10.0.0.0/16")}, nil, UDP, udp53, false},
		{"another remote", []string{"sg-1"}, []GroupRule{allow(UDP, 53, 53, "10.0.8.0/21")}, nil, UDP, udp53, false},
		{"one address", []string{"sg-1"}, []GroupRule{allow(UDP, 53, 53, "10.0.1.10/32"), allow(UDP, 53, 53, "10.0.2.10/32")}, nil, UDP, udp53, true},
		{"a longer prefix does not hide a shorter", []string{"sg-1"}, []GroupRule{allow(UDP, 53, 53, "10.0.0.0/16"), allow(TCP, 1, 2, "10.0.0.0/22"), allow(TCP, 1, 2, "10.0.1.10/32")}, nil, UDP, udp53, true},
		{"union: the second group's", []string{"sg-1", "sg-2"}, []GroupRule{allow(TCP, 1, 2, "10.0.0.0/22")}, []GroupRule{allow(UDP, 53, 53, "10.0.0.0/16")}, UDP, udp53, true},
		{"another eni's group", []string{"sg-1"}, nil, []GroupRule{allRule}, UDP, udp53, false},
		{"ping", []string{"sg-1"}, []GroupRule{allow(ICMP, 8, 0, "10.0.0.0/16")}, nil, ICMP, ping, true},
		{"ping by type", []string{"sg-1"}, []GroupRule{allow(ICMP, 8, -1, "10.0.0.0/16")}, nil, ICMP, ping, true},
		{"ping by all of icmp", []string{"sg-1"}, []GroupRule{allow(ICMP, -1, -1, "10.0.0.0/16")}, nil, ICMP, ping, true},
		{"another icmp type", []string{"sg-1"}, []GroupRule{allow(ICMP, 0, -1, "10.0.0.0/16")}, nil, ICMP, ping, false},
		{"another icmp code", []string{"sg-1"}, []GroupRule{allow(ICMP, 8, 1, "10.0.0.0/16")}, nil, ICMP, ping, false},
		{"protocol without ports", []string{"sg-1"}, []GroupRule{{Protocol: 47, CIDR: vpcCIDR}}, nil, 47, make([]byte, 8), true},
		{"protocol that no rule has", []string{"sg-1"}, []GroupRule{{Protocol: 47, CIDR: vpcCIDR}}, nil, 50, make([]byte, 8), false},
	}
	for i, tt := range tests {
		for _, dir := range []string{"in", "out"} {
			t.Run(tt.name+" "+dir, func(t *testing.T) {
				// Each has an identifier or port of its own: a new flow.
				payload := append([]byte{}, tt.payload...)
				if tt.protocol == ICMP {
					payload[5] = byte(i)
				} else {
					payload[1] = byte(i)
				}
				if tt.protocol == 50 || tt.protocol == 47 {
					age(t, l.f, time.Hour)
				}
				if dir == "in" {
					l.a.Groups, l.b.Groups = nil, tt.groups
					l.vpc.Groups = []SecurityGroup{{ID: "sg-1", Ingress: tt.sg1}, {ID: "sg-2", Ingress: tt.sg2}}
				} else {
					l.a.Groups, l.b.Groups = tt.groups, nil
					l.vpc.Groups = []SecurityGroup{{ID: "sg-1", Egress: tt.sg1}, {ID: "sg-2", Egress: tt.sg2}}
				}
				l.sync()
				switch frame := l.ab(tt.protocol, payload); {
				case tt.pass:
					l.passes(frame)
				case dir == "in":
					l.dropped(frame, SGIngress, l.b)
				default:
					l.dropped(frame, SGEgress, l.a)
				}
			})
		}
	}
}

// The whole way of TCP, by kernels: each end's group has only the rule for its side.
func TestGroupsCarryTCP(t *testing.T) {
	f := newFabric(t)
	a, b := newGuest(t, f, "i-a"), newGuest(t, f, "i-b")
	ea, eb := eniA(), eniB()
	ea.Groups, eb.Groups = []string{"sg-client"}, []string{"sg-server"}
	v := vpcOf(ea, eb)
	v.Groups = []SecurityGroup{
		{ID: "sg-client", Egress: []GroupRule{{Protocol: TCP, Ports: Ports{80, 80}, Group: "sg-server"}}},
		{ID: "sg-server", Ingress: []GroupRule{{Protocol: TCP, Ports: Ports{80, 80}, Group: "sg-client"}}},
	}
	mustSync(t, f, v)
	a.boot(ea)
	b.boot(eb)
	b.serve("10.0.2.10:80", "b")
	a.mustAsk("10.0.1.10", "10.0.2.10:80", "b to 10.0.1.10")
	for _, id := range []string{ea.ID, eb.ID} {
		if got := packets(t, f, id); len(got) != 0 {
			t.Errorf("drops of %s: %v", id, got)
		}
	}
}

func TestRepliesPassAsTracked(t *testing.T) {
	l := newFilterLab(t, eniA(), eniB())
	l.vpc.Groups = []SecurityGroup{{ID: "sg-out", Egress: []GroupRule{
		allow(TCP, 80, 80, "10.0.0.0/16"), allow(UDP, 53, 53, "10.0.0.0/16"), allow(ICMP, 8, -1, "10.0.0.0/16"), {Protocol: 47, CIDR: vpcCIDR}}}}
	l.a.Groups = []string{"sg-out"}
	l.sync()
	gre := make([]byte, 8)
	tests := []struct {
		name            string
		protocol        Protocol
		ask, reply, not []byte
	}{
		{"tcp", TCP, tcp(4000, 80, syn), tcp(80, 4000, syn|ack), tcp(80, 4001, syn|ack)},
		{"udp", UDP, udp(4000, 53), udp(53, 4000), udp(54, 4000)},
		{"ping", ICMP, message(8, 0, 7, nil), message(0, 0, 7, nil), message(0, 0, 8, nil)},
		{"ping back with the same identifier", ICMP, message(8, 0, 9, nil), message(0, 0, 9, nil), message(8, 0, 9, nil)},
		{"gre", 47, gre, gre, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l.dropped(l.ba(tt.protocol, tt.reply), SGIngress, l.a)
			l.passes(l.ab(tt.protocol, tt.ask))
			l.passes(l.ba(tt.protocol, tt.reply))
			l.passes(l.ab(tt.protocol, tt.ask))
			if tt.not != nil {
				l.dropped(l.ba(tt.protocol, tt.not), SGIngress, l.a)
			}
		})
	}
}

// An ICMP answer that a rule lets out makes no flow: nobody may ask by it.
func TestICMPAnswerBeginsNoFlow(t *testing.T) {
	l := newFilterLab(t, eniA(), eniB())
	l.a.Groups = []string{"sg-out"}
	l.vpc.Groups = []SecurityGroup{{ID: "sg-out", Egress: []GroupRule{allRule}}}
	l.sync()
	l.passes(l.ab(ICMP, message(0, 0, 7, nil)))
	l.dropped(l.ba(ICMP, message(8, 0, 7, nil)), SGIngress, l.a)
}

// A flow is known to an ENI by what the ENI itself saw of it.
func TestFlowBelongsToENI(t *testing.T) {
	l := newFilterLab(t, eniA(), eniB())
	l.vpc.Groups = []SecurityGroup{
		{ID: "sg-out", Egress: []GroupRule{allow(UDP, 53, 53, "10.0.0.0/16")}},
		{ID: "sg-in", Ingress: []GroupRule{allow(UDP, 53, 53, "10.0.0.0/16")}},
	}
	// a's flow does not open b: both are in one VPC, and the tuple is one.
	l.a.Groups, l.b.Groups = []string{"sg-out"}, []string{"sg-out"}
	l.sync()
	l.dropped(l.ab(UDP, udp(4000, 53)), SGIngress, l.b)
	// b's flow lets b answer; a, which by then has nothing of it, does not hear it.
	l.a.Groups, l.b.Groups = nil, []string{"sg-in"}
	l.sync()
	l.passes(l.ab(UDP, udp(4001, 53)))
	l.a.Groups = []string{}
	l.sync()
	l.dropped(l.ba(UDP, udp(53, 4001)), SGIngress, l.a)
	if got := len(flowsOf(t, l.f)); got != 2 {
		t.Errorf("%d flows, want one of each ENI", got)
	}
}

func flowsOf(t *testing.T, f *Fabric) map[bpfFlowKey]bpfFlow {
	t.Helper()
	var key bpfFlowKey
	var flow bpfFlow
	all := map[bpfFlowKey]bpfFlow{}
	it := f.objs.Flows.Iterate()
	for it.Next(&key, &flow) {
		all[key] = flow
	}
	if err := it.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestTrackedFlowOutlivesItsRule(t *testing.T) {
	l := newFilterLab(t, eniA(), eniB())
	l.b.Groups = []string{"sg-1"}
	tests := []struct {
		name       string
		ingress    GroupRule
		egress     []GroupRule
		protocol   Protocol
		ask, reply []byte
	}{
		{"from some addresses", allow(TCP, 22, 22, "10.0.0.0/8"), []GroupRule{allRule}, TCP, tcp(4000, 22, syn), tcp(22, 4000, syn|ack)},
		{"no rule for all responses", allow(TCP, 22, 22, "0.0.0.0/0"), nil, TCP, tcp(4001, 22, syn), tcp(22, 4001, syn|ack)},
		{"responses to some ports", allow(UDP, 53, 53, "0.0.0.0/0"), []GroupRule{allow(UDP, 1024, 65535, "0.0.0.0/0")}, UDP, udp(4002, 53), udp(53, 4002)},
		{"responses of another protocol", allow(UDP, 53, 53, "0.0.0.0/0"), []GroupRule{allow(TCP, 0, 65535, "0.0.0.0/0")}, UDP, udp(4003, 53), udp(53, 4003)},
		{"icmp from everywhere", allow(ICMP, -1, -1, "0.0.0.0/0"), []GroupRule{allRule}, ICMP, message(8, 0, 1, nil), message(0, 0, 1, nil)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l.vpc.Groups = []SecurityGroup{{ID: "sg-1", Ingress: []GroupRule{tt.ingress}, Egress: tt.egress}}
			l.sync()
			l.passes(l.ab(tt.protocol, tt.ask))
			l.passes(l.ba(tt.protocol, tt.reply))
			l.vpc.Groups = []SecurityGroup{{ID: "sg-1"}}
			l.sync()
			again := tt.ask
			if tt.protocol == TCP {
				again = tcp(uint16(tt.ask[0])<<8|uint16(tt.ask[1]), 22, ack)
			}
			l.passes(l.ab(tt.protocol, again))
			l.passes(l.ba(tt.protocol, tt.reply))
			// A new connection between the same ports is asked about anew.
			if tt.protocol == TCP {
				l.dropped(l.ab(tt.protocol, tt.ask), SGIngress, l.b)
			}
		})
	}
}

func TestUntrackedFlowIsCut(t *testing.T) {
	l := newFilterLab(t, eniA(), eniB())
	l.b.Groups = []string{"sg-1"}
	open := []SecurityGroup{{ID: "sg-1", Ingress: []GroupRule{allow(TCP, 80, 80, "0.0.0.0/0"), allow(UDP, 53, 53, "0.0.0.0/0")}, Egress: []GroupRule{allRule}}}
	closed := []SecurityGroup{{ID: "sg-1", Egress: []GroupRule{allRule}}}
	narrow := []SecurityGroup{{ID: "sg-1", Ingress: []GroupRule{allow(TCP, 80, 80, "10.0.0.0/16"), allow(UDP, 53, 53, "10.0.0.0/16")}, Egress: []GroupRule{allRule}}}
	for _, tt := range []struct {
		name              string
		protocol          Protocol
		ask, again, reply []byte
	}{
		{"tcp", TCP, tcp(4000, 80, syn), tcp(4000, 80, ack), tcp(80, 4000, syn|ack)},
		{"udp", UDP, udp(4000, 53), udp(4000, 53), udp(53, 4000)},
		{"udp, the short way", UDP, long(udp(4001, 53)), long(udp(4001, 53)), long(udp(53, 4001))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l.vpc.Groups = open
			l.sync()
			l.passes(l.ab(tt.protocol, tt.ask))
			l.passes(l.ba(tt.protocol, tt.reply))
			l.passes(l.ab(tt.protocol, tt.again))
			l.passes(l.ba(tt.protocol, tt.reply))
			l.vpc.Groups = closed
			l.sync()
			// The response does not make itself a flow of the other direction.
			l.dropped(l.ba(tt.protocol, tt.reply), SGEgress, l.b)
			l.dropped(l.ab(tt.protocol, tt.again), SGIngress, l.b)
			l.dropped(l.ba(tt.protocol, tt.reply), SGEgress, l.b)
			l.vpc.Groups = open
			l.sync()
			l.passes(l.ba(tt.protocol, tt.reply))
			// A narrower rule that still allows it: from its next packet on it is tracked.
			l.vpc.Groups = narrow
			l.sync()
			l.passes(l.ab(tt.protocol, tt.again))
			l.vpc.Groups = []SecurityGroup{{ID: "sg-1"}}
			l.sync()
			l.passes(l.ab(tt.protocol, tt.again))
			l.passes(l.ba(tt.protocol, tt.reply))
		})
	}
}

func TestGroupReferenceFollowsMembership(t *testing.T) {
	ea := eniA()
	pod, prefix := netip.MustParseAddr("10.0.1.99"), netip.MustParsePrefix("10.0.1.32/28")
	l := newFilterLab(t, ea, eniB())
	l.b.Groups = []string{"sg-server"}
	l.vpc.Groups = []SecurityGroup{{ID: "sg-client"}, {ID: "sg-server", Ingress: []GroupRule{{Protocol: UDP, Ports: Ports{53, 53}, Group: "sg-client"}}}}
	port := uint16(4000)
	from := func(src string) []byte { // always a new flow
		port++
		return ipFrame(macA, src, "10.0.2.10", 17, 0, udp(port, 53))
	}
	l.a.Addresses, l.a.Prefixes = []netip.Addr{pod}, []netip.Prefix{prefix}
	l.sync()
	l.dropped(from("10.0.1.10"), SGIngress, l.b)
	// a joins: all its addresses are members'. Its own packets pass by the same
	// group, which allows nothing out, only when that is not filtered: see below.
	l.vpc.Groups[0].Egress = []GroupRule{allRule}
	l.a.Groups = []string{"sg-client"}
	l.sync()
	for _, src := range []string{"10.0.1.10", "10.0.1.99", "10.0.1.32", "10.0.1.47"} {
		l.passes(from(src))
	}
	// An address that a loses is no member's any more, though a may send from it.
	l.a.Addresses, l.a.SourceDestCheck = nil, false
	l.sync()
	l.dropped(from("10.0.1.99"), SGIngress, l.b)
	l.passes(from("10.0.1.33"))
	// a leaves.
	l.a.Groups = nil
	l.sync()
	l.dropped(from("10.0.1.10"), SGIngress, l.b)
}

// References reach into peered VPCs of the same region, and no further.
func TestGroupReferenceAcrossPeering(t *testing.T) {
	vpc := func(id, region string, e ENI) VPC {
		return VPC{ID: id, Region: region, ENIs: []ENI{e}}
	}
	member := func(id, addr string) ENI {
		e := testENI(id, "", macA, addr)
		e.Groups = []string{"sg-far"}
		return e
	}
	near := testENI("eni-near", "", macB, "10.0.0.10")
	near.Groups = []string{"sg-near"}
	home := vpc("vpc-home", "r1", near)
	home.Groups = []SecurityGroup{{ID: "sg-near", Ingress: []GroupRule{{Protocol: AllProtocols, Group: "sg-far"}}}}
	vpcs := []VPC{home,
		vpc("vpc-peer", "r1", member("eni-1", "10.1.0.10")),
		vpc("vpc-stranger", "r1", member("eni-2", "10.2.0.10")),
		vpc("vpc-abroad", "r2", member("eni-3", "10.3.0.10")),
	}
	for i := range vpcs[1:] {
		vpcs[i+1].Groups = []SecurityGroup{{ID: "sg-far"}}
	}
	_, got, errs := wantedFilters(checked{vpcs: vpcs, peerings: []Peering{{"pcx-1", [2]string{"vpc-peer", "vpc-home"}}, {"pcx-2", [2]string{"vpc-home", "vpc-abroad"}}}})
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	var remotes []uint32
	for key := range got.remotes {
		remotes = append(remotes, key.Addr)
	}
	if diff := cmp.Diff([]uint32{beUint32(netip.MustParseAddr("10.1.0.10"))}, remotes); diff != "" {
		t.Errorf("members (-want +got):\n%s", diff)
	}
}

func TestICMPErrorsOfTrackedFlows(t *testing.T) {
	l := newFilterLab(t, eniA(), eniB())
	l.a.Groups = []string{"sg-out"}
	l.vpc.Groups = []SecurityGroup{{ID: "sg-out", Egress: []GroupRule{allow(UDP, 53, 53, "10.0.0.0/16"), allow(ICMP, 8, -1, "10.0.0.0/16")}}}
	l.sync()
	asked, never := l.ab(UDP, udp(4000, 53)), l.ab(UDP, udp(4001, 53))
	quote := func(frame []byte) []byte { return frame[14:42] }
	l.dropped(l.ba(ICMP, message(3, 3, 0, quote(asked))), SGIngress, l.a)
	l.passes(asked)
	for _, kind := range []byte{3, 11, 12} {
		l.passes(l.ba(ICMP, message(kind, 0, 0, quote(asked))))
	}
	l.passes(ipFrame(macB, "10.0.2.10", "10.0.1.10", 1, 0, message(3, 4, 1400, quote(asked))))
	for name, message := range map[string][]byte{
		"a flow that is not":            message(3, 3, 0, quote(never)),
		"a packet of the other side":    message(3, 3, 0, quote(l.ba(UDP, udp(53, 4000)))),
		"no whole packet":               message(3, 3, 0, quote(asked)[:20]),
		"a redirect":                    message(5, 0, 0, quote(asked)),
		"a later fragment of that flow": message(3, 3, 0, quote(ipFrame(macA, "10.0.1.10", "10.0.2.10", 17, 185, udp(4000, 53)))),
	} {
		t.Run(name, func(t *testing.T) { l.dropped(l.ba(ICMP, message), SGIngress, l.a) })
	}
	l.a.Addresses = []netip.Addr{netip.MustParseAddr("10.0.1.99")}
	l.sync()
	l.dropped(ipFrame(macB, "10.0.2.10", "10.0.1.99", 1, 0, message(3, 3, 0, quote(asked))), SGIngress, l.a)
	ping := l.ab(ICMP, message(8, 0, 5, nil))
	l.passes(ping)
	l.passes(l.ba(ICMP, message(11, 0, 0, quote(ping))))
	// Of an untracked flow they need a rule.
	l.vpc.Groups = []SecurityGroup{{ID: "sg-out", Egress: []GroupRule{allRule}, Ingress: []GroupRule{allow(UDP, 0, 65535, "0.0.0.0/0")}}}
	l.sync()
	untracked := l.ab(UDP, udp(4002, 53))
	l.passes(untracked)
	l.dropped(l.ba(ICMP, message(3, 3, 0, quote(untracked))), SGIngress, l.a)
}

func TestIdleTimeouts(t *testing.T) {
	l := newFilterLab(t, eniA(), eniB())
	l.a.Groups = []string{"sg-out"}
	l.vpc.Groups = []SecurityGroup{{ID: "sg-out", Egress: []GroupRule{{Protocol: AllProtocols, CIDR: vpcCIDR}}}}
	gre := make([]byte, 8)
	type turn struct {
		fromA   bool
		payload []byte
	}
	tests := []struct {
		name     string
		idle     IdleTimeouts
		protocol Protocol
		turns    []turn // the last one is what must come in time
		limit    time.Duration
	}{
		{"udp", IdleTimeouts{}, UDP, []turn{{true, udp(1, 53)}, {false, udp(53, 1)}}, 30 * time.Second},
		{"udp by the eni", IdleTimeouts{UDP: 60 * time.Second}, UDP, []turn{{true, udp(2, 53)}, {false, udp(53, 2)}}, 60 * time.Second},
		{"udp, one transaction", IdleTimeouts{}, UDP, []turn{{true, udp(3, 53)}, {false, udp(53, 3)}, {false, udp(53, 3)}}, 30 * time.Second},
		{"udp stream", IdleTimeouts{}, UDP, []turn{{true, udp(4, 53)}, {false, udp(53, 4)}, {true, udp(4, 53)}, {false, udp(53, 4)}, {false, udp(53, 4)}}, 180 * time.Second},
		{"udp stream by the eni", IdleTimeouts{UDPStream: 90 * time.Second}, UDP, []turn{{true, udp(5, 53)}, {false, udp(53, 5)}, {true, udp(5, 53)}, {false, udp(53, 5)}, {false, udp(53, 5)}}, 90 * time.Second},
		{"udp, the short way", IdleTimeouts{}, UDP, []turn{{true, long(udp(13, 53))}, {false, long(udp(53, 13))}, {false, long(udp(53, 13))}}, 30 * time.Second},
		{"udp stream, the short way", IdleTimeouts{}, UDP, []turn{{true, long(udp(14, 53))}, {false, long(udp(53, 14))}, {true, long(udp(14, 53))}, {false, long(udp(53, 14))}, {false, long(udp(53, 14))}}, 180 * time.Second},
		{"tcp opening", IdleTimeouts{}, TCP, []turn{{true, tcp(6, 80, syn)}, {false, tcp(80, 6, syn|ack)}}, 120 * time.Second},
		{"tcp established", IdleTimeouts{}, TCP, []turn{{true, tcp(7, 80, syn)}, {false, tcp(80, 7, syn|ack)}, {true, tcp(7, 80, ack)}, {false, tcp(80, 7, ack)}}, 432_000 * time.Second},
		{"tcp established by the eni", IdleTimeouts{TCPEstablished: 350 * time.Second}, TCP, []turn{{true, tcp(8, 80, syn)}, {false, tcp(80, 8, syn|ack)}, {true, tcp(8, 80, ack)}, {false, tcp(80, 8, ack)}}, 350 * time.Second},
		{"tcp older than its state", IdleTimeouts{}, TCP, []turn{{true, tcp(9, 80, ack)}, {false, tcp(80, 9, ack)}}, 432_000 * time.Second},
		{"tcp closing", IdleTimeouts{}, TCP, []turn{{true, tcp(10, 80, syn)}, {false, tcp(80, 10, syn|ack)}, {true, tcp(10, 80, fin|ack)}, {false, tcp(80, 10, ack)}}, 120 * time.Second},
		{"tcp reset", IdleTimeouts{}, TCP, []turn{{true, tcp(11, 80, syn)}, {false, tcp(80, 11, syn|ack)}, {true, tcp(11, 80, ack)}, {true, tcp(11, 80, rst)}, {false, tcp(80, 11, ack)}}, 120 * time.Second},
		{"icmp", IdleTimeouts{}, ICMP, []turn{{true, message(8, 0, 12, nil)}, {false, message(0, 0, 12, nil)}}, 600 * time.Second},
		{"other", IdleTimeouts{}, 47, []turn{{true, gre}, {false, gre}}, 600 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l.a.Idle = tt.idle
			l.sync()
			frame := func(turn turn) []byte {
				if turn.fromA {
					return l.ab(tt.protocol, turn.payload)
				}
				return l.ba(tt.protocol, turn.payload)
			}
			last := len(tt.turns) - 1
			for _, turn := range tt.turns[:last] {
				l.passes(frame(turn))
			}
			saved := flowsOf(t, l.f)
			age(t, l.f, tt.limit-5*time.Second)
			l.passes(frame(tt.turns[last]))
			for key, flow := range saved {
				if err := l.f.objs.Flows.Put(key, flow); err != nil {
					t.Fatal(err)
				}
			}
			age(t, l.f, tt.limit+5*time.Second)
			l.dropped(frame(tt.turns[last]), SGIngress, l.a)
		})
	}
}

// A packet that passes keeps its flow from idling.
func TestFlowIsSeen(t *testing.T) {
	l := newFilterLab(t, eniA(), eniB())
	l.a.Groups = []string{"sg-out"}
	l.vpc.Groups = []SecurityGroup{{ID: "sg-out", Egress: []GroupRule{allRule}}}
	l.sync()
	last := func() (ms uint64) {
		l.passes(l.ab(UDP, long(udp(4000, 53))))
		for _, flow := range flowsOf(t, l.f) {
			ms = uint64(flow.Last) * flowTick
		}
		return ms
	}
	first := last()
	waitFor(t, "the flow's time to go on", func() bool { return last() > first })
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		t.Fatal(err)
	}
	if ms := uint64(now.Nano() / 1e6); first > ms || first+uint64(time.Minute.Milliseconds()) < ms {
		t.Errorf("a flow of just now was last seen at %d ms, and it is %d ms", first, ms)
	}
}

func TestFragments(t *testing.T) {
	l := newFilterLab(t, eniA(), eniB())
	l.b.Groups = []string{"sg-in"}
	l.vpc.Groups = []SecurityGroup{{ID: "sg-in", Ingress: []GroupRule{allow(UDP, 53, 53, "10.0.0.0/16")}}}
	l.sync()
	fragment := func(id byte, dport uint16, word uint16) []byte {
		f := ipFrame(macA, "10.0.1.10", "10.0.2.10", 17, word, append(udp(4000, dport), make([]byte, 4)...))
		f[19], f[24], f[25] = id, 0, 0
		binary16(f[24:], ^sum(f[14:34]))
		return f
	}
	const more = 0x2000
	l.dropped(fragment(1, 53, more|2), Fragment, l.b) // before the first
	l.passes(fragment(1, 53, more))
	l.passes(fragment(1, 0, more|2))
	l.passes(fragment(1, 0, 4))
	l.dropped(fragment(2, 0, more|2), Fragment, l.b)
	// Where the first one must not pass, the others do not.
	l.dropped(fragment(3, 54, more), SGIngress, l.b)
	l.dropped(fragment(3, 54, 2), Fragment, l.b)
	l.dropped(ipFrame(macA, "10.0.1.10", "10.0.2.10", 17, 0, make([]byte, 7)), Malformed, l.b)
	l.dropped(ipFrame(macA, "10.0.1.10", "10.0.2.10", 6, 0, make([]byte, 13)), Malformed, l.b)
	// The other direction's are others, and so are those that come half a minute later.
	back := ipFrame(macB, "10.0.2.10", "10.0.1.10", 17, 2, make([]byte, 8))
	back[19], back[24], back[25] = 1, 0, 0
	binary16(back[24:], ^sum(back[14:34]))
	l.dropped(back, Fragment, l.b)
	var key bpfFragmentKey
	var first bpfFragment
	for it := l.f.objs.Fragments.Iterate(); it.Next(&key, &first); {
		first.At -= 31_000
		if err := l.f.objs.Fragments.Put(key, first); err != nil {
			t.Fatal(err)
		}
	}
	l.dropped(fragment(1, 0, 4), Fragment, l.b)
	// Nothing of this is the business of an ENI without filters.
	l.b.Groups = nil
	l.sync()
	l.passes(fragment(4, 0, 2))
	// What is behind the packet in its frame is none of it.
	l.a.Groups = []string{"sg-out"}
	l.vpc.Groups = []SecurityGroup{{ID: "sg-out", Egress: []GroupRule{allRule}}}
	l.sync()
	l.dropped(append(ipFrame(macA, "10.0.1.10", "10.0.2.10", 17, 0, udp(4000, 53)[:7]), make([]byte, 20)...), Malformed, l.a)
}

func binary16(b []byte, v uint16) { b[0], b[1] = byte(v>>8), byte(v) }

// What the VPC itself serves is for every instance, whatever its groups and ACLs.
func TestServicesAreNotFiltered(t *testing.T) {
	f := newFabric(t)
	a := newGuest(t, f, "i-a")
	ea := eniA()
	ea.Groups, ea.SubnetID, ea.FlowLog = []string{}, "subnet-1", true
	v := vpcOf(ea)
	v.Subnets = []Subnet{{ID: "subnet-1", CIDR: ea.Subnet, ACL: "acl-1"}}
	v.ACLs = []NetworkACL{{ID: "acl-1"}}
	mustSync(t, f, v)
	a.boot(ea)
	listener, err := f.ListenENI(ea.ID, netip.AddrPortFrom(imds, 80), 1)
	if err != nil {
		t.Fatal(err)
	}
	go answer(listener, "imds")
	a.mustAsk("10.0.1.10", "169.254.169.254:80", "imds to 10.0.1.10")
	if got := packets(t, f, ea.ID); len(got) != 0 {
		t.Errorf("drops: %v", got)
	}
	if records, err := f.FlowLogs(ea.ID, time.Now()); err != nil || len(records) > 0 {
		t.Errorf("flow log: %v, %v", records, err)
	}
	a.wire("ens5", unix.ETH_P_IP).send(ipFrame(macA, "10.0.1.10", "10.0.1.11", 17, 0, udp(1, 2)))
	waitDrops(t, f, ea.ID, map[Reason]uint64{SGEgress: 1})
}

func TestImpossibleRulesAllowNothing(t *testing.T) {
	bad := map[string]GroupRule{
		"exactly one of cidr and group": {Protocol: TCP, CIDR: vpcCIDR, Group: "sg-1"},
		"not exactly one of cidr":       {Protocol: TCP},
		"protocol 256":                  {Protocol: 256, CIDR: vpcCIDR},
		"ports 5 to 4":                  {Protocol: TCP, Ports: Ports{5, 4}, CIDR: vpcCIDR},
		"ports 1 to 65536":              {Protocol: UDP, Ports: Ports{1, 65536}, CIDR: vpcCIDR},
		"ports -1 to 5":                 {Protocol: UDP, Ports: Ports{-1, 5}, CIDR: vpcCIDR},
		"icmp type -1 and code 4":       {Protocol: ICMP, Ports: Ports{-1, 4}, CIDR: vpcCIDR},
		"icmp type 256":                 {Protocol: ICMP, Ports: Ports{256, -1}, CIDR: vpcCIDR},
		"cidr 10.0.0.1/16":              {Protocol: TCP, CIDR: netip.MustParsePrefix("10.0.0.1/16")},
		"cidr 2001:db8::/32":            {Protocol: TCP, CIDR: netip.MustParsePrefix("2001:db8::/32")},
	}
	l := newFilterLab(t, eniA(), eniB())
	l.b.Groups = []string{"sg-1"}
	for want, r := range bad {
		l.vpc.Groups = []SecurityGroup{{ID: "sg-1", Ingress: []GroupRule{allRule, r}}}
		if err := l.syncFails(); !strings.Contains(err.Error(), "security group sg-1 allows nothing") || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %q, want %q", r, err, want)
		}
	}
	l.dropped(l.ab(UDP, udp(1, 2)), SGIngress, l.b)
	l.vpc.Groups = nil
	if err := l.syncFails(); !strings.Contains(err.Error(), "is in security group sg-1, which the vpc does not have") {
		t.Errorf("unknown group: %v", err)
	}
	l.dropped(l.ab(UDP, udp(1, 2)), SGIngress, l.b)
}

// The kernel's maps hold what the topology says and no more, also after somebody
// else wrote to them.
func TestRulesAreMended(t *testing.T) {
	l := newFilterLab(t, eniA(), eniB())
	l.a.Groups, l.b.Groups = []string{"sg-1"}, []string{"sg-1"}
	l.vpc.Groups = []SecurityGroup{{ID: "sg-1", Ingress: []GroupRule{allow(UDP, 53, 80, "10.0.0.0/16")}, Egress: []GroupRule{allRule}}}
	l.sync()
	want := readRules(t, l.f)
	if len(want.remotes) != 2 || len(want.verdicts) < 3 {
		t.Errorf("two ENIs with the same groups do not share them: %+v", want)
	}
	for key := range want.remotes {
		if err := l.f.objs.Remotes.Put(key, uint64(1)); err != nil {
			t.Fatal(err)
		}
	}
	for key := range want.verdicts {
		if err := l.f.objs.Verdicts.Delete(key); err != nil {
			t.Fatal(err)
		}
	}
	l.sync()
	if diff := cmp.Diff(want, readRules(t, l.f), cmp.AllowUnexported(ruleEntries{}), cmp.AllowUnexported(bpfRemoteKey{}, bpfPortKey{})); diff != "" {
		t.Errorf("not mended (-want +got):\n%s", diff)
	}
	l.a.Groups, l.b.Groups = nil, nil
	l.sync()
	if got := readRules(t, l.f); len(got.remotes)+len(got.verdicts) > 0 {
		t.Errorf("left over: %+v", got)
	}
}

func readRules(t *testing.T, f *Fabric) ruleEntries {
	t.Helper()
	got, err := f.readRules()
	if err != nil {
		t.Fatal(err)
	}
	return got
}
