package relay

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// HeaderLen is the length of the virtio-net header in front of each frame of a
// Tap, in bytes: struct virtio_net_hdr of linux/virtio_net.h.
const HeaderLen = 10

const tunPath = "/dev/net/tun"

// offloads are the segments that a tap takes and gives unsegmented. UDP's are
// newer than our kernel floor (Linux 6.2): without them the kernel segments
// before the relay sees them. Source: linux/if_tun.h.
const offloads = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN

// Tap makes a tap device in the network namespace of the calling thread, down.
// It exists for as long as the file is open. The file is used from anywhere.
func Tap(name string, index int) (*os.File, error) {
	fd, err := unix.Open(tunPath, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) {
			err = fmt.Errorf("%w: %w (needs CONFIG_TUN and %s)", errors.ErrUnsupported, err, tunPath)
		}
		return nil, fmt.Errorf("make tap %s: %w", name, err)
	}
	if err := setUp(fd, name, index); err != nil {
		return nil, errors.Join(fmt.Errorf("make tap %s: %w", name, err), unix.Close(fd))
	}
	// Only now: the poller refuses a tun file that has no device yet.
	return os.NewFile(uintptr(fd), name), nil
}

func setUp(fd int, name string, index int) error {
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETIFINDEX, index); err != nil {
		return fmt.Errorf("choose ifindex %d: %w", index, err)
	}
	req, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return err
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloads); err != nil {
		return fmt.Errorf("set offloads: %w", err)
	}
	return nil
}
