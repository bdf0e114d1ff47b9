// Package hostnet reads a Linux node as package path's world has it: devices,
// rules, routes, neighbours, switches, filters and listening sockets of the
// node's network namespace and of its pods'.
//
// It writes nothing, neither to the kernel nor to a file, and sends nothing but the
// one packet of a [Shot], from the namespace that it is told. It knows no CNI: a
// pod is a namespace that a veth pair joins with the node's. Its name comes from
// what container runtimes keep of every CNI's results, or from the caller.
//
//	node: rtnetlink, /proc/sys/net, /proc/net, nft --------------> Node.Host
//	  | veth pairs, by the number that the node knows a namespace by
//	  +--> /run/netns, /proc/PID/ns/net --> the same, inside it --> Node.Pods
//
// What cannot be read is an unknown part of the node, with the reason: no
// capability, no nft where there are tables. Only a node whose devices cannot be
// listed is an error.
//
// Netlink is spoken by this package itself, and not by package kernel or a
// library: those skip attributes that they have no field for, and here each one
// that is not understood must show in the line that it belongs to.
//
// Entering namespaces needs CAP_SYS_ADMIN, and happens on threads of this
// package's own. [Collect] may be called concurrently.
package hostnet
