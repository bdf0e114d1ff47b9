package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func TestCluster(t *testing.T) {
	pod := map[string]string{"MY_NODE_NAME": "node-a", "KUBERNETES_SERVICE_HOST": "172.20.0.1", "KUBERNETES_SERVICE_PORT": "443"}
	r, err := parse(t, pod)
	if err != nil || r.cfg.Cluster.NodeName != "node-a" || r.cfg.Cluster.Service != "172.20.0.1:443" {
		t.Fatalf("%+v, %v", r, err)
	}
	pod["KUBERNETES_SERVICE_HOST"] = "fd00::1"
	if r, err = parse(t, pod); err != nil || r.cfg.Cluster.Service != "[fd00::1]:443" {
		t.Errorf("%+v, %v", r, err)
	}
	// In a cluster the ENIConfigs are its.
	if _, err := parse(t, pod, "--custom-networking"); err != nil {
		t.Error(err)
	}
	for wrong, args := range map[string][]string{
		"MY_NODE_NAME: node name \"Node\"":         {"Node"},
		"without a way to the API server":          {"node-a"},
		"--cluster-endpoint: cluster endpoint \"x": {"node-a", "--kubeconfig=/etc/k", "--cluster-endpoint=x"},
		"--kubeconfig: kubeconfig \"k\"":           {"node-a", "--kubeconfig=k"},
	} {
		if _, err := parse(t, map[string]string{"MY_NODE_NAME": args[0]}, args[1:]...); err == nil || !strings.Contains(err.Error(), wrong) {
			t.Errorf("want %q, got %v", wrong, err)
		}
	}
}

// TestOverridden: a NodeConfig goes before everything, and what is wrong with it is
// said by its field.
func TestOverridden(t *testing.T) {
	f := pflag.NewFlagSet("test", pflag.ContinueOnError)
	register(f)
	if err := f.Parse([]string{"--warm-ip-target=2", "--pod-mtu=1400"}); err != nil {
		t.Fatal(err)
	}
	none := func(string) (string, bool) { return "", false }
	cfg, err := overridden(f, none, map[string]string{"warm-ip-target": "7", "native-cidrs": "10.1.0.0/16"})
	if err != nil || cfg.Targets.WarmIPs != 7 || cfg.PodMTU != 1400 || len(cfg.Native.Also) != 1 {
		t.Errorf("%+v, %v", cfg, err)
	}
	for wrong, over := range map[string]map[string]string{
		"spec.options.warm-ip-target \"many\": must be a whole number":                      {"warm-ip-target": "many"},
		"spec.options.warm-ips: unknown key":                                                {"warm-ips": "1"},
		"spec.options.WARM_IP_TARGET: unknown key \"WARM_IP_TARGET\": it is warm-ip-target": {"WARM_IP_TARGET": "1"},
		"spec.options.socket: belongs to the node":                                          {"socket": "/run/x"},
		"spec.options.pod-mtu: pod mtu 10: must be from 576":                                {"pod-mtu": "10"},
		"spec.options.exclude-snat-cidrs: \"x\" is no prefix":                               {"exclude-snat-cidrs": "x"},
	} {
		if _, err := overridden(f, none, over); err == nil || !strings.Contains(err.Error(), wrong) {
			t.Errorf("want %q, got %v", wrong, err)
		}
	}
}

// TestOptionsOfTheNode: the definition of NodeConfig refuses what the agent would.
func TestOptionsOfTheNode(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "deploy", "crds", "fairway-cni.io_nodeconfigs.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range ofTheNode {
		if strings.Count(string(text), "!('"+name+"' in self)\", message: "+name+" belongs to the node") != 1 {
			t.Errorf("%s is not refused by the definition", name)
		}
	}
}
