package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCall(t *testing.T) {
	for _, c := range []struct{ args, verb, bundle string }{
		{"--root /run/x --log /l --log-format json create --bundle /b --pid-file /p abc", "create", "/b"},
		{"run -b /b abc", "run", "/b"},
		{"create --bundle=/b abc", "create", "/b"},
		{"create abc", "create", "."},
		{"--root /run/x update --resources - abc", "update", "."},
		{"--root /run/x delete abc", "", "."},
	} {
		if verb, bundle := call(strings.Fields(c.args)); verb != c.verb || bundle != c.bundle {
			t.Errorf("call(%s) = %q, %q, want %q, %q", c.args, verb, bundle, c.verb, c.bundle)
		}
	}
}

func TestWithoutLimits(t *testing.T) {
	for _, c := range []struct{ name, config, want string }{
		{"limits", `{"linux":{"cgroupsPath":"/a","resources":{"cpu":{"shares":2},"devices":[{"allow":false,"access":"rwm"}],"memory":{"limit":9223372036854775807}}},"x":9223372036854775807}`,
			`{"linux":{"cgroupsPath":"/a","resources":{"devices":[{"access":"rwm","allow":false}]}},"x":9223372036854775807}`},
		{"no resources", `{"linux":{}}`, `{"linux":{}}`},
		{"no linux", `{"a":1.50}`, `{"a":1.50}`},
	} {
		got, err := withoutLimits([]byte(c.config))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if d := cmp.Diff(c.want, string(got)); d != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, d)
		}
	}
	if _, err := withoutLimits([]byte(`{`)); err == nil {
		t.Error("half a document was taken")
	}
}
