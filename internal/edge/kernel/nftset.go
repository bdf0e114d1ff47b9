package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/node"
)

// setType is one of the types of set of package node, in the kernel's terms.
// The kernel keeps the numbers of the types for nft(8), which prints by them.
type setType struct {
	keyType uint32
	keyLen  uint32
	flags   uint32
}

// Types of nft(8), include/datatype.h there. Of a concatenation the first is in
// the higher bits, and the parts are padded to 4 bytes.
const (
	typeIPAddr   = 7
	typeMark     = 19
	typeIfName   = 41
	typeBits     = 6
	byteOrderNet = 2 // BYTEORDER_BIG_ENDIAN, for NFTNL_UDATA_SET_KEYBYTEORDER
	byteOrderCPU = 1
)

var setTypes = map[string]setType{
	node.TypePods:      {typeIfName<<typeBits | typeIPAddr, unix.IFNAMSIZ + 4, unix.NFT_SET_MAP},
	node.TypeInterface: {typeIfName, unix.IFNAMSIZ, unix.NFT_SET_MAP},
	node.TypeMark:      {typeMark, 4, unix.NFT_SET_MAP},
	node.TypePrefixes:  {typeIPAddr, 4, unix.NFT_SET_INTERVAL},
}

// name finds the words for a set as it was read; others equal nothing wanted.
func (t setType) name(dataType uint32) string {
	for name, known := range setTypes {
		if t == known && (t.flags&unix.NFT_SET_MAP == 0 || dataType == unix.NFT_DATA_VERDICT) {
			return name
		}
	}
	return fmt.Sprintf("unknown(key %#x of %d bytes, flags %#x, data %#x)", t.keyType, t.keyLen, t.flags, dataType)
}

// tableName is a table of family inet.
type tableName string

const ourTable tableName = node.TableName

// message starts one about the table: struct nfgenmsg and the table's name,
// which is attribute 1 of all of them.
func (t tableName) message(kind, flags int) *message {
	m := newMessage(unix.NFNL_SUBSYS_NFTABLES<<8|kind, flags, sizeofNfgenmsg)
	m.fixed()[0], m.fixed()[1] = unix.NFPROTO_INET, unix.NFNETLINK_V0
	m.text(unix.NFTA_TABLE_NAME, string(t))
	return m
}

// newSet creates a set, map or counter. id names it within its transaction.
func (t tableName) newSet(s node.Set, id uint32) (*message, error) {
	if s.Type == node.TypeCounter {
		m := t.message(unix.NFT_MSG_NEWOBJ, unix.NLM_F_CREATE)
		m.text(unix.NFTA_OBJ_NAME, s.Name)
		m.be32(unix.NFTA_OBJ_TYPE, unix.NFT_OBJECT_COUNTER)
		m.nested(unix.NFTA_OBJ_DATA, func() {})
		return m, nil
	}
	is, ok := setTypes[s.Type]
	if !ok {
		return nil, fmt.Errorf("set %s has a type that is not known: %q", s.Name, s.Type)
	}
	m := t.message(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE)
	m.text(unix.NFTA_SET_NAME, s.Name)
	m.be32(unix.NFTA_SET_FLAGS, is.flags)
	m.be32(unix.NFTA_SET_KEY_TYPE, is.keyType)
	m.be32(unix.NFTA_SET_KEY_LEN, is.keyLen)
	m.be32(unix.NFTA_SET_ID, id)
	if is.flags&unix.NFT_SET_MAP != 0 {
		m.be32(unix.NFTA_SET_DATA_TYPE, unix.NFT_DATA_VERDICT)
		m.be32(unix.NFTA_SET_DATA_LEN, 0)
	}
	order := uint32(byteOrderCPU)
	if is.flags&unix.NFT_SET_INTERVAL != 0 {
		order = byteOrderNet
	}
	m.attr(unix.NFTA_SET_USERDATA, userdata.AppendUint32(nil, userdata.NFTNL_UDATA_SET_KEYBYTEORDER, order))
	return m, nil
}

func (t tableName) delSet(s node.Set) *message {
	if s.Type == node.TypeCounter {
		m := t.message(unix.NFT_MSG_DELOBJ, 0)
		m.text(unix.NFTA_OBJ_NAME, s.Name)
		m.be32(unix.NFTA_OBJ_TYPE, unix.NFT_OBJECT_COUNTER)
		return m
	}
	m := t.message(unix.NFT_MSG_DELSET, 0)
	m.text(unix.NFTA_SET_NAME, s.Name)
	return m
}

// entry is an element in the kernel's terms. An interval is two of them.
type entry struct {
	key     []byte
	end     bool // the key is the first that the interval does not hold
	verdict expr.Verdict
	isMap   bool
}

// put adds the entry to a list of elements.
func (e entry) put(m *message) {
	m.nested(unix.NFTA_LIST_ELEM, func() {
		if e.end {
			m.be32(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
		}
		m.nested(unix.NFTA_SET_ELEM_KEY, func() { m.attr(unix.NFTA_DATA_VALUE, e.key) })
		if e.isMap {
			m.nested(unix.NFTA_SET_ELEM_DATA, func() {
				m.nested(unix.NFTA_DATA_VERDICT, func() {
					m.be32(unix.NFTA_VERDICT_CODE, uint32(e.verdict.Kind))
					if e.verdict.Chain != "" {
						m.text(unix.NFTA_VERDICT_CHAIN, e.verdict.Chain)
					}
				})
			})
		}
	})
}

// parseEntry reads one element of a list.
func parseEntry(b []byte) entry {
	var e entry
	for kind, value := range attributes(b) {
		switch kind {
		case unix.NFTA_SET_ELEM_KEY:
			for kind, data := range attributes(value) {
				if kind == unix.NFTA_DATA_VALUE {
					e.key = data
				}
			}
		case unix.NFTA_SET_ELEM_DATA:
			for kind, data := range attributes(value) {
				if kind == unix.NFTA_DATA_VERDICT {
					e.verdict, e.isMap = readVerdict(data), true
				}
			}
		case unix.NFTA_SET_ELEM_FLAGS:
			e.end = be32(value)&unix.NFT_SET_ELEM_INTERVAL_END != 0
		}
	}
	return e
}

// entries writes an element of package node in the kernel's terms. What the key
// is, its text says: a name, a name and an address, a mark, a prefix.
func entries(e node.Element) ([]entry, error) {
	fail := func(err error) ([]entry, error) { return nil, fmt.Errorf("%s: %w", e.Key(), err) }
	if e.Verdict == "" {
		from, behind, err := parseInterval(e.Match)
		if err != nil {
			return fail(err)
		}
		out := []entry{{key: from.AsSlice()}}
		if behind.IsValid() {
			out = append(out, entry{key: behind.AsSlice(), end: true})
		}
		return out, nil
	}
	verdict, rest, err := parseVerdict(strings.Fields(e.Verdict))
	if err != nil || len(rest) > 0 {
		return fail(fmt.Errorf("verdict %q: %w", e.Verdict, errors.Join(err)))
	}
	out := entry{verdict: verdict, isMap: true}
	if number, ok := strings.CutPrefix(e.Match, "0x"); ok {
		mark, err := strconv.ParseUint(number, 16, 32)
		if err != nil {
			return fail(err)
		}
		out.key = binary.NativeEndian.AppendUint32(nil, uint32(mark))
		return []entry{out}, nil
	}
	quoted, addr, concatenated := strings.Cut(e.Match, " . ")
	name, err := strconv.Unquote(quoted)
	if err != nil || len(name) > unix.IFNAMSIZ {
		return fail(fmt.Errorf("%s is no device in quotes", quoted))
	}
	out.key = ifName(name)
	if concatenated {
		a, err := parseIPv4(addr)
		if err != nil {
			return fail(err)
		}
		out.key = append(out.key, a.AsSlice()...)
	}
	return []entry{out}, nil
}

// objects gives the elements of a set the words of package node.
func objects(s node.Set, all []entry) []node.Object {
	if s.Type == node.TypePrefixes {
		return intervals(s.Name, all)
	}
	out := make([]node.Object, 0, len(all))
	for _, e := range all {
		o := node.Element{Set: s.Name, Verdict: verdictText(e.verdict)}
		switch {
		case s.Type == node.TypeMark && len(e.key) == 4:
			o.Match = node.Mark(binary.NativeEndian.Uint32(e.key))
		case s.Type == node.TypeInterface && len(e.key) == unix.IFNAMSIZ:
			o.Match = strconv.Quote(name(e.key))
		case s.Type == node.TypePods && len(e.key) == unix.IFNAMSIZ+4:
			o.Match = strconv.Quote(name(e.key[:unix.IFNAMSIZ])) + " . " + ipv4(e.key[unix.IFNAMSIZ:]).String()
		default:
			continue // of a set that is not wanted, and goes whole
		}
		out = append(out, o)
	}
	return out
}

// name is a device's name in a key. Unlike [text] it leaves nothing out, so that
// the key can be made from it again.
func name(b []byte) string { return string(bytes.TrimRight(b, "\x00")) }

// intervals joins the kernel's starts and ends.
func intervals(set string, all []entry) []node.Object {
	var ends, starts []netip.Addr
	for _, e := range all {
		a := ipv4(e.key)
		switch {
		case !a.IsValid():
		case e.end:
			ends = append(ends, a)
		default:
			starts = append(starts, a)
		}
	}
	slices.SortFunc(ends, netip.Addr.Compare)
	out := make([]node.Object, 0, len(starts))
	for _, s := range starts {
		var behind netip.Addr
		if i, found := slices.BinarySearchFunc(ends, s, netip.Addr.Compare); found && i+1 < len(ends) {
			behind = ends[i+1] // the one before ends where this one starts
		} else if !found && i < len(ends) {
			behind = ends[i]
		}
		out = append(out, node.Element{Set: set, Match: intervalText(s, behind)})
	}
	return out
}

// intervalText is a prefix, or two addresses and a dash. behind is invalid if
// the interval goes on to the last address.
func intervalText(from, behind netip.Addr) string {
	for bits := 0; bits <= 32; bits++ {
		p := netip.PrefixFrom(from, bits)
		if p.Masked().Addr() == from && after(p) == behind {
			return p.String()
		}
	}
	last := netip.AddrFrom4([4]byte{255, 255, 255, 255})
	if behind.IsValid() {
		last = behind.Prev()
	}
	return from.String() + "-" + last.String()
}

func parseInterval(s string) (from, behind netip.Addr, err error) {
	if first, last, ok := strings.Cut(s, "-"); ok {
		from, err = parseIPv4(first)
		end, err2 := parseIPv4(last)
		return from, end.Next(), errors.Join(err, err2)
	}
	p, err := netip.ParsePrefix(s)
	if err == nil && !p.Addr().Is4() {
		err = fmt.Errorf("%s is not IPv4", s)
	}
	if err != nil {
		return from, behind, err
	}
	return p.Masked().Addr(), after(p), nil
}

func parseIPv4(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err == nil && !a.Is4() {
		err = fmt.Errorf("%s is not IPv4", s)
	}
	return a, err
}

// after is the first address behind a prefix; invalid behind the last one.
func after(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	last := binary.BigEndian.Uint32(b[:]) | uint32(1<<(32-p.Bits())-1)
	binary.BigEndian.PutUint32(b[:], last)
	return netip.AddrFrom4(b).Next()
}
