package kubernetes

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
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

// plugins are the files of cni/.
func (p Programs) plugins() ([]string, error) { return filepath.Glob(p.path("cni/*")) }

// Client gives kubectl and the administrator's kubeconfig of a lab's cluster.
func Client(lab string) (program, kubeconfig string) {
	dir := Dir(lab)
	return filepath.Join(dir, programsName, "kubectl"), filepath.Join(dir, adminName)
}
