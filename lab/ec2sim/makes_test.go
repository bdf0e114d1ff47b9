package ec2sim

import (
	"strings"
	"testing"
)

// Every action that makes something asks for the right to make it, or is here
// with the reason why it asks for what it names only.
func TestMakes(t *testing.T) {
	named := map[string]string{
		"CreateTags":                  "of what there is",
		"CreateRoute":                 "is part of its table",
		"CreateTransitGatewayRoute":   "is part of its table",
		"CreateNetworkAclEntry":       "is part of its ACL",
		"CreateSubnetCidrReservation": "is part of its subnet",
	}
	for action := range actions {
		for _, verb := range []string{"Create", "Allocate", "Run"} {
			_, made := makes[action]
			if _, only := named[action]; strings.HasPrefix(action, verb) && made == only {
				t.Errorf("%s: in makes %v, in the list of this test %v: want one of them", action, made, only)
			}
		}
	}
	for action := range makes {
		if _, ok := actions[action]; !ok {
			t.Errorf("%s is no action", action)
		}
	}
}
