package kubernetes

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
	"strconv"
	"strings"

	"github.com/fairway-cni/fairway/lab/fabric/netns"
	"github.com/fairway-cni/fairway/lab/guest"
)

// ErrPrograms says that the programs of Kubernetes are not where they should be.
var ErrPrograms = errors.New("programs of Kubernetes are missing")

// Programs is a directory with all that a cluster is made of:
//
//	etcd kube-apiserver kube-controller-manager kube-scheduler    the control plane
//	kubelet kube-proxy containerd containerd-shim-runc-v2 ctr runc     a node
//	kubectl                                                     its users
//	cni/      plugins that a node's image brings: loopback, portmap, host-local, ...
//	images/   *.tar, OCI images that every node has; one of them is [PauseImage]
//	manifests/   *.yaml, if any: what a new cluster is given at once, such as its DNS.
//	          ${CLUSTER_DNS} and ${CLUSTER_DOMAIN} in them are what nodes tell pods
//
// More may be there, such as iptables and nft where the machine has none: the
// directory is the first of the nodes' PATH.
type Programs string

// PauseImage is what holds a pod's namespaces.
const PauseImage = "fairway.test/pause:1"

var needed = []string{
	"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler",
	"kubelet", "kube-proxy", "containerd", "containerd-shim-runc-v2", "ctr", "runc", "kubectl",
}

// Check says what is missing; the error is an [ErrPrograms].
func (p Programs) Check() error {
	var missing []string
	for _, name := range needed {
		if info, err := os.Stat(p.path(name)); err != nil || info.IsDir() || info.Mode()&0o111 == 0 {
			missing = append(missing, name)
		}
	}
	images, err := p.images()
	if err != nil {
		return err
	}
	if len(images) == 0 {
		missing = append(missing, "images/*.tar")
	}
	if len(missing) > 0 {
		return fmt.Errorf("%w in %s: %s", ErrPrograms, string(p), strings.Join(missing, ", "))
	}
	return nil
}

func (p Programs) path(name string) string { return filepath.Join(string(p), name) }

func (p Programs) images() ([]string, error) { return filepath.Glob(p.path("images/*.tar")) }

// Image gives what a lab puts into its instances before their daemons start, as a
// node's machine image has it: the plugins of cni/ in /opt/cni/bin. setup is the
// command that runs [Apply] there.
func (p Programs) Image(setup []string) func(context.Context, *guest.Client) error {
	return func(ctx context.Context, g *guest.Client) error {
		plugins, err := filepath.Glob(p.path("cni/*"))
		if err != nil {
			return err
		}
		var s Setup
		for _, file := range plugins {
			s.Links = append(s.Links, Link{Path: filepath.Join(pluginDir, filepath.Base(file)), Target: file})
		}
		return apply(ctx, g, setup, s)
	}
}

// apply has a setup carried out in an instance.
func apply(ctx context.Context, g *guest.Client, setup []string, s Setup) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	go func() {
		// A reader that goes away says by itself what it misses.
		_ = json.NewEncoder(w).Encode(s)
		w.Close()
	}()
	complaint, err := os.CreateTemp("", "fairway-setup-")
	if err != nil {
		return err
	}
	defer os.Remove(complaint.Name())
	defer complaint.Close()
	status, err := g.Exec(ctx, guest.Cmd{Argv: setup, Stdin: r, Stderr: complaint})
	if err == nil && status.Shell() != 0 {
		said, _ := os.ReadFile(complaint.Name())
		err = fmt.Errorf("set an instance up: %s: %s", status, strings.TrimSpace(string(said)))
	}
	return err
}

// Kubectl is a command of kubectl's, as the administrator of a lab's cluster, to be
// started by [StartIn].
func Kubectl(ctx context.Context, lab string, args ...string) *exec.Cmd {
	dir := Dir(lab)
	c := exec.CommandContext(ctx, filepath.Join(dir, programsName, "kubectl"), args...)
	c.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(dir, adminName))
	return c
}

// Exists says whether a lab has a cluster.
func Exists(lab string) bool {
	_, err := os.Stat(filepath.Join(Dir(lab), adminName))
	return err == nil
}

// StartIn starts a command in the network namespace of another process. /sys stays
// what it is, and so do all other things of this machine.
func StartIn(pid int, c *exec.Cmd) error {
	ns, err := os.Open(filepath.Join("/proc", strconv.Itoa(pid), "ns/net"))
	if err != nil {
		return fmt.Errorf("open network namespace: %w", err)
	}
	defer ns.Close()
	// The process keeps the namespace of the thread that made it.
	return netns.Do(ns, c.Start)
}

// manifests are all that a new cluster is given, in one text.
func (p Programs) manifests(dns netip.Addr) ([]byte, error) {
	files, err := filepath.Glob(p.path("manifests/*.yaml"))
	if err != nil {
		return nil, err
	}
	var all bytes.Buffer
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		all.WriteString("---\n")
		all.WriteString(strings.NewReplacer("${CLUSTER_DNS}", dns.String(), "${CLUSTER_DOMAIN}", clusterDomain).Replace(string(text)))
	}
	return all.Bytes(), nil
}
