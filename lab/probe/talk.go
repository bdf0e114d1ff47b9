package probe

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Proto is what a Talk is carried by.
type Proto string

// The protocols of a Talk. ICMP is an echo, which the target's kernel answers.
const (
	TCP  Proto = "tcp"
	UDP  Proto = "udp"
	ICMP Proto = "icmp"
)

// Further ways to end, of a Talk only.
const (
	TooBig  Kind = "too big"      // longer than an MTU on the way, and not to be fragmented
	Expired Kind = "ttl exceeded" // the TTL ended on the way
)

const (
	// MinSize is the least Talk.Size, in bytes: a nonce.
	MinSize = nonceSize
	// MaxSize is the most: what a UDP datagram over IPv4 carries (RFC 768, RFC 791).
	MaxSize = 65507
)

// Talk is one conversation to try, over IPv4: messages, each sent after the one
// before was answered or is overdue.
type Talk struct {
	Proto  Proto
	From   *os.File       // namespace of who asks
	Source netip.AddrPort // zero address, zero port: the kernel's choice; of ICMP the port is the identifier
	To     netip.AddrPort // of ICMP the port is not used

	// Target is the namespace of who is to answer, with Bind the address it
	// listens on, or any if that is zero. Without Target nobody listens, and
	// whoever answers is right.
	Target *os.File
	Bind   netip.Addr

	Size         int // of a message, in bytes behind the transport header; MinSize to MaxSize
	Count        int // of messages, from 1
	TTL          int // 0: the kernel's
	DontFragment bool
	Timeout      time.Duration // of a message
}

// Outcome is how a Talk went.
type Outcome struct {
	Kind     Kind
	Detail   string     // for a person; empty where OK
	Answered int        // messages, of Talk.Count
	Seen     netip.Addr // the source that the target saw, also if its answer was lost; zero: none, or not known
	By       netip.Addr // who sent the ICMP error, if one did
	MTU      int        // that the ICMP error told of, in bytes; 0: none
}

// String is one short phrase, the same for the same outcome.
func (o Outcome) String() string {
	switch {
	case o.Kind == TooBig && o.MTU > 0:
		return fmt.Sprintf("%s, mtu %d", o.Kind, o.MTU)
	case (o.Kind == Unreachable || o.Kind == Expired) && o.By.IsValid():
		return fmt.Sprintf("%s, says %s", o.Kind, o.By)
	}
	return string(o.Kind)
}

func (t Talk) check() error {
	switch {
	case t.From == nil:
		return errors.New("there is no namespace to ask from")
	case !t.To.Addr().Is4() || t.Source.Addr().IsValid() && !t.Source.Addr().Is4():
		return fmt.Errorf("from %s to %s: want IPv4", t.Source, t.To)
	case t.Proto != TCP && t.Proto != UDP && t.Proto != ICMP:
		return fmt.Errorf("protocol %q: want tcp, udp or icmp", t.Proto)
	case t.Proto != ICMP && t.To.Port() == 0:
		return errors.New("there is no port to talk to")
	case t.Size < MinSize || t.Size > MaxSize:
		return fmt.Errorf("size %d: must be within %d and %d", t.Size, MinSize, MaxSize)
	case t.Count < 1:
		return fmt.Errorf("count %d: must be at least 1", t.Count)
	case t.TTL < 0 || t.TTL > 255:
		return fmt.Errorf("ttl %d: must be within 1 and 255", t.TTL)
	case t.Timeout <= 0:
		return fmt.Errorf("timeout %v: must be more than 0", t.Timeout)
	}
	return nil
}

// Converse tries one conversation. That it fails is an Outcome; the error is for
// what cannot be asked. When it returns nothing of it is left but a TCP
// connection in TIME-WAIT, and not even that where the source port was given,
// so that the same flow can be had again.
func Converse(ctx context.Context, t Talk) (Outcome, error) {
	if err := t.check(); err != nil {
		return Outcome{}, fmt.Errorf("converse: %w", err)
	}
	var key [keySize]byte
	rand.Read(key[:]) // never fails
	target, err := t.serve(key)
	if err != nil {
		return Outcome{Kind: NoListener, Detail: err.Error()}, nil
	}
	o := t.ask(ctx, target, key)
	target.close(o.Kind == OK)
	if seen := target.seenAs(); seen.IsValid() {
		o.Seen = seen
	}
	if t.Proto == ICMP && t.Target != nil && o.Kind == OK && !o.Seen.IsValid() {
		o.Kind, o.Detail = WrongAnswer, "answered by another than the one that was meant"
	}
	return o, nil
}

// ask sends the messages.
func (t Talk) ask(ctx context.Context, target *target, key [keySize]byte) Outcome {
	c, err := t.dial(ctx)
	if err != nil {
		defer c.close(false)
		return c.outcome(err)
	}
	o := Outcome{Kind: OK}
	for i := range t.Count {
		err := c.message(ctx, target, key, i)
		if err == nil {
			o.Answered++
			continue
		}
		failed := c.outcome(err)
		failed.Answered = o.Answered
		o = failed
		if t.Proto == TCP || ctx.Err() != nil {
			break // the rest of a connection is lost with it
		}
	}
	// With a source port of the caller's choice no TIME-WAIT must keep it, and a
	// connection that failed must not go on retransmitting.
	c.close(o.Kind == OK && t.Source.Port() == 0)
	return o
}

// outcome sorts the error, by what ICMP told if it told anything.
func (c client) outcome(err error) Outcome {
	o := Outcome{Kind: kindOf(err), Detail: err.Error()}
	if errors.Is(err, unix.EMSGSIZE) {
		o.Kind = TooBig
	}
	if c.file == nil {
		return o
	}
	told, ok := queued(c.file)
	if !ok {
		return o
	}
	o.MTU, o.By = told.mtu, told.by
	if told.kind == icmpTimeExceeded {
		o.Kind = Expired
	}
	return o
}

const icmpTimeExceeded = 11 // RFC 792

// told is what an ICMP error, or the own kernel in its place, told a socket.
type told struct {
	by   netip.Addr // zero: the own kernel
	kind uint8      // ICMP type
	mtu  int        // where it was about one
}

// queued reads the newest of a socket's queue of errors (ip(7), IP_RECVERR).
func queued(file *os.File) (last told, ok bool) {
	raw, err := file.SyscallConn()
	if err != nil {
		return told{}, false
	}
	_ = raw.Control(func(fd uintptr) { // fails only where the file is closed
		data, oob := make([]byte, 1), make([]byte, 512)
		for {
			_, n, _, _, err := unix.Recvmsg(int(fd), data, oob, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
			if err != nil {
				return
			}
			if t, found := parseTold(oob[:n]); found {
				last, ok = t, true
			}
		}
	})
	return last, ok
}

// parseTold reads struct sock_extended_err and the address behind it (ip(7)).
func parseTold(oob []byte) (told, bool) {
	const extended, address = 16, 8
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return told{}, false
	}
	for _, m := range messages {
		d := m.Data
		if m.Header.Level != unix.IPPROTO_IP || m.Header.Type != unix.IP_RECVERR || len(d) < extended {
			continue
		}
		var t told
		errno, origin := unix.Errno(nativeUint32(d)), d[4]
		if errno == unix.EMSGSIZE {
			t.mtu = int(nativeUint32(d[8:]))
		}
		if origin == unix.SO_EE_ORIGIN_ICMP {
			t.kind = d[5]
			if len(d) >= extended+address {
				t.by = netip.AddrFrom4([4]byte(d[extended+4:]))
			}
		}
		return t, true
	}
	return told{}, false
}
