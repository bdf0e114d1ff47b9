//go:build e2e

package e2e

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/fairway-cni/fairway/test/kubernetes/programs"
)

// nodePortsLeadToPods: with the external traffic policy Cluster any node leads to any
// pod, as one of its own addresses where it sends on; with Local a node leads to its
// own pods, who see the client, and without one to nobody.
func nodePortsLeadToPods(c *cluster) {
	pods := c.byNode(c.readyPods("app=web", 3))
	outside := c.host("outside")
	for _, name := range nodeNames {
		node := c.host(name)
		c.eventually("the node port of "+name+" is served by its own pod, who sees the client", func() error {
			to := netip.AddrPortFrom(node.addr, localPort)
			server, err := outside.ask(to, "/hostname")
			if err != nil {
				return err
			}
			if server != pods[name].Name {
				return fmt.Errorf("%s answers, want %s", server, pods[name].Name)
			}
			return outside.isSeenAs(outside.addr, to)
		})
		if err := outside.isSeenAs(node.addr, netip.AddrPortFrom(node.addr, nodePort)); err != nil {
			c.t.Errorf("policy Cluster: %v", err)
		}
	}
	// One pod alone: the policies differ where it is not.
	c.apply(fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: single, labels: {app: single}}
spec:
  nodeName: node-a
  containers:
  - {name: web, image: %s, args: [netexec, --http-port=%d], readinessProbe: {httpGet: {path: /hostname, port: %[2]d}, periodSeconds: 1, timeoutSeconds: 5}}
---
apiVersion: v1
kind: Service
metadata: {name: single}
spec: {type: NodePort, selector: {app: single}, ports: [{port: 80, targetPort: %[2]d, nodePort: %[3]d}]}
---
apiVersion: v1
kind: Service
metadata: {name: single-local}
spec: {type: NodePort, externalTrafficPolicy: Local, selector: {app: single}, ports: [{port: 80, targetPort: %[2]d, nodePort: %[4]d}]}
`, programs.AgnhostImage, webPort, singlePort, singleLocalPort))
	c.readyPods("app=single", 1)
	for _, name := range nodeNames {
		node := c.host(name)
		c.eventually(name+" leads to the one pod", func() error {
			return outside.isSeenAs(node.addr, netip.AddrPortFrom(node.addr, singlePort))
		})
	}
	a, b := c.host("node-a"), c.host("node-b")
	c.eventually("node-a leads to its own pod", func() error {
		return outside.isSeenAs(outside.addr, netip.AddrPortFrom(a.addr, singleLocalPort))
	})
	if who, err := outside.askWithin(refuseTime, netip.AddrPortFrom(b.addr, singleLocalPort), "/hostname"); err == nil {
		c.t.Errorf("node-b has no pod of its own, and %s answers", who)
	}
	c.kubectl("delete", "--wait=false", "pod/single", "service/single", "service/single-local")
}

const (
	singlePort      = 30082
	singleLocalPort = 30083
	hostWebPort     = 8090 // of pods in the network of their host
	hostPort        = 8095

	// refuseTime bounds a request that nobody should answer.
	refuseTime = time.Second
)

// isSeenAs asks a server of agnhost which address it sees. The port that is seen
// need not be the client's own.
func (from place) isSeenAs(want netip.Addr, to netip.AddrPort) error {
	seen, err := from.ask(to, "/clientip")
	if err != nil {
		return err
	}
	if a, err := netip.ParseAddrPort(seen); err != nil || a.Addr() != want {
		return fmt.Errorf("%s sees %s as %q, want %s", to, from.name, seen, want)
	}
	return nil
}

// perNode is a pod on each node, with more of its specification.
func perNode(name, spec string, port uint16, more string) string {
	return fmt.Sprintf(`
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: %[1]s}
spec:
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      terminationGracePeriodSeconds: 1
      %[2]s
      containers:
      - name: web
        image: %[3]s
        args: [netexec, --http-port=%[4]d, --udp-port=-1]
        readinessProbe: {httpGet: {path: /hostname, port: %[4]d}, periodSeconds: 1, timeoutSeconds: 5}
        %[5]s
`, name, spec, programs.AgnhostImage, port, more)
}

// hostNetworkPods: they have their node's address, and pods and they see each other
// by it and by the pod's own.
func hostNetworkPods(c *cluster) {
	c.apply(perNode("hosts", "hostNetwork: true", hostWebPort, ""))
	hosts := c.byNode(c.readyPods("app=hosts", 3))
	pods := c.byNode(c.readyPods("app=web", 3))
	for _, name := range nodeNames {
		node, pod := c.host(name), c.pod(pods[name])
		if got := hosts[name].Status.PodIP; got != node.addr.String() {
			c.t.Errorf("%s has %s, want its node's %s", hosts[name].Name, got, node.addr)
		}
		for _, other := range nodeNames {
			for _, err := range []error{
				pod.isSeenAs(pod.addr, netip.AddrPortFrom(c.host(other).addr, hostWebPort)),
				node.isSeenAs(node.addr, netip.AddrPortFrom(netip.MustParseAddr(pods[other].Status.PodIP), webPort)),
			} {
				if err != nil {
					c.t.Errorf("%s and %s: %v", name, other, err)
				}
			}
		}
	}
}

// hostPorts: a port of the node leads to the pod that asked for it, who sees the
// client's own address; after the pod it leads to nobody.
func hostPorts(c *cluster) {
	c.apply(perNode("ports", "", webPort, fmt.Sprintf("ports: [{containerPort: %d, hostPort: %d}]", webPort, hostPort)))
	ports := c.byNode(c.readyPods("app=ports", 3))
	pods := c.byNode(c.readyPods("app=web", 3))
	outside := c.host("outside")
	for _, name := range nodeNames {
		node, to := c.host(name), netip.AddrPortFrom(c.host(name).addr, hostPort)
		clients := []place{outside, c.pod(pods["node-a"]), c.pod(pods["node-b"])}
		for _, from := range clients {
			server, err := from.ask(to, "/hostname")
			if err == nil && server != ports[name].Name {
				err = fmt.Errorf("%s answers %s, want %s", server, from.name, ports[name].Name)
			}
			if err == nil {
				err = from.isSeenAs(from.addr, to)
			}
			if err != nil {
				c.t.Errorf("host port of %s: %v", name, err)
			}
		}
		if server, err := node.ask(to, "/hostname"); err != nil || server != ports[name].Name {
			c.t.Errorf("host port of %s, from itself: %q, %v", name, server, err)
		}
	}
	c.kubectl("delete", "daemonset/ports", "--wait=true")
	c.readyPods("app=ports", 0)
	for _, name := range nodeNames {
		to := netip.AddrPortFrom(c.host(name).addr, hostPort)
		c.eventually("nobody answers at the host port of "+name, func() error {
			if who, err := outside.askWithin(refuseTime, to, "/hostname"); err == nil {
				return fmt.Errorf("%s answers", who)
			}
			return nil
		})
	}
}
