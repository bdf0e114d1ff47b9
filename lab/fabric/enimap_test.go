package fabric

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Ifindexes go round the places, and pass over those of ENIs that are still there.
func TestNumbersShareNoPlace(t *testing.T) {
	f := &Fabric{next: eniSlots + 1000, ports: map[string]port{"eni-old": {index: 1000}, "eni-gone": {index: 1001}, "eni-also": {index: 1003}}}
	vpcs := []VPC{{ID: "vpc-1", ENIs: []ENI{{ID: "eni-old"}, {ID: "eni-1"}, {ID: "eni-also"}, {ID: "eni-2"}}}}
	got := map[string]int{}
	for id, p := range f.number(vpcs) {
		got[id] = p.index
	}
	want := map[string]int{"eni-old": 1000, "eni-1": eniSlots + 1002, "eni-also": 1003, "eni-2": eniSlots + 1004}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ifindexes (-want +got):\n%s", diff)
	}
}

// A slot that was in use a moment ago is the last to be used again.
func TestSlotsGoRound(t *testing.T) {
	f := newFabric(t)
	seen := map[uint32]bool{}
	for i := range uint32(100) {
		if err := f.writeENIs(map[uint32]bpfEni{7: {Ifindex: 7, Table: i}}); err != nil {
			t.Fatal(err)
		}
		taken, err := f.readPlaces()
		if err != nil {
			t.Fatal(err)
		}
		if slot := taken[7]; len(taken) != 1 || seen[slot] {
			t.Fatalf("change %d is in slot %d of %v, seen before: %v", i, slot, taken, seen[slot])
		}
		seen[taken[7]] = true
	}
	f.slot = eniSlots - 1
	for i := range uint32(3) {
		if err := f.writeENIs(map[uint32]bpfEni{8 + i: {Ifindex: 8 + i}}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range uint32(4) {
		if e, ok, err := f.readENI(7 + i); err != nil || !ok {
			t.Errorf("ENI %d: %+v, %v, %v", 7+i, e, ok, err)
		}
	}
	if _, ok, err := f.readENI(eniSlots + 7); err != nil || ok {
		t.Errorf("an ENI is found by another's place: %v, %v", ok, err)
	}
	many := map[uint32]bpfEni{}
	for i := range uint32(eniSlots) {
		many[i] = bpfEni{Ifindex: i}
	}
	if err := f.writeENIs(many); !errors.Is(err, errNoSlot) {
		t.Errorf("more ENIs than slots: %v", err)
	}
}
