package policy

import (
	"fmt"
	"strings"
	"testing"
)

// one makes a document of one statement that allows.
func one(elements string) string {
	return `{"Version":"2012-10-17","Statement":[{"Effect":"Allow",` + elements + `}]}`
}

func parsed(t *testing.T, texts ...string) []Document {
	t.Helper()
	var out []Document
	for _, text := range texts {
		d, err := Parse([]byte(text))
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		out = append(out, d)
	}
	return out
}

const eni = "arn:aws:ec2:eu-west-1:123456789012:network-interface/eni-1"

// Source of what is expected: "Policy evaluation logic", "IAM JSON policy
// elements: Condition operators" and "Multivalued context keys".
func TestDecide(t *testing.T) {
	const all = `"Action":"ec2:*","Resource":"*"`
	cond := func(text string) string { return one(all + `,"Condition":{` + text + `}`) }
	tests := []struct {
		name   string
		policy string
		keys   Keys
		want   bool
	}{
		{"action", one(`"Action":"ec2:AttachNetworkInterface","Resource":"*"`), nil, true},
		{"action in another case", one(`"Action":"EC2:attachnetworkinterface","Resource":"*"`), nil, true},
		{"action by wildcard", one(`"Action":["ec2:Describe*","ec2:A?tach*"],"Resource":"*"`), nil, true},
		{"other action", one(`"Action":"ec2:Describe*","Resource":"*"`), nil, false},
		{"not action", one(`"NotAction":"ec2:Describe*","Resource":"*"`), nil, true},
		{"not this action", one(`"NotAction":["ec2:Attach*"],"Resource":"*"`), nil, false},
		{"resource", one(`"Action":"*","Resource":"` + eni + `"`), nil, true},
		{"resource by wildcard", one(`"Action":"*","Resource":["arn:aws:ec2:*:*:subnet/*","arn:aws:ec2:*:*:network-interface/*"]`), nil, true},
		{"resource of another kind", one(`"Action":"*","Resource":"arn:aws:ec2:*:*:instance/*"`), nil, false},
		{"resource in another case", one(`"Action":"*","Resource":"arn:aws:ec2:*:*:Network-Interface/*"`), nil, false},
		{"not resource", one(`"Action":"*","NotResource":"arn:aws:ec2:*:*:instance/*"`), nil, true},
		{"not this resource", one(`"Action":"*","NotResource":"` + eni + `"`), nil, false},
		{"resource with a variable", one(`"Action":"*","Resource":"arn:aws:ec2:*:*:network-interface/${ec2:NetworkInterfaceID}"`),
			Keys{"ec2:networkinterfaceid": {"eni-1"}}, true},
		{"variable without a value", one(`"Action":"*","Resource":"arn:aws:ec2:*:*:network-interface/${ec2:NetworkInterfaceID}"`), nil, false},

		{"equals", cond(`"StringEquals":{"aws:ResourceTag/team":["a","net"]}`), Keys{"aws:resourcetag/team": {"net"}}, true},
		{"case counts", cond(`"StringEquals":{"aws:ResourceTag/team":"net"}`), Keys{"aws:resourcetag/team": {"Net"}}, false},
		{"case of the key does not", cond(`"StringEquals":{"aws:ResourceTag/Team":"net"}`), Keys{"aws:resourcetag/team": {"net"}}, true},
		{"ignore case", cond(`"StringEqualsIgnoreCase":{"aws:ResourceTag/team":"NET"}`), Keys{"aws:resourcetag/team": {"Net"}}, true},
		{"no wildcard in equals", cond(`"StringEquals":{"aws:ResourceTag/team":"n*"}`), Keys{"aws:resourcetag/team": {"net"}}, false},
		{"equals an absent key", cond(`"StringEquals":{"aws:ResourceTag/team":"net"}`), nil, false},
		{"equals an absent key, if it exists", cond(`"StringEqualsIfExists":{"aws:ResourceTag/team":"net"}`), nil, true},
		{"like", cond(`"StringLike":{"aws:ResourceTag/team":"n?t*"}`), Keys{"aws:resourcetag/team": {"network"}}, true},
		{"like an escaped star", cond(`"StringLike":{"aws:ResourceTag/team":"${*}"}`), Keys{"aws:resourcetag/team": {"network"}}, false},
		{"not equals", cond(`"StringNotEquals":{"aws:ResourceTag/team":["a","b"]}`), Keys{"aws:resourcetag/team": {"c"}}, true},
		{"not equals one of them", cond(`"StringNotEquals":{"aws:ResourceTag/team":["a","b"]}`), Keys{"aws:resourcetag/team": {"b"}}, false},
		{"not equals an absent key", cond(`"StringNotEquals":{"aws:ResourceTag/team":"a"}`), nil, true},
		{"all operators", cond(`"StringLike":{"ec2:Region":"eu-*"},"StringEquals":{"aws:ResourceTag/team":"net"}`),
			Keys{"ec2:region": {"eu-west-1"}}, false},
		{"all keys", cond(`"StringEquals":{"ec2:Region":"eu-west-1","aws:RequestedRegion":"us-east-1"}`),
			Keys{"ec2:region": {"eu-west-1"}, "aws:requestedregion": {"eu-west-1"}}, false},

		{"arn", cond(`"ArnEquals":{"ec2:Vpc":"arn:aws:ec2:*:*:vpc/vpc-1"}`), Keys{"ec2:vpc": {"arn:aws:ec2:eu-west-1:1:vpc/vpc-1"}}, true},
		{"a wildcard stays in its part", cond(`"ArnLike":{"ec2:Vpc":"arn:aws:ec2:*:vpc/vpc-1"}`), Keys{"ec2:vpc": {"arn:aws:ec2:eu-west-1:1:vpc/vpc-1"}}, false},
		{"not this arn", cond(`"ArnNotEquals":{"ec2:Vpc":"arn:aws:ec2:*:*:vpc/vpc-1"}`), Keys{"ec2:vpc": {"arn:aws:ec2:eu-west-1:1:vpc/vpc-1"}}, false},
		{"no arn", cond(`"ArnLike":{"ec2:Vpc":"arn:aws:ec2:*:*:vpc/*"}`), Keys{"ec2:vpc": {"vpc-1"}}, false},
		{"arn with a tag in it", cond(`"ArnEquals":{"ec2:SourceInstanceARN":"arn:aws:ec2:*:*:instance/${aws:ResourceTag/a/b}"}`),
			Keys{"ec2:sourceinstancearn": {"arn:aws:ec2:eu-west-1:1:instance/i-1"}, "aws:resourcetag/a/b": {"i-1"}}, true},
		{"a star in a tag is a star", cond(`"ArnEquals":{"ec2:SourceInstanceARN":"arn:aws:ec2:*:*:instance/${aws:ResourceTag/a/b}"}`),
			Keys{"ec2:sourceinstancearn": {"arn:aws:ec2:eu-west-1:1:instance/i-1"}, "aws:resourcetag/a/b": {"*"}}, false},
		{"a tag that is not there", cond(`"ArnEquals":{"ec2:SourceInstanceARN":"arn:aws:ec2:*:*:instance/${aws:ResourceTag/a/b}"}`),
			Keys{"ec2:sourceinstancearn": {"arn:aws:ec2:eu-west-1:1:instance/"}}, false},
		{"differs from a tag that is not there", cond(`"StringNotEquals":{"ec2:Region":"${aws:ResourceTag/a}"}`), Keys{"ec2:region": {"eu-west-1"}}, false},
		{"a default", cond(`"StringEquals":{"ec2:Region":"${aws:ResourceTag/a, 'eu-west-1'}"}`), Keys{"ec2:region": {"eu-west-1"}}, true},

		{"bool", cond(`"Bool":{"aws:SecureTransport":false}`), Keys{"aws:securetransport": {"false"}}, true},
		{"bool in quotes", cond(`"Bool":{"aws:SecureTransport":"TRUE"}`), Keys{"aws:securetransport": {"false"}}, false},
		{"null, absent", cond(`"Null":{"aws:RequestTag/a":true}`), nil, true},
		{"null, there", cond(`"Null":{"aws:RequestTag/a":"true"}`), Keys{"aws:requesttag/a": {"x"}}, false},
		{"not null, there", cond(`"Null":{"aws:RequestTag/a":"false"}`), Keys{"aws:requesttag/a": {"x"}}, true},
		{"not null, absent", cond(`"Null":{"aws:RequestTag/a":"false"}`), nil, false},

		{"all values", cond(`"ForAllValues:StringEquals":{"aws:TagKeys":["a","b"]}`), Keys{"aws:tagkeys": {"a", "b"}}, true},
		{"all but one", cond(`"ForAllValues:StringEquals":{"aws:TagKeys":["a","b"]}`), Keys{"aws:tagkeys": {"a", "c"}}, false},
		{"all of none", cond(`"ForAllValues:StringEquals":{"aws:TagKeys":["a","b"]}`), nil, true},
		{"any value", cond(`"ForAnyValue:StringLike":{"aws:TagKeys":["a*"]}`), Keys{"aws:tagkeys": {"x", "ab"}}, true},
		{"none of the values", cond(`"ForAnyValue:StringEquals":{"aws:TagKeys":["a"]}`), Keys{"aws:tagkeys": {"x", "y"}}, false},
		{"any of none", cond(`"ForAnyValue:StringEquals":{"aws:TagKeys":["a"]}`), nil, false},
		{"all not", cond(`"ForAllValues:StringNotEquals":{"aws:TagKeys":["a"]}`), Keys{"aws:tagkeys": {"x", "a"}}, false},
		{"any not", cond(`"ForAnyValue:StringNotEquals":{"aws:TagKeys":["a"]}`), Keys{"aws:tagkeys": {"x", "a"}}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := Decide(parsed(t, tt.policy), Request{"ec2:AttachNetworkInterface", eni, tt.keys})
			if got.Allowed != tt.want {
				t.Errorf("%s\nallowed %v by %q, want %v", tt.policy, got.Allowed, got.By, tt.want)
			}
		})
	}
}

func TestDenyCountsMore(t *testing.T) {
	allow := one(`"Sid":"Everything","Action":"*","Resource":"*"`)
	deny := `{"Version":"2012-10-17","Statement":{"Effect":"Deny","Action":"ec2:Delete*","Resource":"*","Condition":{"StringEquals":{"aws:ResourceTag/keep":"yes"}}}}`
	tests := []struct {
		policies []string
		keys     Keys
		want     Decision
	}{
		{nil, nil, Decision{}},
		{[]string{deny}, nil, Decision{}},
		{[]string{allow}, nil, Decision{true, "Everything"}},
		{[]string{allow, deny}, nil, Decision{true, "Everything"}},
		{[]string{allow, deny}, Keys{"aws:resourcetag/keep": {"yes"}}, Decision{false, "Statement[0]"}},
		{[]string{deny, allow}, Keys{"aws:resourcetag/keep": {"yes"}}, Decision{false, "Statement[0]"}},
	}
	for _, tt := range tests {
		if got := Decide(parsed(t, tt.policies...), Request{"ec2:DeleteNetworkInterface", eni, tt.keys}); got != tt.want {
			t.Errorf("%v with %v: %+v, want %+v", tt.policies, tt.keys, got, tt.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	const rest = `"Action":"*","Resource":"*"`
	tests := []struct{ policy, says string }{
		{``, "no JSON"},
		{`[]`, "policy: want an object"},
		{`{}`, "policy: is empty"},
		{`{"Version":"2008-10-17","Statement":[]}`, "Statement: a list of 0"},
		{`{"Version":"2008-10-17","Statement":{"Effect":"Allow",` + rest + `}}`, `Version: want "2012-10-17"`},
		{`{"Version":"2012-10-17"}`, "Statement: missing"},
		{`{"Version":"2012-10-17","Statements":[]}`, "Statements: unknown element"},
		{`{"Version":"2012-10-17","Version":"2012-10-17","Statement":{"Effect":"Allow",` + rest + `}}`, "Version: is there twice"},
		{`{"Version":"2012-10-17","Statement":["x"]}`, "Statement[0]: want an object"},
		{`{"Version":"2012-10-17","Statement":[{"Effect":"Allow",` + rest + `},{"Effect":"allow",` + rest + `}]}`, `Statement[1].Effect: found "allow", want Allow or Deny`},
		{one(`"Resource":"*"`), "Statement[0].Action: missing"},
		{one(`"Action":"*"`), "Statement[0].Resource: missing"},
		{`{"Version":"2012-10-17","Statement":{` + rest + `}}`, "Statement[0].Effect: missing"},
		{one(`"Action":"*","NotAction":"*","Resource":"*"`), "Statement[0].NotAction: a statement has Action or NotAction"},
		{one(rest + `,"Principal":"*"`), "Statement[0].Principal: a role's own policy"},
		{one(rest + `,"Conditions":{}`), "Statement[0].Conditions: unknown element"},
		{one(`"Action":"CreateTags","Resource":"*"`), "Statement[0].Action: found"},
		{one(`"Action":"*","Resource":"eni-1"`), `Statement[0].Resource: found "eni-1", want * or an ARN`},
		{one(`"Action":"*","Resource":7`), "Statement[0].Resource: found 7, want text"},
		{one(`"Action":"*","Resource":[]`), "Statement[0].Resource: a list of 0"},
		{one(`"Action":"*","Resource":"arn:aws:ec2:*:*:instance/${aws:nothing}"`), "variable ${aws:nothing}: unknown condition key"},
		{one(`"Action":"*","Resource":"arn:aws:ec2:*:*:instance/${ec2:Vpc"`), "no closing brace"},
		{one(`"Action":"*","Resource":"arn:aws:ec2:*:*:instance/${ec2:Vpc, x}"`), "single quotes"},
		{one(rest + `,"Condition":{"StringEqualz":{"ec2:Vpc":"x"}}`), "Statement[0].Condition.StringEqualz: unknown operator"},
		{one(rest + `,"Condition":{"DateLessThan":{"aws:CurrentTime":"x"}}`), "Statement[0].Condition.DateLessThan: unknown operator"},
		{one(rest + `,"Condition":{"ForSome:StringEquals":{"ec2:Vpc":"x"}}`), "unknown operator"},
		{one(rest + `,"Condition":{"NullIfExists":{"ec2:Vpc":"true"}}`), "unknown operator"},
		{one(rest + `,"Condition":{"StringEquals":{"aws:ResourceTags/x":"x"}}`), "Statement[0].Condition.StringEquals.aws:ResourceTags/x: unknown condition key"},
		{one(rest + `,"Condition":{"StringEquals":{"aws:ResourceTag/":"x"}}`), "unknown condition key"},
		{one(rest + `,"Condition":{"Null":{"ec2:Vpc":"yes"}}`), `found "yes", want true or false`},
		{one(rest + `,"Condition":{"Null":{"ec2:Vpc":["true","false"]}}`), "Null has one value"},
		{one(rest + `,"Condition":{}`), "Statement[0].Condition: is empty"},
		{one(`"Sid":"` + strings.Repeat("x", maxText) + `",` + rest), fmt.Sprintf("more than %d characters", maxText)},
	}
	for _, tt := range tests {
		if _, err := Parse([]byte(tt.policy)); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%.200s\nerror %v\nwant  %s", tt.policy, err, tt.says)
		}
	}
}

// FuzzPolicy holds that no text makes the parser or a decision panic, and that
// what is decided without a statement that fits is no.
func FuzzPolicy(f *testing.F) {
	f.Add(one(`"Action":"ec2:*","Resource":"*","Condition":{"ForAnyValue:StringLike":{"aws:TagKeys":["a*","${ec2:Vpc, 'x'}"]}}`), "ec2:CreateTags", eni, "a")
	f.Add(one(`"NotAction":"ec2:D*e?","NotResource":"arn:aws:ec2:*:*:x/${*}","Condition":{"ArnLike":{"ec2:Vpc":"arn:*:*:*:*:*"},"Null":{"ec2:Subnet":true}}`), "ec2:x", "*", "arn:a:b:c:d:e:f")
	f.Add(`{"Version":"2012-10-17","Statement":[{}]}`, "", "", "")
	f.Fuzz(func(t *testing.T, text, action, resource, value string) {
		d, err := Parse([]byte(text))
		if err != nil {
			return
		}
		keys := Keys{}
		for _, k := range knownKeys {
			keys.Set(k, value)
		}
		keys.Set("aws:TagKeys", value, value)
		got := Decide([]Document{d}, Request{action, resource, keys})
		if got.Allowed && got.By == "" {
			t.Errorf("allowed by nothing: %s", text)
		}
	})
}
