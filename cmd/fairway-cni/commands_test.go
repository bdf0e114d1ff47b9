package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairway-cni/fairway/internal/edge/cniapi"
	"github.com/fairway-cni/fairway/internal/edge/cniapi/cniserver"
)

func TestAdd(t *testing.T) {
	pod := newPod(t)
	for _, version := range cniapi.SupportedVersions() {
		t.Run(version, func(t *testing.T) {
			n := newNode(t)
			var got cniserver.Call
			var seen []string
			n.serve(t, func(_ context.Context, c *cniserver.Call) cniserver.Reply {
				got = *c
				var err error
				if seen, err = links(c); err != nil {
					return cniserver.Reply{Err: cniserver.Internal(err)}
				}
				return podResult(c)
			})
			out := runPlugin(t, n.config(version), append(env("ADD", pod), "CNI_ARGS=K8S_POD_NAME=p;K8S_POD_NAMESPACE=ns")...)
			wantSuccess(t, out)
			var result struct {
				CNIVersion string
				Interfaces []struct{ Name, Mac, Sandbox string }
				IPs        []struct{ Version, Address, Gateway string }
			}
			if err := json.Unmarshal([]byte(out.stdout), &result); err != nil {
				t.Fatalf("%q: %v", out.stdout, err)
			}
			if result.CNIVersion != version || len(result.Interfaces) != 2 || result.Interfaces[1].Sandbox != pod || len(result.IPs) != 1 || result.IPs[0].Address != "10.0.1.5/32" {
				t.Errorf("result %s", out.stdout)
			}
			if family := result.IPs[0].Version; (family == "4") != strings.HasPrefix(version, "0.") {
				t.Errorf("ips have version %q in %s", family, version)
			}
			slices.Sort(seen)
			if diff := cmp.Diff([]string{"lo", "pod0", "pod1"}, seen); diff != "" {
				t.Errorf("links that the socket sees (-want +got):\n%s", diff)
			}
			if got.Command != "ADD" || got.ContainerID != "c" || got.IfName != "eth0" || got.NetNSPath != pod || got.Args.PodName != "p" || got.Args.PodNamespace != "ns" || got.Network.Name != "fairway" {
				t.Errorf("call %+v", got)
			}
		})
	}
}

func TestOtherCommands(t *testing.T) {
	pod := newPod(t)
	n := newNode(t)
	var got *cniserver.Call
	n.serve(t, func(_ context.Context, c *cniserver.Call) cniserver.Reply {
		got = c
		return cniserver.Reply{}
	})
	const prev = `"prevResult":{"cniVersion":"1.1.0","ips":[{"address":"10.0.1.5/32"}]}`
	tests := []struct {
		name, config string
		env          []string
		check        func(*cniserver.Call) bool
	}{
		{"CHECK", n.config("1.1.0", prev), env("CHECK", pod), func(c *cniserver.Call) bool {
			return c.Prev != nil && c.Prev.IPs[0].Address.String() == "10.0.1.5/32" && c.NetNS != nil && c.Netlink != nil
		}},
		{"DEL", n.config("0.3.1"), env("DEL", pod), func(c *cniserver.Call) bool { return c.NetNSPath == pod && c.NetNS == nil }},
		{"DEL without a namespace", n.config("1.0.0"), env("DEL", ""), func(c *cniserver.Call) bool { return c.ContainerID == "c" && c.NetNSPath == "" }},
		{"DEL with a namespace that is gone", n.config("1.0.0"), env("DEL", "/nowhere"), func(c *cniserver.Call) bool { return c.NetNSPath == "/nowhere" }},
		{"STATUS", n.config("1.1.0"), []string{"CNI_COMMAND=STATUS"}, func(c *cniserver.Call) bool { return c.ContainerID == "" }},
		{"GC", n.config("1.1.0", `"cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"}]`), []string{"CNI_COMMAND=GC", "CNI_PATH=/x"},
			func(c *cniserver.Call) bool {
				return slices.Equal(c.ValidAttachments, []cniserver.Attachment{{ContainerID: "a", IfName: "eth0"}})
			}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got = nil
			out := runPlugin(t, tt.config, tt.env...)
			wantSuccess(t, out)
			if out.stdout != "" {
				t.Errorf("stdout %q, want nothing", out.stdout)
			}
			if got == nil || !tt.check(got) {
				t.Errorf("call %+v", got)
			}
		})
	}
}

func TestVersion(t *testing.T) {
	for stdin, version := range map[string]string{"": "1.1.0", `{"cniVersion":"0.4.0"}`: "0.4.0", `{"cniVersion":"9\u0000"}`: "9\x00", "{}": "1.1.0"} {
		out := runPlugin(t, stdin, "CNI_COMMAND=VERSION")
		wantSuccess(t, out)
		var got struct {
			CNIVersion        string
			SupportedVersions []string
		}
		if err := json.Unmarshal([]byte(out.stdout), &got); err != nil {
			t.Fatalf("%q: %v", out.stdout, err)
		}
		if got.CNIVersion != version || !slices.Equal(got.SupportedVersions, []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"}) {
			t.Errorf("stdin %q: %s", stdin, out.stdout)
		}
	}
	wantCNIError(t, runPlugin(t, "x", "CNI_COMMAND=VERSION"), "1.1.0", 6, "at offset 0")
}

// TestRefused holds what is wrong before the agent is asked.
func TestRefused(t *testing.T) {
	pod := newPod(t)
	n := newNode(t)
	n.serve(t, func(_ context.Context, c *cniserver.Call) cniserver.Reply {
		t.Errorf("the agent was asked: %+v", c)
		return cniserver.Reply{}
	})
	file := n.socket + ".file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	good := n.config("1.0.0")
	add := slices.Clip(env("ADD", pod)) // so that append copies
	// Fits on standard input, and not into a frame with the rest of the request.
	long := n.config("1.0.0", `"a":"`+strings.Repeat("a", cniapi.MaxFrame-len(n.config("1.0.0"))-50)+`"`)
	tests := []struct {
		name, stdin string
		env         []string
		version     string
		code        uint
		msg         string
	}{
		{"no command", good, nil, "1.1.0", 4, "missing environment variable: CNI_COMMAND"},
		{"unknown command", good, []string{"CNI_COMMAND=add"}, "1.0.0", 4, `CNI_COMMAND "add" is none of ADD, DEL, CHECK, STATUS, GC, VERSION`},
		{"all missing", good, []string{"CNI_COMMAND=ADD"}, "1.0.0", 4, "missing environment variable: CNI_CONTAINERID, CNI_IFNAME, CNI_NETNS"},
		{"DEL, all missing", good, []string{"CNI_COMMAND=DEL"}, "1.0.0", 4, "missing environment variable: CNI_CONTAINERID, CNI_IFNAME"},
		{"missing and invalid", good, append(add, "CNI_CONTAINERID=../x", "CNI_IFNAME="), "1.0.0", 4, `missing environment variable: CNI_IFNAME; invalid environment variable: CNI_CONTAINERID "../x" must begin`},
		{"long interface name", good, append(add, "CNI_IFNAME=sixteen-letters-"), "1.0.0", 4, `CNI_IFNAME "sixteen-letters-" must not be longer than 15 bytes`},
		{"interface name with a slash", good, append(add, "CNI_IFNAME=a/b"), "1.0.0", 4, "must not hold '/', ':' or white space"},
		{"interface name dots", good, append(add, "CNI_IFNAME=.."), "1.0.0", 4, `CNI_IFNAME ".."`},
		{"container ID with a space", good, append(add, "CNI_CONTAINERID=a b"), "1.0.0", 4, `CNI_CONTAINERID "a b"`},
		{"no namespace there", good, append(add, "CNI_NETNS=/run/netns/gone"), "1.0.0", 4, `CNI_NETNS "/run/netns/gone": no such file or directory`},
		{"namespace is a file", good, append(add, "CNI_NETNS="+file), "1.0.0", 4, "is not a network namespace"},
		{"namespace of another kind", good, append(add, "CNI_NETNS=/proc/self/ns/uts"), "1.0.0", 4, "is not a network namespace"},
		{"namespace is a directory", good, append(add, "CNI_NETNS=/proc"), "1.0.0", 4, "is not a network namespace"},
		{"namespace of the node", good, append(add, "CNI_NETNS=/proc/self/ns/net"), "1.0.0", 4, "is the network namespace of the node"},
		{"CHECK: no namespace there", n.config("1.1.0", `"prevResult":{}`), append(add, "CNI_COMMAND=CHECK", "CNI_NETNS=/gone"), "1.1.0", 4, `"/gone"`},
		{"stdin empty", "", add, "1.1.0", 6, "unexpected end of JSON at offset 0"},
		{"stdin cut", `{"cniVersion":"1.0.0",`, add, "1.1.0", 6, "unexpected end of JSON at offset 22"},
		{"stdin a list", `[1]`, add, "1.1.0", 6, "not a JSON object at offset 0"},
		{"stdin binary", "\x7fELF\x00\xff", add, "1.1.0", 6, "at offset 0"},
		{"stdin deep", `{"a":` + strings.Repeat("[", 100000), add, "1.1.0", 6, "nested too deep"},
		{"stdin long", `{"cniVersion":"1.0.0","a":"` + strings.Repeat("a", cniapi.MaxFrame) + `"}`, add, "1.1.0", 7, "longer than 1048576 bytes"},
		{"stdin too long for a frame", long, add, "1.0.0", 7, "larger than a frame"},
		{"version missing", `{"name":"n"}`, add, "1.1.0", 1, "has no cniVersion"},
		{"version too old", n.config("0.3.0"), add, "0.3.0", 1, "supported versions: 0.3.1, 0.4.0, 1.0.0, 1.1.0"},
		{"version too new", n.config("2.0.0"), env("DEL", ""), "2.0.0", 1, "supported versions: 0.3.1, 0.4.0, 1.0.0, 1.1.0"},
		{"version a number", `{"cniVersion":1}`, add, "1.1.0", 6, "cniVersion: must be a string"},
		{"CHECK in 0.3.1", n.config("0.3.1"), append(add, "CNI_COMMAND=CHECK"), "0.3.1", 1, "not supported for CHECK"},
		{"STATUS in 1.0.0", good, []string{"CNI_COMMAND=STATUS"}, "1.0.0", 1, "not supported for STATUS"},
		{"GC in 1.0.0", good, []string{"CNI_COMMAND=GC"}, "1.0.0", 1, "not supported for GC"},
		{"name missing", `{"cniVersion":"1.0.0"}`, add, "1.0.0", 7, `name "": is empty`},
		{"name hostile", `{"cniVersion":"1.0.0","name":"../n"}`, add, "1.0.0", 7, `name "../n"`},
		{"socket relative", `{"cniVersion":"1.0.0","name":"n","socket":"s"}`, add, "1.0.0", 7, `socket "s": must be an absolute path`},
		{"spool a number", `{"cniVersion":"1.0.0","name":"n","spool":1}`, add, "1.0.0", 7, "spool: must be a string"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			wantCNIError(t, runPlugin(t, tt.stdin, tt.env...), tt.version, tt.code, tt.msg)
		})
	}
}

// TestAgentErrors: what the agent says is printed as it said it, and what it
// finds wrong with the request comes back with the right code.
func TestAgentErrors(t *testing.T) {
	pod := newPod(t)
	n := newNode(t)
	n.serve(t, func(_ context.Context, c *cniserver.Call) cniserver.Reply {
		switch c.Command {
		case "ADD":
			return cniserver.Reply{Err: cniserver.NoAddress("subnet \"s\" is full", "add\na subnet")}
		case "STATUS":
			return cniserver.Reply{Err: cniserver.Unavailable("no address left", "")}
		}
		return cniserver.Reply{Err: cniserver.UnknownContainer(c)}
	})
	for _, tt := range []struct {
		config string
		env    []string
		code   uint
		msg    string
	}{
		{n.config("0.4.0"), env("ADD", pod), 100, "no free address: subnet \"s\" is full add\na subnet"},
		{n.config("1.1.0"), []string{"CNI_COMMAND=STATUS"}, 50, "no address left"},
		{n.config("0.4.0", `"prevResult":{}`), env("CHECK", pod), 3, `container c has no interface "eth0"`},
		{n.config("0.4.0", `"mtu":"big"`), env("ADD", pod), 7, `mtu "big": must be a whole number`},
		{n.config("0.4.0"), append(env("ADD", pod), "CNI_ARGS=K8S"), 4, "CNI_ARGS"},
		{n.config("0.4.0"), env("CHECK", pod), 7, "CHECK needs the result of ADD"},
		{n.config("1.1.0"), []string{"CNI_COMMAND=GC"}, 7, "cni.dev/valid-attachments"},
		{n.config("0.4.0"), env("DEL", ""), 3, "container c"},
	} {
		version := "0.4.0"
		if strings.Contains(tt.config, `"1.1.0"`) {
			version = "1.1.0"
		}
		wantCNIError(t, runPlugin(t, tt.config, tt.env...), version, tt.code, tt.msg)
	}
	if _, err := os.Stat(n.spool); err == nil {
		t.Error("a DEL that the agent refused is in the spool")
	}
}

func TestConcurrentAdds(t *testing.T) {
	pod := newPod(t)
	n := newNode(t)
	n.serve(t, func(_ context.Context, c *cniserver.Call) cniserver.Reply {
		if _, err := links(c); err != nil {
			return cniserver.Reply{Err: cniserver.Internal(err)}
		}
		r := podResult(c)
		r.Result.DNS.Domain = c.ContainerID
		return r
	})
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			id := fmt.Sprintf("c%d", i)
			out := runPlugin(t, n.config("1.1.0"), append(env("ADD", pod), "CNI_CONTAINERID="+id)...)
			if out.exit != 0 || !strings.Contains(out.stdout, `"domain":"`+id+`"`) {
				t.Errorf("%s: %+v", id, out)
			}
		})
	}
	wg.Wait()
}
