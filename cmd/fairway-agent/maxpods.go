package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/spf13/cobra"

	"github.com/fairway-cni/fairway/internal/core/ipam"
	"github.com/fairway-cni/fairway/internal/core/vpc"
	"github.com/fairway-cni/fairway/internal/edge/imds"
)

// imdsPatience is how long the instance metadata service may take to say the
// type; a machine that is no instance has none.
const imdsPatience = 10 * time.Second

// maxPodsCommand says what kubelet is to be told.
func maxPodsCommand() *cobra.Command {
	var instanceType string
	var prefixes bool
	var reserved int
	cmd := &cobra.Command{
		Use:   "max-pods",
		Short: "Print what kubelet's --max-pods should be on an instance type",
		Long: `Print how many pods a node can have by its addresses: for each ENI its addresses
less its own one, and two more for pods in the host's network. With --prefixes
each of those places is a /28, and the number is at most 110, or 250 on types
that can run so many.

Every ENI that pods get no address of lowers it: count in --reserved-enis those
tagged node.k8s.amazonaws.com/no_manage, those that the option max-enis rules out,
and with custom networking the primary one.`,
		Example: `  fairway-agent max-pods --type m5.large
  fairway-agent max-pods --type m5.large --prefixes --reserved-enis 1
  kubelet --max-pods $(fairway-agent max-pods)`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if instanceType == "" {
				var err error
				if instanceType, err = thisType(cmd.Context()); err != nil {
					return err
				}
			}
			n, err := maxPods(instanceType, prefixes, reserved)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), n)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&instanceType, "type", "", "instance type; empty: that of this instance, by its metadata")
	f.BoolVar(&prefixes, "prefixes", false, "the node uses prefixes (--prefix-delegation)")
	f.IntVar(&reserved, "reserved-enis", 0, "ENIs that give pods no address")
	return cmd
}

func maxPods(instanceType string, prefixes bool, reserved int) (int, error) {
	limits, ok := vpc.LimitsOf(instanceType)
	switch {
	case !ok:
		return 0, fmt.Errorf("%w: --type %q: is not known%s", errUsage, instanceType, similar(instanceType))
	case reserved < 0 || reserved > limits.ENIs:
		return 0, fmt.Errorf("%w: --reserved-enis %d: must be from 0 to %d, the ENIs of %s", errUsage, reserved, limits.ENIs, instanceType)
	case prefixes && !limits.PrefixCapable():
		return 0, fmt.Errorf("%w: --prefixes: ENIs of %s cannot have prefixes; the agent uses addresses there", errUsage, instanceType)
	}
	return ipam.MaxPodsOf(instanceType, limits, limits.ENIs-reserved, prefixes), nil
}

// similar names types of the same family, for somebody who mistyped a size.
func similar(instanceType string) string {
	family, _, ok := strings.Cut(instanceType, ".")
	var sizes []string
	for _, t := range vpc.InstanceTypes() {
		if strings.HasPrefix(t, family+".") {
			sizes = append(sizes, t)
		}
	}
	if !ok || len(sizes) == 0 {
		return ": must be as in m5.large"
	}
	return "; of " + family + " there are " + strings.Join(sizes, ", ")
}

func thisType(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, imdsPatience)
	defer cancel()
	sdk, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return "", fmt.Errorf("load aws configuration: %w", err)
	}
	id, err := imds.New(sdk).Identity(ctx)
	if err != nil {
		return "", fmt.Errorf("ask for this instance's type (or give --type): %w", err)
	}
	return id.InstanceType, nil
}
