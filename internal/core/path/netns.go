package path

import (
	"net/netip"
	"strconv"
	"strings"
)

// Namespace is what a kernel holds for one network namespace: a node's own, or
// a pod's. Rules and routes are lines of `ip rule` and `ip route show table all`,
// nftables is `nft list ruleset` and iptables is `iptables-save`, each a list of
// lines.
type Namespace struct {
	Devices    Part[[]Device]          `json:"devices,omitzero"`
	Rules      Part[[]IPRule]          `json:"rules,omitzero"`
	Routes     Part[[]IPRoute]         `json:"routes,omitzero"`
	Neighbours Part[[]Neighbour]       `json:"neighbours,omitzero"`
	Sysctls    Part[map[string]string] `json:"sysctls,omitzero"` // by path below /proc/sys
	Nftables   Part[Ruleset]           `json:"nftables,omitzero"`
	Iptables   Part[Iptables]          `json:"iptables,omitzero"`
	Sockets    Part[[]Socket]          `json:"sockets,omitzero"` // what listens
}

// Device is one network device.
type Device struct {
	Name      string         `json:"name"`
	Kind      string         `json:"kind"` // loopback, eni, veth, or the kernel's word for another
	Down      bool           `json:"down,omitempty"`
	MTU       int            `json:"mtu"` // bytes
	Group     uint32         `json:"group,omitempty"`
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	ENI       string         `json:"eni,omitempty"`  // of kind eni: its ID
	Peer      string         `json:"peer,omitempty"` // of kind veth: "host DEVICE" or "NAMESPACE/POD DEVICE"
	BPF       []string       `json:"bpf,omitempty"`  // programs at tc or XDP, as `bpftool net` names them
}

// Neighbour is an entry of `ip neigh` that the kernel uses without asking.
type Neighbour struct {
	Addr   netip.Addr `json:"addr"`
	Device string     `json:"device"`
}

// Socket is something that listens.
type Socket struct {
	Proto Proto      `json:"proto"`
	Addr  netip.Addr `json:"addr"` // 0.0.0.0 is any
	Port  uint16     `json:"port"`
}

func (n *Namespace) device(name string) *Device {
	for i := range n.Devices.Value {
		if n.Devices.Value[i].Name == name {
			return &n.Devices.Value[i]
		}
	}
	return nil
}

// number reads a sysctl; ok is false if it is not known.
func (n *Namespace) number(path string) (v int, ok bool) {
	s, ok := n.Sysctls.Value[path]
	if !ok {
		return 0, false
	}
	v, err := strconv.Atoi(strings.TrimSpace(s))
	return v, err == nil
}

// conf reads net/ipv4/conf/DEVICE/NAME.
func (n *Namespace) conf(device, name string) (int, bool) {
	return n.number("net/ipv4/conf/" + device + "/" + name)
}

// either reads a switch that is on if it is on for "all" or for the device.
// known is false where the answer depends on what is not known.
func (n *Namespace) either(device, name string) (on, known bool) {
	a, ok1 := n.conf("all", name)
	d, ok2 := n.conf(device, name)
	if ok1 && a != 0 || ok2 && d != 0 {
		return true, true
	}
	return false, ok1 && ok2
}
