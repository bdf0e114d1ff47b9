package guest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// defaultPath is the PATH of a command that brings no environment.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Errors that callers branch on.
var (
	ErrNoDaemon      = errors.New("no daemon of this name")
	ErrDaemonRunning = errors.New("a daemon of this name runs")
)

// Client runs commands in a guest through its control socket. It holds no
// connection: every call makes its own.
type Client struct {
	dir, name string // the socket, split to allow for long directories
}

// Dial finds the guest behind a control socket, Config.Dir/guest.sock, and
// makes sure that it answers. Root only.
func Dial(socketPath string) (*Client, error) {
	c := &Client{dir: filepath.Dir(socketPath), name: filepath.Base(socketPath)}
	ctx, cancel := context.WithTimeout(context.Background(), firstFrame)
	defer cancel()
	if _, err := c.ask(ctx, request{Op: opPing}); err != nil {
		return nil, err
	}
	return c, nil
}

// Cmd is a command to run in the guest.
type Cmd struct {
	Argv []string  // a name without a slash is looked up in the PATH of Env
	Env  []string  // key=value; nil is a PATH and HOME only, never the caller's
	Dir  string    // in the guest; empty is /
	Caps []uintptr // unix.CAP_*: run as uid 0 with exactly these; nil keeps all

	Stdin, Stdout, Stderr *os.File // nil is /dev/null

	// Signals, if not nil, are forwarded to the command's process group. Give
	// it the channel of signal.Notify.
	Signals <-chan os.Signal
}

// ExitStatus is how a process ended: by a signal, if Signal is not 0, else with
// Code.
type ExitStatus struct {
	Code   int            `json:"code"`
	Signal syscall.Signal `json:"signal,omitempty"`
}

// Shell gives the single number that a shell would: 128 plus the signal, or the
// code.
func (s ExitStatus) Shell() int {
	if s.Signal != 0 {
		return 128 + int(s.Signal)
	}
	return s.Code
}

func (s ExitStatus) String() string {
	if s.Signal != 0 {
		return "signal: " + s.Signal.String()
	}
	return fmt.Sprintf("exit status %d", s.Code)
}

// Exec runs cmd to its end, in a session of its own. When ctx ends, or this
// process does, the command's process group is killed. The error is not nil
// only if the command could not be run or its end not be seen; it wraps the
// kernel's errno where there was one, for example fs.ErrNotExist.
func (c *Client) Exec(ctx context.Context, cmd Cmd) (ExitStatus, error) {
	files, release, err := cmd.files()
	if err != nil {
		return ExitStatus{}, err
	}
	defer release()
	conn, err := c.connect()
	if err != nil {
		return ExitStatus{}, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()

	req := request{Op: opExec, Argv: cmd.Argv, Env: cmd.Env, Dir: cmd.Dir, Caps: cmd.Caps}
	if _, err := c.roundTrip(ctx, conn, req, files...); err != nil {
		return ExitStatus{}, err
	}
	done, forwarded := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(forwarded)
		forward(conn, cmd.Signals, done)
	}()
	var end reply
	err = readFrame(conn, &end)
	close(done)
	<-forwarded
	switch {
	case ctx.Err() != nil:
		return ExitStatus{}, fmt.Errorf("run %q: %w", cmd.Argv, context.Cause(ctx))
	case brokeOff(err):
		return ExitStatus{}, fmt.Errorf("run %q: the guest stopped", cmd.Argv)
	case err != nil:
		return ExitStatus{}, fmt.Errorf("run %q: %w", cmd.Argv, err)
	case end.err() != nil:
		return ExitStatus{}, end.err()
	case end.Exit == nil:
		return ExitStatus{}, fmt.Errorf("run %q: %w: no exit status", cmd.Argv, errFrame)
	}
	return *end.Exit, nil
}

// forward writes signals to init until done. A write that fails needs no word:
// the reader of the same connection learns of it.
func forward(conn *net.UnixConn, signals <-chan os.Signal, done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case s, open := <-signals:
			if !open {
				signals = nil
				continue
			}
			if n, ok := s.(syscall.Signal); ok {
				_ = writeFrame(conn, request{Op: opSignal, Signal: int(n)})
			}
		}
	}
}

// files gives the three standard files, /dev/null for those not set.
func (cmd Cmd) files() ([]*os.File, func(), error) {
	files := []*os.File{cmd.Stdin, cmd.Stdout, cmd.Stderr}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	for i := range files {
		if files[i] == nil {
			files[i] = null
		}
	}
	return files, func() { null.Close() }, nil
}

// Daemon is a process that runs on when its starter is gone; it ends with the
// guest. It is not restarted.
type Daemon struct {
	Name string // one of this name at a time
	Argv []string
	Env  []string
	Dir  string
	Log  *os.File  // its stdout and stderr; nil is /dev/null
	Caps []uintptr // as in Cmd
}

// DaemonStatus is a daemon of the guest, running or ended.
type DaemonStatus struct {
	Name    string     `json:"name"`
	PID     int        `json:"pid"` // in the guest's PID namespace
	Running bool       `json:"running"`
	Exit    ExitStatus `json:"exit"` // if not running
}

// StartDaemon starts d and gives its PID in the guest. ErrDaemonRunning if one
// of its name runs; one that has ended is replaced.
func (c *Client) StartDaemon(ctx context.Context, d Daemon) (int, error) {
	files, release, err := Cmd{Stdout: d.Log, Stderr: d.Log}.files()
	if err != nil {
		return 0, err
	}
	defer release()
	r, err := c.ask(ctx, request{Op: opDaemon, Name: d.Name, Argv: d.Argv, Env: d.Env, Dir: d.Dir, Caps: d.Caps}, files...)
	return r.PID, err
}

// Daemons lists the guest's daemons by name, those that have ended too.
func (c *Client) Daemons(ctx context.Context) ([]DaemonStatus, error) {
	r, err := c.ask(ctx, request{Op: opDaemons})
	return r.Daemons, err
}

// SignalDaemon sends sig to the daemon's process group; one that has ended is
// no error. ErrNoDaemon if there never was one.
func (c *Client) SignalDaemon(ctx context.Context, name string, sig syscall.Signal) error {
	_, err := c.ask(ctx, request{Op: opSignal, Name: name, Signal: int(sig)})
	return err
}

// WaitDaemon waits for the daemon to end.
func (c *Client) WaitDaemon(ctx context.Context, name string) (ExitStatus, error) {
	r, err := c.ask(ctx, request{Op: opWait, Name: name})
	if err != nil {
		return ExitStatus{}, err
	}
	if r.Exit == nil {
		return ExitStatus{}, fmt.Errorf("wait for daemon %q: %w: no exit status", name, errFrame)
	}
	return *r.Exit, nil
}

// ask makes a connection for one request and one reply.
func (c *Client) ask(ctx context.Context, req request, files ...*os.File) (reply, error) {
	conn, err := c.connect()
	if err != nil {
		return reply{}, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	return c.roundTrip(ctx, conn, req, files...)
}

func (c *Client) roundTrip(ctx context.Context, conn *net.UnixConn, req request, files ...*os.File) (reply, error) {
	var r reply
	err := writeFrame(conn, req, files...)
	if err == nil || errors.Is(err, unix.EPIPE) { // it may have answered before it had read all
		err = readFrame(conn, &r)
	}
	switch {
	case ctx.Err() != nil:
		return reply{}, fmt.Errorf("ask guest for %s: %w", req.Op, context.Cause(ctx))
	case brokeOff(err):
		return reply{}, fmt.Errorf("ask guest for %s: the guest stopped", req.Op)
	case err != nil:
		return reply{}, fmt.Errorf("ask guest for %s: %w", req.Op, err)
	}
	return r, r.err()
}

// connect connects and makes sure that it is root who answers.
func (c *Client) connect() (*net.UnixConn, error) {
	where := filepath.Join(c.dir, c.name)
	path, dir, err := dirSocket(c.dir, c.name)
	if err != nil {
		return nil, fmt.Errorf("connect to guest: %w (is the lab up, and are you root?)", err)
	}
	defer dir.Close()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		var errno syscall.Errno
		if errors.As(err, &errno) {
			err = errno // the error of package net names the path in /proc
		}
		return nil, fmt.Errorf("connect to guest at %s: %w (is the lab up, and are you root?)", where, err)
	}
	uid, err := peerUID(conn)
	if err == nil && uid != 0 {
		err = fmt.Errorf("connect to guest at %s: uid %d listens there, want root", where, uid)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}
