//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairway-cni/fairway/bench/pods"
	"github.com/fairway-cni/fairway/internal/edge/agentapi"
	"github.com/fairway-cni/fairway/lab/kubernetes"
)

// startMembers brings up three nodes whose agents are of the cluster, with the rights
// that the chart gives them and no others. They are programs of the nodes, which a test
// can end and start; TestChart has them as pods.
func startMembers(t *testing.T, name, yaml string, flags ...string) *cluster {
	t.Helper()
	conf := filepath.Join(t.TempDir(), "agent.conf")
	var nodes strings.Builder
	for _, node := range nodeNames {
		argv, err := json.Marshal(agentOf(conf, node))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&nodes, "  - {name: %s, type: m5.large, subnet: %s, daemons: [{name: agent, command: %s, capabilities: [NET_ADMIN]}]}\n",
			node, subnetNames[node], argv)
	}
	c := startCluster(t, name, yaml+fmt.Sprintf(threeNodes, nodes.String()), append(flags, "--outside=outside")...)
	c.conf = conf
	c.grant()
	admin, err := os.ReadFile(filepath.Join(kubernetes.Dir(c.lab), "admin.conf"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := kubernetes.ActAs(admin, pods.Account)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(conf+".tmp", text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(conf+".tmp", conf); err != nil { // the agents wait for it
		t.Fatal(err)
	}
	return c
}

// agentOf is the command of a node's agent.
func agentOf(conf, node string) []string {
	return kubernetes.WhenThere(conf, "fairway-agent", "--node-name="+node, "--kubeconfig="+conf)
}

// grant gives the cluster the kinds and the rights of the agent.
func (c *cluster) grant() {
	c.t.Helper()
	text, err := pods.Grants(filepath.Join(repository, "deploy"))
	if err != nil {
		c.t.Fatal(err)
	}
	c.run(text, "kubectl", "--", "apply", "--server-side", "-f", "-")
	c.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
}

// agentStatus is what `fairway status` says on a node.
func (c *cluster) agentStatus(node string) (st agentapi.Status, err error) {
	out, err := c.try(nil, "exec", node, "--", "fairway", "status", "-o", "json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &st)
	}
	return st, err
}
