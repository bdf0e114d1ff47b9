package main

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/fairway-cni/fairway/internal/agent"
	"github.com/fairway-cni/fairway/internal/core/intent"
)

// parse reads a command line in an environment.
func parse(t *testing.T, env map[string]string, args ...string) (*resolution, error) {
	t.Helper()
	f := pflag.NewFlagSet("test", pflag.ContinueOnError)
	register(f)
	if err := f.Parse(args); err != nil {
		t.Fatal(err)
	}
	return resolve(f, func(name string) (string, bool) { v, ok := env[name]; return v, ok })
}

// writeFile makes a settings file.
func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

var samePrefix = cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })

// said is a value of each option that makes a difference, and what difference
// it makes.
var said = []struct {
	option, value string
	change        func(*agent.Config)
}{
	{"warm-eni-target", "2", func(c *agent.Config) { c.Targets.WarmENIs = 2 }},
	{"warm-eni-target", "0", func(c *agent.Config) { c.Targets.WarmENIs = 0 }},
	{"warm-ip-target", "5", func(c *agent.Config) { c.Targets.WarmIPs = 5 }},
	{"minimum-ip-target", "30", func(c *agent.Config) { c.Targets.MinimumIPs = 30 }},
	{"prefix-delegation", "true", func(c *agent.Config) { c.Targets.Prefixes = true }},
	{"warm-prefix-target", "1", func(c *agent.Config) { c.Targets.WarmPrefixes = 1 }},
	{"max-enis", "3", func(c *agent.Config) { c.Targets.MaxENIs = 3 }},
	{"max-pods", "29", func(c *agent.Config) { c.MaxPods = 29 }},
	{"cool-down", "10", func(c *agent.Config) { c.CoolDown = 10 * time.Second }},
	{"cool-down", "0", func(c *agent.Config) { c.CoolDown = 0 }},
	{"cool-down", "1m30s", func(c *agent.Config) { c.CoolDown = 90 * time.Second }},
	{"return-after", "5m", func(c *agent.Config) { c.Targets.ReturnAfter = 5 * time.Minute }},
	{"add-wait", "90s", func(c *agent.Config) { c.AddWait = 90 * time.Second }},

	{"cluster-name", "prod", func(c *agent.Config) { c.ClusterName = "prod" }},
	{"eni-tags", `{"team":"net","cost":""}`, func(c *agent.Config) { c.ENITags = map[string]string{"team": "net", "cost": ""} }},
	{"eni-config-annotation", "example.com/eniConfig", func(c *agent.Config) { c.CustomNetwork.AnnotationKey = "example.com/eniConfig" }},
	{"eni-config-label", "topology.kubernetes.io/zone", func(c *agent.Config) { c.CustomNetwork.LabelKey = "topology.kubernetes.io/zone" }},
	{"eni-config-file", "/etc/fairway/eniconfigs.yaml", func(c *agent.Config) { c.CustomNetwork.File = "/etc/fairway/eniconfigs.yaml" }},
	{"subnet-discovery", "false", func(c *agent.Config) { c.SubnetDiscovery = false }},
	{"manage-untagged-eni", "false", func(c *agent.Config) { c.ManageUntagged = false }},
	{"disable-leaked-eni-cleanup", "true", func(c *agent.Config) { c.LeakedCleanup = false }},
	{"disable-network-resource-provisioning", "true", func(c *agent.Config) { c.Targets.NoProvisioning, c.LeakedCleanup = true, false }},
	{"imds-only", "true", func(c *agent.Config) {
		c.IMDSOnly, c.Targets.NoProvisioning, c.Targets.MarkAndTag, c.LeakedCleanup = true, true, false, false
	}},

	{"kubeconfig", "/etc/k", func(c *agent.Config) { c.Cluster.Kubeconfig = "/etc/k" }},
	{"cluster-endpoint", "https://10.0.0.10:6443", func(c *agent.Config) { c.Cluster.Endpoint = "https://10.0.0.10:6443" }},
	{"annotate-pod-ip", "true", func(c *agent.Config) { c.Cluster.AnnotatePodIPs = true }},

	{"metrics-address", "127.0.0.1:61678", func(c *agent.Config) { c.Metrics = "127.0.0.1:61678" }},
	{"disable-metrics", "true", func(c *agent.Config) { c.Metrics = "" }},
	{"introspection-address", "[::1]:61679", func(c *agent.Config) { c.Introspection = "[::1]:61679" }},
	{"introspection-address", "unix:/run/i.sock", func(c *agent.Config) { c.Introspection = "unix:/run/i.sock" }},
	{"disable-introspection", "true", func(c *agent.Config) { c.Introspection = "" }},
	{"plugin-log-level", "eRRoR", func(c *agent.Config) { c.PluginLogLevel = "ERROR" }},
	{"plugin-log-file", "/var/log/plugin.log", func(c *agent.Config) { c.PluginLogFile = "/var/log/plugin.log" }},
	{"plugin-log-file", "stderr", func(c *agent.Config) { c.PluginLogFile = "stderr" }},

	{"socket", "/run/a", func(c *agent.Config) { c.Socket = "/run/a" }},
	{"admin-socket", "/run/b", func(c *agent.Config) { c.Admin = "/run/b" }},
	{"cri-socket", "unix:///run/containerd/containerd.sock", func(c *agent.Config) { c.CRISocket = "/run/containerd/containerd.sock" }},
	{"cri-socket", "/run/crio/crio.sock", func(c *agent.Config) { c.CRISocket = "/run/crio/crio.sock" }},
	{"state-dir", "/run/c", func(c *agent.Config) { c.StateDir = "/run/c" }},
	{"spool-dir", "/run/d", func(c *agent.Config) { c.SpoolDir = "/run/d" }},
	{"cni-conf-dir", "/etc/e", func(c *agent.Config) { c.CNIConfDir = "/etc/e" }},
	{"cni-bin-dir", "/opt/f", func(c *agent.Config) { c.CNIBinDir = "/opt/f" }},
	{"sysctl-dir", "/host/proc/sys", func(c *agent.Config) { c.SysctlDir = "/host/proc/sys" }},
	{"bandwidth", "true", func(c *agent.Config) { c.Bandwidth = true }},

	{"native", "vpc", func(c *agent.Config) { c.Native.VPCOnly = true }},
	{"native-cidrs", "10.1.0.0/16,10.2.0.0/16", func(c *agent.Config) { c.Native.Also = also("10.1.0.0/16", "10.2.0.0/16") }},
	{"ipv4-native-routing-cidr", "10.0.0.0/8", func(c *agent.Config) { c.Native.Also = also("10.0.0.0/8") }},
	{"exclude-snat-cidrs", "10.9.0.0/16,192.168.1.1/16", func(c *agent.Config) { c.Native.Also = also("10.9.0.0/16", "192.168.0.0/16") }},
	{"vpc-poll", "5m", func(c *agent.Config) { c.VPCPoll = 5 * time.Minute }},

	{"external-snat", "true", func(c *agent.Config) { c.Datapath.ExternalSNAT = true }},
	{"randomize-snat", "HashRandom", func(c *agent.Config) { c.Datapath.RandomizeSNAT = intent.HashRandom }},
	{"randomize-snat", "none", func(c *agent.Config) { c.Datapath.RandomizeSNAT = intent.NoRandom }},
	{"node-port-support", "false", func(c *agent.Config) { c.Datapath.NodePort = false }},
	{"external-services", "172.20.0.0/16", func(c *agent.Config) { c.Datapath.ExternalServices = also("172.20.0.0/16") }},
	{"connection-mark", "0x100", func(c *agent.Config) { c.Datapath.BoundMark = 0x100 }},
	{"connection-mark", "256", func(c *agent.Config) { c.Datapath.BoundMark = 0x100 }},
	{"configure-rp-filter", "false", func(c *agent.Config) { c.Datapath.ConfigureRPFilter = false }},
	{"disable-early-demux", "true", func(c *agent.Config) { c.Datapath.NoEarlyDemux = true }},
	{"eni-mtu", "1500", func(c *agent.Config) { c.Datapath.ENIMTU = 1500 }},
	{"pod-mtu", "1400", func(c *agent.Config) { c.PodMTU = 1400 }},
	{"veth-prefix", "eni", func(c *agent.Config) { c.VethPrefix = "eni" }},
}

func also(list ...string) []netip.Prefix { return parsed(list) }

// TestEveryOption: each is heard as a flag, as its variable, and in the file, to
// the same effect.
func TestEveryOption(t *testing.T) {
	heard := map[string]bool{
		"log-level": true, "log-file": true, // the program's own: TestLogOptions
		"custom-networking": true, // needs a second one: TestCustomNetworking
		"node-name":         true, // the same: TestCluster
	}
	byName := make(map[string]option)
	for _, o := range options() {
		byName[o.name] = o
	}
	for _, tt := range said {
		heard[tt.option] = true
		o, ok := byName[tt.option]
		if !ok {
			t.Fatalf("no option %s", tt.option)
		}
		want := agent.Default()
		tt.change(&want)
		if cmp.Equal(agent.Default(), want, samePrefix) {
			t.Errorf("%s=%s makes no difference", tt.option, tt.value)
		}
		ways := map[string]func() (*resolution, error){
			"flag": func() (*resolution, error) { return parse(t, nil, "--"+o.name+"="+tt.value) },
			"file": func() (*resolution, error) {
				return parse(t, nil, "--config", writeFile(t, o.name+": '"+tt.value+"'\n"))
			},
		}
		if o.variable != "" {
			ways["variable"] = func() (*resolution, error) { return parse(t, map[string]string{o.variable: tt.value}) }
		}
		for way, read := range ways {
			got, err := read()
			if err != nil || len(got.skipped) > 0 {
				t.Errorf("%s=%s as %s: %v, skipped %v", o.name, tt.value, way, err, got)
				continue
			}
			if d := cmp.Diff(want, got.cfg, samePrefix); d != "" {
				t.Errorf("%s=%s as %s (-want +got):\n%s", o.name, tt.value, way, d)
			}
			if from := got.from(o); !strings.HasPrefix(from, map[string]string{"flag": "flag", "file": "/", "variable": "environment " + o.variable}[way]) {
				t.Errorf("%s as %s is said to be from %q", o.name, way, from)
			}
		}
	}
	for name := range byName {
		if !heard[name] {
			t.Errorf("no value of %s is tried", name)
		}
	}
}

// TestExamples: the example of each option is a value that makes a difference,
// and a value printed can be read again.
func TestExamples(t *testing.T) {
	for _, o := range options() {
		s := defaults()
		before := o.parser.text(s)
		if err := o.set(s, o.example); err != nil {
			t.Errorf("%s=%s: %v", o.name, o.example, err)
		}
		after := o.parser.text(s)
		if before == after {
			t.Errorf("%s=%s makes no difference", o.name, o.example)
		}
		for _, text := range []string{before, after} {
			if err := o.set(s, text); err != nil || o.parser.text(s) != text {
				t.Errorf("%s: %q is read as %q: %v", o.name, text, o.parser.text(s), err)
			}
		}
	}
}

func TestCustomNetworking(t *testing.T) {
	r, err := parse(t, map[string]string{"AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG": "true"}, "--eni-config-file=/etc/e.yaml")
	if err != nil || !r.cfg.CustomNetwork.Enabled || r.cfg.CustomNetwork.File != "/etc/e.yaml" {
		t.Fatalf("%v, %v", r, err)
	}
	_, err = parse(t, map[string]string{"AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG": "true"})
	if err == nil || !strings.Contains(err.Error(), "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG: custom networking without an eni config file") {
		t.Error(err)
	}
}

func TestLogOptions(t *testing.T) {
	r, err := parse(t, map[string]string{"AWS_VPC_K8S_CNI_LOGLEVEL": "fatal", "AWS_VPC_K8S_CNI_LOG_FILE": "stdout"})
	if err != nil || r.logLevel != "FATAL" || r.logFile != "stdout" {
		t.Errorf("%+v, %v", r, err)
	}
	r, err = parse(t, nil, "--log-level", "debug", "--log-file", "/var/log/a.log")
	if err != nil || r.logLevel != "DEBUG" || r.logFile != "/var/log/a.log" {
		t.Errorf("%+v, %v", r, err)
	}
	for _, level := range agent.LogLevels() {
		if _, ok := levels[level]; !ok {
			t.Errorf("level %s is unknown to the log", level)
		}
	}
}

func TestWhatTheSeedIgnores(t *testing.T) {
	for _, tt := range []struct {
		variable, value string
		change          func(*agent.Config)
		skipped         []string
	}{
		{"MAX_ENI", "0", func(*agent.Config) {}, nil},
		{"MAX_ENI", "-2", func(*agent.Config) {}, nil},
		{"WARM_IP_TARGET", "", func(*agent.Config) {}, nil},
		{"ADDITIONAL_ENI_TAGS", `{"a":"b","node.k8s.amazonaws.com/x":"1","k8s.amazonaws.com":"2"}`,
			func(c *agent.Config) { c.ENITags = map[string]string{"a": "b"} },
			[]string{`ADDITIONAL_ENI_TAGS: tag "k8s.amazonaws.com": k8s.amazonaws.com is reserved`, `tag "node.k8s.amazonaws.com/x"`}},
		{"ADDITIONAL_ENI_TAGS", `{"k8s.amazonaws.com/x":"1"}`, func(*agent.Config) {}, []string{"is reserved"}},
		{"AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS", "10.9.0.0/16,nonsense, fd00::/8",
			func(c *agent.Config) { c.Native.Also = also("10.9.0.0/16") },
			[]string{`AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS: "nonsense" is no prefix`, "fd00::/8 is not IPv4"}},
		{"AWS_EXTERNAL_SERVICE_CIDRS", "10.300.0.0/16", func(*agent.Config) {}, []string{"AWS_EXTERNAL_SERVICE_CIDRS", "10.300.0.0/16"}},
	} {
		t.Run(tt.variable+"="+tt.value, func(t *testing.T) {
			r, err := parse(t, map[string]string{tt.variable: tt.value})
			if err != nil {
				t.Fatal(err)
			}
			want := agent.Default()
			tt.change(&want)
			if d := cmp.Diff(want, r.cfg, samePrefix); d != "" {
				t.Errorf("configuration (-want +got):\n%s", d)
			}
			if len(tt.skipped) == 0 != (len(r.skipped) == 0) {
				t.Errorf("skipped %v, want %v", r.skipped, tt.skipped)
			}
			for _, want := range tt.skipped {
				if text := errors.Join(r.skipped...); !strings.Contains(text.Error(), want) {
					t.Errorf("skipped: %v\nwant it to say %q", text, want)
				}
			}
		})
	}
}
