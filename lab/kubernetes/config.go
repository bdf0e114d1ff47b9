package kubernetes

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Where things are in an instance.
const (
	etcDir     = "/etc/kubernetes/"
	conConfig  = "/etc/containerd/config.toml"
	conSocket  = "/run/containerd/containerd.sock"
	conRoot    = "/var/lib/containerd"
	pluginDir  = "/opt/cni/bin"
	configDir  = "/etc/cni/net.d"
	etcdClient = "http://127.0.0.1:2379"
	etcdPeer   = "http://127.0.0.1:2380"

	apiPort       = 6443
	clusterDomain = "cluster.local"
)

// serviceRanges are what Amazon EKS takes for the addresses of services: the
// second where the VPC has addresses of the first. Source: "Create an Amazon EKS
// cluster", Amazon EKS User Guide.
var serviceRanges = []netip.Prefix{netip.MustParsePrefix("172.20.0.0/16"), netip.MustParsePrefix("10.100.0.0/16")}

// errNoRange says that all of serviceRanges are in use.
var errNoRange = errors.New("no addresses for services")

func serviceRange(vpcs []netip.Prefix) (netip.Prefix, error) {
next:
	for _, r := range serviceRanges {
		for _, v := range vpcs {
			if v.Overlaps(r) {
				continue next
			}
		}
		return r, nil
	}
	return netip.Prefix{}, fmt.Errorf("%w: the VPCs have addresses of each of %v", errNoRange, serviceRanges)
}

// nth is the nth address of a range: the API server has the first, DNS the tenth.
func nth(p netip.Prefix, n int) netip.Addr {
	a := p.Masked().Addr()
	for range n {
		a = a.Next()
	}
	return a
}

// shown is what the kubelet wants of the kernel, for the whole machine. Source:
// setupKernelTunables of pkg/kubelet/cm in Kubernetes.
var shown = map[string]string{
	"vm/overcommit_memory":      "1",
	"vm/panic_on_oom":           "0",
	"kernel/panic":              "10",
	"kernel/panic_on_oops":      "1",
	"kernel/keys/root_maxkeys":  "1000000",
	"kernel/keys/root_maxbytes": "25000000",
}

// kubeletConfig is a KubeletConfiguration.
func kubeletConfig(n node, dns netip.Addr) ([]byte, error) {
	return json.MarshalIndent(map[string]any{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"authentication": map[string]any{
			"anonymous": map[string]any{"enabled": false},
			"webhook":   map[string]any{"enabled": true},
			"x509":      map[string]any{"clientCAFile": etcDir + "ca.crt"},
		},
		"authorization":            map[string]any{"mode": "Webhook"},
		"tlsCertFile":              etcDir + "kubelet.crt",
		"tlsPrivateKeyFile":        etcDir + "kubelet.key",
		"containerRuntimeEndpoint": "unix://" + conSocket,
		"providerID":               n.providerID(),
		"clusterDNS":               []string{dns.String()},
		"clusterDomain":            clusterDomain,
		"resolvConf":               "", // the lab has no DNS; the host's is not for pods
		"failSwapOn":               false,
		// An instance's cgroup has no controllers.
		"cgroupDriver":           "cgroupfs",
		"cgroupsPerQOS":          false,
		"enforceNodeAllocatable": []string{},
		"failCgroupV1":           false,
		// The disk is the host's, however full.
		"localStorageCapacityIsolation": false,
		"imageGCHighThresholdPercent":   100,
		"evictionHard": map[string]string{
			"memory.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%", "imagefs.inodesFree": "0%",
		},
	}, "", "  ")
}

// containerdConfig has plugins looked for where the lab's instances find programs
// first, as `fairway-lab pod add` does, and then where a node's image has them.
func containerdConfig(p Programs, path []string) []byte {
	var dirs []string
	for _, d := range append(append([]string(nil), path...), pluginDir) {
		dirs = append(dirs, fmt.Sprintf("%q", d))
	}
	return fmt.Appendf(nil, `version = 3
root = %q
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs", "io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]

[grpc]
address = %q

[plugins."io.containerd.cri.v1.runtime"]
# Where the lab may not lower a process's score.
restrict_oom_score_adj = true
disable_hugetlb_controller = true

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = %q

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = [%s]
conf_dir = %q

[plugins."io.containerd.cri.v1.images"]
snapshotter = "overlayfs"

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = %q
`, conRoot, conSocket, p.path("runc"), strings.Join(dirs, ", "), configDir, PauseImage)
}
