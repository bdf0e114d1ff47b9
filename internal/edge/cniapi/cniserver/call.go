package cniserver

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/fairway-cni/fairway/internal/edge/cniapi"
)

// Call is one request, checked. For DEL only what tells the attachment apart is
// sure to be there: a DEL must succeed when all else is gone or broken.
type Call struct {
	Command     string // ADD, DEL, CHECK, STATUS or GC
	ContainerID string // ADD, DEL, CHECK
	IfName      string // ADD, DEL, CHECK
	NetNSPath   string // CNI_NETNS, which the result names as the sandbox; empty in some DELs
	Args        Args   // CNI_ARGS
	Network     NetConf

	// NetNS is the pod's network namespace, and Netlink a NETLINK_ROUTE socket
	// in it, for ADD and CHECK; nil else. Serve closes them after the handler.
	NetNS   *os.File
	Netlink *os.File

	// Prev is the prevResult: for CHECK what ADD gave, for ADD what the plugins
	// before this one in a list made, which Serve puts before the handler's
	// result. Nil if there is none.
	Prev *Result

	// ValidAttachments is what GC is to leave alone; all else of this network
	// is stale.
	ValidAttachments []Attachment
}

// Attachment is a container's interface, as GC names it.
type Attachment struct {
	ContainerID string `json:"containerID"`
	IfName      string `json:"ifname"`
}

// Args is CNI_ARGS. The names are those that the CRI runtimes set for
// Kubernetes; all are empty under other runtimes.
type Args struct {
	PodName          string // K8S_POD_NAME
	PodNamespace     string // K8S_POD_NAMESPACE
	PodUID           string // K8S_POD_UID
	InfraContainerID string // K8S_POD_INFRA_CONTAINER_ID
	Other            map[string]string
}

// request is the message on the wire; package cniapi writes it.
type request struct {
	Version     int             `json:"version"`
	Command     string          `json:"command"`
	ContainerID string          `json:"containerID"`
	IfName      string          `json:"ifName"`
	NetNS       string          `json:"netns"`
	Args        string          `json:"args"`
	Path        string          `json:"path"`
	Config      json.RawMessage `json:"config"`
}

// decode checks a message from its outside to its inside. The call's files are
// taken out of the message, which closes what is left.
func decode(m *message) (*Call, *cniapi.Error) {
	var req request
	if err := json.Unmarshal(m.text, &req); err != nil {
		return nil, &cniapi.Error{Code: cniapi.CodeDecode, Msg: "request to the agent: " + err.Error()}
	}
	if req.Version != cniapi.ProtocolVersion {
		return nil, &cniapi.Error{Code: cniapi.CodeProtocol,
			Msg:     fmt.Sprintf("the plugin speaks protocol version %d and this agent %d", req.Version, cniapi.ProtocolVersion),
			Details: "install plugin and agent of the same release"}
	}
	lean := cniapi.Request{Command: req.Command, ContainerID: req.ContainerID, IfName: req.IfName, NetNS: req.NetNS}
	if cniErr := lean.ValidateEnvironment(); cniErr != nil {
		return nil, cniErr
	}
	c := &Call{Command: req.Command, ContainerID: req.ContainerID, IfName: req.IfName, NetNSPath: req.NetNS}
	if cniErr := c.readConfig(req.Config); cniErr != nil {
		return nil, cniErr
	}
	args, err := parseArgs(req.Args)
	if err != nil && c.Command != cniapi.CommandDel {
		return nil, &cniapi.Error{Code: cniapi.CodeInvalidEnvironment, Msg: fmt.Sprintf("invalid environment variable: CNI_ARGS %q: %v", req.Args, err)}
	}
	c.Args = args
	return c, c.takeFiles(m)
}

// takeFiles moves the descriptors of ADD and CHECK from the message to the call.
// They stay open in the message if there is an error.
func (c *Call) takeFiles(m *message) *cniapi.Error {
	want := 0
	if c.Command == cniapi.CommandAdd || c.Command == cniapi.CommandCheck {
		want = 2
	}
	wrong := func(err error) *cniapi.Error {
		return &cniapi.Error{Code: cniapi.CodeInvalidEnvironment, Msg: fmt.Sprintf("%s of CNI_NETNS %q: %v", c.Command, c.NetNSPath, err)}
	}
	if len(m.fds) != want {
		return wrong(fmt.Errorf("%d file descriptors came with the request, want %d", len(m.fds), want))
	}
	if want == 0 {
		return nil
	}
	netns, netlink := m.fds[0], m.fds[1]
	if err := checkNetNS(netns); err != nil {
		return wrong(err)
	}
	if err := checkNetlink(netlink, netns); err != nil {
		return wrong(err)
	}
	m.fds = nil
	c.NetNS = os.NewFile(uintptr(netns), c.NetNSPath)
	c.Netlink = os.NewFile(uintptr(netlink), "netlink socket in "+c.NetNSPath)
	return nil
}

func (c *Call) close() {
	if c.NetNS != nil {
		c.NetNS.Close()
		c.Netlink.Close()
	}
}

// parseArgs reads CNI_ARGS: KEY=VALUE;KEY=VALUE. Keys that we do not know are
// kept, as runtimes add their own.
func parseArgs(s string) (Args, error) {
	var a Args
	known := map[string]*string{
		"K8S_POD_NAME":               &a.PodName,
		"K8S_POD_NAMESPACE":          &a.PodNamespace,
		"K8S_POD_UID":                &a.PodUID,
		"K8S_POD_INFRA_CONTAINER_ID": &a.InfraContainerID,
	}
	for pair := range strings.SplitSeq(s, ";") {
		if pair == "" {
			continue
		}
		key, value, found := strings.Cut(pair, "=")
		if !found || key == "" {
			return a, fmt.Errorf("%q is not KEY=VALUE", pair)
		}
		if field := known[key]; field != nil {
			*field = value
			continue
		}
		if a.Other == nil {
			a.Other = map[string]string{}
		}
		a.Other[key] = value
	}
	return a, nil
}
