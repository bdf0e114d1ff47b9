package kubernetes

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// backend is a pod that a service leads to.
type backend struct {
	place
	node *instance
}

// service is one service with one pod behind it, so that it is known who has to
// answer.
type service struct {
	backend
	clusterIP netip.Addr
	nodePort  uint16
	local     bool // externalTrafficPolicy Local
}

func (s service) cluster() netip.AddrPort { return netip.AddrPortFrom(s.clusterIP, servicePort) }

const (
	servicePort = 8000 // of the cluster address
	podPort     = 80
	firstPort   = 30080 // of the node ports
)

// services gives two services for each pod: with the external traffic policies
// Cluster and Local.
func services(pods []backend) []service {
	var list []service
	ip := netip.MustParseAddr("172.20.0.10")
	for _, p := range pods {
		for _, local := range []bool{false, true} {
			list = append(list, service{p, ip, firstPort + uint16(len(list)), local})
			ip = ip.Next()
		}
	}
	return list
}

// objects writes nodes and services in the words of Kubernetes.
func objects(nodes []*instance, list []service) cluster {
	var k8sNodes []corev1.Node
	for _, n := range nodes {
		k8sNodes = append(k8sNodes, corev1.Node{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
			ObjectMeta: metav1.ObjectMeta{Name: n.name, ResourceVersion: revision},
			Status:     corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: n.addr.String()}}},
		})
	}
	var k8sServices []corev1.Service
	var slices []discoveryv1.EndpointSlice
	yes, tcp, port, portName := true, corev1.ProtocolTCP, int32(podPort), "web"
	for _, s := range list {
		policy := corev1.ServiceExternalTrafficPolicyCluster
		if s.local {
			policy = corev1.ServiceExternalTrafficPolicyLocal
		}
		meta := metav1.ObjectMeta{Name: fmt.Sprintf("%s-%s", s.name, strings.ToLower(string(policy))), Namespace: "default", ResourceVersion: revision}
		k8sServices = append(k8sServices, corev1.Service{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
			ObjectMeta: meta,
			Spec: corev1.ServiceSpec{
				Type: corev1.ServiceTypeNodePort, ExternalTrafficPolicy: policy,
				ClusterIP: s.clusterIP.String(), ClusterIPs: []string{s.clusterIP.String()},
				IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}, SessionAffinity: corev1.ServiceAffinityNone,
				Ports: []corev1.ServicePort{{Name: portName, Protocol: tcp, Port: servicePort,
					TargetPort: intstr.FromInt32(podPort), NodePort: int32(s.nodePort)}},
			},
		})
		meta.Labels = map[string]string{discoveryv1.LabelServiceName: meta.Name}
		slices = append(slices, discoveryv1.EndpointSlice{
			TypeMeta:    metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
			ObjectMeta:  meta,
			AddressType: discoveryv1.AddressTypeIPv4,
			Ports:       []discoveryv1.EndpointPort{{Name: &portName, Protocol: &tcp, Port: &port}},
			Endpoints: []discoveryv1.Endpoint{{Addresses: []string{s.addr.String()}, NodeName: &s.node.name,
				Conditions: discoveryv1.EndpointConditions{Ready: &yes, Serving: &yes}}},
		})
	}
	return newCluster(k8sNodes, k8sServices, slices)
}

// startProxy runs kube-proxy as a node does, with the node ports on all addresses
// of the node.
func (n *instance) startProxy(mode string) {
	n.t.Helper()
	n.daemon("kube-proxy", nil, "kube-proxy", "--master=http://"+apiAddress, "--kube-api-content-type=application/json",
		"--proxy-mode="+mode, "--hostname-override="+n.name, "--nodeport-addresses=10.0.0.0/16",
		// These belong to the whole machine, which is not the instance's.
		"--conntrack-max-per-core=0", "--conntrack-min=0", "--oom-score-adj=0", "--v=2")
}

// TestKubeProxy: services with pods on two nodes and two ENIs each, from pods,
// from nodes and from outside, by every address that a node has.
func TestKubeProxy(t *testing.T) {
	needNetfilterTools(t)
	for _, mode := range []proxyMode{
		{"iptables", "", nil},
		{"nftables", "ip kube-proxy", nil},
		{"iptables", "", []string{"--external-snat"}},
		{"nftables", "ip kube-proxy", []string{"--external-snat"}},
	} {
		t.Run(strings.Join(append([]string{mode.name}, mode.flags...), " "), func(t *testing.T) {
			t.Parallel()
			testKubeProxy(t, mode)
		})
	}
}

// proxyMode is a mode of kube-proxy, with what Fairway's agent is told beside it.
type proxyMode struct {
	name  string
	table string // kube-proxy's own in nftables; empty: it uses iptables
	flags []string
}

func testKubeProxy(t *testing.T, mode proxyMode) {
	l := startLab(t, fmt.Sprintf("%s-%d", mode.name[:3], len(mode.flags)), clusterWorld)
	a, b := l.nodes["node-a"], l.nodes["node-b"]
	nodes := []*instance{a, b}
	var pods []backend
	for _, n := range nodes {
		n.startAgent(mode.flags...)
	}
	for _, n := range nodes {
		first, second := n.twoPods("")
		pods = append(pods, backend{first, n}, backend{second, n})
	}
	list := services(pods)
	api := objects(nodes, list)
	for _, p := range pods {
		serve(t, p.place, podPort)
	}
	for _, n := range nodes {
		api.serveAPI(t, n.host())
		n.startProxy(mode.name)
	}

	flows := inCluster(t, nodes, pods, list)
	flows = append(flows, fromOutside(t, l.nodes["outside"].host(), nodes, list)...)
	before := []string{a.ruleset(mode.table), b.ruleset(mode.table)}
	if !strings.Contains(before[0], list[0].clusterIP.String()) {
		t.Fatalf("kube-proxy's rules do not name a service:\n%s", before[0])
	}
	explained(t, nodes, pods, list)
	for _, n := range nodes {
		n.killAgent()
		allGoOn(t, "without the agent", flows)
		n.startAgent(mode.flags...)
		n.repaired("after the restart")
		allGoOn(t, "after the restart", flows)
		n.run(strings.Fields("nft flush table inet fairway")...)
		n.repaired("after a flush")
		allGoOn(t, "after the flush of our table", flows)
	}
	for i, n := range nodes {
		if d := cmp.Diff(before[i], n.ruleset(mode.table)); d != "" {
			t.Errorf("kube-proxy's rules on %s have changed (-before +after):\n%s", n.name, d)
		}
	}
	// New flows work as the first ones did.
	for _, f := range append(inCluster(t, nodes, pods, list), fromOutside(t, l.nodes["outside"].host(), nodes, list)...) {
		f.conn.Close()
	}
}

// inCluster calls each service by its cluster address, from every pod and every
// node. A pod sees who calls, but for a caller who is itself.
func inCluster(t *testing.T, nodes []*instance, pods []backend, list []service) (flows []*flow) {
	for _, s := range list {
		for _, p := range pods {
			f := reach(t, p.place, s.cluster(), s.name)
			if p.addr != s.addr {
				f.seenAs(t, p.addr)
			}
			flows = append(flows, f)
		}
		for _, n := range nodes {
			flows = append(flows, reach(t, n.host(), s.cluster(), s.name).seenAs(t, n.addr))
		}
	}
	return flows
}

// fromOutside calls each service by its node port, at every address of each
// node. With the policy Cluster the pod sees the node, with Local the caller, and
// a node without the pod does not answer.
func fromOutside(t *testing.T, outside place, nodes []*instance, list []service) (flows []*flow) {
	for _, s := range list {
		for _, n := range nodes {
			for _, e := range n.enis() {
				to := netip.AddrPortFrom(e.Primary, s.nodePort)
				switch {
				case !s.local:
					flows = append(flows, reach(t, outside, to, s.name).seenAs(t, n.addr))
				case n == s.node:
					flows = append(flows, reach(t, outside, to, s.name).seenAs(t, outside.addr))
				}
			}
		}
	}
	for _, s := range list {
		if s.local && s.node == nodes[1] {
			refused(t, outside, netip.AddrPortFrom(nodes[0].addr, s.nodePort))
			break // each takes a second
		}
	}
	return flows
}
