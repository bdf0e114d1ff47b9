package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"

	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/internal/core/preflight"
	"github.com/fairway-cni/fairway/internal/core/vpc"
	"github.com/fairway-cni/fairway/internal/edge/agentapi"
	"github.com/fairway-cni/fairway/internal/edge/ec2"
	"github.com/fairway-cni/fairway/internal/edge/hostnet"
	"github.com/fairway-cni/fairway/internal/edge/imds"
	"github.com/fairway-cni/fairway/internal/edge/kernel"
	"github.com/fairway-cni/fairway/internal/edge/store"
)

// places are where things are on a node.
type places struct{ socket, confDir, binDir, stateDir string }

// facts gathers what a check sees.
type facts struct {
	preflight.Facts
	places places
	id     imds.Identity
}

// look sees all that there is to see. What cannot be seen has its reason.
func look(ctx context.Context, p places) preflight.Facts {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	f := &facts{places: p}
	f.kernel()
	f.programs()
	f.Lists, f.ListDir = readLists(p.confDir), p.confDir
	f.Plugin = readPlugin(p.binDir)
	f.agent(ctx)
	f.records()

	sdk, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		f.Metadata = path.Unknown[preflight.Metadata](fmt.Sprintf("load aws configuration: %v", err))
	} else {
		f.metadata(ctx, imds.New(sdk))
	}
	f.host(ctx)
	if f.EC2Used {
		f.cloud(ctx, sdk)
	}
	return f.Facts
}

// seen is a part, or the reason why it is not known.
func seen[T any](v T, err error) path.Part[T] {
	if err != nil {
		return path.Unknown[T](err.Error())
	}
	return path.Known(v)
}

func (f *facts) kernel() {
	k, err := kernel.Open()
	if err != nil {
		f.Kernel = path.Unknown[preflight.Kernel](err.Error())
		return
	}
	defer k.Close()
	all, missing, err := k.Missing()
	if errors.Is(err, os.ErrPermission) {
		err = fmt.Errorf("%w: run it as root", err)
	}
	f.Kernel = seen(preflight.Kernel{Release: kernel.Release(), Features: all, Missing: missing}, err)
}

func (f *facts) programs() {
	running, err := hostnet.Programs()
	var names []string
	for _, name := range running {
		names = append(names, name)
	}
	f.Programs = seen(names, err)
	f.Kubelet = readKubelet(running)
	f.DropIns = map[string]bool{}
	for name, file := range map[string]string{
		"systemd-networkd": "/etc/systemd/networkd.conf.d/10-fairway.conf",
		"NetworkManager":   "/etc/NetworkManager/conf.d/10-fairway.conf",
	} {
		_, err := os.Stat(file)
		f.DropIns[name] = err == nil
	}
}

// driftAgain is how long a difference in the kernel must last: the agent mends one
// within a second.
const driftAgain = 1500 * time.Millisecond

// agent asks the agent, where there is one.
func (f *facts) agent(ctx context.Context) {
	f.EC2Used = true
	ask := func() (agentapi.Plan, agentapi.Status, error) {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		c := agentapi.NewClient(f.places.socket)
		s, err := c.Status(ctx)
		if err != nil {
			return agentapi.Plan{}, s, err
		}
		p, err := c.Plan(ctx)
		return p, s, err
	}
	p, s, err := ask()
	if err == nil && len(p.Changes) > 0 {
		select {
		case <-time.After(driftAgain):
			p, s, err = ask()
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("the agent has not answered within %s: it is busy or stuck", patience)
	}
	a := preflight.Agent{Version: s.Version, MaxPodsFit: s.Node.MaxPodsFit}
	for _, problem := range s.Problems {
		if problem.Severity == agentapi.Wrong {
			a.Wrong = append(a.Wrong, problem.Text)
		} else if !strings.Contains(problem.Text, "--max-pods") { // which has its own line
			a.Warnings = append(a.Warnings, problem.Text)
		}
	}
	f.Agent = seen(a, err)
	var changes []string
	for _, c := range p.Changes {
		changes = append(changes, c.Text)
	}
	f.Drift = seen(changes, err)
	if err == nil {
		f.EC2Used = s.EC2.Used
		if n := s.Node.MaxPods; n > 0 && !f.Kubelet.Known {
			f.Kubelet = path.Known(preflight.Kubelet{MaxPods: n, Source: "as the agent is told"})
		}
	}
}

func (f *facts) records() {
	n, err := store.Look(f.places.stateDir)
	r := preflight.Records{Dir: f.places.stateDir, Read: n}
	var bad *store.BadRecordsError
	switch {
	case errors.As(err, &bad):
		for _, b := range bad.Files {
			r.Bad = append(r.Bad, fmt.Sprintf("%s (%v)", b.Name, b.Err))
		}
	case errors.Is(err, fs.ErrNotExist): // no agent has run here, or no pod
	case err != nil:
		f.Records = path.Unknown[preflight.Records](err.Error())
		return
	}
	f.Records = path.Known(r)
}

// metadata is asked once more than it need be, so that its time counts.
func (f *facts) metadata(ctx context.Context, c *imds.Client) {
	began := time.Now()
	id, err := c.Identity(ctx)
	took := time.Since(began)
	var enis []vpc.ENI
	if err == nil {
		enis, err = c.ENIs(ctx)
	}
	f.id = id
	f.Metadata = seen(preflight.Metadata{InstanceID: id.InstanceID, InstanceType: id.InstanceType, ENIs: enis, Took: took}, err)
	if err != nil {
		f.Limits = path.Unknown[vpc.Limits]("instance metadata does not answer")
	} else if l, ok := vpc.LimitsOf(id.InstanceType); ok {
		f.Limits = path.Known(l)
	} else {
		f.Limits = path.Unknown[vpc.Limits]("it is newer than this program")
	}
}

// host reads the node's network namespace.
func (f *facts) host(ctx context.Context) {
	var enis map[string]string
	if f.Metadata.Known {
		enis = map[string]string{}
		for _, e := range f.Metadata.Value.ENIs {
			enis[e.MAC.String()] = e.ID
		}
	}
	n, err := hostnet.CollectHost(ctx, enis)
	if err != nil {
		f.Devices, f.Rules = path.Unknown[[]path.Device](err.Error()), path.Unknown[[]path.IPRule](err.Error())
		f.Sysctls, f.Chains = path.Unknown[map[string]string](err.Error()), path.Unknown[[]preflight.Chain](err.Error())
		return
	}
	f.Devices, f.Rules, f.Sysctls = n.Devices, n.Rules, n.Sysctls
	chains, err := hostnet.Chains()
	for _, name := range n.Iptables.Value.Chains() {
		table, name, _ := strings.Cut(name, " ")
		c := preflight.Chain{Table: "ip " + table, Name: name}
		if !slices.Contains(chains, c) {
			c.Legacy = true
			chains = append(chains, c)
		}
	}
	f.Chains = seen(chains, err)
}

// cloud asks EC2. Every question is one that the agent asks too, or a dry run.
func (f *facts) cloud(ctx context.Context, sdk aws.Config) {
	if !f.Metadata.Known {
		const why = "which region to ask is not known: instance metadata does not answer"
		f.Rights, f.Subnets = path.Unknown[[]preflight.Right](why), path.Unknown[[]vpc.Subnet](why)
		f.Skew = path.Unknown[time.Duration](why)
		return
	}
	if sdk.Region == "" {
		sdk.Region = f.id.Region
	}
	c := ec2.New(sdk)
	f.Skew = seen(c.Skew(ctx))
	asker := ec2.Asker{InstanceID: f.id.InstanceID, InstanceType: f.id.InstanceType, VPCID: f.id.VPCID, Subnet: f.id.SubnetID, Groups: f.id.Groups}
	asker.ENIs, _ = c.ENIs(ctx, f.id.InstanceID) // a refusal has its line among the rights
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		f.Rights = path.Unknown[[]preflight.Right]("EC2 does not answer")
	} else {
		f.Rights = path.Known(c.Rights(ctx, asker))
	}
	if !f.Limits.Known {
		f.Limits = seen(c.Limits(ctx, f.id.InstanceType))
	}
	all, err := c.Subnets(ctx, f.id.VPCID, f.id.AZ)
	mine := slices.DeleteFunc(all, func(s vpc.Subnet) bool {
		return !slices.ContainsFunc(f.Metadata.Value.ENIs, func(e vpc.ENI) bool { return e.SubnetID == s.ID })
	})
	f.Subnets = seen(mine, err)
}
