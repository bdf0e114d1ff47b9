package path_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/internal/core/path/example"
)

// serviceWorld is the NodePort example with Services as an API server has them.
func serviceWorld(t *testing.T, services ...path.Service) *path.World {
	t.Helper()
	_, w, err := example.Load("nodeport")
	if err != nil {
		t.Fatal(err)
	}
	if services != nil {
		w.Services = path.Known(services)
	}
	return w
}

func webService(backends ...string) path.Service {
	s := path.Service{Namespace: "default", Name: "web", Addr: netip.MustParseAddr("10.100.0.10"),
		Ports: []path.ServicePort{{Proto: path.TCP, Port: 80, NodePort: 30080}}, Backends: path.Known([]path.Backend{})}
	for _, b := range backends {
		a, notReady := strings.CutSuffix(b, " not ready")
		at := netip.MustParseAddrPort(a)
		s.Backends.Value = append(s.Backends.Value, path.Backend{Addr: at.Addr(), Port: at.Port(), Proto: path.TCP, Ready: !notReady})
	}
	return s
}

func ask(t *testing.T, w *path.World, p path.Probe) *path.Answer {
	t.Helper()
	if err := w.Validate(); err != nil {
		t.Fatal(err)
	}
	a, err := path.NewTracer(w).Trace(p)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestServiceNames: a Service is found by its name, and what is not to be asked is
// said.
func TestServiceNames(t *testing.T) {
	other := webService()
	other.Namespace = "shop"
	headless := path.Service{Namespace: "default", Name: "db", Ports: []path.ServicePort{{Name: "sql", Proto: path.TCP, Port: 5432}}, Backends: path.Known([]path.Backend{})}
	external := path.Service{Namespace: "default", Name: "far", External: "db.example.org"}
	udp := path.Service{Namespace: "default", Name: "dns", Addr: netip.MustParseAddr("10.100.0.9"), Ports: []path.ServicePort{{Name: "dns", Proto: path.UDP, Port: 53}}}
	w := serviceWorld(t, webService("10.0.1.5:8080", "10.0.1.15:8080"), other, headless, external, udp)
	for to, says := range map[string]string{
		"svc/web":            "both default/web and shop/web",
		"svc/none":           "no such Service",
		"svc/db":             "no backend that is ready",
		"svc/far":            "db.example.org",
		"svc/dns":            "no tcp port; it has 53/udp (dns)",
		"svc/default/web:x":  "no tcp port x; it has 80/tcp",
		"default/dns":        "its Service is svc/default/dns",
		"z:svc/default/web":  "",
		"svc/default/web":    "",
		"svc/default/web:80": "",
	} {
		_, err := path.NewTracer(w).Trace(path.Probe{From: "default/web-1", To: to})
		if says == "" && err != nil || says != "" && (!errors.Is(err, path.ErrProbe) || !strings.Contains(err.Error(), says)) {
			t.Errorf("to %s: %v, want %q", to, err, says)
		}
	}
	if _, err := path.NewTracer(w).Trace(path.Probe{From: "svc/default/web", To: "default/web-1"}); err == nil || !strings.Contains(err.Error(), "a Service sends nothing") {
		t.Errorf("from a Service: %v", err)
	}
	if a := ask(t, w, path.Probe{From: "default/web-1", To: "svc/dns:dns", Proto: path.UDP}); a.Probe.Port != 53 {
		t.Errorf("the port called dns is %d, want 53", a.Probe.Port)
	}
}

// TestServiceWays: each backend's way is told, those that are alike as one.
func TestServiceWays(t *testing.T) {
	w := serviceWorld(t, webService("10.0.1.5:8080", "10.0.1.15:8080"))
	a := ask(t, w, path.Probe{From: "default/web-1", To: "svc/web"})
	want := []path.Way{{To: "10.0.1.5:8080", Pod: "default/web-1", Verdict: path.Arrived}, {To: "10.0.1.15:8080", Pod: "default/web-2", Verdict: path.Arrived}}
	if !slices.Equal(a.Ways, want) {
		t.Errorf("ways %+v, want %+v", a.Ways, want)
	}
	if s := a.Service; s == nil || s.ID != "default/web" || s.Port != 80 || s.Backends != 2 || s.Ready != 2 || len(s.Notes) > 0 {
		t.Errorf("service %+v", s)
	}
	// By the node's port no Service is named, and both are behind it all the same.
	a = ask(t, w, path.Probe{From: "node:client", To: "node:node-1:30080"})
	want = []path.Way{{To: "10.0.1.15:8080", Pod: "default/web-2", Verdict: path.Dropped, Code: path.CodeSrcDstCheck}, {To: "10.0.1.5:8080", Pod: "default/web-1", Verdict: path.Arrived}}
	if !slices.Equal(a.Ways, want) || a.Service != nil {
		t.Errorf("ways %+v, want %+v", a.Ways, want)
	}
	// A world of many pods behind one address, of which two classes are told.
	headless := webService()
	headless.Addr = netip.Addr{}
	for range 40 {
		headless.Backends.Value = append(headless.Backends.Value, webService("10.0.1.5:8080", "10.0.1.15:8080").Backends.Value...)
	}
	a = ask(t, serviceWorld(t, headless), path.Probe{From: "node:client", To: "svc/web"})
	if !a.More || a.Outcomes != 64 || len(a.Ways) != 2 || a.Ways[0].Alike != 31 || a.Probe.Port != 8080 {
		t.Errorf("%d outcomes, more %v, port %d, ways %+v", a.Outcomes, a.More, a.Probe.Port, a.Ways)
	}
}

// TestServiceNotes: where the API server and a node's rules differ, both are said.
func TestServiceNotes(t *testing.T) {
	for name, tt := range map[string]struct {
		service path.Service
		from    string
		to      string
		says    string
		ready   int
	}{
		"stale":        {webService("10.0.1.5:8080"), "default/web-1", "svc/web", "the rules of vpc/node-1 lead to 10.0.1.15:8080, which is no backend of it: they are old", 1},
		"not ready":    {webService("10.0.1.5:8080 not ready", "10.0.1.15:8080"), "default/web-1", "svc/web", "the rules of vpc/node-1 lead to 10.0.1.5:8080, which is not ready: they are old", 1},
		"none ready":   {webService("10.0.1.5:8080 not ready", "10.0.1.15:8080 not ready"), "default/web-1", "svc/web", "", 0},
		"other port":   {webService("10.0.1.5:8081", "10.0.1.15:8080"), "default/web-1", "svc/web", "the rules of vpc/node-1 lead to 10.0.1.5:8080, which is no backend of it: they are old; the rules of vpc/node-1 do not lead to 10.0.1.5:8081 default/web-1, which is ready: they are old", 2},
		"missing":      {webService("10.0.1.5:8080", "10.0.1.15:8080", "10.0.1.1:8080"), "default/web-1", "svc/web", "the rules of vpc/node-1 do not lead to 10.0.1.1:8080, which is ready: they are old", 3},
		"more missing": {webService("10.0.1.5:8080", "10.0.1.15:8080", "10.0.1.1:80", "10.0.1.2:80", "10.0.1.3:80", "10.0.1.6:80"), "default/web-1", "svc/web", "the rules of vpc/node-1 do not lead to 10.0.1.1:80, 10.0.1.2:80, 10.0.1.3:80 and 1 more, which are ready: they are old", 6},
		"by the host":  {webService("10.0.1.5:8080", "10.0.1.15:8080", "10.0.1.1:8080"), "node:node-1", "svc/web", "the rules of vpc/node-1 do not lead to 10.0.1.1:8080, which is ready", 3},
		"no proxy":     {webService("10.0.1.5:8080"), "node:client", "svc/web", "no rule of vpc/client translates 10.100.0.10", 1},
		"unknown port": {webService("10.0.1.5:8080"), "default/web-1", "svc/web:81", "it has no port 81/tcp; it has 80/tcp", 0},
	} {
		s := ask(t, serviceWorld(t, tt.service), path.Probe{From: tt.from, To: tt.to}).Service
		notes := strings.Join(s.Notes, "; ")
		if s.Ready != tt.ready || tt.says == "" && notes != "" || !strings.Contains(notes, tt.says) {
			t.Errorf("%s: %d ready, notes %q, want %d and %q", name, s.Ready, notes, tt.ready, tt.says)
		}
	}
}

// TestServiceInPart: who may be left out is not missing, and neither is one to whom
// something may lead that is not known.
func TestServiceInPart(t *testing.T) {
	local := webService("10.0.1.5:8080", "10.0.1.15:8080", "10.0.1.1:8080")
	local.Partial = true
	if s := ask(t, serviceWorld(t, local), path.Probe{From: "default/web-1", To: "svc/web"}).Service; len(s.Notes) > 0 {
		t.Errorf("of one that is in part everywhere: %q", s.Notes)
	}
	w := serviceWorld(t, webService("10.0.1.5:8080", "10.0.1.15:8080", "10.0.1.1:8080"))
	b, err := w.Nodes[0].Host.Iptables.Value.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	recent := strings.Replace(string(b), `"-A KUBE-SVC-WEB`, `"-A KUBE-SVC-WEB -m recent --rcheck -j KUBE-SEP-1","-A KUBE-SVC-WEB`, 1)
	if err := w.Nodes[0].Host.Iptables.Value.UnmarshalJSON([]byte(recent)); err != nil || recent == string(b) {
		t.Fatal("no rule was added", err)
	}
	if s := ask(t, w, path.Probe{From: "default/web-1", To: "svc/web"}).Service; len(s.Notes) > 0 {
		t.Errorf("behind a rule that is not modelled: %q", s.Notes)
	}
}

// TestServiceOfMany: of more backends than are followed, those are missing whose
// address no rule has.
func TestServiceOfMany(t *testing.T) {
	var choose, chains []string
	web := webService("10.0.1.1:8080")
	for i := range 100 {
		choose = append(choose, fmt.Sprintf("%d : goto many-%d", i, i))
		chains = append(chains, fmt.Sprintf("\tchain many-%d {\n\t\tmeta l4proto tcp dnat to 10.0.2.%d:8080\n\t}\n", i, 100+i))
		web.Backends.Value = append(web.Backends.Value, path.Backend{Addr: netip.AddrFrom4([4]byte{10, 0, 2, byte(100 + i)}), Port: 8080, Proto: path.TCP, Ready: true})
	}
	w := serviceWorld(t, web)
	text := strings.Replace(proxyNft, "numgen random mod 2 vmap { 0 : goto endpoint-1, 1 : goto endpoint-2 }",
		"numgen random mod 100 vmap { "+strings.Join(choose, ", ")+" }", 1)
	rules, err := path.ParseRuleset(strings.Split(strings.Replace(text, "\tchain endpoint-1", strings.Join(chains, "")+"\tchain endpoint-1", 1), "\n"))
	if err != nil {
		t.Fatal(err)
	}
	w.Nodes[0].Host.Nftables, w.Nodes[0].Host.Iptables = path.Known(rules), path.Known(path.Iptables{})
	a := ask(t, w, path.Probe{From: "default/web-1", To: "svc/web"})
	if want := []string{"the rules of vpc/node-1 do not lead to 10.0.1.1:8080, which is ready: they are old"}; !a.More || !slices.Equal(a.Service.Notes, want) {
		t.Errorf("more %v, notes %q, want %q", a.More, a.Service.Notes, want)
	}
}

// TestServiceByRules: where no API server was asked, kube-proxy's rules know the
// name, in either mode.
func TestServiceByRules(t *testing.T) {
	iptables := serviceWorld(t)
	iptables.Services = path.Unknown[[]path.Service]("no kubeconfig")
	nft := serviceWorld(t)
	nft.Services = iptables.Services
	rules, err := path.ParseRuleset(strings.Split(strings.ReplaceAll(proxyNft, "service-web", "service-4AT6LBPK-default/web/tcp/http"), "\n"))
	if err != nil {
		t.Fatal(err)
	}
	nft.Nodes[0].Host.Nftables = path.Known(rules)
	nft.Nodes[0].Host.Iptables = path.Known(path.Iptables{})
	for mode, w := range map[string]*path.World{"iptables": iptables, "nftables": nft} {
		a := ask(t, w, path.Probe{From: "default/web-1", To: "svc/default/web"})
		if a.Verdict != path.Arrived || a.Outcomes != 2 || a.Probe.Port != 80 || a.Service.Addr != netip.MustParseAddr("10.100.0.10") || a.Service.Backends != -1 || len(a.Service.Notes) > 0 {
			t.Errorf("%s: %s, %d ways, %+v", mode, a.Verdict, a.Outcomes, a.Service)
		}
		if _, err := path.NewTracer(w).Trace(path.Probe{From: "default/web-1", To: "svc/db"}); err == nil || !strings.Contains(err.Error(), "Services (no kubeconfig), and no kube-proxy's rules") {
			t.Errorf("%s: %v", mode, err)
		}
	}
	if a := ask(t, nft, path.Probe{From: "default/web-1", To: "svc/web:http"}); a.Probe.Port != 80 {
		t.Errorf("the port called http is %d, want 80", a.Probe.Port)
	}
}

// TestListedPods: a pod of a node that nobody read has an address all the same.
func TestListedPods(t *testing.T) {
	w := serviceWorld(t)
	w.Nodes = w.Nodes[1:] // the client alone
	w.Pods = path.Known([]path.ListedPod{
		{Namespace: "default", Name: "web-1", Addr: netip.MustParseAddr("10.0.1.5"), Node: "node-1"},
		{Namespace: "shop", Name: "web-1", Addr: netip.MustParseAddr("10.0.1.15"), Node: "node-1"},
		{Namespace: "kube-system", Name: "agent", Addr: netip.MustParseAddr("10.0.1.50"), Node: "client", HostNetwork: true},
	})
	a := ask(t, w, path.Probe{From: "node:client", To: "default/web-1:8080"})
	if a.Verdict != path.Unsure || a.Hops[len(a.Hops)-1].After.Dst != netip.MustParseAddr("10.0.1.5") && !a.Hops[len(a.Hops)-1].Reply {
		t.Errorf("%s: %+v", a.Verdict, a.Hops[len(a.Hops)-1])
	}
	if _, err := path.NewTracer(w).Trace(path.Probe{From: "node:client", To: "web-1"}); err == nil || !strings.Contains(err.Error(), "say more of the name") {
		t.Errorf("two of one name: %v", err)
	}
	if a := ask(t, w, path.Probe{From: "kube-system/agent", To: "default/web-1:8080"}); a.Hops[0].Where.String() != "vpc/client" {
		t.Errorf("a pod of the node's network begins at %s", a.Hops[0].Where)
	}
}
