package iproute

import (
	"encoding/json"
	"errors"
	"net/netip"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// TestThereAndBack: what is written down for the kernel reads as it was.
func TestThereAndBack(t *testing.T) {
	devices := names{{Index: 1, Name: "lo"}, {Index: 2, Name: "ens5"}}
	cidr, addr := netip.MustParsePrefix, netip.MustParseAddr

	rule := Rule{
		Family: unix.AF_INET, From: cidr("10.0.0.0/8"), To: cidr("10.1.1.1/32"), Not: true, In: "ens5", Out: "lo", Priority: new(uint32(7)),
		Mark: &Mark{1, 0xff}, Action: actTable, Table: 5000, SuppressPrefix: new(uint32(0)), Protocol: 4,
	}
	gotRule, err := decodeRule(encodeRule(rule))
	if d := cmp.Diff(rule, gotRule, compareAddrs); d != "" || err != nil {
		t.Errorf("rule: %v (-want +got):\n%s", err, d)
	}
	route := Route{
		Family: unix.AF_INET6, Type: unix.RTN_UNICAST, Dst: cidr("fd00::/8"), Hops: []Hop{{Via: addr("fe80::1"), Device: "ens5"}}, Table: 1001,
		Protocol: 3, Scope: unix.RT_SCOPE_LINK, Source: addr("fd00::1"), Metric: new(uint32(5)), Flags: unix.RTNH_F_ONLINK,
		Metrics: []Metric{{unix.RTAX_MTU, 1400, true}, {unix.RTAX_ADVMSS, 1000, false}},
	}
	b, err := encodeRoute(route, devices)
	if err != nil {
		t.Fatal(err)
	}
	gotRoute, err := decodeRoute(b, devices)
	if d := cmp.Diff(route, gotRoute, compareAddrs); d != "" || err != nil {
		t.Errorf("route: %v (-want +got):\n%s", err, d)
	}
}

// TestRefusal: the end of a list and an error carry the kernel's words in
// different places.
func TestRefusal(t *testing.T) {
	const no = ^uint32(unix.ENOENT) + 1 // -ENOENT
	var words, done, echoed, capped, bare body
	words.text(1, "no such table.") // NLMSGERR_ATTR_MSG
	done.u32(no)
	done = append(done, words...)
	echoed.u32(no)
	echoed.u32(20) // the request: a header and four bytes
	echoed = append(echoed, make([]byte, 16)...)
	echoed = append(echoed, words...)
	capped.u32(no)
	capped.u32(20) // only its header
	capped = append(capped, make([]byte, 12)...)
	capped = append(capped, words...)
	bare.u32(no)
	message := func(kind, flags uint16, data []byte) syscall.NetlinkMessage {
		return syscall.NetlinkMessage{Header: syscall.NlMsghdr{Type: kind, Flags: flags}, Data: data}
	}
	for name, tt := range map[string]struct {
		got  syscall.NetlinkMessage
		want string
	}{
		"end of a list":  {message(unix.NLMSG_DONE, unix.NLM_F_ACK_TLVS, done), "no such file or directory: no such table"},
		"error":          {message(unix.NLMSG_ERROR, unix.NLM_F_ACK_TLVS, echoed), "no such file or directory: no such table"},
		"capped error":   {message(unix.NLMSG_ERROR, unix.NLM_F_ACK_TLVS|unix.NLM_F_CAPPED, capped), "no such file or directory: no such table"},
		"without words":  {message(unix.NLMSG_ERROR, 0, echoed), "no such file or directory"},
		"errno and none": {message(unix.NLMSG_ERROR, unix.NLM_F_ACK_TLVS, bare), "no such file or directory"},
		"fine":           {message(unix.NLMSG_ERROR, 0, make([]byte, 20)), ""},
		"empty":          {message(unix.NLMSG_DONE, 0, nil), ""},
	} {
		err := refusal(tt.got)
		if tt.want == "" && err != nil || tt.want != "" && (!errors.Is(err, unix.ENOENT) || err.Error() != tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
}

// FuzzDecode: whatever bytes come, they read as something that can be shown, or
// are refused.
func FuzzDecode(f *testing.F) {
	devices := names{{Index: 1, Name: "lo", Lower: new(2)}, {Index: 2, Name: "ens5", Away: new(int32(0))}}
	for _, line := range [][]string{
		{"rule", "add", "not", "from", "10.0.0.0/8", "fwmark", "1/2", "iif", "lo", "lookup", "5000", "pref", "7"},
		{"route", "add", "10.0.0.0/8", "via", "10.1.1.1", "dev", "lo", "mtu", "lock", "1400"},
		{"addr", "add", "10.0.0.1/8", "brd", "+", "dev", "lo"},
		{"link", "set", "lo", "up", "name", "x"},
		{"neigh", "add", "10.0.0.1", "lladdr", "02:00:00:00:00:01", "dev", "lo"},
	} {
		r, err := Parse(line)
		if err != nil {
			f.Fatal(err)
		}
		m, err := encode(r, devices)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(m.body)
	}
	var hops, route body
	hops.u16(8)
	hops.u8(0, 4)
	hops.u32(1)
	route.u8(unix.AF_INET, 8, 0, 0, 254, 3, 0, 1)
	route.u32(unix.RTM_F_CLONED)
	route.attr(unix.RTA_MULTIPATH, append(hops, hops...))
	route.attr(unix.RTA_VIA, []byte{10, 0, 1, 2, 3, 4})
	f.Add([]byte(route))
	f.Fuzz(func(t *testing.T, b []byte) {
		a := Answer{all: devices}
		if u, err := decodeRule(b); err == nil {
			a.Rules = append(a.Rules, u)
		}
		if r, err := decodeRoute(b, devices); err == nil {
			a.Routes = append(a.Routes, r)
		}
		if n, err := decodeNeighbour(b, devices); err == nil {
			a.Neighbours = append(a.Neighbours, n)
		}
		if of, err := decodeAddress(b, devices); err == nil {
			a.Addresses = append(a.Addresses, of)
		}
		if l, err := decodeLink(b); err == nil {
			a.Links = append(a.Links, l, devices[0], devices[1])
		}
		r := Request{Object: Addresses}
		if _, err := json.Marshal(a.JSON(r)); err != nil {
			t.Errorf("JSON: %v", err)
		}
		_ = a.Text(r)
		_ = refusal(syscall.NetlinkMessage{Header: syscall.NlMsghdr{Type: unix.NLMSG_ERROR, Flags: unix.NLM_F_ACK_TLVS}, Data: b})
		_ = Filter{Match: Holds}.hasRoute(Route{Dst: netip.Prefix{}, Family: unix.AF_INET6})
	})
}
