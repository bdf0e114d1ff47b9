package site

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// OwnCPU binds the thread to the last CPU that it may use, and puts it into a
// real-time class, so that nobody comes between. The error says what could not be
// had. The caller's goroutine must end locked to its thread, which then ends too.
func OwnCPU() error {
	var may, last unix.CPUSet
	if err := unix.SchedGetaffinity(0, &may); err != nil {
		return fmt.Errorf("read CPU affinity: %w", err)
	}
	for i := range 1024 {
		if may.IsSet(i) {
			last.Zero()
			last.Set(i)
		}
	}
	if err := unix.SchedSetaffinity(0, &last); err != nil {
		return fmt.Errorf("set CPU affinity: %w", err)
	}
	fifo := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 50}
	if err := unix.SchedSetAttr(0, &fifo, 0); err != nil {
		return fmt.Errorf("set SCHED_FIFO (needs CAP_SYS_NICE): %w", err)
	}
	return nil
}
