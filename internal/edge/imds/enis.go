package imds

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/fairway-cni/fairway/internal/core/vpc"
)

// ENIsTimeout bounds [Client.ENIs], which reads some seven items of each ENI.
const ENIsTimeout = 4 * Timeout

const (
	// maxENIs bounds the ENIs of one instance; the largest type has 64.
	maxENIs = 256
	// blockBits is the size of an ENI's prefixes ("Assign prefixes to network
	// interfaces", Amazon EC2 User Guide).
	blockBits = 28
	macsPath  = "network/interfaces/macs/"
)

// errGone says that an ENI has gone while it was read.
var errGone = errors.New("gone")

// ENIs reads what is attached to the instance, by card and device index: identity,
// place, addresses and security groups. The service does not know the rest of a
// [vpc.ENI]. An ENI that goes away, or is not all there yet, while it is read is
// left out, but never the primary: an answer without it is an error.
//
// The service lags EC2 by some seconds. Errors: those of [Client.Identity].
func (c *Client) ENIs(ctx context.Context) ([]vpc.ENI, error) {
	ctx, cancel := context.WithTimeout(ctx, ENIsTimeout)
	defer cancel()
	enis, err := c.enis(ctx)
	if err != nil {
		return nil, fmt.Errorf("read network interfaces: %w", err)
	}
	return enis, nil
}

func (c *Client) enis(ctx context.Context) ([]vpc.ENI, error) {
	text, err := c.get(ctx, macsPath)
	if err != nil {
		return nil, err
	}
	macs, err := parseMACs(text)
	if err != nil {
		return nil, err
	}
	var enis []vpc.ENI
	for _, mac := range macs {
		e, err := c.eni(ctx, mac)
		if errors.Is(err, errGone) {
			continue
		}
		if err != nil {
			return nil, err
		}
		enis = append(enis, e)
	}
	slices.SortFunc(enis, func(a, b vpc.ENI) int {
		return cmp.Or(cmp.Compare(a.CardIndex, b.CardIndex), cmp.Compare(a.DeviceIndex, b.DeviceIndex), cmp.Compare(a.ID, b.ID))
	})
	if !slices.ContainsFunc(enis, func(e vpc.ENI) bool { return e.DeviceIndex == 0 && e.Primary.IsValid() }) {
		return nil, errors.New("metadata has no network interface with device number 0 and an address")
	}
	return enis, nil
}

// eni reads one ENI. The listing of its directory says which items it has.
func (c *Client) eni(ctx context.Context, mac vpc.MAC) (vpc.ENI, error) {
	dir := macsPath + mac.String() + "/"
	list, err := c.get(ctx, dir)
	if errors.Is(err, ErrNotFound) {
		return vpc.ENI{}, errGone
	}
	if err != nil {
		return vpc.ENI{}, err
	}
	listed := strings.Fields(list)
	e := vpc.ENI{MAC: mac}
	for _, item := range []struct {
		name     string
		optional bool
		set      func(text string) error
	}{
		{"interface-id", false, func(s string) error { e.ID = s; return wantID(s, "eni-") }},
		{"subnet-id", false, func(s string) error { e.SubnetID = s; return wantID(s, "subnet-") }},
		{"device-number", false, func(s string) (err error) { e.DeviceIndex, err = parseIndex(s); return err }},
		{"network-card", true, func(s string) (err error) { e.CardIndex, err = parseIndex(s); return err }},
		{"subnet-ipv4-cidr-block", true, func(s string) (err error) { e.Subnet, err = parseSubnet(s); return err }},
		// One for EFA alone has none.
		{"local-ipv4s", true, func(s string) error {
			addrs, err := parseAddrs(s)
			if len(addrs) > 0 {
				e.Primary = addrs[0]
				e.Secondary = append(e.Secondary, addrs[1:]...) // nil where there is none, as EC2 has it
			}
			return err
		}},
		{"ipv4-prefix", true, func(s string) (err error) { e.Prefixes, err = parseBlocks(s); return err }},
		{"security-group-ids", true, func(s string) error {
			e.Groups = strings.Fields(s)
			for _, g := range e.Groups {
				if err := wantID(g, "sg-"); err != nil {
					return err
				}
			}
			return nil
		}},
	} {
		if item.optional && !slices.Contains(listed, item.name) {
			continue
		}
		text, err := c.get(ctx, dir+item.name)
		if errors.Is(err, ErrNotFound) {
			return vpc.ENI{}, errGone
		}
		if err != nil {
			return vpc.ENI{}, err
		}
		if err := item.set(text); err != nil {
			return vpc.ENI{}, fmt.Errorf("metadata item %s: %w", dir+item.name, err)
		}
	}
	return e, nil
}

func wantID(s, prefix string) error {
	if !plain(s) || !strings.HasPrefix(s, prefix) {
		return fmt.Errorf("%s is no identifier that begins with %s", short(s), prefix)
	}
	return nil
}

// parseMACs reads the listing of the interfaces, one directory each.
func parseMACs(text string) ([]vpc.MAC, error) {
	var macs []vpc.MAC
	for _, field := range strings.Fields(text) {
		m, err := vpc.ParseMAC(strings.TrimSuffix(field, "/"))
		switch {
		case err != nil || len(field) > len("00:00:00:00:00:00/"):
			return nil, fmt.Errorf("metadata has network interface %s, which is no MAC address", short(field))
		case slices.Contains(macs, m):
			return nil, fmt.Errorf("metadata has network interface %s twice", m)
		case len(macs) == maxENIs:
			return nil, fmt.Errorf("metadata has more than %d network interfaces", maxENIs)
		}
		macs = append(macs, m)
	}
	return macs, nil
}

// parseIndex reads the number of a device or card.
func parseIndex(text string) (int, error) {
	n, err := strconv.ParseUint(text, 10, 8)
	if err != nil {
		return 0, fmt.Errorf("%s is no number from 0 to 255", short(text))
	}
	return int(n), nil
}

func parseSubnet(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil || !p.Addr().Is4() {
		return netip.Prefix{}, fmt.Errorf("%s is no IPv4 CIDR block", short(text))
	}
	return p.Masked(), nil
}

// parseAddrs reads the addresses of an ENI, its primary first.
func parseAddrs(text string) ([]netip.Addr, error) {
	var addrs []netip.Addr
	for _, field := range strings.Fields(text) {
		a, err := netip.ParseAddr(field)
		if err != nil || !a.Is4() {
			return nil, fmt.Errorf("%s is no IPv4 address", short(field))
		}
		addrs = append(addrs, a)
	}
	return addrs, nil
}

// parseBlocks reads the prefixes of an ENI. Another size than EC2's is refused:
// whoever lists a block's addresses counts on a small one.
func parseBlocks(text string) ([]netip.Prefix, error) {
	var blocks []netip.Prefix
	for _, field := range strings.Fields(text) {
		p, err := netip.ParsePrefix(field)
		if err != nil || !p.Addr().Is4() || p.Bits() != blockBits {
			return nil, fmt.Errorf("%s is no IPv4 /%d", short(field), blockBits)
		}
		blocks = append(blocks, p.Masked())
	}
	return blocks, nil
}
