package hostnet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
)

// ErrNotHere says that no namespace of this node has an address.
var ErrNotHere = errors.New("no pod of this node has the address")

// Open is a namespace that is held open.
type Open struct {
	File    *os.File
	Devices map[int]string // names by index
}

// Close lets it go.
func (o *Open) Close() error { return o.File.Close() }

// OpenNode opens the namespace that the calling thread is in, and says whether it has the
// address.
func OpenNode(addr netip.Addr) (*Open, bool, error) {
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, false, fmt.Errorf("open own namespace: %w", err)
	}
	return look(f, addr)
}

// OpenPod opens the namespace that has the address and that is not the process's
// own. [ErrNotHere]: there is none.
func OpenPod(addr netip.Addr) (*Open, error) {
	all, err := here.namespaces()
	if err != nil {
		return nil, err
	}
	var found *Open
	for _, ns := range all {
		if found != nil {
			ns.file.Close()
			continue
		}
		o, has, err := look(ns.file, addr)
		switch {
		case err != nil: // it ended just now; look has closed it
		case has:
			found = o
		default:
			o.Close()
		}
	}
	if found == nil {
		return nil, fmt.Errorf("%w %s", ErrNotHere, addr)
	}
	return found, nil
}

// look lists the devices of a namespace; it closes the file where it fails.
func look(f *os.File, addr netip.Addr) (*Open, bool, error) {
	o, has := &Open{f, map[int]string{}}, false
	err := inside(f, func() error {
		links, err := net.Interfaces()
		if err != nil {
			return err
		}
		for _, l := range links {
			o.Devices[l.Index] = l.Name
		}
		all, err := net.InterfaceAddrs()
		for _, a := range all {
			p, isNet := a.(*net.IPNet)
			if !isNet {
				continue
			}
			if ip, ok := netip.AddrFromSlice(p.IP); ok && ip.Unmap() == addr {
				has = true
			}
		}
		return err
	})
	if err != nil {
		return nil, false, errors.Join(fmt.Errorf("look into namespace: %w", err), f.Close())
	}
	return o, has, nil
}
