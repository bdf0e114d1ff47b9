package scenarios

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/fairway-cni/fairway/internal/edge/ec2"
	"github.com/fairway-cni/fairway/lab/ec2sim"
	"github.com/fairway-cni/fairway/lab/ec2sim/policy"
)

// document is a policy of docs/iam.md, as far as the tests change it.
type document struct {
	Version   string
	Statement []map[string]any
}

// fromPage reads the block of docs/iam.md that has the name.
func fromPage(t *testing.T, name string) document {
	t.Helper()
	page, err := os.ReadFile("../../docs/iam.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, begins := strings.Cut(string(page), "```json "+name+"\n")
	text, _, ends := strings.Cut(rest, "\n```")
	if !begins || !ends {
		t.Fatalf("docs/iam.md has no policy %q", name)
	}
	var d document
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		t.Fatalf("docs/iam.md, policy %q: %v", name, err)
	}
	return d
}

func (d document) text(t *testing.T) string {
	t.Helper()
	b, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// right is one thing that a policy allows: an action on a resource, in a
// statement.
type right struct{ sid, action, resource string }

func texts(v any) []string {
	if one, ok := v.(string); ok {
		return []string{one}
	}
	var out []string
	for _, x := range v.([]any) {
		out = append(out, x.(string))
	}
	return out
}

func (d document) rights() []right {
	var out []right
	for _, s := range d.Statement {
		for _, a := range texts(s["Action"]) {
			for _, r := range texts(s["Resource"]) {
				out = append(out, right{s["Sid"].(string), a, r})
			}
		}
	}
	return out
}

// without is the policy that lacks some rights. A statement of several is split.
func (d document) without(lost ...right) document {
	out := document{Version: d.Version}
	for _, s := range d.Statement {
		for _, a := range texts(s["Action"]) {
			for _, r := range texts(s["Resource"]) {
				if slices.Contains(lost, right{s["Sid"].(string), a, r}) {
					continue
				}
				one := maps.Clone(s)
				delete(one, "Sid") // is unique in a policy
				one["Action"], one["Resource"] = a, r
				out.Statement = append(out.Statement, one)
			}
		}
	}
	return out
}

// Nodes with exactly the policy of docs/iam.md do all that they have to, and one
// that lacks any of its rights is refused by EC2 for it: nothing is missing in
// the policy, and nothing in it is too much.
func TestLeastPrivilege(t *testing.T) {
	page, routes := fromPage(t, "policy"), fromPage(t, "routes")
	// What the routes need is tried by itself: without it a node does its work.
	withRoutes := func(d document) string {
		return document{d.Version, slices.Concat(d.Statement, routes.Statement)}.text(t)
	}
	roles, instances := "  - {name: full, policy: "+withRoutes(page)+"}\n", ""
	for _, name := range []string{"full-a", "full-b"} {
		instances += "  - {name: " + name + ", type: t3.small, subnet: a, role: full}\n"
	}
	lost := page.rights()
	for i, r := range lost {
		without := []right{r}
		if r.action == "ec2:DeleteNetworkInterface" {
			// Only what could not be attached is deleted.
			for _, other := range lost {
				if other.action == "ec2:AttachNetworkInterface" {
					without = append(without, other)
				}
			}
		}
		roles += fmt.Sprintf("  - {name: lacks-%d, policy: %s}\n", i, withRoutes(page.without(without...)))
		instances += fmt.Sprintf("  - {name: lacks-%d, type: t3.small, subnet: a, role: lacks-%d}\n", i, i)
	}
	l := startLab(t, "\nvpcs:\n  - {name: main, cidr: 10.0.0.0/16, subnets: [{name: a, cidr: 10.0.0.0/20}]}\n"+
		"instances:\n"+instances+"roles:\n"+roles)

	// A t3.small has three ENIs of four addresses: with four warm, the first is
	// filled and a second made at once.
	for _, n := range l.nodes {
		n.startAgent("--warm-ip-target=4", "--cool-down=0s")
	}
	for _, name := range []string{"full-a", "full-b"} {
		n := l.nodes[name]
		n.readyAgent()
		n.addPods("p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8", "p9")
		if log, err := os.ReadFile(n.log); err != nil || strings.Contains(string(log), "UnauthorizedOperation") {
			t.Errorf("%s was refused, or %v:\n%s", name, err, log)
		}
	}
	for i, r := range lost {
		n := l.nodes[fmt.Sprintf("lacks-%d", i)]
		if r.sid == "UseOwn" && r.action == "ec2:AssignPrivateIpAddresses" {
			n.readyAgent()
			n.addPods("p1") // the second ENI must grow
		}
		kind := r.resource[strings.LastIndex(r.resource, ":")+1:]
		on := " on resource: arn:aws:ec2:eu-west-1:123456789012:" + strings.TrimSuffix(kind, "*")
		if r.resource == "*" {
			on = " because no identity-based policy"
		}
		n.logged("UnauthorizedOperation", n.instanceRole(i), "not authorized to perform: "+r.action+on)
	}
	for _, e := range l.Cloud().Snapshot().Interfaces {
		if owner := e.Tags[ec2.TagInstance]; owner != "" && e.Attachment != nil && e.Attachment.InstanceID != owner {
			t.Errorf("%s is on %s and belongs to %s", e.ID, e.Attachment.InstanceID, owner)
		}
	}
	l.allReach(t)
}

// instanceRole is how EC2 names the caller.
func (n *node) instanceRole(i int) string {
	return fmt.Sprintf("assumed-role/lacks-%d/i-", i)
}

// A node with the right policy cannot touch what belongs to another.
func TestOwnInterfacesOnly(t *testing.T) {
	c := cloudWith(t, fromPage(t, "policy"))
	mine, theirs := clientOf(t, c, 0), c.Snapshot().Instances[1]
	e, err := clientOf(t, c, 1).CreateAndAttachENI(t.Context(), spec(c, 1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := mine.AssignAddresses(t.Context(), e.ID, 1); !errors.Is(err, ec2.ErrUnauthorized) {
		t.Errorf("assign addresses to the ENI of %s: %v", theirs.ID, err)
	}
	if err := mine.MarkDeleteOnTermination(t.Context(), e.ID, e.AttachmentID); !errors.Is(err, ec2.ErrUnauthorized) {
		t.Errorf("change the ENI of %s: %v", theirs.ID, err)
	}
	if _, err := mine.CreateAndAttachENI(t.Context(), spec(c, 1)); !errors.Is(err, ec2.ErrUnauthorized) {
		t.Errorf("make an ENI in the name of %s: %v", theirs.ID, err)
	}
}

// What cannot be attached is taken back, and that is allowed.
func TestTakenBack(t *testing.T) {
	c := cloudWith(t, fromPage(t, "policy"))
	enis := len(c.Snapshot().Interfaces)
	taken := spec(c, 0)
	taken.DeviceIndex = 0
	if _, err := clientOf(t, c, 0).CreateAndAttachENI(t.Context(), taken); err == nil || errors.Is(err, ec2.ErrUnauthorized) {
		t.Errorf("attach at a device index that is taken: %v", err)
	}
	if now := len(c.Snapshot().Interfaces); now != enis {
		t.Errorf("%d ENIs, before %d: one is left behind", now, enis)
	}
}

// The policy for the VPC's routes, likewise.
func TestRoutesPolicy(t *testing.T) {
	page := fromPage(t, "routes")
	c := cloudWith(t, page)
	if r, err := clientOf(t, c, 0).Routing(t.Context(), c.Snapshot().VPCs[0].ID); err != nil || len(r.PrefixLists) != 1 || len(r.Peerings) != 1 {
		t.Errorf("with the policy: %+v, %v", r, err)
	}
	for _, lost := range page.rights() {
		c := cloudWith(t, page.without(lost))
		_, err := clientOf(t, c, 0).Routing(t.Context(), c.Snapshot().VPCs[0].ID)
		if !errors.Is(err, ec2.ErrUnauthorized) || !strings.Contains(err.Error(), "not authorized to perform: "+lost.action+" ") {
			t.Errorf("without %s: %v", lost.action, err)
		}
	}
}

// cloudWith has two instances with a role of the policy, in a VPC with a route
// by prefix list to a peering.
func cloudWith(t *testing.T, d document) *ec2sim.Cloud {
	t.Helper()
	parsed, err := policy.Parse([]byte(d.text(t)))
	if err != nil {
		t.Fatal(err)
	}
	c := ec2sim.New(ec2sim.Config{IAM: true, Roles: map[string][]policy.Document{"node": {parsed}}})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var vpcs []ec2sim.VPC
	for _, cidr := range []string{"10.0.0.0/16", "10.1.0.0/16"} {
		v, err := c.CreateVPC(ec2sim.CreateVPCInput{CIDR: netip.MustParsePrefix(cidr)})
		must(err)
		vpcs = append(vpcs, v)
	}
	p, err := c.CreateVPCPeeringConnection(ec2sim.CreateVPCPeeringInput{VPCID: vpcs[0].ID, PeerVPCID: vpcs[1].ID})
	must(err)
	_, err = c.AcceptVPCPeeringConnection(ec2sim.VPCPeeringInput{ID: p.ID})
	must(err)
	list, err := c.CreateManagedPrefixList(ec2sim.CreateManagedPrefixListInput{Name: "peer", MaxEntries: 1,
		Entries: []ec2sim.PrefixListEntry{{CIDR: netip.MustParsePrefix("10.1.0.0/16")}}})
	must(err)
	must(c.CreateRoute(ec2sim.RouteInput{TableID: vpcs[0].MainRouteTable, List: list.ID, Peering: p.ID}))
	n, err := c.CreateSubnet(ec2sim.CreateSubnetInput{VPCID: vpcs[0].ID, CIDR: netip.MustParsePrefix("10.0.1.0/24")})
	must(err)
	for range 2 {
		_, err = c.RunInstances(ec2sim.RunInstancesInput{Type: "m5.large", SubnetID: n.ID, InstanceProfile: "node"})
		must(err)
	}
	return c
}

// spec is an ENI for an instance of the cloud.
func spec(c *ec2sim.Cloud, instance int) ec2.Spec {
	snap := c.Snapshot()
	i := snap.Instances[instance]
	return ec2.Spec{InstanceID: i.ID, SubnetID: i.SubnetID, Groups: snap.Interfaces[0].Groups, DeviceIndex: 1, Addresses: 1}
}

// clientOf calls the cloud as one of its instances, without a network.
func clientOf(t *testing.T, c *ec2sim.Cloud, instance int) *ec2.Client {
	t.Helper()
	given, ok := c.Credentials(c.Snapshot().Instances[instance].ID)
	if !ok {
		t.Fatal("the instance has no credentials")
	}
	return ec2.New(aws.Config{
		Region: "eu-west-1", BaseEndpoint: aws.String("http://ec2"), HTTPClient: &http.Client{Transport: c.Transport()},
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: given.AccessKeyID, SecretAccessKey: given.SecretAccessKey, SessionToken: given.Token}, nil
		}),
	})
}
