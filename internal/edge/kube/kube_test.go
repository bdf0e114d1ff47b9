package kube

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairway-cni/fairway/api/v1alpha1"
	"github.com/fairway-cni/fairway/internal/core/cluster"
	"github.com/fairway-cni/fairway/internal/core/eniconfig"
	"github.com/fairway-cni/fairway/internal/edge/kube/kubetest"
)

type object = kubetest.Object

const (
	nodePath    = "/api/v1/nodes/node-a"
	podsPath    = "/api/v1/namespaces/default/pods/"
	eniConfigs  = "/apis/crd.k8s.amazonaws.com/v1alpha1/eniconfigs/"
	nodeConfigs = "/apis/fairway-cni.io/v1alpha1/nodeconfigs/"
	eniNodePath = "/apis/fairway-cni.io/v1alpha1/eninodes/node-a"
)

func podOn(node string) object {
	return object{"spec": object{"nodeName": node, "containers": []any{object{"name": "c"}}}, "status": object{"phase": "Running"}}
}

// client makes one that talks to s in memory.
func client(t *testing.T, s *kubetest.Server, observe func(Request)) *Client {
	t.Helper()
	c, err := New(Config{NodeName: "node-a", Service: "10.0.0.1:443", Transport: s.Transport(), Observe: observe})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// watching runs the client in a bubble until the test's end.
func watching(t *testing.T, c *Client) {
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); c.Run(ctx, func(Kind) {}) }()
	t.Cleanup(func() { stop(); <-done })
}

// settle is longer than the reflectors wait at most before they ask again.
const settle = 2 * time.Minute

func names(t *testing.T, c *Client) string {
	t.Helper()
	var list []string
	pods, synced := c.Pods()
	if !synced {
		return "never seen"
	}
	for _, p := range pods {
		list = append(list, p.Name)
	}
	return strings.Join(list, " ")
}

func TestWatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := kubetest.New()
		s.Put(nodePath, object{
			"metadata": object{"labels": object{"zone": "a"}, "annotations": object{"note": "x"}},
			"spec":     object{"taints": []any{object{"key": cluster.NotReadyTaint, "effect": "NoSchedule", "timeAdded": "2026-01-01T00:00:00Z"}}},
			"status":   object{"capacity": object{"pods": "110", "cpu": "2"}, "allocatable": object{"pods": "29"}},
		})
		s.Put("/api/v1/nodes/node-b", object{})
		for _, name := range []string{"one", "two"} {
			s.Put(podsPath+name, podOn("node-a"))
		}
		s.Put(podsPath+"other", podOn("node-b"))
		host := podOn("node-a")
		host["spec"].(object)["hostNetwork"] = true
		host["metadata"] = object{"annotations": object{cluster.PodIPsAnnotation: "10.0.0.9"}, "deletionTimestamp": "2026-01-01T00:00:00Z"}
		host["status"] = object{"phase": "Failed"}
		s.Put(podsPath+"host", host)
		s.Put(eniConfigs+"good", object{"spec": object{"subnet": "subnet-01234567", "securityGroups": []any{"sg-01234567"}}})
		s.Put(eniConfigs+"bad", object{"spec": object{"subnet": "subnet-01234567", "securityGroups": "sg-01234567"}})
		s.Put(eniConfigs+"worse", object{"spec": object{"subnet": "10.0.0.0/24"}})
		s.Put(nodeConfigs+"c", object{"spec": object{"priority": 3, "nodeSelector": object{"zone": "a"}, "options": object{"warm-ip-target": "2"}}})
		c := client(t, s, nil)
		if _, synced := c.Pods(); synced {
			t.Error("pods are known before anybody was asked")
		}
		watching(t, c)
		synctest.Wait()

		n, ok := c.Node()
		want := cluster.Node{Name: "node-a", UID: n.UID, Labels: map[string]string{"zone": "a"}, Annotations: map[string]string{"note": "x"}, MaxPods: 29,
			Taints: []cluster.Taint{{Key: cluster.NotReadyTaint, Effect: "NoSchedule", Added: "2026-01-01T00:00:00Z"}}}
		if d := cmp.Diff(want, n); !ok || d != "" || n.UID == "" {
			t.Errorf("node (-want +got):\n%s", d)
		}
		pods, _ := c.Pods()
		if got := names(t, c); got != "host one two" {
			t.Errorf("pods %s", got)
		} else if p := pods[0]; !p.HostNetwork || !p.Finished || !p.Leaving || p.PodIPs != "10.0.0.9" || p.UID == "" || pods[1].Finished || pods[1].HostNetwork || pods[1].Leaving {
			t.Errorf("pods %+v", pods)
		}
		configs, errs, synced := c.ENIConfigs()
		if d := cmp.Diff([]eniconfig.Config{{Name: "good", SubnetID: "subnet-01234567", Groups: []string{"sg-01234567"}}}, configs); d != "" || !synced {
			t.Errorf("ENIConfigs (-want +got):\n%s", d)
		}
		if text := fmt.Sprint(errs); len(errs) != 2 || !strings.Contains(text, "ENIConfig bad") || !strings.Contains(text, "securityGroups") || !strings.Contains(text, "spec.subnet \"10.0.0.0/24\" of ENIConfig worse") {
			t.Errorf("ENIConfigs that are wrong: %v", errs)
		}
		all, synced := c.NodeConfigs()
		if len(all) != 1 || !synced || all[0].Name != "c" || all[0].Generation != 1 || all[0].Priority != 3 || all[0].Version == "" || all[0].Options["warm-ip-target"] != "2" {
			t.Errorf("NodeConfigs %+v", all)
		}

		s.Put(podsPath+"three", podOn("node-a"))
		s.Put(podsPath+"elsewhere", podOn("node-b"))
		s.Delete(podsPath + "one")
		synctest.Wait()
		if got := names(t, c); got != "host three two" {
			t.Errorf("pods then: %s", got)
		}
	})
}

// TestWatchesGoOn: whatever happens to watches, what is known is in the end what is
// there, and never nothing in between.
func TestWatchesGoOn(t *testing.T) {
	for name, harm := range map[string]func(s *kubetest.Server, change func()){
		"cut":            func(s *kubetest.Server, change func()) { s.Cut(); change() },
		"forgotten":      func(s *kubetest.Server, change func()) { s.Forget(); s.Cut(); change(); s.Forget() },
		"away":           func(s *kubetest.Server, change func()) { s.Away(true); change(); time.Sleep(time.Hour); s.Away(false) },
		"away and wiped": func(s *kubetest.Server, change func()) { s.Away(true); change(); s.Forget(); s.Away(false) },
		"refused": func(s *kubetest.Server, change func()) {
			for _, verb := range []string{"list", "watch"} {
				s.Refuse(verb, "pods", http.StatusForbidden)
			}
			s.Cut()
			change()
			time.Sleep(time.Hour)
			for _, verb := range []string{"list", "watch"} {
				s.Refuse(verb, "pods", 0)
			}
		},
		"without streamed lists": func(s *kubetest.Server, change func()) {
			s.Forget()
			s.Refuse("watch", "pods", http.StatusUnprocessableEntity)
			s.Cut()
			change()
			time.Sleep(time.Minute)
			s.Refuse("watch", "pods", 0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := kubetest.New()
				s.Put(podsPath+"one", podOn("node-a"))
				s.Put(podsPath+"two", podOn("node-a"))
				c := client(t, s, nil)
				watching(t, c)
				synctest.Wait()
				if got := names(t, c); got != "one two" {
					t.Fatalf("pods %s", got)
				}
				harm(s, func() {
					synctest.Wait()
					if got := names(t, c); got != "one two" {
						t.Errorf("pods meanwhile: %s", got)
					}
					s.Delete(podsPath + "one")
					s.Put(podsPath+"three", podOn("node-a"))
				})
				time.Sleep(settle)
				synctest.Wait()
				if got := names(t, c); got != "three two" {
					t.Errorf("pods in the end: %s", got)
				}
			})
		})
	}
}

// TestAwayFromTheStart: nothing is known, which is said, and what was asked in vain is
// asked more and more seldom.
func TestAwayFromTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := kubetest.New()
		s.Put(podsPath+"one", podOn("node-a"))
		s.Away(true)
		tried := 0
		c := client(t, s, func(r Request) {
			if r.Err == nil {
				t.Errorf("%+v went well", r)
			}
			if r.What == "pods" {
				tried++
			}
		})
		watching(t, c)
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := names(t, c); got != "never seen" {
			t.Errorf("pods %s", got)
		}
		if tried < 30 || tried > 300 {
			t.Errorf("%d tries in an hour, want one or two a minute", tried)
		}
	})
}

// asked answers requests.
type asked func(*http.Request) (*http.Response, error)

func (f asked) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestNobodyListens: what the reflector asks again by itself, without a list between, is
// told as well.
func TestNobodyListens(t *testing.T) {
	for name, answer := range map[string]asked{
		"refused": func(*http.Request) (*http.Response, error) { return nil, syscall.ECONNREFUSED },
		"hangs":   func(*http.Request) (*http.Response, error) { return nil, os.ErrDeadlineExceeded },
		"too many": func(*http.Request) (*http.Response, error) {
			text := `{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "TooManyRequests", "code": 429}`
			return &http.Response{StatusCode: http.StatusTooManyRequests, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(text))}, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tried := 0
				c, err := New(Config{NodeName: "node-a", Service: "10.0.0.1:443", Transport: answer, Observe: func(r Request) {
					if r.What == "pods" && r.Err != nil {
						tried++
					}
				}})
				if err != nil {
					t.Fatal(err)
				}
				watching(t, c)
				time.Sleep(time.Hour)
				synctest.Wait()
				if tried < 30 || tried > 300 {
					t.Errorf("%d failures in an hour, want one or two a minute", tried)
				}
			})
		})
	}
}

// TestKindsThatAreNotThere: without the definitions a cluster has none of the objects.
func TestKindsThatAreNotThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := kubetest.New()
		s.Put(nodeConfigs+"c", object{"spec": object{"options": object{}}})
		for _, plural := range []string{"nodeconfigs", "eniconfigs"} {
			s.Refuse("list", plural, http.StatusNotFound)
			s.Refuse("watch", plural, http.StatusNotFound)
		}
		c := client(t, s, nil)
		watching(t, c)
		synctest.Wait()
		if list, synced := c.NodeConfigs(); len(list) > 0 || !synced {
			t.Errorf("NodeConfigs %v, %t", list, synced)
		}
		if list, _, synced := c.ENIConfigs(); len(list) > 0 || !synced {
			t.Errorf("ENIConfigs %v, %t", list, synced)
		}
		s.Refuse("list", "nodeconfigs", 0)
		s.Refuse("watch", "nodeconfigs", 0)
		time.Sleep(settle)
		if list, _ := c.NodeConfigs(); len(list) != 1 {
			t.Errorf("NodeConfigs %v once the server knows the kind", list)
		}
	})
}

func TestRemoveTaint(t *testing.T) {
	s := kubetest.New()
	taints := []any{object{"key": "a", "value": "b", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"},
		object{"key": cluster.NotReadyTaint, "effect": "NoSchedule"}, object{"key": cluster.NotReadyTaint, "effect": "NoExecute"}}
	s.Put(nodePath, object{"spec": object{"taints": taints}})
	c := client(t, s, nil)
	n := cluster.Node{Name: "node-a", Taints: []cluster.Taint{{Key: "a", Value: "b", Effect: "NoExecute", Added: "2026-01-01T00:00:00Z"},
		{Key: cluster.NotReadyTaint, Effect: "NoSchedule"}, {Key: cluster.NotReadyTaint, Effect: "NoExecute"}}}
	other := n
	other.Taints = n.Taints[1:]
	if err := c.RemoveTaint(t.Context(), other, cluster.NotReadyTaint); !errors.Is(err, ErrRefused) {
		t.Errorf("taints that have changed meanwhile: %v", err)
	}
	if err := c.RemoveTaint(t.Context(), n, cluster.NotReadyTaint); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(taints[:1], s.Get(nodePath)["spec"].(object)["taints"]); d != "" {
		t.Errorf("taints left (-want +got):\n%s", d)
	}
	n.Taints = n.Taints[:1]
	before := len(s.Calls("patch"))
	if err := c.RemoveTaint(t.Context(), n, cluster.NotReadyTaint); err != nil || len(s.Calls("patch")) != before {
		t.Errorf("a taint that is not there: %v", err)
	}
}

func TestPublishENINode(t *testing.T) {
	s := kubetest.New()
	c := client(t, s, nil)
	owner := cluster.Node{Name: "node-a", UID: "u1"}
	status := v1alpha1.ENINodeStatus{InstanceID: "i-01234567", PodsOmitted: 3, Pods: []v1alpha1.PodAddress{{Address: "10.0.0.1"}}}
	if err := c.PublishENINode(t.Context(), owner, status); err != nil {
		t.Fatal(err)
	}
	o := s.Get(eniNodePath)
	if d := cmp.Diff([]any{object{"apiVersion": "v1", "kind": "Node", "name": "node-a", "uid": "u1"}}, o["metadata"].(object)["ownerReferences"]); d != "" {
		t.Errorf("owners (-want +got):\n%s", d)
	}
	if is := o["status"].(object); is["instanceID"] != "i-01234567" || is["podsOmitted"] != 3.0 {
		t.Errorf("status %v", is)
	}
	before := len(s.Calls("patch"))
	if err := c.PublishENINode(t.Context(), owner, v1alpha1.ENINodeStatus{InstanceID: "i-01234567"}); err != nil {
		t.Fatal(err)
	}
	if is := s.Get(eniNodePath)["status"].(object); is["pods"] != nil || is["podsOmitted"] != nil {
		t.Errorf("status still has %v", is)
	}
	if n := len(s.Calls("patch")) - before; n != 1 {
		t.Errorf("%d writes for one status", n)
	}
	s.Refuse("patch", "eninodes", http.StatusUnprocessableEntity)
	if err := c.PublishENINode(t.Context(), owner, status); !errors.Is(err, ErrRefused) {
		t.Errorf("refused: %v", err)
	}
}

func TestWriteRollout(t *testing.T) {
	s := kubetest.New()
	s.Put(nodeConfigs+"c", object{"spec": object{"options": object{"a": "1"}},
		"status": object{"accepted": object{"generation": 1, "options": object{"old": "1"}}, "rollout": object{"generation": 1, "node": "x", "state": "Failed", "since": "2026-01-01T00:00:00Z", "message": "m"}}})
	c := client(t, s, nil)
	version := s.Get(nodeConfigs + "c")["metadata"].(object)["resourceVersion"].(string)
	n := cluster.NodeConfig{Name: "c", Version: version, Accepted: cluster.Options{Generation: 2, Options: map[string]string{"new": "2"}},
		Rollout: cluster.Rollout{Generation: 2, Node: "node-a", State: cluster.Accepted, Since: time.Unix(1800000000, 0)}}
	if err := c.WriteRollout(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	want := object{"accepted": object{"generation": 2.0, "options": object{"new": "2"}},
		"rollout": object{"generation": 2.0, "node": "node-a", "state": "Accepted", "since": "2027-01-15T08:00:00Z"}}
	if d := cmp.Diff(want, s.Get(nodeConfigs + "c")["status"]); d != "" {
		t.Errorf("status (-want +got):\n%s", d)
	}
	if err := c.WriteRollout(t.Context(), n); !errors.Is(err, ErrConflict) {
		t.Errorf("with a version that is old: %v", err)
	}
}

func TestAnnotateAndPost(t *testing.T) {
	s := kubetest.New()
	s.Put(podsPath+"one", object{"metadata": object{"annotations": object{"mine": "1"}}})
	c := client(t, s, nil)
	p := cluster.Pod{PodName: cluster.PodName{Namespace: "default", Name: "one"}, UID: s.Get(podsPath + "one")["metadata"].(object)["uid"].(string)}
	annotations := func() any { return s.Get(podsPath + "one")["metadata"].(object)["annotations"] }
	if err := c.AnnotatePod(t.Context(), p, cluster.PodIPsAnnotation, "10.0.0.1"); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(object{"mine": "1", cluster.PodIPsAnnotation: "10.0.0.1"}, annotations()); d != "" {
		t.Error(d)
	}
	if err := c.AnnotatePod(t.Context(), p, cluster.PodIPsAnnotation, ""); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(object{"mine": "1"}, annotations()); d != "" {
		t.Error(d)
	}
	p.UID = "another"
	if err := c.AnnotatePod(t.Context(), p, "k", "v"); !errors.Is(err, ErrConflict) {
		t.Errorf("another pod of that name: %v", err)
	}
	p.Name = "none"
	if err := c.AnnotatePod(t.Context(), p, "k", "v"); !errors.Is(err, ErrAbsent) {
		t.Errorf("no such pod: %v", err)
	}

	e := cluster.Event{Node: cluster.Node{Name: "node-a", UID: "u"}, Warning: true, Reason: "NoAddresses", Message: "none", At: time.Unix(1800000000, 0)}
	if err := c.PostEvent(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	list := s.Under("/api/v1/namespaces/default/events")
	if len(list) != 1 || list[0]["reason"] != "NoAddresses" || list[0]["type"] != "Warning" || list[0]["involvedObject"].(object)["uid"] != "u" {
		t.Errorf("events %v", list)
	}
}

// TestOverHTTP: by a kubeconfig, and by a pod's service account, whose token is read
// again when it has changed.
func TestOverHTTP(t *testing.T) {
	s := kubetest.New()
	s.Put(podsPath+"one", podOn("node-a"))
	var token string
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token = r.Header.Get("Authorization")
		s.ServeHTTP(w, r)
	}))
	defer server.Close()
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("token", "t1")
	ca := write("ca.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	file := write("kubeconfig", `{"apiVersion":"v1","kind":"Config","current-context":"c","contexts":[{"name":"c","context":{"cluster":"k","user":"u"}}],
		"clusters":[{"name":"k","cluster":{"server":"`+server.URL+`","certificate-authority":"`+ca+`"}}],"users":[{"name":"u","user":{"tokenFile":"token"}}]}`)
	for way, cfg := range map[string]Config{
		"kubeconfig": {Kubeconfig: file}, "endpoint": {Kubeconfig: file, Endpoint: server.URL},
		"service account": {Accounts: dir, Service: "10.0.0.1:443", Endpoint: server.URL},
	} {
		cfg.NodeName = "node-a"
		c, err := New(cfg)
		if err != nil {
			t.Errorf("%s: %v", way, err)
			continue
		}
		err = c.AnnotatePod(t.Context(), cluster.Pod{PodName: cluster.PodName{Namespace: "default", Name: "one"}, UID: s.Get(podsPath + "one")["metadata"].(object)["uid"].(string)}, "by", way)
		if err != nil || token != "Bearer t1" {
			t.Errorf("%s: %v with %q", way, err, token)
		}
	}
	for name, cfg := range map[string]Config{
		"no such file":    {Kubeconfig: filepath.Join(dir, "none")},
		"read kubeconfig": {Kubeconfig: write("bad", "{")},
		"service account": {Service: "10.0.0.1:443", Accounts: filepath.Join(dir, "none")},
		"must be a URL":   {Kubeconfig: file, Endpoint: "10.0.0.1"},
		"address of the":  {},
	} {
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("want %q, got %v", name, err)
		}
	}
}
