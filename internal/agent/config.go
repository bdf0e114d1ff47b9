package agent

import (
	"cmp"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/fairway-cni/fairway/internal/core/intent"
	"github.com/fairway-cni/fairway/internal/core/ipam"
	"github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/internal/core/vpc"
	"github.com/fairway-cni/fairway/internal/edge/agentapi"
)

// Config is what a user can set.
type Config struct {
	Socket     string // the CNI socket
	StateDir   string // holds the address records
	SpoolDir   string // where the plugin leaves what it could not deliver
	CNIConfDir string // where the network configuration list is written; empty: it is not
	CNIBinDir  string // where the programs of the plugins after ours are looked for
	Bandwidth  bool   // ENABLE_BANDWIDTH_PLUGIN: the plugin of bandwidth runs after ours

	WarmAddresses int           // free addresses to keep ready
	MaxENIs       int           // 0: what the instance type allows
	CoolDown      time.Duration // rest of a released address
	AddWait       time.Duration // how long an ADD waits for an address that is on its way

	Datapath   intent.Config
	PodMTU     int              // POD_MTU, bytes; 0: that of the ENIs
	VethPrefix string           // AWS_VPC_K8S_CNI_VETHPREFIX, one to four characters
	Native     vpc.NativePolicy // what of the VPC's routes is native, and what else
	VPCPoll    time.Duration    // how often EC2 is asked for the VPC's routes
	Admin      string           // the socket of the person's tool; empty: none
}

// Default is the configuration of an agent that is told nothing.
func Default() Config {
	return Config{
		Socket:        "/run/fairway/cni.sock",
		StateDir:      "/run/fairway/addresses",
		SpoolDir:      "/run/fairway/spool",
		CNIConfDir:    "/etc/cni/net.d",
		CNIBinDir:     "/opt/cni/bin",
		WarmAddresses: ipam.DefaultWarmAddresses,
		CoolDown:      ipam.DefaultCoolDown,
		// Within it EC2 usually attaches an ENI; the runtime's own limit for
		// an ADD is minutes, and a pod that waits here is cheaper than one
		// whose sandbox is torn down and made again.
		AddWait: 20 * time.Second,

		Datapath:   intent.Default(),
		VethPrefix: node.DefaultVethPrefix,
		VPCPoll:    time.Minute,
		Admin:      agentapi.DefaultSocket,
	}
}

// Validate names every setting that cannot be.
func (c Config) Validate() error {
	switch {
	case !filepath.IsAbs(c.CNIBinDir):
		return fmt.Errorf("cni bin dir %q: must be an absolute path", c.CNIBinDir)
	case c.WarmAddresses < 0:
		return fmt.Errorf("warm addresses %d: must not be negative", c.WarmAddresses)
	case c.MaxENIs < 0:
		return fmt.Errorf("max enis %d: must not be negative (0: what the instance type allows)", c.MaxENIs)
	case c.CoolDown < 0:
		return fmt.Errorf("cool-down %s: must not be negative", c.CoolDown)
	case c.AddWait < 0:
		return fmt.Errorf("add wait %s: must not be negative", c.AddWait)
	case c.PodMTU != 0 && (c.PodMTU < 576 || c.PodMTU > 9001):
		return fmt.Errorf("pod mtu %d: must be from 576 to 9001 (0: that of the ENIs)", c.PodMTU)
	case c.VPCPoll < time.Second:
		return fmt.Errorf("vpc poll %s: must be at least a second", c.VPCPoll)
	case !vethPrefix.MatchString(c.VethPrefix) || slices.Contains([]string{"eth", "vlan", "lo", "ens"}, c.VethPrefix):
		return fmt.Errorf("veth prefix %q: must be one to four letters and digits, and none that other devices have (eth, ens, vlan, lo)", c.VethPrefix)
	}
	if err := c.Datapath.Validate(); err != nil {
		return err
	}
	for _, p := range slices.Concat(c.Native.Also, c.Datapath.ExternalServices) {
		if !p.Addr().Is4() || p != p.Masked() {
			return fmt.Errorf("prefix %s: must be an IPv4 prefix without host bits", p)
		}
	}
	return nil
}

var vethPrefix = regexp.MustCompile(`^[a-z][a-z0-9]{0,3}$`)

// podMTU is the MTU of pods whose network configuration says nothing.
func (c Config) podMTU() int { return cmp.Or(c.PodMTU, c.Datapath.ENIMTU) }
