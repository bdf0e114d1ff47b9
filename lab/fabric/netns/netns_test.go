package netns_test

import (
	"errors"
	"net"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

func requireRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces (CAP_SYS_ADMIN)")
	}
}

func inode(t *testing.T, f *os.File) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func current() (uint64, error) {
	var st unix.Stat_t
	err := unix.Stat("/proc/thread-self/ns/net", &st)
	return st.Ino, err
}

func newNS(t *testing.T) *os.File {
	t.Helper()
	f, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestDoRunsInsideAndComesBack(t *testing.T) {
	requireRoot(t)
	home, err := current()
	if err != nil {
		t.Fatal(err)
	}
	a, b := newNS(t), newNS(t)
	if inode(t, a) == inode(t, b) || inode(t, a) == home {
		t.Fatal("New gave a namespace that existed")
	}
	var outer, inner uint64
	var links []net.Interface
	err = netns.Do(a, func() error {
		outer, _ = current()
		links, _ = net.Interfaces()
		return netns.Do(b, func() error { inner, err = current(); return err })
	})
	if err != nil {
		t.Fatal(err)
	}
	if outer != inode(t, a) || inner != inode(t, b) {
		t.Errorf("ran in %d and %d, want %d and %d", outer, inner, inode(t, a), inode(t, b))
	}
	if len(links) != 1 || links[0].Name != "lo" {
		t.Errorf("links of a new namespace: %v, want lo alone", links)
	}
	// Every thread that serves goroutines now is in the namespace it was in.
	for range 4 * runtime.GOMAXPROCS(0) {
		got := make(chan uint64)
		go func() { n, _ := current(); got <- n }()
		if n := <-got; n != home {
			t.Fatalf("a goroutine runs in namespace %d, want %d", n, home)
		}
	}
}

func TestDoErrors(t *testing.T) {
	requireRoot(t)
	ns := newNS(t)
	want := errors.New("no")
	if err := netns.Do(ns, func() error { return want }); err != want {
		t.Errorf("got %v, want the code's own error", err)
	}
	if err := netns.Do(ns, func() error { runtime.Goexit(); return nil }); !errors.Is(err, netns.ErrExited) {
		t.Errorf("got %v, want ErrExited", err)
	}
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := netns.Do(file, func() error { t.Error("ran"); return nil }); !errors.Is(err, unix.EINVAL) {
		t.Errorf("entering %s: got %v, want EINVAL", os.DevNull, err)
	}
}

// TestDoClosed: a namespace that was closed is entered by nobody, though its number
// is another file's by now.
func TestDoClosed(t *testing.T) {
	requireRoot(t)
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	if err := ns.Close(); err != nil {
		t.Fatal(err)
	}
	newNS(t) // takes the number
	if err := netns.Do(ns, func() error { return errors.New("entered") }); !errors.Is(err, os.ErrClosed) {
		t.Errorf("namespace is closed: %v, want %v", err, os.ErrClosed)
	}
}
