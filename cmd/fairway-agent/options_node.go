package main

import "time"

var fileOptions = []option{
	{"socket", "", "CNI socket; only root may connect", "/run/other/cni.sock",
		path(func(s *settings) *string { return &s.cfg.Socket })},
	{"admin-socket", "", "socket of the command fairway; only root may connect; empty: none", "/run/other/agent.sock",
		path(func(s *settings) *string { return &s.cfg.Admin })},
	{"cri-socket", "", "socket of the container runtime, which is asked for the pods that exist; empty: it is not asked", "/run/containerd/containerd.sock",
		socketPath(func(s *settings) *string { return &s.cfg.CRISocket })},
	{"state-dir", "", "directory of the address records", "/run/other/addresses",
		path(func(s *settings) *string { return &s.cfg.StateDir })},
	{"spool-dir", "", "directory where the plugin leaves releases while the agent is away", "/run/other/spool",
		path(func(s *settings) *string { return &s.cfg.SpoolDir })},
	{"cni-conf-dir", "", "directory for the network configuration list; empty: do not write it", "/etc/other/net.d",
		path(func(s *settings) *string { return &s.cfg.CNIConfDir })},
	{"cni-bin-dir", "", "directory of the CNI plugins; portmap, if it is there, gives pods their host ports", "/usr/lib/cni",
		path(func(s *settings) *string { return &s.cfg.CNIBinDir })},
	{"sysctl-dir", "", "where the kernel's switches are written, in a container that has them elsewhere than in /proc/sys", "/host/proc/sys",
		path(func(s *settings) *string { return &s.cfg.SysctlDir })},
	{"bandwidth", "ENABLE_BANDWIDTH_PLUGIN", "let the plugin bandwidth of that directory limit pods by their annotations", "true",
		yes(func(s *settings) *bool { return &s.cfg.Bandwidth })},
}

var nativeOptions = []option{
	{"native", "", "what sees pods' own addresses: routes (the VPC, and what its route tables send to peerings, transit and VPN gateways) or vpc", "vpc",
		nativeScope()},
	{"native-cidrs", "", "further prefixes that see pods' own addresses", "10.1.0.0/16,10.2.0.0/16",
		prefixes(func(s *settings) *[]string { return &s.also })},
	{"ipv4-native-routing-cidr", "", "one more, under the name that Cilium has for it", "10.0.0.0/8",
		prefix(func(s *settings) *string { return &s.nativeCIDR })},
	{"exclude-snat-cidrs", "AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS", "further prefixes whose sources are not translated; an invalid one is skipped", "192.168.0.0/16",
		lenientPrefixes(func(s *settings) *[]string { return &s.excluded })},
	{"vpc-poll", "", "how often EC2 is asked for the VPC's routes; a second at least", "5m",
		span(func(s *settings) *time.Duration { return &s.cfg.VPCPoll })},
}

var datapathOptions = []option{
	{"external-snat", "AWS_VPC_K8S_CNI_EXTERNALSNAT", "something else translates sources: the node does not", "true",
		yes(func(s *settings) *bool { return &s.cfg.Datapath.ExternalSNAT })},
	{"randomize-snat", "AWS_VPC_K8S_CNI_RANDOMIZESNAT", "source ports of translated flows: prng, hashrandom or none", "none",
		randomize()},
	{"node-port-support", "AWS_VPC_CNI_NODE_PORT_SUPPORT", "answer by the primary ENI what came by it for a service", "false",
		yes(func(s *settings) *bool { return &s.cfg.Datapath.NodePort })},
	{"external-services", "AWS_EXTERNAL_SERVICE_CIDRS", "prefixes that are routed by the main table whichever pod sends; an invalid one is skipped", "172.20.0.0/16",
		lenientPrefixes(func(s *settings) *[]string { return &s.externalServices })},
	{"connection-mark", "AWS_VPC_K8S_CNI_CONNMARK", "the bit of packet and connection marks that says that a flow keeps its way", "0x100",
		mark()},
	{"configure-rp-filter", "AWS_VPC_K8S_CNI_CONFIGURE_RPFILTER", "set rp_filter of the ENIs' devices", "false",
		yes(func(s *settings) *bool { return &s.cfg.Datapath.ConfigureRPFilter })},
	{"disable-early-demux", "DISABLE_TCP_EARLY_DEMUX", "turn the kernel's tcp_early_demux off", "true",
		yes(func(s *settings) *bool { return &s.cfg.Datapath.NoEarlyDemux })},
	{"eni-mtu", "AWS_VPC_ENI_MTU", "MTU of ENIs, in bytes, from 576 to 9001", "1500",
		mtu(func(s *settings) *int { return &s.cfg.Datapath.ENIMTU }, "from 576 to 9001")},
	{"pod-mtu", "POD_MTU", "MTU of pods, in bytes, from 576 to 9001; 0: that of the ENIs", "1400",
		mtu(func(s *settings) *int { return &s.cfg.PodMTU }, "from 576 to 9001 (0: that of the ENIs)")},
	{"veth-prefix", "AWS_VPC_K8S_CNI_VETHPREFIX", "how names of pods' devices on the node begin: one to four letters and digits, not eth, ens, vlan, lo", "eni",
		text(func(s *settings) *string { return &s.cfg.VethPrefix })},
}
