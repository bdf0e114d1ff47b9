package kubernetes

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

const (
	// witnessName is the CNI plugin that this test binary is when it is called
	// so. It runs after Fairway's, as Cilium does in its chaining mode
	// generic-veth, and writes down what it is told.
	witnessName = "witness"
	// witnessDir holds what it wrote, a file for each command.
	witnessDir = "/run/witness"
	// witnessDevice is what it adds to the result: it must not disturb.
	witnessDevice = "witness0"
)

// testimony is what the plugin was told, and what it saw.
type testimony struct {
	Prev   *types100.Result `json:"prevResult"`
	HasPod bool             `json:"hasPod"` // the pod's interface is in its namespace
}

// witness is the plugin. Its exit status is that of the process.
func witness() int {
	out, err := testify(os.Getenv("CNI_COMMAND"))
	if err != nil {
		out, _ = json.Marshal(map[string]any{"cniVersion": "1.0.0", "code": 999, "msg": err.Error()})
	}
	os.Stdout.Write(out)
	if err != nil {
		return 1
	}
	return 0
}

func testify(command string) ([]byte, error) {
	if command == "VERSION" {
		return []byte(`{"cniVersion":"1.0.0","supportedVersions":["1.0.0"]}`), nil
	}
	stdin, err := io.ReadAll(os.Stdin)
	if err != nil {
		return nil, err
	}
	var said testimony
	if err := json.Unmarshal(stdin, &said); err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	ns, err := os.Open(os.Getenv("CNI_NETNS"))
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	said.HasPod = netns.Do(ns, func() error {
		_, err := net.InterfaceByName(os.Getenv("CNI_IFNAME"))
		return err
	}) == nil
	text, err := json.Marshal(said)
	if err == nil {
		err = os.MkdirAll(witnessDir, 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(witnessDir, command), text, 0o644)
	}
	if err != nil || command != "ADD" {
		return nil, err
	}
	said.Prev.CNIVersion = "1.0.0"
	said.Prev.Interfaces = append(said.Prev.Interfaces, &types100.Interface{Name: witnessDevice})
	return json.Marshal(said.Prev)
}
