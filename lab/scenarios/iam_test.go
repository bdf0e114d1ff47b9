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
	"time"

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

// and is a policy with the statements of others too.
func (d document) and(others ...document) document {
	d.Statement = slices.Clone(d.Statement)
	for _, o := range others {
		d.Statement = append(d.Statement, o.Statement...)
	}
	return d
}

// provenElsewhere is the rights, by statement, that no node here can be made to use
// within seconds, with the reason. TestPolicy and TestPolicyGuards in
// internal/edge/ec2 make their calls with and without them. One of the two nodes that
// do all lacks these, so that what nodes use cannot hide here; a third entry needs a
// better reason than that a node was not made to use it.
var provenElsewhere = map[string]string{
	"SeeTypes": "only an agent that does not know its instance type asks, and what the lab can launch the agent knows",
	"Sweep":    "an ENI must have been detached for fifteen minutes, and somebody else's",
}

// trial is how a node without one right is brought to need it.
type trial struct {
	keep []string // flags: how many addresses it keeps; by default three free ones
	// also is what must be lost too: other rights that allow the same.
	also []string
	do   func(l *lab, n *node)
}

// A t3.small has three ENIs of three addresses for pods. With three warm the first is
// filled at once, a pod makes a second ENI, and a second pod makes that grow.
var (
	threeWarm = []string{"--warm-ip-target=3"}
	oneWarm   = []string{"--warm-ip-target=1"}
	noneWarm  = []string{"--warm-ip-target=0", "--minimum-ip-target=1"}

	nothing = func(*lab, *node) {}
	onePod  = func(_ *lab, n *node) { n.readyAgent(); n.addPods("p1") }
	twoPods = func(_ *lab, n *node) { n.readyAgent(); n.addPods("p1"); n.addPods("p2") }
	// loseENI fills the first ENI, and has the second lose its only pod.
	loseENI = func(l *lab, n *node) {
		n.readyAgent()
		for _, p := range []string{"p1", "p2", "p3", "p4"} {
			n.addPods(p)
		}
		l.enisOf(n, 2)
		n.againWith(noneWarm)
		n.delPods("p4")
	}
	// loseAddress leaves the first ENI with an address that is not wanted, once it is
	// tagged as the node's own, where that is allowed.
	loseAddress = func(l *lab, n *node) {
		twoPods(l, n)
		l.tagged(n)
		n.delPods("p2")
	}
	loseUntagged = func(l *lab, n *node) { twoPods(l, n); n.delPods("p2") }
)

// trials is by statement and action.
var trials = map[string]trial{
	"See ec2:DescribeNetworkInterfaces":               {do: nothing},
	"See ec2:DescribeSubnets":                         {do: nothing},
	"GrowPrimary ec2:AssignPrivateIpAddresses":        {do: nothing, also: []string{"Adopt"}},
	"CreateFrom ec2:CreateNetworkInterface":           {do: onePod},
	"CreateOwn ec2:CreateNetworkInterface":            {do: onePod},
	"TagOwn ec2:CreateTags":                           {do: onePod},
	"UseOwn ec2:AssignPrivateIpAddresses":             {do: twoPods},
	"UseOwn ec2:AttachNetworkInterface":               {do: onePod},
	"UseOwn ec2:ModifyNetworkInterfaceAttribute":      {do: onePod},
	"UseOwn ec2:DeleteNetworkInterface":               {do: loseENI, keep: noneWarm, also: []string{"Sweep"}},
	"OwnInstance ec2:AttachNetworkInterface":          {do: onePod},
	"OwnInstance ec2:ModifyNetworkInterfaceAttribute": {do: onePod},
	"ShrinkPrimary ec2:UnassignPrivateIpAddresses":    {do: loseUntagged, keep: oneWarm, also: []string{"Adopt"}},
	"ReturnOwn ec2:UnassignPrivateIpAddresses":        {do: loseAddress, keep: oneWarm},
	"ReturnOwn ec2:DetachNetworkInterface":            {do: loseENI, keep: noneWarm},
	"FromOwnInstance ec2:DetachNetworkInterface":      {do: loseENI, keep: noneWarm},
	"Adopt ec2:CreateTags":                            {do: nothing},
}

// ofInstance lists the node's ENIs, the primary first.
func (l *lab) ofInstance(n *node) (enis []ec2sim.NetworkInterface) {
	var id string
	snap := l.Cloud().Snapshot()
	for _, e := range snap.Interfaces {
		if e.Attachment != nil && e.Primary == n.addr {
			id = e.Attachment.InstanceID
		}
	}
	for _, e := range snap.Interfaces {
		switch {
		case e.Primary == n.addr:
			enis = slices.Insert(enis, 0, e)
		case e.Tags[ec2.TagInstance] == id, e.Attachment != nil && e.Attachment.InstanceID == id:
			enis = append(enis, e)
		}
	}
	return enis
}

// enisOf waits until the node has so many ENIs, all of them attached.
func (l *lab) enisOf(n *node, want int) {
	l.t.Helper()
	eventually(l.t, fmt.Sprintf("%s has %d ENIs", n.name, want), func() error {
		enis := l.ofInstance(n)
		for _, e := range enis {
			if e.Attachment == nil {
				return fmt.Errorf("%s is attached to nothing", e.ID)
			}
		}
		if len(enis) != want {
			return fmt.Errorf("it has %d", len(enis))
		}
		return nil
	})
}

// tagged waits until the primary ENI bears the node's name.
func (l *lab) tagged(n *node) {
	l.t.Helper()
	eventually(l.t, "the primary ENI of "+n.name+" is tagged", func() error {
		for _, e := range l.ofInstance(n) {
			if e.Tags[ec2.TagInstance] == "" {
				return fmt.Errorf("%s is not", e.ID)
			}
		}
		return nil
	})
}

// Nodes with exactly the policies of docs/iam.md do all that they have to, and one
// that lacks any of its rights is refused by EC2 for it: nothing is missing in
// the policies, and nothing in them is too much.
func TestLeastPrivilege(t *testing.T) {
	if len(provenElsewhere) != 2 {
		t.Errorf("%d rights are not tried here, want 2", len(provenElsewhere))
	}
	// What the routes need is tried by itself: without it a node does its work.
	page, routes := fromPage(t, "policy").and(fromPage(t, "return"), fromPage(t, "sweep")), fromPage(t, "routes")
	role := func(name string, d document) string {
		return fmt.Sprintf("  - {name: %s, policy: %s}\n", name, d.and(routes).text(t))
	}
	instance := func(name string) string {
		return "  - {name: " + name + ", type: t3.small, subnet: a, role: " + name + "}\n"
	}
	var lost, elsewhere []right
	for _, r := range page.rights() {
		if provenElsewhere[r.sid] != "" {
			elsewhere = append(elsewhere, r)
		} else {
			lost = append(lost, r)
		}
	}
	if len(elsewhere) != len(provenElsewhere) {
		t.Errorf("not tried are %v, which are not one for each of %v", elsewhere, provenElsewhere)
	}
	roles := role("full-a", page) + role("full-b", page.without(elsewhere...))
	instances := instance("full-a") + instance("full-b")
	for i, r := range lost {
		without := []right{r}
		for _, other := range page.rights() {
			if slices.Contains(trials[r.sid+" "+r.action].also, other.sid) {
				without = append(without, other)
			}
		}
		roles += role(lacks(i), page.without(without...))
		instances += instance(lacks(i))
	}
	l := startLab(t, "\nvpcs:\n  - {name: main, cidr: 10.0.0.0/16, subnets: [{name: a, cidr: 10.0.0.0/20}]}\n"+
		"instances:\n"+instances+"roles:\n"+roles)

	l.nodes["full-a"].startWith(noneWarm)
	l.nodes["full-b"].startWith(noneWarm)
	for i, r := range lost {
		keep := trials[r.sid+" "+r.action].keep
		if keep == nil {
			keep = threeWarm
		}
		l.nodes[lacks(i)].startWith(keep)
	}
	for i, r := range lost {
		try, ok := trials[r.sid+" "+r.action]
		if !ok {
			t.Fatalf("nothing is done here that needs %+v", r)
		}
		try.do(l, l.nodes[lacks(i)])
	}
	l.growAndShrink("full-a", "full-b")
	for i, r := range lost {
		kind := r.resource[strings.LastIndex(r.resource, ":")+1:]
		on := " on resource: arn:aws:ec2:eu-west-1:123456789012:" + strings.TrimSuffix(kind, "*")
		if r.resource == "*" {
			on = " because no identity-based policy"
		}
		l.nodes[lacks(i)].logged("UnauthorizedOperation", "assumed-role/"+lacks(i)+"/i-", "not authorized to perform: "+r.action+on)
	}
	l.usedAll(page, elsewhere)
	for _, e := range l.Cloud().Snapshot().Interfaces {
		if owner := e.Tags[ec2.TagInstance]; owner != "" && e.Attachment != nil && e.Attachment.InstanceID != owner {
			t.Errorf("%s is on %s and belongs to %s", e.ID, e.Attachment.InstanceID, owner)
		}
	}
	l.allReach(t)
}

// startWith starts an agent that gives back soon.
func (n *node) startWith(keep []string) {
	n.t.Helper()
	n.startAgent(append([]string{"--cool-down=0s", "--return-after=1s"}, keep...)...)
}

// againWith starts it again. An ENI is detached only once it was listed as attached,
// which takes half a minute at most; a new agent asks at once.
func (n *node) againWith(keep []string) {
	n.t.Helper()
	n.killAgent()
	n.startWith(keep)
	n.readyAgent()
}

// lacks is the name of a node that lacks a right, and of its role.
func lacks(i int) string { return fmt.Sprintf("lacks-%d", i) }

// growAndShrink fills nodes with pods, and has only as many stay as the primary ENI
// has addresses, then one fewer: EC2 gets back the ENIs, then an address.
func (l *lab) growAndShrink(names ...string) {
	l.t.Helper()
	stay := make(map[string][]string)
	for _, name := range names {
		n := l.nodes[name]
		n.readyAgent()
		pods := n.addPods("p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8", "p9")
		l.enisOf(n, 3)
		l.tagged(n)
		var leave []string
		primary := l.ofInstance(n)[0]
		for _, p := range pods {
			if slices.Contains(primary.Secondary, podAddr(p)) {
				stay[name] = append(stay[name], p.Name)
			} else {
				leave = append(leave, p.Name)
			}
		}
		n.againWith(noneWarm)
		n.delPods(leave...)
	}
	for _, name := range names {
		n := l.nodes[name]
		l.enisOf(n, 1)
		n.delPods(stay[name][0])
		eventually(l.t, name+" gives an address back", func() error {
			if e := l.ofInstance(n)[0]; len(e.Secondary) != 2 {
				return fmt.Errorf("it has %v", e.Secondary)
			}
			return nil
		})
	}
}

// usedAll complains of a full node that was refused, and of an action that the first
// of them may call and has not.
func (l *lab) usedAll(page document, elsewhere []right) {
	l.t.Helper()
	called := make(map[string]bool)
	for _, c := range l.Cloud().Calls(time.Time{}) {
		if !strings.HasPrefix(c.Caller, "full-") {
			continue
		}
		if c.Code == "UnauthorizedOperation" {
			l.t.Errorf("%s was refused %s", c.Caller, c.Action)
		}
		called["ec2:"+c.Action] = called["ec2:"+c.Action] || strings.HasPrefix(c.Caller, "full-a/") && c.Code == ""
	}
	for _, r := range page.rights() {
		if !called[r.action] && !slices.Contains(elsewhere, r) {
			l.t.Errorf("full-a has not called %s", r.action)
		}
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
