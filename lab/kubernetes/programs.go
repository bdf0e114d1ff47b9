package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

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

// Client gives kubectl and the administrator's kubeconfig of a lab's cluster.
func Client(lab string) (program, kubeconfig string) {
	dir := Dir(lab)
	return filepath.Join(dir, programsName, "kubectl"), filepath.Join(dir, adminName)
}
