package main

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/fairway-cni/fairway/internal/agent"
	"github.com/fairway-cni/fairway/internal/core/intent"
)

// parse reads a command line in an environment.
func parse(t *testing.T, env map[string]string, args ...string) (agent.Config, []error, error) {
	t.Helper()
	for name, value := range env {
		t.Setenv(name, value)
	}
	o := &options{cfg: agent.Default()}
	f := pflag.NewFlagSet("test", pflag.ContinueOnError)
	o.register(f)
	if err := f.Parse(args); err != nil {
		t.Fatal(err)
	}
	return o.config(f)
}

// TestVariables: every option of the VPC CNI's datapath is heard under its name.
func TestVariables(t *testing.T) {
	p := netip.MustParsePrefix
	for _, tt := range []struct {
		variable, value string
		change          func(*agent.Config)
	}{
		{"AWS_VPC_ENI_MTU", "1500", func(c *agent.Config) { c.Datapath.ENIMTU = 1500 }},
		{"POD_MTU", "1400", func(c *agent.Config) { c.PodMTU = 1400 }},
		{"AWS_VPC_K8S_CNI_VETHPREFIX", "eni", func(c *agent.Config) { c.VethPrefix = "eni" }},
		{"AWS_VPC_CNI_NODE_PORT_SUPPORT", "false", func(c *agent.Config) { c.Datapath.NodePort = false }},
		{"AWS_VPC_K8S_CNI_EXTERNALSNAT", "true", func(c *agent.Config) { c.Datapath.ExternalSNAT = true }},
		{"AWS_VPC_K8S_CNI_RANDOMIZESNAT", "hashrandom", func(c *agent.Config) { c.Datapath.RandomizeSNAT = intent.HashRandom }},
		{"AWS_VPC_K8S_CNI_RANDOMIZESNAT", "none", func(c *agent.Config) { c.Datapath.RandomizeSNAT = intent.NoRandom }},
		{"AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS", "10.9.0.0/16,192.168.1.1/16", func(c *agent.Config) {
			c.Native.Also = []netip.Prefix{p("10.9.0.0/16"), p("192.168.0.0/16")}
		}},
		{"AWS_EXTERNAL_SERVICE_CIDRS", "172.20.0.0/16", func(c *agent.Config) {
			c.Datapath.ExternalServices = []netip.Prefix{p("172.20.0.0/16")}
		}},
		{"AWS_VPC_K8S_CNI_CONNMARK", "0x100", func(c *agent.Config) { c.Datapath.BoundMark = 0x100 }},
		{"AWS_VPC_K8S_CNI_CONNMARK", "256", func(c *agent.Config) { c.Datapath.BoundMark = 0x100 }},
		{"AWS_VPC_K8S_CNI_CONFIGURE_RPFILTER", "false", func(c *agent.Config) { c.Datapath.ConfigureRPFilter = false }},
		{"ENABLE_BANDWIDTH_PLUGIN", "true", func(c *agent.Config) { c.Bandwidth = true }},
		{"DISABLE_TCP_EARLY_DEMUX", "true", func(c *agent.Config) { c.Datapath.NoEarlyDemux = true }},
	} {
		t.Run(tt.variable+"="+tt.value, func(t *testing.T) {
			got, skipped, err := parse(t, map[string]string{tt.variable: tt.value})
			if err != nil || len(skipped) > 0 {
				t.Fatalf("%v, skipped %v", err, skipped)
			}
			want := agent.Default()
			tt.change(&want)
			same := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
			if d := cmp.Diff(want, got, same); d != "" {
				t.Errorf("configuration (-want +got):\n%s", d)
			}
			if cmp.Equal(agent.Default(), got, same) {
				t.Error("the variable changed nothing")
			}
		})
	}
}

func TestFlagGoesBeforeVariable(t *testing.T) {
	c, _, err := parse(t, map[string]string{"AWS_VPC_ENI_MTU": "1500"}, "--eni-mtu", "8000")
	if err != nil || c.Datapath.ENIMTU != 8000 {
		t.Errorf("mtu %d, %v; want 8000", c.Datapath.ENIMTU, err)
	}
	c, _, err = parse(t, nil, "--native", "vpc", "--native-cidrs", "10.1.0.0/16,10.2.0.0/16", "--ipv4-native-routing-cidr", "10.0.0.0/8")
	if err != nil || !c.Native.VPCOnly || len(c.Native.Also) != 3 {
		t.Errorf("native %+v, %v; want the VPC only and three prefixes", c.Native, err)
	}
}

func TestInvalidItemsAreSkippedAndSaid(t *testing.T) {
	c, skipped, err := parse(t, map[string]string{
		"AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS": "10.9.0.0/16,nonsense,fd00::/8",
		"AWS_EXTERNAL_SERVICE_CIDRS":         "10.300.0.0/16",
	})
	if err != nil || len(c.Native.Also) != 1 || len(c.Datapath.ExternalServices) != 0 {
		t.Errorf("%v: excluded %v, services %v; want the one sound prefix", err, c.Native.Also, c.Datapath.ExternalServices)
	}
	text := errors.Join(skipped...).Error()
	for _, want := range []string{"nonsense", "fd00::/8 is not IPv4", "10.300.0.0/16", "AWS_EXTERNAL_SERVICE_CIDRS"} {
		if !strings.Contains(text, want) {
			t.Errorf("skipped: %s\nwant it to say %q", text, want)
		}
	}
}

func TestWrongOptions(t *testing.T) {
	for _, tt := range []struct {
		env  map[string]string
		args []string
		want string
	}{
		{map[string]string{"AWS_VPC_ENI_MTU": "large"}, nil, "AWS_VPC_ENI_MTU"},
		{map[string]string{"AWS_VPC_K8S_CNI_RANDOMIZESNAT": "dice"}, nil, `"dice"`},
		{map[string]string{"AWS_VPC_K8S_CNI_CONNMARK": "x"}, nil, "connection mark"},
		{map[string]string{"AWS_VPC_K8S_CNI_CONNMARK": "0x1000000"}, nil, "connection mark 0x1000000"},
		{map[string]string{"AWS_VPC_K8S_CNI_VETHPREFIX": "eth"}, nil, `veth prefix "eth"`},
		{map[string]string{"AWS_VPC_K8S_CNI_VETHPREFIX": "longer"}, nil, `veth prefix "longer"`},
		{nil, []string{"--native", "10.0.0.0/8"}, "must be routes or vpc"},
		{nil, []string{"--native-cidrs", "10.0.0.0"}, "native prefix"},
		{nil, []string{"--native-cidrs", "fd00::/8"}, "fd00::/8"},
		{map[string]string{"ENABLE_BANDWIDTH_PLUGIN": "10M"}, nil, "ENABLE_BANDWIDTH_PLUGIN"},
		{nil, []string{"--cni-bin-dir", "bin"}, `cni bin dir "bin"`},
		{nil, []string{"--vpc-poll", "1ms"}, "vpc poll 1ms"},
	} {
		t.Run(tt.want, func(t *testing.T) {
			if _, _, err := parse(t, tt.env, tt.args...); !errors.Is(err, errUsage) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one of usage with %q", err, tt.want)
			}
		})
	}
}
