package guest

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// withCapabilities runs start, which forks, on a thread that keeps nothing but
// caps, so that the program it executes runs as uid 0 with exactly these.
//
// An execve by uid 0 gives the new program the inheritable set and the whole
// bounding set (capabilities(7), "Capabilities and execution of programs by
// root"). So the bounding set is what must be cut, and the inheritable and
// ambient sets emptied.
//
// Credentials belong to a thread and fork copies those of the calling thread.
// The goroutine ends while locked to its thread, so the runtime destroys the
// thread and the cut never spreads in init. The other way, executing this
// program once more to cut and then execute the real one, costs an exec and
// turns "no such program" into a mere exit status.
func withCapabilities(caps []uintptr, start func() (int, error)) (int, error) {
	var pid int
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked
		if err = cutCapabilities(caps); err == nil {
			pid, err = start()
		}
	}()
	<-done
	return pid, err
}

// cutCapabilities reduces the calling thread to caps, for good.
func cutCapabilities(caps []uintptr) error {
	var keep uint64
	for _, c := range caps {
		if c > 63 {
			return fmt.Errorf("keep capability %d: the kernel has none of this number", c)
		}
		keep |= 1 << c
	}
	for c := uintptr(0); c < 64; c++ {
		if keep&(1<<c) != 0 {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if err == unix.EINVAL {
			break // past the last capability of this kernel
		}
		if err != nil {
			return fmt.Errorf("drop capability %d from the bounding set: %w", c, err)
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clear ambient capabilities: %w", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	for i := range data {
		data[i].Permitted = uint32(keep >> (32 * i))
		data[i].Effective = data[i].Permitted
	}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("keep capabilities %v: the lab itself may lack one of them: %w", caps, err)
	}
	return nil
}
