package cniserver

import (
	"fmt"

	"github.com/fairway-cni/fairway/internal/edge/cniapi"
)

// TryAgainLater is for what will pass by itself. The runtime reports msg, tears
// the sandbox down and comes back with a new one.
func TryAgainLater(msg, details string) *cniapi.Error {
	return &cniapi.Error{Code: cniapi.CodeTryAgainLater, Msg: msg, Details: details}
}

// NoAddress is for a node that has no address to give, and none on its way: why
// says what stands against one, help what would change it.
func NoAddress(why, help string) *cniapi.Error {
	return &cniapi.Error{Code: cniapi.CodeNoAddress, Msg: "no free address: " + why, Details: help}
}

// InterfaceTaken is for an ADD whose interface is there already, made by someone
// else: specification, section 2, "ADD".
func InterfaceTaken(c *Call) *cniapi.Error {
	return &cniapi.Error{Code: cniapi.CodeInterfaceTaken,
		Msg:     fmt.Sprintf("CNI_IFNAME %q: the pod in %s has an interface of that name already, which is not of this network", c.IfName, c.NetNSPath),
		Details: "remove it, or let the runtime ask for another name"}
}

// UnknownContainer is for a CHECK of what was never added, or has been deleted.
func UnknownContainer(c *Call) *cniapi.Error {
	return &cniapi.Error{Code: cniapi.CodeUnknownContainer,
		Msg: fmt.Sprintf("container %s has no interface %q in network %s on this node", c.ContainerID, c.IfName, c.Network.Name)}
}

// InvalidConfig is for a value of the network configuration that cannot be.
func InvalidConfig(key, why string) *cniapi.Error {
	return &cniapi.Error{Code: cniapi.CodeInvalidConfig, Msg: "network configuration: " + key + ": " + why}
}

// Unavailable answers STATUS when an ADD would not succeed now.
func Unavailable(why, help string) *cniapi.Error {
	return &cniapi.Error{Code: cniapi.CodeUnavailable, Msg: why, Details: help}
}

// Internal is for an error that nobody outside can do anything about.
func Internal(err error) *cniapi.Error {
	return &cniapi.Error{Code: cniapi.CodeInternal, Msg: err.Error()}
}
