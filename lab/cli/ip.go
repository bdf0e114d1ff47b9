package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fairway-cni/fairway/lab/iproute"
	"github.com/fairway-cni/fairway/lab/world"
)

func ipCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ip INSTANCE[/POD] ARG...",
		Short: "Show and change rules, routes, addresses, links and neighbours of an instance or a pod, as ip does",
		Long: `Show and change the rules, routes, addresses, links and neighbours of an instance
or a pod by hand. It is the part of ip(8) that this takes, with ip's own words
and output; the machine needs no iproute2. All behind the name is ip's:

  rule  [show [pref N] [table T]]
  rule  add|del [not] [from P] [to P] [iif D] [oif D] [fwmark V[/M]] [pref N]
        [protocol P] [suppress_prefixlength N] [lookup T|unreachable|blackhole|prohibit]
  route [show [table T|all] [dev D] [[exact|root|match] P]]
  route add|replace|del [unreachable|blackhole|throw|prohibit|local] P|default
        [via A] [dev D] [table T] [scope S] [src A] [metric N] [protocol P]
        [onlink] [mtu N] [advmss N]
  route get A [from A] [iif D] [oif D] [mark M]
  addr  [show [dev D] [up]]
  addr  add|replace|del P dev D [brd A|+] [scope S] [noprefixroute] [nodad]
  link  [show [dev D] [up]]
  link  set D [up|down] [mtu N] [address MAC] [name NAME]
  link  add NAME [mtu N] [address MAC] type veth peer name NAME [netns POD]
  link  del D
  neigh [show [dev D] [A]]
  neigh add|replace|del A dev D [lladdr M] [nud S] [router]

Words can be cut short as for ip (ip r, ip ru a ...). -4 and -6 choose the family
where no address does: without them rules and routes are IPv4's, addresses and
neighbours both. -o json, or -j, has ip's JSON keys. Behind netns a pod of the
instance is named.

A refusal is told in the kernel's own words.`,
		Example: `  fairway-lab ip node-a rule
  fairway-lab ip node-a rule add from 10.11.4.91 to 10.11.0.0/16 lookup 11 pref 111
  fairway-lab ip node-a route show table 11
  fairway-lab ip node-a route get 10.12.0.5 from 10.11.4.91
  fairway-lab ip node-a/web -6 addr show dev eth0 -o json`,
		Args: arguments(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			line := args[1:]
			if len(line) > 0 && line[0] == "--" {
				line = line[1:]
			}
			r, err := iproute.Parse(line)
			if errors.Is(err, iproute.ErrHelp) {
				return cmd.Help()
			}
			if err != nil {
				return fmt.Errorf("%w: %w", ErrUsage, err)
			}
			ns, err := o.namespace(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer ns.Close()
			if peer := &r.Link.Peer; peer.NetNS != "" {
				instance, _, _ := strings.Cut(args[0], "/")
				if peer.In, err = o.namespace(cmd.Context(), instance+"/"+peer.NetNS); err != nil {
					return err
				}
				defer peer.In.Close()
			}
			a, err := iproute.Do(ns, r)
			if err != nil {
				return fmt.Errorf("ip %s on %s: %w", strings.Join(line, " "), args[0], err)
			}
			if r.JSON {
				if r.Verb != iproute.Show && r.Verb != iproute.Get {
					return nil
				}
				return o.json(a.JSON(r))
			}
			_, err = fmt.Fprint(o.Stdout, a.Text(r))
			return err
		},
	}
	// What follows the name is not cobra's: -4, -6 and -o are ip's own.
	cmd.Flags().SetInterspersed(false)
	return cmd
}

// namespace opens the network namespace of INSTANCE or of INSTANCE/POD.
func (o *options) namespace(ctx context.Context, name string) (*os.File, error) {
	instance, pod, isPod := strings.Cut(name, "/")
	r, lab, err := o.remote()
	if err != nil {
		return nil, err
	}
	s, err := r.Status(ctx)
	if err != nil {
		return nil, err
	}
	in, err := s.Find(instance)
	if err != nil {
		return nil, err
	}
	if in.PID == 0 {
		return nil, fmt.Errorf("instance %s of lab %s does not run (%s)", instance, lab, stateOf(in))
	}
	proc := filepath.Join("/proc", strconv.Itoa(in.PID))
	path := filepath.Join(proc, "ns/net")
	if isPod {
		pods, err := o.pods(ctx, instance, []string{"list"})
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(pods, func(p Pod) bool { return p.Name == pod })
		if i < 0 {
			var there []string
			for _, p := range pods {
				there = append(there, p.Name)
			}
			return nil, fmt.Errorf("no pod %q on %s; there are: %s", pod, instance, cmp.Or(strings.Join(there, ", "), "none"))
		}
		path = filepath.Join(proc, "root", pods[i].NetNS)
	}
	ns, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open network namespace of %s: %w", name, err)
	}
	return ns, nil
}

func stateOf(in world.InstanceStatus) string {
	if in.Killed {
		return "killed; fairway-lab instance reboot boots it"
	}
	return in.State
}
