package burst

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/internal/edge/agentapi"
	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

const (
	netnsDir = "/run/netns"
	confDir  = "/etc/cni/net.d"
	patience = 2 * time.Minute // bounds the wait for anything that comes by itself
	atOnce   = 10              // pods that are made at a time where nothing is measured
)

// task is what the bench tells its half in the instance.
type task struct {
	Plugin string // path of fairway-cni
	Node   int    // of the lab
	Pods   int
	Warm   int  // bursts after the first, each on a node without pods that has all addresses
	Stay   bool // the pods are made a few at a time, and stay
}

// Inside is the bench's half in the instance: to enter the instance for each pod
// would be measured too. It prints what it did as JSON, value after value.
func Inside(ctx context.Context, arg string, out io.Writer) error {
	var t task
	if err := json.Unmarshal([]byte(arg), &t); err != nil {
		return fmt.Errorf("read what the bench says: %w", err)
	}
	say := json.NewEncoder(out)
	pods, err := sandboxes(t.Pods)
	if err != nil {
		return err
	}
	if err := say.Encode(true); err != nil {
		return err
	}
	config, err := networkConfig(ctx)
	if err != nil {
		return err
	}
	m := machine{t.Plugin, config}
	if t.Stay {
		made := crowd{Start: time.Now()}
		for chunk := range slices.Chunk(pods, atOnce) {
			made.Pods = append(made.Pods, m.all("ADD", chunk).Pods...)
		}
		return say.Encode(made)
	}
	for burst := range 1 + t.Warm {
		if burst > 0 {
			if err := warm(ctx, t.Pods); err != nil {
				return err
			}
			if err := say.Encode(true); err != nil {
				return err
			}
		}
		if err := say.Encode(m.all("ADD", pods)); err != nil {
			return err
		}
		for chunk := range slices.Chunk(pods, atOnce) {
			if gone := m.all("DEL", chunk); gone.failed() > 0 {
				return fmt.Errorf("delete pods: %s", gone.why())
			}
		}
	}
	return nil
}

// warm waits until the agent has an address for each of n pods, nothing is left of
// the pods before, also not in the kernel, and EC2 is asked for nothing.
func warm(ctx context.Context, n int) error {
	agent := agentapi.NewClient(agentapi.DefaultSocket)
	return until(ctx, fmt.Sprintf("%d free addresses", n), func() error {
		links, err := netlink.LinkList()
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			return err
		}
		for _, l := range links {
			if name := l.Attrs().Name; strings.HasPrefix(name, node.DefaultVethPrefix) {
				return fmt.Errorf("device %s of a pod is still there", name)
			}
		}
		s, err := agent.Status(ctx)
		if err != nil {
			return err
		}
		busy := 0
		for _, e := range s.ENIs {
			if e.State != agentapi.Attached {
				busy++
			}
		}
		if busy += len(s.InFlight) + len(s.Waiting) + s.Pool.Assigned; busy > 0 || s.Pool.Free < n {
			return fmt.Errorf("%d free, %d assigned, %d calls under way", s.Pool.Free, s.Pool.Assigned, len(s.InFlight))
		}
		return nil
	})
}

func until(ctx context.Context, what string, done func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		err := done()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w: %w", what, ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// machine runs the plugin.
type machine struct {
	plugin string
	config []byte // of the network, as libcni hands it to a plugin
}

// networkConfig waits for the agent's configuration list, which says that it
// serves, and makes of it what its own plugin gets on standard input.
func networkConfig(ctx context.Context) (config []byte, err error) {
	err = until(ctx, "the agent's network configuration", func() error {
		config, err = readConfig(confDir)
		return err
	})
	return config, err
}

func readConfig(dir string) ([]byte, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.conflist"))
	if err != nil || len(files) == 0 {
		return nil, cmp.Or(err, errors.New("there is none"))
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		return nil, err
	}
	var list struct {
		CNIVersion string           `json:"cniVersion"`
		Name       string           `json:"name"`
		Plugins    []map[string]any `json:"plugins"`
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("read %s: %w", files[0], err)
	}
	if len(list.Plugins) == 0 {
		return nil, fmt.Errorf("read %s: no plugin", files[0])
	}
	config := list.Plugins[0]
	config["cniVersion"], config["name"] = list.CNIVersion, list.Name
	return json.Marshal(config)
}

// sandbox is the path of a pod's network namespace, made as a runtime does.
type sandbox string

func sandboxes(n int) ([]sandbox, error) {
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		return nil, err
	}
	var made []sandbox
	for i := range n {
		s := sandbox(filepath.Join(netnsDir, fmt.Sprintf("burst-%d", i)))
		if err := s.mount(); err != nil {
			return nil, fmt.Errorf("make pod %d: %w", i, err)
		}
		made = append(made, s)
	}
	return made, nil
}

func (s sandbox) mount() error {
	ns, err := netns.New()
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := netns.Do(ns, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	}); err != nil {
		return err
	}
	if err := os.WriteFile(string(s), nil, 0o444); err != nil {
		return err
	}
	return unix.Mount(fmt.Sprintf("/proc/self/fd/%d", ns.Fd()), string(s), "", unix.MS_BIND, "")
}

// all runs the plugin for all pods at once.
func (m machine) all(command string, pods []sandbox) crowd {
	var programs []*exec.Cmd
	for _, s := range pods {
		name := filepath.Base(string(s))
		c := exec.Command(m.plugin)
		c.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "CNI_COMMAND=" + command, "CNI_CONTAINERID=" + name,
			"CNI_NETNS=" + string(s), "CNI_IFNAME=eth0", "CNI_PATH=/opt/cni/bin", "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=" + name}
		c.Stdin = bytes.NewReader(m.config)
		programs = append(programs, c)
	}
	c := crowd{Start: time.Now(), Pods: make([]podOutcome, len(pods))}
	var wg sync.WaitGroup
	for i, p := range programs {
		wg.Go(func() { c.Pods[i] = run(p, command == "ADD") })
	}
	wg.Wait()
	return c
}

func run(c *exec.Cmd, result bool) (o podOutcome) {
	var out strings.Builder
	c.Stdout = &out
	err := c.Run()
	o.End = time.Now()
	if err == nil && result {
		o.Addr, err = addressOf(out.String())
	}
	if err != nil {
		o.Error = fmt.Sprintf("%v: %s", err, out.String())
	}
	return o
}

// addressOf reads the pod's address in the result of an ADD.
func addressOf(text string) (netip.Addr, error) {
	var result struct {
		IPs []struct {
			Address netip.Prefix `json:"address"`
		} `json:"ips"`
	}
	if err := json.Unmarshal([]byte(text), &result); err != nil {
		return netip.Addr{}, fmt.Errorf("read the plugin's result: %w", err)
	}
	if len(result.IPs) != 1 {
		return netip.Addr{}, fmt.Errorf("the plugin's result has %d addresses, want one", len(result.IPs))
	}
	return result.IPs[0].Address.Addr(), nil
}
