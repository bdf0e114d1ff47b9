package kubernetes

import (
	"cmp"
	"net/netip"
	"regexp"
	"strings"

	"github.com/fairway-cni/fairway/lab/world"
)

// node is one instance as the cluster knows it.
type node struct {
	name     string
	instance world.InstanceStatus
}

// validName is what a node may be called: RFC 1123, "Requirements for Internet
// Hosts", section 2.1, in lower case.
var validName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// nodeOf names a node by its instance's name in the world, or by its ID where that
// cannot be: a tag may be any text.
func nodeOf(in world.InstanceStatus) node {
	name := strings.ToLower(in.Name)
	if !validName.MatchString(name) {
		name = in.ID
	}
	return node{name: name, instance: in}
}

// providerID is what the AWS cloud provider calls an instance.
func (n node) providerID() string { return "aws:///" + n.instance.Zone + "/" + n.instance.ID }

// labels are those that a node of Amazon EKS has, as far as the kubelet may set
// them itself.
func (n node) labels() string {
	in := n.instance
	return strings.Join([]string{
		"node.kubernetes.io/instance-type=" + in.Type,
		"topology.kubernetes.io/region=" + in.Region,
		"topology.kubernetes.io/zone=" + in.Zone,
	}, ",")
}

// kubelet is the name of the daemon and of its program.
const kubelet = "kubelet"

// daemon is a program that runs as long as its instance.
type daemon struct {
	name string
	argv []string
}

// frontProxy is who the API server is to the API servers behind it.
const frontProxy = "front-proxy-client"

// The daemons of a control plane, in two halves: those of the second end at once
// if the first do not answer.
func controlDaemons(addr netip.Addr, services netip.Prefix) (first, second []daemon) {
	client := func(name string) []string {
		f := etcDir + name + ".conf"
		return []string{name, "--kubeconfig=" + f, "--authentication-kubeconfig=" + f, "--authorization-kubeconfig=" + f,
			"--leader-elect=false", "--profiling=false"}
	}
	first = []daemon{
		// What is not on a disk needs no syncing.
		{"etcd", []string{"etcd", "--data-dir=/var/lib/etcd", "--unsafe-no-fsync", "--log-level=warn",
			"--listen-client-urls=" + etcdClient, "--advertise-client-urls=" + etcdClient,
			"--listen-peer-urls=" + etcdPeer, "--initial-advertise-peer-urls=" + etcdPeer, "--initial-cluster=default=" + etcdPeer}},
		{"kube-apiserver", []string{"kube-apiserver", "--etcd-servers=" + etcdClient,
			"--advertise-address=" + addr.String(), "--secure-port=6443", "--service-cluster-ip-range=" + services.String(),
			"--tls-cert-file=" + etcDir + "apiserver.crt", "--tls-private-key-file=" + etcDir + "apiserver.key",
			"--client-ca-file=" + etcDir + "ca.crt",
			"--kubelet-client-certificate=" + etcDir + "apiserver.crt", "--kubelet-client-key=" + etcDir + "apiserver.key",
			"--kubelet-certificate-authority=" + etcDir + "ca.crt", "--kubelet-preferred-address-types=InternalIP",
			"--service-account-key-file=" + etcDir + "accounts.crt", "--service-account-signing-key-file=" + etcDir + "accounts.key",
			"--service-account-issuer=https://kubernetes.default.svc." + clusterDomain,
			"--requestheader-client-ca-file=" + etcDir + "ca.crt", "--requestheader-allowed-names=" + frontProxy,
			"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
			"--requestheader-extra-headers-prefix=X-Remote-Extra-",
			"--proxy-client-cert-file=" + etcDir + "front-proxy.crt", "--proxy-client-key-file=" + etcDir + "front-proxy.key",
			"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
			"--allow-privileged=true", "--profiling=false"}},
	}
	second = []daemon{
		{"kube-controller-manager", append(client("kube-controller-manager"), "--use-service-account-credentials=true",
			"--service-account-private-key-file="+etcDir+"accounts.key", "--root-ca-file="+etcDir+"ca.crt",
			"--cluster-signing-cert-file="+etcDir+"ca.crt", "--cluster-signing-key-file="+etcDir+"ca.key",
			"--service-cluster-ip-range="+services.String())},
		{"kube-scheduler", client("kube-scheduler")},
	}
	return first, second
}

// runtimeDaemons run before a node has met its control plane.
func runtimeDaemons() []daemon {
	return []daemon{{"containerd", []string{"containerd", "--config=" + conConfig}}}
}

func (n node) daemons(proxyMode string) []daemon {
	return []daemon{
		{kubelet, []string{kubelet, "--config=" + etcDir + "kubelet.json", "--kubeconfig=" + etcDir + "kubelet.conf",
			"--hostname-override=" + n.name, "--node-ip=" + n.instance.Address.String(), "--node-labels=" + n.labels()}},
		{"kube-proxy", []string{"kube-proxy", "--kubeconfig=" + etcDir + "kube-proxy.conf", "--hostname-override=" + n.name,
			"--proxy-mode=" + cmp.Or(proxyMode, DefaultProxyMode),
			// These belong to the whole machine, which is not the instance's.
			"--conntrack-max-per-core=0", "--conntrack-min=0", "--oom-score-adj=0"}},
	}
}

// setup is what a node has before its daemons start.
func (c *Cluster) nodeSetup(n node, path []string) (Setup, error) {
	serving, err := c.ca.issue(identity{user: "system:node:" + n.name, groups: []string{"system:nodes"},
		names: []string{n.name}, addrs: []netip.Addr{n.instance.Address}})
	if err != nil {
		return Setup{}, err
	}
	conf, err := c.ca.kubeconfig(c.server, identity{user: "system:node:" + n.name, groups: []string{"system:nodes"}})
	if err != nil {
		return Setup{}, err
	}
	proxy, err := c.ca.kubeconfig(c.server, identity{user: "system:kube-proxy"})
	if err != nil {
		return Setup{}, err
	}
	config, err := kubeletConfig(n, nth(c.services, 10))
	if err != nil {
		return Setup{}, err
	}
	return Setup{
		Files: []File{
			{etcDir + "ca.crt", c.ca.pair.cert}, {etcDir + "kubelet.crt", serving.cert}, {etcDir + "kubelet.key", serving.key},
			{etcDir + "kubelet.conf", conf}, {etcDir + "kube-proxy.conf", proxy}, {etcDir + "kubelet.json", config},
			{conConfig, containerdConfig(c.cfg.Programs, path)},
		},
		Memory: []string{conRoot}, Shown: shown, Shared: true,
	}, nil
}

// controlSetup is what the control plane has before its daemons start.
func (c *Cluster) controlSetup() (Setup, error) {
	addr := c.server.Addr()
	s := Setup{Files: []File{{etcDir + "ca.crt", c.ca.pair.cert}, {etcDir + "ca.key", c.ca.pair.key}, {etcDir + "accounts.crt", c.accounts.cert}, {etcDir + "accounts.key", c.accounts.key}}}
	// The API server shows kubelets the same certificate, as one who may do all.
	api, err := c.ca.issue(identity{user: "kube-apiserver", groups: []string{"system:masters"},
		names: []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + clusterDomain, "localhost"},
		addrs: []netip.Addr{addr, nth(c.services, 1), netip.AddrFrom4([4]byte{127, 0, 0, 1})}})
	if err != nil {
		return Setup{}, err
	}
	front, err := c.ca.issue(identity{user: frontProxy})
	if err != nil {
		return Setup{}, err
	}
	s.Files = append(s.Files, File{etcDir + "apiserver.crt", api.cert}, File{etcDir + "apiserver.key", api.key},
		File{etcDir + "front-proxy.crt", front.cert}, File{etcDir + "front-proxy.key", front.key})
	for _, name := range []string{"kube-controller-manager", "kube-scheduler"} {
		conf, err := c.ca.kubeconfig(c.server, identity{user: "system:" + name})
		if err != nil {
			return Setup{}, err
		}
		s.Files = append(s.Files, File{etcDir + name + ".conf", conf})
	}
	return s, nil
}
