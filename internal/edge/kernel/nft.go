package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/diff"
	"github.com/fairway-cni/fairway/internal/core/node"
)

// The table, as `nft list table inet fairway` shows it:
//
//	table inet fairway {
//	    counter spoofed { }
//	    counter not-ipv4 { }
//	    map pods {
//	        type ifname . ipv4_addr : verdict
//	        elements = { "fwy0a1b2c3d4e5" . 10.0.1.17 : goto eni-1 }
//	    }
//	    set native { type ipv4_addr; flags interval; elements = { 10.0.0.0/16 } }
//	    chain prerouting {
//	        type filter hook prerouting priority mangle; policy accept;
//	        iifname "fwy*" jump from-pod
//	    }
//	    chain from-pod {
//	        meta nfproto != ipv4 counter name "not-ipv4" drop
//	        iifname . ip saddr vmap @pods
//	        counter name "spoofed" drop
//	    }
//	    chain eni-1 { meta mark set meta mark & 0x81ffffff | 0x01000000 }
//	    chain postrouting {
//	        type nat hook postrouting priority srcnat; policy accept;
//	        oifname "ens5" meta mark & 0x7f000000 != 0 ip daddr != @native snat ip to 10.0.1.5
//	    }
//	}
//
// The admission of a pod is one map element: adding or removing a pod never
// changes a rule, and every packet costs one hash lookup whatever their number.
// A chain per ENI sets the mark because `meta mark set ... map` would overwrite
// the bits that belong to others.
const (
	podMap       = "pods"
	nativeSet    = "native"
	chainIn      = "prerouting"
	chainPod     = "from-pod"
	chainOut     = "postrouting"
	ifNameSize   = unix.IFNAMSIZ
	reg1         = 1  // NFT_REG_1: the first 16 bytes
	regAfterName = 12 // NFT_REG32_04: the 4 bytes after an interface name in reg1
)

// Counter names of dropped packets.
const (
	// CounterSpoofed counts packets from a pod's device with a source address
	// that is not the pod's.
	CounterSpoofed = "spoofed"
	// CounterNotIPv4 counts packets from a pod's device that are not IPv4.
	CounterNotIPv4 = "not-ipv4"
)

func table() *nftables.Table {
	return &nftables.Table{Name: node.TableName, Family: nftables.TableFamilyINet}
}

func podSet(t *nftables.Table) *nftables.Set {
	return &nftables.Set{
		Table: t, Name: podMap, IsMap: true, Concatenation: true,
		KeyType:  nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeIPAddr),
		DataType: nftables.TypeVerdict,
	}
}

func nativePrefixes(t *nftables.Table) *nftables.Set {
	return &nftables.Set{Table: t, Name: nativeSet, KeyType: nftables.TypeIPAddr, Interval: true}
}

// ResetFilter replaces the whole table by what want says, in one transaction:
// a packet sees the old table or the new one, never a part. Counters restart.
func (k *Kernel) ResetFilter(want []node.Object) error {
	t := table()
	k.nft.AddTable(t) // so that the deletion finds one
	k.nft.DelTable(t)
	k.nft.AddTable(t)
	for _, name := range []string{CounterSpoofed, CounterNotIPv4} {
		k.nft.AddObj(&nftables.NamedObj{Table: t, Name: name, Type: nftables.ObjTypeCounter, Obj: &expr.Counter{}})
	}
	if err := errors.Join(k.nft.AddSet(podSet(t), nil), k.nft.AddSet(nativePrefixes(t), nil)); err != nil {
		return fmt.Errorf("build nftables sets: %w", err)
	}
	accept := nftables.ChainPolicyAccept
	in := k.nft.AddChain(&nftables.Chain{Table: t, Name: chainIn, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityMangle, Policy: &accept})
	fromPod := k.nft.AddChain(&nftables.Chain{Table: t, Name: chainPod})
	k.nft.AddChain(&nftables.Chain{Table: t, Name: chainOut, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource, Policy: &accept})
	for _, rule := range admission(t, in, fromPod) {
		k.nft.AddRule(rule)
	}
	if err := k.stage(diff.Compare(nil, filterObjects(want))); err != nil {
		return err
	}
	if err := k.nft.Flush(); err != nil {
		return fmt.Errorf("reset nftables table %s: %w", node.TableName, err)
	}
	return nil
}

func filterObjects(objects []node.Object) []node.Object {
	var filter []node.Object
	for _, o := range objects {
		if o.Rank() >= node.RankChain {
			filter = append(filter, o)
		}
	}
	return filter
}

func admission(t *nftables.Table, in, fromPod *nftables.Chain) []*nftables.Rule {
	drop := &expr.Verdict{Kind: expr.VerdictDrop}
	return []*nftables.Rule{
		{Table: t, Chain: in, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg1},
			// Three bytes of a sixteen-byte name: nft's "fwy*".
			&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte(node.VethPrefix)},
			&expr.Verdict{Kind: expr.VerdictJump, Chain: chainPod},
		}},
		{Table: t, Chain: fromPod, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg1},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: []byte{unix.NFPROTO_IPV4}},
			&expr.Objref{Type: int(nftables.ObjTypeCounter), Name: CounterNotIPv4},
			drop,
		}},
		{Table: t, Chain: fromPod, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{unix.NFPROTO_IPV4}},
			&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg1},
			// The source address: 4 bytes at offset 12 of the IPv4 header.
			&expr.Payload{DestRegister: regAfterName, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},
			&expr.Lookup{SourceRegister: reg1, SetName: podMap, IsDestRegSet: true},
		}},
		{Table: t, Chain: fromPod, Exprs: []expr.Any{
			&expr.Objref{Type: int(nftables.ObjTypeCounter), Name: CounterSpoofed},
			drop,
		}},
	}
}

// applyNFT carries out changes of chains and elements in one transaction. One
// that only removes, and fails because something is gone already, is repeated
// change by change: to be gone is what is wanted.
func (k *Kernel) applyNFT(changes []diff.Change) error {
	if err := k.stage(changes); err != nil {
		return err
	}
	err := k.nft.Flush()
	if errors.Is(err, unix.ENOENT) && onlyRemoves(changes) {
		if len(changes) == 1 {
			return nil
		}
		var errs []error
		for i := range changes {
			errs = append(errs, k.applyNFT(changes[i:i+1]))
		}
		return errors.Join(errs...)
	}
	if err != nil {
		return fmt.Errorf("change nftables table %s (%s and %d more): %w", node.TableName, changes[0].Key, len(changes)-1, err)
	}
	return nil
}

func onlyRemoves(changes []diff.Change) bool {
	for _, c := range changes {
		if c.Verb != diff.Remove {
			return false
		}
	}
	return true
}

// stage queues the changes so that nothing refers to what is not there:
// chains come first, then elements go, then elements come, then chains go.
func (k *Kernel) stage(changes []diff.Change) error {
	t := table()
	var errs []error
	for _, c := range changes {
		if c.New != nil && c.New.Rank() == node.RankChain {
			k.stageChain(t, c.New)
		}
	}
	for _, c := range changes {
		if c.Old != nil && c.Old.Rank() == node.RankElement {
			set, elements := element(t, c.Old)
			errs = append(errs, k.nft.SetDeleteElements(set, elements))
		}
	}
	for _, c := range changes {
		if c.New != nil && c.New.Rank() == node.RankElement {
			set, elements := element(t, c.New)
			errs = append(errs, k.nft.SetAddElements(set, elements))
		}
	}
	for _, c := range changes {
		if c.New != nil || c.Old == nil || c.Old.Rank() != node.RankChain {
			continue
		}
		switch o := c.Old.(type) {
		case node.MarkChain:
			chain := &nftables.Chain{Table: t, Name: o.Name}
			k.nft.FlushChain(chain)
			k.nft.DelChain(chain)
		case node.SourceNAT:
			k.nft.FlushChain(&nftables.Chain{Table: t, Name: chainOut})
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("build nftables transaction: %w", err)
	}
	return nil
}

func (k *Kernel) stageChain(t *nftables.Table, o node.Object) {
	switch o := o.(type) {
	case node.Admission: // made by ResetFilter, with the table
	case node.MarkChain:
		chain := k.nft.AddChain(&nftables.Chain{Table: t, Name: o.Name})
		k.nft.FlushChain(chain)
		k.nft.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyMARK, Register: reg1},
			&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 4,
				Mask: binaryutil.NativeEndian.PutUint32(^o.Mask), Xor: binaryutil.NativeEndian.PutUint32(o.Mark)},
			&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: reg1},
		}})
	case node.SourceNAT:
		chain := &nftables.Chain{Table: t, Name: chainOut}
		k.nft.FlushChain(chain)
		k.nft.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: sourceNAT(o)})
	}
}

func sourceNAT(o node.SourceNAT) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{unix.NFPROTO_IPV4}},
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: ifName(o.Link)},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: reg1},
		&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(node.MarkMask), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: make([]byte, 4)},
		// The destination address: 4 bytes at offset 16 of the IPv4 header.
		&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
		&expr.Lookup{SourceRegister: reg1, SetName: nativeSet, Invert: true},
		&expr.Immediate{Register: reg1, Data: o.To.AsSlice()},
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg1, FullyRandom: true},
	}
}

func element(t *nftables.Table, o node.Object) (*nftables.Set, []nftables.SetElement) {
	switch o := o.(type) {
	case node.PodKey:
		return podSet(t), []nftables.SetElement{{
			Key:         append(ifName(o.Veth), o.Addr.AsSlice()...),
			VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: o.Chain},
		}}
	case node.NativePrefix:
		elements := []nftables.SetElement{{Key: o.Prefix.Masked().Addr().AsSlice()}}
		if end := after(o.Prefix); end.IsValid() {
			elements = append(elements, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
		}
		return nativePrefixes(t), elements
	}
	panic(fmt.Sprintf("%T is not a set element", o)) // the ranks say so
}

// after is the first address behind a prefix; invalid behind the last one.
func after(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	last := binary.BigEndian.Uint32(b[:]) | uint32(1<<(32-p.Bits())-1)
	binary.BigEndian.PutUint32(b[:], last)
	return netip.AddrFrom4(b).Next()
}

func ifName(name string) []byte {
	b := make([]byte, ifNameSize)
	copy(b, name)
	return b
}
