package path

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// internetHost is who answers on the internet where the probe names nobody: of
// the addresses for documentation (RFC 5737).
var internetHost = netip.AddrFrom4([4]byte{203, 0, 113, 80})

// target is whom a probe asks: an address, and who of the world is meant by it,
// which may be nobody.
type target struct {
	addr netip.Addr
	who  *nsRef
}

// resolve finds where the packet begins and whom it asks.
func (t *Tracer) resolve(p *Probe) (from *nsRef, to target, err error) {
	switch p.Proto {
	case TCP, UDP, ICMP:
	default:
		return nil, to, fmt.Errorf("%w: protocol %q: must be tcp, udp or icmp", ErrProbe, p.Proto)
	}
	if from, _, err = t.end(p.From); err != nil {
		return nil, to, fmt.Errorf("from %q: %w", p.From, err)
	}
	if from == nil {
		return nil, to, fmt.Errorf("from %q: %w: a Service sends nothing", p.From, ErrProbe)
	}
	if from.internet && from.public.IsPrivate() {
		return nil, to, fmt.Errorf("from %q: %w: nobody of this world has the address", p.From, ErrProbe)
	}
	name := p.To
	if host, port, ok := cutPort(name); ok {
		if p.Port != 0 && p.Port != port {
			return nil, to, fmt.Errorf("to %q: %w: port %d is asked for too", p.To, ErrProbe, p.Port)
		}
		name, p.Port = host, port
	}
	ref, addr, err := t.end(name)
	if err != nil {
		return nil, to, fmt.Errorf("to %q: %w", p.To, err)
	}
	if p.Port == 0 && p.Proto != ICMP {
		p.Port = t.defaultPort(ref, addr, p.Proto)
	}
	if from.internet {
		addr = t.public(addr)
	}
	return from, target{addr, ref}, nil
}

// defaultPort is the one that the destination listens on, or 80.
func (t *Tracer) defaultPort(ref *nsRef, addr netip.Addr, proto Proto) uint16 {
	for _, s := range t.w.Services.Value {
		if s.Addr == addr && len(s.Ports) > 0 {
			return s.Ports[0]
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

func cutPort(s string) (host string, port uint16, ok bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return s, 0, false
	}
	n, err := strconv.ParseUint(s[i+1:], 10, 16)
	if err != nil || n == 0 {
		return s, 0, false
	}
	return s[:i], uint16(n), true
}

// end finds what a name means. A Service has an address and no place.
func (t *Tracer) end(name string) (*nsRef, netip.Addr, error) {
	none := netip.Addr{}
	if name == "internet" {
		return &nsRef{internet: true, public: internetHost, where: Where{"", KindInternet, "internet"}}, internetHost, nil
	}
	site, rest, hasSite := strings.Cut(name, ":")
	if !hasSite || site == "node" {
		site, rest = "", name
	}
	if service, ok := strings.CutPrefix(rest, "svc/"); ok {
		return t.service(site, service)
	}
	if strings.HasPrefix(rest, "node:") {
		return t.named(site, rest)
	}
	if strings.HasPrefix(rest, "eni-") {
		return t.byENI(rest)
	}
	if a, err := netip.ParseAddr(rest); err == nil {
		if !a.Is4() {
			return nil, none, fmt.Errorf("%w: %s is not IPv4", ErrProbe, a)
		}
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
		return nil, netip.Addr{}, fmt.Errorf("%w: the world has no pod, node or address of that name", ErrProbe)
	}
	if !hit.addr().IsValid() {
		return nil, netip.Addr{}, fmt.Errorf("%w: %s", ErrProbe, hit.ns.Devices.unknown("an address of "+hit.where.String()))
	}
	return hit, hit.addr(), nil
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

func (t *Tracer) service(site, name string) (*nsRef, netip.Addr, error) {
	for _, s := range t.w.Services.Value {
		if (s.Name == name || s.Namespace+"/"+s.Name == name) && (site == "" || s.Cluster == site) {
			return nil, s.Addr, nil
		}
	}
	why := "the world has no such Service"
	if !t.w.Services.Known {
		why = t.w.Services.unknown("Services")
	}
	return nil, netip.Addr{}, fmt.Errorf("%w: %s", ErrProbe, why)
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
