package cli

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/lab/world"
)

// TestNames: a device before a tag, a name of its own before that of what it
// serves, and the VPC's where two have one name.
func TestNames(t *testing.T) {
	got := names([]world.Object{
		{Kind: world.KindENI, ID: "eni-1", Name: "second", Region: "eu-west-1"},
		{Kind: world.KindENI, ID: "eni-1", Name: "ens6", Scope: "node"},
		{Kind: world.KindENI, ID: "eni-2", Name: "loose"},
		{Kind: world.KindRouteTable, ID: "rtb-1", Name: "a", Scope: "main", After: world.KindSubnet},
		{Kind: world.KindRouteTable, ID: "rtb-1", Name: "main", Scope: "main", After: world.KindVPC},
		{Kind: world.KindRouteTable, ID: "rtb-2", Name: "own", Scope: "main"},
		{Kind: world.KindRouteTable, ID: "rtb-2", Name: "b", Scope: "main", After: world.KindSubnet},
		{Kind: world.KindGroup, ID: "sg-1", Name: "default", Scope: "main"},
		{Kind: world.KindSubnet, ID: "subnet-1", Name: "a", Scope: "red"},
		{Kind: world.KindSubnet, ID: "subnet-2", Name: "a", Scope: "blue"},
		{Kind: world.KindInstance, ID: "i-1", Name: "node"},
	})
	want := map[string]string{
		"eni-1": "eni-node-ens6", "eni-2": "eni-loose", "rtb-1": "rtb-main", "rtb-2": "rtb-own", "sg-1": "sg-main-default",
		"subnet-1": "subnet-red-a", "subnet-2": "subnet-blue-a",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestHasPort: a node's name has a colon, and no port.
func TestHasPort(t *testing.T) {
	for to, want := range map[string]bool{"node:vm": false, "node:vm:80": true, "10.0.1.4": false, "10.0.1.4:80": true, "node/web": false} {
		if got := hasPort(to); got != want {
			t.Errorf("%s: %v, want %v", to, got, want)
		}
	}
}

// TestListen: somebody listens in every network, and what listened does so too.
func TestListen(t *testing.T) {
	w := &path.World{Nodes: []path.Node{{Pods: path.Known([]path.Pod{{}})}}}
	listen(w, path.UDP, 53)
	if host, pod := w.Nodes[0].Host.Sockets.Value, w.Nodes[0].Pods.Value[0].Net.Sockets.Value; len(host) != 1 || len(pod) != 1 || host[0].Port != 53 {
		t.Errorf("host %v, pod %v", host, pod)
	}
}
