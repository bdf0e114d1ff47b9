package world

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/fairway-cni/fairway/lab/ec2sim"
	"github.com/fairway-cni/fairway/lab/ec2sim/policy"
	"github.com/fairway-cni/fairway/lab/imds"
)

// maxRoles is how many roles a world may have.
const maxRoles = 100

// AgentRole is the role of the instances that name none. Every world has it, and
// it may do exactly what docs/iam.md gives the agent as it runs without flags:
// what a node lacks there, it lacks in the lab.
const AgentRole = "fairway-agent"

// NoRole, in the place of a role's name, is to have none.
const NoRole = "none"

// The policies of [AgentRole] are the blocks of these names in docs/iam.md. A test
// keeps them equal, and writes them anew with its flag -update.
var (
	//go:embed policies/policy.json
	agentPolicy []byte
	//go:embed policies/return.json
	agentReturn []byte
	//go:embed policies/sweep.json
	agentSweep []byte
	//go:embed policies/routes.json
	agentRoutes []byte
)

// agentPolicies are those of [AgentRole].
func agentPolicies() []policy.Document {
	var out []policy.Document
	for _, text := range [][]byte{agentPolicy, agentReturn, agentSweep, agentRoutes} {
		d, err := policy.Parse(text)
		if err != nil {
			panic("world: an embedded policy is wrong: " + err.Error())
		}
		out = append(out, d)
	}
	return out
}

// Role is an IAM role that instances can have, with an instance profile of the
// same name. Its policy says what they may do, but where [EC2].NoIAM is set.
type Role struct {
	Pos  Pos
	Name string
	// Policy is an IAM policy in JSON. If it is empty, it is in File, relative
	// to the world file: see [World.ReadPolicies].
	Policy string
	File   string

	keys keyLines
}

func (p *parser) role(n *yaml.Node) Role {
	r := Role{Pos: p.pos(n)}
	r.keys = p.mapping(n, "role", []field{
		{"name", p.text("name", &r.Name)},
		{"policy", func(n *yaml.Node) bool {
			switch {
			case n.Kind == yaml.MappingNode:
				var text strings.Builder
				writeJSON(&text, n)
				r.Policy = text.String()
				return true
			case strings.HasPrefix(strings.TrimSpace(n.Value), "{"):
				return p.text("policy", &r.Policy)(n)
			}
			return p.text("policy", &r.File)(n)
		}},
	})
	if r.keys == nil {
		r.keys = keyLines{}.allBad("name", "policy")
	}
	return r
}

// writeJSON turns a policy that stands in the world file itself into the text
// that it is: all of JSON is YAML. Nothing is lost, also not what is there
// twice, so that the policy is refused for what is wrong with it.
func writeJSON(text *strings.Builder, n *yaml.Node) {
	members := func(from, to string, each func(i int)) {
		text.WriteString(from)
		for i := range n.Content {
			each(i)
		}
		text.WriteString(to)
	}
	switch {
	case n.Kind == yaml.MappingNode:
		members("{", "}", func(i int) {
			if i%2 == 1 {
				text.WriteString(":")
			} else if i > 0 {
				text.WriteString(",")
			}
			writeJSON(text, n.Content[i])
		})
	case n.Kind == yaml.SequenceNode:
		members("[", "]", func(i int) {
			if i > 0 {
				text.WriteString(",")
			}
			writeJSON(text, n.Content[i])
		})
	case n.Tag == "!!bool" || n.Tag == "!!null":
		text.WriteString(map[string]string{"!!bool": strings.ToLower(n.Value), "!!null": "null"}[n.Tag])
	default:
		quoted, err := json.Marshal(n.Value)
		if err != nil {
			panic(fmt.Sprintf("world: encode text: %v", err)) // a string always encodes
		}
		text.Write(quoted)
	}
}

// ReadPolicies fills in the policies that are in files of their own. read is
// given their names, relative to the directory of the world file unless they are
// absolute. The error is like Parse's.
func (w *World) ReadPolicies(read func(name string) ([]byte, error)) error {
	c := &checker{}
	for i := range w.Roles {
		r := &w.Roles[i]
		if r.File == "" {
			continue
		}
		name := r.File
		if !filepath.IsAbs(name) {
			name = filepath.Join(filepath.Dir(w.Pos.File), name)
		}
		text, err := read(name)
		if err != nil {
			c.failf(r.keys.at(r.Pos, "policy"), "role %s: read policy: %v", quoted(r.Name), err)
			continue
		}
		r.Policy = string(text)
		c.policy(*r)
	}
	return joined(c.problems)
}

// roles checks the roles, and those of the instances.
func (c *checker) roles(w *World) {
	names := map[string]Pos{}
	known := []string{AgentRole}
	for _, r := range w.Roles {
		c.name(r.Pos, r.keys, "role", r.Name, names)
		known = append(known, r.Name)
		if r.Name == AgentRole || r.Name == NoRole {
			c.failf(r.keys.at(r.Pos, "name"), "role %s: the lab has a meaning for this name: choose another", quoted(r.Name))
		}
		switch {
		case r.keys["policy"].bad:
		case r.Policy != "":
			c.policy(r)
		case r.File == "":
			c.failf(r.Pos, "role %s has no policy: add one, as the name of a file or as JSON", quoted(r.Name))
		}
	}
	for _, in := range w.Instances {
		if in.Role == "" || in.Role == AgentRole || in.Role == NoRole || in.keys["role"].bad {
			continue
		}
		if _, ok := names[in.Role]; !ok {
			c.failf(in.keys.at(in.Pos, "role"), "instance %s: there is no role %s%s: %s",
				quoted(in.Name), quoted(in.Role), suggest(in.Role, known), listed("roles are", known))
		}
	}
}

func (c *checker) policy(r Role) {
	if _, err := policy.Parse([]byte(r.Policy)); err != nil {
		c.failf(r.keys.at(r.Pos, "policy"), "role %s: %v", quoted(r.Name), err)
	}
}

// policies are those of all roles. One that cannot be read gives no right; that
// is told by Validate and ReadPolicies.
func (w *World) policies() map[string][]policy.Document {
	roles := map[string][]policy.Document{AgentRole: agentPolicies()}
	for _, r := range w.Roles {
		roles[r.Name] = []policy.Document{}
		if d, err := policy.Parse([]byte(r.Policy)); err == nil {
			roles[r.Name] = append(roles[r.Name], d)
		}
	}
	return roles
}

// profile is the instance profile of an instance, empty for one without a role.
func (in Instance) profile() string {
	switch in.Role {
	case "":
		return AgentRole
	case NoRole:
		return ""
	}
	return in.Role
}

// credentials are what the metadata service says of an instance's role, or nil.
func credentials(c *ec2sim.Cloud, id string) *imds.Credentials {
	given, ok := c.Credentials(id)
	if !ok {
		return nil
	}
	return &imds.Credentials{
		Role: given.Role, AccessKeyID: given.AccessKeyID, SecretAccessKey: given.SecretAccessKey, Token: given.Token,
		LastUpdated: given.LastUpdated, Expiration: given.Expiration,
	}
}
