package iproute

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// errInterrupted says that what was listed changed meanwhile (NLM_F_DUMP_INTR,
// linux/netlink.h): some of it may be missing, or there twice.
var errInterrupted = errors.New("what is listed changed meanwhile")

// tries is how often a list is read that changes meanwhile.
const tries = 5

// Do carries a request out in an open network namespace and gives what it asks
// for; nothing, where it changes something. The error of a refusal has the
// kernel's errno (unix.EEXIST and so on), and its own words where it has any.
func Do(ns *os.File, r Request) (Answer, error) {
	c, err := open(ns)
	if err != nil {
		return Answer{}, err
	}
	defer c.socket.Close()
	a, err := c.links()
	if err != nil {
		return Answer{}, err
	}
	switch r.Verb {
	case Show:
		return c.show(r, a)
	case Get:
		m, err := encodeLookup(r.Lookup, a.all)
		if err != nil {
			return Answer{}, err
		}
		a.Routes, err = list(c, m, unix.RTM_NEWROUTE, routeDecoder(a.all))
		return a, err
	}
	m, err := encode(r, a.all)
	if err != nil {
		return Answer{}, err
	}
	_, err = c.ask(m)
	runtime.KeepAlive(r.Link.Peer.In) // its number is in the message
	return Answer{}, err
}

// conn is a netlink socket in a namespace. It stays there, whichever thread uses
// it (network_namespaces(7)).
type conn struct {
	socket *nl.NetlinkSocket
	port   uint32
	last   uint32 // sequence number
}

func open(ns *os.File) (*conn, error) {
	s, err := nl.GetNetlinkSocketAt(netns.NsHandle(ns.Fd()), netns.None(), unix.NETLINK_ROUTE)
	runtime.KeepAlive(ns)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket in %s: %w", ns.Name(), err)
	}
	c := &conn{socket: s}
	err = s.SetReceiveTimeout(&unix.Timeval{Sec: 10})
	if err == nil {
		err = s.SetExtAck(true)
	}
	if err == nil {
		err = unix.SetsockoptInt(s.GetFd(), unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	}
	if err == nil {
		c.port, err = s.GetPid()
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("set up netlink socket: %w", err)
	}
	return c, nil
}

// ask sends a message and gives the bodies of what is answered.
//
// The library's own reader is not used: it takes the end of a list that failed
// for an error message, which is made otherwise.
func (c *conn) ask(m message) ([]syscall.NetlinkMessage, error) {
	c.last++
	err := c.socket.Send(&nl.NetlinkRequest{
		NlMsghdr: unix.NlMsghdr{Len: unix.SizeofNlMsghdr, Type: m.kind, Flags: unix.NLM_F_REQUEST | m.flags, Seq: c.last},
		RawData:  m.body,
	})
	if err != nil {
		return nil, fmt.Errorf("send to the kernel: %w", err)
	}
	var out []syscall.NetlinkMessage
	var interrupted error
	for {
		messages, from, err := c.socket.Receive()
		if err != nil {
			return nil, fmt.Errorf("read the kernel's answer: %w", err)
		}
		for _, got := range messages {
			if from.Pid != nl.PidKernel || got.Header.Seq != c.last || got.Header.Pid != c.port {
				continue
			}
			if got.Header.Flags&unix.NLM_F_DUMP_INTR != 0 {
				interrupted = errInterrupted
			}
			switch got.Header.Type {
			case unix.NLMSG_ERROR, unix.NLMSG_DONE:
				return out, errors.Join(refusal(got), interrupted)
			}
			out = append(out, got)
			if got.Header.Flags&unix.NLM_F_MULTI == 0 {
				return out, nil
			}
		}
	}
}

// refusal reads the end of an answer: an errno, 0 for none, and attributes of
// which one has the kernel's words (linux/netlink.h, NLMSGERR_ATTR_*). In an
// error, but not at the end of a list, the request stands between the two.
func refusal(m syscall.NetlinkMessage) error {
	if len(m.Data) < 4 {
		return nil
	}
	errno := -int32(value(m.Data).u32())
	if errno == 0 {
		return nil
	}
	rest := m.Data[4:]
	if m.Header.Type == unix.NLMSG_ERROR {
		size := unix.SizeofNlMsghdr
		if m.Header.Flags&unix.NLM_F_CAPPED == 0 {
			size = max(size, int(value(rest).u32()+3)&^3)
		}
		rest = rest[min(size, len(rest)):]
	}
	var words string
	if m.Header.Flags&unix.NLM_F_ACK_TLVS != 0 {
		attributes(rest, func(kind uint16, v value) {
			if kind == nl.NLMSGERR_ATTR_MSG {
				words = strings.TrimSuffix(v.text(), ".")
			}
		})
	}
	if words != "" {
		return fmt.Errorf("%w: %s", syscall.Errno(errno), words)
	}
	return syscall.Errno(errno)
}

// list reads all objects of a kind, again if they change meanwhile.
func list[T any](c *conn, m message, kind uint16, decode func([]byte) (T, error)) ([]T, error) {
	for left := tries; ; left-- {
		messages, err := c.ask(m)
		if errors.Is(err, errInterrupted) && left > 1 {
			continue
		}
		if err != nil {
			return nil, err
		}
		var out []T
		for _, got := range messages {
			if got.Header.Type != kind {
				continue
			}
			v, err := decode(got.Data)
			if err != nil {
				return nil, err
			}
			out = append(out, v)
		}
		return out, nil
	}
}

func (c *conn) links() (Answer, error) {
	all, err := list(c, dump(Links, 0, 0), unix.RTM_NEWLINK, decodeLink)
	if err != nil {
		return Answer{}, fmt.Errorf("list devices: %w", err)
	}
	return Answer{all: all}, nil
}

func routeDecoder(n names) func([]byte) (Route, error) {
	return func(b []byte) (Route, error) { return decodeRoute(b, n) }
}

// show lists the objects that the request is about and keeps those that pass
// its filter.
func (c *conn) show(r Request, a Answer) (Answer, error) {
	if d := r.Filter.Device; d != "" {
		index, err := a.all.index(d)
		if err != nil {
			return a, err
		}
		r.Filter.Device = a.all.name(index) // it may have been said by another name
	}
	var err error
	switch r.Object {
	case Rules:
		a.Rules, err = list(c, dump(Rules, orIPv4(r.Family), 0), unix.RTM_NEWRULE, decodeRule)
		a.Rules = slices.DeleteFunc(a.Rules, func(u Rule) bool { return !r.Filter.hasRule(u) })
	case Routes:
		a.Routes, err = c.routes(r, a.all)
	case Links:
		a.Links = slices.DeleteFunc(slices.Clone(a.all), func(l Link) bool { return !r.Filter.hasLink(l) })
	case Addresses:
		a.Addresses, err = list(c, dump(Addresses, r.Family, 0), unix.RTM_NEWADDR, func(b []byte) (Address, error) { return decodeAddress(b, a.all) })
		a.Links = slices.DeleteFunc(slices.Clone(a.all), func(l Link) bool {
			without := !slices.ContainsFunc(a.Addresses, func(of Address) bool { return of.Device == l.Name })
			return !r.Filter.hasLink(l) || r.Family != unix.AF_UNSPEC && without
		})
	case Neighbours:
		a.Neighbours, err = list(c, dump(Neighbours, r.Family, 0), unix.RTM_NEWNEIGH, func(b []byte) (Neighbour, error) { return decodeNeighbour(b, a.all) })
		a.Neighbours = slices.DeleteFunc(a.Neighbours, func(n Neighbour) bool { return !r.Filter.hasNeighbour(n) })
	}
	return a, err
}

// routes asks for one table, as the kernel says what is wrong with it, or for
// all of both families.
func (c *conn) routes(r Request, n names) ([]Route, error) {
	families := []uint8{orIPv4(r.Family)}
	if r.Family == unix.AF_UNSPEC && r.Filter.Table == 0 {
		families = append(families, unix.AF_INET6)
	}
	var out []Route
	for _, f := range families {
		routes, err := list(c, dump(Routes, f, r.Filter.Table), unix.RTM_NEWROUTE, routeDecoder(n))
		if err != nil {
			return nil, err
		}
		out = append(out, routes...)
	}
	return slices.DeleteFunc(out, func(t Route) bool { return !r.Filter.hasRoute(t) }), nil
}

func orIPv4(family uint8) uint8 {
	if family == unix.AF_UNSPEC {
		return unix.AF_INET
	}
	return family
}
