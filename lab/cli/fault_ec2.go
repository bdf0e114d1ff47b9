package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairway-cni/fairway/lab/ec2sim"
	"github.com/fairway-cni/fairway/lab/world"
)

func faultEC2Command(o *options) *cobra.Command {
	var f ec2sim.Fault
	var probability, outage string
	var last time.Duration
	cmd := &cobra.Command{
		Use:   "ec2 [ACTION]",
		Short: "Have calls of EC2's API fail or come late, or the API be out",
		Long: `Have the calls of an action fail, come late, or both, in place of the fault that
the action has. In ACTION * stands for any text: 'Describe*', or '*' for all. All
callers are met, fairway-lab ec2 too. A delay comes before the error or the call.
With --probability the same seed meets the same of the same calls.

--outage is for all of the API, and needs no ACTION:

  refuse   connections are refused, and those that are there broken off
  503      every call gets the error Unavailable
  hang     calls are taken and never answered`,
		Example: `  fairway-lab fault ec2 CreateNetworkInterface --error InsufficientFreeAddressesInSubnet --times 3
  fairway-lab fault ec2 'Describe*' --delay 2s --probability 10% --seed 7
  fairway-lab fault ec2 --outage refuse --for 10s`,
		Args: arguments(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, _, err := o.remote()
			if err != nil {
				return err
			}
			if outage != "" {
				if len(args) > 0 || f != (ec2sim.Fault{Seed: f.Seed}) || probability != "100%" {
					return fmt.Errorf("%w: --outage is for the whole API: it goes with --for and nothing else", ErrUsage)
				}
				if err := r.SetOutage(cmd.Context(), outage, last); err != nil {
					return err
				}
				return r.Settle(cmd.Context()) // listeners come and go
			}
			if len(args) == 0 || last != 0 {
				return fmt.Errorf("%w: want an ACTION, or --outage, to which alone --for belongs", ErrUsage)
			}
			percents, err := percent("probability", probability)
			if err != nil {
				return err
			}
			if percents == 0 {
				return fmt.Errorf("%w: --probability 0%%: it would meet none", ErrUsage)
			}
			f.Action = args[0]
			if percents < 100 {
				f.Probability = percents / 100
			}
			if err := f.Check(); err != nil {
				return fmt.Errorf("%w: %w", ErrUsage, err)
			}
			return r.SetEC2Fault(cmd.Context(), f)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.Code, "error", "", "code of the error, such as RequestLimitExceeded")
	flags.StringVar(&f.Message, "message", "", "text of the error")
	flags.DurationVar(&f.Delay, "delay", 0, "how much later each call is")
	flags.IntVar(&f.Times, "times", 0, "how many calls it meets (default: all)")
	flags.StringVar(&probability, "probability", "100%", "share of the calls that it meets")
	flags.Uint64Var(&f.Seed, "seed", 1, "decides which calls")
	flags.StringVar(&outage, "outage", "", "refuse, 503 or hang")
	flags.DurationVar(&last, "for", 0, "how long the outage lasts (default: until fault clear)")
	return cmd
}

func faultIMDSCommand(o *options) *cobra.Command {
	var gone, stale bool
	var f world.MetadataFault
	cmd := &cobra.Command{
		Use:   "imds INSTANCE",
		Short: "Have an instance's metadata service be gone, stale or slow",
		Long: `Have the metadata service of an instance go wrong, in place of what was wrong
with it: be gone, so that connections are refused; be stale, so that it says from
now on what it says now; answer late.`,
		Example: `  fairway-lab fault imds node-a --gone
  fairway-lab fault imds node-a --stale --delay 500ms`,
		Args: arguments(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case gone && (stale || f.Delay != 0):
				return fmt.Errorf("%w: --gone goes with nothing else", ErrUsage)
			case gone:
				f.Mode = world.MetadataGone
			case stale:
				f.Mode = world.MetadataStale
			case f.Delay <= 0:
				return fmt.Errorf("%w: want --gone, --stale or --delay", ErrUsage)
			}
			r, _, err := o.remote()
			if err != nil {
				return err
			}
			return r.SetMetadataFault(cmd.Context(), args[0], f)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&gone, "gone", false, "connections are refused")
	flags.BoolVar(&stale, "stale", false, "it says what it says now")
	flags.DurationVar(&f.Delay, "delay", 0, "how much later each answer is")
	return cmd
}

func faultTakeCommand(o *options) *cobra.Command {
	var of string
	cmd := &cobra.Command{
		Use:   "take eni ENI|INSTANCE/DEVICE | take address ADDRESS",
		Short: "Take an ENI or an address away behind its node's back",
		Long: `Take something away as another client of the account would: an ENI, detached by
force and deleted, or a secondary address, or the /28 prefix that an address is
in. The node is not told. It happens once: fault clear does not bring it back.`,
		Example: `  fairway-lab fault take eni node-a/ens6
  fairway-lab fault take address 10.0.1.77
  fairway-lab fault take address 10.0.1.77 --eni node-a/ens5`,
		Args: arguments(func(_ *cobra.Command, args []string) error {
			if len(args) != 2 || args[0] != "eni" && args[0] != "address" {
				return errors.New("want eni and an ENI, or address and an address")
			}
			return nil
		}),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, _, err := o.remote()
			if err != nil {
				return err
			}
			if args[0] == "eni" {
				of = args[1]
			}
			if of != "" {
				s, err := r.Status(cmd.Context())
				if err != nil {
					return err
				}
				if of, err = findENI(s, of); err != nil {
					return err
				}
			}
			if args[0] == "eni" {
				err = r.TakeENI(cmd.Context(), of)
			} else {
				a, parseErr := netip.ParseAddr(args[1])
				if parseErr != nil {
					return fmt.Errorf("%w: %w", ErrUsage, parseErr)
				}
				err = r.TakeAddress(cmd.Context(), a, of)
			}
			if err != nil {
				return err
			}
			return r.Settle(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&of, "eni", "", "whose address is meant, where VPCs overlap")
	return cmd
}

// clearEC2 ends a fault of EC2's API, the outage, or those of metadata services.
func (o *options) clearEC2(ctx context.Context, args []string) error {
	r, _, err := o.remote()
	if err != nil {
		return err
	}
	switch {
	case len(args) == 0:
		err = r.ClearFaults(ctx)
	case args[0] == "ec2":
		err = r.ClearEC2Fault(ctx, strings.Join(args[1:], ""))
	case args[0] == "outage":
		err = r.ClearOutage(ctx)
	default:
		err = r.ClearMetadataFault(ctx, args[1])
	}
	if err != nil {
		return err
	}
	return r.Settle(ctx)
}

// printEC2Faults lists those of EC2's API and of the metadata services.
func printEC2Faults(w io.Writer, s world.Status, f world.EC2Faults) {
	if len(f.Actions) > 0 {
		fmt.Fprintln(w, "EC2 ACTION\tFAULT\tCALLS\tMET")
	}
	for _, a := range f.Actions {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\n", a.Action, describeFault(a.Fault), a.Seen, a.Met)
	}
	if f.Outage != nil {
		until := "until it is cleared"
		if !f.Outage.Until.IsZero() {
			until = "until " + f.Outage.Until.Format(time.TimeOnly)
		}
		fmt.Fprintf(w, "outage\t%s\t%s\n", f.Outage.Kind, until)
	}
	for _, id := range slices.Sorted(maps.Keys(f.Metadata)) {
		name := id
		for _, i := range s.Instances {
			if i.ID == id {
				name = cmp.Or(i.Name, id)
			}
		}
		what := f.Metadata[id]
		text := what.Mode
		if what.Delay > 0 {
			text = strings.TrimPrefix(text+", delay "+what.Delay.String(), ", ")
		}
		fmt.Fprintf(w, "imds\t%s\t%s\n", name, text)
	}
}

func describeFault(f ec2sim.Fault) string {
	var parts []string
	if f.Code != "" {
		parts = append(parts, "error "+f.Code)
	}
	if f.Delay > 0 {
		parts = append(parts, "delay "+f.Delay.String())
	}
	if f.Times > 0 {
		parts = append(parts, fmt.Sprintf("%d times", f.Times))
	}
	if f.Probability > 0 {
		parts = append(parts, fmt.Sprintf("%g%%, seed %d", f.Probability*100, f.Seed))
	}
	return strings.Join(parts, ", ")
}
