package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Registers: the first holds 16 bytes, so a name fills it, and what is loaded
// behind a name goes into the second.
const (
	verdictReg = unix.NFT_REG_VERDICT
	reg1       = unix.NFT_REG_1
	reg2       = unix.NFT_REG_2
)

// compile turns one rule, as package intent writes it, into what the kernel
// takes. It knows the words that are written there and no others:
//
//	meta iifgroup G                             goto CHAIN | accept | drop | return
//	meta nfproto != ipv4                        iifname vmap @MAP
//	oifname "NAME"                              iifname . ip saddr vmap @MAP
//	ip daddr @SET                               {meta|ct} mark & M vmap @MAP
//	ct direction {original|reply}               {meta|ct} mark set {meta|ct} mark & M | V
//	{meta|ct} mark & M == V                     counter name "NAME"
//	                                            snat ip to ADDR [random|fully-random]
//
// A rule that would be read back in other words is refused: it would differ from
// what is wanted for ever.
func compile(line string) ([]expr.Any, error) {
	w := &ruleWriter{words: strings.Fields(line)}
	for len(w.words) > 0 && w.err == nil {
		w.statement()
	}
	if w.err == nil && len(w.exprs) == 0 {
		w.err = errors.New("it is empty")
	}
	if w.err != nil {
		return nil, fmt.Errorf("compile rule %q: %w", line, w.err)
	}
	if back := decompile(w.exprs); back != line {
		return nil, fmt.Errorf("compile rule %q: the kernel would say %q", line, back)
	}
	return w.exprs, nil
}

// ruleWriter compiles word by word; err is the first failure.
type ruleWriter struct {
	words []string
	exprs []expr.Any
	ipv4  bool // the rule is for IPv4 packets from here on
	err   error
}

func (w *ruleWriter) add(exprs ...expr.Any) { w.exprs = append(w.exprs, exprs...) }

// take drops the words if they come next.
func (w *ruleWriter) take(words ...string) bool {
	if len(w.words) < len(words) {
		return false
	}
	for i, word := range words {
		if w.words[i] != word {
			return false
		}
	}
	w.words = w.words[len(words):]
	return true
}

// next takes whatever word comes.
func (w *ruleWriter) next() string {
	if len(w.words) == 0 {
		w.fail("it ends too early")
		return ""
	}
	word := w.words[0]
	w.words = w.words[1:]
	return word
}

func (w *ruleWriter) expect(words ...string) {
	if !w.take(words...) {
		w.fail("want %q, have %q", strings.Join(words, " "), strings.Join(w.words, " "))
	}
}

func (w *ruleWriter) fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf(format, args...)
	}
}

func (w *ruleWriter) statement() {
	switch {
	case w.take("meta", "iifgroup"):
		w.load(expr.MetaKeyIIFGROUP)
		w.equal(binary.NativeEndian.AppendUint32(nil, w.number()))
	case w.take("meta", "nfproto", "!=", "ipv4"):
		w.load(expr.MetaKeyNFPROTO)
		w.add(&expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: []byte{unix.NFPROTO_IPV4}})
	case w.take("oifname"):
		w.load(expr.MetaKeyOIFNAME)
		w.equal(ifName(w.quoted()))
	case w.take("iifname", ".", "ip", "saddr"):
		w.needIPv4()
		w.load(expr.MetaKeyIIFNAME)
		w.add(&expr.Payload{DestRegister: reg2, Base: expr.PayloadBaseNetworkHeader, Offset: offsetSource, Len: 4})
		w.vmap()
	case w.take("iifname"):
		w.load(expr.MetaKeyIIFNAME)
		w.vmap()
	case w.take("ip", "daddr"):
		w.needIPv4()
		w.add(&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseNetworkHeader, Offset: offsetDestination, Len: 4},
			&expr.Lookup{SourceRegister: reg1, SetName: w.set()})
	case w.take("ct", "direction"):
		w.add(&expr.Ct{Key: expr.CtKeyDIRECTION, Register: reg1})
		w.equal([]byte{w.direction()})
	case w.take("meta", "mark", "set", "meta", "mark"):
		w.load(expr.MetaKeyMARK)
		w.change()
		w.add(&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: reg1})
	case w.take("ct", "mark", "set", "ct", "mark"):
		w.add(&expr.Ct{Key: expr.CtKeyMARK, Register: reg1})
		w.change()
		w.add(&expr.Ct{Key: expr.CtKeyMARK, SourceRegister: true, Register: reg1})
	case w.take("meta", "mark"):
		w.load(expr.MetaKeyMARK)
		w.masked()
	case w.take("ct", "mark"):
		w.add(&expr.Ct{Key: expr.CtKeyMARK, Register: reg1})
		w.masked()
	case w.take("counter", "name"):
		w.add(&expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: w.quoted()})
	case w.take("snat", "ip", "to"):
		w.sourceNAT()
	default:
		w.verdict()
	}
}

// Offsets in the IPv4 header (RFC 791, 3.1).
const (
	offsetSource      = 12
	offsetDestination = 16
)

func (w *ruleWriter) load(key expr.MetaKey) { w.add(&expr.Meta{Key: key, Register: reg1}) }

func (w *ruleWriter) equal(data []byte) {
	w.add(&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: data})
}

// needIPv4 makes sure that there is an IPv4 header to read from: the table is
// for all of IP. nft(8) implies it, and does not print it.
func (w *ruleWriter) needIPv4() {
	if !w.ipv4 {
		w.ipv4 = true
		w.load(expr.MetaKeyNFPROTO)
		w.equal([]byte{unix.NFPROTO_IPV4})
	}
}

// masked is what comes behind a mark that is looked at.
func (w *ruleWriter) masked() {
	w.expect("&")
	w.bitwise(w.number(), 0)
	if w.take("==") {
		w.equal(binary.NativeEndian.AppendUint32(nil, w.number()))
		return
	}
	w.vmap()
}

// change is what comes behind a mark that is written.
func (w *ruleWriter) change() {
	w.expect("&")
	mask := w.number()
	w.expect("|")
	w.bitwise(mask, w.number())
}

// bitwise keeps the bits of mask and turns those of xor.
func (w *ruleWriter) bitwise(mask, xor uint32) {
	w.add(&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 4,
		Mask: binary.NativeEndian.AppendUint32(nil, mask), Xor: binary.NativeEndian.AppendUint32(nil, xor)})
}

func (w *ruleWriter) vmap() {
	w.expect("vmap")
	w.add(&expr.Lookup{SourceRegister: reg1, SetName: w.set(), DestRegister: verdictReg, IsDestRegSet: true})
}

func (w *ruleWriter) sourceNAT() {
	to, err := netip.ParseAddr(w.next())
	if err != nil || !to.Is4() {
		w.fail("it translates to no IPv4 address")
		return
	}
	nat := &expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg1}
	switch {
	case w.take("random"):
		nat.Random = true
	case w.take("fully-random"):
		nat.FullyRandom = true
	}
	w.add(&expr.Immediate{Register: reg1, Data: to.AsSlice()}, nat)
}

func (w *ruleWriter) verdict() {
	v, rest, err := parseVerdict(w.words)
	if err != nil {
		w.fail("%w", err)
		return
	}
	w.words = rest
	w.add(&v)
}

// parseVerdict reads a verdict at the start of words.
func parseVerdict(words []string) (v expr.Verdict, rest []string, err error) {
	if len(words) == 0 {
		return v, nil, errors.New("no verdict")
	}
	switch words[0] {
	case "accept":
		v.Kind = expr.VerdictAccept
	case "drop":
		v.Kind = expr.VerdictDrop
	case "return":
		v.Kind = expr.VerdictReturn
	case "goto":
		if len(words) < 2 || !isName(words[1]) {
			return v, nil, errors.New("goto without the name of a chain")
		}
		v.Kind, v.Chain = expr.VerdictGoto, words[1]
		return v, words[2:], nil
	default:
		return v, nil, fmt.Errorf("unknown word %q", words[0])
	}
	return v, words[1:], nil
}

func (w *ruleWriter) direction() byte {
	switch word := w.next(); word {
	case "original":
		return ctOriginal
	case "reply":
		return ctReply
	default:
		w.fail("unknown direction %q", word)
		return 0
	}
}

// Directions of a connection (enum ip_conntrack_dir).
const (
	ctOriginal = 0
	ctReply    = 1
)

func (w *ruleWriter) number() uint32 {
	n, err := strconv.ParseUint(w.next(), 0, 32)
	if err != nil {
		w.fail("no number of 32 bits: %w", err)
	}
	return uint32(n)
}

func (w *ruleWriter) set() string {
	name, ok := strings.CutPrefix(w.next(), "@")
	if !ok || !isName(name) {
		w.fail("no name of a set: %q", name)
	}
	return name
}

func (w *ruleWriter) quoted() string {
	word := w.next()
	name, err := strconv.Unquote(word)
	if err != nil || !isName(name) {
		w.fail("no name in quotes: %s", word)
	}
	return name
}

// isName accepts what the kernel takes for the name of a chain, set, counter or
// device, as long as it needs no quoting.
func isName(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"\/@;{}#`, c) >= 0 {
			return false
		}
	}
	return s != "" && len(s) < 128
}

func ifName(name string) []byte {
	b := make([]byte, max(unix.IFNAMSIZ, len(name)))
	copy(b, name)
	return b
}
