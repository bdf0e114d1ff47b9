package runtime

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

// The test binary is three things: the CNI plugin, where a plugin's environment
// says so; the tests; and what starts the tests in a mount namespace of their
// own, so that no mount outlives them however they end.
func TestMain(m *testing.M) {
	if command := os.Getenv("CNI_COMMAND"); command != "" {
		os.Exit(plugin(command))
	}
	const inside = "TEST_IN_OWN_MOUNT_NAMESPACE"
	if os.Geteuid() != 0 || os.Getenv(inside) != "" {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if err := cmd.Run(); err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			os.Exit(exit.ExitCode())
		}
		fmt.Fprintln(os.Stderr, "start the tests in a mount namespace:", err)
		os.Exit(1)
	}
}

// call is what the plugin was asked, one line of its log.
type call struct {
	Command string
	ID      string
	IfName  string
	Args    string
	NetNS   string
	Links   []string          // in the namespace, with "up" where they are
	InUse   []json.RawMessage // of GC
	Prev    bool              // a previous result was given
	Label   string            // of the configuration
	Asked   string            // runtimeConfig: of the capabilities, those that the configuration names
}

// plugin logs each call, and does what the configuration's "directory" says:
// a file fail-COMMAND there makes it fail with the file's text, and a file
// block-COMMAND keeps it until it is killed.
func plugin(command string) int {
	var conf struct {
		CNIVersion string            `json:"cniVersion"`
		Directory  string            `json:"directory"`
		Label      string            `json:"label"`
		Prev       json.RawMessage   `json:"prevResult"`
		InUse      []json.RawMessage `json:"cni.dev/valid-attachments"`
		Asked      json.RawMessage   `json:"runtimeConfig"`
	}
	stdin, err := io.ReadAll(os.Stdin)
	if err == nil {
		err = json.Unmarshal(stdin, &conf)
	}
	if err != nil {
		return pluginFail("0.4.0", 6, err.Error())
	}
	c := call{
		Command: command, ID: os.Getenv("CNI_CONTAINERID"), IfName: os.Getenv("CNI_IFNAME"), Args: os.Getenv("CNI_ARGS"),
		NetNS: os.Getenv("CNI_NETNS"), InUse: conf.InUse, Prev: conf.Prev != nil, Label: conf.Label, Asked: string(conf.Asked),
	}
	if c.NetNS != "" {
		if c.Links, err = linksIn(c.NetNS); err != nil {
			return pluginFail(conf.CNIVersion, 100, err.Error())
		}
	}
	line, _ := json.Marshal(c)
	log, err := os.OpenFile(filepath.Join(conf.Directory, "log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = log.Write(append(line, '\n'))
	}
	if err != nil {
		return pluginFail(conf.CNIVersion, 100, err.Error())
	}
	if _, err := os.Stat(filepath.Join(conf.Directory, "block-"+command)); err == nil {
		for { // `select {}` is a deadlock to a program without cgo
			_, _ = unix.Poll(nil, -1)
		}
	}
	if why, err := os.ReadFile(filepath.Join(conf.Directory, "fail-"+command)); err == nil {
		return pluginFail(conf.CNIVersion, 11, string(why))
	}
	if command == "ADD" {
		fmt.Printf(`{"cniVersion": %q, "interfaces": [{"name": "eth0", "sandbox": %q}], "ips": [{"address": "10.0.1.7/32", "interface": 0}]}`,
			conf.CNIVersion, c.NetNS)
	}
	return 0
}

func pluginFail(version string, code int, msg string) int {
	fmt.Printf(`{"cniVersion": %q, "code": %d, "msg": %q}`, version, code, msg)
	return 1
}

func linksIn(path string) ([]string, error) {
	ns, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	var names []string
	err = netns.Do(ns, func() error {
		links, err := net.Interfaces()
		for _, l := range links {
			if l.Flags&net.FlagUp != 0 {
				names = append(names, l.Name+" up")
			} else {
				names = append(names, l.Name)
			}
		}
		return err
	})
	return names, err
}

// node is a Runtime with directories and a plugin of its own.
type node struct {
	*Runtime
	t   *testing.T
	dir string
}

func newNode(t *testing.T) *node {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces and mounts (CAP_SYS_ADMIN)")
	}
	n := &node{t: t, dir: t.TempDir()}
	for _, d := range []string{"conf", "bin"} {
		if err := os.Mkdir(filepath.Join(n.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(n.dir, "bin", "testcni")); err != nil {
		t.Fatal(err)
	}
	n.Runtime = New(Config{
		NetConfDir: filepath.Join(n.dir, "conf"),
		BinDirs:    []string{filepath.Join(n.dir, "bin")},
		StateDir:   filepath.Join(n.dir, "state"),
		NetNSDir:   filepath.Join(n.dir, "netns"),
	})
	n.configure("10-test.conflist", "first")
	t.Cleanup(func() {
		if err := n.unmountOthers(nil); err != nil {
			t.Error(err)
		}
	})
	return n
}

func (n *node) configure(file, label string) {
	n.t.Helper()
	n.write(filepath.Join("conf", file), fmt.Sprintf(
		`{"cniVersion": "1.1.0", "name": "testnet", "plugins": [{"type": "testcni", "directory": %q, "label": %q}]}`, n.dir, label))
}

func (n *node) write(name, text string) {
	n.t.Helper()
	if err := os.WriteFile(filepath.Join(n.dir, name), []byte(text), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) delete(name string) {
	n.t.Helper()
	if err := os.RemoveAll(filepath.Join(n.dir, name)); err != nil {
		n.t.Fatal(err)
	}
}

// calls gives what the plugin was asked since the last time, VERSION aside.
func (n *node) calls() []call {
	n.t.Helper()
	data, err := os.ReadFile(filepath.Join(n.dir, "log"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		n.t.Fatal(err)
	}
	n.delete("log")
	var all []call
	for line := range bytes.Lines(data) {
		var c call
		if err := json.Unmarshal(line, &c); err != nil {
			n.t.Fatal(err)
		}
		all = append(all, c)
	}
	return all
}

func (n *node) commands() string {
	n.t.Helper()
	var names []string
	for _, c := range n.calls() {
		names = append(names, c.Command)
	}
	return strings.Join(names, " ")
}

// leftovers lists what a node without pods should not have.
func (n *node) leftovers() []string {
	n.t.Helper()
	var found []string
	for _, d := range []string{"netns", "state/pods", "state/cache/results"} {
		files, err := os.ReadDir(filepath.Join(n.dir, d))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			n.t.Fatal(err)
		}
		for _, f := range files {
			found = append(found, filepath.Join(d, f.Name()))
		}
	}
	return found
}

func (n *node) add(name string) Pod {
	n.t.Helper()
	pod, err := n.Add(n.t.Context(), name)
	if err != nil {
		n.t.Fatal(err)
	}
	return pod
}

// TestCapabilities: what a pod asks of a capability reaches the plugin that names
// it, in each command, also from a runtime that knows the pod by its record only.
func TestCapabilities(t *testing.T) {
	n := newNode(t)
	n.write("conf/10-test.conflist", fmt.Sprintf(`{"cniVersion": "1.1.0", "name": "testnet",
		"plugins": [{"type": "testcni", "directory": %q, "capabilities": {"portMappings": true}}]}`, n.dir))
	known := n.config
	n.config.Capabilities = map[string]any{"portMappings": []int{1, 2}, "bandwidth": 3}
	n.add("web")
	n.Runtime = New(known)
	n.add("plain")
	for _, name := range []string{"web", "plain"} {
		if err := errors.Join(n.Check(t.Context(), name), n.Del(t.Context(), name)); err != nil {
			t.Error(err)
		}
	}
	var got []string
	for _, c := range n.calls() {
		got = append(got, c.Command+" "+c.Asked)
	}
	const asked = `{"portMappings":[1,2]}`
	want := []string{"ADD " + asked, "ADD ", "CHECK " + asked, "DEL " + asked, "CHECK ", "DEL "}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("calls (-want +got):\n%s", d)
	}
}

func TestAddDel(t *testing.T) {
	n := newNode(t)
	pod := n.add("web-1")
	want := []call{{
		Command: "ADD", ID: pod.ID, IfName: "eth0", NetNS: pod.NetNS, Links: []string{"lo up"}, Label: "first",
		Args: "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-1;K8S_POD_INFRA_CONTAINER_ID=" + pod.ID + ";K8S_POD_UID=" + pod.UID,
	}}
	if diff := cmp.Diff(want, n.calls()); diff != "" {
		t.Errorf("ADD (-want +got)\n%s", diff)
	}
	if !ours.MatchString(pod.ID) || len(pod.UID) != 36 || pod.NetNS != filepath.Join(n.dir, "netns", pod.ID) || !pod.Ready {
		t.Errorf("pod %+v", pod)
	}
	if !slices.Equal(pod.Addresses, []netip.Prefix{netip.MustParsePrefix("10.0.1.7/32")}) {
		t.Errorf("addresses %v", pod.Addresses)
	}
	got, err := n.Get("web-1")
	if err != nil {
		t.Fatal(err)
	}
	comparePrefix := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
	if diff := cmp.Diff(pod, got, comparePrefix); diff != "" {
		t.Errorf("Get (-added +got)\n%s", diff)
	}

	if _, err := n.Add(t.Context(), "web-1"); !errors.Is(err, ErrExists) {
		t.Errorf("adding it again: %v, want ErrExists", err)
	}
	if err := n.Check(t.Context(), "web-1"); err != nil {
		t.Error(err)
	}
	if c := n.calls(); len(c) != 1 || c[0].Command != "CHECK" || !c[0].Prev || c[0].ID != pod.ID {
		t.Errorf("calls of check: %+v", c)
	}
	for range 2 {
		if err := n.Del(t.Context(), "web-1"); err != nil {
			t.Fatal(err)
		}
	}
	if c := n.calls(); len(c) != 1 || c[0].Command != "DEL" || !c[0].Prev || c[0].NetNS != pod.NetNS || c[0].ID != pod.ID {
		t.Errorf("calls of del: %+v", c)
	}
	if left := n.leftovers(); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

func TestAddFails(t *testing.T) {
	n := newNode(t)
	n.write("fail-ADD", "no address is free")
	_, err := n.Add(t.Context(), "web")
	if err == nil || !strings.Contains(err.Error(), "add pod web") || !strings.Contains(err.Error(), "no address is free") {
		t.Errorf("got %v", err)
	}
	if got := n.commands(); got != "ADD DEL" {
		t.Errorf("calls %q", got)
	}
	if left := n.leftovers(); left != nil {
		t.Errorf("left behind: %v", left)
	}

	// Undoing fails too: the pod stays, because the plugin may hold an address
	// for it, but its namespace does not.
	n.write("fail-DEL", "the agent is away")
	if _, err := n.Add(t.Context(), "web"); err == nil || !strings.Contains(err.Error(), "the agent is away") {
		t.Errorf("got %v", err)
	}
	pod, err := n.Get("web")
	if err != nil || pod.Ready {
		t.Fatalf("pod %+v, error %v: want one that is not ready", pod, err)
	}
	if _, err := os.Stat(pod.NetNS); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its namespace: %v", err)
	}
	if err := n.Check(t.Context(), "web"); err == nil {
		t.Error("checked all right")
	}
	n.calls()
	if err := n.Del(t.Context(), "web"); err == nil || !strings.Contains(err.Error(), "the agent is away") {
		t.Errorf("got %v", err)
	}
	n.delete("fail-DEL")
	if err := n.Del(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	if c := n.calls(); len(c) != 2 || c[1].Command != "DEL" || c[1].NetNS != "" || c[1].ID != pod.ID {
		t.Errorf("calls %+v: want a DEL without a namespace", c)
	}
	if left := n.leftovers(); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

// A plugin that never answers is killed when the caller's time is up.
func TestAddTimeout(t *testing.T) {
	n := newNode(t)
	n.write("block-ADD", "")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { _, err := n.Add(ctx, "web"); done <- err }()
	waitFor(t, "the plugin to be asked", func() bool {
		_, err := os.Stat(filepath.Join(n.dir, "log"))
		return err == nil
	})
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if got := n.commands(); got != "ADD DEL" {
		t.Errorf("calls %q", got)
	}
	if left := n.leftovers(); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

func TestNetwork(t *testing.T) {
	n := newNode(t)
	n.configure("00-other.conflist", "earlier")
	n.write("conf/00-a.conf", "not read")
	n.add("web")
	if c := n.calls(); c[0].Label != "earlier" {
		t.Errorf("configuration %q, want the first by name", c[0].Label)
	}
	// What was added with it is deleted with it, whatever there is by then.
	n.delete("conf")
	if err := n.Check(t.Context(), "web"); err != nil {
		t.Error(err)
	}
	if err := n.Del(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	if c := n.calls(); len(c) != 2 || c[1].Label != "earlier" {
		t.Errorf("calls %+v", c)
	}

	refused := func(what, want string) {
		t.Helper()
		_, err := n.Add(t.Context(), "web")
		if !errors.Is(err, ErrNoNetwork) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want ErrNoNetwork with %q", what, err, want)
		}
	}
	refused("no directory", "conf is empty: the CNI's daemon writes it when it is ready")
	if err := os.Mkdir(filepath.Join(n.dir, "conf"), 0o755); err != nil {
		t.Fatal(err)
	}
	refused("empty directory", "is empty")
	// Of several the first alone is tried: the next one might find a network, and be
	// made before it.
	pods, err := n.AddMany(t.Context(), []string{"a", "b", "c"}, 1)
	if len(pods) > 0 || !errors.Is(err, ErrNoNetwork) || !strings.Contains(err.Error(), "add pod a") || strings.Count(err.Error(), "add pod") != 1 {
		t.Errorf("three pods without a network: %v, %v; want the failure of the first alone", pods, err)
	}
	n.write("conf/10-a.conf", "{}")
	refused("single plugin", "has no .conflist, only 10-a.conf")
	n.write("conf/10-b.conflist", "{")
	refused("broken list", "10-b.conflist")
	n.write("conf/10-b.conflist", strings.Repeat(" ", maxConf+1))
	refused("huge list", "1048577 bytes")
	n.write("conf/10-b.conflist", `{"cniVersion": "1.1.0", "name": "x", "plugins": [{"type": "absent"}]}`)
	if _, err := n.Add(t.Context(), "web"); err == nil || !strings.Contains(err.Error(), `"absent"`) {
		t.Errorf("absent plugin: got %v", err)
	}
}

func TestAddManyAndList(t *testing.T) {
	n := newNode(t)
	var names []string
	for i := range 12 {
		names = append(names, fmt.Sprintf("pod-%02d", i))
	}
	pods, err := n.AddMany(t.Context(), append(names, "Not A Name", "pod-03"), 4)
	if len(pods) != len(names) || !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), "Not A Name") {
		t.Errorf("%d pods, error %v: want %d, and errors for the last two names", len(pods), err, len(names))
	}
	list, err := n.List()
	if err != nil {
		t.Fatal(err)
	}
	spaces := map[uint64]bool{}
	var got []string
	for _, p := range list {
		var st unix.Stat_t
		if err := unix.Stat(p.NetNS, &st); err != nil {
			t.Fatal(err)
		}
		spaces[st.Ino] = true
		got = append(got, p.Name)
	}
	if !slices.Equal(got, names) || len(spaces) != len(names) {
		t.Errorf("pods %v in %d namespaces, want %v in one each", got, len(spaces), names)
	}
	for _, name := range names {
		if err := n.Del(t.Context(), name); err != nil {
			t.Error(err)
		}
	}
	if left := n.leftovers(); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

func TestGC(t *testing.T) {
	n := newNode(t)
	kept := n.add("kept")
	// One whose process died between its record and the plugin's answer ...
	dead := newPod("dead", filepath.Join(n.dir, "netns"), "testnet")
	if err := n.create(dead); err != nil {
		t.Fatal(err)
	}
	// ... a namespace without a record, and a file of somebody else.
	orphan := filepath.Join(n.dir, "netns", strings.Repeat("0a", 32))
	for _, path := range []string{dead.NetNS, orphan} {
		if err := mountNamespace(path); err != nil {
			t.Fatal(err)
		}
	}
	n.write("netns/blue", "")
	n.calls()
	if err := n.GC(t.Context()); err != nil {
		t.Fatal(err)
	}
	calls := n.calls()
	if len(calls) != 2 || calls[0].Command != "DEL" || calls[0].ID != dead.ID || calls[1].Command != "GC" {
		t.Fatalf("calls %+v", calls)
	}
	inUse := fmt.Sprintf(`[{"containerID":%q,"ifname":"eth0"}]`, kept.ID)
	if got, _ := json.Marshal(calls[1].InUse); string(got) != inUse {
		t.Errorf("in use: got %s, want %s", got, inUse)
	}
	left := n.leftovers()
	want := []string{"netns/" + kept.ID, "netns/blue", "state/pods/kept.json", "state/cache/results/testnet-" + kept.ID + "-eth0"}
	slices.Sort(left)
	slices.Sort(want)
	if diff := cmp.Diff(want, left); diff != "" {
		t.Errorf("(-want +left)\n%s", diff)
	}
	if err := n.Del(t.Context(), "kept"); err != nil {
		t.Fatal(err)
	}
	// With no pod at all the plugin hears "none", not nothing.
	n.calls()
	if err := n.GC(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c := n.calls(); len(c) != 1 || c[0].InUse == nil {
		t.Errorf("calls %+v", c)
	}
}

// Operations on one pod wait for each other, for as long as the caller likes.
func TestLock(t *testing.T) {
	n := newNode(t)
	unlock, err := n.lock(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*lockEvery)
	defer cancel()
	if err := n.Del(ctx, "web"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Del beside another operation: %v, want the deadline", err)
	}
	if err := n.Del(t.Context(), "another"); err != nil {
		t.Errorf("another pod: %v", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 3*lockEvery)
	defer cancel()
	if err := n.GC(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("GC beside another operation: %v, want the deadline", err)
	}
	unlock()
	if err := n.GC(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestExec(t *testing.T) {
	n := newNode(t)
	pod := n.add("web")
	ns, err := os.Open(pod.NetNS)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	err = netns.Do(ns, func() error {
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "mark0"}, PeerName: "mark1"})
	})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := exec.Command("/bin/sh", "-c", "read x; cat /proc/net/dev; exit $x")
	cmd.Stdin, cmd.Stdout = strings.NewReader("7\n"), &out
	err = n.Exec("web", cmd)
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 7 {
		t.Errorf("got %v, want exit status 7", err)
	}
	if !strings.Contains(out.String(), "mark0:") {
		t.Errorf("the command did not run in the pod; it saw\n%s", &out)
	}
	if err := n.Exec("absent", exec.Command("/bin/true")); !errors.Is(err, ErrNotFound) {
		t.Errorf("absent pod: %v, want ErrNotFound", err)
	}
	if err := n.Exec("web", exec.Command("/absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent command: %v", err)
	}
}

func TestNames(t *testing.T) {
	n := newNode(t)
	for _, name := range []string{"", "../x", "a/b", "A", "-a", "a-", strings.Repeat("a", 64)} {
		if _, err := n.Add(t.Context(), name); err == nil || !strings.Contains(err.Error(), "want a-z") {
			t.Errorf("Add(%q): %v", name, err)
		}
		if err := n.Del(t.Context(), name); err == nil {
			t.Errorf("Del(%q) succeeded", name)
		}
	}
	for name, err := range map[string]error{"Get": errOf(n.Get("web")), "Check": n.Check(t.Context(), "web")} {
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("%s of a pod that is not there: %v, want ErrNotFound", name, err)
		}
	}
	if err := n.Del(t.Context(), "web"); err != nil {
		t.Errorf("Del of a pod that is not there: %v", err)
	}
	n.add("web")
	n.write("state/pods/web.json", "{")
	if _, err := n.List(); err == nil || !strings.Contains(err.Error(), "web.json") {
		t.Errorf("broken record: %v", err)
	}
}

func errOf(_ Pod, err error) error { return err }

func waitFor(t *testing.T, what string, cond func() bool) {
	t.Helper()
	const patience = 2 * time.Minute
	deadline := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-deadline:
			t.Fatalf("waited %s for %s", patience, what)
		case <-tick.C:
		}
	}
}

// TestNetworkThatGoes: a configuration is taken away after it was listed.
func TestNetworkThatGoes(t *testing.T) {
	dir := t.TempDir()
	if list, err := readList(filepath.Join(dir, "10-gone.conflist")); list != nil || err != nil {
		t.Errorf("one that has gone: %v, %v", list, err)
	}
	nowhere := filepath.Join(dir, "10-nowhere.conflist")
	if err := os.Symlink("no-such-file", nowhere); err != nil {
		t.Fatal(err)
	}
	if _, err := readList(nowhere); !errors.Is(err, ErrNoNetwork) || !strings.Contains(err.Error(), nowhere) {
		t.Errorf("a link that leads nowhere: %v", err)
	}
}
