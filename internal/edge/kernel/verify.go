package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Verify compares what exists with what [Kernel.Wire] made, on both sides. The
// error names what is missing or different; [ErrNotWired] if the node's side is
// not there.
func (k *Kernel) Verify(w Wiring) error {
	index, err := k.index(w.Veth)
	if errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("%w: %s", ErrNotWired, w.Veth)
	}
	if err != nil {
		return err
	}
	pod := &conn{fd: int(w.Netlink.Fd())}
	if err := pod.prepare(); err != nil {
		return err
	}
	// Both ends have the same index, each in its namespace.
	if err := pod.verifyLink(int32(index), w.IfName); err != nil {
		return err
	}
	return pod.verifyAddress(int32(index), w.Addr)
}

func (c *conn) verifyLink(index int32, name string) error {
	r, _ := linkRequest(unix.RTM_GETLINK, 0, index, "read pod's link")
	answers, err := c.read(r)
	if err != nil {
		return err
	}
	if len(answers) == 0 {
		return fmt.Errorf("pod's link %s: no answer", name)
	}
	msg := nl.DeserializeIfInfomsg(answers[0])
	attrs, err := nl.ParseRouteAttr(answers[0][unix.SizeofIfInfomsg:])
	if err != nil {
		return fmt.Errorf("pod's link %s: %w", name, err)
	}
	for _, a := range attrs {
		if a.Attr.Type == unix.IFLA_IFNAME && string(trimZero(a.Value)) != name {
			return fmt.Errorf("pod's link is named %q, want %q", trimZero(a.Value), name)
		}
	}
	if msg.Flags&unix.IFF_UP == 0 {
		return fmt.Errorf("pod's link %s is down", name)
	}
	return nil
}

func (c *conn) verifyAddress(index int32, want netip.Addr) error {
	r := request{NetlinkRequest: nl.NewNetlinkRequest(unix.RTM_GETADDR, unix.NLM_F_DUMP), what: "read pod's addresses"}
	r.AddData(nl.NewIfAddrmsg(unix.AF_INET))
	answers, err := c.read(r)
	if err != nil {
		return err
	}
	for _, b := range answers {
		if len(b) < unix.SizeofIfAddrmsg || nl.DeserializeIfAddrmsg(b).Index != uint32(index) {
			continue
		}
		attrs, err := nl.ParseRouteAttr(b[unix.SizeofIfAddrmsg:])
		if err != nil {
			return fmt.Errorf("read pod's addresses: %w", err)
		}
		for _, a := range attrs {
			if addr, ok := netip.AddrFromSlice(a.Value); ok && a.Attr.Type == unix.IFA_LOCAL && addr == want {
				return nil
			}
		}
	}
	return fmt.Errorf("pod's interface does not have address %s", want)
}

// read sends one request and collects the payloads of its answers, up to the
// acknowledgement or the end of the dump.
func (c *conn) read(r request) ([][]byte, error) {
	r.Flags |= unix.NLM_F_REQUEST
	if r.Flags&unix.NLM_F_DUMP == 0 {
		r.Flags |= unix.NLM_F_ACK
	}
	if err := unix.Sendto(c.fd, r.Serialize(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("%s: send: %w", r.what, err)
	}
	var payloads [][]byte
	for {
		buf := make([]byte, 64*1024)
		n, _, err := unix.Recvfrom(c.fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: read answer: %w", r.what, err)
		}
		done, err := collect(buf[:n], r.Seq, &payloads)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.what, err)
		}
		if done {
			return payloads, nil
		}
	}
}

// collect takes the payloads of one datagram; done tells that it was the last.
func collect(b []byte, seq uint32, payloads *[][]byte) (done bool, err error) {
	for len(b) >= unix.NLMSG_HDRLEN {
		length := int(binary.NativeEndian.Uint32(b))
		if length < unix.NLMSG_HDRLEN || length > len(b) {
			return false, unix.EBADMSG
		}
		kind, of, body := binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint32(b[8:]), b[unix.NLMSG_HDRLEN:length]
		b = b[min(len(b), (length+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1)):]
		if of != seq {
			continue
		}
		switch kind {
		case unix.NLMSG_DONE:
			return true, nil
		case unix.NLMSG_ERROR:
			if len(body) >= 4 {
				if errno := unix.Errno(-int32(binary.NativeEndian.Uint32(body))); errno != 0 {
					return true, errno
				}
			}
			return true, nil
		}
		*payloads = append(*payloads, body)
	}
	return false, nil
}

func trimZero(b []byte) []byte {
	for len(b) > 0 && b[len(b)-1] == 0 {
		b = b[:len(b)-1]
	}
	return b
}
