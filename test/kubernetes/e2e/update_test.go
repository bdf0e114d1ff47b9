//go:build e2e

package e2e

import (
	"fmt"
	"net/netip"
)

// clients are ways to the service web from everywhere: from outside by the node ports
// of two nodes, from a node, and from a pod that stays.
func (c *cluster) clients() []*way {
	c.t.Helper()
	c.apply(clientPod)
	pod := c.pod(c.only(c.readyPods("app=client", 1)))
	outside, a, b := c.host("outside"), c.host("node-a"), c.host("node-b")
	return []*way{
		{from: outside, to: netip.AddrPortFrom(a.addr, nodePort)},
		{from: outside, to: netip.AddrPortFrom(b.addr, nodePort)},
		{from: b, to: webAddress},
		{from: pod, to: webAddress},
	}
}

// clientPod is on node-a, which none of these stories take away.
const clientPod = `
apiVersion: v1
kind: Pod
metadata: {name: client, labels: {app: client}}
spec:
  nodeName: node-a
  terminationGracePeriodSeconds: 1
  containers: [{name: client, image: fairway.test/pause:1}]
`

// drainLosesNothing: a node is emptied, booted anew and used again.
func drainLosesNothing(c *cluster) {
	t := c.startTraffic(c.clients()...)
	t.goesOn()
	c.kubectl("drain", "node-c", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=90s")
	t.goesOn()
	for _, p := range c.readyPods("app=web", 3) {
		if p.Spec.NodeName == "node-c" {
			c.t.Errorf("%s is on node-c, which is drained", p.Name)
		}
	}
	c.reboot("node-c")
	c.kubectl("uncordon", "node-c")
	t.lostNone()
}

// rollingUpdateLosesNothing: each pod is replaced, and so there is one on each node
// again.
func rollingUpdateLosesNothing(c *cluster) {
	before := map[string]bool{}
	for _, p := range c.readyPods("app=web", 3) {
		before[p.Name] = true
	}
	t := c.startTraffic(c.clients()...)
	t.goesOn()
	c.kubectl("rollout", "restart", "deployment/web")
	c.kubectl("rollout", "status", "deployment/web", "--timeout=180s")
	after := c.readyPods("app=web", 3)
	c.byNode(after)
	for _, p := range after {
		if before[p.Name] {
			c.t.Errorf("%s was there before the update", p.Name)
		}
	}
	c.eventually("the old pods are gone", func() error {
		list, err := c.pods("app=web")
		if err == nil && len(list) > 3 {
			err = fmt.Errorf("there are %d", len(list))
		}
		return err
	})
	t.lostNone()
	eachSeesTheOther(c, after)
	c.kubectl("delete", "pod/client", "--wait=false")
}
