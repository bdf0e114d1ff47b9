package ec2

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/fairway-cni/fairway/lab/ec2sim"
	"github.com/fairway-cni/fairway/lab/ec2sim/policy"
)

// statement is one of a policy of docs/iam.md, as far as the tests look into it.
type statement map[string]any

// fromPage reads the blocks of docs/iam.md that have the names, as one policy.
func fromPage(t *testing.T, names ...string) []statement {
	t.Helper()
	page, err := os.ReadFile("../../../docs/iam.md")
	if err != nil {
		t.Fatal(err)
	}
	var all []statement
	for _, name := range names {
		_, rest, begins := strings.Cut(string(page), "```json "+name+"\n")
		text, _, ends := strings.Cut(rest, "\n```")
		var d struct{ Statement []statement }
		if err := json.Unmarshal([]byte(text), &d); !begins || !ends || err != nil {
			t.Fatalf("docs/iam.md, policy %q: %v", name, err)
		}
		all = append(all, d.Statement...)
	}
	return all
}

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

// rights splits statements into those of one action on one resource.
func rights(all []statement) []statement {
	var out []statement
	for _, s := range all {
		for _, action := range texts(s["Action"]) {
			for _, resource := range texts(s["Resource"]) {
				one := maps.Clone(s)
				one["Action"], one["Resource"] = action, resource
				out = append(out, one)
			}
		}
	}
	return out
}

// regionWith has instances whose role has the rights, the first of them this one.
func regionWith(t *testing.T, allowed []statement) region {
	t.Helper()
	var bare []statement
	for _, s := range allowed {
		s = maps.Clone(s)
		delete(s, "Sid") // is unique in a policy
		bare = append(bare, s)
	}
	text, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": bare})
	if err != nil {
		t.Fatal(err)
	}
	d, err := policy.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	r := newRegion(t, ec2sim.Config{IAM: true, Roles: map[string][]policy.Document{"node": {d}}}, "10.0.1.0/24")
	r.tags = nil // their keys are not in the policies
	return r
}

// eni makes an ENI behind the client's back.
func (r region) eni(t *testing.T, tags map[string]string) string {
	t.Helper()
	e, err := r.sim.CreateNetworkInterface(ec2sim.CreateNetworkInterfaceInput{SubnetID: r.subnet, Tags: tags,
		Addresses: ec2sim.Addressing{Count: 1}})
	if err != nil {
		t.Fatal(err)
	}
	return e.ID
}

// nodeCalls are all that a node does, with the primary ENI as well.
func (r region) nodeCalls(t *testing.T) []method {
	t.Helper()
	primary := r.sim.Snapshot().Interfaces[0].ID
	second, err := r.sim.AssignPrivateIPAddresses(ec2sim.AssignPrivateIPAddressesInput{ID: primary, Count: 1})
	if err != nil {
		t.Fatal(err)
	}
	return append(r.methods(),
		method{"AssignPrivateIpAddresses", func(c *Client, ctx context.Context) (any, error) { return c.AssignAddresses(ctx, primary, 1) }},
		method{"UnassignPrivateIpAddresses", func(c *Client, ctx context.Context) (any, error) {
			return nil, c.UnassignAddresses(ctx, primary, second.Addresses)
		}},
	)
}

// TestPolicy: with the policies of docs/iam.md every call of a node works, and
// without any one right of them some call is refused for just that.
func TestPolicy(t *testing.T) {
	full := rights(fromPage(t, "policy", "return"))
	try := func(allowed []statement) (refused []error) {
		r := regionWith(t, allowed)
		for _, call := range r.nodeCalls(t) {
			if _, err := call.do(r.c, t.Context()); errors.Is(err, ErrUnauthorized) {
				refused = append(refused, err)
			} else if err != nil {
				t.Errorf("%s: %v", call.action, err)
			}
		}
		return refused
	}
	for _, err := range try(full) {
		t.Errorf("with all rights: %v", err)
	}
	for i, lost := range full {
		refused := try(slices.Delete(slices.Clone(full), i, i+1))
		action := lost["Action"].(string)
		if !slices.ContainsFunc(refused, func(err error) bool {
			return strings.Contains(err.Error(), "not authorized to perform: "+action+" ") && strings.Contains(Advice(err), action+" ")
		}) {
			t.Errorf("without %s of %s on %s nothing is refused for it: %v", action, lost["Sid"], lost["Resource"], refused)
		}
	}
}

// TestPolicyGuards: a node with all the policies of a node cannot touch what is
// another's; whoever sweeps can delete what Fairway has made, and nothing else.
func TestPolicyGuards(t *testing.T) {
	r := regionWith(t, rights(fromPage(t, "policy", "return")))
	run, err := r.sim.RunInstances(ec2sim.RunInstancesInput{Type: "m5.large", SubnetID: r.subnet, InstanceProfile: "node"})
	if err != nil {
		t.Fatal(err)
	}
	other := run.Instances[0].ID
	theirs := r.spec(0, 0)
	theirs.InstanceID = other
	free, used := r.eni(t, theirs.tags()), r.eni(t, theirs.tags())
	attached, err := r.sim.AttachNetworkInterface(ec2sim.AttachNetworkInterfaceInput{InterfaceID: used, InstanceID: other, DeviceIndex: 1})
	if err != nil {
		t.Fatal(err)
	}
	marked := r.spec(0, 0)
	marked.Tags = map[string]string{"team": "net"}
	ctx, addr := t.Context(), []netip.Addr{netip.MustParseAddr("10.0.1.9")}
	for what, do := range map[string]func() error{
		"create in their name": func() error { _, err := r.c.CreateENI(ctx, theirs); return err },
		"attach":               func() error { _, err := r.c.AttachENI(ctx, free, r.instance, 1, 0); return err },
		"attach to them":       func() error { _, err := r.c.AttachENI(ctx, r.eni(t, r.spec(0, 0).tags()), other, 2, 0); return err },
		"assign":               func() error { _, err := r.c.AssignAddresses(ctx, used, 1); return err },
		"unassign":             func() error { return r.c.UnassignAddresses(ctx, used, addr) },
		"mark":                 func() error { return r.c.MarkDeleteOnTermination(ctx, used, attached.ID) },
		"detach":               func() error { return r.c.DetachENI(ctx, attached.ID) },
		"delete":               func() error { return r.c.DeleteENI(ctx, free) },
		"delete somebody's":    func() error { return r.c.DeleteENI(ctx, r.eni(t, nil)) },
		"take over":            func() error { return r.c.TagENI(ctx, free, r.spec(0, 0).tags()) },
		"adopt in their name":  func() error { return r.c.TagENI(ctx, r.eni(t, nil), map[string]string{TagInstance: other}) },
		"give away": func() error {
			return r.c.TagENI(ctx, r.eni(t, r.spec(0, 0).tags()), map[string]string{TagInstance: other})
		},
		"set a tag not ours": func() error {
			return r.c.TagENI(ctx, r.eni(t, nil), map[string]string{TagInstance: r.instance, "team": "net"})
		},
		"call it made here": func() error {
			return r.c.TagENI(ctx, r.eni(t, nil), map[string]string{TagInstance: r.instance, TagOwner: Owner})
		},
		"create with such a tag": func() error { _, err := r.c.CreateENI(ctx, marked); return err },
	} {
		if err := do(); !errors.Is(err, ErrUnauthorized) {
			t.Errorf("%s: %v, want it refused", what, err)
		}
	}

	s := regionWith(t, rights(fromPage(t, "sweep")))
	left := s.spec(0, 0)
	left.InstanceID = "i-0123456789abcdef0"
	if err := s.c.DeleteENI(ctx, s.eni(t, left.tags())); err != nil {
		t.Errorf("sweep: %v", err)
	}
	for what, tags := range map[string]map[string]string{
		"the Amazon VPC CNI's": {TagInstance: "i-0123456789abcdef0", TagCluster: "blue"},
		"somebody's":           nil,
		"another owner's":      {TagInstance: "i-0123456789abcdef0", TagOwner: "none"},
	} {
		if err := s.c.DeleteENI(ctx, s.eni(t, tags)); !errors.Is(err, ErrUnauthorized) {
			t.Errorf("sweep %s: %v, want it refused", what, err)
		}
	}
}
