package guest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Config says what to start.
type Config struct {
	ID       string // the instance, for messages
	Hostname string // at most 64 bytes, as sethostname(2) takes
	Dir      string // state on the host, absolute; made by Start, removed by Stop
	Cgroup   string // <CgroupRoot>/fairway-lab.<lab>/<instance>; made and removed likewise
}

// Names inside Config.Dir.
const (
	SocketName = "guest.sock" // control socket, for Dial
	LogName    = "init.log"   // what init complains about
)

// namespaces are those that clone makes. The cgroup namespace is not among
// them: clone would root it at the lab's cgroup, not at the guest's, so the
// child unshares it when it is where it belongs.
const namespaces = unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC

// Guest is a running instance, held by the process that started it.
type Guest struct {
	*Client // commands and daemons in the guest

	cfg      Config
	cmd      *exec.Cmd
	netns    *os.File
	lifeline *net.UnixConn
	done     chan struct{} // closed when init has ended and err is set
	err      error

	stop    sync.Mutex // held by Stop
	stopped bool
}

// Check says whether this machine can run guests: as whom we run and what the
// kernel has. The error wraps errors.ErrUnsupported or fs.ErrPermission.
func Check() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("start a guest: %w: root is needed to make namespaces", fs.ErrPermission)
	}
	for _, ns := range []string{"net", "mnt", "pid", "uts", "ipc", "cgroup"} {
		if _, err := os.Stat("/proc/self/ns/" + ns); err != nil {
			return fmt.Errorf("start a guest: %w: the kernel has no %s namespaces", errors.ErrUnsupported, ns)
		}
	}
	_, err := CgroupRoot()
	return err
}

func (cfg Config) check() error {
	switch {
	case cfg.ID == "":
		return errors.New("start guest: Config.ID is empty")
	case cfg.Hostname == "" || len(cfg.Hostname) > 64 || strings.ContainsAny(cfg.Hostname, "/ \n\x00"):
		return fmt.Errorf("start guest %s: hostname %q: want 1 to 64 bytes without blanks and slashes", cfg.ID, cfg.Hostname)
	case !filepath.IsAbs(cfg.Dir) || filepath.Dir(filepath.Clean(cfg.Dir)) == "/":
		return fmt.Errorf("start guest %s: state directory %q: want an absolute path that is not at the top", cfg.ID, cfg.Dir)
	case cfg.Cgroup == "":
		return fmt.Errorf("start guest %s: no cgroup given; make one below CgroupRoot", cfg.ID)
	case !filepath.IsAbs(cfg.Cgroup):
		return fmt.Errorf("start guest %s: cgroup %q: want an absolute path", cfg.ID, cfg.Cgroup)
	}
	return nil
}

// Start boots a guest and returns when its control socket answers. ctx bounds
// the boot only. cfg.Dir must not exist; the directories above it are made and
// stay. On an error nothing else is left behind.
func Start(ctx context.Context, cfg Config) (_ *Guest, err error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if err := Check(); err != nil {
		return nil, fmt.Errorf("start guest %s: %w", cfg.ID, err)
	}
	var undo []func() error
	defer func() {
		if err == nil {
			return
		}
		err = fmt.Errorf("start guest %s: %w", cfg.ID, err)
		for i := len(undo) - 1; i >= 0; i-- {
			err = errors.Join(err, undo[i]())
		}
	}()
	if err := os.MkdirAll(filepath.Dir(cfg.Dir), 0o700); err != nil {
		return nil, err
	}
	// Not MkdirAll: what is there belongs to a lab that runs or was killed.
	if err := os.Mkdir(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w (of a lab that runs, or was killed and must be removed first)", err)
	}
	undo = append(undo, func() error { return os.RemoveAll(cfg.Dir) })
	cgroup, err := makeCgroup(cfg.Cgroup)
	if err != nil {
		return nil, err
	}
	defer cgroup.Close()
	undo = append(undo, func() error { return removeCgroup(cfg.Cgroup) })

	g := &Guest{cfg: cfg, Client: &Client{dir: cfg.Dir, name: SocketName}, done: make(chan struct{})}
	if err := g.spawn(int(cgroup.Fd())); err != nil {
		return nil, err
	}
	// Before the wait: until then the PID is nobody else's, whatever init does.
	err = g.openNetNS()
	go func() {
		g.err = g.cmd.Wait()
		close(g.done)
	}()
	undo = append(undo, g.kill)
	if err != nil {
		return nil, err
	}
	undo = append(undo, g.netns.Close)
	if err := g.boot(ctx); err != nil {
		return nil, err
	}
	return g, nil
}

// spawn re-executes this program as init, in its namespaces and its cgroup.
func (g *Guest) spawn(cgroup int) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make lifeline: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "lifeline")
	defer theirs.Close()
	if g.lifeline, err = unixConn(pair[0], "lifeline"); err != nil {
		return err
	}
	listener, err := g.listen()
	if err != nil {
		return errors.Join(err, g.lifeline.Close())
	}
	defer listener.Close()
	log, err := os.OpenFile(filepath.Join(g.cfg.Dir, LogName), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return errors.Join(err, g.lifeline.Close())
	}
	defer log.Close()
	g.cmd = &exec.Cmd{
		Path:       "/proc/self/exe",
		Args:       []string{initName},
		Env:        []string{"PATH=" + defaultPath},
		Dir:        "/",
		Stdout:     log,
		Stderr:     log,
		ExtraFiles: []*os.File{theirs, listener}, // lifelineFD, listenFD
		SysProcAttr: &unix.SysProcAttr{
			Cloneflags:   namespaces,
			Unshareflags: unix.CLONE_NEWCGROUP,
			UseCgroupFD:  true,
			CgroupFD:     cgroup,
			Setsid:       true, // a terminal's Ctrl-C is for the lab, which then stops in order
		},
	}
	if err := g.cmd.Start(); err != nil {
		return errors.Join(fmt.Errorf("make namespaces: %w", err), g.lifeline.Close())
	}
	return nil
}

// listen makes the control socket. The state directory is 0700, so there is no
// moment at which another user can connect.
func (g *Guest) listen() (*os.File, error) {
	path, dir, err := dirSocket(g.cfg.Dir, SocketName)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("make control socket: %w", err)
	}
	l.SetUnlinkOnClose(false)
	defer l.Close()
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, err
	}
	return l.File()
}

// openNetNS opens init's network namespace. It has none any more if it has ended,
// and is not waited for.
func (g *Guest) openNetNS() (err error) {
	g.netns, err = os.Open(fmt.Sprintf("/proc/%d/ns/net", g.cmd.Process.Pid))
	if errors.Is(err, fs.ErrNotExist) {
		return g.early(errEnded)
	}
	return err
}

// boot tells init what it is and waits until it is ready.
func (g *Guest) boot(ctx context.Context) error {
	inTime := context.AfterFunc(ctx, func() { g.lifeline.Close() })
	err := writeFrame(g.lifeline, bootConfig{Hostname: g.cfg.Hostname})
	var ready reply
	if err == nil {
		err = readFrame(g.lifeline, &ready)
	}
	if !inTime() {
		return fmt.Errorf("boot: %w", context.Cause(ctx))
	}
	if err != nil {
		return g.early(err)
	}
	return ready.err()
}

// errEnded is what becomes of a guest whose init does not get as far as to answer.
var errEnded = errors.New("init ended before it was ready: does main call guest.MaybeInit first?")

// early is the error of a boot that failed without a word of init's, with what its
// log says.
func (g *Guest) early(err error) error {
	log, rerr := os.ReadFile(filepath.Join(g.cfg.Dir, LogName))
	if rerr != nil {
		return errors.Join(err, rerr)
	}
	if brokeOff(err) {
		err = errEnded
	}
	return fmt.Errorf("boot: %w; its log: %s", err, tail(log, 2000))
}

func tail(b []byte, n int) []byte { return b[max(0, len(b)-n):] }

// ID is the instance's.
func (g *Guest) ID() string { return g.cfg.ID }

// PID is init's, in the lab's PID namespace.
func (g *Guest) PID() int { return g.cmd.Process.Pid }

// NetNS is the guest's network namespace. The file is the guest's, closed by
// Stop.
func (g *Guest) NetNS() *os.File { return g.netns }

// Done is closed when init has ended, and with it all that ran in the guest.
func (g *Guest) Done() <-chan struct{} { return g.done }

// Wait waits for the end of the guest and says how init ended: nil only if it
// exited by itself.
func (g *Guest) Wait() error {
	<-g.done
	return g.err
}

// kill ends init and waits. Its wait returns when the kernel has killed and
// reaped all of the PID namespace.
func (g *Guest) kill() error {
	err := g.cmd.Process.Kill()
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	if err == nil {
		<-g.done
	}
	return errors.Join(err, ignoreClosed(g.lifeline.Close()))
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) || errors.Is(err, fs.ErrClosed) {
		return nil
	}
	return err
}

// Stop ends the guest at once, as a power cut would, and removes its cgroup and
// state directory. The network namespace goes when nobody else holds it. A second
// call waits for the first; it does again what failed, and else nothing.
func (g *Guest) Stop() error {
	g.stop.Lock()
	defer g.stop.Unlock()
	if g.stopped {
		return nil
	}
	err := errors.Join(g.kill(), ignoreClosed(g.netns.Close()), Reap(g.cfg.Dir, g.cfg.Cgroup))
	if err != nil {
		return fmt.Errorf("stop guest %s: %w", g.cfg.ID, err)
	}
	g.stopped = true
	return nil
}

// Reap removes what a killed lab left of an instance: it kills what still runs
// in the cgroup and below, and nothing else, removes the cgroup, and then the
// state directory. Either may be empty or gone already. It also takes a lab's
// whole cgroup and directory. Do not reap a guest that a living lab holds.
func Reap(dir, cgroup string) error {
	if cgroup != "" {
		if err := removeCgroup(cgroup); err != nil {
			return fmt.Errorf("reap: %w", err)
		}
	}
	if dir == "" {
		return nil
	}
	if clean := filepath.Clean(dir); !filepath.IsAbs(clean) || filepath.Dir(clean) == "/" {
		return fmt.Errorf("reap: state directory %q: want an absolute path that is not at the top", dir)
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("reap: %w", err)
	}
	return nil
}
