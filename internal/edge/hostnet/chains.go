package hostnet

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/preflight"
)

// nftaChainTable and nftaChainName are NFTA_CHAIN_TABLE and NFTA_CHAIN_NAME of
// include/uapi/linux/netfilter/nf_tables.h.
const (
	nftaChainTable = 1
	nftaChainName  = 3
)

// Chains lists the chains of nftables in the namespace of the calling thread, those
// of iptables that lives in nftables among them. It needs no program. Chains of
// legacy iptables are in what [Collect] reads.
func Chains() ([]preflight.Chain, error) {
	c, err := dial(unix.NETLINK_NETFILTER)
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer c.Close()
	answers, err := c.dump(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETCHAIN, make([]byte, 4))
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) { // nobody has loaded it
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list chains of nftables: %w", err)
	}
	var all []preflight.Chain
	for _, b := range answers {
		chain := preflight.Chain{}
		for kind, v := range behind(b, 4) {
			switch kind {
			case nftaChainTable:
				chain.Table = families[b[0]] + " " + text(v)
			case nftaChainName:
				chain.Name = text(v)
			}
		}
		all = append(all, chain)
	}
	return all, nil
}

// Programs lists the names of the processes that the caller can see, as
// /proc/PID/comm has them (at most 15 bytes), by PID in decimal.
func Programs() (map[string]string, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	all := map[string]string{}
	for _, e := range entries {
		if name := e.Name(); name[0] < '0' || name[0] > '9' {
			continue
		}
		comm, err := os.ReadFile("/proc/" + e.Name() + "/comm")
		if err != nil {
			continue // it has ended
		}
		all[e.Name()] = strings.TrimSpace(string(comm))
	}
	return all, nil
}

// families are the names of those of nftables.
var families = map[byte]string{unix.NFPROTO_INET: "inet", unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6",
	unix.NFPROTO_ARP: "arp", unix.NFPROTO_NETDEV: "netdev", unix.NFPROTO_BRIDGE: "bridge"}
