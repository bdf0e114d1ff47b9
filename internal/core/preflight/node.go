package preflight

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/internal/core/path"
)

// node looks at the machine.
func (j *judge) node() {
	j.kernel()
	j.lists()
	j.leftovers()
	j.reversePath()
	j.managers()
	j.mtu()
	j.kubeProxy()
}

func (j *judge) kernel() {
	const check = "kernel features"
	if !known(j, check, j.Kernel) {
		return
	}
	k := j.Kernel.Value
	if len(k.Missing) == 0 {
		j.ok(check, "Linux %s has all %d", k.Release, k.Features)
		return
	}
	for _, m := range k.Missing {
		j.say(check, Failed, fmt.Sprintf("Linux %s lacks %s", k.Release, m), "use a kernel of 5.15 or later that has nftables, with NAT and connection tracking, built in or as modules")
	}
}

// lists looks at who else configures the container runtime, which takes the first
// configuration by name.
func (j *judge) lists() {
	const check = "other CNI"
	if !known(j, check, j.Lists) {
		return
	}
	var others []string
	before := false
	for _, l := range j.Lists.Value {
		if l.File != OurList {
			others = append(others, l.File)
			before = before || l.File < OurList
		}
	}
	switch {
	case len(others) == 0:
		j.ok(check, "no other network configuration in %s", j.ListDir)
	case before && j.installed:
		j.say(check, Failed, fmt.Sprintf("the runtime takes %s, which comes before %s", j.Lists.Value[0].File, OurList),
			fmt.Sprintf("remove it from %s once the daemon that writes it is gone: new pods get another CNI's network until then", j.ListDir))
	case before:
		j.say(check, Warning, join(others)+" in "+j.ListDir, "end the daemon that writes it and remove it when Fairway is installed: the runtime takes the first by name")
	default:
		j.say(check, Warning, join(others)+" in "+j.ListDir, "it comes after Fairway's, and is used only while that is missing; remove it")
	}
}

// What other CNIs leave. Priorities and chains are those of the AWS VPC CNI (its
// networkutils package), devices and comm names those of Cilium's agent.
var (
	awsPriorities = []int{512, 1024, 1535, 1536}
	daemons       = [][2]string{{"aws-k8s-agent", "the AWS VPC CNI (DaemonSet aws-node)"}, {"cilium-agent", "Cilium"}, {"calico-node", "Calico"}, {"flanneld", "flannel"}, {"kube-router", "kube-router"}}
)

func (j *judge) leftovers() {
	const check = "leftovers"
	if !known(j, check, j.Rules) || !known(j, check, j.Devices) || !known(j, check, j.Chains) {
		return
	}
	before := len(j.lines)
	for _, d := range daemons {
		if slices.Contains(j.Programs.Value, d[0]) {
			j.say(check, Failed, fmt.Sprintf("%s runs: process %s", d[1], d[0]), "remove it from this node: two daemons would each write a way for the same packets")
		}
	}
	var rules []string
	for _, r := range j.Rules.Value {
		if slices.Contains(awsPriorities, r.Priority) && r.Proto != strconv.Itoa(node.Protocol) {
			rules = append(rules, r.String())
		}
	}
	if len(rules) > 0 {
		j.say(check, Warning, fmt.Sprintf("%s as aws-node writes them: %s", count(len(rules), "rule"), join(rules)),
			"replace the pods that aws-node has made, or reboot the node; then nothing needs them, and `ip rule del` or the reboot removes them")
	}
	var cilium, programs []string
	for _, d := range j.Devices.Value {
		switch {
		case strings.HasPrefix(d.Name, "cilium_"), strings.HasPrefix(d.Name, "lxc") && d.Kind == "veth":
			cilium = append(cilium, d.Name)
		case d.Kind == "eni" && len(d.BPF) > 0:
			programs = append(programs, d.Name+": "+join(d.BPF))
		}
	}
	slices.Sort(cilium)
	if len(cilium) > 0 {
		j.say(check, Failed, "devices of Cilium: "+join(cilium), "run `cilium-dbg post-uninstall-cleanup -f`, or reboot the node: its programs take packets before the kernel's routing sees them")
	}
	if len(programs) > 0 {
		j.say(check, Failed, "BPF programs on ENIs: "+join(programs), "find out whose they are (`bpftool net`) and detach them, if they are another CNI's: Fairway has none there")
	}
	var chains []string
	for _, c := range j.Chains.Value {
		if strings.HasPrefix(c.Name, "AWS-SNAT-CHAIN") || strings.HasPrefix(c.Name, "AWS-CONNMARK-CHAIN") || strings.HasPrefix(c.Name, "CILIUM_") {
			chains = append(chains, c.Name)
		}
	}
	if len(chains) > 0 {
		j.say(check, Failed, "chains of another CNI: "+join(chains), "they translate sources that the VPC should see: remove the rules that jump there and the chains, or reboot the node")
	}
	if len(j.lines) == before {
		j.ok(check, "no rule, device, chain or daemon of another CNI")
	}
}

// reversePath looks at what counts: the greater of all and the device's. An ENI is
// to take what the main table would answer by another one.
func (j *judge) reversePath() {
	const check = "reverse path filter"
	if !known(j, check, j.Sysctls) || !known(j, check, j.Devices) {
		return
	}
	of := func(device string) int {
		n, _ := strconv.Atoi(strings.TrimSpace(j.Sysctls.Value["net/ipv4/conf/"+device+"/rp_filter"]))
		return n
	}
	var strict []string
	for _, d := range j.Devices.Value {
		if d.Kind == "eni" && max(of("all"), of(d.Name)) == 1 {
			strict = append(strict, d.Name)
		}
	}
	switch {
	case len(strict) == 0:
		j.ok(check, "no ENI filters strictly")
	case j.installed:
		j.say(check, Failed, "strict (1) on "+join(strict), "let the agent set it (AWS_VPC_K8S_CNI_CONFIGURE_RPFILTER=true), or set net.ipv4.conf.DEVICE.rp_filter=2: packets that come by one ENI for another's address are dropped")
	default:
		j.ok(check, "strict (1) on %s; the agent makes it loose", join(strict))
	}
}

// managers looks for programs that take devices, rules and routes for their own.
func (j *judge) managers() {
	const check = "network managers"
	if !known(j, check, j.Programs) {
		return
	}
	before := len(j.lines)
	for _, m := range []struct{ comm, name, file, harm string }{
		{"systemd-network", "systemd-networkd", "/etc/systemd/networkd.conf.d/10-fairway.conf", "it removes rules and routes that it did not write"}, // comm has 15 bytes
		{"NetworkManager", "NetworkManager", "/etc/NetworkManager/conf.d/10-fairway.conf", "it tries DHCP on pods' devices"},
	} {
		if slices.Contains(j.Programs.Value, m.comm) && !j.DropIns[m.name] {
			j.say(check, Warning, fmt.Sprintf("%s runs, and there is no %s", m.name, m.file), "install the file of deploy/node; without, "+m.harm)
		}
	}
	if len(j.lines) == before {
		j.ok(check, "none runs without Fairway's drop-in")
	}
}

func (j *judge) mtu() {
	const check = "MTU"
	if !known(j, check, j.Devices) {
		return
	}
	var smallest path.Device
	var enis, larger []string
	for _, d := range j.Devices.Value {
		if d.Kind == "eni" {
			enis = append(enis, fmt.Sprintf("%s %d", d.Name, d.MTU))
			if smallest.MTU == 0 || d.MTU < smallest.MTU {
				smallest = d
			}
		}
	}
	for _, d := range j.Devices.Value {
		if d.Group == node.LinkGroup && d.MTU > smallest.MTU && smallest.MTU > 0 {
			larger = append(larger, fmt.Sprintf("%s %d", d.Name, d.MTU))
		}
	}
	switch {
	case len(enis) == 0:
		j.blind(check, "no device of an ENI was found", "")
	case len(larger) > 0:
		j.say(check, Failed, fmt.Sprintf("pods' devices with more than the %d bytes of %s: %s", smallest.MTU, smallest.Name, join(larger)),
			"set POD_MTU to what the ENIs take and replace those pods: large packets of theirs are lost")
	default:
		j.ok(check, "%s", join(enis))
	}
}

// kubeProxy looks at which of its modes have left something in the kernel. Chains
// and tables are those of kube-proxy's own packages.
func (j *judge) kubeProxy() {
	const check = "kube-proxy"
	if !known(j, check, j.Chains) || !known(j, check, j.Devices) {
		return
	}
	var modes []string
	add := func(mode string) {
		if !slices.Contains(modes, mode) {
			modes = append(modes, mode)
		}
	}
	for _, c := range j.Chains.Value {
		switch {
		case strings.HasSuffix(c.Table, " kube-proxy"):
			add("nftables")
		case c.Name == "KUBE-SERVICES" && c.Legacy:
			add("iptables (legacy)")
		case c.Name == "KUBE-SERVICES":
			add("iptables")
		}
	}
	if slices.ContainsFunc(j.Devices.Value, func(d path.Device) bool { return d.Name == "kube-ipvs0" }) {
		add("ipvs")
	}
	switch len(modes) {
	case 0:
		j.skip(check, "it has written nothing: no Services here, or it does not run yet")
	case 1:
		j.ok(check, "mode %s", modes[0])
	default:
		j.say(check, Warning, "state of more than one mode: "+strings.Join(modes, ", "), "run `kube-proxy --cleanup` and restart it: a Service may be translated by what nobody keeps any more")
	}
}
