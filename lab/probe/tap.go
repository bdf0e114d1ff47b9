package probe

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

// maxFrame is more than any frame has, segments that are left to offload too.
const maxFrame = 1<<16 + 256

// Tap is a packet socket on all devices of a namespace (packet(7)).
type Tap struct {
	file    *os.File
	devices map[int]net.Interface
	buf     []byte
}

// OpenTap opens one. Devices that come later have no name at it.
func OpenTap(ns *os.File) (*Tap, error) {
	t := &Tap{devices: map[int]net.Interface{}, buf: make([]byte, maxFrame)}
	err := netns.Do(ns, func() error {
		devices, err := net.Interfaces()
		if err != nil {
			return err
		}
		for _, d := range devices {
			t.devices[d.Index] = d
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(networkOrder(unix.ETH_P_ALL)))
		if err != nil {
			return err
		}
		t.file = os.NewFile(uintptr(fd), "packet")
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	return t, nil
}

// Close ends it, and a Next that waits.
func (t *Tap) Close() error { return t.file.Close() }

// Device finds a device by its name.
func (t *Tap) Device(name string) (net.Interface, bool) {
	for _, d := range t.devices {
		if d.Name == name {
			return d, true
		}
	}
	return net.Interface{}, false
}

// Send puts a frame on the wire of a device.
func (t *Tap) Send(device net.Interface, frame []byte) error {
	err := control(t.file, func(fd int) error {
		return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: device.Index})
	})
	if errors.Is(err, unix.EMSGSIZE) {
		return fmt.Errorf("send %d bytes by %s: longer than its mtu %d allows: %w", len(frame), device.Name, device.MTU, err)
	}
	if err != nil {
		return fmt.Errorf("send %d bytes by %s: %w", len(frame), device.Name, err)
	}
	return nil
}

// Next waits for a frame that comes in by a device, until [Tap.Close] or a
// deadline. The frame is good until the next call.
func (t *Tap) Next() (device string, frame []byte, err error) {
	raw, err := t.file.SyscallConn()
	if err != nil {
		return "", nil, err
	}
	for {
		var n int
		var from unix.Sockaddr
		var result error
		err := raw.Read(func(fd uintptr) bool {
			n, from, result = unix.Recvfrom(int(fd), t.buf, 0)
			return !errors.Is(result, unix.EAGAIN) && !errors.Is(result, unix.EINTR)
		})
		if err := errors.Join(err, result); err != nil {
			// A device that went or is down says so once (ENETDOWN).
			if errors.Is(err, unix.ENETDOWN) {
				continue
			}
			return "", nil, err
		}
		if l, ok := from.(*unix.SockaddrLinklayer); ok && l.Pkttype != unix.PACKET_OUTGOING {
			return t.devices[l.Ifindex].Name, t.buf[:n], nil
		}
	}
}

// SetDeadline bounds what waits; the zero time is no bound.
func (t *Tap) SetDeadline(at time.Time) error { return t.file.SetDeadline(at) }

// networkOrder turns a protocol number into what packet sockets take.
func networkOrder(v uint16) uint16 { return v<<8 | v>>8 }
