package cniserver

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairway-cni/fairway/internal/edge/cniapi"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }

func wireRequest(command, args, config string) string {
	text, err := json.Marshal(request{
		Version: cniapi.ProtocolVersion, Command: command, ContainerID: "c", IfName: "eth0", NetNS: "/ns", Args: args, Config: json.RawMessage(config),
	})
	if err != nil {
		panic(err)
	}
	return string(text)
}

func decodeText(command, args, config string) (*Call, *cniapi.Error) {
	return decode(&message{text: []byte(wireRequest(command, args, config))})
}

func TestDecode(t *testing.T) {
	got, err := decodeText("DEL", "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p;K8S_POD_INFRA_CONTAINER_ID=i;K8S_POD_UID=u;X=a=b;",
		`{"cniVersion":"0.4.0","name":"n","type":"fairway-cni","mtu":1400,"socket":"/s","spool":"/sp","capabilities":{"a":true},
		  "runtimeConfig":{"a":[1]},"ipam":{"type":"x"},"someday":{"new":1},"prevResult":{"ips":[]}}`)
	if err != nil {
		t.Fatal(err)
	}
	want := &Call{
		Command: "DEL", ContainerID: "c", IfName: "eth0", NetNSPath: "/ns",
		Args: Args{PodName: "p", PodNamespace: "ns", PodUID: "u", InfraContainerID: "i", Other: map[string]string{"IgnoreUnknown": "1", "X": "a=b"}},
		Network: NetConf{CNIVersion: "0.4.0", Name: "n", Type: "fairway-cni", MTU: 1400, Socket: "/s", Spool: "/sp",
			Capabilities: map[string]bool{"a": true}, RuntimeConfig: map[string]json.RawMessage{"a": json.RawMessage("[1]")},
			PrevResult: json.RawMessage(`{"ips":[]}`)},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("call (-want +got):\n%s", diff)
	}
}

func TestDecodeGC(t *testing.T) {
	for text, want := range map[string][]Attachment{
		`[{"containerID":"a","ifname":"eth0"},{"containerID":"b","ifname":"eth1"}]`: {{"a", "eth0"}, {"b", "eth1"}},
		`[]`: {}, `null`: nil,
	} {
		got, err := decodeText("GC", "", `{"cniVersion":"1.1.0","name":"n","cni.dev/valid-attachments":`+text+`}`)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got.ValidAttachments); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	const head = `{"cniVersion":"1.1.0","name":"n"`
	tests := []struct {
		name, command, args, config string
		code                        uint
		msg                         string
	}{
		{"a list", "STATUS", "", `[]`, 6, "must be a JSON object"},
		{"version missing", "STATUS", "", `{"name":"n"}`, 1, "has no cniVersion"},
		{"version too new", "STATUS", "", `{"cniVersion":"2.0.0","name":"n"}`, 1, `"2.0.0"`},
		{"version too old for the command", "GC", "", `{"cniVersion":"1.0.0","name":"n"}`, 1, "not supported for GC"},
		{"version a number", "STATUS", "", `{"cniVersion":1,"name":"n"}`, 7, "cniVersion 1: must be a string"},
		{"name missing", "STATUS", "", `{"cniVersion":"1.1.0"}`, 7, `name "": is empty`},
		{"name hostile", "STATUS", "", `{"cniVersion":"1.1.0","name":"../n"}`, 7, `name "../n"`},
		{"mtu a string", "STATUS", "", head + `,"mtu":"1400"}`, 7, `mtu "1400": must be a whole number`},
		{"mtu a fraction", "STATUS", "", head + `,"mtu":1400.5}`, 7, "mtu 1400.5: must be a whole number"},
		{"mtu too small", "STATUS", "", head + `,"mtu":-1}`, 7, "mtu -1: must be from 576 to 65535"},
		{"mtu too large", "STATUS", "", head + `,"mtu":70000}`, 7, "mtu 70000"},
		{"the plugin's log in other letters", "STATUS", "", head + `,"pluginLogfile":"/a"}`, 2, `did you mean "pluginLogFile"?`},
		{"our key in capitals", "STATUS", "", head + `,"MTU":1400}`, 2, `unsupported key "MTU" with value 1400: did you mean "mtu"?`},
		{"socket a list", "STATUS", "", head + `,"socket":[` + strings.Repeat("1,", 100) + `1]}`, 7, "...: must be a string"},
		{"capabilities of a wrong kind", "STATUS", "", head + `,"capabilities":{"a":1}}`, 7, "capabilities"},
		{"runtimeConfig a list", "STATUS", "", head + `,"runtimeConfig":[]}`, 7, "runtimeConfig []: must be an object"},
		{"GC without a list", "GC", "", head + `}`, 7, "GC needs the list"},
		{"GC with an object", "GC", "", head + `,"cni.dev/valid-attachments":{}}`, 7, "must be a list"},
		{"GC with an empty ID", "GC", "", head + `,"cni.dev/valid-attachments":[{"containerID":"","ifname":"eth0"}]}`, 7, "neither may be empty"},
		{"CHECK without prevResult", "CHECK", "", head + `}`, 7, "CHECK needs the result of ADD"},
		{"prevResult a string", "ADD", "", head + `,"prevResult":"x"}`, 7, "prevResult"},
		{"prevResult with a null", "CHECK", "", `{"cniVersion":"0.4.0","name":"n","prevResult":{"IPS":[null]}}`, 7, "null in a list"},
		{"prevResult with a bad address", "CHECK", "", head + `,"prevResult":{"ips":[{"address":"10.0.0.300/24"}]}}`, 7, "invalid CIDR address"},
		{"prevResult with a bad index", "CHECK", "", head + `,"prevResult":{"ips":[{"address":"10.0.0.3/24","interface":3}]}}`, 7, "interface 3 of 0"},
		{"args without a value", "STATUS", "K8S_POD_NAME", head + `}`, 4, `CNI_ARGS "K8S_POD_NAME": "K8S_POD_NAME" is not KEY=VALUE`},
		{"args without a key", "STATUS", "A=1;=2", head + `}`, 4, `"=2" is not KEY=VALUE`},
		{"ADD without files", "ADD", "", head + `}`, 4, "0 file descriptors"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := decodeText(tt.command, tt.args, tt.config)
			wantError(t, err, tt.code, tt.msg)
		})
	}
}

// TestDecodeDelTolerates: what does not tell the attachment apart cannot fail a DEL.
func TestDecodeDelTolerates(t *testing.T) {
	c, err := decodeText("DEL", "garbage", `{"cniVersion":"1.1.0","name":"n","mtu":"x","MTU":1,"socket":1,"prevResult":{"ips":[null]},"runtimeConfig":7}`)
	if err != nil || c.Network.Name != "n" || c.ContainerID != "c" {
		t.Errorf("call %+v, error %v", c, err)
	}
}

var full = &Result{
	Interfaces: []Interface{{Name: "fw1", MAC: "02:00:00:00:00:01", MTU: 9001}, {Name: "eth0", MAC: "02:00:00:00:00:02", MTU: 9001, Sandbox: "/ns"}},
	IPs: []IP{
		{Address: prefix("10.0.1.5/32"), Gateway: addr("169.254.1.1"), Interface: 1},
		{Address: prefix("2600:1f00::5/128"), Gateway: addr("fe80::1"), Interface: 1},
	},
	Routes: []Route{{Dst: prefix("0.0.0.0/0"), Gateway: addr("169.254.1.1")}, {Dst: prefix("::/0"), Gateway: addr("fe80::1")}, {Dst: prefix("169.254.1.1/32")}},
	DNS:    DNS{Nameservers: []string{"10.0.0.2"}, Domain: "d", Search: []string{"s"}, Options: []string{"o"}},
}

// TestRender compares with the specification's own examples of the format.
func TestRender(t *testing.T) {
	const (
		routes = `"routes":[{"dst":"0.0.0.0/0","gw":"169.254.1.1"},{"dst":"::/0","gw":"fe80::1"},{"dst":"169.254.1.1/32"}]`
		dns    = `"dns":{"nameservers":["10.0.0.2"],"domain":"d","search":["s"],"options":["o"]}`
	)
	old := func(version string) string {
		return `{"cniVersion":"` + version + `","interfaces":[{"name":"fw1","mac":"02:00:00:00:00:01"},{"name":"eth0","mac":"02:00:00:00:00:02","sandbox":"/ns"}],
		"ips":[{"version":"4","interface":1,"address":"10.0.1.5/32","gateway":"169.254.1.1"},{"version":"6","interface":1,"address":"2600:1f00::5/128","gateway":"fe80::1"}],` + routes + `,` + dns + `}`
	}
	current := func(version string) string {
		return `{"cniVersion":"` + version + `","interfaces":[{"name":"fw1","mac":"02:00:00:00:00:01","mtu":9001},{"name":"eth0","mac":"02:00:00:00:00:02","mtu":9001,"sandbox":"/ns"}],
		"ips":[{"interface":1,"address":"10.0.1.5/32","gateway":"169.254.1.1"},{"interface":1,"address":"2600:1f00::5/128","gateway":"fe80::1"}],` + routes + `,` + dns + `}`
	}
	for version, want := range map[string]string{"0.3.1": old("0.3.1"), "0.4.0": old("0.4.0"), "1.0.0": current("1.0.0"), "1.1.0": current("1.1.0")} {
		t.Run(version, func(t *testing.T) {
			text, cniErr := render(&Call{Network: NetConf{CNIVersion: version}}, full)
			if cniErr != nil {
				t.Fatal(cniErr)
			}
			if diff := cmp.Diff(object(t, want), object(t, string(text))); diff != "" {
				t.Errorf("result (-want +got):\n%s", diff)
			}
			back, err := parseResult(version, text)
			if err != nil {
				t.Fatal(err)
			}
			wantBack := *full
			if version[0] == '0' { // which has no MTUs
				wantBack.Interfaces = append([]Interface(nil), full.Interfaces...)
				for i := range wantBack.Interfaces {
					wantBack.Interfaces[i].MTU = 0
				}
			}
			if diff := cmp.Diff(&wantBack, back, cmpAddrs...); diff != "" {
				t.Errorf("read back (-want +got):\n%s", diff)
			}
		})
	}
}

var cmpAddrs = []cmp.Option{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

func object(t *testing.T, text string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return v
}

// TestRenderAfterPrev: what plugins before this one made stays, and stays first.
func TestRenderAfterPrev(t *testing.T) {
	prev := &Result{
		Interfaces: []Interface{{Name: "dummy0"}},
		IPs:        []IP{{Address: prefix("192.0.2.1/24"), Interface: 0}, {Address: prefix("192.0.2.2/24"), Interface: NoInterface}},
		DNS:        DNS{Domain: "prev"},
	}
	own := &Result{
		Interfaces: []Interface{{Name: "eth0"}},
		IPs:        []IP{{Address: prefix("10.0.1.5/32"), Interface: 0}, {Address: prefix("10.0.1.6/32"), Interface: NoInterface}},
	}
	text, cniErr := render(&Call{Prev: prev, Network: NetConf{CNIVersion: "1.1.0"}}, own)
	if cniErr != nil {
		t.Fatal(cniErr)
	}
	want := `{"cniVersion":"1.1.0","interfaces":[{"name":"dummy0"},{"name":"eth0"}],"ips":[{"interface":0,"address":"192.0.2.1/24"},{"address":"192.0.2.2/24"},
	{"interface":1,"address":"10.0.1.5/32"},{"address":"10.0.1.6/32"}],"dns":{"domain":"prev"}}`
	if diff := cmp.Diff(object(t, want), object(t, string(text))); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
	if len(prev.Interfaces) != 1 || own.IPs[0].Interface != 0 {
		t.Error("the inputs were changed")
	}
}

// FuzzDecode: any request is a call or an error, and any prevResult that is
// taken can be given back in the version that it came in.
func FuzzDecode(f *testing.F) {
	for _, version := range cniapi.SupportedVersions() {
		result := fmt.Sprintf(`{"cniVersion":%q,"interfaces":[{"name":"a","mtu":1}],"ips":[{"version":"4","address":"10.0.0.1/24","gateway":"10.0.0.1","interface":0}],"routes":[{"dst":"::/0","gw":"::1"}],"dns":{"domain":"d"}}`, version)
		f.Add(wireRequest("CHECK", "A=1", fmt.Sprintf(`{"cniVersion":%q,"name":"n","mtu":1500,"prevResult":%s}`, version, result)), result, version)
	}
	f.Add(wireRequest("GC", "", `{"cniVersion":"1.1.0","name":"n","cni.dev/valid-attachments":[{"containerID":"a","ifname":"b"}]}`), `{"IPs":[null]}`, "0.4.0")
	f.Add(wireRequest("DEL", ";;=", `{"cniVersion":"1.1.0","name":"n","mtu":"x"}`), `{"ips":[{"address":"::ffff:10.0.0.1/100","interface":-1}],"routes":[{}]}`, "1.0.0")
	f.Fuzz(func(t *testing.T, text, result, version string) {
		if c, cniErr := decode(&message{text: []byte(text)}); cniErr == nil && (c.Command == "" || c.Network.Name == "") {
			t.Errorf("%q gave %+v", text, c)
		}
		if cniapi.CheckVersion("ADD", version) != nil {
			return
		}
		r, err := parseResult(version, []byte(result))
		if err != nil {
			return
		}
		if _, cniErr := render(&Call{Network: NetConf{CNIVersion: version}}, &Result{Interfaces: r.Interfaces, IPs: r.IPs, Routes: r.Routes, DNS: r.DNS}); cniErr != nil && !strings.Contains(cniErr.Msg, "other family") {
			t.Errorf("%s %s: taken, and not given back: %v", version, result, cniErr)
		}
	})
}
