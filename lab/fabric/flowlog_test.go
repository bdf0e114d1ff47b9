package fabric

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestFlowLogs(t *testing.T) {
	l := newFilterLab(t, eniA(), eniB())
	l.vpc.Groups = []SecurityGroup{{ID: "sg-in", Ingress: []GroupRule{allow(UDP, 53, 53, "10.0.0.0/16"), allow(ICMP, 8, -1, "10.0.0.0/16")}}}
	l.b.Groups, l.b.FlowLog = []string{"sg-in"}, true
	l.b.Addresses = []netip.Addr{netip.MustParseAddr("10.0.2.99")}
	l.sync()
	for range 3 {
		l.passes(l.ab(UDP, udp(4000, 53)))
	}
	l.passes(l.ba(UDP, udp(53, 4000)))
	l.passes(l.ab(ICMP, message(8, 0, 7, nil)))
	l.passes(ipFrame(macA, "10.0.1.10", "10.0.2.99", 17, 0, udp(4001, 53)))
	l.dropped(l.ab(TCP, tcp(4002, 22, syn)), SGIngress, l.b)
	l.dropped(l.ba(TCP, tcp(4003, 80, syn)), SGEgress, l.b)
	// What other rules drop is in no flow log.
	l.dropped(ipFrame(macB, "10.0.2.77", "10.0.1.10", 17, 0, udp(1, 2)), SrcDstCheck, l.b)

	now := time.Now()
	records, err := l.f.FlowLogs(l.b.ID, now)
	if err != nil {
		t.Fatal(err)
	}
	start, end := now.Add(-patience), now.Add(time.Second)
	var lines []string
	for _, r := range records {
		if r.Start.Before(start) || r.End.Before(r.Start) || r.End.After(end) {
			t.Errorf("from %v to %v, asked at %v", r.Start, r.End, now)
		}
		lines = append(lines, r.Line("123456789012"))
	}
	slices.Sort(lines)
	line := func(flow string, i int) string {
		for _, r := range records {
			if r.Rejected == (i < 0) && fmt.Sprintf("%s %s %d %d %d", r.Src, r.Dst, r.SrcPort, r.DstPort, r.Protocol) == flow && (i < 1 || r.PacketDst == netip.MustParseAddr("10.0.2.99") == (i == 2)) {
				return fmt.Sprintf("%d %d", r.Start.Unix(), r.End.Unix())
			}
		}
		return "missing"
	}
	const head = "2 123456789012 eni-0bbbbbbbbbbbbbbb1 "
	want := []string{
		head + "10.0.1.10 10.0.2.10 0 0 1 1 28 " + line("10.0.1.10 10.0.2.10 0 0 1", 0) + " ACCEPT OK",
		head + "10.0.1.10 10.0.2.10 4000 53 17 3 96 " + line("10.0.1.10 10.0.2.10 4000 53 17", 0) + " ACCEPT OK",
		head + "10.0.1.10 10.0.2.10 4001 53 17 1 32 " + line("10.0.1.10 10.0.2.10 4001 53 17", 2) + " ACCEPT OK",
		head + "10.0.1.10 10.0.2.10 4002 22 6 1 40 " + line("10.0.1.10 10.0.2.10 4002 22 6", -1) + " REJECT OK",
		head + "10.0.2.10 10.0.1.10 4003 80 6 1 40 " + line("10.0.2.10 10.0.1.10 4003 80 6", -1) + " REJECT OK",
		head + "10.0.2.10 10.0.1.10 53 4000 17 1 32 " + line("10.0.2.10 10.0.1.10 53 4000 17", 0) + " ACCEPT OK",
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
	if again, err := l.f.FlowLogs(l.b.ID, now); err != nil || len(again) > 0 {
		t.Errorf("read again: %v, %v", again, err)
	}
	// Nothing goes a shorter way past the log.
	for range 3 {
		l.passes(l.ab(UDP, long(udp(4005, 53))))
	}
	if got, err := l.f.FlowLogs(l.b.ID, now); err != nil || len(got) != 1 || got[0].Packets != 3 {
		t.Errorf("flow log of long datagrams: %+v, %v", got, err)
	}
	// A packet that the receiver rejects was accepted by the sender.
	l.a.FlowLog = true
	l.sync()
	l.dropped(l.ab(TCP, tcp(4004, 22, syn)), SGIngress, l.b)
	for eni, rejected := range map[string]bool{l.a.ID: false, l.b.ID: true} {
		got, err := l.f.FlowLogs(eni, now)
		if err != nil || len(got) != 1 || got[0].Rejected != rejected || got[0].Egress == rejected {
			t.Errorf("flow log of %s: %+v, %v", eni, got, err)
		}
	}
}

func TestFlowLogErrors(t *testing.T) {
	l := newFilterLab(t, eniA(), eniB())
	if _, err := l.f.FlowLogs(l.a.ID, time.Now()); !errors.Is(err, ErrNoFlowLog) {
		t.Errorf("of an ENI without one: %v", err)
	}
	if _, err := l.f.FlowLogs("eni-none", time.Now()); !errors.Is(err, ErrUnknownENI) {
		t.Errorf("of no ENI: %v", err)
	}
	if err := l.f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.f.FlowLogs(l.a.ID, time.Now()); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}
