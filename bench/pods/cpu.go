package pods

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// userHz is the unit of /proc/stat in all of Linux's interfaces to programs: ticks a
// second. Source: man 5 proc, USER_HZ.
const userHz = 100

// busy is what the machine's processors have worked since its start, without the work
// of a lower priority: who shares a machine with a bench is asked to run so.
func busy() (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, fmt.Errorf("read what the processors have worked: %w", err)
	}
	return parseBusy(text)
}

// parseBusy reads the first line: cpu, then user, nice, system, idle, iowait, irq and
// softirq.
func parseBusy(text []byte) (time.Duration, error) {
	line, _, _ := bytes.Cut(text, []byte("\n"))
	fields := bytes.Fields(line)
	if len(fields) < 8 || string(fields[0]) != "cpu" {
		return 0, fmt.Errorf("read what the processors have worked: unexpected line %q", line)
	}
	var ticks uint64
	for _, i := range []int{1, 3, 6, 7} {
		n, err := strconv.ParseUint(string(fields[i]), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read what the processors have worked: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * (time.Second / userHz), nil
}
