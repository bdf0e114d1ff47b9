package guest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// firstFrame is how long a client may take to say what it wants.
const firstFrame = 10 * time.Second

// server answers on the control socket, inside init.
type server struct {
	procs *table

	mu      sync.Mutex
	daemons map[string]*proc // by name; kept after the end, for its status
}

func newServer() *server {
	return &server{procs: &table{running: map[int]*proc{}}, daemons: map[string]*proc{}}
}

// serve accepts for ever; it returns only when the listener is closed.
func (s *server) serve(l *net.UnixListener) {
	for {
		conn, err := l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of descriptors, say: others will be closed. Init must not spin.
			fmt.Fprintf(os.Stderr, "accept: %v\n", err)
			time.Sleep(10 * time.Millisecond)
			continue
		}
		go func() {
			defer conn.Close()
			if err := s.handle(conn); err != nil && !errors.Is(err, io.EOF) {
				fmt.Fprintf(os.Stderr, "request: %v\n", err)
				// The client may be gone; then nobody is left to tell.
				_ = writeFrame(conn, failure(err))
			}
		}()
	}
}

// handle serves one connection. The error it returns is for the client.
func (s *server) handle(conn *net.UnixConn) error {
	uid, err := peerUID(conn)
	if err != nil {
		return err
	}
	if uid != 0 {
		return fmt.Errorf("refuse uid %d: only root may control a guest", uid)
	}
	reader := &rightsReader{conn: conn}
	defer func() { reader.closeFiles() }()
	if err := conn.SetReadDeadline(time.Now().Add(firstFrame)); err != nil {
		return fmt.Errorf("set deadline: %w", err)
	}
	var req request
	if err := readFrame(reader, &req); err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("set deadline: %w", err)
	}
	switch req.Op {
	case opPing:
		return writeFrame(conn, reply{})
	case opExec:
		return s.exec(conn, reader, req)
	case opDaemon:
		return s.startDaemon(conn, reader, req)
	case opDaemons:
		return writeFrame(conn, reply{Daemons: s.list()})
	case opSignal:
		return s.signalDaemon(conn, req)
	case opWait:
		return s.waitDaemon(conn, req)
	}
	return fmt.Errorf("serve request: %w: unknown operation %q", errFrame, req.Op)
}

// exec runs one command for as long as its client listens.
func (s *server) exec(conn *net.UnixConn, reader *rightsReader, req request) error {
	p, err := s.procs.start(req, reader.fds)
	// Init must not hold a pipe open that the command has closed.
	reader.closeFiles()
	if err != nil {
		return err
	}
	if err := writeFrame(conn, reply{PID: p.pid}); err != nil {
		return errors.Join(err, s.procs.signal(p, unix.SIGKILL))
	}
	gone := make(chan error, 1)
	go func() { gone <- s.follow(reader, p) }()
	select {
	case <-p.done:
		err := writeFrame(conn, reply{Exit: &p.status})
		conn.Close() // ends follow, which shares the reader
		<-gone
		return err
	case err := <-gone:
		return errors.Join(err, s.procs.signal(p, unix.SIGKILL))
	}
}

// follow passes the client's signals on until the client says something wrong
// or nothing more.
func (s *server) follow(reader *rightsReader, p *proc) error {
	for {
		var req request
		if err := readFrame(reader, &req); err != nil {
			return err
		}
		if req.Op != opSignal || len(reader.fds) > 0 {
			return fmt.Errorf("follow process %d: %w: only signals may come while it runs", p.pid, errFrame)
		}
		if err := checkSignal(req.Signal); err != nil {
			return err
		}
		if err := s.procs.signal(p, unix.Signal(req.Signal)); err != nil {
			return err
		}
	}
}

func (s *server) startDaemon(conn *net.UnixConn, reader *rightsReader, req request) error {
	if req.Name == "" {
		return errors.New("start daemon: it has no name")
	}
	p, err := s.runDaemon(req, reader.fds)
	if err != nil {
		return err
	}
	return writeFrame(conn, reply{PID: p.pid})
}

// runDaemon holds the lock over the start: of two that ask for the same name
// at once, one must lose.
func (s *server) runDaemon(req request, files []int) (*proc, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.daemons[req.Name]; old != nil && !old.ended() {
		return nil, fmt.Errorf("start daemon %q: %w with pid %d", req.Name, ErrDaemonRunning, old.pid)
	}
	p, err := s.procs.start(req, files)
	if err != nil {
		return nil, fmt.Errorf("start daemon %q: %w", req.Name, err)
	}
	s.daemons[req.Name] = p
	return p, nil
}

func (s *server) daemon(name string) (*proc, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.daemons[name]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("%w %q", ErrNoDaemon, name)
}

// signalDaemon succeeds for a daemon that has ended: what is asked for by a
// signal to it has come true or cannot.
func (s *server) signalDaemon(conn *net.UnixConn, req request) error {
	p, err := s.daemon(req.Name)
	if err != nil {
		return err
	}
	if err := checkSignal(req.Signal); err != nil {
		return err
	}
	if err := s.procs.signal(p, unix.Signal(req.Signal)); err != nil {
		return err
	}
	return writeFrame(conn, reply{})
}

func (s *server) waitDaemon(conn *net.UnixConn, req request) error {
	p, err := s.daemon(req.Name)
	if err != nil {
		return err
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		var none request
		_ = readFrame(conn, &none) // whatever comes, the client broke off
	}()
	select {
	case <-p.done:
		return writeFrame(conn, reply{Exit: &p.status})
	case <-gone:
		return nil
	}
}

func (s *server) list() []DaemonStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]DaemonStatus, 0, len(s.daemons))
	for name, p := range s.daemons {
		d := DaemonStatus{Name: name, PID: p.pid, Running: !p.ended()}
		if !d.Running {
			d.Exit = p.status
		}
		list = append(list, d)
	}
	slices.SortFunc(list, func(a, b DaemonStatus) int { return strings.Compare(a.Name, b.Name) })
	return list
}

func (p *proc) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// checkSignal refuses what kill(2) would: 64 is the last real-time signal.
func checkSignal(n int) error {
	if n < 1 || n > 64 {
		return fmt.Errorf("send signal %d: want 1 to 64", n)
	}
	return nil
}

func peerUID(conn *net.UnixConn) (uint32, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("identify client: %w", err)
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, credErr); err != nil {
		return 0, fmt.Errorf("identify client: %w", err)
	}
	return cred.Uid, nil
}
