package hostnet

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
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

// look lists the devices of a namespace; it closes the file where it fails. Not by
// package net, whose lists lack entries, or fail, where a device comes or goes meanwhile.
func look(f *os.File, addr netip.Addr) (*Open, bool, error) {
	o, has := &Open{f, map[int]string{}}, false
	err := inside(f, func() error {
		c, err := dial(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer c.Close()
		links, err := c.links()
		for _, l := range links {
			o.Devices[int(l.index)] = l.Name
		}
		has = hasAddr(links, addr)
		return err
	})
	if err != nil {
		return nil, false, errors.Join(fmt.Errorf("look into namespace: %w", err), f.Close())
	}
	return o, has, nil
}
