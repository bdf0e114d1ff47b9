package cniserver

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/fairway-cni/fairway/internal/edge/cniapi"
)

// Result is what ADD made. The format is that of the newest specification;
// Serve writes it in the version that the runtime asked for, which may have no
// room for all of it (MTUs before 1.1.0).
type Result struct {
	Interfaces []Interface
	IPs        []IP
	Routes     []Route
	DNS        DNS
}

// Interface is one network device, in the pod or on the node.
type Interface struct {
	Name    string
	MAC     string // colon form, empty if there is none
	MTU     int    // bytes; 0: not said
	Sandbox string // CNI_NETNS as the runtime gave it for a device in the pod, empty on the node
}

// NoInterface is the [IP.Interface] of an address that is on none of the interfaces.
const NoInterface = -1

// IP is one address, IPv4 or IPv6.
type IP struct {
	Address   netip.Prefix // the address and its subnet's length: not masked
	Gateway   netip.Addr   // of the same family; zero if there is none
	Interface int          // index into Interfaces, or [NoInterface]
}

// Route is one route in the pod.
type Route struct {
	Dst     netip.Prefix
	Gateway netip.Addr // of the same family; zero: the gateway of the addresses, or none
	MTU     int        // bytes; 0: not said
}

// DNS is what the pod's resolver should use. Kubernetes ignores it.
type DNS struct {
	Nameservers []string
	Domain      string
	Search      []string
	Options     []string
}

// render writes the result of an ADD in the version of its call, after what the
// plugins before this one made.
func render(c *Call, r *Result) ([]byte, *cniapi.Error) {
	if r == nil {
		return nil, Internal(errors.New("the agent's answer to ADD has neither result nor error"))
	}
	if c.Prev != nil {
		r = appendResult(c.Prev, r)
	}
	full, err := toCNI(r)
	if err != nil {
		return nil, Internal(err)
	}
	asked, err := full.GetAsVersion(c.Network.CNIVersion)
	if err != nil {
		return nil, Internal(fmt.Errorf("write result in cni version %s: %w", c.Network.CNIVersion, err))
	}
	text, err := json.Marshal(asked)
	if err != nil {
		return nil, Internal(fmt.Errorf("write result: %w", err))
	}
	return text, nil
}

// appendResult puts b behind a: b's addresses point to b's interfaces at their
// new places. DNS is b's if it has any.
func appendResult(a, b *Result) *Result {
	out := &Result{
		Interfaces: append(append([]Interface(nil), a.Interfaces...), b.Interfaces...),
		IPs:        append([]IP(nil), a.IPs...),
		Routes:     append(append([]Route(nil), a.Routes...), b.Routes...),
		DNS:        b.DNS,
	}
	for _, ip := range b.IPs {
		if ip.Interface != NoInterface {
			ip.Interface += len(a.Interfaces)
		}
		out.IPs = append(out.IPs, ip)
	}
	if dnsToCNI(b.DNS).IsEmpty() {
		out.DNS = a.DNS
	}
	return out
}

func dnsToCNI(d DNS) *types.DNS {
	return &types.DNS{Nameservers: d.Nameservers, Domain: d.Domain, Search: d.Search, Options: d.Options}
}

// toCNI checks what a runtime would stumble over.
func toCNI(r *Result) (*types100.Result, error) {
	out := &types100.Result{CNIVersion: types100.ImplementedSpecVersion, DNS: *dnsToCNI(r.DNS)}
	for _, i := range r.Interfaces {
		out.Interfaces = append(out.Interfaces, &types100.Interface{Name: i.Name, Mac: i.MAC, Mtu: i.MTU, Sandbox: i.Sandbox})
	}
	for _, ip := range r.IPs {
		if !ip.Address.IsValid() {
			return nil, errors.New("the result has an address that is none")
		}
		if ip.Gateway.IsValid() && ip.Gateway.Is4() != ip.Address.Addr().Is4() {
			return nil, fmt.Errorf("the result has address %s with gateway %s, which is of the other family", ip.Address, ip.Gateway)
		}
		conf := &types100.IPConfig{Address: prefixToNet(ip.Address), Gateway: addrToNet(ip.Gateway)}
		if ip.Interface != NoInterface {
			if ip.Interface < 0 || ip.Interface >= len(r.Interfaces) {
				return nil, fmt.Errorf("the result has address %s on interface %d of %d", ip.Address, ip.Interface, len(r.Interfaces))
			}
			conf.Interface = types100.Int(ip.Interface)
		}
		out.IPs = append(out.IPs, conf)
	}
	for _, route := range r.Routes {
		if !route.Dst.IsValid() {
			return nil, errors.New("the result has a route without a destination")
		}
		out.Routes = append(out.Routes, &types.Route{Dst: prefixToNet(route.Dst), GW: addrToNet(route.Gateway), MTU: route.MTU})
	}
	return out, nil
}

// fromCNI reads a result of any version that we speak. Its lists hold no null.
func fromCNI(r types.Result) (*Result, error) {
	full, err := types100.GetResult(r)
	if err != nil {
		return nil, err
	}
	out := &Result{DNS: DNS{
		Nameservers: full.DNS.Nameservers, Domain: full.DNS.Domain, Search: full.DNS.Search, Options: full.DNS.Options,
	}}
	for _, i := range full.Interfaces {
		out.Interfaces = append(out.Interfaces, Interface{Name: i.Name, MAC: i.Mac, MTU: i.Mtu, Sandbox: i.Sandbox})
	}
	for _, ip := range full.IPs {
		conf := IP{Interface: NoInterface, Gateway: netToAddr(ip.Gateway)}
		if ip.Interface != nil {
			conf.Interface = *ip.Interface
			if conf.Interface < 0 || conf.Interface >= len(full.Interfaces) {
				return nil, fmt.Errorf("ips: interface %d of %d", conf.Interface, len(full.Interfaces))
			}
		}
		if conf.Address, err = netToPrefix(ip.Address); err != nil {
			return nil, fmt.Errorf("ips: address: %w", err)
		}
		out.IPs = append(out.IPs, conf)
	}
	for _, route := range full.Routes {
		dst, err := netToPrefix(route.Dst)
		if err != nil {
			return nil, fmt.Errorf("routes: dst: %w", err)
		}
		out.Routes = append(out.Routes, Route{Dst: dst, Gateway: netToAddr(route.GW), MTU: route.MTU})
	}
	return out, nil
}

func prefixToNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func addrToNet(a netip.Addr) net.IP { return a.AsSlice() } // nil of the zero Addr

func netToAddr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

func netToPrefix(n net.IPNet) (netip.Prefix, error) {
	a := netToAddr(n.IP)
	ones, bits := n.Mask.Size()
	if bits == 128 && a.Is4() { // an IPv4 address in IPv6 form
		ones -= 96
	}
	p := netip.PrefixFrom(a, ones)
	if !p.IsValid() {
		return p, fmt.Errorf("%s is not an address with a prefix length", n.String())
	}
	return p, nil
}
