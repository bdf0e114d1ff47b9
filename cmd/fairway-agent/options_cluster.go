package main

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"

	"github.com/spf13/pflag"

	"github.com/fairway-cni/fairway/internal/agent"
)

var clusterOptions = []option{
	{"node-name", "MY_NODE_NAME", "name of this Kubernetes Node; empty: the node is of no cluster", "node-a",
		text(func(s *settings) *string { return &s.cfg.Cluster.NodeName })},
	{"kubeconfig", "KUBECONFIG", "file that says where the API server is, and who the agent is there; empty: the pod's service account", "/etc/fairway/kubeconfig",
		path(func(s *settings) *string { return &s.cfg.Cluster.Kubeconfig })},
	{"cluster-endpoint", "CLUSTER_ENDPOINT", "URL of the API server to be asked instead, which needs no kube-proxy", "https://10.0.0.10:6443",
		text(func(s *settings) *string { return &s.cfg.Cluster.Endpoint })},
	{"annotate-pod-ip", "ANNOTATE_POD_IP", "write pods' addresses into their annotation vpc.amazonaws.com/pod-ips", "true",
		yes(func(s *settings) *bool { return &s.cfg.Cluster.AnnotatePodIPs })},
}

// inPod is where a pod finds the API server: Kubernetes sets both ("Accessing the
// Kubernetes API from a Pod", Kubernetes documentation).
func inPod(lookup func(string) (string, bool)) string {
	host, _ := lookup("KUBERNETES_SERVICE_HOST")
	port, _ := lookup("KUBERNETES_SERVICE_PORT")
	if host == "" || port == "" {
		return ""
	}
	return net.JoinHostPort(host, port)
}

// ofTheNode are options that a NodeConfig cannot set: where things are on a node, and
// what must be the same for as long as the process lives. The definition of the kind
// refuses them, too.
var ofTheNode = []string{"node-name", "kubeconfig", "cluster-endpoint", "socket", "admin-socket", "cri-socket", "state-dir", "spool-dir",
	"cni-conf-dir", "cni-bin-dir", "sysctl-dir", "eni-config-file", "log-level", "log-file", "plugin-log-file", "max-pods", fileFlag}

// nodeConfigSource is how a value of a NodeConfig is called in errors.
const nodeConfigSource = "spec.options."

// overridden reads everything as at the start, with the options of a NodeConfig going
// before all. What is wrong with those is an error that names the field.
func overridden(f *pflag.FlagSet, lookup func(string) (string, bool), over map[string]string) (agent.Config, error) {
	all := options()
	for _, name := range slices.Sorted(maps.Keys(over)) {
		switch {
		case slices.Contains(ofTheNode, name):
			return agent.Config{}, fmt.Errorf("%s%s: belongs to the node and cannot be set by a NodeConfig", nodeConfigSource, name)
		case !slices.ContainsFunc(all, func(o option) bool { return o.name == name }):
			return agent.Config{}, fmt.Errorf("%s%s: %s", nodeConfigSource, name, unknownKey(name, all))
		}
	}
	r, err := resolveOver(f, lookup, over)
	if err != nil {
		return agent.Config{}, err
	}
	if len(r.skipped) > 0 {
		return agent.Config{}, errors.Join(r.skipped...)
	}
	return r.cfg, nil
}
