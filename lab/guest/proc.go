package guest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// table holds the processes that init was asked to start. One mutex is held
// over fork and over wait, so that no child can be reaped before it is known
// here, and no PID is signalled after its owner was reaped.
//
// Children are forked by package syscall: package os would wait for them by
// itself, and init has to wait for every process that the kernel hands it.
type table struct {
	mu      sync.Mutex
	running map[int]*proc
}

// proc is one started process, the leader of a session and process group.
type proc struct {
	pid    int
	done   chan struct{} // closed once status is set
	status ExitStatus
}

// start forks and executes req with the three descriptors as its standard
// files. They stay the caller's to close.
func (t *table) start(req request, files []int) (*proc, error) {
	if len(req.Argv) == 0 || req.Argv[0] == "" {
		return nil, errors.New("start a program: the argument list is empty")
	}
	if len(files) != maxFiles {
		return nil, fmt.Errorf("start %q: %d file descriptors came with the request, want %d", req.Argv[0], len(files), maxFiles)
	}
	env := req.Env
	if env == nil {
		env = []string{"PATH=" + defaultPath, "HOME=/root"}
	}
	dir := req.Dir
	if dir == "" {
		dir = "/"
	}
	program, err := lookPath(req.Argv[0], env)
	if err != nil {
		return nil, fmt.Errorf("start %q: %w", req.Argv[0], err)
	}
	attr := &syscall.ProcAttr{
		Dir:   dir,
		Env:   env,
		Files: []uintptr{uintptr(files[0]), uintptr(files[1]), uintptr(files[2])},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	}
	fork := func() (int, error) { return syscall.ForkExec(program, req.Argv, attr) }

	t.mu.Lock()
	defer t.mu.Unlock()
	var pid int
	if req.Caps == nil {
		pid, err = fork()
	} else {
		pid, err = withCapabilities(req.Caps, fork)
	}
	if err != nil {
		return nil, fmt.Errorf("start %q in %s: %w", req.Argv[0], dir, err)
	}
	p := &proc{pid: pid, done: make(chan struct{})}
	t.running[pid] = p
	return p, nil
}

// reap collects every child that has ended, orphans too.
func (t *table) reap() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		p := t.running[pid]
		if p == nil {
			continue // an orphan of somebody's
		}
		if ws.Signaled() {
			p.status = ExitStatus{Signal: ws.Signal()}
		} else {
			p.status = ExitStatus{Code: ws.ExitStatus()}
		}
		delete(t.running, pid)
		close(p.done)
	}
}

// signal sends sig to the process group of p, unless p has ended: its number
// may be another's by then.
func (t *table) signal(p *proc, sig unix.Signal) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.running[p.pid] != p {
		return nil
	}
	if err := unix.Kill(-p.pid, sig); err != nil {
		return fmt.Errorf("send %v to process group %d: %w", sig, p.pid, err)
	}
	return nil
}

// lookPath finds a program as a shell with this environment would.
func lookPath(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	path := ""
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			path = v
		}
	}
	for _, dir := range filepath.SplitList(path) {
		if !filepath.IsAbs(dir) {
			continue // a relative PATH would depend on init's own directory
		}
		candidate := filepath.Join(dir, name)
		if info, err := os.Stat(candidate); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return candidate, nil
		}
	}
	return "", &fs.PathError{Op: "look in PATH=" + path + " for", Path: name, Err: syscall.ENOENT}
}
