package path

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Service is one Service of a cluster as the API server has it. What a packet to
// it meets is not this, but what a node's proxy has made of it.
type Service struct {
	Cluster   string          `json:"cluster"` // empty: of the only one
	Namespace string          `json:"namespace"`
	Name      string          `json:"name"`
	Addr      netip.Addr      `json:"addr,omitzero"`      // the cluster IP, IPv4; none of a headless one
	External  string          `json:"external,omitempty"` // the name that one of type ExternalName stands for
	Ports     []ServicePort   `json:"ports"`
	Backends  Part[[]Backend] `json:"backends,omitzero"`
	// Partial: a node's proxy may lead to some of the backends alone, and be right:
	// to its own (internalTrafficPolicy), or to those that are hinted for its zone or
	// for itself.
	Partial bool `json:"partial,omitempty"`
}

// ServicePort is one port of a Service.
type ServicePort struct {
	Name     string `json:"name,omitempty"`
	Proto    Proto  `json:"proto"`
	Port     uint16 `json:"port"`
	NodePort uint16 `json:"nodePort,omitempty"`
}

// Backend is who answers for a port of a Service, as EndpointSlices have it.
type Backend struct {
	Addr     netip.Addr `json:"addr"`
	Port     uint16     `json:"port"`
	Proto    Proto      `json:"proto"`
	PortName string     `json:"portName,omitempty"` // that of the Service's port
	Ready    bool       `json:"ready"`
}

// ListedPod is a pod as the API server lists it: a name for an address. What its
// namespace holds is in Node.Pods, where somebody has read it.
type ListedPod struct {
	Cluster     string     `json:"cluster"`
	Namespace   string     `json:"namespace"`
	Name        string     `json:"name"`
	Addr        netip.Addr `json:"addr"`
	Node        string     `json:"node,omitempty"`
	HostNetwork bool       `json:"hostNetwork,omitempty"` // the address is its node's
}

// ID is namespace/name.
func (s *Service) ID() string { return s.Namespace + "/" + s.Name }

// ID is namespace/name.
func (p *ListedPod) ID() string { return p.Namespace + "/" + p.Name }

// port finds the one that a probe means: by name or number, or the first of its
// protocol. A number that the Service does not have is what was asked for.
func (s *Service) port(text string, proto Proto) (ServicePort, error) {
	for _, p := range s.Ports {
		if p.Proto == proto && (text == "" || p.Name == text || strconv.Itoa(int(p.Port)) == text) {
			return p, nil
		}
	}
	if n, err := strconv.ParseUint(text, 10, 16); err == nil && n > 0 {
		return ServicePort{Proto: proto, Port: uint16(n)}, nil
	}
	if text == "" && len(s.Ports) == 0 {
		return ServicePort{Proto: proto, Port: 80}, nil
	}
	return ServicePort{}, fmt.Errorf("%w: %s has no %s port%s; it has %s", ErrProbe, s.ID(), proto, prefixed(" ", text), s.portList())
}

func (s *Service) full() string { return strings.TrimPrefix(s.Cluster+":"+s.ID(), ":") }

func prefixed(prefix, text string) string {
	if text == "" {
		return ""
	}
	return prefix + text
}

// portList is the ports as people write them: "80/tcp (http), 53/udp".
func (s *Service) portList() string {
	var all []string
	for _, p := range s.Ports {
		text := fmt.Sprintf("%d/%s", p.Port, p.Proto)
		if p.Name != "" {
			text += " (" + p.Name + ")"
		}
		all = append(all, text)
	}
	if len(all) == 0 {
		return "none"
	}
	return strings.Join(all, ", ")
}

// of is the backends of a port.
func (s *Service) of(p ServicePort) []Backend {
	var all []Backend
	for _, b := range s.Backends.Value {
		if b.Proto == p.Proto && b.PortName == p.Name {
			all = append(all, b)
		}
	}
	return all
}

// cutService takes [SITE:]svc/NAME[:PORT] apart; a port may be a name.
func cutService(s string) (site, name, port string, ok bool) {
	before, rest, ok := strings.Cut(s, "svc/")
	if !ok || before != "" && !strings.HasSuffix(before, ":") {
		return "", "", "", false
	}
	name, port, _ = strings.Cut(rest, ":")
	return strings.TrimSuffix(before, ":"), name, port, true
}

// service finds a Service by its name, which must be one's alone. Where no API
// server lists it, what kube-proxy wrote on the nodes names those that have a
// cluster IP.
func (t *Tracer) service(site, name string) (*Service, error) {
	hit, err := oneService(t.w.Services.Value, site, name)
	if hit == nil && err == nil {
		hit, err = oneService(t.written(), site, name)
	}
	switch {
	case err != nil:
		return nil, err
	case hit != nil && hit.External != "":
		return nil, fmt.Errorf("%w: %s is of the type ExternalName, which is DNS alone: it stands for %s", ErrProbe, hit.ID(), hit.External)
	case hit != nil:
		return hit, nil
	case !t.w.Services.Known:
		return nil, fmt.Errorf("%w: %s, and no kube-proxy's rules on these nodes name it", ErrProbe, t.w.Services.unknown("Services"))
	}
	return nil, fmt.Errorf("%w: the world has no such Service", ErrProbe)
}

// oneService is nil where there is none.
func oneService(list []Service, site, name string) (hit *Service, err error) {
	for i := range list {
		s := &list[i]
		if s.Name != name && s.ID() != name || site != "" && s.Cluster != "" && s.Cluster != site {
			continue
		}
		if hit != nil {
			return nil, fmt.Errorf("%w: it is both %s and %s; say more of the name, or put the cluster and a colon before it",
				ErrProbe, hit.full(), s.full())
		}
		hit = s
	}
	return hit, nil
}

// askService is whom a probe to a Service asks: its cluster IP, or each backend of
// a headless one, which DNS gives in its place.
func (t *Tracer) askService(site, name, port string, proto Proto) ([]target, error) {
	s, err := t.service(site, name)
	if err != nil {
		return nil, err
	}
	p := ServicePort{Proto: proto}
	if proto != ICMP {
		if p, err = s.port(port, proto); err != nil {
			return nil, err
		}
	}
	if s.Addr.IsValid() {
		return []target{{addr: s.Addr, port: p.Port, service: s, asked: p}}, nil
	}
	if !s.Backends.Known {
		return nil, fmt.Errorf("%w: %s has no address of its own; %s", ErrProbe, s.ID(), s.Backends.unknown("its backends"))
	}
	var all []target
	for _, b := range s.Backends.Value {
		if !b.Ready || proto != ICMP && (b.Proto != p.Proto || b.PortName != p.Name) {
			continue
		}
		who, _, err := t.byAddr("", b.Addr)
		if err != nil {
			who = nil // two have it; who is meant is not said
		}
		all = append(all, target{addr: b.Addr, who: who, port: b.Port, service: s, asked: p})
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%w: %s has no address of its own, and no backend that is ready: DNS has no answer", ErrProbe, s.ID())
	}
	return all, nil
}

// written is the Services that kube-proxy's rules of the nodes name.
func (t *Tracer) written() []Service {
	var all []Service
	add := func(n *Node, id string, p ServicePort, addr netip.Addr) {
		namespace, name, ok := strings.Cut(id, "/")
		if !ok || !addr.Is4() {
			return
		}
		site := t.refs[&n.Host].where.Site
		i := slices.IndexFunc(all, func(s Service) bool {
			return s.Cluster == site && s.Namespace == namespace && s.Name == name && s.Addr == addr
		})
		if i < 0 {
			i = len(all)
			all = append(all, Service{Cluster: site, Namespace: namespace, Name: name, Addr: addr,
				Backends: Unknown[[]Backend]("the Kubernetes API was not asked")})
		}
		if !slices.Contains(all[i].Ports, p) {
			all[i].Ports = append(all[i].Ports, p)
		}
	}
	for i := range t.w.Nodes {
		n := &t.w.Nodes[i]
		n.Host.Iptables.Value.services(func(id string, p ServicePort, a netip.Addr) { add(n, id, p, a) })
		n.Host.Nftables.Value.services(func(id string, p ServicePort, a netip.Addr) { add(n, id, p, a) })
	}
	slices.SortStableFunc(all, func(a, b Service) int { return strings.Compare(a.ID(), b.ID()) })
	return all
}

// services reads the rules of kube-proxy's iptables mode, whose comments say
// "NAMESPACE/NAME:PORT cluster IP", or "... has no endpoints".
func (t *Iptables) services(each func(id string, p ServicePort, a netip.Addr)) {
	for i := range t.tables {
		c := t.tables[i].chains["KUBE-SERVICES"]
		if c == nil {
			continue
		}
		for j := range c.rules {
			r := &c.rules[j]
			id, what, ok := strings.Cut(r.comment, " ")
			if !ok || what != "cluster IP" && what != "has no endpoints" {
				continue
			}
			var p ServicePort
			var addr netip.Addr
			id, p.Name, _ = strings.Cut(id, ":")
			for _, m := range r.matches {
				switch {
				case m.not:
				case m.opt == "-d" && m.net.IsSingleIP():
					addr = m.net.Addr()
				case m.opt == "-p":
					p.Proto = Proto(m.args[0])
				case m.opt == "--dport":
					n, _ := strconv.ParseUint(m.args[0], 10, 16)
					p.Port = uint16(n)
				}
			}
			each(id, p, addr)
		}
	}
}

// services reads the map of kube-proxy's nftables mode: an address, a protocol and
// a port lead to the chain service-HASH-NAMESPACE/NAME/PROTOCOL/PORT.
func (r *Ruleset) services(each func(id string, p ServicePort, a netip.Addr)) {
	for i := range r.tables {
		t := &r.tables[i]
		set := t.sets["service-ips"]
		if t.name != "kube-proxy" || set == nil {
			continue
		}
		for key, data := range set.exact {
			k := strings.Split(key, " . ")
			_, chain, _ := strings.Cut(data, "goto ")
			f := strings.Split(chain, "/")
			if len(k) != 3 || len(f) < 3 {
				continue
			}
			prefix := strings.SplitN(f[0], "-", 3) // "service", the hash, and a namespace that may have a dash
			addr, err := netip.ParseAddr(k[0])
			port, err2 := strconv.ParseUint(k[2], 10, 16)
			if err != nil || err2 != nil || len(prefix) != 3 {
				continue
			}
			p := ServicePort{Proto: Proto(f[2]), Port: uint16(port)}
			if len(f) > 3 {
				p.Name = f[3]
			}
			each(prefix[2]+"/"+f[1], p, addr)
		}
	}
}
