package probe

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

// The wire, all of it: a nonce goes there; the nonce, the endpoint's index
// (big endian) and the address that it saw (16 bytes, IPv4 mapped) come back.
const (
	nonceSize  = 16
	answerSize = nonceSize + 4 + 16
)

// maxConns bounds the connections that one listener serves at a time, whoever makes them.
const maxConns = 1024

// acceptPause keeps a listener that cannot accept from spinning.
const acceptPause = 5 * time.Millisecond

var (
	errAnswer = errors.New("not the answer to what was sent")
	errSocket = errors.New("open socket in the source's namespace")
)

// answer is what a target says of a flow.
type answer struct {
	server int        // index of the endpoint
	seen   netip.Addr // source address of the flow
	rtt    time.Duration
}

// servers are the listeners of one Run.
type servers struct {
	refused   map[int]error // why an endpoint could not listen
	listeners []net.Listener
	wg        sync.WaitGroup
}

// listen opens a listener at each target of pairs.
func listen(endpoints []Endpoint, pairs []Pair, o Options) *servers {
	s := &servers{refused: map[int]error{}}
	for _, p := range pairs {
		if _, done := s.refused[p.To]; done {
			continue
		}
		e := endpoints[p.To]
		var l net.Listener
		err := netns.Do(e.NetNS, func() (err error) {
			var lc net.ListenConfig
			lc.SetMultipathTCP(false) // Go's default; the SYN of a plain client is what is tested
			l, err = lc.Listen(context.Background(), "tcp", netip.AddrPortFrom(e.Addr, o.Port).String())
			return err
		})
		s.refused[p.To] = err
		if err == nil {
			s.listeners = append(s.listeners, l)
			s.wg.Go(func() { s.serve(l, p.To, o.Timeout) })
		}
	}
	return s
}

func (s *servers) close() {
	for _, l := range s.listeners {
		l.Close()
	}
	s.wg.Wait()
}

func (s *servers) serve(l net.Listener, index int, timeout time.Duration) {
	slots := make(chan struct{}, maxConns)
	for {
		slots <- struct{}{}
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // one that was reset while it waited, or no file left
			<-slots
			time.Sleep(acceptPause)
			continue
		}
		s.wg.Go(func() {
			defer func() { <-slots }()
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(timeout))
			// The client closes first, and so the port that has to wait out TIME-WAIT
			// is one of its many and not the listener's.
			for reply(conn, index, nonceSize) {
			}
		})
	}
}

// reply answers one message of that size, and says whether there may be another.
// A failure is the client's to notice.
func reply(conn net.Conn, index, size int) bool {
	message := make([]byte, size)
	if _, err := io.ReadFull(conn, message); err != nil {
		return false
	}
	seen := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr()
	_, err := conn.Write(answerTo(message[:nonceSize], uint32(index), seen))
	return err == nil
}

func answerTo(nonce []byte, index uint32, seen netip.Addr) []byte {
	wide := seen.As16()
	a := binary.BigEndian.AppendUint32(bytes.Clone(nonce), index)
	return append(a, wide[:]...)
}

// ask connects from an endpoint's namespace and asks the one that listens at to.
func ask(ctx context.Context, from Endpoint, to netip.AddrPort, timeout time.Duration) (answer, error) {
	var conn *os.File
	err := netns.Do(from.NetNS, func() (err error) { conn, err = socket(to.Addr()); return err })
	if err != nil {
		return answer{}, fmt.Errorf("%w: %w", errSocket, err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return answer{}, err
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := connect(conn, to); err != nil {
		return answer{}, err
	}
	var nonce [nonceSize]byte
	rand.Read(nonce[:]) // never fails
	if _, err := conn.Write(nonce[:]); err != nil {
		return answer{}, fmt.Errorf("send: %w", cause(err, "connected, and then nothing was taken"))
	}
	var buf [answerSize]byte
	if _, err := io.ReadFull(conn, buf[:]); err != nil {
		return answer{}, fmt.Errorf("receive: %w", cause(err, "connected, and then no answer came"))
	}
	a, err := parseAnswer(buf[:], nonce)
	if err != nil {
		return answer{}, err
	}
	a.rtt, err = rtt(conn)
	return a, err
}

// parseAnswer reads what came back, from whoever did answer.
func parseAnswer(b []byte, nonce [nonceSize]byte) (answer, error) {
	if len(b) != answerSize || !bytes.Equal(b[:nonceSize], nonce[:]) {
		return answer{}, fmt.Errorf("%w: %d bytes", errAnswer, len(b))
	}
	return answer{
		server: int(binary.BigEndian.Uint32(b[nonceSize:])),
		seen:   netip.AddrFrom16([16]byte(b[nonceSize+4:])).Unmap(),
	}, nil
}

// socket makes a TCP socket in the calling thread's namespace. The file waits
// in the netpoller, because it is non-blocking.
func socket(family netip.Addr) (*os.File, error) {
	domain := unix.AF_INET6
	if family.Is4() {
		domain = unix.AF_INET
	}
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return nil, fmt.Errorf("make socket: %w", err)
	}
	return os.NewFile(uintptr(fd), "tcp"), nil
}

// connect waits for a connection, bounded by the deadline of conn.
func connect(conn *os.File, to netip.AddrPort) error {
	var sa unix.Sockaddr = &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	if to.Addr().Is4() {
		sa = &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	started := false
	err = raw.Write(func(fd uintptr) (done bool) {
		if !started {
			started = true
			result = unix.Connect(int(fd), sa)
			return result != unix.EINPROGRESS && result != unix.EINTR
		}
		// Woken, perhaps by what became of the socket before it was connecting:
		// it is connected when it has a peer, and failed when it has an error.
		if n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR); err != nil {
			result = err
			return true
		} else if n != 0 {
			result = unix.Errno(n)
			return true
		}
		_, result = unix.Getpeername(int(fd))
		return result != unix.ENOTCONN
	})
	if err == nil {
		err = result
	}
	if err != nil {
		return fmt.Errorf("connect: %w", cause(err, "no answer to the SYN"))
	}
	return nil
}

// cause says what did not happen in time, where that is the error.
func cause(err error, late string) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("%w: %s", os.ErrDeadlineExceeded, late)
	}
	// "write tcp: ..." names a file that nobody knows.
	if e, ok := errors.AsType[*os.PathError](err); ok {
		return e.Err
	}
	return err
}

// rtt is the kernel's own estimate of the round trip, which no scheduling of
// this process is part of (tcp(7), TCP_INFO).
func rtt(conn *os.File) (time.Duration, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var d time.Duration
	var result error
	err = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			result = fmt.Errorf("read TCP_INFO: %w", err)
			return
		}
		d = time.Duration(info.Rtt) * time.Microsecond
	})
	return d, errors.Join(err, result)
}

// kindOf sorts the error of ask.
func kindOf(err error) Kind {
	switch {
	case errors.Is(err, errSocket): // before the network had a say
		return Failed
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		return Timeout
	case errors.Is(err, syscall.ECONNREFUSED):
		return Refused
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH),
		errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM), errors.Is(err, syscall.ENOPROTOOPT):
		// EACCES and EPERM: a prohibit route, or a netfilter drop on the way out.
		return Unreachable
	case errors.Is(err, errAnswer), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return WrongAnswer
	}
	return Failed
}
