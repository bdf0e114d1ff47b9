package policy

import (
	"slices"
	"strings"
)

// condition is one key of one operator of a Condition element.
type condition struct {
	op     operator
	set    string // "", forAll or forAny: how the key's values are counted
	lax    bool   // ...IfExists: holds where the key is absent
	key    string // in lower case
	values []pattern
	want   bool // of Null: whether the key must be absent
}

const (
	forAll = "ForAllValues"
	forAny = "ForAnyValue"
)

// operator is how a value of the request is compared with one of the policy.
type operator struct {
	wildcards bool // in the policy's values
	fold      bool // case does not count
	not       bool // the comparison must fail with all of the policy's values
	arn       bool
	null      bool
	boolean   bool
}

// operators are those that are known. The others of IAM compare numbers, dates,
// addresses and binary values, of which EC2's network calls have none.
var operators = map[string]operator{
	"StringEquals":              {},
	"StringNotEquals":           {not: true},
	"StringEqualsIgnoreCase":    {fold: true},
	"StringNotEqualsIgnoreCase": {fold: true, not: true},
	"StringLike":                {wildcards: true},
	"StringNotLike":             {wildcards: true, not: true},
	"ArnEquals":                 {wildcards: true, arn: true}, // the same as ArnLike
	"ArnLike":                   {wildcards: true, arn: true},
	"ArnNotEquals":              {wildcards: true, arn: true, not: true},
	"ArnNotLike":                {wildcards: true, arn: true, not: true},
	"Bool":                      {fold: true, boolean: true},
	"Null":                      {null: true},
}

// Condition keys that have no further name behind them, and those that have.
// Source: "Actions, resources, and condition keys for Amazon EC2", Service
// Authorization Reference, and "AWS global condition context keys", IAM User
// Guide.
var (
	knownKeys = []string{
		"aws:TagKeys", "aws:RequestedRegion", "aws:PrincipalArn", "aws:PrincipalAccount", "aws:userid", "aws:SecureTransport",
		"ec2:CreateAction", "ec2:Region", "ec2:Vpc", "ec2:Subnet", "ec2:AvailabilityZone", "ec2:SourceInstanceARN",
		"ec2:InstanceID", "ec2:InstanceType", "ec2:NetworkInterfaceID", "ec2:SubnetID", "ec2:SecurityGroupID", "ec2:VpcID",
	}
	knownTags = []string{"aws:RequestTag/", "aws:ResourceTag/", "ec2:ResourceTag/"}
	knownText = strings.Join(knownKeys, ", ") + ", and " + strings.Join(knownTags, "KEY, ") + "KEY"
)

// Known says whether the lab's EC2 has a condition key: in a policy that names
// another one, a typing error would look like a missing right.
func Known(key string) bool {
	if slices.ContainsFunc(knownKeys, func(k string) bool { return strings.EqualFold(k, key) }) {
		return true
	}
	return slices.ContainsFunc(knownTags, func(p string) bool {
		return len(key) > len(p) && strings.EqualFold(key[:len(p)], p)
	})
}

// holds compares. An absent key fails every operator but those that negate,
// which it passes, ForAllValues, of which there is no value that could fail, and
// ...IfExists. Source: "IAM JSON policy elements: Condition operators".
func (c condition) holds(keys Keys) bool {
	has, present := keys[c.key]
	switch {
	case c.op.null:
		return c.want == !present
	case !present && c.lax, c.set == forAll && len(has) == 0:
		return true
	case c.set == forAny && len(has) == 0:
		return false
	case !present:
		return c.op.not
	case c.set == forAll:
		return !slices.ContainsFunc(has, func(v string) bool { return !c.accepts(v, keys) })
	}
	return slices.ContainsFunc(has, func(v string) bool { return c.accepts(v, keys) })
}

// accepts compares one value of the request with all of the policy.
func (c condition) accepts(value string, keys Keys) bool {
	for _, p := range c.values {
		glyphs, ok := p.expand(keys)
		if !ok {
			if c.op.not {
				return false // nothing is known to differ from what is not there
			}
			continue
		}
		if c.op.equal(glyphs, value) {
			return !c.op.not
		}
	}
	return c.op.not
}

func (o operator) equal(p []glyph, value string) bool {
	if o.fold {
		value = strings.ToLower(value)
		for i := range p {
			if c := p[i].char; 'A' <= c && c <= 'Z' {
				p[i].char += 'a' - 'A'
			}
		}
	}
	if o.arn {
		return matchesARN(p, value)
	}
	return matches(p, value)
}
