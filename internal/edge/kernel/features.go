package kernel

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/diff"
	"github.com/fairway-cni/fairway/internal/core/node"
)

// ErrMissingFeature says that the kernel cannot do what the datapath needs.
var ErrMissingFeature = errors.New("kernel feature missing")

// Feature is something the `routes` datapath needs of a kernel.
type Feature struct {
	Name  string
	Since string // first mainline kernel that has it
	Why   string
	probe func(*Kernel) error
}

// Features lists what the datapath needs; the newest decides the oldest kernel
// it runs on.
func Features() []Feature {
	const filter = "type filter hook prerouting priority -150"
	return []Feature{
		{"policy routing with rule protocols", "4.17", "one rule per ENI, recognisably ours",
			func(k *Kernel) error { _, err := readRules(k.route); return err }},
		{"dumps that the kernel filters (NETLINK_GET_STRICT_CHK)", "4.20", "our routes are read without everybody's",
			func(k *Kernel) error { _, err := readRoutes(k.route, node.Protocol, 0); return err }},
		{"routes of type throw", "2.2", "external services are routed by the main table", nil},
		{"nftables", "3.13", "admission of pods and the packet mark", probe("", "")},
		{"nftables map from interface and address to verdict", "4.1", "one lookup per packet whatever the number of pods",
			probe(filter, "iifname . ip saddr vmap @"+probeSet, node.Set{Name: probeSet, Type: node.TypePods})},
		{"nftables match of interface groups", "3.18", "pods' devices are found whatever their names",
			probe(filter, "meta iifgroup 0x667779 drop")},
		{"nftables named counters", "4.10", "dropped packets are counted by reason",
			probe(filter, `counter name "probe" drop`, node.Set{Name: probeSet, Type: node.TypeCounter})},
		{"nftables connection marks (nft_ct)", "3.18", "a flow stays on the ENI that it began on",
			probe(filter, "ct direction original ct mark & 0x7f000080 == 0x00000000 ct mark set ct mark & 0x80ffff7f | 0x00000080")},
		{"nftables interval sets", "3.13", "native destinations are not translated",
			probe(filter, "ip daddr @"+probeSet+" return", node.Set{Name: probeSet, Type: node.TypePrefixes})},
		{"nftables route chains in family inet", "5.2", "the host's own answers leave by the ENI that the question came by",
			probe("type route hook output priority -150", "")},
		{"nftables NAT in family inet", "5.2", "source NAT in the same table as the mark",
			probe("type nat hook postrouting priority 100", "snat ip to "+node.GatewayAddr.String()+" fully-random")},
		{"IPv4 forwarding switch", "2.2", "the node routes for its pods",
			func(k *Kernel) error { return k.probeFile("net/ipv4/ip_forward") }},
		{"veth created with its peer in another namespace", "3.0", "a move afterwards costs 15 ms", nil},
		{"device switches by netlink (IFLA_INET_CONF)", "2.6.38", "set up in the same batch as the device", nil},
		{"deletion of links by group", "4.1", "any number of dead links in one request", nil},
	}
}

// Probe tries what can be tried without leaving a trace: the nftables probes
// are transactions that end by deleting what they made. The error is one line
// that names every missing feature and the kernel that has it.
func (k *Kernel) Probe() error {
	_, missing, _ := k.Missing() // without the right to try all are missing, each with the reason
	if len(missing) > 0 {
		return fmt.Errorf("%w: %s", ErrMissingFeature, strings.Join(missing, "; "))
	}
	return nil
}

// Missing tries as Probe does, and says how many features there are to have and what
// is missing of them, each with the kernel that has it. The error is
// os.ErrPermission where the caller may not try.
func (k *Kernel) Missing() (all int, missing []string, err error) {
	for _, f := range Features() {
		all++
		if f.probe == nil {
			continue // an ADD says so; to try it would make a device
		}
		if failed := f.probe(k); failed != nil {
			missing = append(missing, fmt.Sprintf("%s (since Linux %s, for: %s): %v", f.Name, f.Since, f.Why, failed))
			if errors.Is(failed, os.ErrPermission) {
				err = fmt.Errorf("try the kernel's features: %w", os.ErrPermission)
			}
		}
	}
	return all, missing, err
}

// Release is the kernel's, as `uname -r` prints it; empty where it is not known.
func Release() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

func (k *Kernel) probeFile(path string) error {
	_, err := os.Stat(filepath.Join(k.procSys, path))
	return err
}

// probeSet is the set or counter of a probe.
const probeSet = "probe"

// probe has one transaction make a table with one chain and one rule and delete
// it again.
func probe(hook, rule string, sets ...node.Object) func(*Kernel) error {
	return func(k *Kernel) error {
		changes := diff.Compare(nil, append(sets, node.Chain{Name: "probe", Hook: hook, Rules: rule}))
		t, err := compose(node.TableName+"-probe", changes)
		if err != nil {
			return err
		}
		t.destroy = []request{t.name.delete()}
		return k.nft.commit(t.requests())
	}
}
