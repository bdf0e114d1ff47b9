package packet

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls below go around the Go scheduler, which would take and give back its
// place at each: they never block.

func send(fd int, b []byte) error {
	if _, errno := transfer(unix.SYS_SENDTO, fd, b); errno != 0 {
		return fmt.Errorf("send: %w", errno)
	}
	return nil
}

// receive reads one packet. If it has to wait for it, it says errLate.
func receive(fd int, b []byte) error {
	_, errno := transfer(unix.SYS_RECVFROM, fd, b)
	if errno == 0 {
		return nil
	}
	for deadline := time.Now().Add(patience); errno == unix.EAGAIN; {
		if time.Now().After(deadline) {
			return errors.New("packet was lost")
		}
		nap(50 * time.Microsecond) // lets the kernel's own threads run
		if _, errno = transfer(unix.SYS_RECVFROM, fd, b); errno == 0 {
			return errLate
		}
	}
	return fmt.Errorf("receive: %w", errno)
}

// transfer is sendto or recvfrom without an address.
func transfer(call uintptr, fd int, b []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(call, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// nap has the thread itself sleep.
func nap(d time.Duration) {
	t := unix.NsecToTimespec(d.Nanoseconds())
	_ = unix.Nanosleep(&t, nil) // an early end does no harm
}
