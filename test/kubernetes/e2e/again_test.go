//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairway-cni/fairway/lab/ec2sim"
	"github.com/fairway-cni/fairway/lab/world"
)

// kill ends a program of an instance.
func (c *cluster) kill(instance, program string) {
	c.t.Helper()
	c.signal(instance, program, "KILL")
}

// signal reaches a program by its name, as nothing but a shell can.
func (c *cluster) signal(instance, program, signal string) {
	c.t.Helper()
	// The kernel keeps 15 bytes of a program's name.
	script := `for p in /proc/[0-9]*; do if [ "$(cat $p/comm)" = "$1" ]; then kill -"$2" "${p#/proc/}" && n=1; fi; done 2>/dev/null; test -n "$n"`
	c.run(nil, "exec", instance, "--", "sh", "-c", script, "sh", program[:min(len(program), 15)], signal)
}

func programsStartAgain(c *cluster) {
	before := c.readyPods("app=web", 3)
	for _, p := range []struct{ instance, program string }{
		{"control-plane", "kube-apiserver"}, {"control-plane", "etcd"}, {"node-a", "kubelet"}, {"node-a", "containerd"},
	} {
		c.kill(p.instance, p.program)
		c.eventually(p.program+" runs again", func() error {
			for _, d := range c.instance(p.instance).Daemons {
				if d.Name == p.program && d.Running {
					return nil
				}
			}
			return fmt.Errorf("%s does not run", p.program)
		})
	}
	c.eventually("the API server is ready", func() error {
		_, err := c.try(nil, "kubectl", "get", "--raw", "/readyz")
		return err
	})
	after := c.readyPods("app=web", 3)
	for i := range before {
		if before[i].UID != after[i].UID || before[i].Status.PodIP != after[i].Status.PodIP || after[i].Status.ContainerStatuses[0].RestartCount != 0 {
			c.t.Errorf("%s at %s became %s at %s with %d restarts", before[i].Name, before[i].Status.PodIP,
				after[i].Name, after[i].Status.PodIP, after[i].Status.ContainerStatuses[0].RestartCount)
		}
	}
	c.eventually("a pod sees the other", func() error {
		_, err := c.askFrom(after[0], at(after[1]), "clientip")
		return err
	})
}

// nodeComesBack: a reboot takes the node's containers and its network with it.
func nodeComesBack(c *cluster) {
	c.reboot("node-a")
	c.eventually("the pod of node-a was started again", func() error {
		for _, p := range c.readyPods("app=web", 3) {
			if p.Spec.NodeName == "node-a" && p.Status.ContainerStatuses[0].RestartCount > 0 {
				return nil
			}
		}
		return fmt.Errorf("it has not been")
	})
	eachSeesTheOther(c, c.readyPods("app=web", 3))
}

// launchedInstanceJoins: without a network plugin it is not ready, and says so.
func launchedInstanceJoins(c *cluster) {
	c.run(nil, "ec2", "RunInstances", "ImageId=ami-1", "InstanceType=t3.small", "MinCount=1", "MaxCount=1", "SubnetId=@a",
		"IamInstanceProfile.Name="+world.AgentRole)
	c.eventually("the node says what it wants", func() error {
		var s world.Status
		if err := json.Unmarshal([]byte(c.run(nil, "status", "-o", "json")), &s); err != nil {
			return err
		}
		for _, in := range s.Instances {
			if in.Name != "" {
				continue
			}
			text, err := c.try(nil, "kubectl", "get", "node", in.ID, "-o", "json")
			if err != nil {
				return err
			}
			var n corev1.Node
			if err := json.Unmarshal([]byte(text), &n); err != nil {
				return err
			}
			for _, is := range n.Status.Conditions {
				if is.Type == corev1.NodeReady && strings.Contains(is.Message, "NetworkPluginNotReady") {
					return nil
				}
			}
			return fmt.Errorf("%s: %v", n.Name, n.Status.Conditions)
		}
		return fmt.Errorf("there is no launched instance")
	})
}

// controlPlaneComesBack: what etcd knew was in the instance's memory. The cluster is
// a new one, and has the same nodes.
func controlPlaneComesBack(c *cluster) {
	c.run(nil, "instance", "reboot", "control-plane")
	c.eventually("the nodes are in the new cluster", func() error {
		_, err := c.try(nil, "kubectl", "wait", "--for=condition=Ready", "node/node-a", "node/node-b", "node/node-c", "--timeout=1s")
		return err
	})
	if out := c.kubectl("get", "deployments", "-o", "name"); out != "" {
		c.t.Errorf("the new cluster has %q of the old one", out)
	}
	c.grant()
	c.published()
	c.eventually("a deployment can be made", func() error {
		_, err := c.try([]byte(web), "kubectl", "--", "apply", "-f", "-")
		return err
	})
	eachSeesTheOther(c, c.readyPods("app=web", 3))
}

// rightsSuffice: nodes have asked EC2 for what they needed, after a reboot also, and
// none was refused for want of a right. Their role is what docs/iam.md says.
func rightsSuffice(c *cluster) {
	var calls []ec2sim.Call
	if err := json.Unmarshal([]byte(c.run(nil, "calls", "-o", "json")), &calls); err != nil {
		c.t.Fatal(err)
	}
	made := map[string]int{}
	for _, call := range calls {
		node, ok := strings.CutPrefix(call.Caller, world.AgentRole+"/")
		if !ok {
			continue
		}
		made[node]++
		if call.Code == "UnauthorizedOperation" {
			c.t.Errorf("%s called %s, which the policies of docs/iam.md do not allow", call.Caller, call.Action)
		}
	}
	for _, name := range nodeNames {
		if made[c.instance(name).ID] == 0 {
			c.t.Errorf("%s made no call as %s", name, world.AgentRole)
		}
	}
}
