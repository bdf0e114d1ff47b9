package agent

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/fairway-cni/fairway/internal/core/ipam"
)

// Config is what a user can set.
type Config struct {
	Socket     string // the CNI socket
	StateDir   string // holds the address records
	SpoolDir   string // where the plugin leaves what it could not deliver
	CNIConfDir string // where the network configuration list is written; empty: it is not

	WarmAddresses int            // free addresses to keep ready
	MaxENIs       int            // 0: what the instance type allows
	CoolDown      time.Duration  // rest of a released address
	AddWait       time.Duration  // how long an ADD waits for an address that is on its way
	Native        []netip.Prefix // destinations, beside the VPC's own CIDRs, that see pods' own addresses
	MTU           int            // bytes, of ENIs and pods
}

// Default is the configuration of an agent that is told nothing.
func Default() Config {
	return Config{
		Socket:        "/run/fairway/cni.sock",
		StateDir:      "/run/fairway/addresses",
		SpoolDir:      "/run/fairway/spool",
		CNIConfDir:    "/etc/cni/net.d",
		WarmAddresses: ipam.DefaultWarmAddresses,
		CoolDown:      ipam.DefaultCoolDown,
		// Within it EC2 usually attaches an ENI; the runtime's own limit for
		// an ADD is minutes, and a pod that waits here is cheaper than one
		// whose sandbox is torn down and made again.
		AddWait: 20 * time.Second,
		MTU:     9001, // jumbo frames within a VPC: "Network maximum transmission unit", Amazon EC2 User Guide
	}
}

// Validate names every setting that cannot be.
func (c Config) Validate() error {
	switch {
	case c.WarmAddresses < 0:
		return fmt.Errorf("warm addresses %d: must not be negative", c.WarmAddresses)
	case c.MaxENIs < 0:
		return fmt.Errorf("max enis %d: must not be negative (0: what the instance type allows)", c.MaxENIs)
	case c.CoolDown < 0:
		return fmt.Errorf("cool-down %s: must not be negative", c.CoolDown)
	case c.AddWait < 0:
		return fmt.Errorf("add wait %s: must not be negative", c.AddWait)
	case c.MTU < 576 || c.MTU > 9001:
		return fmt.Errorf("mtu %d: must be from 576 to 9001", c.MTU)
	}
	for _, p := range c.Native {
		if !p.Addr().Is4() || p != p.Masked() {
			return fmt.Errorf("native prefix %s: must be an IPv4 prefix without host bits", p)
		}
	}
	return nil
}
