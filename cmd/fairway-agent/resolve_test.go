package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

func TestPrecedence(t *testing.T) {
	file := writeFile(t, "warm-ip-target: 1\nminimum-ip-target: 2\nmax-pods: 3\n")
	env := map[string]string{"WARM_IP_TARGET": "10", "MINIMUM_IP_TARGET": "20"}
	r, err := parse(t, env, "--config", file, "--warm-ip-target", "100")
	if err != nil {
		t.Fatal(err)
	}
	if got := [...]int{r.cfg.Targets.WarmIPs, r.cfg.Targets.MinimumIPs, r.cfg.MaxPods, r.cfg.Targets.WarmENIs}; got != [...]int{100, 20, 3, 1} {
		t.Errorf("flag, environment, file, default: %v", got)
	}
	var out bytes.Buffer
	if err := show(&out, r, "text"); err != nil {
		t.Fatal(err)
	}
	for option, want := range map[string]string{
		"warm-ip-target":    `100 +flag`,
		"minimum-ip-target": `20 +environment MINIMUM_IP_TARGET`,
		"max-pods":          `3 +` + regexp.QuoteMeta(file) + `:3`,
		"warm-eni-target":   `1 +default`,
		"cluster-name":      `"" +default`,
	} {
		if !regexp.MustCompile(`(?m)^` + option + ` +` + want + `$`).MatchString(out.String()) {
			t.Errorf("config does not print %s as %s:\n%s", option, want, out.String())
		}
	}
}

func TestShowJSON(t *testing.T) {
	r, err := parse(t, map[string]string{"ENABLE_IMDS_ONLY_MODE": "true", "ADDITIONAL_ENI_TAGS": `{"a":"<b>"}`})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := show(&out, r, "json"); err != nil {
		t.Fatal(err)
	}
	var list []shown
	if err := json.Unmarshal(out.Bytes(), &list); err != nil {
		t.Fatal(err)
	}
	if len(list) != len(options()) || !strings.Contains(out.String(), "<b>") {
		t.Errorf("%d options:\n%s", len(list), out.String())
	}
	found := make(map[string]shown)
	for _, s := range list {
		found[s.Option] = s
	}
	for name, want := range map[string]shown{
		"imds-only":                             {Variable: "ENABLE_IMDS_ONLY_MODE", Value: "true", Default: "false", From: "environment ENABLE_IMDS_ONLY_MODE"},
		"disable-network-resource-provisioning": {Variable: "DISABLE_NETWORK_RESOURCE_PROVISIONING", Value: "true", Default: "false", From: "implied by imds-only"},
		"disable-leaked-eni-cleanup":            {Variable: "DISABLE_LEAKED_ENI_CLEANUP", Value: "true", Default: "false", From: "implied by disable-network-resource-provisioning"},
		"max-pods":                              {Value: "0", Default: "0", From: "default"},
	} {
		want.Option = name
		if found[name] != want {
			t.Errorf("got %+v, want %+v", found[name], want)
		}
	}
}

// TestLists: items of a repeated flag and of a list in a file come together.
func TestLists(t *testing.T) {
	file := writeFile(t, "exclude-snat-cidrs:\n  - 192.168.0.0/16\n  - nonsense\neni-tags: {team: net}\n")
	r, err := parse(t, nil, "--config", file, "--native-cidrs", "10.1.0.0/16", "--native-cidrs", "10.2.0.0/16,10.3.0.0/16", "--ipv4-native-routing-cidr", "10.0.0.0/8")
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(r.cfg.Native.Also); got != "[10.1.0.0/16 10.2.0.0/16 10.3.0.0/16 10.0.0.0/8 192.168.0.0/16]" {
		t.Error(got)
	}
	if got := fmt.Sprint(r.skipped); got != "["+file+`:1: exclude-snat-cidrs: "nonsense" is no prefix]` {
		t.Error(got)
	}
	if r.cfg.ENITags["team"] != "net" || len(r.cfg.ENITags) != 1 {
		t.Error(r.cfg.ENITags)
	}
}

// TestBadValues: each is one line of usage that names who said it, the value and
// what is allowed.
func TestBadValues(t *testing.T) {
	long := strings.Repeat("x", 300)
	for _, tt := range []struct{ variable, value, want string }{
		{"WARM_ENI_TARGET", "-1", `WARM_ENI_TARGET "-1": must be a whole number from 0 to 65535`},
		{"WARM_IP_TARGET", "five", `WARM_IP_TARGET "five": must be a whole number`},
		{"WARM_IP_TARGET", "65536", `WARM_IP_TARGET "65536": must be a whole number`},
		{"MINIMUM_IP_TARGET", "1.5", `MINIMUM_IP_TARGET "1.5": must be a whole number`},
		{"WARM_PREFIX_TARGET", "-1", `WARM_PREFIX_TARGET "-1": must be a whole number`},
		{"MAX_ENI", "none", `MAX_ENI "none": must be a whole number up to 65535 (0 or less: not used)`},
		{"ENABLE_PREFIX_DELEGATION", "on", `ENABLE_PREFIX_DELEGATION "on": must be true or false`},
		{"IP_COOLDOWN_PERIOD", "-1", `IP_COOLDOWN_PERIOD "-1": must be seconds, or a duration as in 90s`},
		{"IP_COOLDOWN_PERIOD", "soon", `IP_COOLDOWN_PERIOD "soon": must be seconds`},
		{"IP_COOLDOWN_PERIOD", "9999999999999", `must be seconds`},
		{"ADDITIONAL_ENI_TAGS", `{"a":1}`, `ADDITIONAL_ENI_TAGS "{\"a\":1}": must be a JSON object of texts`},
		{"ADDITIONAL_ENI_TAGS", `null`, `must be a JSON object`},
		{"ADDITIONAL_ENI_TAGS", `{"` + long + `":"b"}`, `must have at most 128 characters in its key`},
		{"ADDITIONAL_ENI_TAGS", `{"a":"` + long + `"}`, `ADDITIONAL_ENI_TAGS: eni tag "a": must have at most 256 characters in its value, has 300`},
		{"ADDITIONAL_ENI_TAGS", `{"AWS:x":"y"}`, `eni tag "AWS:x": must not begin with aws:`},
		{"ADDITIONAL_ENI_TAGS", `{"":"y"}`, `ADDITIONAL_ENI_TAGS: eni tag with an empty key`},
		{"CLUSTER_NAME", long, "CLUSTER_NAME: cluster name of 300 characters: must have at most 256"},
		{"CLUSTER_NAME", "prod\n", `CLUSTER_NAME: cluster name "prod\n": must have no space at its ends`},
		{"CLUSTER_NAME", "pr\x00d", `cluster name "pr\x00d": must have`},
		{"ENI_CONFIG_LABEL_DEF", "topology.kubernetes.io/", `ENI_CONFIG_LABEL_DEF: eni config label "topology.kubernetes.io/": must be a key`},
		{"ENI_CONFIG_LABEL_DEF", "/zone", `eni config label "/zone": must be a key`},
		{"ENI_CONFIG_LABEL_DEF", "a/b/c", `eni config label "a/b/c": must be a key`},
		{"ENI_CONFIG_ANNOTATION_DEF", "eni config", `ENI_CONFIG_ANNOTATION_DEF: eni config annotation "eni config": must be a key`},
		{"ENI_CONFIG_ANNOTATION_DEF", "x\n", `eni config annotation "x\n": must be a key`},
		{"ENI_CONFIG_ANNOTATION_DEF", long, `must be a key`},
		{"ENABLE_SUBNET_DISCOVERY", "tagged", `ENABLE_SUBNET_DISCOVERY "tagged": must be true or false`},
		{"MANAGE_UNTAGGED_ENI", "?", "MANAGE_UNTAGGED_ENI"},
		{"DISABLE_LEAKED_ENI_CLEANUP", "?", "DISABLE_LEAKED_ENI_CLEANUP"},
		{"DISABLE_NETWORK_RESOURCE_PROVISIONING", "?", "DISABLE_NETWORK_RESOURCE_PROVISIONING"},
		{"ENABLE_IMDS_ONLY_MODE", "?", "ENABLE_IMDS_ONLY_MODE"},
		{"AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", "?", "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG"},
		{"DISABLE_METRICS", "?", "DISABLE_METRICS"},
		{"DISABLE_INTROSPECTION", "?", "DISABLE_INTROSPECTION"},
		{"INTROSPECTION_BIND_ADDRESS", "61679", `INTROSPECTION_BIND_ADDRESS: introspection address "61679": must be an IP address and a port`},
		{"INTROSPECTION_BIND_ADDRESS", "node.example:61679", "must be an IP address and a port"},
		{"INTROSPECTION_BIND_ADDRESS", "127.0.0.1:99999", "must be an IP address and a port"},
		{"INTROSPECTION_BIND_ADDRESS", "unix:i.sock", `introspection address "unix:i.sock": must be host:port, or unix: and an absolute path`},
		{"AWS_VPC_K8S_CNI_LOGLEVEL", "loud", `AWS_VPC_K8S_CNI_LOGLEVEL "loud": must be one of DEBUG, INFO, WARN, ERROR, FATAL`},
		{"AWS_VPC_K8S_CNI_LOG_FILE", "agent.log", `AWS_VPC_K8S_CNI_LOG_FILE: log file "agent.log": must be stdout, stderr or an absolute path`},
		{"AWS_VPC_K8S_PLUGIN_LOG_LEVEL", "2", `AWS_VPC_K8S_PLUGIN_LOG_LEVEL "2": must be one of`},
		{"AWS_VPC_K8S_PLUGIN_LOG_FILE", "stdout", `AWS_VPC_K8S_PLUGIN_LOG_FILE: plugin log file "stdout": must be stderr or an absolute path`},
		{"AWS_VPC_K8S_PLUGIN_LOG_FILE", "plugin.log", `plugin log file "plugin.log"`},
		{"AWS_VPC_ENI_MTU", "large", `AWS_VPC_ENI_MTU "large": must be a whole number from 576 to 9001`},
		{"POD_MTU", "-1", `POD_MTU "-1": must be a whole number from 576 to 9001 (0: that of the ENIs)`},
		{"AWS_VPC_ENI_MTU", "575", `AWS_VPC_ENI_MTU: eni mtu 575: must be from 576 to 9001`},
		{"POD_MTU", "9002", `POD_MTU: pod mtu 9002: must be from 576 to 9001`},
		{"AWS_VPC_K8S_CNI_RANDOMIZESNAT", "dice", `AWS_VPC_K8S_CNI_RANDOMIZESNAT "dice": must be one of prng, hashrandom, none`},
		{"AWS_VPC_K8S_CNI_CONNMARK", "x", `AWS_VPC_K8S_CNI_CONNMARK "x": must be a number of one bit`},
		{"AWS_VPC_K8S_CNI_CONNMARK", "0x1000000", `AWS_VPC_K8S_CNI_CONNMARK: connection mark 0x1000000: must be one bit outside`},
		{"AWS_VPC_K8S_CNI_VETHPREFIX", "eth", `AWS_VPC_K8S_CNI_VETHPREFIX: veth prefix "eth": must be`},
		{"AWS_VPC_K8S_CNI_VETHPREFIX", "longer", `veth prefix "longer"`},
		{"AWS_VPC_K8S_CNI_EXTERNALSNAT", "?", "AWS_VPC_K8S_CNI_EXTERNALSNAT"},
		{"AWS_VPC_CNI_NODE_PORT_SUPPORT", "?", "AWS_VPC_CNI_NODE_PORT_SUPPORT"},
		{"AWS_VPC_K8S_CNI_CONFIGURE_RPFILTER", "?", "AWS_VPC_K8S_CNI_CONFIGURE_RPFILTER"},
		{"DISABLE_TCP_EARLY_DEMUX", "?", "DISABLE_TCP_EARLY_DEMUX"},
		{"ENABLE_BANDWIDTH_PLUGIN", "10M", `ENABLE_BANDWIDTH_PLUGIN "10M": must be true or false`},
	} {
		wantUsage(t, tt.variable+"="+tt.value, tt.want, func() error {
			_, err := parse(t, map[string]string{tt.variable: tt.value})
			return err
		})
	}
	for _, tt := range []struct{ arg, want string }{
		{"--native=10.0.0.0/8", "must be routes or vpc"},
		{"--native-cidrs=10.0.0.0", `--native-cidrs "10.0.0.0": must be IPv4 prefixes`},
		{"--native-cidrs=fd00::/8", "fd00::/8 is not IPv4"},
		{"--ipv4-native-routing-cidr=all", `--ipv4-native-routing-cidr "all": must be an IPv4 prefix`},
		{"--cni-bin-dir=bin", `--cni-bin-dir: cni bin dir "bin": must be an absolute path`},
		{"--cni-bin-dir=", `cni bin dir "": must be an absolute path`},
		{"--eni-config-file=e.yaml", `--eni-config-file: eni config file "e.yaml": must be an absolute path`},
		{"--eni-config-label=", `eni config label "": must not be empty`},
		{"--eni-config-annotation=", `eni config annotation "": must not be empty`},
		{"--cri-socket=tcp://1.2.3.4", `cri socket "tcp://1.2.3.4": must be an absolute path`},
		{"--vpc-poll=1ms", "--vpc-poll: vpc poll 1ms: must be at least a second"},
		{"--add-wait=-1s", `--add-wait "-1s": must be`},
		{"--return-after=-1s", `--return-after "-1s": must be`},
		{"--max-pods=many", `--max-pods "many": must be a whole number`},
		{"--metrics-address=everywhere", `--metrics-address: metrics address "everywhere": must be an IP address and a port`},
		{"--config=/absent.yaml", "/absent.yaml"},
	} {
		wantUsage(t, tt.arg, tt.want, func() error { _, err := parse(t, nil, tt.arg); return err })
	}
	for _, tt := range []struct{ text, want string }{
		{"warm-ip-target: 1\n\nwarm_ip_target: 5\n", `:3: unknown key "warm_ip_target": it is warm-ip-target here`},
		{"WARM_IP_TARGET: 5\n", `:1: unknown key "WARM_IP_TARGET": it is warm-ip-target here`},
		{"colour: red\n", `:1: unknown key "colour": the keys are the flags' names`},
		{"config: /x\n", `:1: unknown key "config"`},
		{"max-pods: 1\nwarm-ip-target: many\n", `:2: warm-ip-target "many": must be a whole number`},
		{"warm-ip-target: [5]\n", ":1: warm-ip-target: must be a single value, and is a list"},
		{"native-cidrs: {a: b}\n", ":1: native-cidrs: must be a single value, and is a mapping"},
		{"pod-mtu: 3\n", ":1: pod-mtu: pod mtu 3: must be from 576"},
		{"max-pods: 1\nmax-pods: 1\n", `:2: key "max-pods" of settings is there twice`},
	} {
		path := writeFile(t, tt.text)
		wantUsage(t, tt.text, path+tt.want, func() error { _, err := parse(t, nil, "--config", path); return err })
	}
}

func wantUsage(t *testing.T, what, want string, f func() error) {
	t.Helper()
	err := f()
	if !errors.Is(err, errUsage) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
		t.Errorf("%.60s: error %v, want one line of usage with %q", what, err, want)
	}
}

// TestDocumented: docs/configuration.md has a row for every option, with its
// variable, its default and its example, and for nothing else.
func TestDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := make(map[string][]string)
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if name, ok := strings.CutPrefix(strings.TrimSpace(cells[0]), "`--"); ok && len(cells) == 5 {
			rows[strings.TrimSuffix(name, "`")] = cells
		}
	}
	code := func(text string) string {
		if text == "" {
			return ""
		}
		return "`" + text + "`"
	}
	d := defaults()
	for _, o := range options() {
		cells, ok := rows[o.name]
		if !ok {
			t.Errorf("docs/configuration.md has no row for --%s", o.name)
			continue
		}
		delete(rows, o.name)
		for i, want := range []string{code("--" + o.name), code(o.variable), code(o.parser.text(d))} {
			if got := strings.TrimSpace(cells[i]); got != want {
				t.Errorf("--%s: cell %d is %q, want %q", o.name, i+1, got, want)
			}
		}
		if len(strings.TrimSpace(cells[3])) < 10 {
			t.Errorf("--%s: no meaning", o.name)
		}
		if got := strings.TrimSpace(cells[4]); got != code(o.example) {
			t.Errorf("--%s: example %q, want %q", o.name, got, code(o.example))
		}
	}
	for name := range rows {
		t.Errorf("docs/configuration.md has a row for --%s, which there is not", name)
	}
}
