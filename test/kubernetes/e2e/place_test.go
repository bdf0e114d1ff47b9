//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

// place is a network namespace and its address there: a pod, or an instance.
type place struct {
	name string
	ns   *os.File
	addr netip.Addr
}

// host is an instance itself.
func (c *cluster) host(name string) place {
	c.t.Helper()
	in := c.instance(name)
	return place{name, c.open(filepath.Join("/proc", strconv.Itoa(in.PID), "ns/net")), in.Address}
}

// pod finds a pod's network namespace by its address: what the runtime calls it is
// the runtime's own matter.
func (c *cluster) pod(p corev1.Pod) place {
	c.t.Helper()
	addr := netip.MustParseAddr(p.Status.PodIP)
	files, err := filepath.Glob(filepath.Join("/proc", strconv.Itoa(c.instance(p.Spec.NodeName).PID), "root/run/netns/*"))
	if err != nil {
		c.t.Fatal(err)
	}
	for _, f := range files {
		ns, err := os.Open(f)
		if errors.Is(err, os.ErrNotExist) {
			continue // another pod's, that has just gone
		}
		if err != nil {
			c.t.Fatal(err)
		}
		if has, _ := hasAddress(ns, addr); has {
			c.t.Cleanup(func() { ns.Close() })
			return place{p.Name, ns, addr}
		}
		ns.Close()
	}
	c.t.Fatalf("no network namespace on %s has %s, the address of %s; there are %d", p.Spec.NodeName, addr, p.Name, len(files))
	return place{}
}

func hasAddress(ns *os.File, want netip.Addr) (has bool, err error) {
	err = netns.Do(ns, func() error {
		list, err := net.InterfaceAddrs()
		for _, a := range list {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr() == want {
				has = true
			}
		}
		return err
	})
	return has, err
}

func (c *cluster) open(path string) *os.File {
	c.t.Helper()
	f, err := os.Open(path)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { f.Close() })
	return f
}

// only asserts that there is one, and gives it.
func (c *cluster) only(pods []corev1.Pod) corev1.Pod {
	c.t.Helper()
	if len(pods) != 1 {
		c.t.Fatalf("%d pods, want one", len(pods))
	}
	return pods[0]
}

// byNode gives the one pod that each node has.
func (c *cluster) byNode(pods []corev1.Pod) map[string]corev1.Pod {
	c.t.Helper()
	m := map[string]corev1.Pod{}
	for _, p := range pods {
		if other, ok := m[p.Spec.NodeName]; ok {
			c.t.Fatalf("%s has both %s and %s", p.Spec.NodeName, p.Name, other.Name)
		}
		m[p.Spec.NodeName] = p
	}
	return m
}

// ask makes one request from a place.
func (from place) ask(to netip.AddrPort, path string) (string, error) {
	return from.askWithin(askTime, to, path)
}

func (from place) askWithin(limit time.Duration, to netip.AddrPort, path string) (string, error) {
	text, err := askIn(from.ns, limit, to, path)
	if err != nil {
		err = fmt.Errorf("%s asks %s%s: %w", from.name, to, path, err)
	}
	return text, err
}
