package path

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// internetHost is who answers on the internet where the probe names nobody: of
// the addresses for documentation (RFC 5737).
var internetHost = netip.AddrFrom4([4]byte{203, 0, 113, 80})

// target is whom a probe asks: an address, and who of the world is meant by it,
// which may be nobody.
type target struct {
	addr    netip.Addr
	who     *nsRef
	port    uint16
	service *Service // that was named, or nil
	asked   ServicePort
}

// resolve finds where the packet begins and whom it asks: one, or one of several.
func (t *Tracer) resolve(p *Probe) (from *nsRef, to []target, err error) {
	switch p.Proto {
	case TCP, UDP, ICMP:
	default:
		return nil, to, fmt.Errorf("%w: protocol %q: must be tcp, udp or icmp", ErrProbe, p.Proto)
	}
	if _, _, _, service := cutService(p.From); service {
		return nil, to, fmt.Errorf("from %q: %w: a Service sends nothing", p.From, ErrProbe)
	}
	if from, _, err = t.end(p.From); err != nil {
		return nil, to, fmt.Errorf("from %q: %w", p.From, err)
	}
	stranger := from.internet && from.public.IsPrivate()
	if site, name, port, service := cutService(p.To); service {
		if port == "" && p.Port != 0 {
			port = strconv.Itoa(int(p.Port))
		}
		if to, err = t.askService(site, name, port, p.Proto); err != nil {
			return nil, to, fmt.Errorf("to %q: %w", p.To, err)
		}
		if p.Port != 0 && p.Port != to[0].asked.Port {
			return nil, to, fmt.Errorf("to %q: %w: port %d is asked for too", p.To, ErrProbe, p.Port)
		}
		if stranger {
			return nil, to, fmt.Errorf("from %q: %w: nobody of this world has the address", p.From, ErrProbe)
		}
		return from, to, nil
	}
	one, err := t.ask(p)
	if err != nil {
		return nil, to, fmt.Errorf("to %q: %w", p.To, err)
	}
	if stranger {
		if from.hidden = t.hidden(from.public, one.addr); from.hidden == nil {
			return nil, to, fmt.Errorf("from %q: %w: nobody of this world has the address", p.From, ErrProbe)
		}
	} else if from.internet {
		one.addr = t.public(one.addr)
	}
	return from, []target{one}, nil
}

// hidden is how a packet comes from an address that nobody of the world has: by the
// peering or transit gateway to which the receiver's subnet routes it, if nobody knows
// the VPC behind; else nil.
func (t *Tracer) hidden(src, dst netip.Addr) *hiddenSide {
	for i := range t.w.VPCs {
		if t.w.VPCs[i].has(src) && t.w.VPCs[i].ENIs.Known {
			return nil
		}
	}
	for i := range t.w.VPCs {
		v := &t.w.VPCs[i]
		e := v.owner(dst)
		if e == nil {
			continue
		}
		r, _, _ := v.route(e.Subnet, src)
		if r == nil {
			continue
		}
		switch kind, _, _ := strings.Cut(r.Target, "-"); kind {
		case "pcx":
			return &hiddenSide{v, Where{"", KindPeering, r.Target}}
		case "tgw":
			return &hiddenSide{v, Where{"", KindTransit, r.Target}}
		}
	}
	return nil
}

// hiddenSide is where packets of somebody come in of whose side nothing is known.
type hiddenSide struct {
	into *VPC
	by   Where
}

// ask is whom a probe asks that names no Service.
func (t *Tracer) ask(p *Probe) (target, error) {
	name, port := p.To, p.Port
	if host, n, ok := cutPort(name); ok {
		if port != 0 && port != n {
			return target{}, fmt.Errorf("%w: port %d is asked for too", ErrProbe, port)
		}
		name, port = host, n
	} else if i := strings.LastIndexByte(name, ':'); i >= 0 && strings.Trim(name[i+1:], "0123456789") == "" && !isIPv6(name) {
		return target{}, fmt.Errorf("%w: port %q must be from 1 to 65535", ErrProbe, name[i+1:])
	}
	ref, addr, err := t.end(name)
	if err != nil {
		return target{}, err
	}
	if port == 0 && p.Proto != ICMP {
		port = t.defaultPort(ref, addr, p.Proto)
	}
	return target{addr: addr, who: ref, port: port}, nil
}

// defaultPort is the one that the destination listens on, or 80.
func (t *Tracer) defaultPort(ref *nsRef, addr netip.Addr, proto Proto) uint16 {
	for _, s := range t.w.Services.Value {
		if p, err := s.port("", proto); s.Addr == addr && err == nil {
			return p.Port
		}
	}
	if ref != nil && ref.ns != nil {
		for _, s := range ref.ns.Sockets.Value {
			if s.Proto == proto {
				return s.Port
			}
		}
	}
	return 80
}

// public is the address by which the internet knows a private one; without one
// the packet is sent to the private address, and does not get far.
func (t *Tracer) public(a netip.Addr) netip.Addr {
	for i := range t.w.VPCs {
		if e := t.w.VPCs[i].owner(a); e != nil && e.Public[a].IsValid() {
			return e.Public[a]
		}
	}
	return a
}

func isIPv6(s string) bool {
	a, err := netip.ParseAddr(strings.Trim(s, "[]"))
	return err == nil && a.Is6()
}

func cutPort(s string) (host string, port uint16, ok bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 || isIPv6(s) {
		return s, 0, false
	}
	n, err := strconv.ParseUint(s[i+1:], 10, 16)
	if err != nil || n == 0 {
		return s, 0, false
	}
	return s[:i], uint16(n), true
}

// end finds what a name means, which is not a Service's.
func (t *Tracer) end(name string) (*nsRef, netip.Addr, error) {
	none := netip.Addr{}
	if name == "internet" {
		return &nsRef{internet: true, public: internetHost, where: Where{"", KindInternet, "internet"}}, internetHost, nil
	}
	if isIPv6(name) {
		return nil, none, fmt.Errorf("%w: %s is not IPv4", ErrProbe, name)
	}
	site, rest, hasSite := strings.Cut(name, ":")
	if !hasSite || site == "node" {
		site, rest = "", name
	}
	if strings.HasPrefix(rest, "node:") {
		return t.named(site, rest)
	}
	if strings.HasPrefix(rest, "eni-") {
		return t.byENI(rest)
	}
	if a, err := netip.ParseAddr(rest); err == nil && a.Is4() {
		return t.byAddr(site, a)
	}
	return t.named(site, rest)
}

func inSite(r *nsRef, site string) bool { return site == "" || r.where.Site == site }

// named finds a pod or a node by its name.
func (t *Tracer) named(site, name string) (*nsRef, netip.Addr, error) {
	var hit *nsRef
	for _, r := range t.names[name] {
		if !inSite(r, site) {
			continue
		}
		if hit != nil {
			return nil, netip.Addr{}, fmt.Errorf("%w: %s is both %s on %s and %s on %s; say more of the name, or put the cluster and a colon before it",
				ErrProbe, name, hit.where, hit.node.Name, r.where, r.node.Name)
		}
		hit = r
	}
	if hit == nil {
		return t.listed(site, name)
	}
	if !hit.addr().IsValid() {
		return nil, netip.Addr{}, fmt.Errorf("%w: %s", ErrProbe, hit.ns.Devices.unknown("an address of "+hit.where.String()))
	}
	return hit, hit.addr(), nil
}

// listed finds a pod whose namespace nobody has read, by what the API server lists.
func (t *Tracer) listed(site, name string) (*nsRef, netip.Addr, error) {
	var hit *ListedPod
	for i := range t.w.Pods.Value {
		p := &t.w.Pods.Value[i]
		if p.Name != name && p.ID() != name || site != "" && p.Cluster != "" && p.Cluster != site {
			continue
		}
		if hit != nil {
			return nil, netip.Addr{}, fmt.Errorf("%w: %s is a pod on %s and one on %s; say more of the name, or put the cluster and a colon before it",
				ErrProbe, name, hit.Node, p.Node)
		}
		hit = p
	}
	if hit != nil {
		return t.byAddr("", hit.Addr)
	}
	why := "the world has no pod, node or address of that name"
	if s, err := t.service(site, name); err == nil {
		why += "; its Service is svc/" + s.ID()
	}
	if site != "" && !t.knows(site) {
		why = "the world has no cluster or VPC " + site
	}
	return nil, netip.Addr{}, fmt.Errorf("%w: %s", ErrProbe, why)
}

// knows reports whether anything is of a cluster or VPC of that name.
func (t *Tracer) knows(site string) bool {
	for _, r := range t.refs {
		if r.where.Site == site {
			return true
		}
	}
	return slices.ContainsFunc(t.w.VPCs, func(v VPC) bool { return v.Name == site }) ||
		slices.ContainsFunc(t.w.Pods.Value, func(p ListedPod) bool { return p.Cluster == site })
}

// addr is the namespace's own address: a pod's, or a node's first.
func (r *nsRef) addr() netip.Addr {
	if r.pod != nil {
		return r.pod.Addr
	}
	for _, d := range r.ns.Devices.Value {
		if d.Kind == "eni" && len(d.Addresses) > 0 {
			return d.Addresses[0].Addr()
		}
	}
	return netip.Addr{}
}

func (t *Tracer) byENI(id string) (*nsRef, netip.Addr, error) {
	e, v := t.w.eni(id)
	if e == nil {
		return nil, netip.Addr{}, fmt.Errorf("%w: the world has no such ENI", ErrProbe)
	}
	if d, ok := t.enis[id]; ok {
		return d.at, e.Addresses[0], nil
	}
	return t.ghostOf(e, v), e.Addresses[0], nil
}

func (t *Tracer) byAddr(site string, a netip.Addr) (*nsRef, netip.Addr, error) {
	var hit *nsRef
	for _, r := range t.addrs[a] {
		if !inSite(r, site) {
			continue
		}
		if hit != nil {
			return nil, a, fmt.Errorf("%w: %s is both %s and %s; put the cluster and a colon before it", ErrProbe, a, hit.where, r.where)
		}
		hit = r
	}
	if hit != nil {
		return hit, a, nil
	}
	for i := range t.w.VPCs {
		v := &t.w.VPCs[i]
		if e := v.owner(a); e != nil && (site == "" || v.Name == site) {
			return t.ghostOf(e, v), a, nil
		}
	}
	// Somebody that the world does not know: on the internet, or nowhere.
	return &nsRef{internet: true, public: a, where: Where{"", KindInternet, a.String()}}, a, nil
}
