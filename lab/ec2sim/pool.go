package ec2sim

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// pool knows which addresses of a subnet are taken, one bit each. The lowest
// free address is given first, and the lowest free aligned block of sixteen:
// the real service promises no order, and this one is the simplest to foresee.
//
//	.0 network  .1 router  .2 DNS  .3 kept | .4 ... | last: broadcast
//
// Source: "Subnet CIDR blocks", Amazon VPC User Guide.
type pool struct {
	journal *journal
	cidr    netip.Prefix
	base    uint32
	taken   []uint64 // bit i of word w is address base + 64*w + i; bits past the end are set
	free    int

	reserved []CIDRReservation // what is never chosen, or for prefixes only
}

const (
	reservedLow  = 4  // first addresses of a subnet that nobody can have
	prefixBits   = 28 // the only prefix length EC2 assigns in IPv4
	prefixBlock  = 16 // addresses of such a prefix
	blocksInWord = 64 / prefixBlock
)

// newPool makes the pool of a subnet between /16 and /28.
func newPool(j *journal, cidr netip.Prefix) *pool {
	size := 1 << (32 - cidr.Bits())
	p := &pool{journal: j, cidr: cidr, base: number(cidr.Addr()), taken: make([]uint64, (size+63)/64), free: size}
	for i := size; i < 64*len(p.taken); i++ {
		p.taken[i/64] |= 1 << (i % 64)
	}
	for i := range reservedLow {
		p.mark(uint32(i), 1)
	}
	p.mark(uint32(size-1), 1)
	return p
}

func number(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

func (p *pool) at(offset uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], p.base+offset)
	return netip.AddrFrom4(b)
}

// run is the bits of n addresses from offset on, which lie in one word.
func run(offset uint32, n int) (word int, bits uint64) {
	return int(offset / 64), (1<<n - 1) << (offset % 64)
}

func (p *pool) mark(offset uint32, n int) {
	w, b := run(offset, n)
	p.taken[w] |= b
	p.free -= n
}

func (p *pool) unmark(offset uint32, n int) {
	w, b := run(offset, n)
	p.taken[w] &^= b
	p.free += n
}

// hold takes n free addresses in a way that can be undone.
func (p *pool) hold(offset uint32, n int) {
	p.mark(offset, n)
	p.journal.add(func() { p.unmark(offset, n) }, func() { p.mark(offset, n) })
}

// takeLowest takes one address.
func (p *pool) takeLowest() (netip.Addr, error) {
	for w, word := range p.taken {
		if len(p.reserved) > 0 {
			kept, _ := p.reservedBits(w)
			word |= kept
		}
		if word != ^uint64(0) {
			offset := uint32(64*w + bits.TrailingZeros64(^word))
			p.hold(offset, 1)
			return p.at(offset), nil
		}
	}
	return netip.Addr{}, noFreeAddress()
}

// takeBlock takes an aligned /28 that is wholly free. Addresses may be free
// while no such block is: the subnet is fragmented.
//
// What is reserved for prefixes comes first.
func (p *pool) takeBlock() (netip.Prefix, error) {
	if len(p.reserved) > 0 {
		got, ok := p.takeBlockFrom(func(w int) uint64 { _, prefixes := p.reservedBits(w); return p.taken[w] | ^prefixes })
		if ok {
			return got, nil
		}
	}
	got, ok := p.takeBlockFrom(func(w int) uint64 { all, _ := p.reservedBits(w); return p.taken[w] | all })
	if !ok {
		return got, noFreeBlock()
	}
	return got, nil
}

func (p *pool) takeBlockFrom(taken func(w int) uint64) (netip.Prefix, bool) {
	for w := range p.taken {
		word := taken(w)
		for i := range blocksInWord {
			if word>>(i*prefixBlock)&(1<<prefixBlock-1) == 0 {
				offset := uint32(64*w + i*prefixBlock)
				p.hold(offset, prefixBlock)
				return netip.PrefixFrom(p.at(offset), prefixBits), true
			}
		}
	}
	return netip.Prefix{}, false
}

// isReserved reports whether a, which the subnet contains, is one of the five
// that nobody can have.
func (p *pool) isReserved(a netip.Addr) bool {
	offset := number(a) - p.base
	return offset < reservedLow || offset == 1<<(32-p.cidr.Bits())-1
}

// isFree reports whether all of the block of n addresses from a on is free.
func (p *pool) isFree(a netip.Addr, n int) bool {
	w, b := run(number(a)-p.base, n)
	return p.taken[w]&b == 0
}

// take takes n addresses from a on, which must be free.
func (p *pool) take(a netip.Addr, n int) { p.hold(number(a)-p.base, n) }

// release gives n taken addresses from a on back.
func (p *pool) release(a netip.Addr, n int) {
	offset := number(a) - p.base
	p.unmark(offset, n)
	p.journal.add(func() { p.mark(offset, n) }, func() { p.unmark(offset, n) })
}
