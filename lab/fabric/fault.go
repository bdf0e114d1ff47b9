package fabric

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/fairway-cni/fairway/lab/fabric/relay"
)

// ErrFault is a fault that cannot be: a percentage above 100, for example.
var ErrFault = errors.New("impossible fault")

// Faults is all that is wrong with the network. The zero Faults is nothing.
type Faults struct {
	ENIs       map[string]ENIFault `json:"enis,omitempty"` // by ENI ID; one that is not in the topology may come later
	Partitions []Partition         `json:"partitions,omitempty"`
}

// ENIFault is what is wrong with one ENI. Loss, delay and reordering are for
// IPv4 in each Direction by itself; ARP is answered at the ENI and does not
// suffer. One frame of up to 64 KiB that the guest leaves to segmentation
// offload is lost or delayed as one.
type ENIFault struct {
	LossPercent    float64       `json:"lossPercent,omitempty"`
	Delay          time.Duration `json:"delay,omitempty"`  // ns
	Jitter         time.Duration `json:"jitter,omitempty"` // ns, at most Delay; it does not reorder
	ReorderPercent float64       `json:"reorderPercent,omitempty"`
	// Seed decides which packets: the same for the same packets since SetFaults
	// changed the ENI's fault.
	Seed      uint64    `json:"seed,omitempty"`
	Direction Direction `json:"direction,omitempty"`
	// Down takes the carrier from the guest's device.
	Down bool `json:"down,omitempty"`
}

// Direction is a way through an ENI, as its guest sees it.
type Direction string

// The directions.
const (
	Both Direction = ""
	Out  Direction = "out" // from the guest
	In   Direction = "in"  // to the guest
)

// directions lists those that can have a relay, each its stream of the seed.
var directions = []Direction{Out, In}

// Partition cuts the ENIs in subnets of two zones off from each other, both
// ways. Where B is empty, A is cut off from all other zones. It is for packets
// that go from ENI to ENI within a VPC; the VPC's own services answer in every
// zone.
type Partition struct {
	A string `json:"a"` // a zone, such as "eu-west-1a"
	B string `json:"b,omitempty"`
}

// Check says what is wrong with the faults; it wraps ErrFault.
func (f Faults) Check() error {
	var errs []error
	for id, e := range f.ENIs {
		err := e.relayed().Check()
		if !slices.Contains([]Direction{Both, Out, In}, e.Direction) {
			err = errors.Join(err, fmt.Errorf("direction %q: must be in, out or empty", e.Direction))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("eni %s: %w", id, err))
		}
	}
	for _, p := range f.Partitions {
		if p.A == "" || p.A == p.B {
			errs = append(errs, fmt.Errorf("partition of %q and %q: must be two zones, or one", p.A, p.B))
		}
	}
	if n := len(f.zoneBits()); n > maxZones {
		errs = append(errs, fmt.Errorf("%d zones in partitions: at most %d", n, maxZones))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w: %w", ErrFault, err)
	}
	return nil
}

func (e ENIFault) relayed() relay.Fault {
	return relay.Fault{LossPercent: e.LossPercent, Delay: e.Delay, Jitter: e.Jitter, ReorderPercent: e.ReorderPercent, Seed: e.Seed}
}

// has says whether the fault needs a relay in the direction. A link that is down
// carries nothing.
func (e ENIFault) has(d Direction) bool {
	return !e.Down && e.relayed().Active() && (e.Direction == Both || e.Direction == d)
}

// maxZones is how many zones partitions may name: bits of struct zone in
// bpf/fault.c, less the one of all zones that none names.
const maxZones = 63

// zoneBits numbers the zones that partitions name. Bit 0 is every other zone's.
func (f Faults) zoneBits() map[string]int {
	var names []string
	for _, p := range f.Partitions {
		names = append(names, p.A)
		if p.B != "" {
			names = append(names, p.B)
		}
	}
	slices.Sort(names)
	bits := map[string]int{}
	for i, name := range slices.Compact(names) {
		bits[name] = i + 1
	}
	return bits
}

// zone is what the programs must know of an ENI in a zone.
func (f Faults) zone(name string, bits map[string]int) faultZone {
	z := faultZone{In: 1 << bits[name]}
	for _, p := range f.Partitions {
		switch {
		case p.B == "" && p.A == name:
			z.Cut |= ^z.In
		case p.B == "" || p.B == name:
			z.Cut |= 1 << bits[p.A]
		case p.A == name:
			z.Cut |= 1 << bits[p.B]
		}
	}
	return z
}

// holdDown tells the ENIs whose link is down.
func (f Faults) holdDown(vpcs []VPC) {
	for _, v := range vpcs {
		for i := range v.ENIs {
			v.ENIs[i].down = f.ENIs[v.ENIs[i].ID].Down
		}
	}
}

// SetFaults makes the faults those that are given, all of them; the zero Faults
// ends them. It acts at once on the topology of the last Sync, and later ones
// keep it. A fault that was given before goes on undisturbed; packets that wait
// when a fault ends go on at once. The error wraps ErrFault if nothing was done;
// any other is of what the next Sync tries again.
func (f *Fabric) SetFaults(ctx context.Context, faults Faults) error {
	if err := faults.Check(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return ErrClosed
	}
	f.faults = faults.clone()
	_, err := f.sync(ctx, f.last)
	return err
}

// Faults gives what was set.
func (f *Fabric) Faults() Faults {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.faults.clone()
}

func (f Faults) clone() Faults {
	c := Faults{Partitions: slices.Clone(f.Partitions)}
	for id, e := range f.ENIs {
		if e == (ENIFault{Seed: e.Seed, Direction: e.Direction}) {
			continue // nothing is wrong with it
		}
		if c.ENIs == nil {
			c.ENIs = map[string]ENIFault{}
		}
		c.ENIs[id] = e
	}
	return c
}

// String is for people: "loss 10%, delay 20ms ± 5ms, seed 7".
func (e ENIFault) String() string {
	var parts []string
	if e.Down {
		parts = append(parts, "down")
	}
	if e.LossPercent > 0 {
		parts = append(parts, fmt.Sprintf("loss %g%%", e.LossPercent))
	}
	if e.Delay > 0 {
		d := "delay " + e.Delay.String()
		if e.Jitter > 0 {
			d += " ± " + e.Jitter.String()
		}
		parts = append(parts, d)
	}
	if e.ReorderPercent > 0 {
		parts = append(parts, fmt.Sprintf("reorder %g%%", e.ReorderPercent))
	}
	if e.relayed().Active() {
		parts = append(parts, fmt.Sprintf("seed %d", e.Seed))
		if e.Direction != Both {
			parts = append(parts, string(e.Direction)+" only")
		}
	}
	return cmp.Or(strings.Join(parts, ", "), "none")
}

// isFaultDevice tells the taps of faults: nothing else in a VPC namespace is one.
func isFaultDevice(l netlink.Link) bool {
	_, tap := l.(*netlink.Tuntap)
	return tap
}
