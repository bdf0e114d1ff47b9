// Package runtime makes pods as a container runtime does: a network namespace
// for each, and the CNI plugin of the node called on it by libcni, with the
// arguments that containerd gives under Kubernetes. There are no containers.
//
// It works in the mount and network namespaces that it runs in, and so belongs
// inside an instance of the lab:
//
//	/etc/cni/net.d/*.conflist     the network: the first by name
//	/opt/cni/bin/                 the plugins
//	/run/netns/ID                 a pod's namespace, mounted by a container ID
//	/run/fairway-lab-runtime/     one record per pod, libcni's cache, a lock
//
// What holds: a pod's record is written before its namespace is made and
// removed after the plugin's DEL has succeeded, so that whatever the plugin may
// have been asked for can be found and given back by Del or GC, also after a
// crash. A pod is deleted with the configuration that it was added with.
//
// A Runtime has no state but its directories. Any number of them, in any number
// of processes, may use the same ones at the same time: operations on one pod
// exclude each other, and GC excludes adding and deleting.
package runtime

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

var (
	// ErrExists says that there is a pod of that name.
	ErrExists = errors.New("pod exists")
	// ErrNotFound says that there is no pod of that name.
	ErrNotFound = errors.New("no such pod")
	// ErrNoNetwork says that no usable network configuration was found.
	ErrNoNetwork = errors.New("no network configuration")
)

const (
	ifName    = "eth0"    // as containerd and CRI-O name a pod's first interface
	namespace = "default" // of Kubernetes

	// pluginTimeout bounds one ADD, DEL, CHECK or GC where the caller does not:
	// the kubelet's runtime request timeout of 2 minutes.
	pluginTimeout = 2 * time.Minute
	// undoTimeout bounds the DEL after a failed ADD, also where the caller's
	// time is up.
	undoTimeout = 30 * time.Second
)

// Config says where things are. An empty field means the default.
type Config struct {
	NetConfDir string   // /etc/cni/net.d
	BinDirs    []string // /opt/cni/bin
	StateDir   string   // /run/fairway-lab-runtime
	NetNSDir   string   // /run/netns
	CacheDir   string   // StateDir/cache: libcni's own default is not an instance's own

	// Capabilities is what a pod that is added gives the plugins which ask for
	// it, by the names and in the form of CNI's conventions: portMappings,
	// bandwidth. Empty: nothing.
	Capabilities map[string]any
}

// Pod is one pod as its record has it.
type Pod struct {
	Name      string         `json:"name"`
	ID        string         `json:"id"`      // container ID: 64 hex digits
	UID       string         `json:"uid"`     // as Kubernetes would give
	NetNS     string         `json:"netns"`   // path of the mounted namespace
	Network   string         `json:"network"` // name in the network configuration
	IfName    string         `json:"ifname"`
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	Created   time.Time      `json:"created"`
	// Capabilities is what it was added with: Config.Capabilities.
	Capabilities map[string]any `json:"capabilities,omitempty"`
	// Ready is false while the pod is being made, and for ever where that was
	// interrupted, or failed and could not be undone. Such a pod can only be deleted.
	Ready bool `json:"ready"`
}

// Runtime makes and deletes pods.
type Runtime struct {
	config Config
	cni    *libcni.CNIConfig
}

// New gives a Runtime. It touches nothing.
func New(c Config) *Runtime {
	for _, d := range []struct {
		field *string
		value string
	}{
		{&c.NetConfDir, "/etc/cni/net.d"},
		{&c.StateDir, "/run/fairway-lab-runtime"},
		{&c.NetNSDir, "/run/netns"},
	} {
		if *d.field == "" {
			*d.field = d.value
		}
	}
	if c.CacheDir == "" {
		c.CacheDir = filepath.Join(c.StateDir, "cache")
	}
	if len(c.BinDirs) == 0 {
		c.BinDirs = []string{"/opt/cni/bin"}
	}
	// libcni would make these itself at first use, with a data race between
	// parallel ADDs.
	run := &invoke.DefaultExec{RawExec: &invoke.RawExec{Stderr: os.Stderr}}
	return &Runtime{config: c, cni: libcni.NewCNIConfigWithCacheDir(c.BinDirs, c.CacheDir, run)}
}

// ValidName says whether a pod may be called so.
func ValidName(name string) bool { return podName.MatchString(name) }

var podName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`) // RFC 1123, and a safe file name

func checkName(name string) error {
	if !podName.MatchString(name) {
		return fmt.Errorf("pod name %q: want a-z, 0-9 and \"-\" inside, at most 63 characters", name)
	}
	return nil
}

// Add makes a pod: its namespace with a loopback that is up, and its interface
// by the plugin. Where that fails nothing is left of it, unless undoing fails
// too: then the pod stays, not ready, to be deleted.
// It returns ErrExists, ErrNoNetwork, or what the plugin said.
func (r *Runtime) Add(ctx context.Context, name string) (Pod, error) {
	if err := checkName(name); err != nil {
		return Pod{}, err
	}
	list, err := r.network()
	if err != nil {
		return Pod{}, fmt.Errorf("add pod %s: %w", name, err)
	}
	unlock, err := r.lock(ctx, name)
	if err != nil {
		return Pod{}, err
	}
	defer unlock()
	pod := newPod(name, r.config.NetNSDir, list.Name)
	pod.Capabilities = r.config.Capabilities
	if err := r.create(pod); err != nil {
		if errors.Is(err, ErrExists) {
			err = fmt.Errorf("add pod %s: %w: delete it first", name, err)
		}
		return Pod{}, err
	}
	if err := r.attach(ctx, list, &pod); err != nil {
		err = fmt.Errorf("add pod %s: %w", name, err)
		if undo := r.undo(ctx, list, pod); undo != nil {
			err = fmt.Errorf("%w; undoing it failed as well, delete the pod to try that again: %w", err, undo)
		}
		return Pod{}, err
	}
	return pod, nil
}

// attach does for a pod that has its record all that remains to be done.
func (r *Runtime) attach(ctx context.Context, list *libcni.NetworkConfigList, pod *Pod) error {
	if err := mountNamespace(pod.NetNS); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, pluginTimeout)
	defer cancel()
	raw, err := r.cni.AddNetworkList(ctx, list, pod.runtimeConf())
	if err != nil {
		return pluginError(ctx, err)
	}
	result, err := types100.GetResult(raw)
	if err != nil {
		return fmt.Errorf("read the plugin's result: %w", err)
	}
	for _, ip := range result.IPs {
		if addr, ok := netip.AddrFromSlice(ip.Address.IP); ok {
			ones, _ := ip.Address.Mask.Size()
			pod.Addresses = append(pod.Addresses, netip.PrefixFrom(addr.Unmap(), ones))
		}
	}
	pod.Ready = true
	return r.replace(*pod)
}

// undo removes what a failed Add has left, its record last.
func (r *Runtime) undo(ctx context.Context, list *libcni.NetworkConfigList, pod Pod) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	del := r.cni.DelNetworkList(ctx, list, pod.runtimeConf())
	// The namespace goes in any case: a DEL without one is what the next try is.
	err := unmountNamespace(pod.NetNS)
	if del != nil || err != nil {
		pod.Ready = false
		return errors.Join(pluginError(ctx, del), err, r.replace(pod))
	}
	return r.remove(pod.Name)
}

// AddMany adds pods, at most parallel of them at a time. It gives those that
// were made, in the order of names, and the errors of the others. They are begun in
// that order, and after one that found no network none is: who waits for the network
// has the first pod made first.
func (r *Runtime) AddMany(ctx context.Context, names []string, parallel int) ([]Pod, error) {
	made, errs := make([]*Pod, len(names)), make([]error, len(names))
	slots := make(chan struct{}, max(parallel, 1))
	var wg sync.WaitGroup
	var lost atomic.Bool
	for i, name := range names {
		slots <- struct{}{}
		if lost.Load() {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			pod, err := r.Add(ctx, name)
			if err == nil {
				made[i] = &pod
			}
			if errors.Is(err, ErrNoNetwork) {
				lost.Store(true)
			}
			errs[i] = err
		})
	}
	wg.Wait()
	var pods []Pod
	for _, p := range made {
		if p != nil {
			pods = append(pods, *p)
		}
	}
	return pods, errors.Join(errs...)
}

// Del deletes a pod; deleting one that is not there succeeds. Where the plugin
// fails the pod stays as it is, to be deleted again. Processes that run in the
// pod are left alone and keep its namespace alive.
func (r *Runtime) Del(ctx context.Context, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	unlock, err := r.lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	return r.delLocked(ctx, name)
}

func (r *Runtime) delLocked(ctx context.Context, name string) error {
	pod, err := r.load(name)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	list, rt, err := r.addedWith(pod)
	if err != nil {
		return fmt.Errorf("delete pod %s: %w", name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, pluginTimeout)
	defer cancel()
	if err := r.cni.DelNetworkList(ctx, list, rt); err != nil {
		return fmt.Errorf("delete pod %s: %w", name, pluginError(ctx, err))
	}
	if err := unmountNamespace(pod.NetNS); err != nil {
		return fmt.Errorf("delete pod %s: %w", name, err)
	}
	return r.remove(name)
}

// Check asks the plugin whether the pod still is as ADD left it.
// It returns ErrNotFound, or what the plugin said.
func (r *Runtime) Check(ctx context.Context, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	unlock, err := r.lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	pod, err := r.load(name)
	if err != nil {
		return fmt.Errorf("check pod %s: %w", name, err)
	}
	if !pod.Ready {
		return fmt.Errorf("check pod %s: it was never completely added: delete it", name)
	}
	list, rt, err := r.addedWith(pod)
	if err != nil {
		return fmt.Errorf("check pod %s: %w", name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, pluginTimeout)
	defer cancel()
	if err := r.cni.CheckNetworkList(ctx, list, rt); err != nil {
		return fmt.Errorf("check pod %s: %w", name, pluginError(ctx, err))
	}
	return nil
}

// GC deletes the pods whose adding was interrupted and the namespaces that no
// pod has, and then tells the plugin which attachments are in use, so that it
// gives up all others. Adding and deleting wait for it: the specification
// leaves open what a plugin does to an ADD that runs during GC.
func (r *Runtime) GC(ctx context.Context) error {
	unlock, err := r.lockAll(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	pods, err := r.List()
	if err != nil {
		return err
	}
	var errs []error
	// Empty, not nil: a plugin reads null as "not said".
	inUse := []types.GCAttachment{}
	mounted := map[string]bool{}
	for _, pod := range pods {
		if !pod.Ready {
			err := r.delLocked(ctx, pod.Name)
			if err == nil {
				continue
			}
			errs = append(errs, err)
		}
		inUse = append(inUse, types.GCAttachment{ContainerID: pod.ID, IfName: pod.IfName})
		mounted[pod.NetNS] = true
	}
	errs = append(errs, r.unmountOthers(mounted))
	list, err := r.network()
	if err != nil {
		return errors.Join(append(errs, fmt.Errorf("collect garbage: %w", err))...)
	}
	ctx, cancel := context.WithTimeout(ctx, pluginTimeout)
	defer cancel()
	if err := r.cni.GCNetworkList(ctx, list, &libcni.GCArgs{ValidAttachments: inUse}); err != nil {
		errs = append(errs, fmt.Errorf("collect garbage: %w", pluginError(ctx, err)))
	}
	return errors.Join(errs...)
}

// Get gives one pod, or ErrNotFound.
func (r *Runtime) Get(name string) (Pod, error) {
	if err := checkName(name); err != nil {
		return Pod{}, err
	}
	pod, err := r.load(name)
	if err != nil {
		return Pod{}, fmt.Errorf("get pod %s: %w", name, err)
	}
	return pod, nil
}

// Exec runs a command in the pod's network namespace and in the caller's others,
// to its end. Its error is that of [exec.Cmd.Run]. The command must not set
// Pdeathsig: the thread that starts it does not live on.
func (r *Runtime) Exec(name string, cmd *exec.Cmd) error {
	pod, err := r.Get(name)
	if err != nil {
		return err
	}
	ns, err := os.Open(pod.NetNS)
	if err != nil {
		return fmt.Errorf("run in pod %s: its namespace is gone: %w", name, err)
	}
	defer ns.Close()
	// A child has the namespaces of the thread that forks it, and only that part
	// has to happen inside.
	if err := netns.Do(ns, cmd.Start); err != nil {
		return fmt.Errorf("run in pod %s: %w", name, err)
	}
	return cmd.Wait()
}
