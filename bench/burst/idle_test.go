package burst

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/fairway-cni/fairway/internal/agent/ipamd"
	"github.com/fairway-cni/fairway/internal/core/ipam"
	"github.com/fairway-cni/fairway/internal/core/vpc"
	"github.com/fairway-cni/fairway/internal/edge/ec2"
	"github.com/fairway-cni/fairway/internal/edge/imds"
	"github.com/fairway-cni/fairway/internal/edge/store"
	"github.com/fairway-cni/fairway/lab/ec2sim"
	labimds "github.com/fairway-cni/fairway/lab/imds"
)

// TestIdleNodes is where the figure idle_calls_per_hour comes from: a node's pool
// with its default options, on which nothing happens. Each node has another jitter.
// The start is not counted.
func TestIdleNodes(t *testing.T) {
	const (
		nodes = 3
		hours = 6
	)
	for range nodes {
		synctest.Test(t, func(t *testing.T) {
			cloud := newNode(t)
			time.Sleep(time.Hour)
			began := time.Now()
			time.Sleep(hours * time.Hour)
			perHour := float64(len(ofPool(cloud.Calls(began)))) / hours
			if perHour < 1 || perHour > 6 {
				t.Errorf("%.3f calls an hour, want 1 to 6", perHour)
			}
			t.Logf(idleLine, perHour)
		})
	}
}

// newNode runs the pool's loop on a node in memory until the test ends.
func newNode(t *testing.T) *ec2sim.Cloud {
	t.Helper()
	cloud := ec2sim.New(ec2sim.Config{Delay: callDelay, Attach: attachTime})
	v, err := cloud.CreateVPC(ec2sim.CreateVPCInput{CIDR: netip.MustParsePrefix("10.0.0.0/16")})
	if err != nil {
		t.Fatal(err)
	}
	subnet, err := cloud.CreateSubnet(ec2sim.CreateSubnetInput{VPCID: v.ID, CIDR: netip.MustParsePrefix("10.0.0.0/20")})
	if err != nil {
		t.Fatal(err)
	}
	run, err := cloud.RunInstances(ec2sim.RunInstancesInput{Type: burstType, SubnetID: subnet.ID})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	meta := imds.New(aws.Config{HTTPClient: &http.Client{Transport: handler{labimds.New(func() (labimds.Metadata, bool) {
		return metadata(cloud, subnet.CIDR, run.Instances[0].ID)
	}, time.Now)}}})
	id, err := meta.Identity(ctx)
	if err != nil {
		t.Fatal(err)
	}
	enis, err := meta.ENIs(ctx)
	if err != nil {
		t.Fatal(err)
	}
	limits, ok := vpc.LimitsOf(id.InstanceType)
	if !ok {
		t.Fatalf("type %s is not known", id.InstanceType)
	}
	records, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	book := ipamd.NewBook(ipamd.Config{Targets: ipam.DefaultTargets(), CoolDown: 30 * time.Second, ManageUntagged: true, SubnetDiscovery: true, LeakedCleanup: true},
		ipamd.Identity{InstanceID: id.InstanceID, InstanceType: id.InstanceType, Limits: limits, VPCID: id.VPCID, Zone: id.AZ, Groups: id.Groups},
		records, log, time.Now)
	book.SawMetadata(enis, time.Now())
	owner := &owner{book: book, commands: make(chan func())}
	cloudClient := ec2.New(aws.Config{Region: cloud.Region(), HTTPClient: &http.Client{Transport: cloud.Transport()},
		BaseEndpoint: aws.String("http://ec2.test"), Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "secret", "")})
	cloudClient.Know(enis)
	x := &ipamd.Executor{Log: log, Now: time.Now, Cloud: cloudClient, Meta: meta, Do: owner.do}
	ended := make(chan struct{}, 2)
	go func() { owner.run(ctx); ended <- struct{}{} }()
	go func() { x.Run(ctx); ended <- struct{}{} }()
	t.Cleanup(func() {
		stop()
		<-ended
		<-ended
		if err := records.Close(); err != nil {
			t.Error(err)
		}
	})
	return cloud
}

// owner is the goroutine that has the book, as the agent's node loop does.
type owner struct {
	book     *ipamd.Book
	commands chan func()
}

func (o *owner) run(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case f := <-o.commands:
			f()
		case <-tick.C:
			o.book.Tick()
		}
	}
}

func (o *owner) do(ctx context.Context, f func(*ipamd.Book)) error {
	done := make(chan struct{})
	select {
	case o.commands <- func() { defer close(done); f(o.book) }:
		<-done
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// metadata is what the node's metadata service says.
func metadata(cloud *ec2sim.Cloud, subnet netip.Prefix, instance string) (m labimds.Metadata, ok bool) {
	snap := cloud.Snapshot()
	for _, i := range snap.Instances {
		if i.ID == instance {
			m = labimds.Metadata{InstanceID: i.ID, InstanceType: i.Type, Region: cloud.Region(), AvailabilityZone: i.Zone,
				AccountID: "123456789012", LaunchTime: i.LaunchedAt, LocalIPv4: i.PrivateIP}
		}
	}
	for _, e := range snap.Interfaces {
		if e.Attachment == nil {
			continue
		}
		m.Interfaces = append(m.Interfaces, labimds.Interface{
			MAC: e.MAC.String(), ID: e.ID, DeviceNumber: e.Attachment.DeviceIndex, NetworkCard: e.Attachment.CardIndex,
			LocalIPv4s: append([]netip.Addr{e.Primary}, e.Secondary...), Prefixes: e.Prefixes,
			SubnetID: e.SubnetID, SubnetCIDR: subnet, VPCID: e.VPCID, VPCCIDRs: snap.VPCs[0].CIDRs, SecurityGroupIDs: e.Groups,
		})
		if e.Attachment.DeviceIndex == 0 {
			m.MAC = e.MAC.String()
		}
	}
	return m, m.InstanceID != ""
}

// handler serves a client without a socket.
type handler struct{ http.Handler }

func (h handler) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result(), nil
}

func TestParseIdle(t *testing.T) {
	got, err := parseIdle("=== RUN\n    x_test.go:1: " + fmt.Sprintf(idleLine, 4.125) + "\n    " + fmt.Sprintf(idleLine, 5.0) + "\nPASS\n")
	if err != nil || len(got) != 2 || got[0] != 4.125 || got[1] != 5 {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := parseIdle("ok\n"); err == nil {
		t.Errorf("of nothing: %v", got)
	}
}
