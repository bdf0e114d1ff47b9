package world

import (
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/fairway-cni/fairway/lab/ec2sim"
)

// ec2 reads how EC2 behaves.
func (p *parser) ec2(n *yaml.Node) EC2 {
	e, iam := EC2{Pos: p.pos(n)}, true
	e.keys = p.mapping(n, "ec2", []field{
		{"throttle", p.flag("throttle", &e.Throttle)},
		{"lag", p.duration("lag", &e.Lag)},
		{"attach", p.duration("attach", &e.Attach)},
		{"imdsLag", p.duration("imdsLag", &e.IMDSLag)},
		{"delay", p.duration("delay", &e.Delay)},
		{"delays", p.delays(&e.Delays)},
		{"iam", p.flag("iam", &iam)},
		{"seed", p.number("seed", &e.Seed)},
		{"quotas", func(n *yaml.Node) bool { e.Quotas = p.quotas(n); return true }},
	})
	e.NoIAM = !iam
	return e
}

// quotas reads the quotas; one that is not given is AWS's default.
func (p *parser) quotas(n *yaml.Node) *ec2sim.Quotas {
	q := ec2sim.DefaultQuotas()
	var fields []field
	for _, one := range q.All() {
		fields = append(fields, field{one.Name, func(n *yaml.Node) bool {
			if !p.number(one.Name, one.Limit)(n) {
				return false
			}
			if *one.Limit < 1 {
				p.failf(n.Line, "quota %s: found %d, want 1 or more", one.Name, *one.Limit)
			}
			return true
		}})
	}
	p.mapping(n, "quotas", fields)
	return &q
}

// delays reads a delay for each of some actions.
func (p *parser) delays(into *map[string]time.Duration) func(*yaml.Node) bool {
	return func(n *yaml.Node) bool {
		if n.Kind != yaml.MappingNode || len(n.Content) > 2*maxWords {
			p.failf(n.Line, "delays: found %s, want a mapping of at most %d actions to times, such as {AttachNetworkInterface: 1s}", kind(n), maxWords)
			return false
		}
		ok := true
		*into = map[string]time.Duration{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			action := n.Content[i].Value
			var d time.Duration
			switch _, twice := (*into)[action]; {
			case twice:
				p.failf(n.Content[i].Line, "delays: action %s is there twice", quoted(action))
				ok = false
			case !ec2sim.KnownAction(action):
				p.failf(n.Content[i].Line, "delays: unknown action %s%s: want one of the lab's EC2", quoted(action), suggest(action, ec2sim.Actions()))
				ok = false
			case !p.duration("delay of "+action, &d)(n.Content[i+1]):
				ok = false
			default:
				(*into)[action] = d
			}
		}
		return ok
	}
}

// maxDuration bounds what a world may have to wait for: the lab is to be ready
// within two minutes.
const maxDuration = 10 * time.Minute

// duration reads a time such as 250ms or 2s.
func (p *parser) duration(what string, into *time.Duration) func(*yaml.Node) bool {
	return func(n *yaml.Node) bool {
		d, err := time.ParseDuration(strings.TrimSpace(n.Value))
		switch {
		case n.Kind != yaml.ScalarNode || err != nil:
			p.failf(n.Line, "%s: found %s, want a time such as 250ms or 2s", what, kind(n))
		case d < 0 || d > maxDuration:
			p.failf(n.Line, "%s: found %s, want 0s to %s", what, d, maxDuration)
		default:
			*into = d
			return true
		}
		return false
	}
}
