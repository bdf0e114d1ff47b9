//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	core "github.com/fairway-cni/fairway/internal/core/cluster"
	"github.com/fairway-cni/fairway/lab/ec2sim"
	"github.com/fairway-cni/fairway/lab/guest"
	"github.com/fairway-cni/fairway/lab/world"
	"github.com/fairway-cni/fairway/test/kubernetes/programs"
)

// How long things are away. Nothing that Kubernetes or Fairway does by the clock in
// the meantime may harm a pod: leases of nodes end after 40 s, pods of a node that
// is not ready are evicted after five minutes.
const (
	agentAway  = 5 * time.Minute
	serverAway = time.Minute
)

// TestAway is five minutes in which, while pods talk: an agent is gone, the API server
// is gone for a minute and another agent is started meanwhile, EC2 is throttled while
// pods are made, and agents begin anew with other options. It runs beside TestCluster,
// because it mostly waits.
func TestAway(t *testing.T) {
	t.Parallel()
	s := &away{cluster: startMembers(t, "away", "\nec2: {delay: 50ms, attach: 1s}")}
	s.apply(steady)
	s.talkers = s.readyPods("app=steady", 6)
	s.apply(web) // its service is how requests come
	s.readyPods("app=web", 3)
	s.goner = s.pinned("goner", "node-a")
	s.readyPods("app=goner", 1)
	s.published()
	s.kubectl("-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=180s")
	s.eventually("the services lead to all their pods", func() error {
		names, err := s.pods("k8s-app=kube-dns", "-A")
		if err != nil {
			return err
		}
		s.endpoints = s.readEndpoints()
		for service, want := range map[string]int{"web": 3, "web-local": 3, "kube-dns": len(names)} {
			n := 0
			for _, e := range s.endpoints {
				if strings.HasPrefix(e, service+" ") {
					n++
				}
			}
			if n != want {
				return fmt.Errorf("%s leads to %d, want %d: %q", service, n, want, s.endpoints)
			}
		}
		return nil
	})
	s.startTalk()
	for _, step := range []struct {
		name string
		run  func()
	}{
		{"an agent is killed", s.agentIsKilled},
		{"the API server is away and an agent starts", s.serverIsAway},
		{"EC2 is throttled", s.throttled},
		{"the nodes are shown", s.nodesAreShown},
		{"bad options stop at the first node", s.badOptionsStop},
		{"after five minutes nothing has changed", s.fiveMinutes},
		{"the agent is back", s.agentIsBack},
		{"nothing was lost", s.nothingLost},
	} {
		ok := t.Run(step.name, func(t *testing.T) {
			s.t = t
			step.run()
		})
		s.t = t
		if !ok {
			return
		}
	}
}

// away is the story's state.
type away struct {
	*cluster
	talkers   []corev1.Pod // of steady
	goner     netip.Addr   // of the pod that is deleted while its node has no agent
	endpoints []string
	requests  *traffic
	pulses    []*pulse
	killed    time.Time // the agent of node-a
}

// steady is two pods on each node that nobody touches.
var steady = fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: steady}
spec:
  replicas: 6
  selector: {matchLabels: {app: steady}}
  template:
    metadata: {labels: {app: steady}}
    spec:
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: steady}}}
      containers: [{name: web, image: %s, args: [netexec, --http-port=%d]}]
`, programs.AgnhostImage, webPort)

// pinned makes a pod on a node, and gives its address if the pod gets one.
func (s *away) pinned(name, node string) netip.Addr {
	s.t.Helper()
	s.apply(fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, labels: {app: %[1]s}}
spec:
  nodeName: %[2]s
  terminationGracePeriodSeconds: 1
  containers: [{name: web, image: %[3]s, args: [netexec, --http-port=%[4]d]}]
`, name, node, programs.AgnhostImage, webPort))
	if name != "goner" {
		return netip.Addr{}
	}
	return netip.MustParseAddr(s.only(s.readyPods("app="+name, 1)).Status.PodIP)
}

// startTalk has each pod of steady send to the next, and clients ask the service.
func (s *away) startTalk() {
	s.t.Helper()
	for i, p := range s.talkers {
		s.pulses = append(s.pulses, s.startPulse(s.pod(p), s.pod(s.talkers[(i+1)%len(s.talkers)])))
	}
	s.requests = s.startTraffic(s.clients()...)
	s.requests.goesOn()
}

// readEndpoints lists the addresses of all services' endpoints.
func (s *away) readEndpoints() (all []string) {
	s.t.Helper()
	var list discoveryv1.EndpointSliceList
	s.get(&list, "endpointslices", "-A")
	for _, slice := range list.Items {
		for _, e := range slice.Endpoints {
			if e.Conditions.Ready == nil || *e.Conditions.Ready {
				all = append(all, slice.Labels[discoveryv1.LabelServiceName]+" "+strings.Join(e.Addresses, " "))
			}
		}
	}
	slices.Sort(all)
	return all
}

// unharmed asserts that endpoints, nodes and pods are what they were.
func (s *away) unharmed() {
	s.t.Helper()
	if now := s.readEndpoints(); !slices.Equal(now, s.endpoints) {
		s.t.Errorf("endpoints are %q, were %q", now, s.endpoints)
	}
	var nodes corev1.NodeList
	s.get(&nodes, "nodes")
	for _, n := range nodes.Items {
		for _, is := range n.Status.Conditions {
			if is.Type == corev1.NodeReady && is.Status != corev1.ConditionTrue {
				s.t.Errorf("%s is not ready: %s", n.Name, is.Message)
			}
		}
	}
	now := map[string]corev1.Pod{}
	for _, p := range s.readyPods("app=steady", len(s.talkers)) {
		now[p.Name] = p
	}
	for _, was := range s.talkers {
		is, ok := now[was.Name]
		if !ok || is.UID != was.UID || is.Status.PodIP != was.Status.PodIP || is.Status.ContainerStatuses[0].RestartCount != 0 {
			s.t.Errorf("%s at %s is %s at %s now, restarts %v", was.Name, was.Status.PodIP, is.Name, is.Status.PodIP, is.Status.ContainerStatuses)
		}
	}
}

// stopAgent ends a node's agent, as a crash does, and nobody starts it again.
func (s *away) stopAgent(node string) {
	s.t.Helper()
	s.kill(node, "fairway-agent")
	s.eventually("the agent of "+node+" is gone", func() error {
		if _, err := s.agentStatus(node); err == nil {
			return errors.New("it answers")
		}
		return nil
	})
}

// startAgent starts it as the node's boot did.
func (s *away) startAgent(node string) {
	s.t.Helper()
	in := s.instance(node)
	g, err := guest.Dial(in.Socket)
	if err != nil {
		s.t.Fatal(err)
	}
	log, err := os.OpenFile(filepath.Join(world.Dir(s.lab), world.LogName(in.ID, "agent")), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	s.eventually("the agent of "+node+" is started", func() error {
		_, err := g.StartDaemon(s.t.Context(), guest.Daemon{Name: "agent", Argv: agentOf(s.conf, node), Dir: "/",
			Env: world.Env(in.Region, []string{fairwayPrograms}), Log: log, Caps: []uintptr{unix.CAP_NET_ADMIN}})
		return err
	})
	s.eventually("the agent of "+node+" answers", func() error {
		_, err := s.agentStatus(node)
		return err
	})
}

// agentIsKilled: without an agent a pod can be deleted, and a new one has to wait.
func (s *away) agentIsKilled() {
	s.stopAgent("node-a")
	s.killed = time.Now()
	s.kubectl("taint", "node", "node-a", core.NotReadyTaint+"=:NoSchedule") // as of a node that has just come
	s.kubectl("delete", "pod", "goner", "--timeout=60s")
	s.pinned("waiter", "node-a")
	s.eventually("a new pod is told why it waits", func() error {
		var list corev1.EventList
		s.get(&list, "events", "--field-selector=reason=FailedCreatePodSandBox,involvedObject.name=waiter")
		for _, e := range list.Items {
			if strings.Contains(e.Message, "fairway") {
				return nil
			}
		}
		return fmt.Errorf("%d events", len(list.Items))
	})
	s.unharmed()
}

// serverIsAway: the API server hangs, as it does behind a network that drops; an agent
// is killed meanwhile and started again, and serves without it. The controller manager
// ends, as one does that cannot renew its lease: one that went on would take the
// kubelets for dead.
func (s *away) serverIsAway() {
	s.signal(controlPlane, "kube-apiserver", "STOP")
	stopped := time.Now()
	resume := func() { s.signal(controlPlane, "kube-apiserver", "CONT") }
	defer func() {
		if resume != nil { // whatever failed, the rest of the cleanup needs it
			resume()
		}
	}()
	s.kill(controlPlane, "kube-controller-manager")
	s.stopAgent("node-b")
	s.startAgent("node-b")
	s.requests.goesOn()
	for _, p := range s.pulses {
		p.goesOn()
	}
	<-time.After(time.Until(stopped.Add(serverAway))) // the minute is the point
	s.requests.goesOn()
	resume()
	resume = nil
	s.eventually("the API server is ready", func() error {
		_, err := s.try(nil, "kubectl", "get", "--raw", "/readyz")
		return err
	})
	s.kubectl("wait", "--for=condition=Ready", "node", "--all", "--timeout=90s")
	s.unharmed()
	s.pinned("after", "node-b")
	s.readyPods("app=after", 1)
}

// controlPlane is the instance of that name.
const controlPlane = "control-plane"

// crowd is more pods than the nodes' first ENIs have addresses for.
const crowd = 36

// throttled: EC2 refuses every other call while pods need addresses; each gets one.
func (s *away) throttled() {
	s.run(nil, "fault", "ec2", "*", "--error=RequestLimitExceeded", "--probability=50%", "--seed=3")
	since := time.Now()
	s.apply(fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: crowd}
spec:
  replicas: %d
  selector: {matchLabels: {app: crowd}}
  template:
    metadata: {labels: {app: crowd}}
    spec:
      terminationGracePeriodSeconds: 1
      affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [
        {matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [node-b, node-c]}]}]}}}
      containers: [{name: pause, image: fairway.test/pause:1}]
`, crowd))
	pods := s.readyPods("app=crowd", crowd)
	had := map[string]string{}
	for _, p := range pods {
		if other, ok := had[p.Status.PodIP]; ok {
			s.t.Errorf("%s and %s both have %s", p.Name, other, p.Status.PodIP)
		}
		had[p.Status.PodIP] = p.Name
	}
	refused := map[string]int{}
	s.eventually("a call was throttled", func() error {
		var calls []ec2sim.Call
		if err := json.Unmarshal([]byte(s.run(nil, "calls", "-o", "json")), &calls); err != nil {
			return err
		}
		for _, c := range calls {
			if c.Start.After(since) && c.Code == "RequestLimitExceeded" {
				refused[c.Action]++
			}
		}
		if len(refused) == 0 {
			return errors.New("none was")
		}
		return nil
	})
	s.run(nil, "fault", "clear")
	s.t.Logf("throttled: %v", refused)
	s.unharmed()
}

// fiveMinutes waits until the agent has been away for so long.
func (s *away) fiveMinutes() {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for time.Since(s.killed) < agentAway && !s.t.Failed() {
		s.unharmed()
		<-tick.C
	}
	if _, err := s.agentStatus("node-a"); err == nil {
		s.t.Error("the agent of node-a is there")
	}
	if !s.tainted("node-a") {
		s.t.Error("somebody has taken the start-up taint of node-a, whose agent is away")
	}
	s.requests.goesOn()
}

// agentIsBack: it has heard of the pod that went, and the one that waited gets its
// network.
func (s *away) agentIsBack() {
	s.startAgent("node-a")
	waiter := s.only(s.readyPods("app=waiter", 1))
	s.eventually("the start-up taint of node-a is taken", func() error {
		if s.tainted("node-a") {
			return errors.New("it is there")
		}
		return nil
	})
	s.eventually("addresses of node-a are held by the pods that there are", func() error {
		st, err := s.agentStatus("node-a")
		if err != nil {
			return err
		}
		var list corev1.PodList
		s.get(&list, "pods", "-A", "--field-selector=spec.nodeName=node-a")
		pods := 0
		for _, p := range list.Items {
			if !p.Spec.HostNetwork {
				pods++
			}
		}
		if st.Pool.Assigned != pods {
			return fmt.Errorf("%d addresses are held, there are %d pods", st.Pool.Assigned, pods)
		}
		return nil
	})
	if _, err := s.askFrom(s.talkers[0], at(waiter), "hostname"); err != nil {
		s.t.Error(err)
	}
	s.unharmed()
}

func (s *away) nothingLost() {
	s.requests.lostNone()
	for _, p := range s.pulses {
		p.lostNone()
	}
}
