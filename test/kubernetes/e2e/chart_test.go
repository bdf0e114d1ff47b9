//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/nftables"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairway-cni/fairway/api/v1alpha1"
	core "github.com/fairway-cni/fairway/internal/core/cluster"
	"github.com/fairway-cni/fairway/internal/edge/kernel"
	"github.com/fairway-cni/fairway/lab/fabric/netns"
	"github.com/fairway-cni/fairway/lab/world"
)

// bareNodes have no agent of the lab's.
const bareNodes = `
vpcs:
  - name: main
    cidr: 10.0.0.0/16
    subnets: [{name: a, cidr: 10.0.1.0/24, zone: a}, {name: b, cidr: 10.0.2.0/24, zone: b}]
instances:
  - {name: node-a, type: m5.large, subnet: a}
  - {name: node-b, type: m5.large, subnet: b}
  - {name: node-c, type: m5.large, subnet: b}
`

// TestChart: the image and the chart as a user has them, from a cluster without a
// network to one with, through an upgrade, and back.
func TestChart(t *testing.T) {
	t.Parallel()
	needCluster(t)
	// The lab's instances find no plugin of ours but the one that is installed.
	programs := t.TempDir()
	lab, err := os.ReadFile(filepath.Join(fairwayPrograms, "fairway-lab"))
	if err == nil {
		err = os.WriteFile(filepath.Join(programs, "fairway-lab"), lab, 0o755)
	}
	if err == nil {
		err = os.Symlink(filepath.Join(fairwayPrograms, "kubernetes"), filepath.Join(programs, "kubernetes"))
	}
	if err != nil {
		t.Fatal(err)
	}
	s := &charted{cluster: startClusterWith(t, programs, "chart", bareNodes), before: map[string]string{}}
	for _, step := range []struct {
		name string
		run  func(*charted)
	}{
		{"nodes are not ready", notReady},
		{"the chart makes them ready", chartInstalls},
		{"the agent has one capability", oneCapability},
		{"the cluster knows its nodes, by the chart's rights", nodesAreKnown},
		{"pods see each other", func(s *charted) { podsSeeEachOther(s.cluster) }},
		{"an upgrade costs no packet", upgradeUnderTraffic},
		{"uninstall refuses while there are pods", uninstallRefuses},
		{"uninstall leaves nothing", uninstallLeavesNothing},
	} {
		ok := t.Run(step.name, func(t *testing.T) {
			s.t = t
			step.run(s)
		})
		if !ok {
			return // the later ones go on from here
		}
	}
}

type charted struct {
	*cluster
	before map[string]string // of a node, its network before Fairway
}

// values are the chart's, in the lab.
func values(region, tag, more string) string {
	return fmt.Sprintf(`
image: {repository: fairway.test/fairway, tag: %s, pullPolicy: Never}
# Of three nodes 10%% is one, too.
maxUnavailable: 1
env:
- {name: AWS_ENDPOINT_URL_EC2, value: "http://%s"}
- {name: AWS_REGION, value: %s}
%s`, tag, world.EC2Addr, region, more)
}

// manifests are what the chart makes of values.
func (s *charted) manifests(tag, more string) string {
	s.t.Helper()
	file := filepath.Join(s.t.TempDir(), "values.yaml")
	if err := os.WriteFile(file, []byte(values(s.instance("node-a").Region, tag, more)), 0o600); err != nil {
		s.t.Fatal(err)
	}
	render := exec.CommandContext(s.t.Context(), "go", "run", "./render", "-values", file)
	render.Dir = filepath.Join(repository, "test", "chart")
	render.Stderr = io.Discard
	out, err := render.Output()
	if err != nil {
		s.t.Fatalf("%s: %v", render, err)
	}
	return string(out)
}

func (s *charted) rolledOut() {
	s.t.Helper()
	s.kubectl("-n", "kube-system", "rollout", "status", "daemonset/fairway-agent", "--timeout=180s")
}

func notReady(s *charted) {
	if out, err := s.try(nil, "kubectl", "--", "wait", "--for=condition=Ready=false", "node", "--all", "--timeout=60s"); err != nil {
		s.t.Fatal(out, err)
	}
	for _, node := range nodeNames {
		s.before[node] = s.network(node)
		s.kubectl("taint", "node", node, core.NotReadyTaint+"=:NoExecute") // as a node group does
	}
}

func chartInstalls(s *charted) {
	s.importImage("dev")
	definitions, err := filepath.Glob(filepath.Join(repository, "deploy", "crds", "*.yaml"))
	if err != nil || len(definitions) == 0 {
		s.t.Fatalf("no definitions: %v", err)
	}
	for _, f := range definitions {
		s.kubectl("apply", "-f", f)
	}
	s.apply(s.manifests("dev", ""))
	s.rolledOut()
	s.kubectl("wait", "--for=condition=Ready", "node", "--all", "--timeout=90s")
	var list appsv1.DaemonSetList
	s.get(&list, "daemonsets", "-A")
	if len(list.Items) != 1 || list.Items[0].Status.NumberReady != 3 {
		s.t.Errorf("daemonsets %+v, want ours, ready on three nodes", list.Items)
	}
}

// oneCapability: the process as the kernel has it, and not what was asked for.
func oneCapability(s *charted) {
	const script = `for p in /proc/[0-9]*; do if [ "$(cat $p/comm)" = fairway-agent ]; then grep -E '^(Cap|NoNewPrivs|Seccomp:|Uid)' $p/status; fi; done 2>/dev/null`
	for _, node := range nodeNames {
		status := s.run(nil, "exec", node, "--", "sh", "-c", script)
		const netAdmin = "0000000000001000" // bit 12; include/uapi/linux/capability.h
		for _, want := range []string{"CapPrm:\t" + netAdmin, "CapEff:\t" + netAdmin, "CapBnd:\t" + netAdmin, "NoNewPrivs:\t1", "Seccomp:\t2"} {
			if strings.Count(status, want) != 1 {
				s.t.Errorf("%s: want %q once in\n%s", node, want, status)
			}
		}
	}
}

// nodesAreKnown: what the agent writes is there, the taint is not, and the API server
// has refused it nothing.
func nodesAreKnown(s *charted) {
	for _, node := range nodeNames {
		s.eventually(node+" is published, and takes pods", func() error {
			var n corev1.Node
			s.get(&n, "node", node)
			for _, taint := range n.Spec.Taints {
				if taint.Key == core.NotReadyTaint {
					return errors.New("the taint is there")
				}
			}
			var e v1alpha1.ENINode
			text, err := s.try(nil, "kubectl", "get", "eninode", node, "-o", "json")
			if err == nil {
				err = json.Unmarshal([]byte(text), &e)
			}
			switch {
			case err != nil:
				return err
			case e.Status.InstanceID != s.instance(node).ID || e.Status.AttachedENIs == 0:
				return fmt.Errorf("status %+v", e.Status)
			case len(e.OwnerReferences) != 1 || e.OwnerReferences[0].UID != n.UID:
				return fmt.Errorf("owners %+v", e.OwnerReferences)
			}
			return nil
		})
		s.nothingRefused(node)
	}
	s.t.Logf("%s\n%s", s.kubectl("get", "eninodes"), s.kubectl("-n", "kube-system", "exec", s.agentOf("node-a"), "--", "/fairway", "status"))
	if out := s.kubectl("-n", "kube-system", "exec", s.agentOf("node-a"), "--", "/fairway", "check"); !strings.Contains(out, " 0 FAIL") {
		s.t.Errorf("fairway check, in the agent's container:\n%s", out)
	}
}

// nothingRefused: every kind of request that the agent makes was granted. Those that
// were made before there were definitions do not count.
func (s *charted) nothingRefused(node string) {
	s.t.Helper()
	in := s.instance(node)
	s.eventually("requests of every kind are granted to "+node, func() error {
		text, err := s.ask(in.PID, netip.MustParseAddrPort("127.0.0.1:61678"), "/metrics")
		if err != nil {
			return err
		}
		for _, want := range []string{
			`verb="watch",what="pods"`, `verb="watch",what="nodes"`, `verb="watch",what="nodeconfigs"`, `verb="watch",what="eniconfigs"`,
			`verb="patch",what="nodes"`, `verb="patch",what="eninodes"`,
		} {
			verb, what, _ := strings.Cut(want, ",")
			if !strings.Contains(text, `result="ok",`+verb+","+what+"}") {
				return fmt.Errorf("no request %s was granted in\n%s", want, text)
			}
		}
		return nil
	})
	if log := s.kubectl("-n", "kube-system", "logs", s.agentOf(node)); strings.Contains(log, "forbidden") {
		s.t.Errorf("%s: rights are missing:\n%s", node, log)
	}
}

// upgradeUnderTraffic: another image and another option, while pods talk.
func upgradeUnderTraffic(s *charted) {
	s.importImage("next")
	next := s.manifests("next", "options: {warm-ip-target: 3}")
	pods := s.readyPods("app=web", 3)
	before := s.agents()
	var pulses []*pulse
	for _, from := range pods {
		for _, to := range pods {
			if from.Name != to.Name {
				pulses = append(pulses, s.startPulse(s.pod(from), s.pod(to)))
			}
		}
	}
	traffic := s.startTraffic(&way{from: s.pod(pods[0]), to: webAddress}, &way{from: s.host("node-c"), to: at(pods[0])})
	s.apply(next)
	s.rolledOut()
	after := s.agents()
	for _, p := range pulses {
		p.goesOn()
		p.lostNone()
	}
	traffic.lostNone()
	for name := range after {
		if before[name] {
			s.t.Errorf("agent %s was there before the upgrade", name)
		}
	}
	for _, node := range nodeNames {
		out := s.kubectl("-n", "kube-system", "exec", s.agentOf(node), "--", "/fairway", "status")
		if !strings.Contains(out, "3 warm") && !strings.Contains(out, "3 addresses") {
			s.t.Errorf("%s does not follow the option:\n%s", node, out)
		}
	}
	for i, p := range s.readyPods("app=web", 3) {
		if p.UID != pods[i].UID || p.Status.ContainerStatuses[0].RestartCount != 0 {
			s.t.Errorf("pod %s is another one after the upgrade", p.Name)
		}
	}
	eachSeesTheOther(s.cluster, s.readyPods("app=web", 3))
}

// agents are the names of the pods of agents.
func (s *charted) agents() map[string]bool {
	s.t.Helper()
	names := map[string]bool{}
	for _, name := range strings.Fields(s.kubectl("-n", "kube-system", "get", "pods", "-l", "app.kubernetes.io/name=fairway", "-o", "name")) {
		names[name] = true
	}
	return names
}

func (s *charted) agentOf(node string) string {
	s.t.Helper()
	return strings.TrimSpace(s.kubectl("-n", "kube-system", "get", "pods", "-l", "app.kubernetes.io/name=fairway",
		"--field-selector=spec.nodeName="+node, "-o", "name"))
}

// uninstallRefuses: pods go on, and the reason is told.
func uninstallRefuses(s *charted) {
	pods := s.readyPods("app=web", 3)
	s.apply(s.manifests("next", "uninstall: true"))
	s.eventually("a refusal is told", func() error {
		for name := range s.agents() {
			out, err := s.try(nil, "kubectl", "--", "-n", "kube-system", "logs", name, "-c", "uninstall")
			if err == nil && strings.Contains(out, "pods still have their network from fairway") {
				return nil
			}
		}
		return fmt.Errorf("no log has it")
	})
	eachSeesTheOther(s.cluster, pods)
	// The way out is an agent again, until the pods have gone.
	s.apply(s.manifests("next", ""))
	s.rolledOut()
	eachSeesTheOther(s.cluster, pods)
}

func uninstallLeavesNothing(s *charted) {
	s.kubectl("drain", "node-a", "node-b", "node-c", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=90s")
	gone := s.manifests("next", "uninstall: true")
	s.apply(gone)
	s.rolledOut()
	s.run([]byte(gone), "kubectl", "--", "delete", "--timeout=60s", "-f", "-")
	for _, node := range nodeNames {
		s.eventually("nothing is left on "+node, func() error {
			if now := s.network(node); now != s.before[node] {
				return fmt.Errorf("it has\n%swant\n%s", now, s.before[node])
			}
			return nil
		})
	}
	if out := s.kubectl("get", "clusterroles,clusterrolebindings,serviceaccounts,configmaps,daemonsets", "-A", "-o", "name"); strings.Contains(out, "fairway") {
		s.t.Errorf("objects are left:\n%s", out)
	}
}

// network is what a node has of a network plugin's, in one text: rules, tables of
// nftables, pods' devices, what is ours by the agent's own reading, and files.
func (s *charted) network(node string) string {
	s.t.Helper()
	var all strings.Builder
	for _, command := range [][]string{
		{"ip", node, "rule"},
		{"exec", node, "--", "sh", "-c", "for d in /etc/cni/net.d /opt/cni/bin /run/fairway; do ls -A $d 2>/dev/null; done; true"},
	} {
		fmt.Fprintf(&all, "%s\n", s.run(nil, command...))
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", s.instance(node).PID))
	if err != nil {
		s.t.Fatal(err)
	}
	defer ns.Close()
	err = netns.Do(ns, func() error {
		k, err := kernel.Open()
		if err != nil {
			return err
		}
		ours, err := k.Read(nil)
		for _, o := range ours {
			fmt.Fprintln(&all, o)
		}
		devices, listErr := k.Devices()
		for _, d := range devices {
			if d.Group != 0 {
				fmt.Fprintf(&all, "device %s of group %#x\n", d.Name, d.Group)
			}
		}
		c, nftErr := nftables.New()
		if nftErr != nil {
			return errors.Join(err, listErr, nftErr, k.Close())
		}
		tables, nftErr := c.ListTablesOfFamily(nftables.TableFamilyINet)
		for _, t := range tables {
			fmt.Fprintln(&all, "table inet", t.Name)
		}
		return errors.Join(err, listErr, nftErr, k.Close())
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return all.String()
}
