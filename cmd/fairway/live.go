package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"

	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/internal/edge/agentapi"
	"github.com/fairway-cni/fairway/internal/edge/bundle"
	"github.com/fairway-cni/fairway/internal/edge/ec2"
	"github.com/fairway-cni/fairway/internal/edge/hostnet"
	"github.com/fairway-cni/fairway/internal/edge/imds"
	"github.com/fairway-cni/fairway/internal/edge/kernel"
)

// sources say of what a world is collected.
type sources struct {
	node, ec2, kube     bool
	name, cluster       string   // of the node
	kubeconfig, context string   // of the API server; empty: as kubectl finds them
	region              string   // empty: the instance's, or the environment's
	vpcs                []string // empty: the instance's
	socket              string   // of the agent, for the names of pods
	root                string   // of the node, where this runs in a container; empty: "/"
	on                  onNodes
}

// collected is a world, and what people should know of it.
type collected struct {
	world *path.World
	notes []string
}

func (c *collected) note(format string, args ...any) {
	c.notes = append(c.notes, fmt.Sprintf(format, args...))
}

// askTime bounds the agent's answer, and imdsTime that of the metadata service
// where there may be none.
const (
	askTime  = 3 * time.Second
	imdsTime = 5 * time.Second
)

// collect reads this node, EC2 and the cluster, as far as they can be read.
func (s sources) collect(ctx context.Context, stderr io.Writer, now time.Time) (collected, error) {
	c := collected{world: &path.World{Form: path.Form, Name: "live", Taken: now.UTC().Format(time.RFC3339)}}
	c.world.Peerings = path.Unknown[[]path.Peering]("EC2 was not read")
	c.world.TransitGateways = path.Unknown[[]path.TransitGateway]("EC2 was not read")
	c.world.Services = path.Unknown[[]path.Service]("the Kubernetes API was not asked")
	c.world.Pods = path.Unknown[[]path.ListedPod]("the Kubernetes API was not asked")
	if s.kube {
		if err := s.readCluster(ctx, &c); err != nil {
			return c, err
		}
	}
	if len(s.on.names) > 0 {
		if err := s.readOn(ctx, stderr, &c); err != nil {
			return c, err
		}
	}
	if !s.node && !s.ec2 {
		return c, nil
	}
	sdk, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return c, fmt.Errorf("load aws configuration: %w", err)
	}
	s.region = firstOf(s.region, sdk.Region)
	var id imds.Identity
	var enis map[string]string
	if s.node || s.region == "" || len(s.vpcs) == 0 && len(s.on.names) == 0 {
		if id, enis, err = whoAmI(ctx, imds.New(sdk)); err != nil && s.node {
			c.note("which ENIs this node has is not known: %v", err)
		}
	}
	if s.node {
		n, err := s.readNode(ctx, enis, listedNames(c.world.Pods.Value))
		if err != nil {
			return c, err
		}
		c.world.Nodes = append(c.world.Nodes, n)
	}
	if !s.ec2 {
		return c, nil
	}
	s.region = firstOf(s.region, id.Region)
	if len(s.vpcs) == 0 && len(s.on.names) > 0 && s.region != "" {
		if err := s.findVPCs(ctx, sdk, c.world.Nodes); err != nil {
			return c, err
		}
	}
	if len(s.vpcs) == 0 && id.VPCID != "" {
		s.vpcs = []string{id.VPCID}
	}
	switch {
	case len(s.vpcs) == 0:
		return c, errors.New("which VPC to read is not known here: this is no EC2 instance; say --vpc ID")
	case s.region == "":
		return c, errors.New("which region to read is not known here: say --region NAME")
	}
	return s.readEC2(ctx, sdk, id.InstanceID, c)
}

// findVPCs asks which VPCs the nodes' ENIs are in.
func (s *sources) findVPCs(ctx context.Context, sdk aws.Config, nodes []path.Node) error {
	var enis []string
	for i := range nodes {
		for j := range nodes[i].Host.Devices.Value {
			if id := nodes[i].Host.Devices.Value[j].ENI; id != "" {
				enis = append(enis, id)
			}
		}
	}
	regional := sdk.Copy()
	regional.Region = s.region
	vpcs, err := ec2.New(regional).VPCsOf(ctx, enis)
	if err != nil {
		return err
	}
	if len(vpcs) == 0 {
		return fmt.Errorf("none of the nodes' %d ENIs is in %s, or they are another account's: say --region NAME, or use its credentials", len(enis), s.region)
	}
	s.vpcs = vpcs
	return nil
}

func firstOf(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}

// whoAmI asks the metadata service for the instance, and its ENIs by MAC.
func whoAmI(ctx context.Context, c *imds.Client) (imds.Identity, map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, imdsTime)
	defer cancel()
	id, err := c.Identity(ctx)
	if err != nil {
		return imds.Identity{}, nil, err
	}
	list, err := c.ENIs(ctx)
	if err != nil {
		return id, nil, err
	}
	enis := map[string]string{}
	for _, e := range list {
		enis[e.MAC.String()] = e.ID
	}
	return id, enis, nil
}

func (s sources) readNode(ctx context.Context, enis map[string]string, names []hostnet.PodName) (path.Node, error) {
	if s.name == "" {
		name, err := os.Hostname()
		if err != nil {
			return path.Node{}, fmt.Errorf("read host name: %w", err)
		}
		s.name = name
	}
	n, err := hostnet.Collect(ctx, hostnet.Request{Name: s.name, Cluster: s.cluster, ENIs: enis, Root: s.root,
		Pods: append(names, podNames(ctx, filepath.Join(s.root, s.socket))...)})
	if err != nil {
		return n, err
	}
	if n.Host.Nftables.Why == hostnet.OnlyOurs {
		ownTable(&n.Host)
	}
	return n, nil
}

// podNames are those that the agent knows; none where no agent runs.
func podNames(ctx context.Context, socket string) (names []hostnet.PodName) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	status, err := agentapi.NewClient(socket).Status(ctx)
	if err != nil {
		return nil // another CNI's node
	}
	for _, p := range status.Pods {
		if a, err := netip.ParseAddr(p.Address); err == nil {
			names = append(names, hostnet.PodName{Addr: a, Namespace: firstOf(p.Namespace, "default"), Name: p.Name})
		}
	}
	return names
}

// ownTable reads Fairway's table where there is no nft to print it.
func ownTable(host *path.Namespace) {
	table, err := kernel.OwnTable()
	if err != nil {
		return // the part stays unknown, with its reason
	}
	before := host.Nftables
	if host.Add(table) != nil {
		host.Nftables = before
	}
}

// readEC2 surveys the VPCs, and then those at the other ends as far as this
// account's credentials lead.
func (s sources) readEC2(ctx context.Context, sdk aws.Config, instance string, c collected) (collected, error) {
	survey := func(region string, vpcs []string) (ec2.Survey, error) {
		regional := sdk.Copy()
		regional.Region = region
		return ec2.New(regional).Survey(ctx, ec2.Scope{Region: region, VPCs: vpcs})
	}
	home, err := survey(s.region, s.vpcs)
	if err != nil {
		if !s.node || ctx.Err() != nil {
			return c, err
		}
		c.note("EC2 was not read: %v", err)
		return c, nil
	}
	worlds := []bundle.Source{{Name: "this node", World: c.world}, {Name: s.region, World: surveyWorld(home)}}
	instances, refused := home.Instances, home.Refused
	far := map[string][]string{}
	behind := map[string]ec2.FarVPC{}
	for _, v := range home.Beyond {
		if v.By == "" {
			c.note("not read: %s, which is not in %s, or not this account's", v.ID, s.region)
			continue
		}
		region := firstOf(v.Region, s.region)
		far[region], behind[v.ID] = append(far[region], v.ID), v
	}
	for _, region := range slices.Sorted(maps.Keys(far)) {
		there, err := survey(region, far[region])
		for _, id := range far[region] {
			v := behind[id]
			if !slices.ContainsFunc(there.VPCs, func(o path.VPC) bool { return o.ID == id && (o.CIDRs.Known || o.Subnets.Known) }) {
				c.note("not read: %s, behind %s, in %s of account %s", id, v.By, region, firstOf(v.Account, "unknown"))
			}
		}
		if err != nil {
			c.note("region %s was not read: %v", region, err)
			continue
		}
		worlds = append(worlds, bundle.Source{Name: region + " beyond", World: surveyWorld(there)})
		maps.Copy(instances, there.Instances)
		refused = append(refused, there.Refused...)
	}
	for _, r := range slices.Compact(slices.Sorted(slices.Values(refused))) {
		c.note("%s", r)
	}
	w, err := bundle.Join(worlds)
	if err != nil {
		return c, err // EC2 changed between two calls
	}
	w.Name, w.Taken, w.Services, w.Pods = c.world.Name, c.world.Taken, c.world.Services, c.world.Pods
	uniqueLabels(w)
	c.world = w
	c.others(instances, instance)
	return c, w.Validate()
}

func surveyWorld(s ec2.Survey) *path.World {
	w := &path.World{Form: path.Form, Peerings: s.Peerings, TransitGateways: s.TransitGateways}
	for _, v := range s.VPCs {
		if v.CIDRs.Known || v.Subnets.Known || v.ENIs.Known { // else nothing says that it is there
			w.VPCs = append(w.VPCs, v)
		}
	}
	return w
}

// uniqueLabels gives two VPCs of one name their IDs instead.
func uniqueLabels(w *path.World) {
	n := map[string]int{}
	for _, v := range w.VPCs {
		n[v.Name]++
	}
	for i := range w.VPCs {
		if v := &w.VPCs[i]; n[v.Name] > 1 {
			v.Name = v.ID
		}
	}
}

// others says whose kernels nobody has read.
func (c *collected) others(instances map[string]string, self string) {
	var ids []string
	read := map[string]bool{}
	for i := range c.world.Nodes {
		read[self] = true
		for _, d := range c.world.Nodes[i].Host.Devices.Value {
			read[instances[d.ENI]] = true
		}
	}
	for _, id := range instances {
		if !read[id] {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	if ids = slices.Compact(ids); len(ids) == 0 {
		return
	}
	const most = 5
	text := strings.Join(ids[:min(most, len(ids))], ", ")
	if len(ids) > most {
		text += ", ..."
	}
	c.note("not read: the kernels of %d instances (%s); read those that matter by --on NODE, or run fairway bundle --node there and give all files to fairway path by -b", len(ids), text)
}
