package runtime

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containernetworking/cni/libcni"
)

// maxConf bounds a network configuration; real ones have a few kilobytes.
const maxConf = 1 << 20

// network reads the network configuration: the first .conflist by name.
func (r *Runtime) network() (*libcni.NetworkConfigList, error) {
	dir := r.config.NetConfDir
	files, err := os.ReadDir(dir) // sorted by name
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read network configuration: %w", err)
	}
	var others []string
	for _, f := range files {
		if filepath.Ext(f.Name()) != ".conflist" {
			others = append(others, f.Name())
			continue
		}
		list, err := readList(filepath.Join(dir, f.Name()))
		if list != nil || err != nil {
			return list, err
		}
	}
	if len(others) > 0 {
		return nil, fmt.Errorf("%w: %s has no .conflist, only %s: single-plugin files are not read, wrap them in a list",
			ErrNoNetwork, dir, strings.Join(others, ", "))
	}
	return nil, fmt.Errorf("%w: %s is empty: the CNI's daemon writes it when it is ready, look at its log or wait for it", ErrNoNetwork, dir)
}

// readList reads one configuration. Neither is given where its file has gone since it
// was listed: who writes it takes it away, too, while the network is not ready.
func readList(path string) (*libcni.NetworkConfigList, error) {
	info, err := os.Stat(path)
	if err == nil && info.Size() > maxConf {
		return nil, fmt.Errorf("%w: %s has %d bytes, at most %d are read", ErrNoNetwork, path, info.Size(), maxConf)
	}
	var list *libcni.NetworkConfigList
	if err == nil {
		list, err = libcni.NetworkConfFromFile(path)
	}
	if err == nil {
		return list, nil
	}
	if _, there := os.Lstat(path); errors.Is(there, os.ErrNotExist) { // not a link that leads nowhere
		return nil, nil
	}
	return nil, fmt.Errorf("%w: %s: %w", ErrNoNetwork, path, err)
}

// addedWith gives the configuration and arguments that a pod was added with,
// and the present ones where adding did not come that far.
func (r *Runtime) addedWith(pod Pod) (*libcni.NetworkConfigList, *libcni.RuntimeConf, error) {
	rt := pod.runtimeConf()
	if _, err := os.Stat(pod.NetNS); errors.Is(err, os.ErrNotExist) {
		rt.NetNS = "" // the specification's word for a namespace that is gone
	}
	bytes, cached, err := r.cni.GetNetworkListCachedConfig(&libcni.NetworkConfigList{Name: pod.Network}, rt)
	if err != nil {
		return nil, nil, fmt.Errorf("read the configuration that it was added with: %w", err)
	}
	if bytes == nil {
		list, err := r.network()
		return list, rt, err
	}
	list, err := libcni.NetworkConfFromBytes(bytes)
	if err == nil && !list.LoadOnlyInlinedPlugins {
		// The cache has the list's own text only, and not the plugins that the
		// specification lets it load from a directory beside it.
		var plugins []*libcni.PluginConfig
		plugins, err = libcni.NetworkPluginConfsFromFiles(r.config.NetConfDir, list.Name)
		list.Plugins = append(list.Plugins, plugins...)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read the configuration that it was added with: %w", err)
	}
	return list, cached, nil
}

func (p Pod) runtimeConf() *libcni.RuntimeConf {
	return &libcni.RuntimeConf{
		ContainerID: p.ID,
		NetNS:       p.NetNS,
		IfName:      p.IfName,
		// libcni gives each plugin those that its configuration names.
		CapabilityArgs: p.Capabilities,
		Args: [][2]string{ // in containerd's order
			{"IgnoreUnknown", "1"},
			{"K8S_POD_NAMESPACE", namespace},
			{"K8S_POD_NAME", p.Name},
			{"K8S_POD_INFRA_CONTAINER_ID", p.ID},
			{"K8S_POD_UID", p.UID},
		},
	}
}

func newPod(name, netNSDir, network string) Pod {
	var id [32]byte
	var uid [16]byte
	rand.Read(id[:]) // never fails
	rand.Read(uid[:])
	uid[6], uid[8] = uid[6]&0x0f|0x40, uid[8]&0x3f|0x80 // version 4, RFC 9562
	hexID := hex.EncodeToString(id[:])
	return Pod{
		Name:    name,
		ID:      hexID,
		UID:     fmt.Sprintf("%x-%x-%x-%x-%x", uid[:4], uid[4:6], uid[6:8], uid[8:10], uid[10:]),
		NetNS:   filepath.Join(netNSDir, hexID),
		Network: network,
		IfName:  ifName,
		Created: time.Now().UTC().Truncate(time.Millisecond),
	}
}

// pluginError says that the time was up where that is why a plugin failed:
// what is left of it then is "signal: killed".
func pluginError(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%w (%w)", err, context.Cause(ctx))
	}
	return err
}
