package imds

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/fairway-cni/fairway/internal/core/vpc"
	"github.com/fairway-cni/fairway/lab/ec2sim"
	lab "github.com/fairway-cni/fairway/lab/imds"
)

var cmpNet = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})

// metadata is what an instance of a simulated EC2 is, as far as ENIs say it.
func metadata(c *ec2sim.Cloud, instance string) lab.Metadata {
	snap := c.Snapshot()
	m := lab.Metadata{InstanceID: instance}
	for _, e := range snap.Interfaces {
		if e.Attachment == nil || e.Attachment.InstanceID != instance {
			continue
		}
		i := lab.Interface{
			MAC: e.MAC.String(), ID: e.ID, DeviceNumber: e.Attachment.DeviceIndex, NetworkCard: e.Attachment.CardIndex,
			LocalIPv4s: append([]netip.Addr{e.Primary}, e.Secondary...), Prefixes: e.Prefixes,
			SubnetID: e.SubnetID, VPCID: e.VPCID, SecurityGroupIDs: e.Groups,
		}
		for _, n := range snap.Subnets {
			if n.ID == e.SubnetID {
				i.SubnetCIDR = n.CIDR
			}
		}
		m.Interfaces = append(m.Interfaces, i)
	}
	return m
}

// wantENIs is what a simulated EC2 says is attached, without what only EC2 knows.
func wantENIs(c *ec2sim.Cloud) []vpc.ENI {
	snap := c.Snapshot()
	var enis []vpc.ENI
	for _, e := range snap.Interfaces {
		if a := e.Attachment; a != nil {
			enis = append(enis, vpc.ENI{
				ID: e.ID, MAC: vpc.MAC(e.MAC), DeviceIndex: a.DeviceIndex, CardIndex: a.CardIndex, SubnetID: e.SubnetID,
				Subnet: snap.Subnets[0].CIDR, Primary: e.Primary, Secondary: e.Secondary, Prefixes: e.Prefixes, Groups: e.Groups,
			})
		}
	}
	slices.SortFunc(enis, func(a, b vpc.ENI) int { return 1000*(a.CardIndex-b.CardIndex) + a.DeviceIndex - b.DeviceIndex })
	return enis
}

// TestENIsOfASimulatedInstance grows an instance in EC2 and reads it after each step.
func TestENIsOfASimulatedInstance(t *testing.T) {
	cloud := ec2sim.New(ec2sim.Config{})
	fatal := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	v, err := cloud.CreateVPC(ec2sim.CreateVPCInput{CIDR: netip.MustParsePrefix("10.0.0.0/16")})
	fatal(err)
	n, err := cloud.CreateSubnet(ec2sim.CreateSubnetInput{VPCID: v.ID, CIDR: netip.MustParsePrefix("10.0.0.0/20")})
	fatal(err)
	run, err := cloud.RunInstances(ec2sim.RunInstancesInput{Type: "p5.48xlarge", SubnetID: n.ID})
	fatal(err)
	id := run.Instances[0].ID
	srv := httptest.NewServer(lab.New(func() (lab.Metadata, bool) { return metadata(cloud, id), true }, time.Now))
	t.Cleanup(srv.Close)
	c := client(srv.URL)
	check := func(step string, number int) {
		t.Helper()
		got, err := c.ENIs(t.Context())
		if d := cmp.Diff(wantENIs(cloud), got, cmpNet, cmpopts.EquateEmpty()); err != nil || d != "" || len(got) != number {
			t.Errorf("%s: %d ENIs, %v (-want +got):\n%s", step, len(got), err, d)
		}
	}
	check("launched", 1)
	for card := range 3 { // cards out of order
		e, err := cloud.CreateNetworkInterface(ec2sim.CreateNetworkInterfaceInput{SubnetID: n.ID, Addresses: ec2sim.Addressing{Count: 3}})
		fatal(err)
		_, err = cloud.AttachNetworkInterface(ec2sim.AttachNetworkInterfaceInput{InterfaceID: e.ID, InstanceID: id, DeviceIndex: 1, CardIndex: 2 - card})
		fatal(err)
	}
	check("grown", 4)
	second := wantENIs(cloud)[1]
	_, err = cloud.AssignPrivateIPAddresses(ec2sim.AssignPrivateIPAddressesInput{ID: second.ID, PrefixCount: 2})
	fatal(err)
	fatal(cloud.UnassignPrivateIPAddresses(ec2sim.UnassignPrivateIPAddressesInput{ID: second.ID, Addresses: second.Secondary}))
	check("prefixes for addresses", 4)
	fatal(cloud.TakeENI(second.ID))
	check("one less", 3)
}

// interfaces is an instance with two ENIs, the second for EFA alone.
func interfaces() map[string]string {
	const second = "/latest/meta-data/network/interfaces/macs/02:00:00:00:00:02/"
	return map[string]string{
		"/latest/meta-data/network/interfaces/macs/": "02:00:00:00:00:02/\n02:00:00:00:00:01/",
		eniPath:                            "device-number\ninterface-id\nipv4-prefix\nlocal-ipv4s\nsecurity-group-ids\nsubnet-id\nsubnet-ipv4-cidr-block\n",
		eniPath + "device-number":          "0",
		eniPath + "interface-id":           "eni-1",
		eniPath + "ipv4-prefix":            "10.0.1.32/28\n10.0.1.64/28",
		eniPath + "local-ipv4s":            "10.0.1.4\n10.0.1.10\n10.0.1.11",
		eniPath + "security-group-ids":     "sg-1\nsg-2",
		eniPath + "subnet-id":              "subnet-1",
		eniPath + "subnet-ipv4-cidr-block": "10.0.1.0/24",
		second:                             "device-number\ninterface-id\nnetwork-card\nsubnet-id",
		second + "device-number":           "1",
		second + "interface-id":            "eni-2",
		second + "network-card":            "3",
		second + "subnet-id":               "subnet-1",
	}
}

func bothENIs() []vpc.ENI {
	addr := netip.MustParseAddr
	return []vpc.ENI{{
		ID: "eni-1", MAC: vpc.MAC{2, 0, 0, 0, 0, 1}, SubnetID: "subnet-1", Subnet: netip.MustParsePrefix("10.0.1.0/24"),
		Primary: addr("10.0.1.4"), Secondary: []netip.Addr{addr("10.0.1.10"), addr("10.0.1.11")},
		Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.1.32/28"), netip.MustParsePrefix("10.0.1.64/28")},
		Groups:   []string{"sg-1", "sg-2"},
	}, {ID: "eni-2", MAC: vpc.MAC{2, 0, 0, 0, 0, 2}, DeviceIndex: 1, CardIndex: 3, SubnetID: "subnet-1"}}
}

// TestENIThatVanishes takes the second ENI away before each request for it: it is
// left out, whole, and never an error. Without the primary there is no answer.
func TestENIThatVanishes(t *testing.T) {
	for _, tc := range []struct {
		mac  string
		left []vpc.ENI
	}{
		{"02:00:00:00:00:02", bothENIs()[:1]},
		{"02:00:00:00:00:01", nil},
	} {
		for after := 0; ; after++ {
			all := interfaces()
			var mu sync.Mutex
			asked := 0
			c := handle(t, func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				if r.Method == http.MethodPut {
					w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "60")
					fmt.Fprint(w, "secret")
					return
				}
				if strings.Contains(r.URL.Path, tc.mac) {
					if asked == after {
						maps.DeleteFunc(all, func(path, _ string) bool { return strings.Contains(path, tc.mac) })
					}
					asked++
				}
				item, ok := all[r.URL.Path]
				if !ok {
					http.NotFound(w, r)
					return
				}
				fmt.Fprint(w, item)
			})
			got, err := c.ENIs(t.Context())
			if asked <= after { // it stayed to the end
				if d := cmp.Diff(bothENIs(), got, cmpNet); err != nil || d != "" || after < 5 {
					t.Errorf("after %d requests: %v (-want +got):\n%s", after, err, d)
				}
				break
			}
			if d := cmp.Diff(tc.left, got, cmpNet); d != "" || (err != nil) != (tc.left == nil) {
				t.Errorf("%s vanishes before request %d: %v (-want +got):\n%s", tc.mac, after, err, d)
			}
			if err != nil && !strings.Contains(err.Error(), "no network interface with device number 0") {
				t.Errorf("without the primary: %v", err)
			}
		}
	}
}

func TestBadENIs(t *testing.T) {
	const list = "/latest/meta-data/network/interfaces/macs/"
	html := "<html>" + strings.Repeat("x", 200) + "</html>"
	var many strings.Builder
	for i := range maxENIs + 1 {
		fmt.Fprintf(&many, "02:00:00:00:%02x:%02x/\n", i>>8, i&255)
	}
	for _, tc := range []struct {
		name, path, answer string // the empty answer is a 404
		want               string
		is                 error
	}{
		{"no list", list, "", "macs/", ErrNotFound},
		{"list garbled", list, html, `network interface "<html>xxx`, nil},
		{"long address", list, "02:00:00:00:00:00:00:01/", "which is no MAC address", nil},
		{"nothing", list, "\n", "no network interface with device number 0", nil},
		{"twice", list, "02:00:00:00:00:01/\n02:00:00:00:00:01", "02:00:00:00:00:01 twice", nil},
		{"too many", list, many.String(), "more than 256 network interfaces", nil},
		{"id garbled", eniPath + "interface-id", html, "interface-id: \"<html>xxx", nil},
		{"id of something else", eniPath + "interface-id", "i-1", `"i-1" is no identifier that begins with eni-`, nil},
		{"subnet garbled", eniPath + "subnet-id", "subnet-1 x", "subnet-id", nil},
		{"device number", eniPath + "device-number", "-1", `"-1" is no number from 0 to 255`, nil},
		{"device number huge", eniPath + "device-number", "256", `"256" is no number`, nil},
		{"CIDR", eniPath + "subnet-ipv4-cidr-block", "10.0.1.0", `"10.0.1.0" is no IPv4 CIDR block`, nil},
		{"address", eniPath + "local-ipv4s", "10.0.1.4\n10.0.1.400", `"10.0.1.400" is no IPv4 address`, nil},
		{"IPv6 address", eniPath + "local-ipv4s", "2001:db8::1", "is no IPv4 address", nil},
		{"no address on the primary", eniPath + "local-ipv4s", "\n", "no network interface with device number 0", nil},
		{"prefix", eniPath + "ipv4-prefix", "10.0.0.0/8", `"10.0.0.0/8" is no IPv4 /28`, nil},
		{"group", eniPath + "security-group-ids", "sg-1\n{}", `"{}" is no identifier that begins with sg-`, nil},
		{"huge", eniPath + "local-ipv4s", strings.Repeat("1", maxText+1), "more than 16384 bytes", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			all := interfaces()
			all[tc.path] = tc.answer
			if tc.answer == "" {
				delete(all, tc.path)
			}
			enis, err := serve(t, all).ENIs(t.Context())
			if err == nil {
				t.Fatalf("no error; ENIs %+v", enis)
			}
			if !strings.Contains(err.Error(), tc.want) || len(err.Error()) > 500 || !strings.HasPrefix(err.Error(), "read network interfaces: ") {
				t.Errorf("error %q, want %q in it", err, tc.want)
			}
			if tc.is != nil && !errors.Is(err, tc.is) || errors.Is(err, ErrUnavailable) {
				t.Errorf("error %v is of the wrong class", err)
			}
		})
	}
	t.Run("in trouble", func(t *testing.T) {
		c := handle(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
		if _, err := c.ENIs(t.Context()); !errors.Is(err, ErrUnavailable) {
			t.Errorf("error %v, want ErrUnavailable", err)
		}
	})
}

// FuzzLists reads lists of all kinds from what anybody may answer.
func FuzzLists(f *testing.F) {
	for _, s := range []string{"", "\n", "02:00:00:00:00:01/\n02:00:00:00:00:02/", "02:00:00:00:00:01", "02-00-00-00-00-01", "0200.0000.0001",
		"10.0.0.1\n10.0.0.2", "10.0.0.01", "::ffff:10.0.0.1", "10.0.0.16/28", "10.0.0.17/28", "10.0.0.0/0", "255", "\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if macs, err := parseMACs(s); err == nil && (len(macs) > maxENIs || len(slices.Compact(slices.SortedFunc(slices.Values(macs), func(a, b vpc.MAC) int {
			return strings.Compare(a.String(), b.String())
		}))) != len(macs)) {
			t.Fatalf("MACs %v", macs)
		}
		addrs, err := parseAddrs(s)
		if err == nil && len(addrs) != len(strings.Fields(s)) {
			t.Fatalf("%d addresses of %q", len(addrs), s)
		}
		for _, a := range addrs {
			if !a.Is4() {
				t.Fatalf("address %s", a)
			}
		}
		blocks, _ := parseBlocks(s)
		for _, p := range blocks {
			if !p.Addr().Is4() || p.Bits() != blockBits || p != p.Masked() {
				t.Fatalf("prefix %s", p)
			}
		}
		if n, err := parseIndex(s); err == nil && (n < 0 || n > 255) {
			t.Fatalf("index %d", n)
		}
		if p, err := parseSubnet(s); err == nil && (!p.Addr().Is4() || p != p.Masked()) {
			t.Fatalf("subnet %s", p)
		}
	})
}
