package cniserver

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

var (
	// ErrLive: another agent answers at the path.
	ErrLive = errors.New("another agent answers there")
	// ErrUnsafe: what is at the path, or its directory, is not ours to use.
	ErrUnsafe = errors.New("unsafe place for the socket")
)

// backlog is how many connections may wait for their turn. The kernel bounds it
// by net.core.somaxconn, 4096 since Linux 5.4.
const backlog = 4096

// Listen makes the socket at path, which only its owner can open, from the first
// moment on. A directory that is missing is made, with mode 0700. A socket that
// nobody listens on is removed; the error wraps [ErrLive] if somebody does, and
// [ErrUnsafe] if something else is in the way or others may write the directory.
//
// Closing the listener removes the socket.
func Listen(path string) (*net.UnixListener, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory for cni socket: %w", err)
	}
	unlock, err := lockDir(dir)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	defer unlock()
	if err := removeStale(path); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	ln, err := bind(path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return ln, nil
}

// lockDir keeps two agents that start together from each taking the other's new
// socket for a stale one. The lock is on the directory and ends with Listen: a
// socket that is listened on speaks for itself.
func lockDir(dir string) (unlock func(), err error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open directory %s: %w", dir, err)
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && (st.Mode&0o022 != 0 || int(st.Uid) != os.Geteuid() && st.Uid != 0) {
		err = fmt.Errorf("directory %s has mode %04o and owner %d, and must be writable by its owner only, root or the agent's user: %w",
			dir, st.Mode&0o7777, st.Uid, ErrUnsafe)
	}
	if err == nil {
		err = unix.Flock(fd, unix.LOCK_EX)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return func() { unix.Close(fd) }, nil
}

// removeStale takes away a socket that nobody listens on.
func removeStale(path string) error {
	var st unix.Stat_t
	switch err := unix.Lstat(path, &st); {
	case errors.Is(err, unix.ENOENT):
		return nil
	case err != nil:
		return err
	case st.Mode&unix.S_IFMT != unix.S_IFSOCK:
		return fmt.Errorf("a file that is not a socket is there: %w", ErrUnsafe)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	switch err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); {
	case err == nil, errors.Is(err, unix.EAGAIN): // EAGAIN: listened on, and its backlog is full
		return ErrLive
	case errors.Is(err, unix.ECONNREFUSED):
		return os.Remove(path)
	default:
		return err
	}
}

func bind(path string) (*net.UnixListener, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open socket: %w", err)
	}
	file := os.NewFile(uintptr(fd), path)
	defer file.Close() // FileListener has a copy
	// The socket's own mode, less the umask, becomes that of the file which
	// bind makes (unix_bind in net/unix/af_unix.c). So there is no moment with a
	// wider one, and no umask of the whole process to change.
	if err := unix.Fchmod(fd, 0o600); err != nil {
		return nil, fmt.Errorf("set mode: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return nil, fmt.Errorf("bind: %w", err)
	}
	if err := unix.Listen(fd, backlog); err != nil {
		os.Remove(path)
		return nil, fmt.Errorf("listen: %w", err)
	}
	ln, err := net.FileListener(file)
	if err != nil {
		os.Remove(path)
		return nil, fmt.Errorf("take over listener: %w", err)
	}
	u := ln.(*net.UnixListener)
	u.SetUnlinkOnClose(true)
	return u, nil
}
