package agent

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/fairway-cni/fairway/internal/core/intent"
	"github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/internal/core/symmetry"
	"github.com/fairway-cni/fairway/internal/edge/agentapi"
	"github.com/fairway-cni/fairway/internal/edge/hostnet"
)

const (
	// proofPause is the least time between two proofs: facts change in crowds.
	proofPause = 10 * time.Second
	// proofInterval is how often it is proven though nothing of ours has changed:
	// others may have changed the host's own routes and rules.
	proofInterval = time.Minute
	// proofAgain is when what was found is looked at once more before it is said:
	// an ADD, a DEL or a repair may have been half done.
	proofAgain = 2 * time.Second
)

// prover proves, beside everything else, that pods' packets and their replies pass
// the same ENIs. It asks the node loop for what it knows, reads the kernel by sockets
// of its own, and computes in its own goroutine.
//
//	VPC's routes, ENIs, repairs --- wake ---> prover --- proof ---> node loop: status, metrics
//	                                                 --- log, changed: once per change
type prover struct {
	log   *slog.Logger
	loop  *nodeLoop
	vpcID string
	look  func(context.Context) (symmetry.Proof, error)
	// changed is told of each change of what is broken; nil tells nobody. An empty list
	// says that all is well again.
	changed func(broken []string)

	said []string // what is broken, as it was logged last
}

func newProver(log *slog.Logger, loop *nodeLoop, vpcID string, changed func([]string)) *prover {
	p := &prover{log: log, loop: loop, vpcID: vpcID, changed: changed}
	p.look = p.once
	return p
}

// stale says that the facts have changed which a proof rests on. It runs in the node
// loop and never waits.
func (n *nodeState) stale() {
	select {
	case n.unproven <- struct{}{}:
	default: // it is known, or nobody proves
	}
}

// run proves until ctx ends.
func (p *prover) run(ctx context.Context) {
	for {
		p.prove(ctx)
		pause := time.NewTimer(proofPause)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return
		}
		timer := time.NewTimer(proofInterval - proofPause)
		select {
		case <-p.loop.state.unproven:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// prove looks, looks again at what is broken, and says what is broken both times.
func (p *prover) prove(ctx context.Context) {
	proof, err := p.look(ctx)
	if err == nil && len(proof.Broken) > 0 {
		select {
		case <-time.After(proofAgain):
		case <-ctx.Done():
			return
		}
		first := proof.Broken
		if proof, err = p.look(ctx); err == nil {
			proof.Broken = slices.DeleteFunc(proof.Broken, func(f symmetry.Finding) bool { return !slices.Contains(first, f) })
		}
	}
	if ctx.Err() != nil {
		return
	}
	paths := agentapi.Paths{ProvedAt: p.loop.state.clock.Now(), Classes: proof.Classes, Unknown: len(proof.Unknown)}
	for _, f := range proof.Broken {
		paths.Broken = append(paths.Broken, f.String())
	}
	if err != nil {
		paths.Problem = err.Error()
	}
	if lost := p.loop.do(ctx, func(n *nodeState) { n.paths = paths }); lost != nil {
		return
	}
	p.tell(paths)
}

// tell logs what has changed, and tells whoever wants to know.
func (p *prover) tell(paths agentapi.Paths) {
	now := paths.Broken
	if paths.Problem != "" {
		now = []string{"cannot be computed: " + paths.Problem}
	}
	if slices.Equal(now, p.said) {
		return
	}
	p.said = now
	switch {
	case paths.Problem != "":
		p.log.Warn("ways of pods are not proven", "error", paths.Problem)
		return
	case len(now) > 0:
		p.log.Error("ways of pods are broken", "count", len(now), "first", now[0], "advice", "fairway path explains each; fairway status lists them")
	default:
		p.log.Info("ways of pods are symmetric again", "classes", paths.Classes)
	}
	if p.changed != nil {
		p.changed(now)
	}
}

// once computes one proof.
func (p *prover) once(ctx context.Context) (symmetry.Proof, error) {
	site := symmetry.Site{VPC: p.vpcID}
	if err := p.loop.do(ctx, func(n *nodeState) {
		select {
		case <-n.unproven: // this is it
		default:
		}
		site.Want, site.Routing = n.oneOfEach(), n.routing
	}); err != nil {
		return symmetry.Proof{}, err
	}
	if len(site.Want.Pods) == 0 {
		return symmetry.Proof{}, nil
	}
	enis, named := devicesOf(site.Want)
	var err error
	if site.Host, err = hostnet.CollectWays(ctx, enis, named); err != nil {
		return symmetry.Proof{}, err
	}
	return symmetry.Prove(site)
}

// devicesOf are the ENIs by MAC address, and the pods' devices by name.
func devicesOf(s intent.Snapshot) (enis map[string]string, named map[string]bool) {
	enis, named = make(map[string]string), make(map[string]bool)
	for _, e := range s.ENIs {
		enis[e.MAC.String()] = e.ID
	}
	for _, pod := range s.Pods {
		named[pod.Veth] = true
	}
	return enis, named
}

// explainTime bounds what an explanation may take of the node loop.
const explainTime = 200 * time.Millisecond

// explain says where a packet of the pod is lost, or its reply, with the kernel as it
// is: have is what it holds of ours. Nil where no way is broken, or none can be
// computed: the differences have been said.
func (n *nodeState) explain(p node.Attachment, have []node.Object) error {
	ctx, cancel := context.WithTimeout(context.Background(), explainTime)
	defer cancel()
	site := symmetry.Site{VPC: "vpc", Want: n.withoutPods(), Routing: n.routing, Table: []node.Object{}, Enough: 1}
	p.Wired = true
	site.Want.Pods = []node.Attachment{p}
	for _, o := range have {
		switch o.(type) {
		case node.Set, node.Chain, node.Element:
			site.Table = append(site.Table, o)
		}
	}
	enis, named := devicesOf(site.Want)
	var err error
	if site.Host, err = hostnet.CollectWays(ctx, enis, named); err != nil {
		return nil
	}
	proof, err := symmetry.Prove(site)
	if err != nil || len(proof.Broken) == 0 {
		return nil
	}
	return fmt.Errorf("so a way of the pod is broken: %s", proof.Broken[0])
}

// oneOfEach is the snapshot with one pod of each ENI.
func (n *nodeState) oneOfEach() intent.Snapshot {
	s := n.withoutPods()
	lowest := make(map[node.Slot]node.Attachment)
	for _, p := range n.pods {
		if have, ok := lowest[p.Slot]; p.Wired && p.Slot > 0 && (!ok || p.Addr.Less(have.Addr)) {
			lowest[p.Slot] = p
		}
	}
	for _, p := range lowest {
		s.Pods = append(s.Pods, p)
	}
	return s
}
