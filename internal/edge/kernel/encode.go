package kernel

import (
	"encoding/binary"
	"iter"

	"golang.org/x/sys/unix"
)

// message is one netlink message in the making: header, fixed part, attributes.
// Numbers are in host byte order, except where a name says otherwise.
type message struct{ b []byte }

// newMessage starts a request whose fixed part has size zero bytes.
func newMessage(kind, flags, size int) *message {
	m := &message{b: make([]byte, unix.NLMSG_HDRLEN+size, 160)}
	binary.NativeEndian.PutUint16(m.b[4:], uint16(kind))
	binary.NativeEndian.PutUint16(m.b[6:], uint16(flags|unix.NLM_F_REQUEST))
	return m
}

// fixed is the part between header and attributes, and those behind it.
func (m *message) fixed() []byte { return m.b[unix.NLMSG_HDRLEN:] }

func (m *message) attr(kind int, value []byte) {
	m.b = binary.NativeEndian.AppendUint16(m.b, uint16(unix.SizeofNlAttr+len(value)))
	m.b = binary.NativeEndian.AppendUint16(m.b, uint16(kind))
	m.b = append(m.b, value...)
	for len(m.b)%unix.NLA_ALIGNTO != 0 {
		m.b = append(m.b, 0)
	}
}

func (m *message) u8(kind int, v uint8) { m.attr(kind, []byte{v}) }
func (m *message) u32(kind int, v uint32) {
	m.attr(kind, binary.NativeEndian.AppendUint32(nil, v))
}
func (m *message) be32(kind int, v uint32) { m.attr(kind, binary.BigEndian.AppendUint32(nil, v)) }

// text is a string with the zero byte that ends it.
func (m *message) text(kind int, s string) { m.attr(kind, append([]byte(s), 0)) }

// nest is an attribute that holds what fill adds.
func (m *message) nest(kind int, fill func()) {
	at := len(m.b)
	m.attr(kind, nil)
	fill()
	binary.NativeEndian.PutUint16(m.b[at:], uint16(len(m.b)-at))
}

// nested is nest with the flag that nftables wants to see.
func (m *message) nested(kind int, fill func()) { m.nest(kind|unix.NLA_F_NESTED, fill) }

func (m *message) isDump() bool {
	return binary.NativeEndian.Uint16(m.b[6:])&unix.NLM_F_DUMP == unix.NLM_F_DUMP
}

// numbered is the finished message; more flags come with the number.
func (m *message) numbered(seq uint32, flags int) []byte {
	binary.NativeEndian.PutUint32(m.b, uint32(len(m.b)))
	old := binary.NativeEndian.Uint16(m.b[6:])
	binary.NativeEndian.PutUint16(m.b[6:], old|uint16(flags))
	binary.NativeEndian.PutUint32(m.b[8:], seq)
	return m.b
}

// header is struct nlmsghdr without its length.
type header struct {
	kind, flags uint16
	seq, port   uint32 // port: the socket whose request this answers or tells of; 0: the kernel itself
}

// messages walks through one datagram. It ends at what is not a message.
func messages(b []byte) iter.Seq2[header, []byte] {
	return func(yield func(header, []byte) bool) {
		for len(b) >= unix.NLMSG_HDRLEN {
			length := int(binary.NativeEndian.Uint32(b))
			if length < unix.NLMSG_HDRLEN || length > len(b) {
				return
			}
			h := header{
				kind: binary.NativeEndian.Uint16(b[4:]), flags: binary.NativeEndian.Uint16(b[6:]),
				seq: binary.NativeEndian.Uint32(b[8:]), port: binary.NativeEndian.Uint32(b[12:]),
			}
			if !yield(h, b[unix.NLMSG_HDRLEN:length]) {
				return
			}
			b = b[min(len(b), align(length)):]
		}
	}
}

// attributes walks through attributes, without the flag bits of their kind. It
// ends at what is not an attribute.
func attributes(b []byte) iter.Seq2[int, []byte] {
	return func(yield func(int, []byte) bool) {
		for len(b) >= unix.SizeofNlAttr {
			length := int(binary.NativeEndian.Uint16(b))
			if length < unix.SizeofNlAttr || length > len(b) {
				return
			}
			kind := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
			if !yield(int(kind), b[unix.SizeofNlAttr:length]) {
				return
			}
			b = b[min(len(b), align(length)):]
		}
	}
}

// behind walks through the attributes behind a fixed part of that size.
func behind(body []byte, size int) iter.Seq2[int, []byte] {
	return attributes(body[min(len(body), size):])
}

// align rounds up to four bytes: NLMSG_ALIGNTO and NLA_ALIGNTO.
func align(n int) int { return (n + 3) &^ 3 }

// u32 and be32 are 0 for what is too short.
func u32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(b)
}

func be32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

// text is a string up to the zero byte that ends it.
func text(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}
