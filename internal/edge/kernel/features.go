package kernel

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

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
	return []Feature{
		{"policy routing with rule protocols", "4.17", "one rule per ENI, recognisably ours",
			func(k *Kernel) error { _, err := k.readRules(); return err }},
		{"nftables", "3.13", "admission of pods and the packet mark", (*Kernel).probeTables},
		{"nftables map from interface and address to verdict", "4.1", "one lookup per packet whatever the number of pods",
			(*Kernel).probeMap},
		{"nftables NAT in family inet", "5.2", "source NAT in the same table as the mark", (*Kernel).probeNAT},
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
	var missing []string
	for _, f := range Features() {
		if f.probe == nil {
			continue // an ADD says so; to try it would make a device
		}
		if err := f.probe(k); err != nil {
			missing = append(missing, fmt.Sprintf("%s (since Linux %s, for: %s): %v", f.Name, f.Since, f.Why, err))
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%w: %s", ErrMissingFeature, strings.Join(missing, "; "))
	}
	return nil
}

func (k *Kernel) probeFile(path string) error {
	_, err := os.Stat(filepath.Join(k.procSys, path))
	return err
}

func (k *Kernel) probeTables() error {
	_, err := k.nft.ListTablesOfFamily(nftables.TableFamilyINet)
	return err
}

func (k *Kernel) probeMap() error {
	return k.transient(func(t *nftables.Table) error { return k.nft.AddSet(podSet(t), nil) })
}

func (k *Kernel) probeNAT() error {
	return k.transient(func(t *nftables.Table) error {
		c := k.nft.AddChain(&nftables.Chain{Table: t, Name: chainOut, Type: nftables.ChainTypeNAT,
			Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource})
		k.nft.AddRule(&nftables.Rule{Table: t, Chain: c, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{unix.NFPROTO_IPV4}},
			&expr.Immediate{Register: reg1, Data: node.GatewayAddr.AsSlice()},
			&expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg1, FullyRandom: true},
		}})
		return nil
	})
}

// transient runs build on a table that the same transaction deletes again.
func (k *Kernel) transient(build func(*nftables.Table) error) error {
	t := k.nft.AddTable(&nftables.Table{Name: node.TableName + "-probe", Family: nftables.TableFamilyINet})
	err := build(t)
	k.nft.DelTable(t)
	return errors.Join(err, k.nft.Flush())
}
