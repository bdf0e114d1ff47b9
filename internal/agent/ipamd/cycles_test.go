package ipamd

import (
	"fmt"
	"os"
	goruntime "runtime"
	"testing"
	"time"

	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// TestRecordAfterManyCycles: pods that come and go leave nothing: no memory, no
// descriptor, no file.
func TestRecordAfterManyCycles(t *testing.T) {
	d := newDesk(t)
	enis := []vpc.ENI{device(0, "10.0.0.16/28", "10.0.0.32/28", "10.0.0.48/28")}
	d.SawMetadata(enis, d.now)
	d.SawENIs(enis, d.now)
	cycles := func(n int) {
		for i := range n {
			name := fmt.Sprintf("pod%d", i)
			d.mustHold(name)
			if err := d.Release(pod(name)); err != nil {
				t.Fatal(err)
			}
			d.now = d.now.Add(time.Second)
			d.Tick()
		}
		d.now = d.now.Add(time.Minute)
		d.Tick()
	}
	measure := func() (heap uint64, descriptors, files int) {
		goruntime.GC()
		goruntime.GC()
		var m goruntime.MemStats
		goruntime.ReadMemStats(&m)
		return m.HeapAlloc, entries(t, "/proc/self/fd"), entries(t, d.dir)
	}
	cycles(100)
	heap, descriptors, files := measure()
	n := 10_000
	if testing.Short() {
		n = 1000
	}
	cycles(n)
	heapNow, descriptorsNow, filesNow := measure()
	if descriptorsNow != descriptors || filesNow != files {
		t.Errorf("%d descriptors and %d files, were %d and %d", descriptorsNow, filesNow, descriptors, files)
	}
	const slack = 256 << 10 // of others in this process; 10,000 cycles at 30 bytes each would be more
	if heapNow > heap+slack {
		t.Errorf("%d bytes in use, were %d", heapNow, heap)
	}
	t.Logf("%d cycles: heap %d -> %d bytes, %d descriptors, %d files", n, heap, heapNow, descriptorsNow, filesNow)
}

func entries(t *testing.T, dir string) int {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
