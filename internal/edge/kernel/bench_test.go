package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/fairway-cni/fairway/internal/core/diff"
	"github.com/fairway-cni/fairway/internal/core/intent"
	"github.com/fairway-cni/fairway/internal/core/node"
)

// manyPods is what the largest instance types hold.
const manyPods = 737

// fullNode is a node with that many pods, which share one namespace: nothing that
// is measured looks into it.
func fullNode(t testing.TB, k *Kernel, pods int) intent.Snapshot {
	t.Helper()
	s := twoENIs(t)
	s.ENIs[1].Prefixes = []netip.Prefix{netip.MustParsePrefix("10.0.64.0/20")}
	s.ENIs[1].Subnet = netip.MustParsePrefix("10.0.0.0/16")
	others := newPod(t)
	var batch []request
	addr := netip.MustParseAddr("10.0.64.0")
	for i := range pods {
		addr = addr.Next()
		a := attachment(fmt.Sprint("pod ", i), addr.String(), 2)
		s.Pods = append(s.Pods, a)
		index := int32(firstIndex + i)
		w := Wiring{Attachment: a, MTU: 9001, NetNS: others.ns}
		w.IfName = fmt.Sprint("eth", i)
		batch = append(batch, newVeth(w, index), hostSettings(index, k.ipv6), linkUp(index, ""))
	}
	k.route.send(batch, func(_ int, err error) { t.Fatal(err) })
	return s
}

// wipe takes away all that is ours, but the pods' devices.
func wipe(t testing.TB, k *Kernel) {
	t.Helper()
	have, err := k.Read(nil)
	if err != nil {
		t.Fatal(err)
	}
	var table bool
	var routing []diff.Change
	for _, c := range diff.Compare(have, nil) {
		if isTable(c) {
			table = true
		} else {
			routing = append(routing, c)
		}
	}
	apply(t, k, routing)
	if table {
		if err := k.nft.commit([]request{ourTable.delete()}); err != nil {
			t.Fatal(err)
		}
	}
}

// BenchmarkCompare737 is a full comparison that finds nothing.
func BenchmarkCompare737(b *testing.B) {
	newNS(b)
	k := open(b)
	s := fullNode(b, k, manyPods)
	converge(b, k, s)
	want := intent.Desired(s)
	for b.Loop() {
		have, err := k.Read(want)
		if err != nil {
			b.Fatal(err)
		}
		if changes := diff.Compare(have, want); len(changes) > 0 {
			b.Fatalf("changes:\n%s", lines(changes))
		}
	}
}

// BenchmarkRead737 is what a comparison reads, part by part. A sub-benchmark has
// another thread, but the sockets stay where they are.
func BenchmarkRead737(b *testing.B) {
	newNS(b)
	k := open(b)
	converge(b, k, fullNode(b, k, manyPods))
	for _, part := range []struct {
		name string
		read func() error
	}{
		{"links", func() error { _, err := readLinks(k.route); return err }},
		{"addresses", func() error { _, err := readAddresses(k.route, 0); return err }},
		{"routes", func() error { _, err := readRoutes(k.route, node.Protocol, 0); return err }},
		{"neighbors", func() error { _, err := readNeighbors(k.route, 0); return err }},
		{"rules", func() error { _, err := readRules(k.route); return err }},
		{"table", func() error { _, err := k.readTable(); return err }},
	} {
		b.Run(part.name, func(b *testing.B) {
			for b.Loop() {
				if err := part.read(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRebuild737 writes all of a node onto a kernel that was wiped, and
// beside it the same messages, made beforehand.
func BenchmarkRebuild737(b *testing.B) {
	newNS(b)
	k := open(b)
	s := fullNode(b, k, manyPods)
	want := intent.Desired(s)
	converge(b, k, s)
	empty := func() []diff.Change {
		wipe(b, k)
		have, err := k.Read(want)
		if err != nil {
			b.Fatal(err)
		}
		return diff.Compare(have, want)
	}
	var ours, raw time.Duration
	for b.Loop() {
		changes := empty()
		start := time.Now()
		if err := k.Converge(changes, want); err != nil {
			b.Fatal(err)
		}
		ours += time.Since(start)

		w, table := prepare(b, k, empty())
		start = time.Now()
		k.route.send(w.batch, func(_ int, err error) { b.Fatal(err) })
		if err := k.nft.commit(table); err != nil {
			b.Fatal(err)
		}
		raw += time.Since(start)
	}
	b.ReportMetric(float64(ours.Microseconds())/1000/float64(b.N), "ms/rebuild")
	b.ReportMetric(float64(raw.Microseconds())/1000/float64(b.N), "ms/raw")
	b.ReportMetric(float64(ours)/float64(raw), "over-raw")
	b.ReportMetric(0, "ns/op")
	settled(b, k, s)
}

// prepare makes the messages of changes without sending any.
func prepare(t testing.TB, k *Kernel, changes []diff.Change) (*routeWriter, []request) {
	t.Helper()
	w := &routeWriter{kernel: k, changes: changes, index: make(map[string]int32)}
	var table []diff.Change
	for i, c := range changes {
		if isTable(c) {
			table = append(table, c)
		} else {
			w.change(i)
		}
	}
	tx, err := compose(ourTable, table)
	if err := errors.Join(append(w.errs, err)...); err != nil {
		t.Fatal(err)
	}
	return w, tx.requests()
}

// BenchmarkOnePod737 adds and removes what one pod needs, on a full node.
func BenchmarkOnePod737(b *testing.B) {
	newNS(b)
	k := open(b)
	s := fullNode(b, k, manyPods)
	converge(b, k, s)
	p := s.Pods[manyPods/2]
	add, remove := diff.Compare(nil, intent.Pod(s, p)), diff.Compare(intent.Pod(s, p), nil)
	var adding, removing time.Duration
	for b.Loop() {
		start := time.Now()
		apply(b, k, remove)
		between := time.Now()
		apply(b, k, add)
		removing, adding = removing+between.Sub(start), adding+time.Since(between)
	}
	b.ReportMetric(float64(adding.Microseconds())/float64(b.N), "us/add")
	b.ReportMetric(float64(removing.Microseconds())/float64(b.N), "us/remove")
	b.ReportMetric(0, "ns/op")
	settled(b, k, s)
}
