package symmetry

import (
	"fmt"

	"github.com/fairway-cni/fairway/internal/core/intent"
	"github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// Site is what the node knows.
type Site struct {
	VPC     string          // its ID
	Want    intent.Snapshot // what Fairway wants; of its pods one per ENI is looked at
	Routing vpc.Routing     // the VPC's
	Host    path.Namespace  // the kernel: devices, rules, routes, neighbours and sysctls
	Table   []node.Object   // Fairway's nftables table as the kernel holds it; nil: as it is wanted
	Enough  int             // broken classes after which no more are looked at; 0: all are
}

// Proof is what came of it.
type Proof struct {
	Classes int       // that were looked at: an ENI with pods, a destination, a direction
	Broken  []Finding // not symmetric, or not delivered
	Unknown []Finding // something on the way cannot be computed
}

// Finding is one class that is not proven.
type Finding struct {
	ENI   string     // of the pod
	Class string     // "peering pcx-0a (10.12.0.0/16)"
	In    bool       // the other side asks
	Code  path.Code  // of the first fault; empty where only the ENIs differ
	Hop   path.Where // where
	Text  string     // what decided there
}

func (f Finding) String() string {
	way := "to"
	if f.In {
		way = "from"
	}
	if f.Code == "" {
		return fmt.Sprintf("pods of %s, %s %s: %s", f.ENI, way, f.Class, f.Text)
	}
	return fmt.Sprintf("pods of %s, %s %s: %s at %s: %s", f.ENI, way, f.Class, f.Code, f.Hop, f.Text)
}

// Prove looks at each ENI that has a pod, with each destination, in both
// directions. The error says that no world could be made of the site.
func Prove(s Site) (Proof, error) {
	w, err := newWorld(s)
	if err != nil {
		return Proof{}, err
	}
	var proof Proof
	t := path.NewTracer(w.world)
	for _, p := range w.pods {
		for _, d := range w.classes {
			for _, in := range []bool{false, true} {
				if in && !d.asks || !w.leads(p.subnet, d, in) {
					continue
				}
				f := Finding{ENI: p.eni, Class: d.title, In: in}
				probe := path.Probe{From: p.name, To: d.addr.String(), Proto: path.TCP, Port: port}
				if in {
					probe.From, probe.To = "node:"+d.host, p.addr.String()
				}
				a, err := t.Trace(probe)
				if err != nil {
					return Proof{}, fmt.Errorf("prove %s: %w", f.Class, err)
				}
				proof.Classes++
				judge(&proof, f, a)
				if s.Enough > 0 && len(proof.Broken) >= s.Enough {
					return proof, nil
				}
			}
		}
	}
	return proof, nil
}

// judge enters what came of one class.
func judge(proof *Proof, f Finding, a *path.Answer) {
	for _, verdict := range []path.Verdict{path.Drop, path.Blind} {
		for _, h := range a.Hops {
			if h.Verdict != verdict {
				continue
			}
			f.Code, f.Hop, f.Text = h.Code, h.Where, h.Matched
			if verdict == path.Drop {
				proof.Broken = append(proof.Broken, f)
			} else {
				proof.Unknown = append(proof.Unknown, f)
			}
			return
		}
	}
	if !a.SameENIs {
		f.Text = "the reply passes another ENI than the packet"
		proof.Broken = append(proof.Broken, f)
	}
}

// port is where both ends of a probe listen.
const port = 80
