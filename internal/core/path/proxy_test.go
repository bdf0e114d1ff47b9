package path_test

import (
	"strings"
	"testing"

	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/internal/core/path/example"
)

// proxyNft is what kube-proxy's nftables mode writes for the Service of the
// NodePort example, as `nft list` prints it.
const proxyNft = `
table ip kube-proxy {
	set nodeport-ips {
		type ipv4_addr
		elements = { 10.0.1.4 }
	}
	map service-ips {
		type ipv4_addr . inet_proto . inet_service : verdict
		elements = { 10.100.0.10 . tcp . 80 comment "default/web" : goto service-web }
	}
	map service-nodeports {
		type inet_proto . inet_service : verdict
		elements = { tcp . 30080 comment "default/web" : goto external-web }
	}
	chain nat-prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		jump services
	}
	chain nat-output {
		type nat hook output priority -100; policy accept;
		jump services
	}
	chain nat-postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		jump masquerading
	}
	chain services {
		ip daddr . meta l4proto . th dport vmap @service-ips
		ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
	}
	chain masquerading {
		meta mark & 0x00004000 == 0x00000000 return
		meta mark set meta mark ^ 0x00004000
		masquerade fully-random
	}
	chain mark-for-masquerade {
		meta mark set meta mark | 0x00004000
	}
	chain external-web {
		jump mark-for-masquerade
		goto service-web
	}
	chain service-web {
		ip daddr 10.100.0.10 tcp dport 80 ip saddr != 10.0.0.0/16 jump mark-for-masquerade
		numgen random mod 2 vmap { 0 : goto endpoint-1, 1 : goto endpoint-2 }
	}
	chain endpoint-1 {
		ip saddr 10.0.1.5 jump mark-for-masquerade
		meta l4proto tcp dnat to 10.0.1.5:8080
	}
	chain endpoint-2 {
		ip saddr 10.0.1.15 jump mark-for-masquerade
		meta l4proto tcp dnat to 10.0.1.15:8080
	}
}`

// TestProxyMap: since 1.36 kube-proxy chooses by a map of addresses, not of chains.
func TestProxyMap(t *testing.T) {
	w := serviceWorld(t)
	for _, form := range []string{"dnat ip to", "dnat ip addr . port to"} {
		text := strings.ReplaceAll(proxyNft, "numgen random mod 2 vmap { 0 : goto endpoint-1, 1 : goto endpoint-2 }",
			"meta l4proto tcp "+form+" numgen random mod 2 map { 0 : 10.0.1.5 . 8080, 1 : 10.0.1.15 . 8080 }")
		rules, err := path.ParseRuleset(strings.Split(text, "\n"))
		if err != nil {
			t.Fatal(err)
		}
		w.Nodes[0].Host.Nftables, w.Nodes[0].Host.Iptables = path.Known(rules), path.Known(path.Iptables{})
		a := ask(t, w, path.Probe{From: "default/web-1", To: "svc/web"})
		if len(a.Ways) != 2 || a.Ways[1].To != "10.0.1.15:8080" || a.Verdict == path.Unsure || len(a.Service.Notes) > 0 {
			t.Errorf("%s: %s, ways %+v, notes %q", form, a.Verdict, a.Ways, a.Service.Notes)
		}
		if h := a.Hops[1].Matched; h != "nft kube-proxy service-web: dnat to 10.0.1.5:8080" && h != "nft kube-proxy service-web: dnat to 10.0.1.15:8080" {
			t.Errorf("%s: %q", form, h)
		}
	}
}

// TestProxyInBothModes: kube-proxy's two modes lead to the same, in their own
// words.
func TestProxyInBothModes(t *testing.T) {
	_, iptables, err := example.Load("nodeport")
	if err != nil {
		t.Fatal(err)
	}
	_, nft, err := example.Load("nodeport")
	if err != nil {
		t.Fatal(err)
	}
	rules, err := path.ParseRuleset(strings.Split(proxyNft, "\n"))
	if err != nil {
		t.Fatal(err)
	}
	nft.Nodes[0].Host.Nftables = path.Known(rules)
	lines, err := path.ParseIptables([]string{"*mangle", ":PREROUTING ACCEPT [0:0]",
		"-A PREROUTING -i eni+ -j CONNMARK --restore-mark --nfmask 0x80 --ctmask 0x80", "COMMIT"})
	if err != nil {
		t.Fatal(err)
	}
	nft.Nodes[0].Host.Iptables = path.Known(lines)
	for _, p := range []path.Probe{
		{From: "node:client", To: "node:node-1:30080"},
		{From: "default/web-1", To: "svc/web"},
		{From: "node:node-1", To: "svc/web"},
		{From: "node:client", To: "node:node-1:30081"},
	} {
		a, err := path.NewTracer(iptables).Trace(p)
		if err != nil {
			t.Fatal(err)
		}
		b, err := path.NewTracer(nft).Trace(p)
		if err != nil {
			t.Fatal(err)
		}
		if a.Verdict != b.Verdict || a.Outcomes != b.Outcomes || a.Failing != b.Failing || len(b.Blind()) > 0 {
			t.Errorf("%s to %s: iptables %s, %d of %d fail; nftables %s, %d of %d, %d blind", p.From, p.To,
				a.Verdict, a.Failing, a.Outcomes, b.Verdict, b.Failing, b.Outcomes, len(b.Blind()))
		}
	}
}
