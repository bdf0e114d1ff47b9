package fabric

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

// Side is an end of an ENI.
type Side int

const (
	// GuestEnd is the device in the instance.
	GuestEnd Side = iota
	// FabricEnd is the device in the VPC: what the guest sends before the VPC has
	// looked at it, and what the VPC lets through to the guest.
	FabricEnd
)

// Limit bounds a capture; the first that is reached ends it. Zero is no bound,
// but one at least must be set.
type Limit struct {
	Packets  int
	Bytes    int // of the file, its header excluded
	Duration time.Duration
}

// Capture errors that callers tell apart.
var (
	// ErrNotPlugged: the ENI is in no instance.
	ErrNotPlugged = errors.New("eni is not plugged into an instance")
	// ErrNoLimit: a capture must end.
	ErrNoLimit = errors.New("capture has no limit: set packets, bytes or duration")
)

// The classic pcap format, with times in nanoseconds. Source:
// draft-ietf-opsawg-pcap, "PCAP Capture File Format"; LINKTYPE_ETHERNET is 1.
const (
	pcapMagic    = 0xa1b23c4d
	pcapSnap     = 262144 // more than any frame has
	pcapEthernet = 1
	pcapHeader   = 24
	pcapRecord   = 16
)

// Capture writes what crosses an end of an ENI, both ways, as a pcap file until
// a limit is reached or ctx ends, neither of which is an error. The file header
// is written once the capture has begun. Segments that the sender leaves to
// offload are in it as one frame.
func (f *Fabric) Capture(ctx context.Context, eniID string, side Side, w io.Writer, limit Limit) error {
	if limit == (Limit{}) {
		return fmt.Errorf("capture eni %s: %w", eniID, ErrNoLimit)
	}
	socket, err := f.packetSocket(eniID, side)
	if err != nil {
		return fmt.Errorf("capture eni %s: %w", eniID, err)
	}
	defer socket.Close()
	if limit.Duration > 0 {
		if err := socket.SetReadDeadline(time.Now().Add(limit.Duration)); err != nil {
			return fmt.Errorf("capture eni %s: %w", eniID, err)
		}
	}
	stop := context.AfterFunc(ctx, func() { socket.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := capture(ctx, socket, w, limit); err != nil {
		return fmt.Errorf("capture eni %s: %w", eniID, err)
	}
	return nil
}

func capture(ctx context.Context, socket *os.File, w io.Writer, limit Limit) error {
	header := make([]byte, 0, pcapHeader)
	header = binary.LittleEndian.AppendUint32(header, pcapMagic)
	header = binary.LittleEndian.AppendUint16(header, 2) // version 2.4
	header = binary.LittleEndian.AppendUint16(header, 4)
	header = append(header, make([]byte, 8)...)
	header = binary.LittleEndian.AppendUint32(header, pcapSnap)
	header = binary.LittleEndian.AppendUint32(header, pcapEthernet)
	if _, err := w.Write(header); err != nil {
		return fmt.Errorf("write pcap header: %w", err)
	}
	record := make([]byte, pcapRecord+pcapSnap)
	packets, bytes := 0, 0
	for ctx.Err() == nil {
		at, n, length, err := readFrame(socket, record[pcapRecord:])
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read frame: %w", err)
		}
		if limit.Bytes > 0 && bytes+pcapRecord+n > limit.Bytes {
			return nil
		}
		binary.LittleEndian.PutUint32(record[0:], uint32(at.Sec))
		binary.LittleEndian.PutUint32(record[4:], uint32(at.Nsec))
		binary.LittleEndian.PutUint32(record[8:], uint32(n))
		binary.LittleEndian.PutUint32(record[12:], uint32(length))
		if _, err := w.Write(record[:pcapRecord+n]); err != nil {
			return fmt.Errorf("write packet: %w", err)
		}
		packets, bytes = packets+1, bytes+pcapRecord+n
		if packets == limit.Packets {
			return nil
		}
	}
	return nil
}

// readFrame gives the time of a frame, how much of it is in b, and how long it was.
func readFrame(socket *os.File, b []byte) (at unix.Timespec, n, length int, err error) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return at, 0, 0, err
	}
	oob := make([]byte, 128)
	var oobn int
	var recvErr error
	err = raw.Read(func(fd uintptr) bool {
		for {
			length, oobn, _, _, recvErr = unix.Recvmsg(int(fd), b, oob, unix.MSG_TRUNC)
			if !errors.Is(recvErr, unix.EINTR) { // else what is there may be all, and wakes nobody
				return !errors.Is(recvErr, unix.EAGAIN)
			}
		}
	})
	if err = errors.Join(err, recvErr); err != nil {
		return at, 0, 0, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return at, 0, 0, fmt.Errorf("parse timestamp: %w", err)
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= 16 {
			at.Sec = int64(binary.NativeEndian.Uint64(m.Data))
			at.Nsec = int64(binary.NativeEndian.Uint64(m.Data[8:]))
		}
	}
	return at, min(length, len(b)), length, nil
}

// packetSocket asks the kernel where the two ends are: the alias of the fabric
// end names the guest, and the end the index of its peer there.
func (f *Fabric) packetSocket(eniID string, side Side) (*os.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, ErrClosed
	}
	p, ok := f.ports[eniID]
	v := f.vpcs[p.vpc]
	if !ok || v == nil {
		return nil, ErrUnknownENI
	}
	link, err := v.nl.LinkByIndex(p.index)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil, ErrNotPlugged
	}
	if err != nil {
		return nil, fmt.Errorf("find fabric end: %w", err)
	}
	ns, index := v.ns, p.index
	if side == GuestEnd {
		_, rest, _ := strings.Cut(link.Attrs().Alias, " ")
		id, _, _ := strings.Cut(rest, "/")
		g, ok := f.guests[id]
		if !ok || !strings.HasSuffix(link.Attrs().Alias, g.netnsName()) {
			return nil, ErrNotPlugged // but into a guest that is gone, or was before a reboot
		}
		ns, index = g.netns, link.Attrs().ParentIndex
	}
	var socket *os.File
	err = netns.Do(ns, func() error {
		var err error
		socket, err = openPacketSocket(index)
		return err
	})
	if errors.Is(err, unix.ENODEV) { // it has gone since
		return nil, ErrNotPlugged
	}
	return socket, err
}

// openPacketSocket binds to no protocol first: nothing of other devices gets in.
func openPacketSocket(index int) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index}))
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("bind packet socket to device %d: %w", index, err)
	}
	return os.NewFile(uintptr(fd), "packet socket"), nil
}
