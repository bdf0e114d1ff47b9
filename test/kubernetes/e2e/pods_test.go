//go:build e2e

package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairway-cni/fairway/test/kubernetes/programs"
)

// threeNodes has an instance that is no node, too, whose role may look at all of EC2.
// The nodes are given.
const threeNodes = `
vpcs:
  - name: main
    cidr: 10.0.0.0/16
    subnets: [{name: a, cidr: 10.0.1.0/24, zone: a}, {name: b, cidr: 10.0.2.0/24, zone: b}, {name: c, cidr: 10.0.3.0/24, zone: b}]
roles: [{name: explain, policy: explain.json}]
instances:
%s  - {name: outside, type: t3.nano, subnet: c, role: explain}
`

// nodeNames are its nodes, subnetNames where they are.
var (
	nodeNames   = []string{"node-a", "node-b", "node-c"}
	subnetNames = map[string]string{"node-a": "a", "node-b": "b", "node-c": "b"}
)

// Of the service web, and of web-local, which has node ports that lead to pods of the
// same node only.
const (
	webPort   = 8080
	nodePort  = 30080
	localPort = 30081
)

var webAddress = netip.MustParseAddrPort("172.20.0.80:80")

var subnets = map[string]netip.Prefix{
	"node-a": netip.MustParsePrefix("10.0.1.0/24"), "node-b": netip.MustParsePrefix("10.0.2.0/24"), "node-c": netip.MustParsePrefix("10.0.2.0/24"),
}

// web has a pod on each node. As users do, it serves on for a while when it is told
// to end, until nobody is sent there any more; and a new pod comes before an old one
// goes. A node that is drained does not count for the spread.
var web = fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 30
      topologySpreadConstraints:
      - maxSkew: 1
        topologyKey: kubernetes.io/hostname
        whenUnsatisfiable: DoNotSchedule
        nodeTaintsPolicy: Honor
        labelSelector: {matchLabels: {app: web}}
        matchLabelKeys: [pod-template-hash]
      containers:
      - name: web
        image: %s
        args: [netexec, --http-port=%d]
        lifecycle: {preStop: {sleep: {seconds: 10}}}
        readinessProbe: {httpGet: {path: /hostname, port: %[2]d}, periodSeconds: 1, timeoutSeconds: 5}
        resources: {requests: {cpu: 10m, memory: 10Mi}, limits: {cpu: 500m, memory: 200Mi}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  clusterIP: %[3]s
  selector: {app: web}
  ports: [{port: %[4]d, targetPort: %[2]d, nodePort: %[5]d}]
---
apiVersion: v1
kind: Service
metadata: {name: web-local}
spec:
  type: NodePort
  externalTrafficPolicy: Local
  selector: {app: web}
  ports: [{port: %[4]d, targetPort: %[2]d, nodePort: %[6]d}]
`, programs.AgnhostImage, webPort, webAddress.Addr(), webAddress.Port(), nodePort, localPort)

// TestCluster: what a user does first with a cluster, and that it comes back from
// what happens to clusters, in each mode of kube-proxy.
func TestCluster(t *testing.T) {
	t.Parallel() // with TestAway, which mostly waits
	t.Run("iptables", func(t *testing.T) { testCluster(t, "iptables", slices.Concat(usage, comebacks)) })
	t.Run("nftables", func(t *testing.T) { testCluster(t, "nftables", slices.Concat(usage, fromAfar)) })
}

// step is a part of a story; the later ones go on from what the earlier ones left.
type step struct {
	name string
	run  func(*cluster)
}

// usage is where packets pass kube-proxy, comebacks what has nothing to do with it,
// and fromAfar is once enough.
var (
	usage = []step{
		{"nodes are there", nodesAreThere},
		{"pods see each other", podsSeeEachOther},
		{"a service leads to each pod", serviceLeadsToPods},
		{"node ports lead to pods", nodePortsLeadToPods},
		{"what leads there is explained", pathExplains},
		{"names lead to services", namesLeadToServices},
		{"pods of the host's network", hostNetworkPods},
		{"host ports", hostPorts},
		{"a node is drained and rebooted under traffic", drainLosesNothing},
		{"a rolling update loses no request", rollingUpdateLosesNothing},
		{"the role's rights suffice", rightsSuffice},
	}
	fromAfar  = []step{{"nodes are read from afar", nodesReadFromAfar}}
	comebacks = []step{
		{"exec and logs", execAndLogs},
		{"rights are checked", rightsAreChecked},
		{"a pool grows by the pods that are bound", poolGrowsByBoundPods},
		{"programs that end are started again", programsStartAgain},
		{"a node comes back", nodeComesBack},
		{"a launched instance joins", launchedInstanceJoins},
		{"the control plane comes back", controlPlaneComesBack},
		{"the role's rights still suffice", rightsSuffice},
	}
)

func testCluster(t *testing.T, mode string, steps []step) {
	c := startMembers(t, mode[:3], "", "--proxy-mode="+mode)
	for _, s := range steps {
		ok := t.Run(s.name, func(t *testing.T) {
			c.t = t
			s.run(c)
		})
		if !ok {
			return
		}
	}
}

func nodesAreThere(c *cluster) {
	var list corev1.NodeList
	c.get(&list, "nodes")
	var names []string
	for _, n := range list.Items {
		names = append(names, n.Name)
		in := c.instance(n.Name)
		if want := "aws:///" + in.Zone + "/" + in.ID; n.Spec.ProviderID != want {
			c.t.Errorf("%s: provider ID %q, want %q", n.Name, n.Spec.ProviderID, want)
		}
		if got := n.Labels[corev1.LabelTopologyZone]; got != in.Zone {
			c.t.Errorf("%s: zone %q, want %q", n.Name, got, in.Zone)
		}
		if a := n.Status.Addresses[0]; a.Type != corev1.NodeInternalIP || a.Address != in.Address.String() {
			c.t.Errorf("%s: address %v, want %s", n.Name, a, in.Address)
		}
	}
	if !slices.Equal(names, nodeNames) {
		c.t.Errorf("nodes %q, want %q", names, nodeNames)
	}
	c.kubectl("wait", "--for=condition=Ready", "node", "--all", "--timeout=90s")
}

func podsSeeEachOther(c *cluster) {
	c.apply(web)
	pods := c.readyPods("app=web", 3)
	c.byNode(pods)
	for _, p := range pods {
		if a := netip.MustParseAddr(p.Status.PodIP); !subnets[p.Spec.NodeName].Contains(a) {
			c.t.Errorf("%s on %s has %s, want one of %s", p.Name, p.Spec.NodeName, a, subnets[p.Spec.NodeName])
		}
	}
	eachSeesTheOther(c, pods)
}

// eachSeesTheOther has each pod call the others, who have to see its own address.
func eachSeesTheOther(c *cluster, pods []corev1.Pod) {
	c.t.Helper()
	for _, from := range pods {
		for _, to := range pods {
			if from.Name == to.Name {
				continue
			}
			seen, err := c.askFrom(from, at(to), "clientip")
			if err != nil {
				c.t.Error(err)
				continue
			}
			if a, err := netip.ParseAddrPort(seen); err != nil || a.Addr().String() != from.Status.PodIP {
				c.t.Errorf("%s sees %s as %q, want %s", to.Name, from.Name, seen, from.Status.PodIP)
			}
		}
	}
}

func at(p corev1.Pod) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(p.Status.PodIP), webPort)
}

func serviceLeadsToPods(c *cluster) {
	pods := c.readyPods("app=web", 3)
	outside := c.instance("outside").PID
	ways := map[string]func() (string, error){
		"from a pod, by the cluster address": func() (string, error) { return c.askFrom(pods[0], webAddress, "hostname") },
	}
	for _, name := range nodeNames {
		in := c.instance(name)
		ways["from "+name+", by the cluster address"] = func() (string, error) { return c.ask(in.PID, webAddress, "/hostname") }
		ways["from outside, by the node port of "+name] = func() (string, error) {
			return c.ask(outside, netip.AddrPortFrom(in.Address, nodePort), "/hostname")
		}
	}
	for how, ask := range ways {
		met := map[string]bool{}
		c.eventually("all pods answer "+how, func() error {
			name, err := ask()
			if err != nil {
				return err
			}
			if !slices.ContainsFunc(pods, func(p corev1.Pod) bool { return p.Name == name }) {
				c.t.Fatalf("%s: %q answers", how, name)
			}
			met[name] = true
			if len(met) < len(pods) {
				return fmt.Errorf("%d of %d have answered so far", len(met), len(pods))
			}
			return nil
		})
	}
}

// namesLeadToServices: by the cluster's DNS, whose pods are on the nodes, too.
func namesLeadToServices(c *cluster) {
	c.kubectl("-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=90s")
	for _, p := range c.readyPods("app=web", 3) {
		for _, name := range []string{"web", "web.default.svc.cluster.local"} {
			c.eventually(name+" is known on "+p.Spec.NodeName, func() error {
				_, err := c.try(nil, "kubectl", "exec", p.Name, "--", "/agnhost", "connect", "--timeout=5s", fmt.Sprintf("%s:%d", name, webAddress.Port()))
				return err
			})
		}
		if _, err := c.try(nil, "kubectl", "exec", p.Name, "--", "/agnhost", "connect", "--timeout=5s", "nobody:80"); err == nil {
			c.t.Errorf("a name that nobody has is known on %s", p.Spec.NodeName)
		}
	}
}

func execAndLogs(c *cluster) {
	pod := c.readyPods("app=web", 3)[0]
	if out := c.kubectl("exec", pod.Name, "--", "/agnhost", "--version"); !strings.Contains(out, "app version") {
		c.t.Errorf("exec printed %q", out)
	}
	if _, err := c.try(nil, "kubectl", "exec", pod.Name, "--", "/agnhost", "connect", "--timeout=1s", "127.0.0.1:1"); err == nil {
		c.t.Error("a program that fails in a pod succeeds for kubectl")
	}
	if out := c.kubectl("logs", pod.Name); !strings.Contains(out, "Started HTTP server on port") {
		c.t.Errorf("logs are %q", out)
	}
}

func rightsAreChecked(c *cluster) {
	if out, err := c.try(nil, "kubectl", "auth", "can-i", "list", "secrets", "--as=system:serviceaccount:default:default"); err == nil || strings.TrimSpace(out) != "no" {
		c.t.Errorf("may a service account without rights list secrets: %q, %v; want no", out, err)
	}
	for _, r := range []struct{ node, label, refusal string }{
		{"node-b", "mark=1", "only its own Node object"},                                       // by the Node authorizer
		{"node-a", "node-restriction.kubernetes.io/mark=1", "is not allowed to modify labels"}, // by NodeRestriction
	} {
		_, err := c.try(nil, "kubectl", "label", "node", r.node, r.label, "--as=system:node:node-a", "--as-group=system:nodes")
		if err == nil || !strings.Contains(err.Error(), r.refusal) {
			c.t.Errorf("node-a gives %s the label %s: %v; want %q", r.node, r.label, err, r.refusal)
		}
	}
	// Its kubelet lets nobody in without a certificate.
	in := c.instance("node-b")
	if text, err := c.ask(c.instance("outside").PID, netip.AddrPortFrom(in.Address, 10250), "/pods"); err == nil {
		c.t.Errorf("the kubelet tells anybody: %s", text)
	}
}
