package preflight

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// well is a node on which Fairway runs and all is well.
func well() Facts {
	return Facts{
		Kernel:  path.Known(Kernel{Release: "6.12.0", Features: 15}),
		Devices: path.Known([]path.Device{{Name: "lo", Kind: "loopback", MTU: 65536}, {Name: "ens5", Kind: "eni", MTU: 9001, ENI: "eni-0a"}, {Name: "fwy1", Kind: "veth", MTU: 9001, Group: node.LinkGroup}}),
		Rules:   path.Known([]path.IPRule{{Priority: 0, Table: 255, Action: "lookup"}}),
		Sysctls: path.Known(map[string]string{"net/ipv4/conf/all/rp_filter": "0", "net/ipv4/conf/ens5/rp_filter": "0"}),
		Chains:  path.Known([]Chain{{Table: "inet fairway", Name: "mark"}, {Table: "ip nat", Name: "KUBE-SERVICES"}}), Programs: path.Known([]string{"kubelet"}),
		Kubelet: path.Known(Kubelet{MaxPods: 29, Source: "--max-pods"}), DropIns: map[string]bool{},
		Lists: path.Known([]List{{File: OurList, Name: "fairway", Plugins: []string{OurPlugin, "portmap"}}}), ListDir: "/etc/cni/net.d",
		Plugin:   path.Known(Program{File: "/opt/cni/bin/fairway-cni", Version: "v1.2.3"}),
		Metadata: path.Known(Metadata{InstanceID: "i-0a", InstanceType: "m5.large", ENIs: []vpc.ENI{{ID: "eni-0a", SubnetID: "subnet-1", Groups: []string{"sg-1"}}}}),
		Limits:   path.Known(vpc.Limits{ENIs: 3, IPv4PerENI: 10, Hypervisor: "nitro"}),
		EC2Used:  true, Rights: path.Known([]Right{{Action: "ec2:DescribeSubnets", Verdict: Granted}, {Action: "ec2:AssignPrivateIpAddresses", Verdict: Untried, Text: "EC2 has no dry run of it"}}),
		Subnets: path.Known([]vpc.Subnet{{ID: "subnet-1", Free: 200}}), Skew: path.Known(time.Duration(0)),
		Agent: path.Known(Agent{Version: "v1.2.3", MaxPodsFit: 29}), Records: path.Known(Records{Dir: "/run/fairway/addresses", Read: 7}), Drift: path.Known[[]string](nil),
	}
}

// troubled is one on which much is wrong at once.
func troubled() Facts {
	f := well()
	f.Kernel.Value.Missing = []string{"nftables NAT in family inet (since Linux 5.2, for: source NAT): no such file"}
	f.Devices.Value[1].MTU, f.Devices.Value[1].BPF = 1400, []string{"ingress cil_from_netdev"}
	f.Devices.Value = append(f.Devices.Value, path.Device{Name: "cilium_host", Kind: "veth"}, path.Device{Name: "kube-ipvs0", Kind: "dummy"})
	f.Rules.Value = append(f.Rules.Value, path.IPRule{Priority: 1024, Mark: 0x80, Mask: 0x80, Table: 254, Action: "lookup", Suppress: -1})
	f.Sysctls.Value["net/ipv4/conf/all/rp_filter"] = "1"
	f.Chains.Value = append(f.Chains.Value, Chain{Table: "ip nat", Name: "AWS-SNAT-CHAIN-0"}, Chain{Table: "ip kube-proxy", Name: "services"})
	f.Programs.Value = append(f.Programs.Value, "aws-k8s-agent", "systemd-network", "NetworkManager")
	f.DropIns["NetworkManager"] = true
	f.Kubelet.Value.MaxPods = 110
	f.Lists.Value = append([]List{{File: "05-aws.conflist", Name: "aws-cni", Plugins: []string{"aws-cni"}}}, f.Lists.Value...)
	f.Lists.Value[1].Plugins = []string{"bridge"}
	f.Plugin.Value.Version = "v1.0.0"
	f.Metadata.Value.Took = 2 * time.Second
	f.Metadata.Value.ENIs = append(f.Metadata.Value.ENIs, vpc.ENI{ID: "eni-0b", Groups: []string{"sg-2"}})
	f.Rights.Value[0] = Right{Action: "ec2:DescribeSubnets", Verdict: Denied, Text: "You are not authorized\x1b[31m", Without: "ENIs are made in one subnet only"}
	f.Rights.Value = append(f.Rights.Value, Right{Action: "ec2:CreateTags", Verdict: Denied, Minor: true, Without: "the name is missing"}, Right{Action: "ec2:DetachNetworkInterface", Verdict: Unclear, Text: "no answer"})
	f.Subnets.Value = []vpc.Subnet{{ID: "subnet-1"}, {ID: "subnet-2", Free: 3}, {ID: "subnet-3", Free: -1}}
	f.Skew.Value = -400 * time.Second
	f.Agent.Value.Wrong, f.Agent.Value.Warnings = []string{"EC2 does not answer"}, []string{"the node is full"}
	f.Records.Value.Bad = []string{"10.0.1.9 (unexpected end of JSON input)"}
	f.Drift.Value = []string{"+ rule 20: from all lookup 100"}
	return f
}

// before is a node without Fairway, of which most could not be looked at.
func before() Facts {
	return Facts{
		Kernel:   path.Unknown[Kernel]("run it as root"),
		Lists:    path.Known([]List{{File: "10-aws.conflist"}}),
		ListDir:  "/etc/cni/net.d",
		Metadata: path.Unknown[Metadata]("instance metadata service (IMDS) is unavailable"), Kubelet: path.Unknown[Kubelet]("no kubelet runs here"),
		EC2Used: true, Agent: path.Unknown[Agent]("no agent answers"),
	}
}

func TestText(t *testing.T) {
	for name, tc := range map[string]struct {
		facts  Facts
		status int
	}{"well": {well(), 0}, "troubled": {troubled(), 1}, "before": {before(), 1}} {
		t.Run(name, func(t *testing.T) {
			r := Judge(tc.facts)
			if r.Status() != tc.status {
				t.Errorf("status %d, want %d", r.Status(), tc.status)
			}
			var got bytes.Buffer
			if err := r.Text(&got); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", name+".txt")
			if os.Getenv("UPDATE") != "" {
				if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got.String()); d != "" {
				t.Errorf("%s (-want +got), UPDATE=1 writes it:\n%s", file, d)
			}
		})
	}
}

// TestEachFault: one thing at a time goes wrong, and just its line says so.
func TestEachFault(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*Facts)
		check  string
		result Result
		status int
	}{
		{"no agent", func(f *Facts) { f.Agent = path.Unknown[Agent]("no agent answers") }, "agent", Failed, 1},
		{"no plugin", func(f *Facts) { f.Plugin = path.Unknown[Program]("no such file") }, "plugin", Failed, 1},
		{"not our plugin", func(f *Facts) { f.Plugin.Value.Problem = "it is another program" }, "plugin", Failed, 1},
		{"no list", func(f *Facts) { f.Lists.Value = nil }, "network configuration", Failed, 1},
		{"a list that is none", func(f *Facts) { f.Lists.Value[0].Problem = "EOF" }, "network configuration", Failed, 1},
		{"a later list", func(f *Facts) { f.Lists.Value = append(f.Lists.Value, List{File: "20-x.conf"}) }, "other CNI", Warning, 0},
		{"pods larger than the ENI", func(f *Facts) { f.Devices.Value[1].MTU = 1500 }, "MTU", Failed, 1},
		{"no ENI", func(f *Facts) { f.Devices.Value[1].Kind = "veth" }, "MTU", Skipped, 2},
		{"legacy and nft", func(f *Facts) {
			f.Chains.Value = append(f.Chains.Value, Chain{Table: "ip nat", Name: "KUBE-SERVICES", Legacy: true})
		}, "kube-proxy", Warning, 0},
		{"no limits", func(f *Facts) { f.Limits = path.Unknown[vpc.Limits]("newer") }, "instance type", Warning, 0},
		{"a clock that is off", func(f *Facts) { f.Skew.Value = time.Minute }, "clock", Warning, 0},
		{"EC2 is not used", func(f *Facts) { f.EC2Used = false }, "rights", Skipped, 0},
		{"rights nobody could try", func(f *Facts) { f.Rights = path.Unknown[[]Right]("no answer") }, "rights", Skipped, 2},
		{"records nobody can read", func(f *Facts) { f.Records = path.Unknown[Records]("permission denied") }, "records", Skipped, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := well()
			tc.change(&f)
			r := Judge(f)
			if got := r.Status(); got != tc.status {
				t.Errorf("status %d, want %d", got, tc.status)
			}
			found := false
			for _, l := range r.Lines {
				found = found || l.Check == tc.check && l.Result == tc.result
				if (l.Result == Failed || l.Result == Warning) && l.Do == "" && !strings.HasPrefix(l.Check, "agent's") {
					t.Errorf("%s fails and says not what to do", l.Check)
				}
			}
			if !found {
				t.Errorf("no line %q with %q in %+v", tc.check, tc.result, r.Lines)
			}
		})
	}
}
