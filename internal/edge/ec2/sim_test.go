package ec2

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/fairway-cni/fairway/internal/core/vpc"
	"github.com/fairway-cni/fairway/lab/ec2sim"
)

// TestLife leads an ENI through all it can be. After each call the listing says
// what the call answered, and nothing else has changed.
func TestLife(t *testing.T) {
	r := newRegion(t, ec2sim.Config{Devices: true}, "10.0.1.0/24")
	ctx := t.Context()
	if err := r.sim.InstanceRunning(r.instance); err != nil {
		t.Fatal(err)
	}
	primary := r.enis(t)[0]
	list := func(what string, attached, detached []vpc.ENI) {
		t.Helper()
		wantENIs(t, "ENIs once "+what, r.enis(t), append([]vpc.ENI{primary}, attached...)...)
		got, err := r.c.Detached(ctx, r.instance)
		if err != nil {
			t.Fatal(err)
		}
		wantENIs(t, "detached ENIs once "+what, got, detached...)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	before := time.Now().Truncate(time.Second)
	e := r.create(t, r.spec(3, 0))
	created, err := time.Parse(time.RFC3339, e.Tags[TagCreated])
	if err != nil || created.Before(before) || created.After(time.Now()) || !e.CreatedAt.Equal(created) {
		t.Errorf("created at %q, %v", e.Tags[TagCreated], err)
	}
	tags := map[string]string{TagInstance: r.instance, TagOwner: Owner, TagCluster: "blue", "team": "net", TagCreated: e.Tags[TagCreated]}
	if d := gocmp.Diff(tags, e.Tags); d != "" {
		t.Errorf("tags (-want +got):\n%s", d)
	}
	if len(e.Secondary) != 3 || !e.Subnet.Contains(e.Primary) || e.Zone != "eu-west-1a" || e.Type != "interface" || e.Status != "" ||
		!slices.Equal(e.Groups, []string{r.group}) {
		t.Errorf("created %+v", e)
	}
	list("created", nil, []vpc.ENI{e})

	e.AttachmentID, err = r.c.AttachENI(ctx, e.ID, r.instance, 2, 0)
	must(err)
	e.DeviceIndex, e.Status = 2, "attaching"
	list("attaching", []vpc.ENI{e}, nil)
	if err := r.c.DetachENI(ctx, e.AttachmentID); !errors.Is(err, ErrState) {
		t.Errorf("detach while attaching: %v, want ErrState", err)
	}
	must(r.sim.DeviceAttached(e.AttachmentID))
	must(r.c.MarkDeleteOnTermination(ctx, e.ID, e.AttachmentID))
	e.Status, e.DeleteOnTermination = "attached", true
	list("attached and marked", []vpc.ENI{e}, nil)

	addrs, err := r.c.AssignAddresses(ctx, e.ID, 2)
	must(err)
	prefixes, err := r.c.AssignPrefixes(ctx, e.ID, 2)
	must(err)
	if len(addrs) != 2 || len(prefixes) != 2 || prefixes[0].Bits() != 28 {
		t.Errorf("assigned %v and %v", addrs, prefixes)
	}
	e.Secondary, e.Prefixes = append(e.Secondary, addrs...), prefixes
	list("grown", []vpc.ENI{e}, nil)
	if err := r.c.UnassignAddresses(ctx, e.ID, []netip.Addr{e.Secondary[0], primary.Primary}); !errors.Is(err, ErrState) {
		t.Errorf("unassign what it has not got: %v, want ErrState", err)
	}
	list("nothing taken", []vpc.ENI{e}, nil)
	must(r.c.UnassignAddresses(ctx, e.ID, e.Secondary[1:4]))
	must(r.c.UnassignPrefixes(ctx, e.ID, prefixes[:1]))
	e.Secondary, e.Prefixes = []netip.Addr{e.Secondary[0], e.Secondary[4]}, prefixes[1:]
	list("shrunk", []vpc.ENI{e}, nil)

	if err := r.c.DeleteENI(ctx, e.ID); !errors.Is(err, ErrState) {
		t.Errorf("delete while attached: %v, want ErrState", err)
	}
	if _, err := r.c.AttachENI(ctx, e.ID, r.instance, 1, 0); !errors.Is(err, ErrState) {
		t.Errorf("attach again: %v, want ErrState", err)
	}
	if other := r.create(t, r.spec(0, 0)); true {
		if _, err := r.c.AttachENI(ctx, other.ID, r.instance, 2, 0); !errors.Is(err, ErrState) {
			t.Errorf("attach at an index that is taken: %v, want ErrState", err)
		}
		must(r.c.DeleteENI(ctx, other.ID))
	}
	attachment := e.AttachmentID
	must(r.c.DetachENI(ctx, attachment))
	e.Status = "detaching"
	list("detaching", []vpc.ENI{e}, nil)
	must(r.sim.DeviceDetached(attachment))
	e.AttachmentID, e.Status, e.DeviceIndex, e.DeleteOnTermination = "", "", 0, false
	list("detached", nil, []vpc.ENI{e})
	if err := r.c.DetachENI(ctx, attachment); !errors.Is(err, ErrNotFound) {
		t.Errorf("detach again: %v, want ErrNotFound", err)
	}
	for range 2 { // the second finds nothing, which is fine
		must(r.c.DeleteENI(ctx, e.ID))
	}
	list("deleted", nil, nil)
}

// TestOneCallEach counts the requests: one method is one, once the subnet is known.
func TestOneCallEach(t *testing.T) {
	r := newRegion(t, ec2sim.Config{}, "10.0.1.0/24")
	for _, round := range []string{"DescribeSubnets CreateNetworkInterface", "CreateNetworkInterface"} {
		r.create(t, r.spec(1, 0))
		if got := actions(r.calls.take()); got != round {
			t.Errorf("to create: %s, want %s", got, round)
		}
	}
	for _, call := range r.methods() {
		if _, err := call.do(r.c, t.Context()); err != nil {
			t.Errorf("%s: %v", call.action, err)
		}
		if got := actions(r.calls.take()); got != call.action {
			t.Errorf("%s: calls %s", call.action, got)
		}
	}
}

func actions(list []Call) string {
	var names []string
	for _, c := range list {
		names = append(names, c.Action)
	}
	return strings.Join(names, " ")
}

// TestRefusals has EC2 refuse each call, as it does.
func TestRefusals(t *testing.T) {
	r := newRegion(t, ec2sim.Config{}, "10.0.1.0/24")
	r.enis(t)
	methods := r.methods()
	for _, tc := range []struct {
		code   string
		class  error // nil: none
		advice string
	}{
		{"UnauthorizedOperation", ErrUnauthorized, "IAM action ec2:%s "},
		{"RequestLimitExceeded", ErrThrottled, "ec2:%s"},
		{"Throttling", ErrThrottled, "ec2:%s"},
		{"InternalError", nil, ""},
		{"Unavailable", nil, ""},
	} {
		for _, call := range methods {
			r.sim.InjectError(call.action, &ec2sim.Error{Code: tc.code, Message: "no"}, -1)
			r.calls.take()
			got, err := call.do(r.c, t.Context())
			r.sim.InjectError(call.action, nil, 0)
			advice := tc.advice
			if advice != "" {
				advice = fmt.Sprintf(advice, call.action)
			}
			if err == nil || tc.class != nil && !errors.Is(err, tc.class) || !strings.Contains(Advice(err), advice) {
				t.Errorf("%s, %s: %v (%v), advice %q", call.action, tc.code, err, got, Advice(err))
			}
			// A server error says not that nothing was done.
			if unknown := tc.class == nil && changes(call.action); UnknownOutcome(err) != unknown {
				t.Errorf("%s, %s: outcome unknown %v, want %v", call.action, tc.code, !unknown, unknown)
			}
			seen := r.calls.take()
			if len(seen) != 1 {
				t.Errorf("%s, %s: %d attempts, want 1", call.action, tc.code, len(seen))
				continue
			}
			if c := seen[0]; c.Action != call.action || c.Code != tc.code || c.Err == nil || tc.class != nil && c.Err != tc.class ||
				c.Throttled != (tc.class == ErrThrottled) || c.Latency < 0 {
				t.Errorf("%s, %s: observed %+v", call.action, tc.code, c)
			}
		}
	}
}

// TestLimits compares what is read off EC2's answers with the table.
func TestLimits(t *testing.T) {
	r := newRegion(t, ec2sim.Config{}, "10.0.1.0/24")
	for i, name := range vpc.InstanceTypes() {
		// Every type has its own line in the simulator; some are enough.
		if special := slices.Contains([]string{"p5.48xlarge", "c6in.32xlarge", "m1.small", "m5.metal"}, name); !special && i%50 != 0 {
			continue
		}
		want, _ := vpc.LimitsOf(name)
		got, err := r.c.Limits(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if d := gocmp.Diff(want, got); d != "" {
			t.Errorf("%s (-table +EC2):\n%s", name, d)
		}
	}
	if l, err := r.c.Limits(t.Context(), "m99.large"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a type that is not: %+v, %v", l, err)
	}
}

func TestSubnets(t *testing.T) {
	r := newRegion(t, ec2sim.Config{}, "10.0.1.0/24")
	add := func(cidr, zone string, tags map[string]string) ec2sim.Subnet {
		n, err := r.sim.CreateSubnet(ec2sim.CreateSubnetInput{VPCID: r.vpc, CIDR: netip.MustParsePrefix(cidr), Zone: zone, Tags: tags})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	second := add("10.0.2.0/26", "eu-west-1a", map[string]string{"kubernetes.io/role/cni": "1"})
	add("10.0.3.0/24", "eu-west-1b", nil)
	want := []vpc.Subnet{
		// EC2 keeps five addresses of each subnet; the node has one.
		{ID: r.subnet, Zone: "eu-west-1a", CIDR: netip.MustParsePrefix("10.0.1.0/24"), Free: 256 - 5 - 1, Tags: map[string]string{}},
		{ID: second.ID, Zone: "eu-west-1a", CIDR: netip.MustParsePrefix("10.0.2.0/26"), Free: 64 - 5, Tags: second.Tags},
	}
	slices.SortFunc(want, func(a, b vpc.Subnet) int { return cmp.Compare(a.ID, b.ID) })
	got, err := r.c.Subnets(t.Context(), r.vpc, "eu-west-1a")
	if d := gocmp.Diff(want, got, cmpAddr); err != nil || d != "" {
		t.Errorf("subnets: %v (-want +got):\n%s", err, d)
	}
	r.calls.take()
	r.create(t, r.spec(0, 0))
	if got := actions(r.calls.take()); got != "CreateNetworkInterface" {
		t.Errorf("calls %s: the listing has said the CIDR", got)
	}
}

// TestDetachedOfOthers has detached ENIs of all kinds: only ours may be found,
// since what is found is deleted.
func TestDetachedOfOthers(t *testing.T) {
	r := newRegion(t, ec2sim.Config{}, "10.0.0.0/20")
	ours := func(instance, cluster string) map[string]string {
		return Spec{InstanceID: instance, Cluster: cluster}.tags()
	}
	without := func(tags map[string]string, key string) map[string]string { delete(tags, key); return tags }
	made := map[string]string{}
	for name, tags := range map[string]map[string]string{
		"mine":            ours(r.instance, "blue"),
		"mine, older":     ours(r.instance, ""),
		"other node":      ours("i-0123456789abcdef0", "blue"),
		"other cluster":   ours("i-0123456789abcdef1", "green"),
		"vpc cni, mine":   without(ours(r.instance, "blue"), TagOwner),
		"somebody's":      {"Name": "db"},
		"owner tag alone": {TagOwner: Owner},
		"other owner":     {TagOwner: "none", TagInstance: r.instance},
	} {
		e, err := r.sim.CreateNetworkInterface(ec2sim.CreateNetworkInterfaceInput{SubnetID: r.subnet, Tags: tags})
		if err != nil {
			t.Fatal(err)
		}
		made[e.ID] = name
	}
	r.create(t, r.spec(0, 0))
	check := func(what string, got []vpc.ENI, err error, want ...string) {
		t.Helper()
		var names []string
		for _, e := range got {
			names = append(names, cmp.Or(made[e.ID], "created"))
		}
		slices.Sort(names)
		if d := gocmp.Diff(want, names); err != nil || d != "" {
			t.Errorf("%s: %v (-want +got):\n%s", what, err, d)
		}
	}
	enis, err := r.c.Detached(t.Context(), r.instance)
	check("detached", enis, err, "created", "mine", "mine, older")
	enis, err = r.c.Leaked(t.Context(), r.vpc, "blue")
	check("leaked of a cluster", enis, err, "created", "mine", "other node")
	enis, err = r.c.Leaked(t.Context(), r.vpc, "")
	check("leaked", enis, err, "created", "mine", "mine, older", "other cluster", "other node")
	enis, err = r.c.Leaked(t.Context(), "vpc-0123456789abcdef0", "")
	check("leaked of another VPC", enis, err)

	// What TagENI adopts is ours from then on.
	for id, name := range made {
		if name == "somebody's" {
			if err := r.c.TagENI(t.Context(), id, r.spec(0, 0).tags()); err != nil {
				t.Fatal(err)
			}
		}
	}
	enis, err = r.c.Detached(t.Context(), r.instance)
	check("detached after adopting", enis, err, "created", "mine", "mine, older", "somebody's")

	const many = pageSize // and those that are there
	for range many {
		if _, err := r.sim.CreateNetworkInterface(ec2sim.CreateNetworkInterfaceInput{SubnetID: r.subnet, Tags: ours(r.instance, "red")}); err != nil {
			t.Fatal(err)
		}
	}
	r.calls.take()
	enis, err = r.c.Detached(t.Context(), r.instance)
	if err != nil || len(enis) != many+4 || !slices.IsSortedFunc(enis, byID) || len(r.calls.take()) != 2 {
		t.Errorf("%d ENIs, %v; want %d in two pages, sorted", len(enis), err, many+4)
	}
}

// TestSubnetFull: addresses run out, and /28 blocks long before them.
func TestSubnetFull(t *testing.T) {
	r := newRegion(t, ec2sim.Config{}, "10.0.1.0/27") // 26 addresses left, none of the two blocks whole
	if _, err := r.c.AssignPrefixes(t.Context(), r.enis(t)[0].ID, 1); !errors.Is(err, ErrSubnetFull) || !strings.Contains(Advice(err), "fragmented") {
		t.Errorf("AssignPrefixes: %v, advice %q", err, Advice(err))
	}
	if _, err := r.c.CreateENI(t.Context(), r.spec(0, 1)); !errors.Is(err, ErrSubnetFull) {
		t.Errorf("CreateENI with a prefix: %v", err)
	}
	if _, err := r.c.CreateENI(t.Context(), r.spec(27, 0)); !errors.Is(err, ErrSubnetFull) || !strings.Contains(Advice(err), "free addresses") {
		t.Errorf("CreateENI: %v, advice %q", err, Advice(err))
	}
	if _, err := r.c.AssignAddresses(t.Context(), r.enis(t)[0].ID, 10); !errors.Is(err, ErrLimit) {
		t.Errorf("AssignAddresses beyond the type: %v", err)
	}
	wide := newRegion(t, ec2sim.Config{}, "10.0.2.0/24")
	if e := wide.create(t, wide.spec(0, 3)); len(e.Prefixes) != 3 || len(e.Secondary) != 0 {
		t.Errorf("ENI with prefixes: %+v", e)
	}
}

// TestLag: EC2 does not know what it has made just now, and says so until it does.
func TestLag(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	r := newRegion(t, ec2sim.Config{Lag: 5 * time.Second, Chance: 7, Now: func() time.Time { return now }}, "10.0.1.0/24")
	now = now.Add(10 * time.Second) // the region is old
	unknown := 0
	for device := 1; device < 3; device++ {
		e := r.create(t, r.spec(1, 0))
		for attempt := 0; ; attempt++ {
			_, err := r.c.AttachENI(t.Context(), e.ID, r.instance, device, 0)
			if err == nil {
				break
			}
			if !errors.Is(err, ErrNotFound) || UnknownOutcome(err) || attempt == 50 {
				t.Fatalf("attach: %v", err)
			}
			unknown++
		}
	}
	if unknown == 0 {
		t.Error("EC2 knew everything at once: this test has not met what it is for")
	}
}
