package hostnet

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/path"
)

// CollectWays reads what decides where packets go in the namespace that the process
// is in: devices, rules, routes, permanent neighbours, and the switches of ENIs and
// of the devices that are named. It runs no program, and costs the same per pod as a
// line of `ip route`. What filters or translates is left unknown.
func CollectWays(ctx context.Context, enis map[string]string, named map[string]bool) (path.Namespace, error) {
	var ns path.Namespace
	c, err := dial(unix.NETLINK_ROUTE)
	if err != nil {
		return ns, err
	}
	defer c.Close()
	links, err := c.links()
	if err != nil {
		return ns, fmt.Errorf("read the node's devices: %w", err)
	}
	markENIs(links, enis)
	var few []link
	for _, l := range links {
		if l.Kind == "eni" || named[l.Name] {
			few = append(few, l)
		}
	}
	ns.Devices = path.Known(devices(links))
	ns.Rules = part(c.rules())
	ns.Routes = part(c.routes(links))
	ns.Neighbours = part(c.neighbours(links))
	ns.Sysctls = part(sysctls(few))
	return ns, ctx.Err()
}
