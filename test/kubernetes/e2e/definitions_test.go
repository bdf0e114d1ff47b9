//go:build e2e

package e2e

import (
	"path/filepath"
	"strings"
	"testing"
)

// noNode has an instance that is none, as a world needs one.
const noNode = `
vpcs:
  - name: main
    cidr: 10.0.0.0/16
    subnets: [{name: a, cidr: 10.0.1.0/24, zone: a}]
instances:
  - {name: outside, type: t3.nano, subnet: a}
`

// malformed is an object that the API server refuses. Where there is a status, it is
// written to the object of the name, which is in order.
type malformed struct {
	what   string
	object string
	status string   // a patch; empty: the object itself is refused
	says   []string // the field among it
}

const (
	goodNodeConfig = "{apiVersion: fairway-cni.io/v1alpha1, kind: NodeConfig, metadata: {name: good}, spec: {priority: 1, nodeSelector: {pool: a}, options: {warm-ip-target: '5'}}}"
	goodENINode    = "{apiVersion: fairway-cni.io/v1alpha1, kind: ENINode, metadata: {name: good}}"
	goodENIConfig  = "{apiVersion: crd.k8s.amazonaws.com/v1alpha1, kind: ENIConfig, metadata: {name: good}, spec: {subnet: subnet-0123456789abcdef0, securityGroups: [sg-0123456789abcdef0]}}"
)

func nodeConfig(spec string) string {
	return "{apiVersion: fairway-cni.io/v1alpha1, kind: NodeConfig, metadata: {name: bad}, spec: " + spec + "}"
}

func eniConfig(spec string) string {
	return "{apiVersion: crd.k8s.amazonaws.com/v1alpha1, kind: ENIConfig, metadata: {name: bad}, spec: " + spec + "}"
}

var malformedObjects = []malformed{
	{what: "no options", object: nodeConfig("{priority: 1}"), says: []string{"spec.options", "Required"}},
	{what: "empty options", object: nodeConfig("{options: {}}"), says: []string{"spec.options"}},
	{what: "an option with dashes", object: nodeConfig("{options: {--warm-ip-target: '5'}}"), says: []string{"spec.options", "--warm-ip-target"}},
	{what: "an option that is the node's", object: nodeConfig("{options: {socket: /tmp/x}}"), says: []string{"spec.options", "socket", "belongs to the node"}},
	{what: "a number for an option", object: nodeConfig("{options: {warm-ip-target: 5}}"), says: []string{"spec.options.warm-ip-target", "string"}},
	{what: "a value without end", object: nodeConfig("{options: {warm-ip-target: '" + strings.Repeat("1", 5000) + "'}}"), says: []string{"spec.options.warm-ip-target", "4096"}},
	{what: "a priority beyond all", object: nodeConfig("{priority: 1001, options: {warm-ip-target: '5'}}"), says: []string{"spec.priority", "1000"}},
	{what: "a selector that is a list", object: nodeConfig("{nodeSelector: [a], options: {warm-ip-target: '5'}}"), says: []string{"spec.nodeSelector"}},
	{what: "a selector without a key", object: nodeConfig("{nodeSelector: {'': a}, options: {warm-ip-target: '5'}}"), says: []string{"spec.nodeSelector", "label's key"}},
	{what: "a field that there is not", object: nodeConfig("{option: {warm-ip-target: '5'}, options: {warm-ip-target: '5'}}"), says: []string{"spec.option"}},
	{what: "a failure without a word", object: goodNodeConfig, status: `{"rollout":{"generation":1,"node":"a","state":"Failed","since":"2026-01-01T00:00:00Z"}}`, says: []string{"status.rollout", "message"}},
	{what: "a state that there is not", object: goodNodeConfig, status: `{"rollout":{"generation":1,"node":"a","state":"Perhaps","since":"2026-01-01T00:00:00Z"}}`, says: []string{"status.rollout.state", "Trying"}},
	{what: "an ENI without a name", object: goodENINode, status: `{"attachedENIs":1,"enis":[{"deviceIndex":0,"state":"attached","addresses":1,"pods":0}]}`, says: []string{"status.enis[0].id", "Required"}},
	{what: "an ENI with another's name", object: goodENINode, status: `{"attachedENIs":1,"enis":[{"id":"i-0123456789abcdef0","deviceIndex":0,"state":"attached","addresses":1,"pods":0}]}`, says: []string{"status.enis[0].id", "eni-"}},
	{what: "an attached ENI at no device index", object: goodENINode, status: `{"attachedENIs":1,"enis":[{"id":"eni-0123456789abcdef0","deviceIndex":-1,"state":"attached","addresses":1,"pods":0}]}`, says: []string{"status.enis[0]", "device index"}},
	{what: "more free addresses than there are", object: goodENINode, status: `{"attachedENIs":1,"addresses":{"total":1,"used":0,"free":2,"cooling":0,"wanted":1,"capacity":1}}`, says: []string{"status.addresses", "free"}},
	{what: "fewer than none", object: goodENINode, status: `{"attachedENIs":-1}`, says: []string{"status.attachedENIs"}},
	{what: "a condition without a reason", object: goodENINode, status: `{"attachedENIs":0,"conditions":[{"type":"Ready","status":"True","lastTransitionTime":"2026-01-01T00:00:00Z","reason":"","message":""}]}`, says: []string{"status.conditions[0].reason"}},
	{what: "an ENIConfig without a subnet", object: eniConfig("{securityGroups: [sg-0123456789abcdef0]}"), says: []string{"spec.subnet", "Required"}},
	{what: "an ENIConfig with another thing for its subnet", object: eniConfig("{subnet: vpc-0123456789abcdef0}"), says: []string{"spec.subnet"}},
	{what: "an ENIConfig with another thing for a group", object: eniConfig("{subnet: subnet-0123456789abcdef0, securityGroups: [default]}"), says: []string{"spec.securityGroups[0]"}},
}

// TestDefinitions: the API server takes what is in order, and refuses what is
// malformed by the field's name.
func TestDefinitions(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "crd", noNode, "--outside=outside")
	c.kubectl("apply", "--server-side", "-f", filepath.Join(repository, "deploy", "crds"))
	c.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
	for _, good := range []string{goodNodeConfig, goodENINode, goodENIConfig} {
		c.apply(good)
	}
	c.kubectl("patch", "eninode", "good", "--subresource=status", "--type=merge", "-p", `{"status":{"attachedENIs":1,"enis":[{"id":"eni-0123456789abcdef0","deviceIndex":0,"state":"attached","addresses":1,"pods":0}]}}`)
	for _, m := range malformedObjects {
		t.Run(m.what, func(t *testing.T) {
			c.t = t
			var err error
			if m.status == "" {
				_, err = c.try([]byte(m.object), "kubectl", "--", "create", "--validate=strict", "-f", "-")
			} else {
				kind := "eninode"
				if strings.Contains(m.object, "NodeConfig") {
					kind = "nodeconfig"
				}
				_, err = c.try(nil, "kubectl", "--", "patch", kind, "good", "--subresource=status", "--type=merge", "-p", `{"status":`+m.status+`}`)
			}
			if err == nil {
				t.Fatal("the API server took it")
			}
			for _, want := range m.says {
				if !strings.Contains(err.Error()[max(0, strings.Index(err.Error(), "exit status")):], want) {
					t.Errorf("it does not say %q: %v", want, err)
				}
			}
		})
	}
	c.t = t
	columns := strings.Fields(strings.SplitN(c.kubectl("get", "eninodes"), "\n", 2)[0])
	for _, want := range []string{"INSTANCE", "TYPE", "ENIS", "USED", "FREE", "WANTED", "READY"} {
		found := false
		for _, have := range columns {
			found = found || have == want
		}
		if !found {
			t.Errorf("kubectl get eninodes has no column %s: %v", want, columns)
		}
	}
}
