//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairway-cni/fairway/api/v1alpha1"
	core "github.com/fairway-cni/fairway/internal/core/cluster"
	"github.com/fairway-cni/fairway/lab/world"
)

// nodesAreShown: who lists the nodes reads what the agents know, in the columns of
// their definition.
func (s *away) nodesAreShown() {
	for _, node := range []string{"node-b", "node-c"} {
		s.eventually("the row of "+node+" is what its agent says", func() error {
			st, err := s.agentStatus(node)
			if err != nil {
				return err
			}
			attached := 0
			for _, e := range st.ENIs {
				if e.State == "attached" {
					attached++
				}
			}
			want := []string{node, s.instance(node).ID, "m5.large"}
			for _, n := range []int{attached, st.Pool.Assigned, st.Pool.Free, st.Wanted.Addresses} {
				want = append(want, strconv.Itoa(n))
			}
			want = append(want, "True")
			out, err := s.try(nil, "kubectl", "--", "get", "enin", node, "--no-headers")
			if err != nil {
				return err
			}
			if row := strings.Fields(out); len(row) != 9 || !slices.Equal(row[:8], want) {
				return fmt.Errorf("it is %q, want %q and an age", row, want)
			}
			return nil
		})
	}
	var pods corev1.PodList
	s.get(&pods, "pods", "-l", "app=steady")
	for _, node := range []string{"node-b", "node-c"} { // what node-a had not yet said, its agent cannot say now
		s.eventually("the ENINode of "+node+" shows who has which address", func() error {
			n := s.eniNode(node)
			for _, p := range pods.Items {
				if p.Spec.NodeName == node && !slices.ContainsFunc(n.Status.Pods, func(a v1alpha1.PodAddress) bool { return a.Name == p.Name && a.Address == p.Status.PodIP }) {
					return fmt.Errorf("it does not show that %s has %s: %+v", p.Name, p.Status.PodIP, n.Status.Pods)
				}
			}
			return nil
		})
	}
}

func (c *cluster) eniNode(node string) (n v1alpha1.ENINode) {
	c.t.Helper()
	c.get(&n, "eninode", node)
	return n
}

// rollout is a NodeConfig for two nodes whose agents are there.
func rollout(options string) string {
	return "apiVersion: fairway-cni.io/v1alpha1\nkind: NodeConfig\nmetadata: {name: rollout}\nspec: {nodeSelector: {rollout: tried}, options: " + options + "}"
}

// badOptionsStop: two nodes are to have options with which no agent can start. One
// tries them, says so and goes back; the other stays as it is. Options that are good
// are then taken over by both, and given up with the object.
func (s *away) badOptionsStop() {
	both := []string{"node-b", "node-c"}
	before := map[string]int{}
	for _, node := range both {
		s.run(nil, "exec", node, "--", "rm", "/opt/cni/bin/bandwidth")
		s.kubectl("label", "node", node, "rollout=tried")
		before[node] = s.begunAgain(node)
	}
	s.apply(rollout(`{bandwidth: "true"}`))
	var failed v1alpha1.NodeConfig
	s.eventually("the options have failed", func() error {
		failed = v1alpha1.NodeConfig{}
		s.get(&failed, "nodeconfig", "rollout")
		if r := failed.Status.Rollout; r == nil || r.State != v1alpha1.RolloutFailed {
			return fmt.Errorf("rollout %+v", r)
		}
		return nil
	})
	tried := failed.Status.Rollout
	if !slices.Contains(both, tried.Node) || !strings.Contains(tried.Message, "bandwidth") || failed.Status.Accepted != nil {
		s.t.Errorf("rollout %+v, accepted %+v; want one of %q and the option's name", tried, failed.Status.Accepted, both)
	}
	for _, node := range both {
		s.eventually("the ENINode of "+node+" says that it has failed", func() error {
			n := s.eniNode(node)
			for _, is := range n.Status.Conditions {
				if is.Type == v1alpha1.ConfigurationValid && is.Status == "False" && strings.Contains(is.Message, tried.Node) && strings.Contains(is.Message, "bandwidth") {
					return nil
				}
			}
			return fmt.Errorf("conditions %+v", n.Status.Conditions)
		})
		if n := s.begunAgain(node) - before[node]; n != 0 != (node == tried.Node) {
			s.t.Errorf("the agent of %s has begun again %d times, and %s has tried the options", node, n, tried.Node)
		}
	}
	s.apply(rollout(`{warm-ip-target: "3"}`))
	s.bothHave(both, 3)
	s.kubectl("delete", "nodeconfig", "rollout")
	s.bothHave(both, 0)
}

// bothHave waits until nodes have a target.
func (s *away) bothHave(nodes []string, warm int) {
	s.t.Helper()
	for _, node := range nodes {
		s.eventually(fmt.Sprintf("%s keeps %d addresses warm", node, warm), func() error {
			st, err := s.agentStatus(node)
			if err == nil && st.Targets.WarmIPs != warm {
				err = fmt.Errorf("it keeps %d", st.Targets.WarmIPs)
			}
			return err
		})
	}
}

// begunAgain is how often the agent of a node has begun again with other options.
func (c *cluster) begunAgain(node string) int {
	c.t.Helper()
	text, err := os.ReadFile(filepath.Join(world.Dir(c.lab), world.LogName(c.instance(node).ID, "agent")))
	if err != nil {
		c.t.Fatal(err)
	}
	return strings.Count(string(text), "the options have changed")
}

// tainted reports whether a node has the start-up taint.
func (c *cluster) tainted(node string) bool {
	c.t.Helper()
	var n corev1.Node
	c.get(&n, "node", node)
	return slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == core.NotReadyTaint })
}

// boundPods are more than a node keeps warm addresses for.
const boundPods = 12

// poolGrowsByBoundPods: the pods of a node cannot start, as its runtime hangs, and so
// ask for nothing; that they will is known, and their addresses are there before.
func poolGrowsByBoundPods(c *cluster) {
	const node = "node-b"
	before, err := c.agentStatus(node)
	if err != nil {
		c.t.Fatal(err)
	}
	c.signal(node, "containerd", "STOP")
	resume := func() { c.signal(node, "containerd", "CONT") }
	defer func() {
		if resume != nil {
			resume()
		}
	}()
	c.apply(fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: bound}
spec:
  replicas: %d
  selector: {matchLabels: {app: bound}}
  template:
    metadata: {labels: {app: bound}}
    spec:
      terminationGracePeriodSeconds: 1
      nodeSelector: {kubernetes.io/hostname: %s}
      containers: [{name: pause, image: fairway.test/pause:1}]
`, boundPods, node))
	c.eventually("there are addresses for pods that have not asked", func() error {
		st, err := c.agentStatus(node)
		switch {
		case err != nil:
			return err
		case st.Pool.Assigned != before.Pool.Assigned || len(st.Waiting) > 0:
			return fmt.Errorf("%d addresses are held and were %d, %d pods wait", st.Pool.Assigned, before.Pool.Assigned, len(st.Waiting))
		case st.Scheduled != boundPods || st.Pool.Total <= before.Pool.Total || st.Pool.Free < boundPods:
			return fmt.Errorf("%d pods are known; %d addresses, %d of them free; there were %d", st.Scheduled, st.Pool.Total, st.Pool.Free, before.Pool.Total)
		}
		return nil
	})
	resume()
	resume = nil
	c.readyPods("app=bound", boundPods)
	c.kubectl("delete", "deployment/bound", "--timeout=60s")
	c.readyPods("app=bound", 0)
}

// published waits until each node's agent has written what it knows.
func (c *cluster) published() {
	c.t.Helper()
	for _, node := range nodeNames {
		c.eventually("the ENINode of "+node+" is there", func() error {
			var n v1alpha1.ENINode
			text, err := c.try(nil, "kubectl", "--", "get", "eninode", node, "-o", "json")
			if err == nil {
				err = json.Unmarshal([]byte(text), &n)
			}
			if err == nil && n.Status.InstanceID != c.instance(node).ID {
				err = errors.New("it is of instance " + n.Status.InstanceID)
			}
			return err
		})
	}
}
