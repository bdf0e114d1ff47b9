package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"

	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/internal/edge/hostnet"
	"github.com/fairway-cni/fairway/internal/edge/kube"
)

// clusterTime bounds all that the API server is asked.
const clusterTime = 20 * time.Second

// noCluster is why nothing is known of Services and of other nodes' pods.
const noCluster = "no kubeconfig here: --kubeconfig FILE, KUBECONFIG or ~/.kube/config"

func clusterFlags(f *pflag.FlagSet, s *sources) {
	f.StringVar(&s.kubeconfig, "kubeconfig", "", "the `FILE` that says where the API server is, to list Services and pods by name; empty: KUBECONFIG, ~/.kube/config, or the pod's service account")
	f.StringVar(&s.context, "context", "", "the context of the kubeconfig; empty: its current one")
}

// server says which API server is to be asked, as kubectl finds it; false: none.
func (s sources) server() (kube.Config, bool) {
	c := kube.Config{Kubeconfig: firstOf(s.kubeconfig, os.Getenv("KUBECONFIG")), Context: s.context, UserAgent: "fairway"}
	if c.Kubeconfig != "" {
		return c, true
	}
	if home, err := os.UserHomeDir(); err == nil {
		file := filepath.Join(home, ".kube", "config")
		if _, err := os.Stat(file); err == nil {
			c.Kubeconfig = file
			return c, true
		}
	}
	host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
	c.Service = net.JoinHostPort(host, port)
	return c, host != "" && port != ""
}

// readCluster lists Services and pods, where there is somebody to ask. What was not
// listed is unknown; it is worth a line only if somebody was asked.
func (s sources) readCluster(ctx context.Context, c *collected) error {
	c.world.Services = path.Unknown[[]path.Service](noCluster)
	c.world.Pods = path.Unknown[[]path.ListedPod](noCluster)
	server, ok := s.server()
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, clusterTime)
	defer cancel()
	l, err := kube.List(ctx, server, s.cluster)
	if err != nil {
		if s.kubeconfig != "" || s.context != "" {
			return err // it was asked for
		}
		c.note("the Kubernetes API was not asked: %v", err)
		return nil
	}
	c.world.Services, c.world.Pods = l.Services, l.Pods
	for _, why := range []string{l.Services.Why, l.Pods.Why} {
		if why != "" {
			c.note("not read: %s", why)
		}
	}
	return nil
}

// listedNames are the names of pods that have an address of their own.
func listedNames(pods []path.ListedPod) (names []hostnet.PodName) {
	for _, p := range pods {
		if !p.HostNetwork {
			names = append(names, hostnet.PodName{Addr: p.Addr, Namespace: p.Namespace, Name: p.Name})
		}
	}
	return names
}
