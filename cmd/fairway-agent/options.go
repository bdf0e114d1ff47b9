package main

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/fairway-cni/fairway/internal/agent"
	"github.com/fairway-cni/fairway/internal/core/intent"
)

// options are the flags. Those that the VPC CNI has too can also be given by its
// environment variable, with its meaning; a flag goes before.
type options struct {
	cfg        agent.Config
	native     string
	also       []string
	nativeCIDR string
	excluded   []string
	services   []string
	randomize  string
	boundMark  string
}

// variables are the names under which the VPC CNI's users know the flags.
var variables = map[string]string{
	"eni-mtu":             "AWS_VPC_ENI_MTU",
	"pod-mtu":             "POD_MTU",
	"veth-prefix":         "AWS_VPC_K8S_CNI_VETHPREFIX",
	"node-port-support":   "AWS_VPC_CNI_NODE_PORT_SUPPORT",
	"external-snat":       "AWS_VPC_K8S_CNI_EXTERNALSNAT",
	"randomize-snat":      "AWS_VPC_K8S_CNI_RANDOMIZESNAT",
	"exclude-snat-cidrs":  "AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS",
	"external-services":   "AWS_EXTERNAL_SERVICE_CIDRS",
	"connection-mark":     "AWS_VPC_K8S_CNI_CONNMARK",
	"configure-rp-filter": "AWS_VPC_K8S_CNI_CONFIGURE_RPFILTER",
	"bandwidth":           "ENABLE_BANDWIDTH_PLUGIN",
	"disable-early-demux": "DISABLE_TCP_EARLY_DEMUX",
}

func (o *options) register(f *pflag.FlagSet) {
	c := &o.cfg
	f.StringVar(&c.Socket, "socket", c.Socket, "CNI socket; only root may connect")
	f.StringVar(&c.Admin, "admin-socket", c.Admin, "socket of the command fairway; only root may connect; empty: none")
	f.StringVar(&c.StateDir, "state-dir", c.StateDir, "directory of the address records")
	f.StringVar(&c.SpoolDir, "spool-dir", c.SpoolDir, "directory where the plugin leaves releases while the agent is away")
	f.StringVar(&c.CNIConfDir, "cni-conf-dir", c.CNIConfDir, "directory for the network configuration list; empty: do not write it")
	f.StringVar(&c.CNIBinDir, "cni-bin-dir", c.CNIBinDir, "directory of the CNI plugins; portmap, if it is there, gives pods their host ports")
	f.BoolVar(&c.Bandwidth, "bandwidth", c.Bandwidth, "let the plugin bandwidth of that directory limit pods by their annotations")
	f.IntVar(&c.WarmAddresses, "warm-addresses", c.WarmAddresses, "free addresses to keep ready")
	f.IntVar(&c.MaxENIs, "max-enis", c.MaxENIs, "most ENIs of the instance; 0: what its type allows")
	f.DurationVar(&c.CoolDown, "cool-down", c.CoolDown, "rest of a released address before another pod may have it")
	f.DurationVar(&c.AddWait, "add-wait", c.AddWait, "how long an ADD waits for an address that is on its way")

	f.StringVar(&o.native, "native", "routes", "what sees pods' own addresses: routes (the VPC, and what its route tables send to peerings, transit and VPN gateways) or vpc")
	f.StringSliceVar(&o.also, "native-cidrs", nil, "further prefixes that see pods' own addresses")
	f.StringVar(&o.nativeCIDR, "ipv4-native-routing-cidr", "", "one more, under the name that Cilium has for it")
	f.DurationVar(&c.VPCPoll, "vpc-poll", c.VPCPoll, "how often EC2 is asked for the VPC's routes")

	d := &c.Datapath
	f.IntVar(&d.ENIMTU, "eni-mtu", d.ENIMTU, "MTU of ENIs, in bytes")
	f.IntVar(&c.PodMTU, "pod-mtu", c.PodMTU, "MTU of pods, in bytes; 0: that of the ENIs")
	f.StringVar(&c.VethPrefix, "veth-prefix", c.VethPrefix, "how names of pods' devices on the node begin, up to four characters")
	f.BoolVar(&d.NodePort, "node-port-support", d.NodePort, "answer by the primary ENI what came by it for a service")
	f.BoolVar(&d.ExternalSNAT, "external-snat", d.ExternalSNAT, "something else translates sources: the node does not")
	f.StringVar(&o.randomize, "randomize-snat", string(d.RandomizeSNAT), "source ports of translated flows: prng, hashrandom or none")
	f.StringSliceVar(&o.excluded, "exclude-snat-cidrs", nil, "further prefixes whose sources are not translated; an invalid one is skipped")
	f.StringSliceVar(&o.services, "external-services", nil, "prefixes that are routed by the main table whichever pod sends; an invalid one is skipped")
	f.StringVar(&o.boundMark, "connection-mark", fmt.Sprintf("%#x", d.BoundMark), "the bit of packet and connection marks that says that a flow keeps its way")
	f.BoolVar(&d.ConfigureRPFilter, "configure-rp-filter", d.ConfigureRPFilter, "set rp_filter of the ENIs' devices")
	f.BoolVar(&d.NoEarlyDemux, "disable-early-demux", d.NoEarlyDemux, "turn the kernel's tcp_early_demux off")
	for flag, variable := range variables {
		v := f.Lookup(flag)
		v.Usage += " (" + variable + ")"
	}
}

// environment sets the flags that were not given from their variables.
func environment(f *pflag.FlagSet, lookup func(string) (string, bool)) error {
	for flag, variable := range variables {
		value, ok := lookup(variable)
		if !ok || value == "" || f.Changed(flag) {
			continue
		}
		if err := f.Set(flag, value); err != nil {
			return fmt.Errorf("%w: %s: %w", errUsage, variable, err)
		}
	}
	return nil
}

// config is what the options say, and what of them was skipped.
func (o *options) config(f *pflag.FlagSet) (c agent.Config, skipped []error, err error) {
	if err := environment(f, os.LookupEnv); err != nil {
		return c, nil, err
	}
	c = o.cfg
	switch o.native {
	case "routes":
	case "vpc":
		c.Native.VPCOnly = true
	default:
		return c, nil, fmt.Errorf("%w: --native %q: must be routes or vpc (prefixes go to --native-cidrs)", errUsage, o.native)
	}
	also := o.also
	if o.nativeCIDR != "" {
		also = append(also, o.nativeCIDR)
	}
	for _, s := range also {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return c, nil, fmt.Errorf("%w: native prefix: %w", errUsage, err)
		}
		c.Native.Also = append(c.Native.Also, p.Masked())
	}
	excluded, bad := valid("AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS", o.excluded)
	services, worse := valid("AWS_EXTERNAL_SERVICE_CIDRS", o.services)
	c.Native.Also = append(c.Native.Also, excluded...)
	c.Datapath.ExternalServices = services
	c.Datapath.RandomizeSNAT = intent.RandomizeSNAT(strings.ToLower(o.randomize))
	mark, err := strconv.ParseUint(o.boundMark, 0, 32)
	if err != nil {
		return c, nil, fmt.Errorf("%w: connection mark: %w", errUsage, err)
	}
	c.Datapath.BoundMark = uint32(mark)
	if err := c.Validate(); err != nil {
		return c, nil, fmt.Errorf("%w: %w", errUsage, err)
	}
	return c, append(bad, worse...), nil
}

// valid gives the IPv4 prefixes of a list, without host bits, and says which
// items are none: a typing error in one must not take the node's network away.
func valid(name string, list []string) (prefixes []netip.Prefix, bad []error) {
	for _, s := range list {
		p, err := netip.ParsePrefix(strings.TrimSpace(s))
		switch {
		case err != nil:
			bad = append(bad, fmt.Errorf("%s: %w", name, err))
		case !p.Addr().Is4():
			bad = append(bad, fmt.Errorf("%s: %s is not IPv4", name, p))
		default:
			prefixes = append(prefixes, p.Masked())
		}
	}
	return prefixes, bad
}
