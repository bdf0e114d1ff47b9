package programs

import (
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/deploy/oci"
	"github.com/fairway-cni/fairway/test/upstream"
)

// components are the names that the file of all components is called by.
var components = []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"}

// plugins are those that a node's image brings beside a network's own. The last
// two are what a network plugin is compared with.
var plugins = []string{"main/loopback", "meta/portmap", "meta/bandwidth", "main/ptp", "ipam/host-local"}

const (
	containerdModule = "github.com/containerd/containerd/v2"
	pluginsModule    = "github.com/containernetworking/plugins/plugins/"
	versionPackage   = "k8s.io/component-base/version"
)

// AgnhostImage is the image of Kubernetes' own tests: a server and a client of many
// protocols.
const AgnhostImage = "fairway.test/agnhost:1"

// Build makes the directory `to` from the sources below `from`, the directory
// test/kubernetes of the repository. What takes long is told to progress. Where
// another process does the same, it waits. The error is an [upstream.ErrNone] where all is
// built but what comes from Debian.
func Build(from, to string, progress io.Writer) error {
	to, err := filepath.Abs(to)
	if err != nil {
		return err
	}
	for _, dir := range []string{to, filepath.Join(to, "cni"), filepath.Join(to, "images"), filepath.Join(to, "manifests"), filepath.Join(to, "parts")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	// Tests of several packages may begin at once, and one build is enough.
	lock, err := os.OpenFile(filepath.Join(to, ".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", to, err)
	}
	b := builder{from, to, progress}
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"CNI plugins, pause and the front of runc", b.own},
		{"the components of Kubernetes, which takes minutes the first time", b.components},
		{"containerd", b.containerd},
		{"CoreDNS", b.coredns},
		{"images", b.images},
		{"runc, iptables and nft", b.debian},
	} {
		start := time.Now()
		if err := step.do(); err != nil {
			return fmt.Errorf("build %s: %w", step.what, err)
		}
		fmt.Fprintf(progress, "%-68s %4.0f s\n", step.what, time.Since(start).Seconds())
	}
	return nil
}

type builder struct {
	from, to string
	progress io.Writer
}

// module is the directory of a module of the tree.
func (b builder) module(name string) string { return filepath.Join(b.from, name) }

func (b builder) part(name string) string { return filepath.Join(b.to, "parts", name) }

func (b builder) own() error {
	var packages []string
	for _, p := range plugins {
		packages = append(packages, pluginsModule+p)
	}
	return errors.Join(
		upstream.Build(b.from, filepath.Join(b.to, "cni"), packages...),
		upstream.Build(b.from, filepath.Join(b.to, "runc"), "./runc"),
		upstream.Build(b.from, b.part("pause"), "./pause"),
	)
}

func (b builder) components() error {
	version, err := b.version("components", "k8s.io/kubernetes")
	if err != nil {
		return err
	}
	number := strings.Split(strings.TrimPrefix(version, "v"), ".")
	says := "-ldflags=-s -w"
	for name, value := range map[string]string{"gitVersion": version, "gitMajor": number[0], "gitMinor": number[1]} {
		says += fmt.Sprintf(" -X %s.%s=%s", versionPackage, name, value)
	}
	if err := upstream.Build(b.module("components"), b.part("components"), says, "."); err != nil {
		return err
	}
	for _, name := range components {
		if err := link("parts/components", filepath.Join(b.to, name)); err != nil {
			return err
		}
	}
	return upstream.Build(b.module("components"), b.part("agnhost"), "k8s.io/kubernetes/test/images/agnhost")
}

// version is the one of a dependency that a module of the tree pins, with its "v".
func (b builder) version(module, dependency string) (string, error) {
	c := exec.Command("go", "list", "-m", "-f", "{{.Version}}", dependency)
	c.Dir = b.module(module)
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w", c, err)
	}
	version := strings.TrimSpace(string(out))
	if strings.Count(version, ".") < 2 {
		return "", fmt.Errorf("version %q of %s: must be of three numbers", version, dependency)
	}
	return version, nil
}

func (b builder) containerd() error {
	version, err := b.version("containerd", containerdModule)
	if err != nil {
		return err
	}
	return upstream.Build(b.module("containerd"), b.to, "-ldflags=-s -w -X "+containerdModule+"/version.Version="+version,
		containerdModule+"/cmd/containerd", containerdModule+"/cmd/containerd-shim-runc-v2", containerdModule+"/cmd/ctr")
}

// dns is the manifest of a cluster's DNS.
//
//go:embed dns.yaml
var dns []byte

func (b builder) coredns() error {
	if err := upstream.Build(b.module("coredns"), b.part("coredns"), "."); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.to, "manifests", "dns.yaml"), dns, 0o644)
}

func (b builder) images() error {
	for _, i := range []struct {
		name, program string
		args          []string
	}{
		{name: "fairway.test/pause:1", program: "pause"},
		{name: "fairway.test/coredns:1", program: "coredns"},
		{name: AgnhostImage, program: "agnhost", args: []string{"pause"}},
	} {
		program, archive := b.part(i.program), filepath.Join(b.to, "images", i.program+".tar")
		if newer, err := isNewer(archive, program); err != nil {
			return err
		} else if newer {
			continue
		}
		made := oci.Image{Name: i.name, Arch: runtime.GOARCH, Programs: []string{program}, Args: i.args}
		if _, err := made.WriteFile(archive); err != nil {
			return err
		}
	}
	return nil
}

// isNewer says whether there is an archive that was made after its program.
func isNewer(archive, program string) (bool, error) {
	from, err := os.Stat(program)
	if err != nil {
		return false, err
	}
	old, err := os.Stat(archive)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && !old.ModTime().Before(from.ModTime()), err
}

func (b builder) debian() error {
	runc, err := upstream.Runc()
	if err != nil {
		return err
	}
	if err := link(runc, filepath.Join(b.to, "runc.real")); err != nil {
		return err
	}
	return upstream.Netfilter(b.to)
}

// link makes a symbolic link, or makes an old one lead to the target.
func link(target, path string) error {
	if old, err := os.Readlink(path); err == nil && old == target {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Symlink(target, path)
}
