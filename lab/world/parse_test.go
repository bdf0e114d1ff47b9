package world

import (
	"bytes"
	"errors"
	"flag"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/fairway-cni/fairway/lab/ec2sim"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

var ignoreKeys = cmpopts.IgnoreUnexported(World{}, VPC{}, Subnet{}, Instance{}, Daemon{}, PrefixList{}, SecurityGroup{}, GroupRule{},
	NetworkACL{}, ACLEntry{}, RouteTable{}, Route{}, NATGateway{}, Peering{}, TransitGateway{}, TransitTable{}, Internet{}, EC2{}, Role{})

var comparePrefix = cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestParse(t *testing.T) {
	got, err := Parse("w.yaml", read(t, "two-vpcs.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	at := func(line int) Pos { return Pos{"w.yaml", line} }
	want := &World{
		Pos:    at(2),
		Name:   "two-vpcs",
		Region: "us-gov-west-1",
		VPCs: []VPC{
			{
				Pos: at(18), Name: "one",
				CIDRs:   []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16"), netip.MustParsePrefix("100.64.0.0/16")},
				Subnets: []Subnet{{Pos: at(21), Name: "a", CIDR: netip.MustParsePrefix("10.0.1.0/24"), Zone: "us-gov-west-1c"}},
			},
			{
				Pos: at(22), Name: "two",
				CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")},
				Subnets: []Subnet{
					{Pos: at(25), Name: "a", CIDR: netip.MustParsePrefix("10.0.1.0/24"), Zone: "us-gov-west-1a"},
					{Pos: at(26), Name: "b", CIDR: netip.MustParsePrefix("10.0.2.0/28"), Zone: "us-gov-west-1c"},
				},
			},
		},
		Instances: []Instance{
			{
				Pos: at(3), Name: "left", Type: "c5.xlarge", VPC: "one", Subnet: "a",
				HopLimit: 1, SecondaryAddresses: 3, Prefixes: 2,
				Daemons: []Daemon{
					{
						Pos: at(10), Name: "agent", Command: []string{"fairway-agent", "--verbose"},
						Capabilities: []string{"NET_ADMIN", "NET_RAW"}, Env: map[string]string{"LEVEL": "debug", "WORKERS": "2"},
					},
					{Pos: at(14), Name: "shell", Command: []string{"sleep", "infinity"}, Capabilities: []string{}},
					{Pos: at(15), Name: "free", Command: []string{"sleep", "infinity"}},
				},
			},
			{Pos: at(16), Name: "right", Type: "m5.large", VPC: "two", Subnet: "b", HopLimit: 2},
		},
	}
	if diff := cmp.Diff(want, got, ignoreKeys, comparePrefix); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	v, s, ok := got.FindSubnet(got.Instances[0])
	if !ok || v.Name != "one" || s.Zone != "us-gov-west-1c" {
		t.Errorf("FindSubnet(left) = %s, %s, %v", v.Name, s.Zone, ok)
	}
}

func TestDefault(t *testing.T) {
	w := Default()
	if w.Name != "demo" || w.Region != "eu-west-1" || len(w.VPCs) != 1 || len(w.Instances) != 2 {
		t.Fatalf("not the world that the documentation names: %+v", w)
	}
	zones := map[string]bool{}
	for _, in := range w.Instances {
		_, s, ok := w.FindSubnet(in)
		if !ok || in.Type != "m5.large" || in.HopLimit != 2 || len(in.Daemons) != 1 {
			t.Errorf("instance %s: %+v", in.Name, in)
		}
		zones[s.Zone] = true
	}
	if len(zones) != 2 {
		t.Errorf("zones %v, want two", zones)
	}
	// It is the documentation: every key that the parser knows is in it.
	for _, key := range []string{
		"name", "region", "vpcs", "cidr", "cidrs", "subnets", "zone", "instances", "type", "subnet", "hopLimit",
		"secondaryAddresses", "prefixes", "daemons", "command", "capabilities", "env",
		"internetGateway", "natGateways", "private", "securityGroups", "ingress", "egress", "protocol", "ports", "from", "to",
		"networkAcls", "number", "action", "routeTables", "main", "routes", "via", "publicAddresses", "elasticAddress", "sourceDestCheck",
		"peerings", "transitGateways", "tables", "propagate", "prefixLists", "entries", "internet", "hosts", "roles", "policy", "role",
		"ec2", "throttle", "lag", "attach", "imdsLag", "delay", "delays", "iam", "seed", "quotas", "networkInterfaces", "addressUsage",
		"peeredAddressUsage", "vpcs", "routeTables", "elasticAddresses",
	} {
		if !bytes.Contains(DefaultYAML, []byte(key+":")) {
			t.Errorf("default.yaml does not show %s", key)
		}
	}
}

// Everything wrong in one file is told at once, in the order of the file.
func TestParseTellsAll(t *testing.T) {
	_, err := Parse("world.yaml", read(t, "everything-wrong.yaml"))
	if err == nil {
		t.Fatal("accepted")
	}
	got := err.Error() + "\n"
	if *update {
		if err := os.WriteFile("testdata/everything-wrong.txt", []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(string(read(t, "everything-wrong.txt")), got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	var first *Error
	if !errors.As(err, &first) || first.Pos != (Pos{"world.yaml", 1}) {
		t.Errorf("first problem at %v, want line 1", first)
	}
}

// good is a world that each case of TestParseErrors breaks in one place.
const good = `name: demo
vpcs:
  - name: main
    cidr: 10.0.0.0/16
    subnets:
      - {name: a, cidr: 10.0.1.0/24, zone: a}
      - {name: b, cidr: 10.0.2.0/28, zone: b}
  - name: other
    cidr: 10.0.0.0/16
    subnets:
      - {name: a, cidr: 10.0.1.0/24}
instances:
  - name: node-a
    type: m5.large
    subnet: b
    daemons:
      - {name: agent, command: [fairway-agent], capabilities: [NET_ADMIN], env: {A: b}}
`

// node is the line of good after which instances get more keys.
const node = "    subnet: b\n"

// broken are ways to break good, and what is said of them.
var broken = []struct {
	name, old, new string
	want           string
}{
	{"unknown key", "    type: m5.large", "    tpye: m5.large",
		`w:13: instance "node-a" has no type: add one, such as type: m5.large` + "\n" +
			`w:14: unknown key "tpye" in instance (did you mean "type"?): known keys are name, type, subnet, hopLimit, secondaryAddresses, prefixes, daemons, securityGroups, elasticAddress, sourceDestCheck, role`},
	{"key twice", node, node + node, `w:16: key "subnet" in instance is there twice, first in line 15`},
	{"anchor", "name: demo", "name: &x demo", `w:1: anchor "x": anchors and aliases are not accepted, write the value out`},
	{"alias", node, "    subnet: *x\n", `w:15: not YAML: unknown anchor 'x' referenced`},
	{"tag", "name: demo", "name: !!str demo", `w:1: tag "!!str": tags are not accepted, write the plain value`},
	{"syntax", "name: demo", "name: [", `w:2: not YAML: did not find expected node content`},
	{"second document", "env: {A: b}}\n", "env: {A: b}}\n---\nname: x\n", `w:18: a second YAML document begins here: a world is one document`},
	{"deep", "name: demo", "name: " + strings.Repeat("[", 40) + strings.Repeat("]", 40), `w:1: nested deeper than 16 levels`},
	{"name missing", "name: demo\n", "", `w:1: the world has no name: add one, such as name: demo`},
	{"name null", "name: demo", "name:", `w:1: name: found nothing, want text`},
	{"name long", "name: demo", "name: abcdefghijklmnopqrstu", `w:1: name "abcdefghijklmnopqrstu": want a-z, 0-9 and "-", a letter or digit first, at most 20 characters`},
	{"name is a list", "name: demo", "name: [demo]", `w:1: name: found a list, want text`},
	{"vpcs is text", "vpcs:", "vpcs: x\nxvpcs:", "w:2: vpcs: found \"x\", want a list\n" +
		`w:3: unknown key "xvpcs" in world (did you mean "vpcs"?): known keys are name, region, vpcs, instances, prefixLists, peerings, transitGateways, internet, ec2, roles`},
	{"vpc is text", "  - name: main\n", "  - main\n  - name: main\n",
		`w:3: vpc: found "main", want a mapping with the keys name, region, cidr, cidrs, subnets, internetGateway, natGateways, securityGroups, networkAcls, routeTables, flowLogs`},
	{"vpc too large", "cidr: 10.0.0.0/16\n    subnets:\n      - {name: a, cidr: 10.0.1.0/24}", "cidr: 10.0.0.0/15",
		`w:9: vpc "other" 10.0.0.0/15: the size must be between /16 and /28`},
	{"vpc of ipv6", "cidr: 10.0.0.0/16\n    subnets:\n      - {name: a, cidr: 10.0.1.0/24}", "cidr: fd00::/64",
		`w:9: vpc "other" fd00::/64: want an IPv4 block`},
	{"vpc host bits", "cidr: 10.0.0.0/16\n    subnets:\n      - {name: a, cidr: 10.0.1.0/24}", "cidr: 10.0.0.1/16",
		`w:9: vpc "other" 10.0.0.1/16 has host bits set: write 10.0.0.0/16`},
	{"vpc of loopback", "cidr: 10.0.0.0/16\n    subnets:\n      - {name: a, cidr: 10.0.1.0/24}", "cidr: 127.0.0.0/16",
		`w:9: vpc "other" 127.0.0.0/16 lies in 127.0.0.0/8, which a VPC cannot use: take a block of 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or 100.64.0.0/10`},
	{"vpc name twice", "name: other", "name: main", `w:8: vpc "main" is there twice, first in line 3`},
	{"cidr and cidrs", "cidr: 10.0.0.0/16\n    subnets:\n      - {name: a, cidr: 10.0.1.0/24, zone", "cidr: 10.0.0.0/16\n    cidrs: [100.64.0.0/16]\n    subnets:\n      - {name: a, cidr: 10.0.1.0/24, zone",
		`w:5: vpc "main" has both cidr and cidrs: put all of them in cidrs, the primary first`},
	{"cidrs overlap", "cidr: 10.0.0.0/16\n    subnets:\n      - {name: a, cidr: 10.0.1.0/24, zone", "cidrs:\n    - 10.0.0.0/16\n    - 10.0.4.0/24\n    subnets:\n      - {name: a, cidr: 10.0.1.0/24, zone",
		`w:6: vpc "main": 10.0.4.0/24 overlaps 10.0.0.0/16 (line 5): a VPC's CIDRs must not overlap`},
	{"no cidr", "    cidr: 10.0.0.0/16\n    subnets:\n      - {name: a, cidr: 10.0.1.0/24}", "    subnets: []",
		`w:8: vpc "other" has no cidr: add one, such as cidr: 10.0.0.0/16`},
	{"subnets overlap", "10.0.2.0/28", "10.0.1.128/25",
		`w:7: subnet "b" 10.0.1.128/25 overlaps subnet "a" 10.0.1.0/24 (line 6): CIDRs of a VPC's subnets must not overlap`},
	{"subnet outside", "10.0.2.0/28", "10.1.2.0/28", `w:7: subnet "b" 10.1.2.0/28 is not inside its vpc "main", which has 10.0.0.0/16`},
	{"subnet larger than vpc", "cidr: 10.0.0.0/16\n    subnets:\n      - {name: a, cidr: 10.0.1.0/24}", "cidr: 10.0.0.0/20\n    subnets:\n      - {name: a, cidr: 10.0.0.0/16}",
		`w:11: subnet "a" 10.0.0.0/16 is not inside its vpc "other", which has 10.0.0.0/20`},
	{"subnet too small", "10.0.2.0/28", "10.0.2.0/29", `w:7: subnet "b" 10.0.2.0/29: the size must be between /16 and /28`},
	{"subnet not a cidr", "10.0.2.0/28", "10.0.2.0", `w:7: cidr "10.0.2.0": want an IPv4 CIDR block such as 10.0.0.0/16`},
	{"subnet without cidr", ", cidr: 10.0.2.0/28", "", `w:7: subnet "b" has no cidr: add a part of its VPC, such as cidr: 10.0.1.0/24`},
	{"subnet name twice", "{name: b", "{name: a", "w:7: subnet \"a\" is there twice, first in line 6\n" +
		`w:15: instance "node-a": there is no subnet "b" (did you mean "a"?): subnets are main/a, main/a, other/a`},
	{"subnet full", node, node + "    secondaryAddresses: 9\n  - {name: n2, type: m5.large, subnet: b, secondaryAddresses: 1}\n  - {name: n3, type: m5.large, subnet: main/a}\n  - name: n4\n    type: m5.large\n    subnet: main/a\n",
		`w:7: subnet "b" 10.0.2.0/28 has 11 addresses to give (AWS keeps 5, prefixes take 0), its 2 instances are launched with 12: make it larger`},
	{"subnet without room for a prefix", node, node + "    prefixes: 1\n", `w:7: subnet "b" 10.0.2.0/28 has 0 free /28 blocks, its instances are launched with 1 prefixes: make it larger`},
	{"zone", "zone: b", "zone: eu-west-1b", `w:7: subnet "b": zone "eu-west-1b": want a, b or c, the zones of every region of the lab: a becomes eu-west-1a`},
	{"region", "name: demo", "name: demo\nregion: eu-west", `w:2: region "eu-west": want the shape of eu-west-1`},
	{"type", "m5.large", "m5.huge", `w:14: instance "node-a": unknown instance type "m5.huge": want one of EC2's, such as m5.large`},
	{"instance name", "name: node-a", "name: node_a", `w:13: instance name "node_a": want a-z, 0-9 and "-" inside, at most 63 characters`},
	{"no subnet key", node, "", `w:13: instance "node-a" has no subnet: name one of the world's, as SUBNET or VPC/SUBNET`},
	{"ambiguous subnet", node, "    subnet: a\n", `w:15: instance "node-a": subnet "a" is in more than one VPC: write it as VPC/SUBNET, such as "main/a"`},
	{"unknown subnet", node, "    subnet: othre/a\n", `w:15: instance "node-a": there is no subnet "othre/a" (did you mean "other/a"?): subnets are main/a, main/b, other/a`},
	{"hop limit", node, node + "    hopLimit: 0\n", `w:16: instance "node-a": hopLimit 0: want 1 to 64`},
	{"not a number", node, node + "    hopLimit: 0x2\n", `w:16: hopLimit: found "0x2", want a whole number`},
	{"negative", node, node + "    prefixes: -1\n", `w:16: instance "node-a": prefixes -1: want 0 or more`},
	{"more than the type holds", node, "    subnet: main/a\n    secondaryAddresses: 9223372036854775807\n    prefixes: 9\n", `w:17: instance "node-a": 9223372036854775807 secondary addresses and 9 prefixes: an ENI of m5.large has room for 9 together beside its primary address`},
	{"prefixes on xen", "type: m5.large\n    subnet: b", "type: m4.large\n    subnet: main/a\n    prefixes: 1", `w:16: instance "node-a": m4.large cannot hold prefixes: only Nitro instances can, such as m5.large`},
	{"no command", "command: [fairway-agent], ", "", `w:17: instance "node-a": daemon "agent" has no command: add one, such as command: [fairway-agent]`},
	{"command is text", "[fairway-agent]", "fairway-agent", `w:17: command: found "fairway-agent", want a list`},
	{"capability", "NET_ADMIN", "NET_ADMIM", `w:17: instance "node-a": daemon "agent": unknown capability "NET_ADMIM" (did you mean "NET_ADMIN"?): want the names of capabilities(7)`},
	{"capability twice", "[NET_ADMIN]", "[NET_ADMIN, CAP_NET_ADMIN]", `w:17: instance "node-a": daemon "agent": capability NET_ADMIN is there twice`},
	{"env name", "{A: b}", "{1A: b}", `w:17: instance "node-a": daemon "agent": env name "1A": want letters, digits and "_", no digit first`},
	{"env is a list", "{A: b}", "[A, b]", `w:17: env: found a list, want a mapping of at most 256 names to values`},
	{"env value", "{A: b}", "{A: [b]}", `w:17: env "A": found a list, want text`},
	{"env twice", "{A: b}", "{A: b, A: c}", `w:17: env "A" is there twice`},
}

func TestParseErrors(t *testing.T) {
	if _, err := Parse("w", []byte(good)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range broken {
		t.Run(tt.name, func(t *testing.T) {
			if !strings.Contains(good, tt.old) {
				t.Fatalf("the good world does not have %q", tt.old)
			}
			_, err := Parse("w", []byte(strings.Replace(good, tt.old, tt.new, 1)))
			if err == nil {
				t.Fatal("accepted")
			}
			if diff := cmp.Diff(tt.want, err.Error()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestParseLimits(t *testing.T) {
	tests := []struct {
		name string
		data string
		want string
	}{
		{"empty", "", "w:1: the file is empty: it needs at least name, vpcs and instances"},
		{"only a comment", "# nothing\n", "w:1: the file is empty: it needs at least name, vpcs and instances"},
		{"a list", "- a\n", "w:1: world: found a list, want a mapping with the keys name, region, vpcs, instances, prefixLists, peerings, transitGateways, internet, ec2, roles"},
		{"too large", strings.Repeat("#", maxFile+1), "w:1: the file has 1048577 bytes: at most 1048576 are read"},
		{"too many subnets", "name: x\nvpcs:\n- {name: v, cidr: 10.0.0.0/16, subnets: [" + strings.Repeat("{},", maxSubnets+1) + "]}\n",
			"w:3: subnets: 201 elements, at most 200 are accepted"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("w", []byte(tt.data))
			if err == nil || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
	t.Run("too many problems", func(t *testing.T) {
		_, err := Parse("w", []byte(strings.Repeat("x: y\n", 10_000)))
		if err == nil {
			t.Fatal("accepted")
		}
		if lines := strings.Split(err.Error(), "\n"); len(lines) != maxProblems+1 || lines[maxProblems] != "and more problems" {
			t.Errorf("%d lines, the last %q", len(lines), lines[len(lines)-1])
		}
	})
}

// A World that was built in Go has no lines, and is checked all the same.
func TestValidate(t *testing.T) {
	w := &World{
		Name: "go", Region: "eu-west-1",
		VPCs: []VPC{{Name: "main", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")}, Subnets: []Subnet{
			{Name: "a", CIDR: netip.MustParsePrefix("10.0.1.0/24"), Zone: "eu-west-1a"},
		}}},
		Instances: []Instance{{Name: "n", Type: "m5.large", VPC: "main", Subnet: "a", HopLimit: 2}},
	}
	if err := w.Validate(); err != nil {
		t.Fatal(err)
	}
	w.VPCs[0].Subnets[0].Zone = "a1"
	w.Instances[0].Subnet = "b"
	want := "world: subnet \"a\": zone \"a1\": want a, b or c, the zones of every region of the lab: a becomes eu-west-1a\n" +
		"world: instance \"n\": there is no subnet \"main/b\""
	if err := w.Validate(); err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// buildable tells the refusals that the format does not foresee: quotas, and rules
// that are the same in other words.
func buildable(err error) bool {
	var refused *ec2sim.Error
	if !errors.As(err, &refused) {
		return false
	}
	return strings.HasSuffix(refused.Code, "LimitExceeded") || refused.Code == "InvalidPermission.Duplicate" ||
		strings.Contains(refused.Message, "security group name")
}

func FuzzParse(f *testing.F) {
	f.Add(DefaultYAML)
	f.Add([]byte(good))
	for _, name := range []string{"two-vpcs.yaml", "everything-wrong.yaml", "two-regions.yaml", "network.yaml"} {
		data, err := os.ReadFile("testdata/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("name: {? : }\n--- \n...\n%YAML 9\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		w, err := Parse("w", data)
		again, errAgain := Parse("w", data)
		if (w == nil) == (err == nil) {
			t.Fatalf("world %v with error %v", w, err)
		}
		if err != nil {
			if errAgain == nil || err.Error() != errAgain.Error() {
				t.Fatalf("first %v\nthen  %v", err, errAgain)
			}
			return
		}
		if !reflect.DeepEqual(w, again) {
			t.Fatalf("first %+v\nthen  %+v", w, again)
		}
		if err := w.Validate(); err != nil {
			t.Fatalf("parsed, and yet: %v", err)
		}
		// What is accepted can be built.
		if len(data) < 4096 {
			cloud := ec2sim.New(ec2sim.Config{Region: w.Region, Regions: w.Regions()})
			if err := build(cloud, w); err != nil && !buildable(err) {
				t.Fatalf("parsed, and yet cannot be built: %v", err)
			}
			topology(cloud.Snapshot(), w.Internet.Hosts)
		}
		for _, in := range w.Instances {
			if _, _, ok := w.FindSubnet(in); !ok {
				t.Fatalf("instance %q has no subnet", in.Name)
			}
		}
	})
}
