package differential

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// The rules by which the incumbents lead pods, from what they are seen to write:
//
//	aws-vpc-cni  512 to POD main; 1024 fwmark 0x80 main; 1536 from POD table 2;
//	             nftables that iptables-nft writes for its chains
//	cilium       20 to POD main; 111 from POD table 10 + index; a masquerade
const (
	vpcCNI = "aws-vpc-cni"
	cilium = "cilium"
	router = "router" // no pods: it forwards, perhaps as a NAT instance
	none   = "none"
)

// furnish makes what is in a host: ENIs' devices, pods, rules, and damage.
func (s *scene) furnish(h *host) error {
	enis, err := s.enis(h)
	if err != nil {
		return err
	}
	if err := hurry(h.NetNS); err != nil {
		return err
	}
	h.layout = one(s.d, router, none, none)
	if slices.Contains(s.plan.nodes, h.Name) {
		h.layout = one(s.d, vpcCNI, cilium)
	}
	s.note("%s is %s", h.Name, h.layout)
	switch h.layout {
	case none:
		for _, a := range enis[0].Secondary {
			if s.d.in(2) {
				err = errors.Join(err, s.ip(h.Name, h.NetNS, "address add "+a.String()+"/32 dev "+enis[0].dev))
			}
		}
	case router:
		err = s.sysctl(h.Name, h.NetNS, "net/ipv4/ip_forward", 1)
		if s.d.in(2) {
			err = errors.Join(err, s.nft(h.Name, h.NetNS, fmt.Sprintf(
				"table ip nat {\n chain POSTROUTING {\n  type nat hook postrouting priority srcnat; policy accept;\n  oifname \"%s\" masquerade\n }\n}\n", enis[0].dev)))
		}
	default:
		err = s.furnishNode(h, enis)
	}
	if err != nil {
		return err
	}
	return s.damage(h, enis)
}

// furnishNode gives a node pods on all its ENIs, and one CNI's rules.
func (s *scene) furnishNode(h *host, enis []eni) error {
	if err := s.sysctl(h.Name, h.NetNS, "net/ipv4/ip_forward", 1); err != nil {
		return err
	}
	for i, e := range enis {
		if i > 0 {
			if err := s.secondENI(h, e); err != nil {
				return err
			}
		}
		free := slices.Clone(e.Secondary)
		for _, p := range e.Prefixes {
			a := p.Addr()
			for range 3 {
				free = append(free, a)
				a = a.Next()
			}
		}
		for j, a := range free[:min(2, len(free))] {
			name := fmt.Sprintf("%s-%d%d", h.Name, i, j)
			if err := s.podOf(h, name, i, e, a); err != nil {
				return err
			}
		}
	}
	return s.translation(h, enis)
}

// secondENI sets the device up as the CNIs do: its address, and a table of its own.
func (s *scene) secondENI(h *host, e eni) error {
	commands := []string{"link set " + e.dev + " up"}
	if h.layout == vpcCNI || s.d.in(2) {
		commands = append(commands, fmt.Sprintf("address add %s/%d dev %s", e.Primary, e.subnet.Bits(), e.dev))
	}
	commands = append(commands,
		fmt.Sprintf("route add %s dev %s table %d", e.gateway(), e.dev, table(h)),
		fmt.Sprintf("route add default via %s dev %s table %d onlink", e.gateway(), e.dev, table(h)))
	for _, c := range commands {
		if err := s.ip(h.Name, h.NetNS, c); err != nil {
			return err
		}
	}
	return nil
}

func table(h *host) int {
	if h.layout == vpcCNI {
		return 2
	}
	return 12
}

func (s *scene) podOf(h *host, name string, index int, e eni, a netip.Addr) error {
	veth := strings.Map(func(r rune) rune {
		if r == '-' {
			return -1
		}
		return r
	}, name)
	to, from := 20, 111
	if h.layout == vpcCNI {
		veth, to, from = "eni"+veth, 512, 1536
	} else {
		veth = "lxc" + veth
	}
	if err := s.pod(h, name, veth, a); err != nil {
		return err
	}
	commands := []string{
		fmt.Sprintf("route add %s dev %s scope link", a, veth),
		fmt.Sprintf("rule add pref %d to %s lookup main", to, a),
	}
	if index > 0 && h.layout == vpcCNI {
		commands = append(commands, fmt.Sprintf("rule add pref %d from %s lookup %d", from, a, table(h)))
	}
	if h.layout == cilium {
		where := "main"
		if index > 0 {
			where = fmt.Sprint(table(h))
		}
		to := "" // Cilium asks for the VPC's blocks where it masquerades the rest
		if s.d.in(2) {
			to = " to " + blockOf(h).String()
		}
		commands = append(commands, fmt.Sprintf("rule add pref %d from %s%s lookup %s", from, a, to, where))
	}
	for _, c := range commands {
		if err := s.ip(h.Name, h.NetNS, c); err != nil {
			return err
		}
	}
	return hurry(h.NetNS)
}

// blockOf is the block of a host's VPC.
func blockOf(h *host) netip.Prefix { return netip.PrefixFrom(h.in.PrivateIP, 16).Masked() }

// translation writes what a CNI translates, as iptables-nft has it in nftables.
func (s *scene) translation(h *host, enis []eni) error {
	block := blockOf(h)
	if h.layout == cilium {
		return s.nft(h.Name, h.NetNS, fmt.Sprintf(`table ip nat {
 chain CILIUM_POST_nat {
  ip saddr %s ip daddr != %s oifname "ens*" masquerade
 }
 chain POSTROUTING {
  type nat hook postrouting priority srcnat; policy accept;
  jump CILIUM_POST_nat
 }
}
`, block, one(s.d, block, netip.MustParsePrefix("10.0.0.0/8"))))
	}
	if s.d.in(4) {
		return nil // AWS_VPC_K8S_CNI_EXTERNALSNAT
	}
	if err := s.ip(h.Name, h.NetNS, "rule add pref 1024 fwmark 0x80/0x80 lookup main"); err != nil {
		return err
	}
	flags := one(s.d, "", " fully-random")
	return s.nft(h.Name, h.NetNS, fmt.Sprintf(`table ip nat {
 chain AWS-SNAT-CHAIN-0 {
  ip daddr %s return
  oifname != "vlan*" fib daddr type != local snat to %s%s
 }
 chain POSTROUTING {
  type nat hook postrouting priority srcnat; policy accept;
  jump AWS-SNAT-CHAIN-0
 }
}
table ip mangle {
 chain PREROUTING {
  type filter hook prerouting priority mangle; policy accept;
  iifname "%s" fib daddr type local ct mark set ct mark or 0x80
  iifname "eni*" meta mark set ct mark and 0x80
 }
}
`, block, enis[0].Primary, flags, enis[0].dev))
}

// damage is what hands and other programs do to a host.
func (s *scene) damage(h *host, enis []eni) error {
	for _, e := range enis {
		if s.d.in(2) {
			if err := s.sysctl(h.Name, h.NetNS, "net/ipv4/conf/"+e.dev+"/rp_filter", s.d.IntN(3)); err != nil {
				return err
			}
		}
	}
	if err := s.sysctl(h.Name, h.NetNS, "net/ipv4/conf/all/rp_filter", one(s.d, 0, 0, 1, 2)); err != nil {
		return err
	}
	for range one(s.d, 0, 0, 1, 2, 3) {
		if err := s.harm(h, h.Name, h.NetNS, enis); err != nil {
			return err
		}
	}
	for _, p := range h.Pods {
		if s.d.in(6) {
			if err := s.harm(h, p.Name, p.NetNS, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// harm changes one thing in a namespace.
func (s *scene) harm(h *host, name string, ns *os.File, enis []eni) error {
	devices := []string{"eth0"}
	if enis != nil {
		devices = nil
		for _, e := range enis {
			devices = append(devices, e.dev)
		}
		if len(h.Pods) > 0 {
			r, err := s.enisAndVeths(h)
			if err != nil {
				return err
			}
			devices = append(devices, r...)
		}
	}
	dev := one(s.d, devices...)
	somebody := func() string {
		if len(h.Pods) > 0 && s.d.in(2) {
			return one(s.d, h.Pods...).Addr.String()
		}
		return one(s.d, "10.0.0.0/16", "10.1.0.0/16", "10.0.1.0/24", "10.1.2.0/24", "10.2.0.0/16", "0.0.0.0/0", knownHost)
	}
	switch s.d.IntN(14) {
	case 0:
		return s.sysctl(name, ns, "net/ipv4/ip_forward", s.d.IntN(2))
	case 1:
		return s.sysctl(name, ns, "net/ipv4/conf/"+dev+"/"+one(s.d, "accept_local", "src_valid_mark", "proxy_arp"), 1)
	case 2:
		return s.sysctl(name, ns, "net/ipv4/conf/"+dev+"/forwarding", s.d.IntN(2))
	case 3:
		return s.sysctl(name, ns, "net/ipv4/conf/"+dev+"/rp_filter", s.d.IntN(3))
	case 4:
		return s.ip(name, ns, fmt.Sprintf("rule add pref %d %s %s lookup %s", 1+s.d.IntN(40000), one(s.d, "from", "to"), somebody(), one(s.d, "main", "main", "2", "12", "99")))
	case 5:
		return s.ip(name, ns, fmt.Sprintf("rule add pref %d %s %s %s", 1+s.d.IntN(40000), one(s.d, "from", "to"), somebody(), one(s.d, "blackhole", "unreachable", "prohibit")))
	case 6:
		return s.ip(name, ns, fmt.Sprintf("route replace %s %s metric 7", one(s.d, "blackhole", "unreachable", "prohibit", "throw"), somebody()))
	case 7:
		return s.ip(name, ns, fmt.Sprintf("link set %s mtu %d", dev, one(s.d, 1400, 1500, 9001)))
	case 8:
		if enis != nil && dev == enis[0].dev {
			return nil // nothing would be left
		}
		return s.ip(name, ns, "link set "+dev+" down")
	case 9:
		err := s.dropRule(name, ns)
		return err
	case 10:
		return s.nft(name, ns, fmt.Sprintf("table inet state%d {\n chain c {\n  type filter hook %s priority filter; policy accept;\n  ct state %s drop\n }\n}\n",
			len(s.log), one(s.d, "forward", "input", "output"), one(s.d, "invalid", "invalid", "new")))
	case 11:
		return s.nft(name, ns, fmt.Sprintf("table inet marks%d {\n chain c {\n  type %s priority mangle; policy accept;\n  %s meta mark set 0x80\n }\n}\n",
			len(s.log), one(s.d, "filter hook prerouting", "route hook output"), one(s.d, "ip saddr 10.0.0.0/8", "tcp dport 80", "meta l4proto udp")))
	}
	hook := one(s.d, "prerouting", "input", "forward", "output", "postrouting")
	match := one(s.d, "tcp dport 80", "udp dport { 53, 54 }", "meta l4proto icmp", "ip saddr 10.1.0.0/16", "ip daddr 10.0.1.0/24",
		"ip saddr "+knownHost, "tcp sport 80", "icmp type echo-reply", "ct direction reply ip daddr 10.0.0.0/16")
	return s.nft(name, ns, fmt.Sprintf("table ip harm%d {\n chain c {\n  type filter hook %s priority %s; policy accept;\n  %s counter drop\n }\n}\n",
		len(s.log), hook, one(s.d, "raw", "mangle", "filter"), match))
}
