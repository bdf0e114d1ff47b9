package cli

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

// capabilities are what new pods ask of the plugins that run after the network's
// own: the flags of `pod add`.
type capabilities struct {
	hostPorts []string
	bandwidth uint64 // bits a second; 0: no limit
}

func (c *capabilities) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringSliceVar(&c.hostPorts, "host-port", nil, "NODE:POD or NODE:POD/udp: a port of the node that leads to one of the pod")
	f.Uint64Var(&c.bandwidth, "bandwidth", 0, "most bits a second, each way; 0: no limit")
}

// portMapping is one item of the capability portMappings, and limits is the
// capability bandwidth: "Conventions", Container Network Interface.
type portMapping struct {
	HostPort      uint16 `json:"hostPort"`
	ContainerPort uint16 `json:"containerPort"`
	Protocol      string `json:"protocol"`
}

type limits struct {
	IngressRate  uint64 `json:"ingressRate"` // bits a second
	IngressBurst uint64 `json:"ingressBurst"`
	EgressRate   uint64 `json:"egressRate"`
	EgressBurst  uint64 `json:"egressBurst"`
}

// unlimitedBurst is what the kubelet gives where annotations name none: the
// plugin's largest.
const unlimitedBurst = 1<<31 - 1 // bits

// arguments gives them to the half of `pod add` that runs in the instance.
func (c *capabilities) arguments() ([]string, error) {
	all := map[string]any{}
	if len(c.hostPorts) > 0 {
		ports, err := parsePorts(c.hostPorts)
		if err != nil {
			return nil, err
		}
		all["portMappings"] = ports
	}
	if b := c.bandwidth; b > 0 {
		all["bandwidth"] = limits{b, unlimitedBurst, b, unlimitedBurst}
	}
	if len(all) == 0 {
		return nil, nil
	}
	text, err := json.Marshal(all)
	if err != nil {
		return nil, err
	}
	return []string{"--capabilities=" + string(text)}, nil
}

func parsePorts(list []string) ([]portMapping, error) {
	var ports []portMapping
	for _, s := range list {
		pair, protocol, named := strings.Cut(s, "/")
		if !named {
			protocol = "tcp"
		}
		host, pod, found := strings.Cut(pair, ":")
		h, hostErr := strconv.ParseUint(host, 10, 16)
		p, podErr := strconv.ParseUint(pod, 10, 16)
		if !found || hostErr != nil || podErr != nil || h == 0 || p == 0 || protocol != "tcp" && protocol != "udp" {
			return nil, fmt.Errorf("%w: host port %q: must be NODE:POD, NODE:POD/tcp or NODE:POD/udp, with ports from 1 to 65535", ErrUsage, s)
		}
		ports = append(ports, portMapping{uint16(h), uint16(p), protocol})
	}
	return ports, nil
}
