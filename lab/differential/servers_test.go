package differential

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/edge/tracepoint"
	"github.com/fairway-cni/fairway/lab/ec2sim"
	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

// What listens in every namespace, and what nobody does.
var (
	tcpPorts = []uint16{80, 8080}
	udpPorts = []uint16{53}
	deafTCP  = uint16(81)
	deafUDP  = uint16(54)
)

// place is a namespace in which packets begin and end.
type place struct {
	name string // as the explainer's hops have it
	from string // as the explainer is asked
	ns   *os.File
}

// arrival is a datagram that reached a place, and why it was not answered.
type arrival struct {
	at    string
	nonce string
	err   error
}

// stage is a scene in which all listens and is listened to.
type stage struct {
	*scene
	places   []place
	names    map[uint32]string // of namespaces, by inode
	fabric   map[uint32]bool   // those that are the fabric's
	drops    chan tracepoint.Drop
	arrivals chan arrival
	watch    *tracepoint.Watch
	snap     ec2sim.Snapshot
	closers  []func() error
}

func open(s *scene, watch *tracepoint.Watch) (*stage, error) {
	g := &stage{scene: s, names: map[uint32]string{}, fabric: map[uint32]bool{}, watch: watch,
		drops: make(chan tracepoint.Drop, 1024), arrivals: make(chan arrival, 64)}
	for _, h := range s.hosts {
		g.places = append(g.places, place{h.Name, "node:" + h.Name, h.NetNS})
		for _, p := range h.Pods {
			g.places = append(g.places, place{p.Name, p.Namespace + "/" + p.Name, p.NetNS})
		}
	}
	internet := s.lab.Fabric().Internet()
	if err := hurry(internet); err != nil {
		return g, err
	}
	g.places = append(g.places, place{"internet", "internet", internet})
	for _, p := range g.places {
		if err := g.hear(p.name, p.ns); err != nil {
			return g, err
		}
		if err := g.listen(p); err != nil {
			return g, fmt.Errorf("listen in %s: %w", p.name, err)
		}
	}
	for id, ns := range s.lab.Fabric().Namespaces() {
		if id == "internet" {
			continue
		}
		if err := g.hear(id, ns); err != nil {
			return g, err
		}
		inum, err := inode(ns)
		if err != nil {
			return g, err
		}
		g.fabric[inum] = true
	}
	return g, nil
}

func (g *stage) close() error {
	var errs []error
	for _, c := range g.closers {
		errs = append(errs, c())
	}
	return errors.Join(append(errs, g.scene.close())...)
}

func inode(ns *os.File) (uint32, error) {
	var st unix.Stat_t
	err := unix.Fstat(int(ns.Fd()), &st)
	return uint32(st.Ino), err
}

func (g *stage) hear(name string, ns *os.File) error {
	inum, err := inode(ns)
	if err != nil {
		return err
	}
	g.names[inum] = name
	g.closers = append(g.closers, func() error { return g.watch.Remove(ns) })
	return g.watch.Add(ns, g.drops)
}

// listen has the place answer TCP with its name, and datagrams with themselves.
func (g *stage) listen(p place) error {
	return netns.Do(p.ns, func() error {
		for _, port := range tcpPorts {
			var lc net.ListenConfig
			lc.SetMultipathTCP(false)
			l, err := lc.Listen(context.Background(), "tcp4", fmt.Sprintf("0.0.0.0:%d", port))
			if err != nil {
				return err
			}
			g.closers = append(g.closers, l.Close)
			go greet(l, p.name)
		}
		for _, port := range udpPorts {
			lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
				var result error
				err := c.Control(func(fd uintptr) { result = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1) })
				return errors.Join(err, result)
			}}
			c, err := lc.ListenPacket(context.Background(), "udp4", fmt.Sprintf("0.0.0.0:%d", port))
			if err != nil {
				return err
			}
			g.closers = append(g.closers, c.Close)
			go g.echo(c.(*net.UDPConn), p.name)
		}
		return nil
	})
}

// greet says its name to who connects, and closes when he does.
func greet(l net.Listener, name string) {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // one that was reset while it waited
		}
		go func() {
			defer c.Close()
			fmt.Fprint(c, name)
			c.Read(make([]byte, 1)) // until he closes
		}()
	}
}

// echo answers from the address that was asked.
func (g *stage) echo(c *net.UDPConn, name string) {
	buf, oob := make([]byte, 1<<16), make([]byte, 256)
	for {
		n, k, _, from, err := c.ReadMsgUDPAddrPort(buf, oob)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n < nonceSize {
			continue // an ICMP error for an answer
		}
		var info []byte
		if to, ok := askedFor(oob[:k]); ok {
			info = unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: to})
		}
		_, _, err = c.WriteMsgUDPAddrPort(buf[:nonceSize], info, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()))
		select {
		case g.arrivals <- arrival{name, string(buf[:nonceSize]), err}:
		default: // nobody asked for so many
		}
	}
}

const nonceSize = 16

func askedFor(oob []byte) (a [4]byte, ok bool) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return a, false
	}
	for _, m := range messages {
		if m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo {
			return [4]byte(m.Data[8:12]), true
		}
	}
	return a, false
}
