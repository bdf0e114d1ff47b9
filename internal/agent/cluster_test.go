package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairway-cni/fairway/api/v1alpha1"
	"github.com/fairway-cni/fairway/internal/agent/ipamd"
	"github.com/fairway-cni/fairway/internal/core/cluster"
	"github.com/fairway-cni/fairway/internal/core/ipam"
	"github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/internal/core/vpc"
	"github.com/fairway-cni/fairway/internal/edge/agentapi"
	"github.com/fairway-cni/fairway/internal/edge/kube"
	"github.com/fairway-cni/fairway/internal/edge/kube/kubetest"
	"github.com/fairway-cni/fairway/internal/edge/store"
)

type object = kubetest.Object

const (
	nodesAt      = "/api/v1/nodes/"
	podsAt       = "/api/v1/namespaces/default/pods/"
	eniConfigsAt = "/apis/crd.k8s.amazonaws.com/v1alpha1/eniconfigs/"
	configAt     = "/apis/fairway-cni.io/v1alpha1/nodeconfigs/c"
	eniNodeAt    = "/apis/fairway-cni.io/v1alpha1/eninodes/node-a"
	eventsAt     = "/api/v1/namespaces/default/events"
)

// site is a node of a cluster with a book of its own and no kernel.
type site struct {
	t      *testing.T
	server *kubetest.Server
	member *member
	state  *nodeState
}

// newSite makes the node in a bubble; change sets what is to be otherwise.
func newSite(t *testing.T, change func(*Config)) *site {
	t.Helper()
	server := kubetest.New()
	server.Put(nodesAt+"node-a", object{"status": object{"allocatable": object{"pods": "5"}}})
	cfg := Default()
	cfg.StateDir = filepath.Join(t.TempDir(), "addresses")
	cfg.Cluster.NodeName, cfg.Cluster.Service = "node-a", "10.0.0.1:443"
	cfg.CoolDown = 0
	if change != nil {
		change(&cfg)
	}
	records, err := store.Open(cfg.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	limits, _ := vpc.LimitsOf("t3.small")
	log := quiet(t)
	pool := poolConfig(cfg)
	pool.Custom.Enabled = cfg.CustomNetwork.Enabled
	book := ipamd.NewBook(pool, ipamd.Identity{InstanceID: "i-01234567", InstanceType: "t3.small", Limits: limits, Zone: "eu-west-1a"}, records, log, time.Now)
	book.SawENIs([]vpc.ENI{{ID: "eni-01234567", SubnetID: "subnet-01234567", Subnet: netip.MustParsePrefix("10.0.1.0/24"), Status: "in-use",
		Primary: netip.MustParseAddr("10.0.1.4"), Secondary: []netip.Addr{netip.MustParseAddr("10.0.1.5"), netip.MustParseAddr("10.0.1.6")}}}, time.Now())
	s := &site{t: t, server: server, state: &nodeState{cfg: cfg, log: log, book: book, pods: make(map[ipam.Owner]node.Attachment)}}
	loop := &nodeLoop{state: s.state, commands: make(chan func(*nodeState))}
	around := &surroundings{log: log, cache: newClusterCache(cfg), failing: make(map[string]bool)}
	if around.api, err = kube.New(kube.Config{NodeName: "node-a", Service: cfg.Cluster.Service, Transport: server.Transport(), Observe: around.observe}); err != nil {
		t.Fatal(err)
	}
	s.member = newMember(&assembly{cfg: cfg, log: log, cluster: around, self: ipamd.Identity{Zone: "eu-west-1a"}}, loop)
	around.member = s.member
	ctx, stop := context.WithCancel(t.Context())
	var running []chan struct{}
	run := func(f func()) {
		done := make(chan struct{})
		running = append(running, done)
		go func() { defer close(done); f() }()
	}
	run(func() {
		for {
			select {
			case f := <-loop.commands:
				f(s.state)
			case <-ctx.Done():
				return
			}
		}
	})
	run(func() { around.api.Run(ctx, around.hear) })
	run(func() { s.member.run(ctx) })
	t.Cleanup(func() {
		stop()
		for _, done := range running {
			<-done
		}
		records.Close()
	})
	return s
}

// fromBook reads something of the book.
func fromBook[T any](s *site, f func(*ipamd.Book) T) (v T) {
	s.t.Helper()
	if err := s.member.loop.doBook(s.t.Context(), func(b *ipamd.Book) { v = f(b) }); err != nil {
		s.t.Fatal(err)
	}
	return v
}

func (s *site) scheduled() int {
	return fromBook(s, func(b *ipamd.Book) int { return b.State().Scheduled })
}

// give gives a pod of this name an address, as an ADD does.
func (s *site) give(name string) {
	s.t.Helper()
	err := fromBook(s, func(b *ipamd.Book) error {
		_, err := b.Hold(store.Record{ContainerID: name, IfName: "eth0", HostVeth: "v" + name, PodName: name, PodNamespace: "default"})
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	ring(s.member.annotated)
}

func bound(change func(spec, status, meta object)) object {
	spec, status, meta := object{"nodeName": "node-a"}, object{"phase": "Pending"}, object{}
	if change != nil {
		change(spec, status, meta)
	}
	return object{"metadata": meta, "spec": spec, "status": status}
}

// settled is more than any of the loops waits while the API server answers.
const settled = 2 * time.Minute

// TestScheduled: the pool knows the pods that are to come, whatever becomes of the API
// server after it has said so.
func TestScheduled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		for _, name := range []string{"one", "two"} {
			s.server.Put(podsAt+name, bound(nil))
		}
		s.server.Put(podsAt+"host", bound(func(spec, _, _ object) { spec["hostNetwork"] = true }))
		s.server.Put(podsAt+"done", bound(func(_, status, _ object) { status["phase"] = "Succeeded" }))
		s.server.Put(podsAt+"elsewhere", bound(func(spec, _, _ object) { spec["nodeName"] = "node-b" }))
		time.Sleep(settled)
		if n := s.scheduled(); n != 2 {
			t.Errorf("%d pods are to come, want 2", n)
		}
		if n := fromBook(s, func(b *ipamd.Book) int { return b.State().MaxPods }); n != 5 {
			t.Errorf("%d pods at most, want 5", n)
		}
		s.give("one")
		if n := s.scheduled(); n != 1 {
			t.Errorf("%d pods are to come after one has an address, want 1", n)
		}
		s.server.Away(true)
		time.Sleep(24 * time.Hour)
		if n := s.scheduled(); n != 1 {
			t.Errorf("%d pods are to come while the API server is away, want 1", n)
		}
		s.give("two")
		if n := s.scheduled(); n != 0 {
			t.Errorf("%d pods are to come, want none", n)
		}
		s.server.Put(podsAt+"three", bound(nil))
		s.server.Away(false)
		time.Sleep(settled)
		if n := s.scheduled(); n != 1 {
			t.Errorf("%d pods are to come when the API server is back, want 1", n)
		}
	})
}

func TestENIConfigOfCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, func(c *Config) { c.CustomNetwork.Enabled = true })
		network := func() ipam.Network {
			synctest.Wait()
			return fromBook(s, func(b *ipamd.Book) ipam.Network { return b.State().Network })
		}
		time.Sleep(settled)
		if n := network(); !strings.Contains(n.Problem, `no such ENIConfig: "default"`) {
			t.Errorf("without any: %+v", n)
		}
		put := func(name, subnet string) {
			s.server.Put(eniConfigsAt+name, object{"spec": object{"subnet": subnet, "securityGroups": []any{"sg-01234567"}}})
		}
		put("default", "subnet-11111111")
		put("blue", "subnet-22222222")
		if n := network(); n.SubnetID != "subnet-11111111" || n.Problem != "" || len(n.Groups) != 1 {
			t.Errorf("default: %+v", n)
		}
		s.server.Put(nodesAt+"node-a", object{"metadata": object{"annotations": object{"k8s.amazonaws.com/eniConfig": "blue"}}})
		if n := network(); n.SubnetID != "subnet-22222222" {
			t.Errorf("another annotation: %+v", n)
		}
		put("blue", "subnet-33333333")
		if n := network(); n.SubnetID != "subnet-33333333" {
			t.Errorf("another subnet: %+v", n)
		}
		s.server.Put(eniConfigsAt+"blue", object{"spec": object{"subnet": 7}})
		if n := network(); !strings.Contains(n.Problem, "spec of ENIConfig blue") {
			t.Errorf("one that is wrong: %+v", n)
		}
		put("blue", "subnet-44444444")
		network()
		// The next start knows it without the API server.
		around := &surroundings{cache: newClusterCache(s.member.cfg)}
		if c := around.lastCustom("node-a"); c.Subnet != "subnet-44444444" || c.Problem != "" || !c.Enabled {
			t.Errorf("kept: %+v", c)
		}
		if c := around.lastCustom("node-b"); c.Problem == "" {
			t.Errorf("kept for another node: %+v", c)
		}
	})
}

func TestTaintAndAnnotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, func(c *Config) { c.Cluster.AnnotatePodIPs = true })
		taints := []any{object{"key": cluster.NotReadyTaint, "effect": "NoSchedule"}, object{"key": "mine", "effect": "NoSchedule"}}
		s.server.Put(nodesAt+"node-a", object{"spec": object{"taints": taints}})
		s.server.Refuse("patch", "nodes", http.StatusForbidden)
		s.server.Put(podsAt+"one", bound(nil))
		time.Sleep(settled)
		s.server.Refuse("patch", "nodes", 0)
		time.Sleep(2 * longestWrite)
		if d := cmp.Diff(taints[1:], s.server.Get(nodesAt + "node-a")["spec"].(object)["taints"]); d != "" {
			t.Errorf("taints (-want +got):\n%s", d)
		}
		annotation := func(name string) any {
			time.Sleep(time.Second)
			a, _ := s.server.Get(podsAt + name)["metadata"].(object)["annotations"].(object)
			return a[cluster.PodIPsAnnotation]
		}
		if a := annotation("one"); a != nil {
			t.Errorf("annotation %v of a pod without address", a)
		}
		s.give("one")
		address := fromBook(s, func(b *ipamd.Book) string {
			return b.Held()[ipam.Owner{ContainerID: "one", IfName: "eth0"}].Addr.String()
		})
		if a := annotation("one"); a != address {
			t.Errorf("annotation %v, want %s", a, address)
		}
		if err := fromBook(s, func(b *ipamd.Book) error { return b.Release(ipam.Owner{ContainerID: "one", IfName: "eth0"}) }); err != nil {
			t.Fatal(err)
		}
		ring(s.member.annotated)
		if a := annotation("one"); a != nil {
			t.Errorf("annotation %v after the release", a)
		}
	})
}

// writes is how often the ENINode was written.
func (s *site) writes() int {
	n := 0
	for _, c := range s.server.Calls("patch") {
		if c.Path == eniNodeAt+"/status" {
			n++
		}
	}
	return n
}

// TestPublish: an ENINode says how the node stands, is written when something has
// changed, and not for every pod.
func TestPublish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		time.Sleep(settled)
		status := func() v1alpha1.ENINodeStatus {
			t.Helper()
			var n v1alpha1.ENINode
			text, err := json.Marshal(s.server.Get(eniNodeAt))
			if err == nil {
				err = json.Unmarshal(text, &n)
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(n.OwnerReferences) != 1 || n.OwnerReferences[0].Name != "node-a" || n.OwnerReferences[0].UID == "" {
				t.Errorf("owners %+v", n.OwnerReferences)
			}
			return n.Status
		}
		first := status()
		if first.InstanceType != "t3.small" || first.AttachedENIs != 1 || len(first.ENIs) != 1 || first.Addresses.Total != 2 || first.Limits.PodsAllowed != 5 || len(first.Conditions) != 7 {
			t.Errorf("status %+v", first)
		}
		before := s.writes()
		time.Sleep(6 * time.Hour)
		if n := s.writes() - before; n != 0 {
			t.Errorf("%d writes though nothing has changed", n)
		}
		// A pod comes or goes every three seconds for an hour.
		owner := ipam.Owner{ContainerID: "pod", IfName: "eth0"}
		for range 600 {
			s.give("pod")
			time.Sleep(3 * time.Second)
			fromBook(s, func(b *ipamd.Book) error { return b.Release(owner) })
			time.Sleep(3 * time.Second)
		}
		if n := s.writes() - before; n < 10 || n > 62 {
			t.Errorf("%d writes for 1200 changes of pods in an hour, want some, and at most one a minute", n)
		}
		s.give("last")
		time.Sleep(settled)
		if is := status(); len(is.Pods) != 1 || is.Pods[0].Name != "last" || is.Pods[0].Address == "" || is.Pods[0].ENI != "eni-01234567" {
			t.Errorf("pods %+v", is.Pods)
		}
		// Its Node is another one: the object is written again, for that.
		s.server.Delete(nodesAt + "node-a")
		s.server.Delete(eniNodeAt)
		time.Sleep(settled)
		if s.server.Get(eniNodeAt) != nil {
			t.Error("there is an ENINode without Node")
		}
		s.server.Put(nodesAt+"node-a", object{})
		time.Sleep(settled)
		status()
	})
}

// TestPublishAway: an API server that is away or refuses is not asked without end, and
// has the news when it is back.
func TestPublishAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		time.Sleep(settled)
		s.server.Refuse("patch", "eninodes", http.StatusForbidden)
		s.give("one")
		time.Sleep(settled)
		before := s.writes()
		time.Sleep(2 * time.Hour)
		if n := s.writes() - before; n < 10 || n > 30 {
			t.Errorf("%d writes in two hours of refusals, want one in some five minutes", n)
		}
		s.server.Refuse("patch", "eninodes", 0)
		time.Sleep(2 * longestWrite)
		if n := part(s.server.Get(eniNodeAt)["status"])["pods"]; n == nil {
			t.Error("the pod is not there when the API server takes writes again")
		}
	})
}

func part(v any) object { o, _ := v.(object); return o }

// TestEvents: one when it becomes bad and one when it is good again, and few if it
// changes to and fro.
func TestEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		reasons := func() string {
			var list []string
			for _, o := range s.server.Under(eventsAt) {
				list = append(list, fmt.Sprint(o["type"], " ", o["reason"]))
			}
			return strings.Join(list, ", ")
		}
		time.Sleep(settled)
		if got := reasons(); got != "" {
			t.Errorf("events %s of a node in order", got)
		}
		s.server.Put(nodesAt+"node-a", object{"status": object{"capacity": object{"pods": "110"}}})
		time.Sleep(settled)
		if got := reasons(); got != "Warning TooManyPods" {
			t.Errorf("events %q, want TooManyPods", got)
		}
		for range 60 {
			s.server.Put(nodesAt+"node-a", object{"status": object{"capacity": object{"pods": "5"}}})
			time.Sleep(30 * time.Second)
			s.server.Put(nodesAt+"node-a", object{"status": object{"capacity": object{"pods": "110"}}})
			time.Sleep(30 * time.Second)
		}
		if n := len(s.server.Under(eventsAt)); n < 3 || n > 14 {
			t.Errorf("%d events of an hour to and fro, want one in five minutes at most", n)
		}
		s.server.Put(nodesAt+"node-a", object{"status": object{"capacity": object{"pods": "5"}}})
		time.Sleep(2 * eventPause)
		if got := reasons(); !strings.Contains(got, "Normal MaxPodsFitRecovered") {
			t.Errorf("events %s, want one of the recovery", got)
		}
	})
}

// TestStatusSize: what the largest node says fits well into an object.
func TestStatusSize(t *testing.T) {
	s := agentapi.Status{}
	for i := range 1200 {
		s.Pods = append(s.Pods, agentapi.Pod{Namespace: "a-namespace-of-some-length", Name: fmt.Sprintf("deployment-with-a-name-%d-7c5ddbdf54-abcde", i),
			Address: "10.100.200.100", ENI: "eni-0123456789abcdef0", ContainerID: strings.Repeat("c", 64), Device: "fwy0123456789"})
	}
	full := statusOf(s)
	if len(full.Pods) != v1alpha1.MaxPodAddresses || full.PodsOmitted != 200 {
		t.Errorf("%d pods, %d omitted", len(full.Pods), full.PodsOmitted)
	}
	s.Pods = s.Pods[:737]
	text, err := json.Marshal(statusOf(s))
	if err != nil || len(text) > 150<<10 || strings.Contains(string(text), "cccc") {
		t.Errorf("%d bytes, %v", len(text), err)
	}
}

func TestConditions(t *testing.T) {
	now := time.Unix(1800000000, 0)
	good := func() agentapi.Status {
		return agentapi.Status{At: now, EC2: agentapi.EC2{Used: true},
			Node: agentapi.Node{InstanceType: "t3.small", MaxPods: 11, MaxPodsFit: 11, LimitsKnown: true}, Pool: agentapi.Pool{Free: 2, Capacity: 9}}
	}
	refused := func(cause ipam.Cause) agentapi.Refused {
		return agentapi.Refused{Kind: "assign", Times: 3, Cause: string(cause), Reason: "EC2 refused it (request id 123); do this; next try in 5s"}
	}
	for _, tt := range []struct {
		name    string
		change  func(*agentapi.Status)
		problem string
		want    string // type=status/reason of those that are not True
	}{
		{"in order", func(*agentapi.Status) {}, "", ""},
		{"kernel", func(s *agentapi.Status) { s.Kernel.Behind = true }, "", "Ready=False/KernelBehind"},
		{"full", func(s *agentapi.Status) { s.Pool.Assigned, s.Pool.Free = 9, 0 }, "", "AddressesAvailable=False/NodeFull"},
		{"a pod waits", func(s *agentapi.Status) {
			s.Waiting, s.Outlook = []agentapi.Waiting{{Since: now.Add(-time.Minute)}}, "no"
		}, "", "AddressesAvailable=False/PodsWait"},
		{"a pod waits as it may", func(s *agentapi.Status) { s.Waiting = []agentapi.Waiting{{Since: now.Add(-5 * time.Second)}} }, "", ""},
		{"lost", func(s *agentapi.Status) { s.Pods = []agentapi.Pod{{Lost: true}} }, "", "AddressesAvailable=False/PodsLostAddresses"},
		{"subnet", func(s *agentapi.Status) { s.Refused = []agentapi.Refused{refused(ipam.SubnetFull)} }, "", "SubnetHasAddresses=False/SubnetFull"},
		{"subnet, and none free", func(s *agentapi.Status) {
			s.Pool.Free, s.Refused = 0, []agentapi.Refused{refused(ipam.SubnetFull)}
		}, "", "AddressesAvailable=False/NoAddressToBeHad SubnetHasAddresses=False/SubnetFull"},
		{"rights", func(s *agentapi.Status) { s.Refused = []agentapi.Refused{refused(ipam.NoRights)} }, "", "RightsSuffice=False/RightsMissing"},
		{"not asked yet", func(s *agentapi.Status) { s.Refused = []agentapi.Refused{{Cause: string(ipam.NoRights)}} }, "", ""},
		{"offline", func(s *agentapi.Status) { s.EC2.Offline = true }, "", "EC2Reachable=False/NoAnswer"},
		{"no EC2", func(s *agentapi.Status) { s.EC2.Used = false }, "", "EC2Reachable=Unknown/NotUsed"},
		{"too many", func(s *agentapi.Status) { s.Node.MaxPods = 110 }, "", "MaxPodsFit=False/TooManyPods"},
		{"not known", func(s *agentapi.Status) { s.Node.MaxPods = 0 }, "", "MaxPodsFit=Unknown/NotKnown"},
		{"ENIConfig", func(s *agentapi.Status) { s.Node.CustomFault = "none" }, "", "ConfigurationValid=False/ENIConfigUnusable"},
		{"ENIConfig, and none free", func(s *agentapi.Status) { s.Node.CustomFault, s.Pool.Free = "none", 0 }, "",
			"AddressesAvailable=False/NoAddressToBeHad ConfigurationValid=False/ENIConfigUnusable"},
		{"NodeConfig", func(*agentapi.Status) {}, "spec.options.x: no", "ConfigurationValid=False/NodeConfigFailed"},
	} {
		s := good()
		tt.change(&s)
		var j judge
		var bad []string
		for _, c := range j.conditions(s, tt.problem) {
			if c.Message == "" || len(c.Message) > maxMessage || strings.Contains(c.Message, "request id") || strings.Contains(c.Message, "next try") {
				t.Errorf("%s: message of %s: %q", tt.name, c.Type, c.Message)
			}
			if c.Status != "True" {
				bad = append(bad, fmt.Sprintf("%s=%s/%s", c.Type, c.Status, c.Reason))
			}
		}
		if got := strings.Join(bad, " "); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}

	// A refusal counts for as long as it is only waited to try again.
	var j judge
	s := good()
	s.Refused = []agentapi.Refused{refused(ipam.NoRights)}
	j.conditions(s, "")
	s.Refused = nil
	for after, want := range map[time.Duration]string{time.Minute: "False", refusalHold: "True"} {
		s.At = now.Add(after)
		if c := j.conditions(s, "")[3]; string(c.Status) != want {
			t.Errorf("%s after a refusal: %+v, want %s", after, c, want)
		}
	}
}
