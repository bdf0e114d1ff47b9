package iproute

var linkWords = []string{"dev", "up", "down", "mtu", "address", "name"}

func parseLink(w *words, r *Request) error {
	if err := verbOf(w, r, Add, Set, Delete); err != nil {
		return err
	}
	switch r.Verb {
	case Add:
		return parseNewLink(w, r)
	case Delete:
		return parseGoneLink(w, r)
	case Show:
		return w.each([]string{"dev", "up"}, func(key string) (err error) {
			if key == "up" {
				r.Filter.Up = true
				return nil
			}
			r.Filter.Device, err = w.device(key)
			return err
		}, func(string) (bool, error) { return w.bareDevice(&r.Filter.Device) })
	}
	l := &r.Link
	err := w.each(linkWords, func(key string) (err error) {
		switch key {
		case "dev":
			l.Device, err = w.device(key)
		case "up", "down":
			if l.Up != nil {
				return w.fail("up or down, not both")
			}
			l.Up = new(key == "up")
		case "mtu":
			var n uint32
			n, err = w.number(key, 32)
			l.MTU = &n
		case "address":
			l.Address, err = w.mac(key)
		case "name":
			l.Name, err = w.device(key)
		}
		return err
	}, func(string) (bool, error) { return w.bareDevice(&l.Device) })
	switch {
	case err != nil:
		return err
	case l.Device == "":
		return w.missing("want a device")
	case l.Up == nil && l.MTU == nil && l.Address == nil && l.Name == "":
		return w.missing("want what to set: up, down, mtu N, address MAC or name NAME")
	}
	return nil
}

var (
	newLinkWords = []string{"name", "mtu", "address", "type"}
	peerWords    = []string{"name", "netns"}
)

// parseNewLink reads a new pair of devices. What follows peer is the other end's.
func parseNewLink(w *words, r *Request) error {
	l := &r.Link
	err := w.each(newLinkWords, func(key string) (err error) {
		switch key {
		case "name":
			l.Device, err = w.device(key)
		case "mtu":
			var n uint32
			n, err = w.number(key, 32)
			l.MTU = &n
		case "address":
			l.Address, err = w.mac(key)
		case "type":
			l.Peer, err = w.pair(key)
		}
		return err
	}, func(string) (bool, error) { return w.bareDevice(&l.Device) })
	switch {
	case err != nil:
		return err
	case l.Device == "":
		return w.missing("want the new device's name")
	case l.Peer.Device == "":
		return w.missing("want type veth peer name NAME")
	}
	return nil
}

// pair reads what is behind type, to the end of the line.
func (w *words) pair(key string) (Peer, error) {
	var p Peer
	kind, err := w.value(key)
	if err != nil {
		return p, err
	}
	if kind != "veth" {
		return p, w.fail("type %q: only veth can be added here", kind)
	}
	word, err := w.value("veth")
	if err != nil {
		return p, err
	}
	if word != "peer" {
		return p, w.fail("unknown word %q; known here: peer", word)
	}
	w.seen = nil // the peer has words of its own
	err = w.each(peerWords, func(key string) (err error) {
		if key == "name" {
			p.Device, err = w.device(key)
		} else {
			p.NetNS, err = w.value(key)
		}
		return err
	}, func(string) (bool, error) { return w.bareDevice(&p.Device) })
	return p, err
}

func parseGoneLink(w *words, r *Request) error {
	l := &r.Link
	err := w.each([]string{"dev"}, func(key string) (err error) {
		l.Device, err = w.device(key)
		return err
	}, func(string) (bool, error) { return w.bareDevice(&l.Device) })
	if err == nil && l.Device == "" {
		return w.missing("want a device")
	}
	return err
}
