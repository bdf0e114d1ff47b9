//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairway-cni/fairway/lab/fabric/netns"
	"github.com/fairway-cni/fairway/lab/world"
)

// patience is how long a condition may take on a machine that is very busy.
const patience = 3 * time.Minute

// cluster is a lab with a Kubernetes in it.
type cluster struct {
	t        *testing.T // of the subtest that runs
	lab      string
	programs string // directory of Fairway's programs that the lab's instances find
	conf     string // file: who the agents are, where they are programs of the nodes
}

// startCluster brings a cluster up until the test ends; flags are further ones of
// `up`.
func startCluster(t *testing.T, name, yaml string, flags ...string) *cluster {
	t.Helper()
	return startClusterWith(t, fairwayPrograms, name, yaml, flags...)
}

// startClusterWith is startCluster with the programs of a directory.
func startClusterWith(t *testing.T, programs, name, yaml string, flags ...string) *cluster {
	t.Helper()
	needCluster(t)
	c := &cluster{t: t, programs: programs, lab: fmt.Sprintf("e%d-%s", os.Getpid(), name)}
	dir := t.TempDir()
	file := filepath.Join(dir, "world.yaml")
	if err := errors.Join(os.WriteFile(file, []byte("name: "+c.lab+yaml), 0o600), writeExplainPolicy(dir)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.t = t
		if t.Failed() {
			c.showLogs()
		}
		c.run(nil, "down")
	})
	start := time.Now()
	c.run(nil, append([]string{"up", "--kubernetes", "--detach", "-f", file}, flags...)...)
	t.Logf("the cluster was up after %s", time.Since(start).Round(100*time.Millisecond))
	return c
}

// try runs fairway-lab and gives what it prints on standard output.
func (c *cluster) try(stdin []byte, args ...string) (string, error) {
	cmd := exec.CommandContext(c.t.Context(), filepath.Join(c.programs, "fairway-lab"), append([]string{"--lab", c.lab}, args...)...)
	if c.t.Context().Err() != nil { // a cleanup
		cmd = exec.Command(cmd.Path, cmd.Args[1:]...)
	}
	var out, complaint bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &complaint
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w\n%s", cmd, err, complaint.String())
	}
	return out.String(), nil
}

// run is try that must succeed.
func (c *cluster) run(stdin []byte, args ...string) string {
	c.t.Helper()
	out, err := c.try(stdin, args...)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

func (c *cluster) kubectl(args ...string) string {
	c.t.Helper()
	return c.run(nil, append([]string{"kubectl", "--"}, args...)...)
}

func (c *cluster) apply(manifest string) {
	c.t.Helper()
	c.run([]byte(manifest), "kubectl", "--", "apply", "-f", "-")
}

// get reads an object or a list.
func (c *cluster) get(into any, args ...string) {
	c.t.Helper()
	text := c.kubectl(append(append([]string{"get"}, args...), "-o", "json")...)
	if err := json.Unmarshal([]byte(text), into); err != nil {
		c.t.Fatalf("get %q: %v", args, err)
	}
}

// readyPods are the pods of a label that are ready, when there are so many.
func (c *cluster) readyPods(label string, count int) []corev1.Pod {
	c.t.Helper()
	var found []corev1.Pod
	c.eventually(fmt.Sprintf("%d pods of %s are ready", count, label), func() error {
		list, err := c.pods(label)
		if err != nil {
			return err
		}
		found = nil
		for _, p := range list {
			if ready(p) {
				found = append(found, p)
			}
		}
		if len(found) != count {
			return fmt.Errorf("%d of %d are", len(found), len(list))
		}
		return nil
	})
	return found
}

// pods are all of a label, also those that are about to go; flags are further ones of
// kubectl get.
func (c *cluster) pods(label string, flags ...string) ([]corev1.Pod, error) {
	var list corev1.PodList
	text, err := c.try(nil, append([]string{"kubectl", "--", "get", "pods", "-l", label, "-o", "json"}, flags...)...)
	if err == nil {
		err = json.Unmarshal([]byte(text), &list)
	}
	return list.Items, err
}

func ready(p corev1.Pod) bool {
	for _, is := range p.Status.Conditions {
		if is.Type == corev1.PodReady {
			return is.Status == corev1.ConditionTrue && p.DeletionTimestamp == nil
		}
	}
	return false
}

// eventually polls until ok; what it last said is the failure's reason.
func (c *cluster) eventually(what string, ok func() error) {
	c.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("%s: not within %s: %v", what, patience, err)
		}
		<-time.After(100 * time.Millisecond)
	}
}

// reboot boots a node anew, and waits until its kubelet has said that it is ready.
func (c *cluster) reboot(node string) {
	c.t.Helper()
	c.run(nil, "instance", "reboot", node)
	since := time.Now().Truncate(time.Second) // as the API server's times are
	c.eventually(node+" is ready after its boot", func() error {
		var n corev1.Node
		text, err := c.try(nil, "kubectl", "get", "node", node, "-o", "json")
		if err != nil {
			return err
		}
		if err := json.Unmarshal([]byte(text), &n); err != nil {
			return err
		}
		for _, is := range n.Status.Conditions {
			if is.Type == corev1.NodeReady && is.Status == corev1.ConditionTrue && !is.LastHeartbeatTime.Time.Before(since) {
				return nil
			}
		}
		return fmt.Errorf("it says %v", n.Status.Conditions)
	})
}

func (c *cluster) instance(name string) world.InstanceStatus {
	c.t.Helper()
	var s world.Status
	if err := json.Unmarshal([]byte(c.run(nil, "status", "-o", "json")), &s); err != nil {
		c.t.Fatal(err)
	}
	in, err := s.Find(name)
	if err != nil {
		c.t.Fatal(err)
	}
	return in
}

// ask makes an HTTP request from an instance, as a program in there would.
func (c *cluster) ask(pid int, to netip.AddrPort, path string) (string, error) {
	ns, err := os.Open(filepath.Join("/proc", strconv.Itoa(pid), "ns/net"))
	if err != nil {
		return "", err
	}
	defer ns.Close()
	return askIn(ns, askTime, to, path)
}

// askTime bounds a request, on a machine that is very busy.
const askTime = 30 * time.Second

// askIn makes an HTTP request from a network namespace, on a connection of its own.
func askIn(ns *os.File, limit time.Duration, to netip.AddrPort, path string) (string, error) {
	client := http.Client{Timeout: limit, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
			err = netns.Do(ns, func() error {
				var d net.Dialer
				conn, err = d.DialContext(ctx, network, addr)
				return err
			})
			return conn, err
		}}}
	resp, err := client.Get("http://" + to.String() + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, text)
	}
	return string(text), err
}

// askFrom has a pod of agnhost make a request, and gives what it was answered. The
// order reaches the pod by the API server.
func (c *cluster) askFrom(p corev1.Pod, to netip.AddrPort, what string) (string, error) {
	path := fmt.Sprintf("/api/v1/namespaces/%s/pods/%s:%d/proxy/dial?host=%s&port=%d&protocol=http&tries=1&request=%s",
		p.Namespace, p.Name, webPort, to.Addr(), to.Port(), what)
	text, err := c.try(nil, "kubectl", "get", "--raw", path)
	if err != nil {
		return "", err
	}
	var r struct{ Responses, Errors []string }
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return "", fmt.Errorf("%w: %s", err, text)
	}
	if len(r.Responses) != 1 {
		return "", fmt.Errorf("%s asked %s: %s", p.Name, to, strings.Join(r.Errors, "; "))
	}
	return r.Responses[0], nil
}

// showLogs prints the end of every log of the lab, for a test that failed.
func (c *cluster) showLogs() {
	files, _ := filepath.Glob(filepath.Join(world.Dir(c.lab), "*.log"))
	for _, f := range files {
		text, err := os.ReadFile(f)
		c.t.Logf("%s: %v\n%s", filepath.Base(f), err, text[max(0, len(text)-4000):])
	}
}
