package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/edge/cniapi/cniserver"
)

// plugin is the program as it ships, built once.
var plugin string

func TestMain(m *testing.M) {
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "fairway-cni-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	os.Chmod(dir, 0o755) // a test runs it as another user
	plugin = filepath.Join(dir, "fairway-cni")
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", plugin, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the plugin: %v\n%s", err, text)
		return 1
	}
	return m.Run()
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces, and an agent that takes calls from uid 0 only")
	}
}

// node is where a plugin and an agent meet: the keys of a network configuration.
type node struct{ socket, spool string }

func newNode(t testing.TB) node {
	dir := t.TempDir()
	return node{filepath.Join(dir, "cni.sock"), filepath.Join(dir, "spool")}
}

// config is a network configuration for version, with more keys in JSON.
func (n node) config(version string, more ...string) string {
	text := fmt.Sprintf(`{"cniVersion":%q,"name":"fairway","type":"fairway-cni","socket":%q,"spool":%q`, version, n.socket, n.spool)
	for _, m := range more {
		text += "," + m
	}
	return text + "}"
}

// serve runs an agent with the handler until the test ends.
func (n node) serve(t testing.TB, h func(context.Context, *cniserver.Call) cniserver.Reply) {
	t.Helper()
	needRoot(t)
	ln, err := cniserver.Listen(n.socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- cniserver.Serve(ctx, ln, h) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
}

// outcome is what a runtime sees of one run.
type outcome struct {
	exit           int
	stdout, stderr string
}

// env is the environment of a call for container c and interface eth0.
func env(command, netns string) []string {
	e := []string{"CNI_COMMAND=" + command, "CNI_CONTAINERID=c", "CNI_IFNAME=eth0", "CNI_PATH=/opt/cni/bin"}
	if netns != "" {
		e = append(e, "CNI_NETNS="+netns)
	}
	return e
}

// runPlugin runs the plugin; the last of two settings of one variable counts, and an
// empty one is as good as none.
func runPlugin(t testing.TB, stdin string, env ...string) outcome {
	t.Helper()
	return runCmd(t, exec.CommandContext(t.Context(), plugin), stdin, env...)
}

func runCmd(t testing.TB, cmd *exec.Cmd, stdin string, env ...string) outcome {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = env, strings.NewReader(stdin), &stdout, &stderr
	if cmd.Env == nil {
		cmd.Env = []string{}
	}
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, syscall.EPIPE) {
		t.Fatalf("run plugin: %v", err)
	}
	return outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// cniError is an error as the specification has it.
type cniError struct {
	CNIVersion string
	Code       uint
	Msg        string
	Details    string
}

// wantCNIError checks the form of an error as well: one JSON object and no more
// on standard output, exit status 1.
func wantCNIError(t testing.TB, got outcome, version string, code uint, msg string) cniError {
	t.Helper()
	var e cniError
	if err := json.Unmarshal([]byte(got.stdout), &e); err != nil || got.exit != 1 {
		t.Fatalf("exit %d, stdout %q, stderr %q: want exit 1 and a CNI error: %v", got.exit, got.stdout, got.stderr, err)
	}
	if e.CNIVersion != version || e.Code != code || !strings.Contains(e.Msg+" "+e.Details, msg) {
		t.Errorf("error %+v, want version %s, code %d and %q", e, version, code, msg)
	}
	return e
}

func wantSuccess(t testing.TB, got outcome) {
	t.Helper()
	if got.exit != 0 || got.stderr != "" {
		t.Fatalf("exit %d, stdout %q, stderr %q: want success", got.exit, got.stdout, got.stderr)
	}
}

// newPod makes a network namespace with a veth pair pod0, pod1 in it, and gives
// its path.
func newPod(t testing.TB) string {
	t.Helper()
	needRoot(t)
	var netns *os.File
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the runtime ends the thread
		done <- func() (err error) {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("unshare network namespace: %w", err)
			}
			attrs := netlink.NewLinkAttrs()
			attrs.Name = "pod0"
			if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "pod1"}); err != nil {
				return fmt.Errorf("make veth: %w", err)
			}
			netns, err = os.Open("/proc/thread-self/ns/net")
			return err
		}()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { netns.Close() })
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), netns.Fd())
}

// podResult is what an agent answers to an ADD.
func podResult(c *cniserver.Call) cniserver.Reply {
	gateway := netip.MustParseAddr("169.254.1.1")
	return cniserver.Reply{Result: &cniserver.Result{
		Interfaces: []cniserver.Interface{{Name: "fw0"}, {Name: c.IfName, MAC: "02:00:00:00:00:01", MTU: 9001, Sandbox: c.NetNSPath}},
		IPs:        []cniserver.IP{{Address: netip.MustParsePrefix("10.0.1.5/32"), Gateway: gateway, Interface: 1}},
		Routes:     []cniserver.Route{{Dst: netip.MustParsePrefix("0.0.0.0/0"), Gateway: gateway}},
	}}
}

// links asks the netlink socket that came with a call for the links it sees.
func links(c *cniserver.Call) ([]string, error) {
	fd := int(c.Netlink.Fd())
	req := make([]byte, unix.SizeofNlMsghdr+unix.SizeofIfInfomsg)
	put := func(at int, b ...byte) { copy(req[at:], b) }
	put(0, byte(len(req)))
	put(4, unix.RTM_GETLINK)
	put(6, 0x01, 0x03) // NLM_F_REQUEST | NLM_F_DUMP
	if err := unix.Sendto(fd, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	var names []string
	for {
		buf := make([]byte, 1<<16)
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			return nil, err
		}
		msgs, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			return nil, err
		}
		for _, m := range msgs {
			switch m.Header.Type {
			case unix.NLMSG_DONE:
				return names, nil
			case unix.NLMSG_ERROR:
				return nil, fmt.Errorf("netlink error %v", m.Data)
			}
			attrs, err := syscall.ParseNetlinkRouteAttr(&m)
			if err != nil {
				return nil, err
			}
			for _, a := range attrs {
				if a.Attr.Type == unix.IFLA_IFNAME {
					names = append(names, strings.TrimRight(string(a.Value), "\x00"))
				}
			}
		}
	}
}
