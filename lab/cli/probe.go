package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairway-cni/fairway/lab/probe"
)

// errProbe says that not every conversation was as it should be.
var errProbe = errors.New("not every conversation succeeded")

// probePort is where a target listens that was named without a port.
const probePort = 7070

// probeFlags are the flags of the command.
type probeFlags struct {
	proto, source, at string
	sourcePort        uint16
	size, count, ttl  int
	dontFragment      bool
	timeout           time.Duration

	protocol   probe.Proto // of proto, once checked
	sourceAddr netip.Addr  // of source
}

// talked is one row: a conversation, how it went, and what was lost meanwhile.
type talked struct {
	From     string     `json:"from"`
	To       string     `json:"to"`
	Result   string     `json:"result"`
	Detail   string     `json:"detail,omitempty"`
	Sent     int        `json:"sent"`
	Answered int        `json:"answered"`
	SeenAs   netip.Addr `json:"seenAs,omitzero"`
	MTU      int        `json:"mtu,omitempty"`
	Dropped  []loss     `json:"dropped"`
}

func probeCommand(o *options) *cobra.Command {
	var f probeFlags
	cmd := &cobra.Command{
		Use:   "probe FROM TO...",
		Short: "Have one conversation with each target, and say where it died if it did",
		Long: `Have one conversation from FROM with each TO, one after the other, and show how it
ended. FROM is an instance, INSTANCE/POD, a pod's name, INSTANCE/DEVICE (an ENI's
primary address is the source then) or internet: the hosts beyond the internet
gateways. TO is the same or an IPv4 address, with :PORT or else port 7070.

The target listens in the network of TO; of an address, in that of the instance
or pod that has it. --at names who listens where that is not known: of public and
translated addresses. Where nobody is known nobody listens, and whoever answers
is right. An icmp echo is answered by the target's own kernel.

SEEN AS is the source that the target saw, also if its answer was lost: then the
question arrived. DROPPED is where packets were lost meanwhile: in the VPC as
INSTANCE/DEVICE or link and reason (see docs/design/fabric.md), in an instance's
or pod's own kernel as its name, a colon and

  rp_filter        the source's way back leads by another device
  not its address  the packet is for somebody else, and it does not forward
  no route         it has no route to send or forward by
  ttl or header, mtu, fragments missing, checksum, no memory,
  accept queue full, receive buffer full
  discarded        for no reason that the kernel counts: a netfilter rule, a
                   blackhole route, a source that cannot be

IPv6, which instances send on their own, is left out (NOT_IPV4). Exit status 1 if
not every message of every conversation was answered.

With --source-port and the target's port a flow can be had again: UDP state
belongs to both ports and addresses. For icmp --source-port is the identifier.`,
		Example: `  fairway-lab probe node-a node-b
  fairway-lab probe web node-b:80 10.0.1.200:80 internet
  fairway-lab probe internet 203.0.113.5:443 --at node-a
  fairway-lab probe node-a node-b --proto udp --size 8972 --df`,
		Args: arguments(cobra.MinimumNArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return fmt.Errorf("%w: probe: %w", ErrUsage, err)
			}
			rows, err := o.probe(cmd.Context(), f, args[0], args[1:])
			if err != nil {
				return err
			}
			return o.printTalked(rows)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.proto, "proto", "tcp", "tcp, udp or icmp")
	flags.StringVar(&f.source, "source", "", "address to send from (default: the kernel's choice)")
	flags.Uint16Var(&f.sourcePort, "source-port", 0, "port to send from, of icmp the identifier (default: the kernel's choice)")
	flags.StringVar(&f.at, "at", "", "instance, pod or internet that listens, on any of its addresses")
	flags.IntVar(&f.size, "size", probe.MinSize, "bytes of payload of each message")
	flags.IntVar(&f.count, "count", 1, "messages")
	flags.IntVar(&f.ttl, "ttl", 0, "TTL of what FROM sends (default: the kernel's)")
	flags.BoolVar(&f.dontFragment, "df", false, "forbid fragments; TCP always does")
	flags.DurationVar(&f.timeout, "timeout", time.Second, "how long to wait for each answer")
	o.outputFlag(cmd)
	return cmd
}

// check reads the flags.
func (f *probeFlags) check() error {
	f.protocol = probe.Proto(f.proto)
	switch {
	case f.protocol != probe.TCP && f.protocol != probe.UDP && f.protocol != probe.ICMP:
		return fmt.Errorf("--proto %q: must be tcp, udp or icmp", f.proto)
	case f.size < probe.MinSize || f.size > probe.MaxSize:
		return fmt.Errorf("--size %d: must be within %d (a nonce) and %d", f.size, probe.MinSize, probe.MaxSize)
	case f.count < 1:
		return fmt.Errorf("--count %d: must be at least 1", f.count)
	case f.ttl < 0 || f.ttl > 255:
		return fmt.Errorf("--ttl %d: must be within 1 and 255", f.ttl)
	case f.timeout <= 0:
		return fmt.Errorf("--timeout %v: must be more than 0", f.timeout)
	}
	if f.source == "" {
		return nil
	}
	var err error
	if f.sourceAddr, err = netip.ParseAddr(f.source); err != nil || !f.sourceAddr.Is4() {
		return fmt.Errorf("--source %q: must be an IPv4 address", f.source)
	}
	return nil
}

// probe has one conversation after the other, so that what is lost belongs to one.
func (o *options) probe(ctx context.Context, f probeFlags, from string, to []string) ([]talked, error) {
	g, err := o.ground(ctx)
	if err != nil {
		return nil, err
	}
	defer g.close()
	source, err := g.find(ctx, from)
	if err != nil {
		return nil, err
	}
	var talks []probe.Talk
	for _, name := range to {
		t, err := g.talk(ctx, f, source, name)
		if err != nil {
			return nil, err
		}
		talks = append(talks, t)
	}
	done := progress(o.Stderr, fmt.Sprintf("having %d conversations", len(talks)))
	defer done()
	var rows []talked
	before, err := g.tally(ctx)
	if err != nil {
		return nil, err
	}
	for _, t := range talks {
		outcome, err := probe.Converse(ctx, t)
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, err
		}
		after, err := g.tally(ctx)
		if err != nil {
			return nil, err
		}
		rows = append(rows, row(source.name, t, outcome, after.since(before)))
		before = after
	}
	return rows, nil
}

// talk is the conversation that an argument names.
func (g *ground) talk(ctx context.Context, f probeFlags, source spot, to string) (probe.Talk, error) {
	t := probe.Talk{
		Proto: f.protocol, From: source.ns, Source: netip.AddrPortFrom(cmp.Or(f.sourceAddr, source.source), f.sourcePort),
		Size: f.size, Count: f.count, TTL: f.ttl, DontFragment: f.dontFragment, Timeout: f.timeout,
	}
	name, port, err := splitPort(to)
	if err != nil {
		return t, err
	}
	var target spot
	addr, err := netip.ParseAddr(name)
	switch {
	case err != nil:
		if target, err = g.find(ctx, name); err != nil {
			return t, err
		}
		addr = target.addr
	case !addr.Is4():
		return t, fmt.Errorf("%w: target %q: the fabric carries IPv4", ErrUsage, to)
	case f.at == "":
		if target, err = g.holder(ctx, addr, source); err != nil {
			return t, err
		}
	}
	t.Bind = addr
	if f.at != "" {
		if target, err = g.find(ctx, f.at); err != nil {
			return t, err
		}
		t.Bind = netip.Addr{}
	}
	if !addr.IsValid() {
		return t, fmt.Errorf("%s has no address to talk to", name)
	}
	if t.Proto == probe.ICMP {
		port = 0
	}
	t.To, t.Target = netip.AddrPortFrom(addr, port), target.ns
	return t, nil
}

// splitPort takes the port off a target.
func splitPort(to string) (name string, port uint16, err error) {
	i := strings.LastIndexByte(to, ':')
	if i < 0 {
		return to, probePort, nil
	}
	n, err := strconv.ParseUint(to[i+1:], 10, 16)
	if err != nil || n == 0 {
		return "", 0, fmt.Errorf("%w: target %q: port must be within 1 and 65535", ErrUsage, to)
	}
	return to[:i], uint16(n), nil
}

func row(from string, t probe.Talk, outcome probe.Outcome, lost []loss) talked {
	r := talked{
		From: from, To: t.To.String(), Result: outcome.String(), Detail: outcome.Detail,
		Sent: t.Count, Answered: outcome.Answered, SeenAs: outcome.Seen, MTU: outcome.MTU, Dropped: []loss{},
	}
	if t.Proto == probe.ICMP {
		r.To = t.To.Addr().String()
	}
	if outcome.Answered > 0 && outcome.Answered < t.Count {
		r.Result = fmt.Sprintf("%d of %d answered", outcome.Answered, t.Count)
	}
	for _, l := range lost {
		// Where all is well, what no counter tells is not about this.
		if !l.chatter() && (outcome.Kind != probe.OK || l.Reason != probe.Discarded) {
			r.Dropped = append(r.Dropped, l)
		}
	}
	return r
}

// printTalked prints the rows, and an error if one is not as it should be.
func (o *options) printTalked(rows []talked) error {
	bad := slices.ContainsFunc(rows, func(r talked) bool { return r.Result != string(probe.OK) })
	if o.output == "json" {
		if err := o.json(rows); err != nil {
			return err
		}
	} else if err := o.writeTalked(rows); err != nil {
		return err
	}
	if bad {
		return errProbe
	}
	return nil
}

func (o *options) writeTalked(rows []talked) error {
	t := tabwriter.NewWriter(o.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "FROM\tTO\tRESULT\tSEEN AS\tDROPPED")
	for _, r := range rows {
		seen := "-"
		if r.SeenAs.IsValid() {
			seen = r.SeenAs.String()
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", r.From, r.To, r.Result, seen, lossList(r.Dropped))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, r := range rows {
		// These did not get as far as the network; the table does not say why.
		if r.Result == string(probe.Failed) || r.Result == string(probe.NoListener) {
			fmt.Fprintf(o.Stderr, "%s to %s: %s: %s\n", r.From, r.To, r.Result, r.Detail)
		}
	}
	return nil
}
