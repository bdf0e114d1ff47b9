package world

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairway-cni/fairway/lab/ec2sim"
	"github.com/fairway-cni/fairway/lab/fabric"
)

const tinyWorld = `name: tiny
vpcs: [{name: main, cidr: 10.0.0.0/16, subnets: [{name: a, cidr: 10.0.1.0/24}]}]
instances: [{name: node, type: m5.large, subnet: a}]
`

func TestParseEC2(t *testing.T) {
	w, err := Parse("w", []byte(tinyWorld+`ec2:
  {throttle: true, lag: 2s, attach: 3s, imdsLag: 4s, delay: 50ms, delays: {CreateVpc: 1s}, seed: 7, quotas: {networkInterfaces: 9}}
`))
	if err != nil {
		t.Fatal(err)
	}
	quotas := ec2sim.DefaultQuotas()
	quotas.NetworkInterfaces = 9
	want := EC2{
		Pos: Pos{"w", 5}, Throttle: true, Lag: 2 * time.Second, Attach: 3 * time.Second, IMDSLag: 4 * time.Second,
		Delay: 50 * time.Millisecond, Delays: map[string]time.Duration{"CreateVpc": time.Second}, Seed: 7, Quotas: &quotas,
	}
	if diff := cmp.Diff(want, w.EC2, ignoreKeys); diff != "" {
		t.Errorf("ec2 (-want +got):\n%s", diff)
	}
	cfg := w.cloud()
	if cfg.Memory != 4*time.Second || cfg.Quotas != quotas || cfg.Chance != 7 || !cfg.Throttle {
		t.Errorf("config %+v", cfg)
	}
	if w, err = Parse("w", []byte(tinyWorld)); err != nil || w.cloud().Quotas != (ec2sim.Quotas{}) || w.cloud().Throttle {
		t.Errorf("without the key: %+v, %v", w.EC2, err)
	}
}

func TestParseEC2Refuses(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"{lag: soon}", `w:4: lag: found "soon", want a time such as 250ms or 2s`},
		{"{lag: -1s}", `w:4: lag: found -1s, want 0s to 10m0s`},
		{"{attach: 1h}", `w:4: attach: found 1h0m0s, want 0s to 10m0s`},
		{"{delay: [1s]}", `w:4: delay: found a list, want a time such as 250ms or 2s`},
		{"{delays: 1s}", `w:4: delays: found "1s", want a mapping of at most 256 actions to times, such as {AttachNetworkInterface: 1s}`},
		{"{delays: {CreateVPC: 1s}}", `w:4: delays: unknown action "CreateVPC" (did you mean "CreateVpc"?): want one of the lab's EC2`},
		{"{delays: {CreateVpc: 1s, CreateVpc: 2s}}", `w:4: delays: action "CreateVpc" is there twice`},
		{"{delays: {CreateVpc: 1}}", `w:4: delay of CreateVpc: found "1", want a time such as 250ms or 2s`},
		{"{quotas: {enis: 1}}", `w:4: unknown key "enis" in quotas: known keys are vpcs, subnets, securityGroups, routeTables, elasticAddresses, networkInterfaces, addressUsage, peeredAddressUsage`},
		{"{quotas: {vpcs: 0}}", `w:4: quota vpcs: found 0, want 1 or more`},
		{"{seed: x}", `w:4: seed: found "x", want a whole number`},
		{"7", `w:4: ec2: found "7", want a mapping with the keys throttle, lag, attach, imdsLag, delay, delays,`},
	} {
		_, err := Parse("w", []byte(tinyWorld+"ec2: "+tt.text+"\n"))
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s:\ngot  %v\nwant %s", tt.text, err, tt.want)
		}
	}
}

// An ENI has no guest until its device is to be there.
func TestArrived(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	snap := ec2sim.Snapshot{Interfaces: []ec2sim.NetworkInterface{
		{ID: "eni-1", Attachment: &ec2sim.Attachment{}},
		{ID: "eni-2", Attachment: &ec2sim.Attachment{DeviceAt: now}},
		{ID: "eni-3", Attachment: &ec2sim.Attachment{DeviceAt: now.Add(1)}},
		{ID: "eni-4"},
	}}
	top := fabric.Topology{VPCs: []fabric.VPC{{ENIs: []fabric.ENI{
		{ID: "eni-1", Guest: "i", Device: "ens5"}, {ID: "eni-2", Guest: "i", Device: "ens6"},
		{ID: "eni-3", Guest: "i", Device: "ens7"}, {ID: "eni-4"},
	}}}}
	var got []string
	for _, e := range arrived(top, snap, now).VPCs[0].ENIs {
		got = append(got, e.Guest+e.Device)
	}
	if diff := cmp.Diff([]string{"iens5", "iens6", "", ""}, got); diff != "" {
		t.Errorf("guests (-want +got):\n%s", diff)
	}
}

// The metadata of an instance is old by the same time always, and knows what
// came with its launch.
func TestMetadataLags(t *testing.T) {
	w := &World{Region: "eu-west-1", EC2: EC2{IMDSLag: 2 * time.Hour}}
	lag := metadataLag(w.EC2, "i-1")
	if lag < time.Hour || lag > 2*time.Hour || lag != metadataLag(w.EC2, "i-1") || lag == metadataLag(w.EC2, "i-2") || metadataLag(EC2{}, "i-1") != 0 {
		t.Errorf("lag %s", lag)
	}
	l := &Lab{cfg: Config{World: w}, cloud: ec2sim.New(w.cloud())}
	c := l.cloud
	v, err := c.CreateVPC(ec2sim.CreateVPCInput{CIDR: netip.MustParsePrefix("10.0.0.0/16")})
	if err != nil {
		t.Fatal(err)
	}
	n, err := c.CreateSubnet(ec2sim.CreateSubnetInput{VPCID: v.ID, CIDR: netip.MustParsePrefix("10.0.1.0/24")})
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.RunInstances(ec2sim.RunInstancesInput{Type: "m5.large", SubnetID: n.ID})
	if err != nil {
		t.Fatal(err)
	}
	i := r.Instances[0]
	if _, err := c.AssignPrivateIPAddresses(ec2sim.AssignPrivateIPAddressesInput{ID: i.Interfaces[0], Count: 3}); err != nil {
		t.Fatal(err)
	}
	m, ok := metadata(l.seen(i.ID), i.ID)
	if !ok || len(m.Interfaces) != 1 || len(m.Interfaces[0].LocalIPv4s) != 1 {
		t.Errorf("metadata %v: %+v", ok, m.Interfaces)
	}
	if now, _ := metadata(c.Snapshot(), i.ID); len(now.Interfaces[0].LocalIPv4s) != 4 {
		t.Errorf("EC2 has %+v", now.Interfaces)
	}
}
