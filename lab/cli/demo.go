package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairway-cni/fairway/lab/ec2sim"
	"github.com/fairway-cni/fairway/lab/probe"
	"github.com/fairway-cni/fairway/lab/world"
)

// demoPods is how many pods the demo makes on each node: more than an m5.large
// has addresses on its primary ENI, so that a second one is needed.
const demoPods = 14

func demoCommand(o *options) *cobra.Command {
	var d demo
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Two nodes, 28 pods, every flow between them, in a VPC of real packets",
		Long: `Start a lab of one VPC with two subnets in two zones and two m5.large that run
fairway-agent, make 14 pods on each, so that both nodes need a second ENI, and
open TCP from every pod to every pod and node, and from each node to every pod.
Prints instances, ENIs, pods and the matrix, and the way of one packet with what
decided each hop. Fails if any flow fails.`,
		Example: `  fairway-lab demo --keep`,
		Args:    arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			w, err := o.load("")
			if err != nil {
				return err
			}
			o.name = w.Name
			return o.demo(cmd.Context(), w, d)
		},
	}
	cmd.Flags().BoolVar(&d.keep, "keep", false, "leave the lab up and say what to try next")
	cmd.Flags().StringVar(&d.svg, "svg", "", "draw the packet's way into `FILE`")
	return cmd
}

type demo struct {
	keep bool
	svg  string // file
}

func (o *options) demo(ctx context.Context, w *world.World, d demo) (err error) {
	fmt.Fprintf(o.Stdout, "Starting lab %s: a VPC, two zones, two m5.large with fairway-agent.\n", w.Name)
	if err := o.startDetached(ctx, w); err != nil {
		return err
	}
	defer func() {
		if d.keep && err == nil {
			return
		}
		// Also after Ctrl-C, whose ctx has ended.
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), downTimeout)
		defer cancel()
		if downErr := o.down(end); downErr != nil {
			fmt.Fprintf(o.Stderr, "fairway-lab: end lab %s: %v\n", w.Name, downErr)
			err = errors.Join(err, downErr)
		}
	}()
	var pods []Pod
	start := time.Now()
	for _, in := range w.Instances {
		names, err := expand([]string{in.Name + "-{1.." + fmt.Sprint(demoPods) + "}"})
		if err != nil {
			return err
		}
		fmt.Fprintf(o.Stdout, "Making %d pods on %s.\n", len(names), in.Name)
		made, err := o.pods(ctx, in.Name, append([]string{"add", "--parallel=4", "--"}, names...))
		if err != nil {
			return err
		}
		pods = append(pods, made...)
	}
	fmt.Fprintf(o.Stdout, "%d pods in %.1f s.\n\n", len(pods), time.Since(start).Seconds())

	s, err := o.settledStatus(ctx)
	if err != nil {
		return err
	}
	if err := errors.Join(s.WriteTables(o.Stdout), o.blank(), o.printPods(pods), o.blank()); err != nil {
		return err
	}
	report, err := o.flows(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintln(o.Stdout, report.String())
	if err := o.explainOne(ctx, pods, d.svg); err != nil {
		return err
	}
	return o.verdict(w, pods, report, d.keep)
}

// settledStatus waits a little until no ENI is on its way any more: the agents
// go on filling their pools after the last pod has its address.
func (o *options) settledStatus(ctx context.Context) (world.Status, error) {
	r, _, err := o.remote()
	if err != nil {
		return world.Status{}, err
	}
	for deadline := time.Now().Add(patience); ; {
		s, err := r.Status(ctx)
		onTheWay := func(e world.ENIStatus) bool { return e.Status == ec2sim.StatusAttaching }
		if err != nil || time.Now().After(deadline) || !slices.ContainsFunc(s.ENIs, onTheWay) {
			return s, err
		}
		select {
		case <-ctx.Done():
			return world.Status{}, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (o *options) blank() error {
	_, err := fmt.Fprintln(o.Stdout)
	return err
}

func (o *options) verdict(w *world.World, pods []Pod, report probe.Report, keep bool) error {
	word, err := "ok", error(nil)
	if len(report.Failures()) > 0 {
		word, err = "FAILED", errFlows
	}
	if keep && err == nil {
		fmt.Fprintf(o.Stdout, `The lab is up. Try:
  bin/fairway-lab status
  bin/fairway-lab exec %[1]s -- cat /proc/net/dev
  bin/fairway-lab pod add %[1]s one-more
  bin/fairway-lab pod exec %[1]s %[1]s-1 -- cat /proc/net/route
  bin/fairway-lab flows
  bin/fairway-lab down

`, w.Instances[0].Name)
	}
	fmt.Fprintf(o.Stdout, "demo: %s  nodes=%d pods=%d flows=%d/%d\n", word, len(w.Instances), len(pods), report.Count(probe.OK), len(report.Results))
	return err
}
