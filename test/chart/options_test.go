package chart

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fairway-cni/fairway/test/upstream"
)

// TestOptionsAreKnown: the agent takes every argument, variable and key that the chart
// gives it, in each mode.
func TestOptionsAreKnown(t *testing.T) {
	agent := filepath.Join(t.TempDir(), "fairway-agent")
	if err := upstream.Build("../..", agent, "./cmd/fairway-agent"); err != nil {
		t.Fatal(err)
	}
	var known []struct{ Option, Variable string }
	config(t, agent, &known)
	for name, values := range modes(t) {
		t.Run(name, func(t *testing.T) {
			all := objects(t, render(t, values).Manifests)
			dir := t.TempDir()
			for file, text := range find(t, all, "ConfigMap").Data {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			spec := find(t, all, "DaemonSet").Spec.Template.Spec
			for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
				if c.Name == "install" {
					continue // it has no options, and runs in the cluster's test
				}
				var args []string
				for _, a := range c.Args {
					if strings.HasPrefix(a, "--") && a != "--stay" {
						args = append(args, strings.ReplaceAll(a, "/etc/fairway", dir))
					}
				}
				var shown []struct{ Option, Value, From string }
				config(t, agent, &shown, args...)
				if options, ok := values["options"].(Values); ok {
					for option := range options {
						i := slices.IndexFunc(shown, func(s struct{ Option, Value, From string }) bool { return s.Option == option })
						if i < 0 || !strings.Contains(shown[i].From, "agent.yaml") {
							t.Errorf("option %s does not reach the agent", option)
						}
					}
				}
				for _, e := range c.Env {
					isOption := slices.ContainsFunc(known, func(k struct{ Option, Variable string }) bool { return k.Variable == e.Name })
					if !isOption {
						t.Errorf("variable %s is no option", e.Name)
					}
				}
			}
		})
	}
	// What the test would not notice otherwise.
	bad := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(bad, []byte("warm-ip-targets: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(agent, "config", "--config="+bad).CombinedOutput(); err == nil {
		t.Errorf("an unknown option is taken: %s", out)
	}
}

// notForUsers are options that the chart says itself, or that name a file which its pods
// do not have.
var notForUsers = []string{"eni-config-file", "sysctl-dir", "cri-socket", "cni-conf-dir", "cni-bin-dir", "node-name", "kubeconfig"}

// TestSchemaHasOptions: the schema of values has the agent's options, no other ones, and
// knows which are true or false.
func TestSchemaHasOptions(t *testing.T) {
	agent := filepath.Join(t.TempDir(), "fairway-agent")
	if err := upstream.Build("../..", agent, "./cmd/fairway-agent"); err != nil {
		t.Fatal(err)
	}
	var known []struct{ Option, Default string }
	config(t, agent, &known)
	var schema struct {
		Properties struct {
			Options struct{ Properties map[string]json.RawMessage }
		}
	}
	text, err := os.ReadFile(filepath.Join(chartDir, "values.schema.json"))
	if err == nil {
		err = json.Unmarshal(text, &schema)
	}
	if err != nil {
		t.Fatal(err)
	}
	has := schema.Properties.Options.Properties
	for _, k := range known {
		want := "true" // anything
		if k.Default == "true" || k.Default == "false" {
			want = `{"type": "boolean"}`
		}
		if slices.Contains(notForUsers, k.Option) {
			want = ""
		}
		if string(has[k.Option]) != want {
			t.Errorf("the schema has %q for option %s, want %q", has[k.Option], k.Option, want)
		}
		delete(has, k.Option)
	}
	for option := range has {
		t.Errorf("the schema has option %s, and the agent has not", option)
	}
}

// config runs the agent's command config, which starts nothing.
func config(t *testing.T, agent string, into any, args ...string) {
	t.Helper()
	c := exec.Command(agent, append([]string{"config", "-o", "json"}, args...)...)
	c.Env = []string{"PATH=" + os.Getenv("PATH")}
	if len(args) > 0 { // what a pod has
		c.Env = append(c.Env, "MY_NODE_NAME=node-a", "KUBERNETES_SERVICE_HOST=172.20.0.1", "KUBERNETES_SERVICE_PORT=443")
	}
	var complaint strings.Builder
	c.Stderr = &complaint
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%s: %v: %s", c, err, complaint.String())
	}
	if err := json.Unmarshal(out, into); err != nil {
		t.Fatal(err)
	}
}
