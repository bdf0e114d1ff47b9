package imds

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// versions are the dated names under which the same tree is found, beside
// "latest", as an instance lists them. Clients pin one.
var versions = []string{
	"1.0", "2007-01-19", "2007-03-01", "2007-08-29", "2007-10-10", "2007-12-15", "2008-02-01",
	"2008-09-01", "2009-04-04", "2011-01-01", "2011-05-01", "2012-01-12", "2014-02-25",
	"2014-11-05", "2015-10-20", "2016-04-19", "2016-06-30", "2016-09-02", "2018-03-28",
	"2018-08-17", "2018-09-24", "2019-10-01", "2020-10-27", "2021-01-03", "2021-03-23",
	"2021-07-15", "2022-09-24", "2024-04-11", "latest",
}

// node is a directory, if entries is not nil, or a value.
type node struct {
	entries map[string]node
	value   string
	bare    bool // a directory whose listing shows directories without a slash
}

func leaf(value string) node              { return node{value: value} }
func dir(entries map[string]node) node    { return node{entries: entries} }
func lines[T fmt.Stringer](list []T) node { return leaf(join(list)) }

func join[T fmt.Stringer](list []T) string {
	var text []string
	for _, v := range list {
		text = append(text, v.String())
	}
	return strings.Join(text, "\n")
}

// list names the entries, one a line, without a newline at the end.
func (n node) list() string {
	names := slices.Sorted(maps.Keys(n.entries))
	for i, name := range names {
		if n.entries[name].entries != nil && !n.bare {
			names[i] = name + "/"
		}
	}
	return strings.Join(names, "\n")
}

// resolve gives the text at a path: a value, or the listing of a directory,
// with or without a slash at its end. A value has no slash at its end. Doubled
// slashes count as one.
func resolve(root node, path string) (string, bool) {
	at := root
	for name := range strings.SplitSeq(path, "/") {
		if name == "" {
			continue
		}
		next, ok := at.entries[name]
		if !ok {
			return "", false
		}
		at = next
	}
	if at.entries != nil {
		return at.list(), true
	}
	return at.value, !strings.HasSuffix(path, "/")
}

// tree is everything the service can say of an instance. What the instance does
// not have has no node.
func tree(m Metadata) node {
	latest := dir(map[string]node{
		"dynamic":   dir(map[string]node{"instance-identity": dir(map[string]node{"document": identity(m)})}),
		"meta-data": metaData(m),
	})
	latest.bare = true
	root := node{entries: map[string]node{}, bare: true}
	for _, v := range versions {
		root.entries[v] = latest
	}
	return root
}

func metaData(m Metadata) node {
	entries := map[string]node{
		"ami-id":              leaf(m.AMI),
		"ami-launch-index":    leaf("0"),
		"hostname":            leaf(m.LocalHostname),
		"instance-action":     leaf("none"),
		"instance-id":         leaf(m.InstanceID),
		"instance-life-cycle": leaf("on-demand"),
		"instance-type":       leaf(m.InstanceType),
		"local-hostname":      leaf(m.LocalHostname),
		"local-ipv4":          leaf(m.LocalIPv4.String()),
		"mac":                 leaf(m.MAC),
		"network":             dir(map[string]node{"interfaces": dir(map[string]node{"macs": interfaces(m.Interfaces)})}),
		"placement": dir(map[string]node{
			"availability-zone":    leaf(m.AvailabilityZone),
			"availability-zone-id": leaf(m.AvailabilityZoneID),
			"region":               leaf(m.Region),
		}),
		"services": dir(map[string]node{
			"domain":    leaf("amazonaws.com"),
			"partition": leaf("aws"),
		}),
	}
	if m.PublicIPv4.IsValid() {
		entries["public-ipv4"] = leaf(m.PublicIPv4.String())
	}
	for _, i := range m.Interfaces {
		if i.MAC == m.MAC {
			entries["security-groups"] = leaf(strings.Join(i.SecurityGroups, "\n"))
		}
	}
	if m.Credentials != nil {
		entries["iam"] = iam(m.AccountID, *m.Credentials)
	}
	if m.Tags != nil {
		tags := map[string]node{}
		for key, value := range m.Tags {
			// EC2 refuses to show an instance's tags if a key has a slash or a
			// blank ("Access tags for your EC2 instances using instance
			// metadata"); here only that tag is not shown.
			if key != "" && !strings.ContainsAny(key, "/ \n") {
				tags[key] = leaf(value)
			}
		}
		entries["tags"] = dir(map[string]node{"instance": dir(tags)})
	}
	return dir(entries)
}

func interfaces(list []Interface) node {
	macs := map[string]node{}
	for _, i := range list {
		entries := map[string]node{
			"device-number":          leaf(strconv.Itoa(i.DeviceNumber)),
			"interface-id":           leaf(i.ID),
			"local-hostname":         leaf(i.LocalHostname),
			"local-ipv4s":            lines(i.LocalIPv4s),
			"mac":                    leaf(i.MAC),
			"owner-id":               leaf(i.OwnerID),
			"security-group-ids":     leaf(strings.Join(i.SecurityGroupIDs, "\n")),
			"security-groups":        leaf(strings.Join(i.SecurityGroups, "\n")),
			"subnet-id":              leaf(i.SubnetID),
			"subnet-ipv4-cidr-block": leaf(i.SubnetCIDR.String()),
			"vpc-id":                 leaf(i.VPCID),
			"vpc-ipv4-cidr-blocks":   lines(i.VPCCIDRs),
		}
		if len(i.VPCCIDRs) > 0 {
			entries["vpc-ipv4-cidr-block"] = leaf(i.VPCCIDRs[0].String())
		}
		if len(i.Prefixes) > 0 {
			entries["ipv4-prefix"] = lines(i.Prefixes)
		}
		if len(i.Public) > 0 {
			entries["public-ipv4s"], entries["ipv4-associations"] = associations(i.Public)
		}
		if i.NetworkCard > 0 { // only instance types with several cards have it
			entries["network-card"] = leaf(strconv.Itoa(i.NetworkCard))
		}
		macs[i.MAC] = dir(entries)
	}
	return dir(macs)
}

// associations gives the list of public addresses, and the directory that has
// the private addresses of each. Source: "Instance metadata categories", Amazon
// EC2 User Guide. VPCs of the lab have no DNS host names, so there is no
// public-hostname.
func associations(list []Association) (public, private node) {
	var addrs []netip.Addr
	behind := map[netip.Addr][]netip.Addr{}
	for _, a := range list {
		if behind[a.Public] == nil {
			addrs = append(addrs, a.Public)
		}
		behind[a.Public] = append(behind[a.Public], a.Private)
	}
	entries := map[string]node{}
	for p, locals := range behind {
		entries[p.String()] = lines(locals)
	}
	return lines(addrs), dir(entries)
}

// stamp is the form of times in IMDS documents: whole seconds, UTC.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

func iam(account string, c Credentials) node {
	info := document(struct {
		Code               string
		LastUpdated        string
		InstanceProfileArn string
		InstanceProfileId  string
	}{"Success", stamp(c.LastUpdated), "arn:aws:iam::" + account + ":instance-profile/" + c.Role, "AIPAFAIRWAYLAB000000"})
	role := document(struct {
		Code            string
		LastUpdated     string
		Type            string
		AccessKeyId     string
		SecretAccessKey string
		Token           string
		Expiration      string
	}{"Success", stamp(c.LastUpdated), "AWS-HMAC", c.AccessKeyID, c.SecretAccessKey, c.Token, stamp(c.Expiration)})
	return dir(map[string]node{
		"info":                 info,
		"security-credentials": dir(map[string]node{c.Role: role}),
	})
}

// identity is the instance identity document. What is null here is null for an
// instance of an AMI without product codes.
func identity(m Metadata) node {
	architecture := m.Architecture
	if architecture == "" {
		architecture = "x86_64"
	}
	return document(struct {
		AccountID               string   `json:"accountId"`
		Architecture            string   `json:"architecture"`
		AvailabilityZone        string   `json:"availabilityZone"`
		BillingProducts         []string `json:"billingProducts"`
		DevpayProductCodes      []string `json:"devpayProductCodes"`
		MarketplaceProductCodes []string `json:"marketplaceProductCodes"`
		ImageID                 string   `json:"imageId"`
		InstanceID              string   `json:"instanceId"`
		InstanceType            string   `json:"instanceType"`
		KernelID                *string  `json:"kernelId"`
		PendingTime             string   `json:"pendingTime"`
		PrivateIP               string   `json:"privateIp"`
		RamdiskID               *string  `json:"ramdiskId"`
		Region                  string   `json:"region"`
		Version                 string   `json:"version"`
	}{
		AccountID: m.AccountID, Architecture: architecture, AvailabilityZone: m.AvailabilityZone,
		ImageID: m.AMI, InstanceID: m.InstanceID, InstanceType: m.InstanceType,
		PendingTime: stamp(m.LaunchTime), PrivateIP: m.LocalIPv4.String(), Region: m.Region,
		Version: "2017-09-30",
	})
}

// document is a leaf of indented JSON. It is given structs of strings only,
// which always encode.
func document(v any) node {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		panic(fmt.Sprintf("imds: encode document: %v", err))
	}
	return leaf(string(text))
}
