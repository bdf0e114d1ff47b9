package world

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Ways to break testdata/network.yaml, what is said of them, and in which line.
var brokenNetworks = []struct{ name, old, new, want string }{
	{"region", "region: us-east-1", "region: mars", `w:41: vpc "far": region "mars": want the shape of eu-west-1`},
	{"no remote", ", from: 0.0.0.0/0", "", `w:16: security group "web" of vpc "main": a rule has no remote: add from (or to, for egress), a CIDR block, a group or prefixList/NAME`},
	{"wrong key of a direction", "{protocol: udp, to: default}", "{protocol: udp, from: default}", "w:21: unknown key \"from\" in rule: known keys are protocol, ports, to\n" +
		`w:21: security group "default" of vpc "main": a rule has no remote: add from (or to, for egress), a CIDR block, a group or prefixList/NAME`},
	{"protocol", "{protocol: tcp, ports: 80-443", "{protocol: tpc, ports: 80-443", `w:16: security group "web" of vpc "main": protocol "tpc": want tcp, udp, icmp, all or a number of 0 to 255`},
	{"ports", "80-443", "443-80", `w:16: security group "web" of vpc "main": ports "443-80": want PORT or FIRST-LAST, of 0 to 65535`},
	{"ports of none", "protocol: 47,", "protocol: 47, ports: 1,", `w:21: security group "default" of vpc "main": ports "1": only tcp, udp and icmp have any`},
	{"icmp", "ports: 3/4", "ports: 256", `w:19: security group "web" of vpc "main": ports "256": want TYPE or TYPE/CODE, of 0 to 255`},
	{"host bits", "from: 10.0.0.0/8", "from: 10.0.0.1/8", `w:21: security group "default" of vpc "main": remote "10.0.0.1/8": want an IPv4 block without host bits`},
	{"unknown group", "from: web", "from: wbe", `w:19: security group "web" of vpc "main": remote "wbe": vpc "main" has no security group "wbe": want a CIDR block, a group or prefixList/NAME`},
	{"group across regions", "from: web", "from: far/default", `w:19: security group "web" of vpc "main": remote "far/default": a group can be named across a peering only within a region, and vpc "far" is in us-east-1`},
	{"group without peering", "vpcs: [main, other], routes: false", "vpcs: [main, far], routes: false", "w:18: security group \"web\" of vpc \"main\": remote \"other/default\": a group of another VPC can be named only where the two are peered"},
	{"prefix list", "prefixList/offices", "prefixList/office", `w:17: security group "web" of vpc "main": there is no prefix list "office"`},
	{"list entry", "192.0.2.0/24, 203", "192.0.2.1/24, 203", `w:53: prefix list "offices": entry 192.0.2.1/24: want an IPv4 block without host bits`},
	{"acl subnet", "subnets: [private]\n        ingress", "subnets: [privat]\n        ingress", `w:24: network acl strict: vpc "main" has no subnet "privat"`},
	{"acl number", "number: 100", "number: 200", `w:27: network acl strict: number 200 is there twice (line 26): the lowest number that matches decides`},
	{"acl range", "number: 100", "number: 32767", `w:27: network acl strict: number 32767: want 1 to 32766`},
	{"acl action", "action: deny", "action: drop", `w:27: network acl strict: action "drop": want allow or deny`},
	{"acl cidr", ", cidr: 192.0.2.0/24", "", `w:27: network acl strict: an entry needs a cidr, an IPv4 block without host bits such as 0.0.0.0/0`},
	{"two tables", "subnets: [private]\n        routes", "subnets: [private, private]\n        routes", `w:33: route table private: subnet "private" has "route table private" already: a subnet has exactly one`},
	{"two main tables", "- name: private\n        subnets", "- name: private\n        main: true\n        subnets", `w:33: route table private: the main route table is there already (line 31): a VPC has exactly one`},
	{"route twice", "to: 10.3.0.0/16", "to: 10.4.0.0/16", `w:37: route table private: the route to 10.4.0.0/16 is there twice (line 36)`},
	{"local route", "to: 10.3.0.0/16", "to: 100.64.0.0/16", `w:36: route table private: route to 100.64.0.0/16: the local route of 100.64.0.0/16 is always there`},
	{"inside local to a peering", "to: 10.4.0.0/16", "to: 10.0.1.0/24", `w:37: route table private: route to 10.0.1.0/24: a route that is more specific than the local one of 10.0.0.0/16 can lead only to a NAT gateway or an instance`},
	{"inside local, no subnet", "to: 10.0.0.0/24, via", "to: 10.0.0.0/25, via", `w:39: route table private: route to 10.0.0.0/25: a route that is more specific than the local one of 10.0.0.0/16 must be to the whole of a subnet`},
	{"no such nat", "via: nat/inner", "via: nat/iner", `w:36: route table private: route to 10.3.0.0/16: via "nat/iner": vpc "main" has no such target`},
	{"no such kind", "via: nat/inner", "via: inner", `w:36: route table private: route to 10.3.0.0/16: via "inner": want internetGateway, nat/NAME, peering/NAME, transitGateway/NAME or instance/NAME`},
	{"peering of others", "via: peering/with-other", "via: peering/far-other", `w:37: route table private: route to 10.4.0.0/16: via "peering/far-other": vpc "main" has no such target`},
	{"no internet gateway", "    internetGateway: true\n", "    internetGateway: false\n", "w:7: subnet \"public\": public addresses need an internet gateway: add internetGateway: true to vpc \"main\"\n" +
		"w:11: nat gateway \"out\": a public NAT gateway needs an internet gateway in its VPC: add internetGateway: true to vpc \"main\", or private: true here\n" +
		"w:31: route table main: route to 0.0.0.0/0: vpc \"main\" has no internet gateway: add internetGateway: true\n" +
		"w:57: instance \"front\": an elastic address needs an internet gateway: add internetGateway: true to vpc \"main\""},
	{"nat subnet", "{name: out, subnet: public}", "{name: out, subnet: pub}", `w:11: nat gateway "out": vpc "main" has no subnet "pub"`},
	{"overlap", "cidr: 10.1.0.0/16, subnets: [{name: a, cidr: 10.1.1.0/24}]", "cidr: 10.0.0.0/20, subnets: [{name: a, cidr: 10.0.1.0/24}]",
		"w:43: peering \"with-other\": 10.0.0.0/16 of vpc \"main\" overlaps 10.0.0.0/20 of vpc \"other\": VPCs whose CIDRs overlap cannot be peered\n" +
			"w:47: transit gateway \"hub\": 10.0.0.0/16 of vpc \"main\" overlaps 10.0.0.0/20 of vpc \"other\", so there can be no routes between them: write routes: false, and the routes you want"},
	{"peering of three", "[far, other]", "[far, other, main]", `w:44: a peering joins exactly two VPCs: vpcs: [a, b]`},
	{"peering with itself", "[far, other]", "[far, far]", `w:44: peering "far-far": a VPC cannot be peered with itself`},
	{"peering of nobody", "[far, other]", "[far, ohter]", `w:44: peering "far-ohter": there is no vpc "ohter"`},
	{"peered twice", "[far, other]", "[other, main]", `w:44: peering "other-main": "other" and "main" are peered already (line 43)`},
	{"transit across regions", "vpcs: [main, other]\n    routes: true", "vpcs: [main, other, far]\n    routes: true", `w:47: transit gateway "hub": vpc "main" is in eu-west-1 and vpc "far" in us-east-1: a transit gateway attaches VPCs of its own region`},
	{"two tables of an attachment", "{name: b, vpcs: [other]", "{name: b, vpcs: [main]", `w:51: transit gateway "hub": table "b": vpc "main" is associated with "a" already: an attachment has one table`},
	{"propagation", "propagate: [other]", "propagate: [far]", `w:50: transit gateway "hub": table "a": vpc "far" is not attached`},
	{"transit route", "via: vpc/main", "via: main", `w:51: transit gateway "hub": table "b": route to 10.0.0.0/16: via "main": want vpc/NAME of a VPC that is attached, or blackhole`},
	{"flag", "routes: true", "routes: yes", `w:48: routes: found "yes", want true or false`},
	{"host", "203.0.113.10", "198.51.100.7", `w:54: internet host 198.51.100.7 is in the block that the lab's EC2 takes public addresses from: take one such as 203.0.113.10`},
	{"private host", "203.0.113.10", "10.9.9.9", `w:54: internet host 10.9.9.9 is no address of the internet: take one such as 203.0.113.10`},
	{"no address", "203.0.113.10", "example.com", `w:54: host "example.com": want an IPv4 address such as 203.0.113.10`},
	{"group of an instance", "securityGroups: [web, default]", "securityGroups: [web, web, db]", "w:56: instance \"box\": security group \"web\" is there twice\n" + `w:56: instance "box": vpc "main" has no security group "db"`},
}

func TestParseNetworkErrors(t *testing.T) {
	good := string(read(t, "network.yaml"))
	if _, err := Parse("w", []byte(good)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range brokenNetworks {
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
