// Package paste reads what people have in their hands when they ask about a
// packet: a line of a VPC flow log, or of a kernel that calls a source martian.
//
//	2 123456789010 eni-1235b8ca 172.31.16.139 172.31.16.21 20641 22 6 20 4249 1418530010 1418530070 REJECT OK
//	IPv4: martian source 10.11.4.91 from 10.12.7.33, on dev eth1
//
// The package is pure. Text that is neither is an error, and text of any kind is
// safe to read.
package paste

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/fairway-cni/fairway/internal/core/path"
)

// ErrLine says that a text is no line that this package reads.
var ErrLine = errors.New("neither a flow log's line nor a kernel's of a martian")

// Flow is what such a line says. Who began the flow is From, also where the line
// is of its reply.
type Flow struct {
	Kind     string // "flow log" or "martian"
	Proto    path.Proto
	From, To netip.Addr
	Port     uint16 // of To; 0: not said
	Reply    bool   // the line is of the flow's reply
	ENI      string // of a flow log: where it was seen
	Device   string // of a martian: by which it came
	Action   string // of a flow log: ACCEPT or REJECT
}

const maxLine = 4096 // bytes

// IsLine reports whether text is meant as a line, and not as a name or address.
func IsLine(text string) bool { return strings.ContainsAny(strings.TrimSpace(text), " \t") }

// Parse reads one line.
func Parse(line string) (Flow, error) {
	if len(line) > maxLine {
		return Flow{}, fmt.Errorf("%w: %d bytes, at most %d", ErrLine, len(line), maxLine)
	}
	if _, rest, ok := strings.Cut(line, "martian "); ok {
		return parseMartian(rest)
	}
	return parseFlowLog(strings.Fields(line))
}

// parseMartian reads what is behind the word, as ip_handle_martian_source and
// ip_route_input_slow (net/ipv4/route.c) write it: the destination comes first.
func parseMartian(rest string) (Flow, error) {
	f := strings.Fields(strings.ReplaceAll(rest, ",", " "))
	bad := func(why string) (Flow, error) {
		return Flow{}, fmt.Errorf("%w: want \"martian source DESTINATION from SOURCE, on dev DEVICE\": %s", ErrLine, why)
	}
	if len(f) < 4 || f[0] != "source" && f[0] != "destination" || f[2] != "from" {
		return bad("other words")
	}
	to, err := ipv4(f[1])
	if err != nil {
		return bad(err.Error())
	}
	from, err := ipv4(f[3])
	if err != nil {
		return bad(err.Error())
	}
	flow := Flow{Kind: "martian", Proto: path.TCP, From: from, To: to}
	for i := 4; i+1 < len(f); i++ {
		if f[i] == "dev" {
			flow.Device = f[i+1]
		}
	}
	return flow, nil
}

// fields of the default format, version 2 ("Flow log records", Amazon VPC User
// Guide).
const fields = 14

// protocols that a probe can be of, by IANA's numbers.
var protocols = map[string]path.Proto{"1": path.ICMP, "6": path.TCP, "17": path.UDP}

// parseFlowLog reads a record of the default format, with or without the time
// that CloudWatch puts before it.
func parseFlowLog(f []string) (Flow, error) {
	bad := func(format string, args ...any) (Flow, error) {
		return Flow{}, fmt.Errorf("%w: %w", ErrLine, fmt.Errorf(format, args...))
	}
	if len(f) == fields+1 && strings.Contains(f[0], "T") {
		f = f[1:]
	}
	if len(f) != fields {
		return bad("%d words; a flow log's line in the default format has %d", len(f), fields)
	}
	if f[13] != "OK" {
		return bad("log status %s: the line is of no packet", f[13])
	}
	proto, ok := protocols[f[7]]
	if !ok {
		return bad("protocol %q is none of 1, 6 and 17", f[7])
	}
	from, err := ipv4(f[3])
	if err != nil {
		return bad("%w", err)
	}
	to, err := ipv4(f[4])
	if err != nil {
		return bad("%w", err)
	}
	sport, err := strconv.ParseUint(f[5], 10, 16)
	if err != nil {
		return bad("source port %q", f[5])
	}
	dport, err := strconv.ParseUint(f[6], 10, 16)
	if err != nil {
		return bad("destination port %q", f[6])
	}
	flow := Flow{Kind: "flow log", Proto: proto, From: from, To: to, Port: uint16(dport), ENI: f[2], Action: f[12]}
	// Each direction has a line of its own. From the well-known to the ephemeral
	// port it is the reply's (net.ipv4.ip_local_port_range begins at 32768).
	const ephemeral = 32768
	if sport != 0 && sport < ephemeral && dport >= ephemeral {
		flow.From, flow.To, flow.Port, flow.Reply = to, from, uint16(sport), true
	}
	if proto == path.ICMP {
		flow.Port = 0
	}
	return flow, nil
}

func ipv4(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err == nil && !a.Is4() {
		err = fmt.Errorf("%s is not IPv4", s)
	}
	return a, err
}

// Ends are the flow's as a [path.Probe] names them.
func (f Flow) Ends() (from, to string) {
	to = f.To.String()
	if f.Port != 0 {
		to = fmt.Sprintf("%s:%d", to, f.Port)
	}
	return f.From.String(), to
}

// String says how the line was understood.
func (f Flow) String() string {
	from, to := f.Ends()
	text := fmt.Sprintf("%s: %s %s to %s", f.Kind, f.Proto, from, to)
	switch {
	case f.Reply:
		text += "; the line is of the reply"
	case f.Kind == "martian":
		text += "; port and protocol are not said"
	}
	if f.ENI != "" {
		text += "; " + f.Action + " at " + f.ENI
	}
	if f.Device != "" {
		text += "; it came by " + f.Device
	}
	return text
}
