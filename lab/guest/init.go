package guest

import (
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"os/signal"
	"runtime"

	"golang.org/x/sys/unix"
)

// initName is argv[0] of the re-executed program. An environment variable would
// be inherited by everything that is started from it; argv[0] is not.
const initName = "fairway-lab-init"

// Descriptors that Start hands to init, after the standard three.
const (
	lifelineFD = 3 // socketpair: bootConfig in, reply out, then silence until the lab dies
	listenFD   = 4 // the listening control socket
)

// bootConfig is what init has to know; one frame on the lifeline.
type bootConfig struct {
	Hostname string `json:"hostname"`
}

// MaybeInit turns this process into the init of a guest and never returns, if
// the process was started as one; otherwise it does nothing. Call it first in
// main, before flags are read.
func MaybeInit() {
	if len(os.Args) == 0 || os.Args[0] != initName {
		return
	}
	if os.Getpid() != 1 {
		fmt.Fprintf(os.Stderr, "%s: process %d is not the first of a PID namespace: the lab starts this program, nobody else\n", initName, os.Getpid())
		os.Exit(2)
	}
	os.Exit(runInit())
}

// runInit is the life of PID 1. It ends when the lifeline does, and the kernel
// then kills what is left in the PID namespace.
func runInit() int {
	unix.Umask(0o022)
	// Also what the lab's own parent let slip to it must not reach the guest.
	if err := unix.CloseRange(lifelineFD, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return complain(fmt.Errorf("mark descriptors close-on-exec: %w", err))
	}
	lifeline, err := unixConn(lifelineFD, "lifeline")
	if err != nil {
		return complain(err)
	}
	ended := ignoreSignals()
	var cfg bootConfig
	if err := readFrame(lifeline, &cfg); err != nil {
		return complain(fmt.Errorf("read boot configuration: %w", err))
	}
	listener, err := controlListener()
	if err == nil {
		err = boot(cfg)
	}
	if err != nil {
		// If the lab is gone, too, its end of the lifeline says so to nobody.
		_ = writeFrame(lifeline, failure(err))
		return complain(err)
	}
	s := newServer()
	go func() {
		for range ended {
			s.procs.reap()
		}
	}()
	go s.serve(listener)
	if err := writeFrame(lifeline, reply{PID: 1}); err != nil {
		return complain(err)
	}
	var nothing [1]byte
	_, _ = lifeline.Read(nothing[:]) // end of file, or an error that means the same
	return 0
}

// complain writes to the guest's init.log.
func complain(err error) int {
	fmt.Fprintf(os.Stderr, "%s: %v\n", initName, err)
	return 1
}

// ignoreSignals keeps init alive whatever the guest's processes send it, and
// gives the channel that tells of ended children. The signals are caught and
// thrown away: children would inherit it if they were ignored.
func ignoreSignals() <-chan os.Signal {
	thrown := make(chan os.Signal, 1)
	signal.Notify(thrown, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM,
		unix.SIGUSR1, unix.SIGUSR2, unix.SIGPIPE, unix.SIGALRM)
	ended := make(chan os.Signal, 1) // one is enough: reap collects all there are
	signal.Notify(ended, unix.SIGCHLD)
	return ended
}

// boot does once what an operating system does before its first service.
func boot(cfg bootConfig) error {
	if err := unix.Sethostname([]byte(cfg.Hostname)); err != nil {
		return fmt.Errorf("set hostname %q: %w", cfg.Hostname, err)
	}
	if err := makeMounts(); err != nil {
		return err
	}
	if err := writeOwnFiles(cfg.Hostname); err != nil {
		return err
	}
	if err := resetSysctls(); err != nil {
		return err
	}
	runtime.GC() // what boot needed, fifty guests need not keep
	return nil
}

// kernelDefaults are per-interface IPv4 settings that a new network namespace
// copies from the host's (net.core.devconf_inherit_init_net, 0 by default:
// Documentation/admin-guide/sysctl/net.rst). A guest begins with the kernel's
// own values, those of Documentation/networking/ip-sysctl.rst, so that a lab
// behaves the same on every host.
var kernelDefaults = []struct{ name, value string }{
	{"accept_local", "0"},
	{"arp_announce", "0"},
	{"arp_filter", "0"},
	{"arp_ignore", "0"},
	{"forwarding", "0"},
	{"proxy_arp", "0"},
	{"route_localnet", "0"},
	{"rp_filter", "0"},
	{"send_redirects", "1"},
	{"src_valid_mark", "0"},
}

func resetSysctls() error {
	for _, s := range kernelDefaults {
		for _, dev := range []string{"all", "default", "lo"} {
			path := "/proc/sys/net/ipv4/conf/" + dev + "/" + s.name
			if err := os.WriteFile(path, []byte(s.value), 0); err != nil {
				return fmt.Errorf("reset sysctl: %w", err)
			}
		}
	}
	return nil
}

func controlListener() (*net.UnixListener, error) {
	f := os.NewFile(listenFD, "control")
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	ul, ok := l.(*net.UnixListener)
	if !ok {
		l.Close()
		return nil, errors.New("open control socket: descriptor is not a unix socket")
	}
	return ul, nil
}

// unixConn makes a connection of a descriptor and closes the descriptor.
func unixConn(fd int, name string) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	uc, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("open %s: descriptor is not a unix socket", name)
	}
	return uc, nil
}
