// Package netns makes network namespaces and runs code inside them.
//
// A namespace is held by nothing but its open file: no name, no bind mount, so
// that a killed process leaves none behind. The kernel frees it, with all its
// devices, after the last file, process and socket in it is gone.
//
// The namespace belongs to an OS thread, so code runs inside one on a thread of
// its own: a socket or netlink handle that it opens stays in that namespace and
// may be used from anywhere afterwards, a file below /proc/sys/net likewise.
// Goroutines started by that code, and processes, do not run in the namespace
// (a process does when the code itself starts it and is done starting it before
// it returns; it must not ask for a signal at its parent thread's death, as the
// thread may end).
//
// All functions are safe for concurrent use. They need CAP_SYS_ADMIN.
package netns

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// ErrExited says that the code run by [Do] ended its goroutine instead of
// returning, as testing.T.FailNow does.
var ErrExited = errors.New("code ended its goroutine inside the network namespace")

// self names the calling thread's namespace. /proc/self would name the main
// thread's (network_namespaces(7)).
const self = "/proc/thread-self/ns/net"

// New makes an empty network namespace; closing the file gives it up. Its
// loopback device is down.
func New() (*os.File, error) {
	var made *os.File
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("create network namespace: %w", err)
		}
		f, err := os.Open(self)
		if err != nil {
			return fmt.Errorf("open new network namespace: %w", err)
		}
		made = f
		return nil
	})
	return made, err
}

// Do runs fn inside the namespace and returns its error. fn runs on another
// goroutine than the caller's, one that must not call testing.T.FailNow. The
// error is [os.ErrClosed] where somebody has closed the file, which may be at any
// moment before fn runs.
func Do(ns *os.File, fn func() error) error {
	return onThread(func() error {
		if err := enter(ns); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return fn()
	})
}

// enter keeps the file open for as long as it takes: a number that was closed may be
// another namespace's by now.
func enter(ns *os.File) error {
	raw, err := ns.SyscallConn()
	if err != nil {
		return err
	}
	var entered error
	if raw.Control(func(fd uintptr) { entered = unix.Setns(int(fd), unix.CLONE_NEWNET) }) != nil {
		return os.ErrClosed // the one thing that keeps it from calling back
	}
	return entered
}

// onThread runs fn on a locked thread, which afterwards goes back to the
// namespace it came from, or ends where it cannot: a thread in the wrong
// namespace must never serve another goroutine.
func onThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		result := ErrExited
		defer func() { done <- result }()
		runtime.LockOSThread() // not unlocked on the ways out below: the thread ends with the goroutine
		home, err := os.Open(self)
		if err != nil {
			result = fmt.Errorf("open own network namespace: %w", err)
			return
		}
		defer home.Close()
		result = fn()
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
	}()
	return <-done
}
