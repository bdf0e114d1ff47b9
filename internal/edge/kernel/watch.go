package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"
)

// Watcher tells when somebody else wrote what concerns us. It may run in a
// goroutine of its own, beside the [Kernel] that it came from; it belongs to that
// goroutine.
//
// The kernel says nothing when it drops the routes of a device that went down,
// and nothing about the sysctls accept_local and tcp_early_demux: the first
// follows from the device, the second is for [Kernel.Sysctls].
type Watcher struct {
	route, nft *conn // events only
	query      *conn // for links
	wake       int   // an eventfd
	ledger     ledger
	blind      bool // the ledger is of before events were lost
}

// eventBytes is how much the kernel may queue for a socket of events. Somebody
// who rewrites ten thousand rules of another table must not make us lose our own.
const eventBytes = 32 << 20

// Watch begins to watch the network namespace of the caller's OS thread, which
// must be the one that k was opened in. What k writes is no event.
func Watch(k *Kernel) (*Watcher, error) {
	w := &Watcher{wake: -1, ledger: ledger{route: k.route.port, nft: k.nft.port}}
	if err := w.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("watch the kernel: %w", err), w.Close())
	}
	return w, nil
}

func (w *Watcher) open() (err error) {
	if w.route, err = dial(unix.NETLINK_ROUTE); err != nil {
		return err
	}
	if w.nft, err = dial(unix.NETLINK_NETFILTER); err != nil {
		return err
	}
	if w.query, err = dial(unix.NETLINK_ROUTE); err != nil {
		return err
	}
	if w.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return err
	}
	err = errors.Join(w.route.join(unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE,
		unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV4_NETCONF), w.nft.join(unix.NFNLGRP_NFTABLES))
	if err != nil {
		return err
	}
	return w.look() // after joining: what happens from now on is queued
}

// Close ends the watch. No call of Next may be under way.
func (w *Watcher) Close() error {
	var errs []error
	for _, c := range []*conn{w.route, w.nft, w.query} {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	if w.wake >= 0 {
		errs = append(errs, unix.Close(w.wake))
	}
	return errors.Join(errs...)
}

func (c *conn) join(groups ...int) error {
	if err := unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, eventBytes); err != nil {
		return fmt.Errorf("set buffer of events: %w", err)
	}
	for _, g := range groups {
		if err := unix.SetsockoptInt(c.fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, g); err != nil {
			return fmt.Errorf("join netlink group %d: %w", g, err)
		}
	}
	return nil
}

// look reads the devices afresh.
func (w *Watcher) look() error {
	links, err := readLinks(w.query)
	if err != nil {
		return err
	}
	w.ledger.links = make(map[int32]link, len(links))
	for _, l := range links {
		w.ledger.links[l.index] = l
	}
	return nil
}

// Next waits until somebody else wrote what concerns us, and says in a few words
// what it was. All that is queued by then counts as one. That events were lost
// is such a reason too. The error is ctx's when ctx ends.
func (w *Watcher) Next(ctx context.Context) (string, error) {
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(woken)
		// It cannot fail: the counter is far from its end.
		_, _ = unix.Write(w.wake, binary.NativeEndian.AppendUint64(nil, 1))
	})
	defer func() {
		if !stop() {
			<-woken // or it would write into what has the number next
			_, _ = unix.Read(w.wake, make([]byte, 8))
		}
	}()
	for {
		if err := w.wait(); err != nil {
			return "", err
		}
		if err := ctx.Err(); err != nil {
			return "", err
		}
		reasons, err := w.drain()
		if err != nil {
			return "", err
		}
		switch len(reasons) {
		case 0:
		case 1:
			return reasons[0], nil
		default:
			return fmt.Sprintf("%s, and %d more", reasons[0], len(reasons)-1), nil
		}
	}
}

func (w *Watcher) wait() error {
	fds := []unix.PollFd{{Fd: int32(w.route.fd), Events: unix.POLLIN}, {Fd: int32(w.nft.fd), Events: unix.POLLIN},
		{Fd: int32(w.wake), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds, -1)
		if err == nil || !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// drain takes all that is queued.
func (w *Watcher) drain() ([]string, error) {
	var reasons []string
	suspects := make(map[int32]string)
	take := func(v verdict) {
		reasons = append(reasons, v.reasons...)
		maps.Copy(suspects, v.suspects)
	}
	lost, err := w.route.events(func(b []byte) { take(w.ledger.routing(b)) })
	if err != nil {
		return nil, err
	}
	if lost {
		reasons = append(reasons, "events of routing were lost")
		w.blind = true
	}
	if w.blind {
		// What makes events too many interrupts dumps as well: then at the next event.
		err := w.look()
		if err != nil && !errors.Is(err, errInterrupted) {
			return nil, err
		}
		w.blind = err != nil
	}
	lost, err = w.nft.events(func(b []byte) { take(w.ledger.tables(b)) })
	if err != nil {
		return nil, err
	}
	if lost {
		reasons = append(reasons, "events of nftables were lost")
	}
	for _, index := range slices.Sorted(maps.Keys(suspects)) {
		// A device that is retired loses its neighbours before the kernel says
		// that it is. It has been by the time that it answers this.
		l, err := readLinkAt(w.query, index)
		if err == nil && l.isPod() {
			reasons = append(reasons, suspects[index])
		} else if err != nil && !errors.Is(err, unix.ENODEV) {
			return nil, err
		}
	}
	return reasons, nil
}

// events passes on the datagrams that are queued. lost tells that the queue was
// full in between.
func (c *conn) events(each func(b []byte)) (lost bool, err error) {
	if c.buf == nil {
		c.buf = make([]byte, readBytes)
	}
	for {
		n, from, err := unix.Recvfrom(c.fd, c.buf, unix.MSG_DONTWAIT|unix.MSG_TRUNC)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return lost, nil
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOBUFS) || n > len(c.buf):
			lost = true
			continue
		case err != nil:
			return lost, fmt.Errorf("read events: %w", err)
		}
		if sa, ok := from.(*unix.SockaddrNetlink); ok && sa.Pid == 0 {
			each(c.buf[:n])
		}
	}
}
