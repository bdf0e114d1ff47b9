package kernel

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/node"
)

// readNFT lists what our table holds; nothing if there is no table.
func (k *Kernel) readNFT() ([]node.Object, error) {
	tables, err := k.nft.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, fmt.Errorf("list nftables tables: %w", err)
	}
	t := table()
	found := false
	for _, have := range tables {
		found = found || have.Name == t.Name
	}
	if !found {
		return nil, nil
	}
	objects, err := k.readChains(t)
	if err != nil {
		return nil, err
	}
	pods, err := k.nft.GetSetElements(podSet(t))
	if err != nil {
		return nil, fmt.Errorf("list nftables map %s: %w", podMap, err)
	}
	for _, e := range pods {
		if len(e.Key) != ifNameSize+4 {
			continue
		}
		objects = append(objects, node.PodKey{
			Veth: string(trimZero(e.Key[:ifNameSize])), Addr: address(e.Key[ifNameSize:]), Chain: verdictChain(e.Val),
		})
	}
	native, err := k.nft.GetSetElements(nativePrefixes(t))
	if err != nil {
		return nil, fmt.Errorf("list nftables set %s: %w", nativeSet, err)
	}
	return append(objects, intervals(native)...), nil
}

// verdictChain reads the chain out of a map element's verdict. The library
// writes verdicts but, when it lists elements, leaves them as they came.
func verdictChain(b []byte) string {
	attrs, err := nl.ParseRouteAttr(b)
	if err != nil {
		return ""
	}
	for _, a := range attrs {
		if a.Attr.Type == unix.NFTA_VERDICT_CHAIN {
			return string(trimZero(a.Value))
		}
	}
	return ""
}

func (k *Kernel) readChains(t *nftables.Table) ([]node.Object, error) {
	chains, err := k.nft.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, fmt.Errorf("list nftables chains: %w", err)
	}
	var objects []node.Object
	frame := make(map[string]string)
	for _, c := range chains {
		if c.Table.Name != t.Name {
			continue
		}
		rules, err := k.nft.GetRules(t, c)
		if err != nil {
			return nil, fmt.Errorf("list nftables chain %s: %w", c.Name, err)
		}
		if c.Name == chainIn || c.Name == chainPod {
			frame[c.Name] = fingerprint(rules)
			continue
		}
		for _, r := range rules {
			if c.Name == chainOut {
				objects = append(objects, sourceNATOf(r.Exprs))
			} else {
				objects = append(objects, markChainOf(c.Name, r.Exprs))
			}
		}
	}
	if maps.Equal(frame, wantedFrame()) {
		objects = append(objects, node.Admission{})
	}
	return objects, nil
}

// wantedFrame is the fingerprint of each chain of [node.Admission].
func wantedFrame() map[string]string {
	rules := make(map[string][]*nftables.Rule)
	for _, r := range admission(table(), &nftables.Chain{Name: chainIn}, &nftables.Chain{Name: chainPod}) {
		rules[r.Chain.Name] = append(rules[r.Chain.Name], r)
	}
	frame := make(map[string]string)
	for name, r := range rules {
		frame[name] = fingerprint(r)
	}
	return frame
}

// fingerprint says what rules do, in those terms that come back from the kernel
// as they were sent.
func fingerprint(rules []*nftables.Rule) string {
	var b strings.Builder
	for _, r := range rules {
		for _, e := range r.Exprs {
			switch e := e.(type) {
			case *expr.Meta:
				fmt.Fprintf(&b, "meta %d ", e.Key)
			case *expr.Cmp:
				fmt.Fprintf(&b, "cmp %d %x ", e.Op, e.Data)
			case *expr.Payload:
				fmt.Fprintf(&b, "payload %d %d ", e.Offset, e.Len)
			case *expr.Lookup:
				fmt.Fprintf(&b, "lookup %s ", e.SetName)
			case *expr.Objref:
				fmt.Fprintf(&b, "counter %s ", e.Name)
			case *expr.Verdict:
				fmt.Fprintf(&b, "verdict %d %s ", e.Kind, e.Chain)
			default:
				fmt.Fprintf(&b, "%T ", e)
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func markChainOf(name string, exprs []expr.Any) node.MarkChain {
	c := node.MarkChain{Name: name}
	for _, e := range exprs {
		if b, ok := e.(*expr.Bitwise); ok {
			c.Mask, c.Mark = ^binary.NativeEndian.Uint32(b.Mask), binary.NativeEndian.Uint32(b.Xor)
		}
	}
	return c
}

func sourceNATOf(exprs []expr.Any) node.SourceNAT {
	var s node.SourceNAT
	for _, e := range exprs {
		switch e := e.(type) {
		case *expr.Cmp:
			if len(e.Data) == ifNameSize {
				s.Link = string(trimZero(e.Data))
			}
		case *expr.Immediate:
			s.To = address(e.Data)
		}
	}
	return s
}

// intervals turns the kernel's list of starts and ends back into prefixes.
func intervals(elements []nftables.SetElement) []node.Object {
	ends := make(map[netip.Addr]bool)
	var starts []netip.Addr
	for _, e := range elements {
		a := address(e.Key)
		if e.IntervalEnd {
			ends[a] = true
		} else if a.IsValid() {
			starts = append(starts, a)
		}
	}
	var objects []node.Object
	for _, s := range starts {
		for bits := 0; bits <= 32; bits++ {
			p := netip.PrefixFrom(s, bits)
			if end := after(p); p.Masked().Addr() == s && (ends[end] || !end.IsValid()) {
				objects = append(objects, node.NativePrefix{Prefix: p})
				break
			}
		}
	}
	return objects
}

// Dropped reads the counters of packets that pods were not admitted to send,
// by counter name.
func (k *Kernel) Dropped() (map[string]uint64, error) {
	objs, err := k.nft.GetNamedObjects(table())
	if err != nil {
		return nil, fmt.Errorf("read nftables counters: %w", err)
	}
	dropped := make(map[string]uint64)
	for _, o := range objs {
		n, ok := o.(*nftables.NamedObj)
		if !ok {
			continue
		}
		if c, ok := n.Obj.(*expr.Counter); ok {
			dropped[n.Name] = c.Packets
		}
	}
	return dropped, nil
}
