package cli

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/fairway-cni/fairway/lab/packet"
)

// nonceSize is what marks a crafted frame, in bytes at the start of its payload.
const nonceSize = 8

// Bounds of the flags, so that a slip costs little.
const (
	maxSendCount = 10000
	maxSendSize  = 65000 // bytes of payload
)

// sendFlags are the flags of the command, as they were given.
type sendFlags struct {
	proto, src, dst, flags, icmp, fragment string
	macSrc, macDst, options, arp, raw      string
	sport, dport, id                       uint16
	ttl                                    uint8
	size, vlan, truncate, count            int
	df, ipv6, badChecksum                  bool
	wait                                   time.Duration

	given map[string]bool // which of them were
}

func sendCommand(o *options) *cobra.Command {
	var f sendFlags
	cmd := &cobra.Command{
		Use:   "send INSTANCE/DEVICE|POD",
		Short: "Send a crafted frame by an instance's or a pod's device, and say what became of it",
		Long: `Send one crafted frame, or --count, by a device of an instance or by the device of
a pod, past its kernel's own rules, and say what became of it:

  arrived left/ens5     it came in by this device; "as ..." follows if it was
                        changed on the way, and "ttl N" with --ttl
  dropped left/ens5 X   by the VPC, for the reason X (docs/design/fabric.md)
  lost left: X          by an instance's own kernel; X as in fairway-lab probe
  answered ...          what came back to the sender because of it, too with "ttl N"
  answer dropped ...    what came back was dropped
  no trace, no answer   nothing of this within --wait

The source is the device's MAC and the ENI's or pod's address, the next hop the
VPC's router, or the pod's. Whether anybody listens is not asked: what a closed
UDP port or an unknown protocol answers is left out.

Exit status 0 whatever became of it; 1 if it could not be sent.`,
		Example: `  fairway-lab send left/ens5 --dst 10.1.1.4
  fairway-lab send left/ens5 --dst 10.1.1.4 --src 10.0.9.9
  fairway-lab send left/ens5 --dst 10.1.1.4 --proto tcp --dport 80 --flags SA
  fairway-lab send web --dst 203.0.113.10 --proto icmp --size 1600 --df
  fairway-lab send left/ens5 --arp 10.0.1.77`,
		Args: arguments(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.given = map[string]bool{}
			cmd.Flags().Visit(func(g *pflag.Flag) { f.given[g.Name] = true })
			if err := f.check(); err != nil {
				return fmt.Errorf("%w: send: %w", ErrUsage, err)
			}
			s, err := o.send(cmd.Context(), f, args[0])
			if err != nil {
				return err
			}
			return o.printSent(s)
		},
	}
	f.register(cmd.Flags())
	o.outputFlag(cmd)
	return cmd
}

func (f *sendFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.proto, "proto", "udp", "udp, tcp, icmp or a number")
	flags.StringVar(&f.src, "src", "", "source address (default: the device's)")
	flags.StringVar(&f.dst, "dst", "", "destination address")
	flags.Uint16Var(&f.sport, "sport", 4000, "source port, of icmp the identifier")
	flags.Uint16Var(&f.dport, "dport", 5000, "destination port")
	flags.StringVar(&f.flags, "flags", "S", "of TCP: letters of FSRPAU")
	flags.StringVar(&f.icmp, "icmp", "8/0", "of ICMP: type/code")
	flags.Uint8Var(&f.ttl, "ttl", 64, "TTL")
	flags.IntVar(&f.size, "size", nonceSize, "bytes of payload")
	flags.BoolVar(&f.df, "df", false, "forbid fragments")
	flags.StringVar(&f.fragment, "fragment", "", "send a fragment: its offset in bytes, with + if more follow")
	flags.Uint16Var(&f.id, "id", 0, "identification, which the fragments of a packet share (default: random)")
	flags.StringVar(&f.macSrc, "mac-src", "", "source MAC (default: the device's)")
	flags.StringVar(&f.macDst, "mac-dst", "", "destination MAC (default: the next hop's)")
	flags.StringVar(&f.options, "ip-options", "", "IPv4 options in hex (alone: four no-operations)")
	flags.Lookup("ip-options").NoOptDefVal = "01010101"
	flags.IntVar(&f.vlan, "vlan", 0, "802.1Q tag")
	flags.StringVar(&f.arp, "arp", "", "send an ARP request for this address instead")
	flags.BoolVar(&f.ipv6, "ipv6", false, "send IPv6")
	flags.BoolVar(&f.badChecksum, "bad-checksum", false, "spoil the checksum of the IPv4 header")
	flags.IntVar(&f.truncate, "truncate", 0, "cut the frame off after so many bytes")
	flags.StringVar(&f.raw, "raw", "", "send this frame, in hex from its destination MAC on")
	flags.IntVar(&f.count, "count", 1, "frames")
	flags.DurationVar(&f.wait, "wait", time.Second, "how long to look for it")
}

// check says what is wrong about the flags by themselves.
func (f *sendFlags) check() error {
	whole := 0
	for _, name := range []string{"arp", "raw", "dst"} {
		if f.given[name] {
			whole++
		}
	}
	switch {
	case whole == 0 && !f.ipv6:
		return errors.New("where to? give --dst ADDRESS, --arp ADDRESS or --raw HEX")
	case whole > 1:
		return errors.New("--dst, --arp and --raw exclude each other")
	case f.size < nonceSize || f.size > maxSendSize:
		return fmt.Errorf("--size %d: must be within %d (a nonce) and %d", f.size, nonceSize, maxSendSize)
	case f.count < 1 || f.count > maxSendCount:
		return fmt.Errorf("--count %d: must be within 1 and %d", f.count, maxSendCount)
	case f.given["truncate"] && f.truncate < 14:
		return fmt.Errorf("--truncate %d: must be at least 14, an Ethernet header: Linux sends no less", f.truncate)
	case f.wait <= 0:
		return fmt.Errorf("--wait %v: must be more than 0", f.wait)
	}
	for name := range f.given {
		crafts := name != "count" && name != "wait" && name != "output" && name != "lab"
		if f.raw != "" && crafts && name != "raw" || f.arp != "" && crafts && name != "arp" && name != "src" && name != "mac-src" {
			return fmt.Errorf("--%s has no meaning for this frame", name)
		}
	}
	return nil
}

// outlet is where frames leave, and what they are unless a flag says otherwise.
type outlet struct {
	mac     packet.MAC // of the device
	next    packet.MAC // of the next hop
	address netip.Addr
}

// crafted is a frame with what finds it again.
type crafted struct {
	bytes []byte
	mark  []byte        // is in it, and in no other frame
	said  packet.Packet // before it was cut off
}

// craft makes the frames that the flags ask for. The random bytes are the marks.
func (f *sendFlags) craft(from outlet, random func([]byte)) ([]crafted, error) {
	var out []crafted
	for range f.count {
		mark := make([]byte, nonceSize)
		random(mark)
		bytes, err := f.frame(from, mark)
		if err != nil {
			return nil, err
		}
		if f.raw != "" {
			mark = bytes[max(14, len(bytes)-16):]
		}
		said, _ := packet.Parse(bytes) // what is broken on purpose says less
		if f.given["truncate"] {
			bytes = bytes[:min(f.truncate, len(bytes))]
		}
		out = append(out, crafted{bytes, mark, said})
	}
	return out, nil
}

// frame makes one.
func (f *sendFlags) frame(from outlet, mark []byte) ([]byte, error) {
	if f.raw != "" {
		b, err := hex.DecodeString(strings.NewReplacer(" ", "", ":", "").Replace(f.raw))
		if err != nil || len(b) < 14 || len(b) > 1<<16 {
			return nil, fmt.Errorf("%w: --raw: must be a frame of 14 to 65536 bytes in hex", ErrUsage)
		}
		return b, nil
	}
	var errs [8]error
	mac := func(i int, flag, value string, fallback packet.MAC) packet.MAC {
		if value == "" {
			return fallback
		}
		m, err := net.ParseMAC(value)
		if err != nil || len(m) != len(packet.MAC{}) {
			errs[i] = fmt.Errorf("--%s %q: must be a MAC such as 02:00:00:00:00:01", flag, value)
			return fallback
		}
		return packet.MAC(m)
	}
	address := func(i int, flag, value string, fallback netip.Addr) netip.Addr {
		if value == "" {
			return fallback
		}
		a, err := netip.ParseAddr(value)
		if err != nil || a.Is4() == f.ipv6 {
			errs[i] = fmt.Errorf("--%s %q: must be an IPv4 address, or with --ipv6 an IPv6 one", flag, value)
		}
		return a
	}
	src, dst := from.address, netip.Addr{}
	if f.ipv6 {
		src, dst = linkLocal(from.mac), netip.MustParseAddr("2001:db8::1") // RFC 3849: nobody's
	}
	want := packet.Frame{
		From: mac(0, "mac-src", f.macSrc, from.mac), To: mac(1, "mac-dst", f.macDst, from.next), VLAN: f.vlan,
		Src: address(2, "src", f.src, src), Dst: address(3, "dst", cmp.Or(f.arp, f.dst), dst),
		TTL: f.ttl, ID: uint16(mark[0])<<8 | uint16(mark[1]), DF: f.df,
		SrcPort: f.sport, DstPort: f.dport,
		Payload:     append(mark[:len(mark):len(mark)], make([]byte, f.size-len(mark))...),
		BadChecksum: f.badChecksum,
	}
	if f.given["id"] {
		want.ID = f.id
	}
	want.Protocol, errs[4] = protocolNumber(f.proto, f.ipv6)
	want.Flags, errs[5] = packet.ParseFlags(f.flags)
	want.ICMPType, want.ICMPCode, errs[6] = icmpKind(f.icmp)
	want.Fragment, errs[7] = fragmentOf(f.fragment)
	options, err := hex.DecodeString(f.options)
	if err != nil {
		err = fmt.Errorf("--ip-options %q: must be hex", f.options)
	}
	want.Options = options
	if err := errors.Join(append(errs[:], err)...); err != nil {
		return nil, fmt.Errorf("%w: send: %w", ErrUsage, err)
	}
	if f.arp != "" {
		return packet.ARPRequest(want.From, want.Src, want.Dst), nil
	}
	b, err := want.Bytes()
	if err != nil {
		return nil, fmt.Errorf("%w: send: %w", ErrUsage, err)
	}
	return b, nil
}

// describe is what the table says of a frame.
func (f *sendFlags) describe(c crafted) string {
	text := c.said.String()
	if f.badChecksum {
		text += ", bad checksum"
	}
	if f.options != "" {
		text += ", ip options"
	}
	if f.given["truncate"] {
		text += fmt.Sprintf(", cut to %d bytes", len(c.bytes))
	}
	return text
}

// linkLocal is the address that a device gives itself (RFC 4291 2.5.6 and appendix A).
func linkLocal(m packet.MAC) netip.Addr {
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]})
}

func protocolNumber(name string, six bool) (uint8, error) {
	switch {
	case name == "tcp":
		return packet.TCP, nil
	case name == "udp":
		return packet.UDP, nil
	case name == "icmp" && six:
		return packet.ICMPv6, nil
	case name == "icmp":
		return packet.ICMP, nil
	}
	n, err := strconv.ParseUint(name, 10, 8)
	if err != nil {
		return 0, fmt.Errorf("--proto %q: must be udp, tcp, icmp or a number up to 255", name)
	}
	return uint8(n), nil
}

// icmpKind reads "3/4", or "8".
func icmpKind(s string) (kind, code uint8, err error) {
	a, b, slash := strings.Cut(s, "/")
	k, err1 := strconv.ParseUint(a, 10, 8)
	c, err2 := strconv.ParseUint(cmp.Or(b, "0"), 10, 8)
	if err1 != nil || err2 != nil || slash && b == "" {
		return 0, 0, fmt.Errorf("--icmp %q: must be TYPE/CODE, such as 3/4", s)
	}
	return uint8(k), uint8(c), nil
}

// fragmentOf reads "1480" or "0+".
func fragmentOf(s string) (*packet.Fragment, error) {
	if s == "" {
		return nil, nil
	}
	offset, more := strings.CutSuffix(s, "+")
	n, err := strconv.ParseUint(offset, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("--fragment %q: must be an offset in bytes, with + if more follow", s)
	}
	return &packet.Fragment{Offset: int(n), More: more}, nil
}

// sent is what became of the frames.
type sent struct {
	From   string  `json:"from"`
	Packet string  `json:"packet"`
	Count  int     `json:"count"`
	Fates  []fate  `json:"fates"`
	Shown  []shown `json:"-"`
}

// fate is what happened to so many of the frames, or because of them.
type fate struct {
	What   string `json:"what"` // arrived, dropped, lost, answered, answer dropped, no trace, no answer
	At     string `json:"at,omitempty"`
	Reason string `json:"reason,omitempty"`
	Packet string `json:"packet,omitempty"` // that arrived, or answered
	TTL    uint8  `json:"ttl,omitempty"`    // with which it, or the answer, arrived
	Frames uint64 `json:"frames"`

	minor bool // not for the table: it does not happen every time
}

// text is the fate in a table, empty where it is not for one. was is the packet
// as it was sent.
func (x fate) text(withTTL bool, was string) string {
	switch {
	case x.minor:
		return ""
	case x.What == "arrived":
		text := "arrived " + x.At
		if x.Packet != was {
			text += " as " + x.Packet
		}
		if withTTL {
			text += fmt.Sprintf(" ttl %d", x.TTL)
		}
		return text
	case x.What == "lost":
		return fmt.Sprintf("lost %s: %s", x.At, x.Reason)
	case x.What == "answered":
		text := "answered " + x.Packet
		if withTTL && x.TTL > 0 {
			text += fmt.Sprintf(" ttl %d", x.TTL)
		}
		return text
	}
	return strings.TrimSpace(strings.Join([]string{x.What, x.At, x.Reason}, " "))
}

// shown is a fate as the table has it.
type shown struct {
	text   string
	frames uint64
}

// lines are the fates as the table has them; of several frames with how many.
func (s sent) lines() []string {
	var out []string
	for _, f := range s.Shown {
		if s.Count > 1 {
			f.text = fmt.Sprintf("%d %s", f.frames, f.text)
		}
		out = append(out, f.text)
	}
	return out
}

func (o *options) printSent(s sent) error {
	if o.output == "json" {
		return o.json(s)
	}
	t := tabwriter.NewWriter(o.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "FROM\tPACKET\tFATE")
	from, what := s.From, s.Packet
	for _, text := range s.lines() {
		fmt.Fprintf(t, "%s\t%s\t%s\n", from, what, text)
		from, what = "", ""
	}
	return t.Flush()
}

// send sends the frames and looks for them.
func (o *options) send(ctx context.Context, f sendFlags, name string) (sent, error) {
	g, err := o.ground(ctx)
	if err != nil {
		return sent{}, err
	}
	defer g.close()
	from, err := g.find(ctx, name)
	if err != nil {
		return sent{}, err
	}
	if from.eni == "" && !from.pod {
		return sent{}, fmt.Errorf("%w: send from %q: want INSTANCE/DEVICE or a pod", ErrUsage, name)
	}
	w, err := g.watch(from)
	if err != nil {
		return sent{}, err
	}
	defer w.close()
	return w.send(ctx, &f)
}
