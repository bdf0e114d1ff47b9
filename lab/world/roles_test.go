package world

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairway-cni/fairway/lab/ec2sim"
)

const withRoles = `
name: roles
vpcs:
  - {name: main, cidr: 10.0.0.0/16, subnets: [{name: a, cidr: 10.0.1.0/24}]}
instances:
  - {name: node, type: t3.small, subnet: a, role: node}
  - {name: none, type: t3.small, subnet: a, role: none}
roles:
`

const inline = `{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "ec2:Describe*", "Resource": "*", "Condition": {"Null": {"ec2:Vpc": true}}}}`

func TestRoles(t *testing.T) {
	file := func(name string) ([]byte, error) {
		if name != "worlds/node.json" {
			return nil, fs.ErrNotExist
		}
		return []byte(inline), nil
	}
	for name, yaml := range map[string]string{
		"in YAML":   `  - {name: node, policy: ` + inline + `}`,
		"as text":   "  - name: node\n    policy: |\n      " + inline,
		"in a file": `  - {name: node, policy: node.json}`,
	} {
		t.Run(name, func(t *testing.T) {
			w, err := Parse("worlds/world.yaml", []byte(withRoles+yaml))
			if err == nil {
				err = w.ReadPolicies(file)
			}
			if err != nil {
				t.Fatal(err)
			}
			cfg := w.cloud()
			cfg.Devices = false
			if !cfg.IAM || len(cfg.Roles["node"]) != 1 {
				t.Fatalf("EC2 is made with %+v", cfg)
			}
			c := ec2sim.New(cfg)
			if err := build(c, w); err != nil {
				t.Fatal(err)
			}
			node, none := c.Snapshot().Instances[0], c.Snapshot().Instances[1]
			if got := credentials(c, node.ID); got == nil || got.Role != "node" || !strings.HasPrefix(got.AccessKeyID, "ASIA") {
				t.Errorf("credentials of the instance with a role: %+v", got)
			}
			if got := credentials(c, none.ID); got != nil {
				t.Errorf("the instance without a role has credentials: %+v", got)
			}
		})
	}
}

// Who names no role has the agent's; whoever names none has no credentials.
// Whether rights are asked for makes no difference to that.
func TestAgentRole(t *testing.T) {
	for _, ec2 := range []string{"", "ec2: {iam: false}\n"} {
		w, err := Parse("world.yaml", []byte("name: roles\n"+ec2+"vpcs:\n  - {name: main, cidr: 10.0.0.0/16, subnets: [{name: a, cidr: 10.0.1.0/24}]}\n"+
			"instances:\n  - {name: node, type: t3.small, subnet: a}\n  - {name: bare, type: t3.small, subnet: a, role: none}\n"))
		if err != nil {
			t.Fatal(err)
		}
		cfg := w.cloud()
		if cfg.Devices = false; cfg.IAM != (ec2 == "") || len(cfg.Roles[AgentRole]) != len(agentPolicies()) {
			t.Errorf("%q: EC2 is made with %+v", ec2, cfg)
		}
		c := ec2sim.New(cfg)
		if err := build(c, w); err != nil {
			t.Fatal(err)
		}
		node, bare := c.Snapshot().Instances[0], c.Snapshot().Instances[1]
		if got := credentials(c, node.ID); got == nil || got.Role != AgentRole {
			t.Errorf("%q: credentials %+v", ec2, got)
		}
		if got := credentials(c, bare.ID); got != nil {
			t.Errorf("%q: the instance without a role has credentials: %+v", ec2, got)
		}
	}
}

// What the lab's nodes may do is what docs/iam.md says, word by word.
func TestAgentPolicies(t *testing.T) {
	page, err := os.ReadFile("../../docs/iam.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, embedded := range map[string][]byte{"policy": agentPolicy, "return": agentReturn, "sweep": agentSweep, "routes": agentRoutes} {
		_, rest, begins := strings.Cut(string(page), "```json "+name+"\n")
		text, _, ends := strings.Cut(rest, "```")
		if !begins || !ends {
			t.Fatalf("docs/iam.md has no policy %q", name)
		}
		if *update {
			if err := os.WriteFile("policies/"+name+".json", []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if diff := cmp.Diff(text, string(embedded)); diff != "" {
			t.Errorf("policies/%s.json is not what docs/iam.md has: after a change there, `go test ./lab/world -run TestAgentPolicies -update` (-page +lab):\n%s", name, diff)
		}
	}
}

func TestRolesRefused(t *testing.T) {
	tests := []struct{ roles, says string }{
		{`  - {name: nod, policy: ` + inline + `}`, `world.yaml:6: instance "node": there is no role "node" (did you mean "nod"?)`},
		{`  - {name: node}`, `world.yaml:9: role "node" has no policy`},
		{`  - {name: node, policy: {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "ec2:*"}}}`,
			`world.yaml:9: role "node": Statement[0].Resource: missing`},
		{`  - {name: node, policy: {"Version": 2012-10-17, "Statement": {"Effect": "Allow", "Effect": "Deny", "Action": "ec2:*", "Resource": "*"}}}`,
			`Statement[0].Effect: is there twice`},
		{"  - {name: node, policy: p.json}\n  - {name: fairway-agent, policy: p.json}", `role "fairway-agent": the lab has a meaning for this name`},
		{"  - {name: node, policy: p.json}\n  - {name: node, policy: p.json}", `role "node" is there twice`},
		{`  - {name: node, policy: [x]}`, "policy: found a list, want text"},
	}
	for _, tt := range tests {
		if _, err := Parse("world.yaml", []byte(withRoles+tt.roles)); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s\nerror %v\nwant  %s", tt.roles, err, tt.says)
		}
	}
	w, err := Parse("world.yaml", []byte(withRoles+`  - {name: node, policy: p.json}`))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.ReadPolicies(func(string) ([]byte, error) { return nil, fs.ErrNotExist }); err == nil ||
		!strings.Contains(err.Error(), `world.yaml:9: role "node": read policy`) {
		t.Errorf("a file that is not there: %v", err)
	}
	if err := w.ReadPolicies(func(string) ([]byte, error) { return []byte("{}"), nil }); !errors.As(err, new(*Error)) {
		t.Errorf("a file that is no policy: %v", err)
	}
}
