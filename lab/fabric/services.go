package fabric

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

// Listener accepts TCP connections of a VPC's instances to the fabric. Sync
// closes it when its VPC or ENI leaves the topology, and Close does.
type Listener struct {
	*net.TCPListener
	set *listeners
}

// Close stops listening; accepted connections go on.
func (l *Listener) Close() error {
	l.set.forget(l)
	return l.TCPListener.Close()
}

// SetTTL changes the TTL (1..255) of what the listener and the connections that
// it accepts from now on send.
func (l *Listener) SetTTL(ttl int) error {
	raw, err := l.SyscallConn()
	if err != nil {
		return fmt.Errorf("set ttl %d: %w", ttl, err)
	}
	var sockErr error
	if err := raw.Control(func(fd uintptr) {
		sockErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TTL, ttl)
	}); err != nil {
		return fmt.Errorf("set ttl %d: %w", ttl, err)
	}
	if sockErr != nil {
		return fmt.Errorf("set ttl %d: %w", ttl, sockErr)
	}
	return nil
}

// Listen serves one of Config.Services to all instances of a VPC. Answers go to
// the owner of the address that asked. Not beside a ListenENI on the same
// address and port. The listener is a *[Listener].
func (f *Fabric) Listen(vpcID string, addr netip.AddrPort) (net.Listener, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.listen(owner{vpc: vpcID}, addr, 0)
}

// ListenENI serves one of Config.Services to what comes in by one ENI, whatever
// source address it has, and answers by that ENI, with the given TTL (1..255).
// It outlives detaching and attaching. The listener is a *[Listener].
//
// Source of the TTL: "Use the Instance Metadata Service to access instance
// metadata", Amazon EC2 User Guide (HttpPutResponseHopLimit).
func (f *Fabric) ListenENI(eniID string, addr netip.AddrPort, ttl int) (net.Listener, error) {
	if ttl < 1 || ttl > 255 {
		return nil, fmt.Errorf("listen on %s for eni %s: ttl %d is not within 1..255", addr, eniID, ttl)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	p, ok := f.ports[eniID]
	if !ok && !f.closed {
		return nil, fmt.Errorf("listen on %s for eni %s: %w", addr, eniID, ErrUnknownENI)
	}
	return f.listen(owner{vpc: p.vpc, eni: eniID}, addr, ttl)
}

// listen makes the socket inside the VPC's namespace, where it stays whoever
// uses it. The caller holds f.mu.
func (f *Fabric) listen(o owner, addr netip.AddrPort, ttl int) (net.Listener, error) {
	if f.closed {
		return nil, ErrClosed
	}
	v, ok := f.vpcs[o.vpc]
	if !ok {
		return nil, fmt.Errorf("listen on %s in vpc %s: %w", addr, o.vpc, ErrUnknownVPC)
	}
	cfg := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		ctlErr := c.Control(func(fd uintptr) {
			if o.eni == "" {
				return
			}
			// By index, not by name: the device may be away just now, and comes
			// back with the same index.
			if err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, f.ports[o.eni].index); err != nil {
				err = fmt.Errorf("bind to eni %s: %w", o.eni, err)
				return
			}
			if err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TTL, ttl); err != nil {
				err = fmt.Errorf("set ttl %d: %w", ttl, err)
			}
		})
		if ctlErr != nil {
			return ctlErr
		}
		return err
	}}
	cfg.SetMultipathTCP(false) // it does not take IP_TTL
	var made *Listener
	err := netns.Do(v.ns, func() error {
		l, err := cfg.Listen(context.Background(), "tcp4", addr.String())
		if err != nil {
			return err
		}
		made = &Listener{TCPListener: l.(*net.TCPListener), set: &f.listeners}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listen in vpc %s: %w", o.vpc, err)
	}
	f.listeners.add(made, o)
	return made, nil
}

// owner is what a listener lives and dies with; eni may be empty.
type owner struct{ vpc, eni string }

// listeners has a lock of its own, as Listener.Close may be called at any time.
type listeners struct {
	mu   sync.Mutex
	open map[*Listener]owner
}

func (s *listeners) add(l *Listener, o owner) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = map[*Listener]owner{}
	}
	s.open[l] = o
}

func (s *listeners) forget(l *Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, l)
}

func (s *listeners) closeAll() { s.closeUnless(func(owner) bool { return false }) }

func (s *listeners) closeUnless(keep func(owner) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l, o := range s.open {
		if !keep(o) {
			l.TCPListener.Close()
			delete(s.open, l)
		}
	}
}
