package ipamd

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/fairway-cni/fairway/internal/core/ipam"
	"github.com/fairway-cni/fairway/internal/core/vpc"
	"github.com/fairway-cni/fairway/internal/edge/ec2"
	"github.com/fairway-cni/fairway/internal/edge/imds"
	"github.com/fairway-cni/fairway/internal/edge/store"
	"github.com/fairway-cni/fairway/lab/ec2sim"
	labimds "github.com/fairway-cni/fairway/lab/imds"
)

// region is an EC2 and an instance metadata service in memory, with one node, and
// that node's agent as far as addresses go. There is no kernel: an ENI has its
// device when the simulator says so. It runs in a bubble of testing/synctest.
type region struct {
	t        testing.TB
	cloud    *ec2sim.Cloud
	log      *slog.Logger
	instance string
	subnet   string // of the primary ENI
	dir      string // of the records
	imdsLag  time.Duration
	wire     func(http.RoundTripper) http.RoundTripper // between the agent and EC2
	step     func(string)                              // before each durable step of the store
	cfg      Config
	observe  Observer
	node     *agent // the one that runs; nil: none
}

// newRegion makes a region with one instance in a subnet of the CIDR.
func newRegion(t testing.TB, cfg ec2sim.Config, instanceType, cidr string) *region {
	t.Helper()
	if cfg.Lag > 0 && cfg.Memory < cfg.Lag {
		cfg.Memory = cfg.Lag
	}
	if cfg.Memory == 0 {
		cfg.Memory = time.Minute // for an IMDS that lags
	}
	cloud := ec2sim.New(cfg)
	v, err := cloud.CreateVPC(ec2sim.CreateVPCInput{CIDR: netip.MustParsePrefix("10.0.0.0/16")})
	if err != nil {
		t.Fatal(err)
	}
	s, err := cloud.CreateSubnet(ec2sim.CreateSubnetInput{VPCID: v.ID, CIDR: netip.MustParsePrefix(cidr)})
	if err != nil {
		t.Fatal(err)
	}
	run, err := cloud.RunInstances(ec2sim.RunInstancesInput{Type: instanceType, SubnetID: s.ID})
	if err != nil {
		t.Fatal(err)
	}
	cloud.Propagate()
	targets := ipam.DefaultTargets()
	return &region{t: t, cloud: cloud, log: slog.New(slog.DiscardHandler), instance: run.Instances[0].ID, subnet: s.ID, dir: t.TempDir(),
		cfg: Config{Targets: targets, CoolDown: 30 * time.Second, ManageUntagged: true}}
}

// agent is one life of a node's agent.
type agent struct {
	r        *region
	ctx      context.Context
	end      context.CancelFunc
	book     *Book
	records  *store.Store
	commands chan func(*Book)
	ended    chan struct{} // the owner's loop has
	idle     chan struct{} // and so has the executor
}

// start begins a life: it does what the real agent's start does, and runs its loops.
func (r *region) start() *agent {
	r.t.Helper()
	ctx, end := context.WithCancel(context.Background())
	a := &agent{r: r, ctx: ctx, end: end, commands: make(chan func(*Book)), ended: make(chan struct{}), idle: make(chan struct{})}
	r.node = a
	meta := imds.New(aws.Config{HTTPClient: &http.Client{Transport: handlerTransport{labimds.New(r.metadata, time.Now)}}})
	id, err := meta.Identity(ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	asked := time.Now()
	enis, err := meta.ENIs(ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	limits, ok := vpc.LimitsOf(id.InstanceType)
	if !ok {
		r.t.Fatalf("type %s is not known", id.InstanceType)
	}
	if a.records, err = store.Open(r.dir); err != nil {
		r.t.Fatal(err)
	}
	a.records.Step = r.step
	a.book = NewBook(r.cfg, Identity{InstanceID: id.InstanceID, InstanceType: id.InstanceType, Limits: limits,
		VPCID: id.VPCID, Zone: id.AZ, Groups: id.Groups}, a.records, r.log, time.Now)
	a.book.Drives(r.devices)
	if err := a.book.Restore(); err != nil {
		r.t.Fatal(err)
	}
	a.book.SawMetadata(enis, asked)
	go a.loop()
	x := &Executor{Log: r.log, Now: time.Now, Cloud: r.client(), Meta: meta, Do: a.do, Observe: r.observe, Rand: func(d time.Duration) time.Duration { return d / 2 }}
	x.Cloud.Know(enis)
	if r.cfg.IMDSOnly {
		x.Cloud = nil
	}
	go func() { defer close(a.idle); x.Run(ctx) }()
	return a
}

// client speaks to the region's EC2 over the wire that the region says.
func (r *region) client() *ec2.Client {
	transport := r.cloud.Transport()
	if r.wire != nil {
		transport = r.wire(transport)
	}
	return ec2.New(aws.Config{
		Region: r.cloud.Region(), HTTPClient: &http.Client{Transport: transport}, BaseEndpoint: aws.String("http://ec2.test"),
		Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "secret", ""),
	})
}

// loop owns the book, as the node loop does.
func (a *agent) loop() {
	defer close(a.ended)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-a.ctx.Done():
			return
		case f := <-a.commands:
			f(a.book)
		case <-tick.C:
			a.book.Tick()
		}
	}
}

func (a *agent) do(ctx context.Context, f func(*Book)) error {
	done := make(chan struct{})
	select {
	case a.commands <- func(b *Book) { defer close(done); f(b) }:
		select {
		case <-done:
			return nil
		case <-a.ended: // it died in the middle
			return context.Canceled
		}
	case <-ctx.Done():
		return ctx.Err()
	case <-a.ctx.Done():
		return a.ctx.Err()
	}
}

// stop ends the life, in order.
func (a *agent) stop() {
	a.end()
	<-a.ended
	<-a.idle
	if err := a.records.Close(); err != nil {
		a.r.t.Error(err)
	}
	a.r.node = nil
}

func pod(name string) ipam.Owner { return ipam.Owner{ContainerID: name, IfName: "eth0"} }

// add is an ADD that waits as long as a real one.
func (a *agent) add(name string) (netip.Addr, error) { return a.addFor(name, 45*time.Second) }

func (a *agent) addFor(name string, wait time.Duration) (netip.Addr, error) {
	var r store.Record
	err := a.book.Await(a.ctx, pod(name), wait, a.do, func(b *Book) (err error) {
		r, err = b.Hold(store.Record{ContainerID: name, IfName: "eth0", PodName: name, PodNamespace: "default"})
		return err
	})
	return r.Addr, err
}

func (a *agent) del(name string) error {
	var err error
	if lost := a.do(a.ctx, func(b *Book) { err = b.Release(pod(name)) }); lost != nil {
		return lost
	}
	return err
}

// stats and state ask the loop.
func (a *agent) stats() (s ipam.Stats) {
	a.must(func(b *Book) { s = b.Stats() })
	return s
}

func (a *agent) must(f func(*Book)) {
	a.r.t.Helper()
	if err := a.do(a.ctx, f); err != nil {
		a.r.t.Fatal(err)
	}
}

// devices is the kernel of the node: a device is there once the simulator says so.
func (r *region) devices(managed, _ []vpc.ENI) (map[string]bool, error) {
	ready := make(map[string]bool)
	for _, e := range r.cloud.Snapshot().Interfaces {
		if a := e.Attachment; a != nil && a.InstanceID == r.instance && !a.DeviceAt.After(time.Now()) {
			ready[e.ID] = true
		}
	}
	return ready, nil
}

// enis is the truth about the node's ENIs, and about those of its that are attached
// to nothing.
func (r *region) enis() (attached, detached []ec2sim.NetworkInterface) {
	for _, e := range r.cloud.Snapshot().Interfaces {
		switch {
		case e.Attachment != nil && e.Attachment.InstanceID == r.instance:
			attached = append(attached, e)
		case e.Attachment == nil && e.Tags[ec2.TagInstance] == r.instance:
			detached = append(detached, e)
		}
	}
	return attached, detached
}

// metadata is what the node's metadata service says: the truth of a while ago.
func (r *region) metadata() (labimds.Metadata, bool) {
	snap := r.cloud.SnapshotAt(time.Now().Add(-r.imdsLag))
	var m labimds.Metadata
	for _, i := range snap.Instances {
		if i.ID == r.instance {
			m = labimds.Metadata{InstanceID: i.ID, InstanceType: i.Type, Region: r.cloud.Region(), AvailabilityZone: i.Zone,
				AccountID: "123456789012", LaunchTime: i.LaunchedAt, LocalIPv4: i.PrivateIP}
		}
	}
	cidrs := make(map[string]netip.Prefix)
	for _, s := range snap.Subnets {
		cidrs[s.ID] = s.CIDR
	}
	for _, e := range snap.Interfaces {
		a := e.Attachment
		if a == nil || a.InstanceID != r.instance {
			continue
		}
		m.Interfaces = append(m.Interfaces, labimds.Interface{
			MAC: e.MAC.String(), ID: e.ID, DeviceNumber: a.DeviceIndex, NetworkCard: a.CardIndex,
			LocalIPv4s: append([]netip.Addr{e.Primary}, e.Secondary...), Prefixes: e.Prefixes,
			SubnetID: e.SubnetID, SubnetCIDR: cidrs[e.SubnetID], VPCID: e.VPCID, VPCCIDRs: snap.VPCs[0].CIDRs, SecurityGroupIDs: e.Groups,
		})
		if a.DeviceIndex == 0 {
			m.MAC = e.MAC.String()
		}
	}
	return m, m.InstanceID != ""
}

// handlerTransport serves a client from a handler, without a socket.
type handlerTransport struct{ http.Handler }

func (h handlerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result(), nil
}

var errWire = errors.New("the wire broke")
