package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Bounds of a document. A role's inline policies may have 10,240 characters
// that are no blanks ("IAM and AWS STS quotas", IAM User Guide).
const (
	maxText   = 10240
	maxBytes  = 8 * maxText // with blanks
	maxValues = 1000        // of a list
)

// Parse reads a policy. An error says what is wrong and where:
//
//	Statement[1].Condition.StringEqualz: unknown operator ...
func Parse(text []byte) (Document, error) {
	if len(text) > maxBytes || len(text)-blanks(text) > maxText {
		return Document{}, fmt.Errorf("the policy has more than %d characters", maxText)
	}
	if !json.Valid(text) {
		return Document{}, fmt.Errorf("the policy is no JSON: %w", json.Unmarshal(text, new(any)))
	}
	p := &parser{}
	var d Document
	version, found := "", false
	p.object("", text, func(at, name string, value json.RawMessage) {
		switch name {
		case "Version":
			version = p.text(at, value)
		case "Id":
			p.text(at, value)
		case "Statement":
			found = true
			for i, s := range p.listOrOne(at, value) {
				d.statements = append(d.statements, p.statement(fmt.Sprintf("Statement[%d]", i), s))
			}
		default:
			p.failf(at, "unknown element: known are Version, Id, Statement")
		}
	})
	if version != "2012-10-17" {
		p.failf("Version", `want "2012-10-17", the version that has variables`)
	}
	if !found {
		p.failf("Statement", "missing")
	}
	if p.err != nil {
		return Document{}, p.err
	}
	return d, nil
}

func blanks(text []byte) int {
	n := 0
	for _, c := range text {
		if c == ' ' || c == '\n' || c == '\r' || c == '\t' {
			n++
		}
	}
	return n
}

// parser keeps the first thing wrong, so that reading needs no error checks.
type parser struct{ err error }

func (p *parser) failf(at, format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf("%s: "+format, append([]any{at}, args...)...)
	}
}

// object hands each member to read, with its place. A name that is there twice
// is refused: a JSON reader would take the last one, and a person the first.
func (p *parser) object(at string, text json.RawMessage, read func(at, name string, value json.RawMessage)) {
	dec := json.NewDecoder(bytes.NewReader(text))
	if start, err := dec.Token(); err != nil || start != json.Delim('{') {
		p.failf(place(at), "want an object")
		return
	}
	var seen []string
	for dec.More() {
		token, err := dec.Token()
		name, ok := token.(string)
		var value json.RawMessage
		if err == nil && ok {
			err = dec.Decode(&value)
		}
		below := strings.TrimPrefix(at+"."+name, ".")
		switch {
		case err != nil || !ok:
			p.failf(place(at), "want an object: %v", errors.Join(err, io.ErrUnexpectedEOF))
			return
		case slices.Contains(seen, name):
			p.failf(below, "is there twice")
		default:
			seen = append(seen, name)
			read(below, name, value)
		}
	}
	if len(seen) == 0 {
		p.failf(place(at), "is empty")
	}
}

func place(at string) string {
	if at == "" {
		return "policy"
	}
	return at
}

// listOrOne gives the members of a list, or the one value that is no list.
func (p *parser) listOrOne(at string, text json.RawMessage) []json.RawMessage {
	var list []json.RawMessage
	if bytes.HasPrefix(bytes.TrimSpace(text), []byte("[")) {
		if err := json.Unmarshal(text, &list); err != nil {
			p.failf(at, "want a list: %v", err)
		}
		if len(list) == 0 || len(list) > maxValues {
			p.failf(at, "a list of %d, want 1 to %d", len(list), maxValues)
			return nil
		}
		return list
	}
	return []json.RawMessage{text}
}

func (p *parser) text(at string, value json.RawMessage) string {
	var s *string
	if err := json.Unmarshal(value, &s); err != nil || s == nil {
		p.failf(at, "found %s, want text", short(value))
		return ""
	}
	return *s
}

func short(value json.RawMessage) string {
	const most = 40
	if len(value) > most {
		return string(value[:most]) + "..."
	}
	return string(value)
}

func (p *parser) texts(at string, value json.RawMessage) []string {
	var out []string
	for _, v := range p.listOrOne(at, value) {
		out = append(out, p.text(at, v))
	}
	return out
}

func (p *parser) patterns(at string, value json.RawMessage, check func(string) error) []pattern {
	var out []pattern
	for _, text := range p.texts(at, value) {
		if err := check(text); err != nil {
			p.failf(at, "%w", err)
		}
		compiled, err := parsePattern(text, true)
		if err != nil {
			p.failf(at, "%w", err)
		}
		out = append(out, compiled)
	}
	return out
}

func (p *parser) statement(at string, text json.RawMessage) statement {
	s := statement{name: at}
	var effect string
	p.object(at, text, func(at, name string, value json.RawMessage) {
		switch name {
		case "Sid":
			if sid := p.text(at, value); sid != "" {
				s.name = sid
			}
		case "Effect":
			if effect = p.text(at, value); effect != "Allow" && effect != "Deny" {
				p.failf(at, "found %q, want Allow or Deny", effect)
			}
		case "Action", "NotAction":
			if s.actions != nil {
				p.failf(at, "a statement has Action or NotAction, not both")
			}
			s.actions, s.notActions = p.patterns(at, bytes.ToLower(value), checkAction), name == "NotAction"
		case "Resource", "NotResource":
			if s.resources != nil {
				p.failf(at, "a statement has Resource or NotResource, not both")
			}
			s.resources, s.notResource = p.patterns(at, value, checkResource), name == "NotResource"
		case "Condition":
			s.conditions = p.conditions(at, value)
		case "Principal", "NotPrincipal":
			p.failf(at, "a role's own policy has no principal: it is about the role")
		default:
			p.failf(at, "unknown element: known are Sid, Effect, Action, NotAction, Resource, NotResource, Condition")
		}
	})
	for _, need := range []struct {
		name string
		has  bool
	}{{"Effect", effect != ""}, {"Action", s.actions != nil}, {"Resource", s.resources != nil}} {
		if !need.has {
			p.failf(at+"."+need.name, "missing")
		}
	}
	s.deny = effect == "Deny"
	return s
}

func checkAction(text string) error {
	service, action, ok := strings.Cut(text, ":")
	if text == "*" || ok && service != "" && action != "" && !strings.Contains(text, "${") {
		return nil
	}
	return fmt.Errorf("found %q, want * or an action such as ec2:CreateTags", text)
}

func checkResource(text string) error {
	if text == "*" || strings.HasPrefix(text, "arn:") && strings.Count(text, ":") >= 5 {
		return nil
	}
	return fmt.Errorf("found %q, want * or an ARN such as arn:aws:ec2:*:*:network-interface/*", text)
}

func (p *parser) conditions(at string, text json.RawMessage) []condition {
	var out []condition
	p.object(at, text, func(at, name string, keys json.RawMessage) {
		c := condition{}
		plain := name
		if set, rest, ok := strings.Cut(name, ":"); ok {
			c.set, plain = set, rest
		}
		plain, c.lax = strings.CutSuffix(plain, "IfExists")
		op, known := operators[plain]
		switch {
		case !known, c.set != "" && c.set != forAll && c.set != forAny, op.null && (c.lax || c.set != ""):
			p.failf(at, "unknown operator: known are String, Arn, Bool and Null, with ForAllValues:, ForAnyValue: and IfExists")
			return
		}
		c.op = op
		p.object(at, keys, func(at, key string, values json.RawMessage) {
			if !Known(key) {
				p.failf(at, "unknown condition key: known are %s", knownText)
			}
			c.key = strings.ToLower(key)
			p.values(at, &c, values)
			out = append(out, c)
		})
	})
	return out
}

// values reads what a key is compared with. Of Bool and Null it is true or
// false, in quotes or not.
func (p *parser) values(at string, c *condition, text json.RawMessage) {
	c.values = nil
	for _, v := range p.listOrOne(at, text) {
		var truth bool
		if (c.op.boolean || c.op.null) && json.Unmarshal(v, &truth) == nil {
			v = json.RawMessage(fmt.Sprintf("%q", fmt.Sprint(truth)))
		}
		value := p.text(at, v)
		if c.op.boolean || c.op.null {
			if value = strings.ToLower(value); value != "true" && value != "false" {
				p.failf(at, "found %q, want true or false", value)
			}
		}
		compiled, err := parsePattern(value, c.op.wildcards)
		if err != nil {
			p.failf(at, "%w", err)
		}
		c.values = append(c.values, compiled)
		c.want = value == "true"
	}
	if c.op.null && len(c.values) > 1 {
		p.failf(at, "Null has one value")
	}
}
