package scenarios

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fairway-cni/fairway/lab/world"
)

// host is what a lab could change on the machine it runs on: one line for each
// thing. What other programs may change meanwhile is not part of it, and of
// what labs have, only what is the one lab's.
type host struct {
	shared []string // nobody may add to it or take from it
	labs   []string // of the lab: nothing, when it does not run
}

// sysctls are those that a node agent writes, and those that forwarding needs.
var sysctls = []string{
	"net/ipv4/ip_forward", "net/ipv4/conf/all/rp_filter", "net/ipv4/conf/default/rp_filter",
	"net/ipv4/conf/all/accept_local", "net/ipv4/conf/all/forwarding", "net/ipv4/conf/all/arp_ignore",
	"net/core/bpf_jit_enable", "kernel/hostname",
}

// lookAtHost reads all of it for the lab of that name.
func lookAtHost(name string) (host, error) {
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return host{}, err
	}
	defer own.Close()
	var h host
	if h.shared, err = kernelState(own); err != nil {
		return host{}, err
	}
	for _, s := range sysctls {
		v, err := os.ReadFile(filepath.Join("/proc/sys", s))
		if err != nil && !os.IsNotExist(err) {
			return host{}, err
		}
		h.shared = append(h.shared, fmt.Sprintf("sysctl %s = %s", s, strings.TrimSpace(string(v))))
	}
	for _, pattern := range []string{"/run/netns/*", "/etc/cni/*", "/etc/cni/net.d/*", "/opt/cni/bin/*", "/var/lib/cni/*", "/run/fairway", "/run/fairway/*"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			return host{}, err
		}
		for _, f := range files {
			h.shared = append(h.shared, "file "+f)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return host{}, err
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, "fairway") || strings.Contains(line, "netns") || strings.Contains(line, "overlay") {
			h.shared = append(h.shared, "mount "+strings.TrimSpace(line))
		}
	}
	slices.Sort(h.shared)
	h.labs, err = traces(name)
	return h, err
}

// traces lists what there is of a lab: directory, cgroups, processes.
func traces(name string) ([]string, error) {
	var found []string
	if _, err := os.Stat(world.Dir(name)); err == nil {
		found = append(found, "directory "+world.Dir(name))
	}
	cgroup, err := world.Cgroup(name)
	if err != nil {
		return nil, err
	}
	err = filepath.WalkDir(filepath.Dir(cgroup), func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.HasPrefix(path, cgroup) {
			found = append(found, "cgroup "+path)
		}
		return nil // others come and go
	})
	if err != nil {
		return nil, err
	}
	// Processes are known by the programs, which are this test's own.
	pids, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	for _, p := range pids {
		exe, err := os.Readlink(filepath.Join(p, "exe"))
		if err == nil && strings.HasPrefix(exe, programs+"/") {
			args, _ := os.ReadFile(filepath.Join(p, "cmdline"))
			found = append(found, fmt.Sprintf("process %s: %s", filepath.Base(p), strings.ReplaceAll(string(args), "\x00", " ")))
		}
	}
	return found, nil
}

// untouched notes what the host is, and gives the check that it is so again.
func untouched(t *testing.T, name string) (check func()) {
	t.Helper()
	needLab(t)
	var before host
	eventually(t, "nothing is there of a lab from before", func() (err error) { // the last processes of one may still be ending
		if before, err = lookAtHost(name); err == nil && len(before.labs) > 0 {
			err = fmt.Errorf("there is:\n%s", joined(before.labs))
		}
		return err
	})
	return func() {
		t.Helper()
		eventually(t, "host is as before", func() error {
			after, err := lookAtHost(name)
			if err != nil {
				return err
			}
			if diff := difference(before.shared, after.shared); diff != nil {
				return fmt.Errorf("changed:\n%s", joined(diff))
			}
			if len(after.labs) > 0 {
				return fmt.Errorf("left behind:\n%s", joined(after.labs))
			}
			return nil
		})
	}
}
