package probe

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

// Kernel is what the kernel of one network namespace has counted of IPv4 since
// the namespace is there: "Ip.InReceives", "TcpExt.IPReversePathFilter". Source:
// proc_net_snmp and "SNMP counter" of the kernel's networking documents.
type Kernel map[string]int64

// kernelFiles are the same for each namespace: /proc/thread-self is the thread
// that has entered it.
var kernelFiles = []string{"/proc/thread-self/net/snmp", "/proc/thread-self/net/netstat"}

// maxKernelLine bounds a line of those files, in bytes. TcpExt has about 4,000.
const maxKernelLine = 64 << 10

// ReadKernel reads the counters of a namespace.
func ReadKernel(ns *os.File) (Kernel, error) {
	all := Kernel{}
	err := netns.Do(ns, func() error {
		for _, path := range kernelFiles {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if err := all.parse(text); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read kernel counters: %w", err)
	}
	return all, nil
}

// parse adds the counters of one file: pairs of lines with a title each, the
// names and then the values.
func (k Kernel) parse(text []byte) error {
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, maxKernelLine)
	for lines.Scan() {
		names := strings.Fields(lines.Text())
		if !lines.Scan() {
			return fmt.Errorf("parse counters: line %.40q has no values", strings.Join(names, " "))
		}
		values := strings.Fields(lines.Text())
		if len(names) == 0 || len(names) != len(values) || names[0] != values[0] {
			return fmt.Errorf("parse counters: %d names and %d values, or titles that differ", len(names), len(values))
		}
		title := strings.TrimSuffix(names[0], ":")
		for i := 1; i < len(names); i++ {
			n, err := strconv.ParseInt(values[i], 10, 64)
			if err != nil {
				return fmt.Errorf("parse counter %s.%s: %w", title, names[i], err)
			}
			k[title+"."+names[i]] = n
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("parse counters: %w", err)
	}
	return nil
}

// losses are the counters that say that a packet ended in an instance's own
// kernel, under the words that people use.
var losses = []struct{ counter, word string }{
	{"TcpExt.IPReversePathFilter", "rp_filter"}, // the way back leads elsewhere (sysctl rp_filter)
	{"Ip.InAddrErrors", "not its address"},      // for somebody else, and it does not forward
	{"IpExt.InNoRoutes", "no route"},            // to forward by
	{"Ip.OutNoRoutes", "no route"},              // for what it sends itself
	{"Ip.InHdrErrors", "ttl or header"},         // the TTL is over, or the header is wrong
	{"Ip.FragFails", "mtu"},                     // too long for the way on, with DF
	{"Ip.ReasmFails", "fragments missing"},
	{"Tcp.InCsumErrors", "checksum"},
	{"Udp.InCsumErrors", "checksum"},
	{"Ip.InDiscards", "no memory"},
	{"TcpExt.ListenOverflows", "accept queue full"},
	{"Udp.RcvbufErrors", "receive buffer full"},
}

// Discarded is the word for what came in, and was neither delivered nor
// forwarded nor counted as wrong: a netfilter rule, a route of type blackhole or
// unreachable, a source that cannot be (a martian).
const Discarded = "discarded"

// accounted is where a packet of Ip.InReceives can be found again, but for ways
// of being lost that no counter tells.
var accounted = []string{
	"Ip.InDelivers", "Ip.ForwDatagrams", "TcpExt.IPReversePathFilter", "Ip.InAddrErrors", "IpExt.InNoRoutes",
	"Ip.InHdrErrors", "IpExt.InTruncatedPkts", "Ip.InDiscards", "Ip.InUnknownProtos", "Ip.ReasmReqds",
}

// LostSince gives how many packets this kernel dropped since the earlier
// reading, by word. Words that did not occur are absent.
func (k Kernel) LostSince(earlier Kernel) map[string]uint64 {
	lost := map[string]uint64{}
	for _, l := range losses {
		if n := k[l.counter] - earlier[l.counter]; n > 0 {
			lost[l.word] += uint64(n)
		}
	}
	// What was put together again is delivered or forwarded once.
	rest := k["Ip.InReceives"] - earlier["Ip.InReceives"] + k["Ip.ReasmOKs"] - earlier["Ip.ReasmOKs"]
	for _, c := range accounted {
		rest -= max(k[c]-earlier[c], 0)
	}
	if rest > 0 {
		lost[Discarded] = uint64(rest)
	}
	return lost
}
