package burst

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	fullType  = "m5.24xlarge" // 15 ENIs of 50 addresses
	fullPods  = 250
	fullNodes = 3
	// watchFor is how long they are left alone and watched. Go's runtime
	// collects garbage every two minutes where nothing else makes it, and gives
	// the memory back in the background; so this is time for both, twice.
	watchFor = 5 * time.Minute
)

// still is what the nodes with 250 pods did while nothing happened on them.
type still struct {
	watched     time.Duration
	rss, peak   []float64 // MiB of each agent: VmRSS at the end, VmHWM
	anon        []float64 // MiB of each agent that are not of files
	poolCalls   int       // of all nodes
	routesCalls []float64 // of each node, in an hour
}

// rest fills some nodes with pods, leaves them alone, and looks.
func rest(ctx context.Context, env Env) (_ still, err error) {
	fmt.Fprintf(env.Progress, "burst: making %d pods on each of %d nodes\n", fullPods, fullNodes)
	s, err := open(ctx, env, describe(fullNodes, fullType, rounds))
	if err != nil {
		return still{}, err
	}
	defer s.close(&err)
	for node := range fullNodes {
		if err := s.fill(ctx, node); err != nil {
			return still{}, err
		}
	}
	if err := s.quiet(ctx); err != nil {
		return still{}, err
	}
	fmt.Fprintf(env.Progress, "burst: watching idle nodes for %s\n", watchFor)
	since := time.Now()
	select {
	case <-ctx.Done():
		return still{}, ctx.Err()
	case <-time.After(watchFor):
	}
	st := still{watched: time.Since(since)}
	calls := s.lab.Cloud().Calls(since)
	st.poolCalls = len(ofPool(calls))
	perHour := float64(time.Hour) / float64(st.watched)
	for node := range fullNodes {
		// They cannot be told apart without IAM, and do the same.
		st.routesCalls = append(st.routesCalls, float64(len(calls)-st.poolCalls)/fullNodes*perHour)
		m, err := s.memory(node)
		if err != nil {
			return still{}, err
		}
		st.rss, st.peak, st.anon = append(st.rss, m["VmRSS"]), append(st.peak, m["VmHWM"]), append(st.anon, m["RssAnon"])
	}
	return st, nil
}

// fill starts a node's agent and makes its pods.
func (s *site) fill(ctx context.Context, node int) (err error) {
	in, err := s.inside(ctx, task{Node: node, Pods: fullPods, Stay: true})
	if err != nil {
		return err
	}
	defer in.end(&err)
	if err := in.prepared(); err != nil {
		return err
	}
	if err := s.startAgent(ctx, node, nil); err != nil {
		return err
	}
	made, err := in.burst()
	if err != nil {
		return err
	}
	if n := made.failed(); n > 0 {
		return fmt.Errorf("%d of %d ADDs failed: %s", n, fullPods, made.why())
	}
	return nil
}

// quiet waits until the pools have not asked EC2 for anything for a while, which
// is longer than an attach takes.
func (s *site) quiet(ctx context.Context) error {
	const enough = 5 * time.Second
	began := time.Now()
	return until(ctx, "the end of the pools' calls", func() error {
		last := began
		for _, c := range ofPool(s.lab.Cloud().Calls(began)) {
			if end(c).After(last) {
				last = end(c)
			}
		}
		if since := time.Since(last); since < enough {
			return fmt.Errorf("the last was %s ago", since)
		}
		return nil
	})
}

// memory is what the kernel says of the memory of a node's agent, in MiB.
func (s *site) memory(node int) (map[string]float64, error) {
	n := s.nodes[node]
	path := filepath.Join("/proc", strconv.Itoa(n.PID), "root/proc", strconv.Itoa(n.Daemons[0].PID), "status")
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("memory of the agent of %s: %w", n.Name, err)
	}
	if !strings.HasPrefix(string(text), "Name:\tfairway-agent\n") {
		return nil, fmt.Errorf("memory of the agent of %s: %s is of another program: %.40q", n.Name, path, text)
	}
	return sizes(string(text))
}

// sizes reads the lines of /proc/PID/status that are kilobytes: proc_pid_status(5).
func sizes(text string) (map[string]float64, error) {
	sizes := map[string]float64{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, ":")
		fields := strings.Fields(value)
		if len(fields) != 2 || fields[1] != "kB" {
			continue
		}
		kib, err := strconv.ParseFloat(fields[0], 64)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		sizes[name] = kib / 1024
	}
	for _, name := range []string{"VmRSS", "VmHWM", "RssAnon"} {
		if _, ok := sizes[name]; !ok {
			return nil, fmt.Errorf("no %s", name)
		}
	}
	return sizes, nil
}

// idleTest is the test of this package that lets nodes idle for hours.
const idleTest = "TestIdleNodes"

// idleNodes gives the pool's EC2 calls in an hour of some idle nodes. The pool asks
// about hourly, so that a bench would have to watch for many hours; they pass in
// virtual time, which Go offers to tests only. There is no agent process in it:
// the test has the pool's own loop make its calls, over HTTP in memory.
func idleNodes(ctx context.Context) ([]float64, error) {
	c := exec.CommandContext(ctx, "go", "test", "-count=1", "-v", "-run=^"+idleTest+"$", "github.com/fairway-cni/fairway/bench/burst")
	var progress bytes.Buffer
	c.Stderr = &progress
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("go test: %w\n%s%s", err, out, &progress)
	}
	return parseIdle(string(out))
}

// idleLine is what that test says of one node.
const idleLine = "idle node: %.3f calls an hour"

var idleFigure = regexp.MustCompile(`idle node: ([0-9.]+) calls an hour`)

func parseIdle(text string) ([]float64, error) {
	var perHour []float64
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		m := idleFigure.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		v, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return nil, err
		}
		perHour = append(perHour, v)
	}
	if len(perHour) == 0 {
		return nil, fmt.Errorf("%s says nothing of idle nodes:\n%s", idleTest, text)
	}
	return perHour, nil
}
