//go:build e2e

package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

// udpPort is where agnhost's netexec answers "echo TEXT" with TEXT.
const udpPort = 8081

// talk sends a packet from one pod to another every few milliseconds, each answered
// with what it says, until stop is called: it tells how many were sent, and how many
// had no answer within two seconds.
func (c *cluster) talk(from, to corev1.Pod) (stop func() (sent, lost int)) {
	c.t.Helper()
	conn := c.udpFrom(from, netip.AddrPortFrom(netip.MustParseAddr(to.Status.PodIP), udpPort))
	const pause, patience = 2 * time.Millisecond, 2 * time.Second
	answered := map[string]bool{}
	var reader, writer sync.WaitGroup
	reader.Go(func() {
		buf := make([]byte, 64)
		for {
			n, err := conn.Read(buf)
			if os.IsTimeout(err) || err != nil && !isRefused(err) {
				return
			}
			if err == nil {
				answered[string(buf[:n])] = true
			}
		}
	})
	sent, end := 0, make(chan struct{})
	writer.Go(func() {
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for {
			select {
			case <-end:
				return
			case <-tick.C:
				sent++
				_, _ = fmt.Fprintf(conn, "echo %d", sent) // one that cannot be sent has no answer
			}
		}
	})
	return func() (int, int) {
		close(end)
		writer.Wait()
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		reader.Wait()
		conn.Close()
		lost := 0
		for i := 1; i <= sent; i++ {
			if !answered[strconv.Itoa(i)] {
				lost++
			}
		}
		return sent, lost
	}
}

// isRefused is an ICMP error about a packet that was sent before: the packet is lost,
// and the next may not be.
func isRefused(err error) bool {
	op, ok := err.(*net.OpError)
	return ok && op.Err != net.ErrClosed && !op.Timeout()
}

// udpFrom is a socket of a pod's.
func (c *cluster) udpFrom(p corev1.Pod, to netip.AddrPort) (conn net.Conn) {
	c.t.Helper()
	ns := c.podNetwork(p)
	defer ns.Close()
	err := netns.Do(ns, func() (err error) {
		conn, err = net.Dial("udp", to.String())
		return err
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return conn
}

// podNetwork is the network namespace of a pod, which its runtime keeps by a name: it
// is the one with the pod's address.
func (c *cluster) podNetwork(p corev1.Pod) *os.File {
	c.t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/root/run/netns/*", c.instance(p.Spec.NodeName).PID))
	if err != nil {
		c.t.Fatal(err)
	}
	for _, name := range append(files, c.varRun(p.Spec.NodeName)...) {
		ns, err := os.Open(name)
		if err != nil {
			continue // it has ended
		}
		found := false
		err = netns.Do(ns, func() error {
			addrs, err := net.InterfaceAddrs()
			for _, a := range addrs {
				if ip, ok := a.(*net.IPNet); ok && ip.IP.String() == p.Status.PodIP {
					found = true
				}
			}
			return err
		})
		if err == nil && found {
			return ns
		}
		ns.Close()
	}
	c.t.Fatalf("no network namespace of %s has %s", p.Spec.NodeName, p.Status.PodIP)
	return nil
}

func (c *cluster) varRun(node string) []string {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/root/var/run/netns/*", c.instance(node).PID))
	return files
}
