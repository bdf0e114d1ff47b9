package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairway-cni/fairway/lab/fabric"
	"github.com/fairway-cni/fairway/lab/world"
)

func faultCommand(o *options) *cobra.Command {
	root := &cobra.Command{
		Use:   "fault",
		Short: "Make things go wrong: the network, EC2's API, instance metadata",
		Long: `Faults are the lab's own and on top of the VPC's rules. They stay until fault
clear or the end of the lab. What they drop of packets is counted for the ENI:
FAULT, LINK_DOWN, PARTITION.`,
	}
	root.AddCommand(faultSetCommand(o), faultPartitionCommand(o), faultEC2Command(o), faultIMDSCommand(o), faultTakeCommand(o), faultListCommand(o), faultClearCommand(o))
	return root
}

func faultSetCommand(o *options) *cobra.Command {
	var loss, reorder, direction string
	var fault fabric.ENIFault
	cmd := &cobra.Command{
		Use:   "set eni ENI|INSTANCE/DEVICE",
		Short: "Set the faults of an ENI, in place of those it has",
		Long: `Set the faults of an ENI, in place of those it has. They are for IPv4, not for
ARP, and each direction is by itself. The same seed and the same packets give the
same losses. A frame that the instance leaves to segmentation offload, up to
64 KiB, is lost or delayed as one.`,
		Example: `  fairway-lab fault set eni node-a/ens5 --loss 10% --delay 20ms --jitter 5ms --seed 7
  fairway-lab fault set eni eni-0123456789abcdef0 --down`,
		Args: arguments(faultTarget),
		RunE: func(cmd *cobra.Command, args []string) error {
			var errs [2]error
			fault.LossPercent, errs[0] = percent("loss", loss)
			fault.ReorderPercent, errs[1] = percent("reorder", reorder)
			if err := errors.Join(errs[:]...); err != nil {
				return err
			}
			switch direction {
			case "in", "out":
				fault.Direction = fabric.Direction(direction)
			case "both":
			default:
				return fmt.Errorf("%w: --direction %q: must be in, out or both", ErrUsage, direction)
			}
			return o.changeFaults(cmd.Context(), func(s world.Status, f *fabric.Faults) error {
				id, err := findENI(s, args[1])
				if err != nil {
					return err
				}
				if f.ENIs == nil {
					f.ENIs = map[string]fabric.ENIFault{}
				}
				f.ENIs[id] = fault
				return nil
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&loss, "loss", "0%", "share of the packets that are lost")
	flags.DurationVar(&fault.Delay, "delay", 0, "how much later each packet is")
	flags.DurationVar(&fault.Jitter, "jitter", 0, "by how much the delay varies, up and down; at most the delay")
	flags.StringVar(&reorder, "reorder", "0%", "share of the packets that the next one overtakes")
	flags.Uint64Var(&fault.Seed, "seed", 1, "decides which packets")
	flags.StringVar(&direction, "direction", "both", "out (from the instance), in, or both")
	flags.BoolVar(&fault.Down, "down", false, "take the link down: the instance's device loses its carrier")
	return cmd
}

// faultTarget takes `eni X`: what else can have faults may come to stand beside.
func faultTarget(_ *cobra.Command, args []string) error {
	if len(args) != 2 || args[0] != "eni" {
		return errors.New("want: eni, and an ENI or INSTANCE/DEVICE")
	}
	return nil
}

func faultPartitionCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "partition ZONE [ZONE]",
		Short: "Cut two zones off from each other, or one from all others",
		Example: `  fairway-lab fault partition eu-west-1a eu-west-1b
  fairway-lab fault partition eu-west-1a`,
		Args: arguments(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			p := fabric.Partition{A: args[0]}
			if len(args) == 2 {
				p.B = args[1]
			}
			return o.changeFaults(cmd.Context(), func(s world.Status, f *fabric.Faults) error {
				if err := checkZones(s, args); err != nil {
					return err
				}
				if !slices.ContainsFunc(f.Partitions, func(h fabric.Partition) bool { return samePartition(h, p) }) {
					f.Partitions = append(f.Partitions, p)
				}
				return nil
			})
		},
	}
}

func samePartition(a, b fabric.Partition) bool {
	return a == b || a.B != "" && a == fabric.Partition{A: b.B, B: b.A}
}

func faultListCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "Show the faults, and what they did to packets and calls",
		Example: `  fairway-lab fault list -o json`,
		Args:    arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, _, err := o.remote()
			if err != nil {
				return err
			}
			f, err := r.Faults(cmd.Context())
			if err != nil {
				return err
			}
			if o.output == "json" {
				return o.json(f)
			}
			s, err := r.Status(cmd.Context())
			if err != nil {
				return err
			}
			return o.printFaults(s, f)
		},
	}
	o.outputFlag(cmd)
	return cmd
}

func (o *options) printFaults(s world.Status, f world.FaultStatus) error {
	t := tabwriter.NewWriter(o.Stdout, 0, 0, 2, ' ', 0)
	if len(f.ENIs) > 0 {
		fmt.Fprintln(t, "ENI\tDEVICE\tFAULT\tPACKETS\tLOST\tOVERTAKEN")
	}
	for _, id := range slices.Sorted(maps.Keys(f.ENIs)) {
		n := f.Stats[id]
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%d\t%d\n", id, cmp.Or(deviceOf(s, id), "-"), f.ENIs[id], n.Frames, n.Lost, n.Reordered)
	}
	for _, p := range f.Partitions {
		fmt.Fprintf(t, "partition\t%s\tfrom %s\n", p.A, cmp.Or(p.B, "all other zones"))
	}
	if err := t.Flush(); err != nil { // tables of their own
		return err
	}
	printEC2Faults(t, s, f.EC2Faults)
	return t.Flush()
}

func faultClearCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "clear [eni ENI|INSTANCE/DEVICE | partition ZONE [ZONE] | ec2 [ACTION] | outage | imds INSTANCE]",
		Short: "End all faults, or one of them",
		Long: `End all faults, or those of an ENI, a partition, those of an action of EC2's API
or of all actions, the API's outage, or what is wrong with the metadata service
of an instance.`,
		Example: `  fairway-lab fault clear
  fairway-lab fault clear eni node-a/ens5
  fairway-lab fault clear ec2 CreateNetworkInterface
  fairway-lab fault clear partition eu-west-1a eu-west-1b`,
		Args: arguments(func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) == 0, len(args) == 2 && args[0] == "eni":
				return nil
			case len(args) > 1 && len(args) < 4 && args[0] == "partition":
				return nil
			case len(args) < 3 && args[0] == "ec2", len(args) == 1 && args[0] == "outage", len(args) == 2 && args[0] == "imds":
				return nil
			}
			return errors.New("want nothing, eni and an ENI, partition and zones, ec2 and an action, outage, or imds and an instance")
		}),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 || args[0] != "eni" && args[0] != "partition" {
				return o.clearEC2(cmd.Context(), args)
			}
			return o.changeFaults(cmd.Context(), func(s world.Status, f *fabric.Faults) error {
				if args[0] == "eni" {
					id, err := findENI(s, args[1])
					if err != nil {
						return err
					}
					delete(f.ENIs, id)
					return nil
				}
				p := fabric.Partition{A: args[1]}
				if len(args) == 3 {
					p.B = args[2]
				}
				left := slices.DeleteFunc(slices.Clone(f.Partitions), func(h fabric.Partition) bool { return samePartition(h, p) })
				if len(left) == len(f.Partitions) {
					return fmt.Errorf("no such partition: %s; see fairway-lab fault list", strings.Join(args[1:], " "))
				}
				f.Partitions = left
				return nil
			})
		},
	}
}

// changeFaults reads, changes and writes the faults of the lab.
func (o *options) changeFaults(ctx context.Context, change func(world.Status, *fabric.Faults) error) error {
	r, _, err := o.remote()
	if err != nil {
		return err
	}
	s, err := r.Status(ctx)
	if err != nil {
		return err
	}
	have, err := r.Faults(ctx)
	if err != nil {
		return err
	}
	if err := change(s, &have.Faults); err != nil {
		return err
	}
	if err := have.Faults.Check(); err != nil {
		return fmt.Errorf("%w: %w", ErrUsage, err)
	}
	return r.SetFaults(ctx, have.Faults)
}

// findENI takes an ENI's ID, or the instance's name or ID and its device.
func findENI(s world.Status, name string) (string, error) {
	instance, device, _ := strings.Cut(name, "/")
	var there []string
	for _, e := range s.ENIs {
		of := deviceOf(s, e.ID)
		if e.ID == name || of != "" && (of == name || e.Instance == instance && e.Device == device) {
			return e.ID, nil
		}
		there = append(there, cmp.Or(of, e.ID))
	}
	return "", fmt.Errorf("no eni %q in lab %s; there are: %s", name, s.Name, strings.Join(there, ", "))
}

// deviceOf is "node-a/ens5", or empty for an ENI in no instance.
func deviceOf(s world.Status, eni string) string {
	for _, e := range s.ENIs {
		if e.ID != eni || e.Instance == "" {
			continue
		}
		name := e.Instance
		for _, i := range s.Instances {
			if i.ID == e.Instance {
				name = cmp.Or(i.Name, i.ID)
			}
		}
		return name + "/" + e.Device
	}
	return ""
}

func checkZones(s world.Status, zones []string) error {
	var there []string
	for _, i := range s.Instances {
		if !slices.Contains(there, i.Zone) {
			there = append(there, i.Zone)
		}
	}
	slices.Sort(there)
	for _, z := range zones {
		if !slices.Contains(there, z) {
			return fmt.Errorf("no instance of lab %s is in zone %q; there are some in: %s", s.Name, z, strings.Join(there, ", "))
		}
	}
	return nil
}

// percent reads "10%" or "10".
func percent(what, s string) (float64, error) {
	p, err := strconv.ParseFloat(strings.TrimSuffix(s, "%"), 64)
	if err != nil || !(p >= 0 && p <= 100) {
		return 0, fmt.Errorf("%w: --%s %q: must be within 0%% and 100%%", ErrUsage, what, s)
	}
	return p, nil
}

// powerTimeout bounds how long an instance may take to boot.
const powerTimeout = time.Minute

func instanceCommand(o *options) *cobra.Command {
	root := &cobra.Command{
		Use:   "instance",
		Short: "Cut an instance's power, or boot it anew",
	}
	verb := func(name, short, long string, do func(*world.Remote, context.Context, string) error) *cobra.Command {
		return &cobra.Command{
			Use: name + " INSTANCE", Short: short, Long: long,
			Example: "  fairway-lab instance " + name + " node-a",
			Args:    arguments(cobra.ExactArgs(1)),
			RunE: func(cmd *cobra.Command, args []string) error {
				r, _, err := o.remote()
				if err != nil {
					return err
				}
				ctx, cancel := context.WithTimeout(cmd.Context(), powerTimeout)
				defer cancel()
				done := progress(o.Stderr, name+" "+args[0])
				defer done()
				return do(r, ctx, args[0])
			},
		}
	}
	root.AddCommand(
		verb("kill", "Cut the power: all that runs in it is gone at once", `Cut the power of an instance: all that runs in it is gone at once. EC2 takes no
notice: the instance stays running there, and its ENIs attached. What is sent to
it is dropped as NOT_ATTACHED. fairway-lab instance reboot ends it.`, (*world.Remote).Kill),
		verb("reboot", "Boot it anew, with its ENIs and addresses", `Boot an instance anew, whether it runs or was killed: with its ENIs and addresses,
a fresh /run, /etc and /var, and the daemons of the world file.`, (*world.Remote).Reboot))
	return root
}
