package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/pflag"

	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/internal/edge/bundle"
	"github.com/fairway-cni/fairway/internal/edge/kube"
)

// onNodes says which nodes are read by pods on them, each of which runs
// `fairway bundle --node` once:
//
//	here --> API server --> pod on the node: the node's kernel and its pods'
//	     <-- its log, a bundle as text <--'
type onNodes struct {
	names            []string // or theEnds
	image, namespace string
	ends             []string // of the packet, as they are named
}

// theEnds stands for the nodes that the ends of the packet are on.
const theEnds = "ends"

// agentNamespace is where the chart and the manifests put the agents.
const agentNamespace = "kube-system"

// notePrefix begins a line of ours on standard error, and in the log of a node's pod.
const notePrefix = "fairway: "

// atOnce bounds the nodes that are read at the same time.
const atOnce = 8

func onFlags(f *pflag.FlagSet, o *onNodes, ends string) {
	f.StringSliceVar(&o.names, "on", nil, "read the kernel of this `NODE` by a pod that runs there for a moment"+ends+"; may be given again")
	f.StringVar(&o.image, "image", "", "of --on: an image that has /fairway; empty: that of the cluster's fairway-agent")
	f.StringVar(&o.namespace, "namespace", agentNamespace, "of --on: where the pods are made, and fairway-agent is")
}

// validate refuses what would be ignored.
func (o *onNodes) validate() error {
	if len(o.names) == 0 && (o.image != "" || o.namespace != agentNamespace) {
		return errors.New("--image and --namespace are of pods that read nodes: say which by --on NODE")
	}
	if slices.Contains(o.names, theEnds) && len(o.ends) == 0 {
		return errors.New("--on ends is of fairway path FROM TO; name the nodes")
	}
	return nil
}

// readOn reads the nodes. One that cannot be read is said; none at all is an error.
func (s sources) readOn(ctx context.Context, stderr io.Writer, c *collected) error {
	server, ok := s.server()
	if !ok {
		return errors.New("--on asks the API server: " + noCluster)
	}
	names, err := s.on.resolved(c.world)
	if err != nil {
		return err
	}
	image := kube.Image{Name: s.on.image}
	if image.Name == "" {
		image = kube.AgentImage(ctx, server, s.on.namespace)
	}
	if image.Name == "" {
		return fmt.Errorf("no daemonset fairway-agent is to be seen in namespace %s, whose image could be used: say --image, of one that has /fairway", s.on.namespace)
	}
	fmt.Fprintf(stderr, notePrefix+"reading %s by a pod on each, in namespace %s\n", strings.Join(names, ", "), s.on.namespace)
	nodes, notes, errs := make([]path.Node, len(names)), make([][]string, len(names)), make([]error, len(names))
	var wg sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for i, name := range names {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			nodes[i], notes[i], errs[i] = s.readOne(ctx, server, kube.Errand{Node: name, Namespace: s.on.namespace, Image: image})
		})
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			c.note("not read: node %s: %v", names[i], err)
			continue
		}
		for _, n := range notes[i] {
			c.note("%s: %s", names[i], n)
		}
		c.world.Nodes = append(c.world.Nodes, nodes[i])
	}
	if !slices.Contains(errs, nil) {
		return fmt.Errorf("no node was read: %w", errors.Join(errs...))
	}
	return nil
}

// readOne gives the node, and what its pod noted.
func (s sources) readOne(ctx context.Context, server kube.Config, e kube.Errand) (n path.Node, notes []string, err error) {
	e.Command = []string{"/fairway", "bundle", "--node", "--root", kube.NodeRoot, "--name", e.Node, "--armor", "-o", "-"}
	if s.cluster != "" {
		e.Command = append(e.Command, "--cluster", s.cluster)
	}
	log, err := e.Do(ctx, server)
	if err != nil {
		return n, nil, err
	}
	before, b, ok := bundle.Unarmor(log)
	if !ok {
		return n, nil, errors.New("its pod's log has no whole bundle; kubelet may have begun another file (containerLogMaxSize): run fairway bundle --node there")
	}
	for line := range strings.Lines(string(before)) {
		if note, ok := strings.CutPrefix(strings.TrimSpace(line), notePrefix); ok {
			notes = append(notes, note)
		}
	}
	w, _, err := bundle.Read(b)
	if err != nil {
		return n, nil, err
	}
	if len(w.Nodes) != 1 || w.Nodes[0].Name != e.Node {
		return n, nil, errors.New("its pod read another node")
	}
	return w.Nodes[0], notes, nil
}

// resolved are the names of the nodes.
func (o *onNodes) resolved(w *path.World) ([]string, error) {
	var names []string
	add := func(name string) {
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, n := range o.names {
		if n != theEnds {
			add(n)
			continue
		}
		for _, end := range o.ends {
			for _, name := range w.NodesOf(end) {
				add(name)
			}
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("on which nodes %s are is not known: %s", strings.Join(o.ends, " and "),
			firstOf(w.Pods.Why, "the API server lists no such pods")+"; name the nodes by --on NODE")
	}
	return names, nil
}
