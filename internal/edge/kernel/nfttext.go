package kernel

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// decompile says what a rule does in the words that [compile] takes. What it
// does not understand it says in other words, which equal nothing that is
// wanted, so that the chain is written anew.
func decompile(exprs []expr.Any) string {
	var r ruleReader
	for _, e := range exprs {
		r.step(e)
	}
	if r.ipv4 == pending {
		r.say("meta nfproto ipv4")
	}
	for _, v := range r.registers {
		r.say("unknown(%s is loaded for nothing)", v.text)
	}
	return strings.Join(r.words, " ")
}

// ruleReader is the kernel's register machine, with words in its registers.
type ruleReader struct {
	words     []string
	registers []loaded
	ipv4      dependency
}

// loaded is a value in a register.
type loaded struct {
	slot int // counted in 4 bytes, as the kernel does
	kind valueKind
	text string
}

// valueKind is what a value is, which decides its size and how a constant beside
// it is written.
type valueKind uint8

const (
	kindName valueKind = iota // of an interface: 16 bytes
	kindMark
	kindMaskedMark // bits of it
	kindGroup
	kindDirection
	kindProtocol
	kindAddress
	kindConstant // bytes that an immediate loaded
)

func (k valueKind) slots() int {
	if k == kindName {
		return unix.IFNAMSIZ / 4
	}
	return 1
}

// dependency is the test for IPv4 that nft(8) implies before it reads from a
// header.
type dependency uint8

const (
	absent dependency = iota
	pending
	used
)

func (r *ruleReader) say(format string, args ...any) {
	r.words = append(r.words, fmt.Sprintf(format, args...))
}

func (r *ruleReader) unknown(e expr.Any) {
	r.say("unknown(%s)", strings.TrimPrefix(fmt.Sprintf("%T%v", e, e), "*expr."))
}

// slotOf follows nft_parse_register: a register of 16 bytes is four of 4 bytes.
func slotOf(register uint32) int {
	if register <= unix.NFT_REG_4 {
		return int(register) * 4
	}
	return int(register) - unix.NFT_REG32_00 + 4
}

func (r *ruleReader) load(register uint32, kind valueKind, text string) {
	r.registers = append(r.registers, loaded{slotOf(register), kind, text})
}

// consume takes the values out of the registers: all of them, beside each other
// from this one on. More or less is not what compile writes.
func (r *ruleReader) consume(register uint32) ([]loaded, bool) {
	values := r.registers
	r.registers = nil
	slices.SortFunc(values, func(a, b loaded) int { return a.slot - b.slot })
	slot := slotOf(register)
	for _, v := range values {
		if v.slot != slot {
			return nil, false
		}
		slot += v.kind.slots()
	}
	return values, len(values) > 0
}

func (r *ruleReader) step(e expr.Any) {
	ok := false
	switch e := e.(type) {
	case *expr.Meta:
		ok = r.meta(e)
	case *expr.Ct:
		ok = r.ct(e)
	case *expr.Payload:
		ok = r.payload(e)
	case *expr.Bitwise:
		ok = r.bitwise(e)
	case *expr.Cmp:
		ok = r.cmp(e)
	case *expr.Lookup:
		ok = r.lookup(e)
	case *expr.Immediate:
		if ok = len(e.Data) == 4; ok {
			r.load(e.Register, kindConstant, ipv4(e.Data).String())
		}
	case *expr.NAT:
		ok = r.nat(e)
	case *expr.Objref:
		if ok = e.Type == unix.NFT_OBJECT_COUNTER; ok {
			r.say("counter name %q", e.Name)
		}
	case *expr.Verdict:
		r.say("%s", verdictText(*e))
		ok = true
	}
	if !ok {
		r.unknown(e)
	}
}

func (r *ruleReader) meta(e *expr.Meta) bool {
	if e.SourceRegister {
		return e.Key == expr.MetaKeyMARK && r.setMark("meta mark", e.Register)
	}
	switch e.Key {
	case expr.MetaKeyMARK:
		r.load(e.Register, kindMark, "meta mark")
	case expr.MetaKeyIIFGROUP:
		r.load(e.Register, kindGroup, "meta iifgroup")
	case expr.MetaKeyNFPROTO:
		r.load(e.Register, kindProtocol, "meta nfproto")
	case expr.MetaKeyIIFNAME:
		r.load(e.Register, kindName, "iifname")
	case expr.MetaKeyOIFNAME:
		r.load(e.Register, kindName, "oifname")
	default:
		return false
	}
	return true
}

func (r *ruleReader) ct(e *expr.Ct) bool {
	switch {
	case e.SourceRegister:
		return e.Key == expr.CtKeyMARK && r.setMark("ct mark", e.Register)
	case e.Key == expr.CtKeyMARK:
		r.load(e.Register, kindMark, "ct mark")
	case e.Key == expr.CtKeyDIRECTION:
		r.load(e.Register, kindDirection, "ct direction")
	default:
		return false
	}
	return true
}

func (r *ruleReader) setMark(what string, register uint32) bool {
	v, ok := r.consume(register)
	if !ok || len(v) != 1 || v[0].kind != kindMark && v[0].kind != kindMaskedMark {
		return false
	}
	r.say("%s set %s", what, v[0].text)
	return true
}

func (r *ruleReader) payload(e *expr.Payload) bool {
	if e.OperationType != expr.PayloadLoad || e.Base != expr.PayloadBaseNetworkHeader || e.Len != 4 || r.ipv4 == absent {
		return false
	}
	switch e.Offset {
	case offsetSource:
		r.load(e.DestRegister, kindAddress, "ip saddr")
	case offsetDestination:
		r.load(e.DestRegister, kindAddress, "ip daddr")
	default:
		return false
	}
	r.ipv4 = used
	return true
}

func (r *ruleReader) bitwise(e *expr.Bitwise) bool {
	v, ok := r.consume(e.SourceRegister)
	if !ok || len(v) != 1 || v[0].kind != kindMark || e.Len != 4 || len(e.Mask) != 4 || len(e.Xor) != 4 {
		return false
	}
	mask, xor := binary.NativeEndian.Uint32(e.Mask), binary.NativeEndian.Uint32(e.Xor)
	text := fmt.Sprintf("%s & 0x%08x", v[0].text, mask)
	if mask&xor != 0 {
		return false
	}
	if xor != 0 {
		text += fmt.Sprintf(" | 0x%08x", xor)
	}
	r.load(e.DestRegister, kindMaskedMark, text)
	return true
}

func (r *ruleReader) cmp(e *expr.Cmp) bool {
	v, ok := r.consume(e.Register)
	if !ok || len(v) != 1 {
		return false
	}
	kind, equal := v[0].kind, e.Op == expr.CmpOpEq
	switch {
	case kind == kindProtocol && len(e.Data) == 1 && e.Data[0] == unix.NFPROTO_IPV4:
		switch {
		case e.Op == expr.CmpOpNeq:
			r.say("meta nfproto != ipv4")
		case equal && r.ipv4 == absent:
			r.ipv4 = pending
		default:
			return false
		}
	case !equal:
		return false
	case kind == kindName && len(e.Data) == unix.IFNAMSIZ:
		r.say("%s %q", v[0].text, text(e.Data))
	case kind == kindMaskedMark && len(e.Data) == 4:
		r.say("%s == 0x%08x", v[0].text, binary.NativeEndian.Uint32(e.Data))
	case kind == kindGroup && len(e.Data) == 4:
		r.say("%s %#x", v[0].text, binary.NativeEndian.Uint32(e.Data))
	case kind == kindDirection && len(e.Data) == 1 && e.Data[0] <= ctReply:
		r.say("%s %s", v[0].text, [...]string{ctOriginal: "original", ctReply: "reply"}[e.Data[0]])
	default:
		return false
	}
	return true
}

func (r *ruleReader) lookup(e *expr.Lookup) bool {
	values, ok := r.consume(e.SourceRegister)
	if !ok || e.Invert || e.IsDestRegSet && e.DestRegister != verdictReg {
		return false
	}
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = v.text
	}
	how := ""
	if e.IsDestRegSet {
		how = "vmap "
	}
	r.say("%s %s@%s", strings.Join(texts, " . "), how, e.SetName)
	return true
}

func (r *ruleReader) nat(e *expr.NAT) bool {
	v, ok := r.consume(e.RegAddrMin)
	if !ok || len(v) != 1 || v[0].kind != kindConstant || e.Type != expr.NATTypeSourceNAT || e.Family != unix.NFPROTO_IPV4 ||
		e.RegAddrMax != 0 && e.RegAddrMax != e.RegAddrMin || e.RegProtoMin != 0 || e.Persistent || e.Prefix || e.Specified ||
		e.Random && e.FullyRandom {
		return false
	}
	r.say("snat ip to %s", v[0].text)
	switch {
	case e.Random:
		r.say("random")
	case e.FullyRandom:
		r.say("fully-random")
	}
	return true
}

func verdictText(v expr.Verdict) string {
	switch v.Kind {
	case expr.VerdictAccept:
		return "accept"
	case expr.VerdictDrop:
		return "drop"
	case expr.VerdictReturn:
		return "return"
	case expr.VerdictGoto:
		return "goto " + v.Chain
	case expr.VerdictJump:
		return "jump " + v.Chain
	}
	return fmt.Sprintf("unknown(verdict %d)", v.Kind)
}

// unknownExpr is an expression that no rule of ours has.
type unknownExpr struct {
	expr.Any
	name string
}

func (e unknownExpr) String() string { return " " + e.name }

// grammar is what there is in a rule of ours: the kernel's name, how to read it,
// and the attributes that are understood. Another one that is not zero makes
// the expression an unknown one.
var grammar = map[string]struct {
	empty func() expr.Any
	attrs []int
}{
	"meta":      {func() expr.Any { return new(expr.Meta) }, []int{unix.NFTA_META_KEY, unix.NFTA_META_DREG, unix.NFTA_META_SREG}},
	"ct":        {func() expr.Any { return new(expr.Ct) }, []int{unix.NFTA_CT_KEY, unix.NFTA_CT_DREG, unix.NFTA_CT_SREG}},
	"cmp":       {func() expr.Any { return new(expr.Cmp) }, []int{unix.NFTA_CMP_SREG, unix.NFTA_CMP_OP, unix.NFTA_CMP_DATA}},
	"payload":   {func() expr.Any { return new(expr.Payload) }, []int{unix.NFTA_PAYLOAD_DREG, unix.NFTA_PAYLOAD_BASE, unix.NFTA_PAYLOAD_OFFSET, unix.NFTA_PAYLOAD_LEN}},
	"bitwise":   {func() expr.Any { return new(expr.Bitwise) }, []int{unix.NFTA_BITWISE_SREG, unix.NFTA_BITWISE_DREG, unix.NFTA_BITWISE_LEN, unix.NFTA_BITWISE_MASK, unix.NFTA_BITWISE_XOR}},
	"lookup":    {func() expr.Any { return new(expr.Lookup) }, []int{unix.NFTA_LOOKUP_SET, unix.NFTA_LOOKUP_SREG, unix.NFTA_LOOKUP_DREG, unix.NFTA_LOOKUP_SET_ID}},
	"objref":    {func() expr.Any { return new(expr.Objref) }, []int{unix.NFTA_OBJREF_IMM_TYPE, unix.NFTA_OBJREF_IMM_NAME}},
	"immediate": {func() expr.Any { return new(expr.Immediate) }, []int{unix.NFTA_IMMEDIATE_DREG, unix.NFTA_IMMEDIATE_DATA}},
	"nat": {func() expr.Any { return new(expr.NAT) }, []int{unix.NFTA_NAT_TYPE, unix.NFTA_NAT_FAMILY, unix.NFTA_NAT_REG_ADDR_MIN,
		unix.NFTA_NAT_REG_ADDR_MAX, unix.NFTA_NAT_FLAGS}},
}

// parseExpressions reads the list of a rule (NFTA_RULE_EXPRESSIONS).
func parseExpressions(list []byte) []expr.Any {
	var exprs []expr.Any
	for _, elem := range attributes(list) {
		var name string
		var data []byte
		for kind, value := range attributes(elem) {
			switch kind {
			case unix.NFTA_EXPR_NAME:
				name = text(value)
			case unix.NFTA_EXPR_DATA:
				data = value
			}
		}
		exprs = append(exprs, parseExpression(name, data))
	}
	return exprs
}

func parseExpression(name string, data []byte) expr.Any {
	known, ok := grammar[name]
	if !ok {
		return unknownExpr{name: name}
	}
	for kind, value := range attributes(data) {
		if !slices.Contains(known.attrs, kind) && slices.ContainsFunc(value, func(b byte) bool { return b != 0 }) {
			return unknownExpr{name: name}
		}
		if name == "immediate" && kind == unix.NFTA_IMMEDIATE_DATA {
			for kind, verdict := range attributes(value) {
				if kind == unix.NFTA_DATA_VERDICT {
					v := readVerdict(verdict)
					return &v
				}
			}
		}
	}
	e := known.empty()
	if err := expr.Unmarshal(unix.NFPROTO_INET, data, e); err != nil {
		return unknownExpr{name: name}
	}
	if ct, ok := e.(*expr.Ct); ok {
		for kind, value := range attributes(data) {
			if kind == unix.NFTA_CT_SREG { // which the library does not read
				ct.SourceRegister, ct.Register = true, be32(value)
			}
		}
	}
	return e
}

// readVerdict reads the inside of an NFTA_DATA_VERDICT.
func readVerdict(b []byte) expr.Verdict {
	var v expr.Verdict
	for kind, value := range attributes(b) {
		switch kind {
		case unix.NFTA_VERDICT_CODE:
			v.Kind = expr.VerdictKind(int32(be32(value)))
		case unix.NFTA_VERDICT_CHAIN:
			v.Chain = text(value)
		}
	}
	return v
}
