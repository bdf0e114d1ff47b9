package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/fairway-cni/fairway/lab/runtime"
	"github.com/fairway-cni/fairway/lab/world"
)

// Pod is a pod together with the instance it is on.
type Pod struct {
	Instance string `json:"instance"`
	runtime.Pod
}

func podCommand(o *options) *cobra.Command {
	root := &cobra.Command{
		Use:   "pod",
		Short: "Make pods as a container runtime does: a namespace each, and the CNI plugin",
	}
	group(root)
	list := &cobra.Command{
		Use:     "list [INSTANCE]",
		Short:   "List the pods of an instance, or of all",
		Example: `  fairway-lab pod list -o json`,
		Args:    arguments(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			pods, err := o.allPods(cmd.Context(), args)
			if err != nil {
				return err
			}
			return o.printPods(pods)
		},
	}
	o.outputFlag(list)
	root.AddCommand(podAddCommand(o), list,
		&cobra.Command{
			Use:     "del INSTANCE POD...",
			Short:   "Delete pods; one that is not there is no error",
			Example: `  fairway-lab pod del node-a web`,
			Args:    arguments(cobra.MinimumNArgs(2)),
			RunE: func(cmd *cobra.Command, args []string) error {
				names, err := expand(args[1:])
				if err != nil {
					return err
				}
				_, err = o.pods(cmd.Context(), args[0], append([]string{"del", "--"}, names...))
				return err
			},
		},
		&cobra.Command{
			Use:     "check INSTANCE POD",
			Short:   "Ask the CNI plugin whether a pod is as it was made",
			Example: `  fairway-lab pod check node-a web`,
			Args:    arguments(cobra.ExactArgs(2)),
			RunE: func(cmd *cobra.Command, args []string) error {
				_, err := o.pods(cmd.Context(), args[0], []string{"check", "--", args[1]})
				return err
			},
		},
		&cobra.Command{
			Use:   "gc INSTANCE",
			Short: "Give back what no pod has: as a runtime does when it starts",
			Long: `Delete pods whose making was interrupted, namespaces that no pod has, and by the
CNI plugin the attachments of containers that are not there any more.`,
			Example: `  fairway-lab pod gc node-a`,
			Args:    arguments(cobra.ExactArgs(1)),
			RunE: func(cmd *cobra.Command, args []string) error {
				_, err := o.pods(cmd.Context(), args[0], []string{"gc"})
				return err
			},
		},
		&cobra.Command{
			Use:     "exec INSTANCE POD -- COMMAND [ARG...]",
			Short:   "Run a command in a pod's network namespace",
			Example: `  fairway-lab pod exec node-a web -- cat /proc/net/fib_trie`,
			Args:    arguments(cobra.MinimumNArgs(3)),
			RunE: func(cmd *cobra.Command, args []string) error {
				c, in, s, err := o.instance(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				argv := append([]string{programIn(s, o.Program), "runtime", "exec", "--", args[1]}, args[2:]...)
				status, err := c.Exec(cmd.Context(), o.inside(s, in, argv))
				if err != nil {
					return err
				}
				return exitError(status)
			},
		})
	return root
}

func podAddCommand(o *options) *cobra.Command {
	var parallel int
	var asked capabilities
	add := &cobra.Command{
		Use:   "add INSTANCE POD...",
		Short: "Make pods in an instance; the name POD{1..9} stands for several",
		Example: `  fairway-lab pod add node-a web
  fairway-lab pod add node-a 'p{1..14}' --parallel 4
  fairway-lab pod add node-a web --host-port 8080:80`,
		Args: arguments(cobra.MinimumNArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			names, err := expand(args[1:])
			if err != nil {
				return err
			}
			flags, err := asked.arguments()
			if err != nil {
				return err
			}
			argv := slices.Concat([]string{"add", fmt.Sprintf("--parallel=%d", parallel)}, flags, []string{"--"}, names)
			pods, err := o.pods(cmd.Context(), args[0], argv)
			return errors.Join(err, o.printPods(pods))
		},
	}
	add.Flags().IntVar(&parallel, "parallel", 1, "how many at a time")
	asked.register(add)
	o.outputFlag(add)
	return add
}

// maxExpansion bounds how many names one argument may stand for.
const maxExpansion = 10000

// expand turns p{1..3} into p1 p2 p3: a shell without braces does not.
func expand(args []string) ([]string, error) {
	var names []string
	for _, a := range args {
		var from, to int
		open, shut := strings.IndexByte(a, '{'), strings.IndexByte(a, '}')
		if open < 0 {
			names = append(names, a)
			continue
		}
		if shut < open || strings.ContainsAny(a[shut+1:], "{}") {
			return nil, fmt.Errorf("%w: pod name %q: must be NAME or NAME{1..9}", ErrUsage, a)
		}
		if n, err := fmt.Sscanf(a[open:shut+1], "{%d..%d}", &from, &to); n != 2 || err != nil || to < from || to-from >= maxExpansion {
			return nil, fmt.Errorf("%w: pod name %q: must be NAME or NAME{1..9}", ErrUsage, a)
		}
		for i := from; i <= to; i++ {
			names = append(names, fmt.Sprintf("%s%d%s", a[:open], i, a[shut+1:]))
		}
	}
	if err := podNames(names); err != nil {
		return nil, err
	}
	return names, nil
}

// pods runs the runtime command inside an instance and reads what it says.
func (o *options) pods(ctx context.Context, instance string, args []string) ([]Pod, error) {
	c, in, s, err := o.instance(ctx, instance)
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	command := o.inside(s, in, append([]string{programIn(s, o.Program), "runtime"}, args...))
	command.Stdin, command.Stdout = nil, w
	out := make(chan []byte, 1)
	go func() {
		b, _ := io.ReadAll(r) // what is cut short does not decode
		out <- b
	}()
	done := progress(o.Stderr, "pod "+args[0]+" on "+instance)
	status, err := c.Exec(ctx, command)
	done()
	w.Close()
	b := <-out
	if err != nil {
		return nil, err
	}
	if err := exitError(status); err != nil {
		return nil, fmt.Errorf("pod %s on %s: %w", args[0], instance, err)
	}
	var answer reply
	if err := json.Unmarshal(b, &answer); err != nil {
		return nil, fmt.Errorf("read the runtime's answer: %w", err)
	}
	var pods []Pod
	for _, p := range answer.Pods {
		pods = append(pods, Pod{Instance: cmp.Or(in.Name, in.ID), Pod: p})
	}
	if answer.Error != "" {
		return pods, errors.New(answer.Error)
	}
	return pods, nil
}

// allPods lists the pods of the named instance, or of every one.
func (o *options) allPods(ctx context.Context, args []string) ([]Pod, error) {
	if len(args) == 1 {
		return o.pods(ctx, args[0], []string{"list"})
	}
	r, _, err := o.remote()
	if err != nil {
		return nil, err
	}
	s, err := r.Status(ctx)
	if err != nil {
		return nil, err
	}
	var all []Pod
	for _, in := range running(s) {
		pods, err := o.pods(ctx, in.ID, []string{"list"})
		if err != nil {
			return nil, err
		}
		all = append(all, pods...)
	}
	return all, nil
}

func running(s world.Status) []world.InstanceStatus {
	var up []world.InstanceStatus
	for _, in := range s.Instances {
		if in.Socket != "" {
			up = append(up, in)
		}
	}
	return up
}

func (o *options) printPods(pods []Pod) error {
	if o.output == "json" {
		if pods == nil {
			pods = []Pod{}
		}
		return o.json(pods)
	}
	if len(pods) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(o.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "POD\tINSTANCE\tADDRESS\tREADY\tCONTAINER")
	for _, p := range pods {
		fmt.Fprintf(t, "%s\t%s\t%s\t%t\t%.12s\n", p.Name, p.Instance, podAddresses(p.Addresses), p.Ready, p.ID)
	}
	return t.Flush()
}

func podAddresses(prefixes []netip.Prefix) string {
	var out []string
	for _, p := range prefixes {
		out = append(out, p.Addr().String())
	}
	return cmp.Or(strings.Join(out, ","), "-")
}
