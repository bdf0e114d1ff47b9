package probe

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

// target is who answers a Talk. One without a socket answers nothing.
type target struct {
	talk Talk
	key  [keySize]byte
	id   uint32 // tells its answers from those of other listeners

	listener net.Listener // of TCP
	packets  *net.UDPConn
	echoes   *os.File // sees the echoes that the kernel answers

	wg    sync.WaitGroup
	mu    sync.Mutex
	conns map[*net.TCPConn]bool // nil once closed
	seen  netip.Addr
}

// serve makes the target of a Talk.
func (t Talk) serve(key [keySize]byte) (*target, error) {
	s := &target{talk: t, key: key, conns: map[*net.TCPConn]bool{}}
	var id [4]byte
	rand.Read(id[:]) // never fails
	s.id = binary.BigEndian.Uint32(id[:])
	if t.Target == nil {
		return s, nil
	}
	err := netns.Do(t.Target, func() error { return s.listen(t.Bind) })
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		// The instance's kernel does not have the address. What becomes of the
		// packets then is what is asked.
		err = netns.Do(t.Target, func() error { return s.listen(netip.Addr{}) })
	}
	if err != nil {
		return nil, err
	}
	switch {
	case s.listener != nil:
		s.wg.Go(s.accept)
	case s.packets != nil:
		s.wg.Go(s.answer)
	}
	return s, nil
}

// listen opens the socket in the calling thread's namespace.
func (s *target) listen(bind netip.Addr) error {
	if !bind.IsValid() {
		bind = netip.IPv4Unspecified()
	}
	at := netip.AddrPortFrom(bind, s.talk.To.Port()).String()
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	switch s.talk.Proto {
	case TCP:
		l, err := lc.Listen(context.Background(), "tcp4", at)
		s.listener = l
		return err
	case UDP:
		lc.Control = func(_, _ string, c syscall.RawConn) error {
			var result error
			err := c.Control(func(fd uintptr) { result = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1) })
			return errors.Join(err, result)
		}
		c, err := lc.ListenPacket(context.Background(), "udp4", at)
		if err != nil {
			return err
		}
		s.packets = c.(*net.UDPConn)
		return nil
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if err != nil {
		return fmt.Errorf("make socket for icmp: %w", err)
	}
	s.echoes = os.NewFile(uintptr(fd), "icmp")
	return nil
}

// accept serves the connections of a TCP talk.
func (s *target) accept() {
	for {
		conn, err := s.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(acceptPause)
			continue
		}
		c := conn.(*net.TCPConn)
		s.mu.Lock()
		if s.conns == nil || len(s.conns) >= maxConns {
			s.mu.Unlock()
			c.Close()
			continue
		}
		s.conns[c] = true
		s.seen = c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
		s.mu.Unlock()
		s.wg.Go(func() {
			for reply(c, int(s.id), s.talk.Size) {
			}
			s.mu.Lock()
			delete(s.conns, c)
			s.mu.Unlock()
			c.Close()
		})
	}
}

// answer answers the datagrams of a UDP talk, from the address that they were
// sent to: a host may have several.
func (s *target) answer() {
	buf, oob := make([]byte, 1<<16), make([]byte, 256)
	for {
		n, oobn, _, from, err := s.packets.ReadMsgUDPAddrPort(buf, oob)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // an ICMP error for an answer
			continue
		}
		if n < nonceSize || !bytes.Equal(buf[:keySize], s.key[:]) {
			continue
		}
		seen := from.Addr().Unmap()
		s.mu.Lock()
		s.seen = seen
		s.mu.Unlock()
		out := answerTo(buf[:nonceSize], s.id, seen)
		var info []byte
		if to, ok := destination(oob[:oobn]); ok {
			info = unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: to.As4()})
		}
		_, _, _ = s.packets.WriteMsgUDPAddrPort(out, info, netip.AddrPortFrom(seen, from.Port())) // its loss is the client's to notice
	}
}

// destination is where a datagram was sent to (ip(7), IP_PKTINFO).
func destination(oob []byte) (netip.Addr, bool) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return netip.Addr{}, false
	}
	for _, m := range messages {
		if m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo {
			return netip.AddrFrom4([4]byte(m.Data[8:12])), true
		}
	}
	return netip.Addr{}, false
}

// seenAs is the source of what arrived, zero if nothing did. It is to be asked
// before close where the talk is by ICMP.
func (s *target) seenAs() netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen
}

// readEchoes looks through the echoes that arrived.
func (s *target) readEchoes() {
	buf := make([]byte, 1<<16)
	_ = control(s.echoes, func(fd int) error {
		for {
			n, err := unix.Read(fd, buf)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				return err
			}
			if from, _, payload, ok := echoAt(buf[:n], 8); ok && bytes.HasPrefix(payload, s.key[:]) {
				s.seen = from
			}
		}
	})
}

// close ends the target. With grace it waits for connections to be ended by the
// client, which has done so; what is left is reset, and so is silent.
func (s *target) close(grace bool) {
	if s.echoes != nil {
		s.mu.Lock()
		s.readEchoes()
		s.mu.Unlock()
		s.echoes.Close()
	}
	if s.packets != nil {
		s.packets.Close()
	}
	if s.listener != nil {
		s.listener.Close()
	}
	done := make(chan struct{})
	go func() { s.wg.Wait(); close(done) }()
	if grace {
		select {
		case <-done:
			return
		case <-time.After(s.talk.Timeout):
		}
	}
	s.mu.Lock()
	for c := range s.conns {
		c.SetLinger(0)
		c.Close()
	}
	s.conns = nil
	s.mu.Unlock()
	<-done
}
