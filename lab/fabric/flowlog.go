package fabric

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// ErrNoFlowLog: the ENI's FlowLog is not set.
var ErrNoFlowLog = errors.New("eni has no flow log")

// FlowRecord is what passed, or was refused, of one flow in one direction at an
// ENI. Source of fields and format: "Flow log records", Amazon VPC User Guide.
type FlowRecord struct {
	ENI        string
	Src, Dst   netip.Addr // the ENI's side is its primary address, whatever the packets said
	PacketSrc  netip.Addr // as in the packets: pkt-srcaddr
	PacketDst  netip.Addr // pkt-dstaddr
	SrcPort    uint16     // 0 for protocols without ports, and ICMP
	DstPort    uint16
	Protocol   Protocol
	Egress     bool // flow-direction
	Packets    uint64
	Bytes      uint64 // IP headers included
	Start, End time.Time
	Rejected   bool // by a group or ACL at this ENI
}

// Line is the record in the default format, version 2, for an account of twelve
// digits:
//
//	version account-id interface-id srcaddr dstaddr srcport dstport protocol
//	packets bytes start end action log-status
func (r FlowRecord) Line(account string) string {
	action := "ACCEPT"
	if r.Rejected {
		action = "REJECT"
	}
	return fmt.Sprintf("2 %s %s %s %s %d %d %d %d %d %d %d %s OK", account, r.ENI, r.Src, r.Dst,
		r.SrcPort, r.DstPort, r.Protocol, r.Packets, r.Bytes, r.Start.Unix(), r.End.Unix(), action)
}

// FlowLogs gives what an ENI with FlowLog carried and refused since the last
// call, and forgets it; now is the time of the call. Records are in the order of
// their start. What other drops than groups, ACLs and fragments take is in no
// record, nor is traffic of the link-local services. With more than 65,536
// flows in all VPCs the oldest are lost; a packet that is counted in the moment
// of the call may be.
func (f *Fabric) FlowLogs(eni string, now time.Time) ([]FlowRecord, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, ErrClosed
	}
	p, ok := f.ports[eni]
	if !ok {
		return nil, fmt.Errorf("read flow log of eni %s: %w", eni, ErrUnknownENI)
	}
	index := uint32(p.index)
	var entry bpfEni
	err := f.objs.Enis.Lookup(index, &entry)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil, fmt.Errorf("read flow log of eni %s: %w", eni, err)
	}
	if entry.Filter.Flags&filterLog == 0 {
		return nil, fmt.Errorf("read flow log of eni %s: %w", eni, ErrNoFlowLog)
	}
	keys, err := f.loggedFlows(index)
	if err != nil {
		return nil, fmt.Errorf("read flow log of eni %s: %w", eni, err)
	}
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return nil, fmt.Errorf("read monotonic clock: %w", err)
	}
	at := func(ms uint64) time.Time {
		return now.Add(time.Duration(ms)*time.Millisecond - time.Duration(ts.Nano()))
	}
	var records []FlowRecord
	for _, key := range keys {
		var v bpfLogValue
		err := f.objs.FlowLogs.LookupAndDelete(key, &v)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			continue // it gave way to a newer flow
		}
		if err != nil {
			return nil, fmt.Errorf("read flow log of eni %s: %w", eni, err)
		}
		r := recordOf(key, p.primary)
		r.ENI, r.Packets, r.Bytes, r.Start, r.End = eni, v.Packets, v.Bytes, at(v.First), at(v.Last)
		records = append(records, r)
	}
	slices.SortFunc(records, func(a, b FlowRecord) int {
		return cmp.Or(a.Start.Compare(b.Start), strings.Compare(a.Line(""), b.Line("")))
	})
	return records, nil
}

// loggedFlows are the keys of one ENI.
func (f *Fabric) loggedFlows(index uint32) ([]bpfLogKey, error) {
	var found []bpfLogKey
	var cursor ebpf.MapBatchCursor
	keys, values := make([]bpfLogKey, 4096), make([]bpfLogValue, 4096)
	for {
		n, err := f.objs.FlowLogs.BatchLookup(&cursor, keys, values, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil, err
		}
		for _, k := range keys[:n] {
			if k.Ifindex == index {
				found = append(found, k)
			}
		}
		if err != nil { // the last batch
			return found, nil
		}
	}
}

func recordOf(key bpfLogKey, primary netip.Addr) FlowRecord {
	addr := func(n uint32) netip.Addr {
		var b [4]byte
		binary.NativeEndian.PutUint32(b[:], n)
		return netip.AddrFrom4(b)
	}
	port := func(n uint16) uint16 {
		var b [2]byte
		binary.NativeEndian.PutUint16(b[:], n)
		return binary.BigEndian.Uint16(b[:])
	}
	r := FlowRecord{Protocol: Protocol(key.Protocol), Rejected: key.Rejected != 0}
	if direction(key.Dir) == out {
		r.Egress = true
		r.Src, r.PacketSrc, r.SrcPort = primary, addr(key.Local), port(key.Lport)
		r.Dst, r.PacketDst, r.DstPort = addr(key.Remote), addr(key.Remote), port(key.Rport)
		return r
	}
	r.Src, r.PacketSrc, r.SrcPort = addr(key.Remote), addr(key.Remote), port(key.Rport)
	r.Dst, r.PacketDst, r.DstPort = primary, addr(key.Local), port(key.Lport)
	return r
}
