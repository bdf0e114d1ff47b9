package agent

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/fairway-cni/fairway/internal/core/eniconfig"
	"github.com/fairway-cni/fairway/internal/core/intent"
	"github.com/fairway-cni/fairway/internal/core/ipam"
	"github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/internal/core/vpc"
	"github.com/fairway-cni/fairway/internal/edge/agentapi"
	"github.com/fairway-cni/fairway/internal/edge/kernel"
)

// Config is what a user can set.
type Config struct {
	Socket     string // the CNI socket
	StateDir   string // holds the address records
	SpoolDir   string // where the plugin leaves what it could not deliver
	CNIConfDir string // where the network configuration list is written; empty: it is not
	CNIBinDir  string // where the programs of the plugins after ours are looked for
	SysctlDir  string // /proc/sys, or where a container has it that may write there
	Bandwidth  bool   // ENABLE_BANDWIDTH_PLUGIN: the plugin of bandwidth runs after ours

	// PluginLogFile is where the plugin writes a line for each call: an absolute
	// path, "stderr", or empty for nowhere. PluginLogLevel is DEBUG, INFO, WARN,
	// ERROR or FATAL. Both go into the network configuration list.
	PluginLogFile  string
	PluginLogLevel string

	Targets  ipam.Targets  // what the pool aims at
	MaxPods  int           // kubelet's --max-pods; 0: not known
	CoolDown time.Duration // IP_COOLDOWN_PERIOD: rest of a released address
	AddWait  time.Duration // how long an ADD waits for an address that is on its way

	ClusterName     string            // CLUSTER_NAME: tags ENIs and narrows the cleanup; empty: not known
	ENITags         map[string]string // ADDITIONAL_ENI_TAGS
	CustomNetwork   CustomNetwork
	SubnetDiscovery bool // ENABLE_SUBNET_DISCOVERY: further ENIs may be made in tagged subnets
	ManageUntagged  bool // MANAGE_UNTAGGED_ENI: an ENI without the instance's tag is ours too
	LeakedCleanup   bool // ENIs of this cluster that nobody has attached are deleted
	IMDSOnly        bool // ENABLE_IMDS_ONLY_MODE: EC2 is never called

	Metrics       string // TCP address of the metrics, host:port; empty: none
	Introspection string // TCP address host:port, or "unix:" and an absolute path; empty: none
	CRISocket     string // the container runtime's socket, an absolute path; empty: it is not asked

	Datapath   intent.Config
	PodMTU     int              // POD_MTU, bytes; 0: that of the ENIs
	VethPrefix string           // AWS_VPC_K8S_CNI_VETHPREFIX, one to four characters
	Native     vpc.NativePolicy // what of the VPC's routes is native, and what else
	VPCPoll    time.Duration    // how often EC2 is asked for the VPC's routes
	Admin      string           // the socket of the person's tool; empty: none

	Cluster ClusterAccess // the Kubernetes cluster that the node is of
}

// CustomNetwork says that pods have subnets and security groups of their own
// (AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG), and how this node's ENIConfig is found.
type CustomNetwork struct {
	Enabled       bool
	AnnotationKey string // ENI_CONFIG_ANNOTATION_DEF
	LabelKey      string // ENI_CONFIG_LABEL_DEF
	File          string // the ENIConfigs and this node's selection, where there is no cluster to ask
}

// The addresses of the seed's metrics and introspection.
const (
	DefaultMetrics       = ":61678"
	DefaultIntrospection = "127.0.0.1:61679"
)

// Default is the configuration of an agent that is told nothing.
func Default() Config {
	return Config{
		Socket:     "/run/fairway/cni.sock",
		StateDir:   "/run/fairway/addresses",
		SpoolDir:   "/run/fairway/spool",
		CNIConfDir: "/etc/cni/net.d",
		CNIBinDir:  "/opt/cni/bin",
		SysctlDir:  kernel.ProcSys,

		PluginLogLevel: "INFO",

		Targets:  ipam.DefaultTargets(),
		CoolDown: ipam.DefaultCoolDown,
		// Within it EC2 attaches an ENI, also after a throttled call or two; the
		// runtime's own limit for an ADD is minutes, and a pod that waits here is
		// cheaper than one whose sandbox is torn down and made again.
		AddWait: 45 * time.Second,

		CustomNetwork: CustomNetwork{
			AnnotationKey: eniconfig.DefaultKey,
			LabelKey:      eniconfig.DefaultKey,
		},
		SubnetDiscovery: true,
		ManageUntagged:  true,
		LeakedCleanup:   true,

		Metrics:       DefaultMetrics,
		Introspection: DefaultIntrospection,

		Datapath:   intent.Default(),
		VethPrefix: node.DefaultVethPrefix,
		VPCPoll:    time.Minute,
		Admin:      agentapi.DefaultSocket,
	}
}

// Validate names the first setting that cannot be.
func (c Config) Validate() error {
	for _, check := range []func() error{c.validatePaths, c.validatePool, c.validateENIs, c.validateAddresses, c.validateDatapath, c.validateCluster} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (c Config) validatePaths() error {
	for _, p := range []struct {
		name, path string
		optional   bool
	}{
		{"socket", c.Socket, false},
		{"admin socket", c.Admin, true},
		{"state dir", c.StateDir, false},
		{"spool dir", c.SpoolDir, false},
		{"cni conf dir", c.CNIConfDir, true},
		{"cni bin dir", c.CNIBinDir, false},
		{"sysctl dir", c.SysctlDir, false},
		{"cri socket", c.CRISocket, true},
		{"eni config file", c.CustomNetwork.File, true},
		{"kubeconfig", c.Cluster.Kubeconfig, true},
	} {
		if !filepath.IsAbs(p.path) && (p.path != "" || !p.optional) {
			return fmt.Errorf("%s %q: must be an absolute path", p.name, p.path)
		}
	}
	switch f := c.PluginLogFile; {
	case f == "stdout":
		// What a plugin prints there is its answer to the container runtime.
		return errors.New("plugin log file \"stdout\": must be stderr or an absolute path: standard output carries the plugin's result")
	case f != "" && f != "stderr" && !filepath.IsAbs(f):
		return fmt.Errorf("plugin log file %q: must be stderr or an absolute path", f)
	}
	if !slices.Contains(LogLevels(), c.PluginLogLevel) {
		return fmt.Errorf("plugin log level %q: must be one of %s", c.PluginLogLevel, strings.Join(LogLevels(), ", "))
	}
	return nil
}

// LogLevels lists the levels of agent and plugin. FATAL is what ends a program:
// the agent still says why it could not start, and a plugin is silent.
func LogLevels() []string { return []string{"DEBUG", "INFO", "WARN", "ERROR", "FATAL"} }

func (c Config) validatePool() error {
	t := c.Targets
	for _, n := range []struct {
		name  string
		value int
	}{
		{"warm eni target", t.WarmENIs},
		{"warm ip target", t.WarmIPs},
		{"minimum ip target", t.MinimumIPs},
		{"warm prefix target", t.WarmPrefixes},
		{"max pods", c.MaxPods},
	} {
		if n.value < 0 {
			return fmt.Errorf("%s %d: must not be negative", n.name, n.value)
		}
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"return after", t.ReturnAfter},
		{"cool-down", c.CoolDown},
		{"add wait", c.AddWait},
	} {
		if d.value < 0 {
			return fmt.Errorf("%s %s: must not be negative", d.name, d.value)
		}
	}
	return nil
}

// What EC2 takes of tags ("Tag restrictions", Amazon EC2 User Guide). Of the 50
// of a resource four are the agent's own.
const (
	maxTagKey   = 128 // characters
	maxTagValue = 256 // characters
	maxTags     = 46
)

// ReservedTag is the part of a tag's key by which it is the agent's own
// business and not the user's.
const ReservedTag = "k8s.amazonaws.com"

func (c Config) validateENIs() error {
	for _, key := range slices.Sorted(maps.Keys(c.ENITags)) {
		value := c.ENITags[key]
		switch lower := strings.ToLower(key); {
		case key == "":
			return errors.New("eni tag with an empty key: must have one")
		case strings.Contains(key, ReservedTag):
			return fmt.Errorf("eni tag %q: must not contain %s, which is reserved", key, ReservedTag)
		case strings.HasPrefix(lower, "aws:"):
			return fmt.Errorf("eni tag %q: must not begin with aws:, which is AWS's own", key)
		case utf8.RuneCountInString(key) > maxTagKey:
			return fmt.Errorf("eni tag %q: must have at most %d characters in its key", key, maxTagKey)
		case utf8.RuneCountInString(value) > maxTagValue:
			return fmt.Errorf("eni tag %q: must have at most %d characters in its value, has %d", key, maxTagValue, utf8.RuneCountInString(value))
		}
	}
	n := c.CustomNetwork
	unprintable := func(r rune) bool { return !unicode.IsPrint(r) }
	switch {
	case strings.TrimSpace(c.ClusterName) != c.ClusterName, strings.ContainsFunc(c.ClusterName, unprintable):
		return fmt.Errorf("cluster name %q: must have no space at its ends, and nothing unprintable", c.ClusterName)
	case len(c.ENITags) > maxTags:
		return fmt.Errorf("eni tags: %d of them: must be at most %d, as EC2 takes 50 and four are the agent's", len(c.ENITags), maxTags)
	case utf8.RuneCountInString(c.ClusterName) > maxTagValue:
		return fmt.Errorf("cluster name of %d characters: must have at most %d, as it becomes a tag's value", utf8.RuneCountInString(c.ClusterName), maxTagValue)
	case n.Enabled && n.File == "" && c.Cluster.NodeName == "":
		return errors.New("custom networking without an eni config file: must have one, as there is no cluster to ask for ENIConfigs")
	case n.AnnotationKey == "":
		return errors.New("eni config annotation \"\": must not be empty")
	case n.LabelKey == "":
		return errors.New("eni config label \"\": must not be empty")
	case !isKey(n.AnnotationKey): // no node has it, and all would silently get the ENIConfig "default"
		return fmt.Errorf("eni config annotation %q: %s", n.AnnotationKey, mustBeKey)
	case !isKey(n.LabelKey):
		return fmt.Errorf("eni config label %q: %s", n.LabelKey, mustBeKey)
	case c.IMDSOnly && !c.Targets.NoProvisioning:
		return errors.New("imds only: must not be with provisioning, which needs EC2")
	case c.LeakedCleanup && c.Targets.NoProvisioning:
		return errors.New("leaked eni cleanup: must not be without provisioning, as it deletes ENIs")
	}
	return nil
}

// A key of an annotation or label, as Kubernetes takes it ("Labels and Selectors",
// Kubernetes documentation): a name, and before a slash a DNS subdomain, or none.
const (
	maxKeyName = 63
	mustBeKey  = "must be a key as Kubernetes has them: letters, digits, '-', '_' and '.', at most 63, and before them a domain and a slash, or none"
)

var (
	keyName   = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$`)
	keyDomain = nodeName
)

func isKey(key string) bool {
	domain, name, found := strings.Cut(key, "/")
	if !found {
		domain, name = "", key
	}
	return len(name) <= maxKeyName && keyName.MatchString(name) && len(domain) <= maxNodeName && (!found || keyDomain.MatchString(domain))
}

func (c Config) validateAddresses() error {
	if err := validateAddress("metrics address", c.Metrics); err != nil {
		return err
	}
	if path, unix := strings.CutPrefix(c.Introspection, "unix:"); unix {
		if !filepath.IsAbs(path) {
			return fmt.Errorf("introspection address %q: must be host:port, or unix: and an absolute path", c.Introspection)
		}
		return nil
	}
	return validateAddress("introspection address", c.Introspection)
}

// validateAddress takes an empty one, an IP address with a port, and a port
// alone. A host name is refused: a start would wait for the DNS that it is to
// connect.
func validateAddress(name, address string) error {
	if address == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(address)
	if err == nil && host != "" && host != "localhost" {
		_, err = netip.ParseAddr(host)
	}
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return fmt.Errorf("%s %q: must be an IP address and a port, as in 127.0.0.1:61679 or :61678", name, address)
	}
	return nil
}

func (c Config) validateDatapath() error {
	switch {
	case c.PodMTU != 0 && (c.PodMTU < 576 || c.PodMTU > 9001):
		return fmt.Errorf("pod mtu %d: must be from 576 to 9001 (0: that of the ENIs)", c.PodMTU)
	case c.VPCPoll < time.Second:
		return fmt.Errorf("vpc poll %s: must be at least a second", c.VPCPoll)
	case !vethPrefix.MatchString(c.VethPrefix) || slices.Contains([]string{"eth", "vlan", "lo", "ens"}, c.VethPrefix):
		return fmt.Errorf("veth prefix %q: must be one to four letters and digits, and none that other devices have (eth, ens, vlan, lo)", c.VethPrefix)
	}
	if err := c.Datapath.Validate(); err != nil {
		return err
	}
	for _, p := range slices.Concat(c.Native.Also, c.Datapath.ExternalServices) {
		if !p.Addr().Is4() || p != p.Masked() {
			return fmt.Errorf("prefix %s: must be an IPv4 prefix without host bits", p)
		}
	}
	return nil
}

// maxNodeName is the longest name of a Node: a DNS subdomain (RFC 1123).
const maxNodeName = 253

func (c Config) validateCluster() error {
	k := c.Cluster
	switch {
	case len(k.NodeName) > maxNodeName || k.NodeName != "" && !nodeName.MatchString(k.NodeName):
		return fmt.Errorf("node name %q: must be lower case letters, digits, '-' and '.', at most %d", k.NodeName, maxNodeName)
	case k.NodeName != "" && k.Kubeconfig == "" && k.Service == "":
		return errors.New("node name without a way to the API server: must have a kubeconfig, or be in a pod (KUBERNETES_SERVICE_HOST)")
	}
	if k.Endpoint == "" {
		return nil
	}
	if u, err := url.Parse(k.Endpoint); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return fmt.Errorf("cluster endpoint %q: must be a URL, as in https://10.0.0.10:6443", k.Endpoint)
	}
	return nil
}

var nodeName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`)

var vethPrefix = regexp.MustCompile(`^[a-z][a-z0-9]{0,3}$`)

// podMTU is the MTU of pods whose network configuration says nothing.
func (c Config) podMTU() int { return cmp.Or(c.PodMTU, c.Datapath.ENIMTU) }
