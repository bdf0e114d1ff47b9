package cniserver

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types/create"

	"github.com/fairway-cni/fairway/internal/edge/cniapi"
)

// NetConf is the network configuration: the keys of the CNI specification
// (section 1 and "Deriving request configuration") that say something to an
// agent, and our own.
type NetConf struct {
	CNIVersion    string
	Name          string
	Type          string
	Capabilities  map[string]bool
	RuntimeConfig map[string]json.RawMessage // what the runtime passes for the capabilities
	PrevResult    json.RawMessage            // in the format of CNIVersion; see [Call] for what it says

	MTU    int    // "mtu": bytes; 0 leaves the choice to the agent
	Socket string // "socket": where the plugin looks for the agent; empty is the default
	Spool  string // "spool": where the plugin leaves a DEL; empty is the default
}

// Our own keys. One that differs from them only in case is a mistake to be
// told, as it would silently have no effect; all other unknown keys are let be,
// because runtimes and later specifications add theirs.
var ownKeys = []string{"mtu", "socket", "spool", "pluginLogFile", "pluginLogLevel"}

// An IPv4 host must take 576 bytes (RFC 791, 3.1), and an IPv4 packet has at
// most 65535.
const (
	minMTU = 576
	maxMTU = 65535
)

// readConfig reads and checks the network configuration. For DEL only the
// version and the network's name are checked.
func (c *Call) readConfig(text []byte) *cniapi.Error {
	invalid := func(format string, args ...any) *cniapi.Error {
		return &cniapi.Error{Code: cniapi.CodeInvalidConfig, Msg: "network configuration: " + fmt.Sprintf(format, args...)}
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(text, &keys); err != nil || keys == nil {
		return &cniapi.Error{Code: cniapi.CodeDecode, Msg: "network configuration: must be a JSON object"}
	}
	n := &c.Network
	fields := []struct {
		key  string
		into any
		want string
	}{
		{"cniVersion", &n.CNIVersion, "a string"},
		{"name", &n.Name, "a string"},
		{"type", &n.Type, "a string"},
		{"capabilities", &n.Capabilities, "an object of true and false"},
		{"runtimeConfig", &n.RuntimeConfig, "an object"},
		{"mtu", &n.MTU, "a whole number"},
		{"socket", &n.Socket, "a string"},
		{"spool", &n.Spool, "a string"},
		{"cni.dev/valid-attachments", &c.ValidAttachments, "a list of objects with containerID and ifname"},
	}
	tolerant := c.Command == cniapi.CommandDel
	for _, f := range fields {
		value, present := keys[f.key]
		if !present {
			continue
		}
		if err := json.Unmarshal(value, f.into); err != nil && (!tolerant || f.key == "name") {
			return invalid("%s %s: must be %s", f.key, short(value), f.want)
		}
	}
	if cniErr := cniapi.CheckVersion(c.Command, n.CNIVersion); cniErr != nil {
		return cniErr
	}
	if err := cniapi.ValidNetworkName(n.Name); err != nil {
		return invalid("name %q: %v", n.Name, err)
	}
	n.PrevResult = keys["prevResult"]
	if tolerant {
		return nil
	}
	for key, value := range keys {
		if i := slices.IndexFunc(ownKeys, func(k string) bool { return k != key && strings.EqualFold(k, key) }); i >= 0 {
			return &cniapi.Error{Code: cniapi.CodeUnsupportedField,
				Msg: fmt.Sprintf("network configuration: unsupported key %q with value %s: did you mean %q?", key, short(value), ownKeys[i])}
		}
	}
	if n.MTU != 0 && (n.MTU < minMTU || n.MTU > maxMTU) {
		return invalid("mtu %d: must be from %d to %d", n.MTU, minMTU, maxMTU)
	}
	if c.Command == cniapi.CommandGC {
		// A list that is not there is not an empty one, which would release
		// every address of the node. Null is how Go runtimes write an empty list.
		if _, present := keys["cni.dev/valid-attachments"]; !present {
			return invalid("cni.dev/valid-attachments: GC needs the list of the attachments to keep")
		}
		for _, a := range c.ValidAttachments {
			if a.ContainerID == "" || a.IfName == "" {
				return invalid("cni.dev/valid-attachments: containerID %q, ifname %q: neither may be empty", a.ContainerID, a.IfName)
			}
		}
	}
	return c.readPrevResult()
}

func (c *Call) readPrevResult() *cniapi.Error {
	text := bytes.TrimSpace(c.Network.PrevResult)
	if len(text) == 0 || string(text) == "null" {
		if c.Command == cniapi.CommandCheck {
			return &cniapi.Error{Code: cniapi.CodeInvalidConfig, Msg: "network configuration: prevResult: CHECK needs the result of ADD"}
		}
		return nil
	}
	prev, err := parseResult(c.Network.CNIVersion, text)
	if err != nil {
		return &cniapi.Error{Code: cniapi.CodeInvalidConfig,
			Msg: fmt.Sprintf("network configuration: prevResult, by CNI version %s: %v", c.Network.CNIVersion, err)}
	}
	c.Prev = prev
	return nil
}

// parseResult reads a result in the format of version. Results before 1.0.0 may
// leave their version out, in which case it is the configuration's.
func parseResult(version string, text []byte) (*Result, error) {
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(text, &keys); err != nil {
		return nil, err
	}
	keys["cniVersion"], _ = json.Marshal(version)
	text, err := json.Marshal(keys)
	if err != nil {
		return nil, err
	}
	if err := refuseNulls(text); err != nil {
		return nil, err
	}
	r, err := create.Create(version, text)
	if err != nil {
		return nil, err
	}
	return fromCNI(r)
}

// refuseNulls: the CNI library's conversion between versions dereferences the
// elements of these lists without a look. The keys are found as it finds them,
// which is without regard to case.
func refuseNulls(text []byte) error {
	var lists struct {
		Interfaces []*json.RawMessage `json:"interfaces"`
		IPs        []*json.RawMessage `json:"ips"`
		Routes     []*json.RawMessage `json:"routes"`
	}
	if err := json.Unmarshal(text, &lists); err != nil {
		return err
	}
	if slices.Contains(lists.Interfaces, nil) || slices.Contains(lists.IPs, nil) || slices.Contains(lists.Routes, nil) {
		return errors.New("null in a list")
	}
	return nil
}

// short is a value as an error message shows it.
func short(value []byte) string {
	const most = 80
	if len(value) > most {
		return string(bytes.ToValidUTF8(value[:most], nil)) + "..."
	}
	return string(value)
}
