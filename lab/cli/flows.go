package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/fairway-cni/fairway/lab/probe"
	"github.com/fairway-cni/fairway/lab/world"
)

// errFlows says that not every flow was as it should be.
var errFlows = errors.New("not every flow succeeded")

func flowsCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "flows",
		Short: "Open TCP from every pod to every pod and instance, and show the matrix",
		Long: `Open TCP from every pod to every other pod and to every instance, and from
every instance to every pod, and show who reached whom; where there are no
pods, between the instances. A flow counts if the answer came from the right
end, which saw the sender's own address.`,
		Example: `  fairway-lab flows`,
		Args:    arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := o.flows(cmd.Context())
			if err != nil {
				return err
			}
			fmt.Fprint(o.Stdout, r)
			if len(r.Failures()) > 0 {
				return errFlows
			}
			return nil
		},
	}
	return cmd
}

// flows tries every flow that the command's help names.
func (o *options) flows(ctx context.Context) (probe.Report, error) {
	r, _, err := o.remote()
	if err != nil {
		return probe.Report{}, err
	}
	s, err := r.Status(ctx)
	if err != nil {
		return probe.Report{}, err
	}
	pods, err := o.allPods(ctx, nil)
	if err != nil {
		return probe.Report{}, err
	}
	ends, err := endpoints(s, pods)
	defer func() {
		for _, e := range ends {
			e.NetNS.Close()
		}
	}()
	if err != nil {
		return probe.Report{}, err
	}
	nodes := len(running(s))
	var pairs []probe.Pair
	for from := range ends {
		for to := range ends {
			if from != to && (from >= nodes || to >= nodes || len(pods) == 0) {
				pairs = append(pairs, probe.Pair{From: from, To: to})
			}
		}
	}
	done := progress(o.Stderr, fmt.Sprintf("trying %d flows", len(pairs)))
	defer done()
	return probe.Run(ctx, ends, pairs, probe.Options{})
}

// endpoints opens the namespaces of all instances, then of all pods. The
// caller closes what it gets, also when there is an error.
func endpoints(s world.Status, pods []Pod) ([]probe.Endpoint, error) {
	var ends []probe.Endpoint
	root := make(map[string]string) // of an instance's file system
	for _, in := range running(s) {
		name := cmp.Or(in.Name, in.ID)
		proc := filepath.Join("/proc", strconv.Itoa(in.PID))
		root[name] = filepath.Join(proc, "root")
		ns, err := os.Open(filepath.Join(proc, "ns/net"))
		if err != nil {
			return ends, fmt.Errorf("open network namespace of %s: %w", name, err)
		}
		ends = append(ends, probe.Endpoint{Name: name, Addr: in.Address, NetNS: ns})
	}
	for _, p := range pods {
		if !p.Ready || len(p.Addresses) == 0 {
			continue
		}
		ns, err := os.Open(filepath.Join(root[p.Instance], p.NetNS))
		if err != nil {
			return ends, fmt.Errorf("open network namespace of pod %s: %w", p.Name, err)
		}
		ends = append(ends, probe.Endpoint{Name: p.Name, Addr: p.Addresses[0].Addr(), NetNS: ns})
	}
	return ends, nil
}
