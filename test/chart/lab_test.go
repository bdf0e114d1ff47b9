package chart

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/fairway-cni/fairway/lab/fabric"
	"github.com/fairway-cni/fairway/lab/fabric/netns"
	"github.com/fairway-cni/fairway/lab/guest"
	"github.com/fairway-cni/fairway/lab/world"
	"github.com/fairway-cni/fairway/test/upstream"
)

// programs has Fairway's programs, where a lab can run.
var programs string

func TestMain(m *testing.M) {
	guest.MaybeInit()
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	if guest.Check() != nil {
		return m.Run() // every test says why it cannot run here
	}
	dir, err := os.MkdirTemp("", "fairway-chart-")
	if err == nil {
		defer os.RemoveAll(dir)
		programs = dir
		err = upstream.Build(filepath.Join("..", ".."), dir, "./cmd/...")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// patience is how long a condition may take on a machine that is very busy. Instance
// metadata is read every half minute.
const patience = 3 * time.Minute

// site is a lab with one node, and what Prometheus would know of it.
type site struct {
	t       *testing.T
	lab     string
	scrapes []scrape
	stuck   bool // the loop is to be stuck; else a look that finds it so is of a busy machine, and does not count
}

// scrape is what a look at the node's metrics gave; nil is none.
type scrape []byte

// startSite runs a lab of the world in yaml, whose node is called node, until the test
// ends. Labs are told apart by their number.
func startSite(t *testing.T, number int, yaml string) *site {
	t.Helper()
	err := guest.Check()
	if err == nil {
		err = fabric.Probe()
	}
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, os.ErrPermission) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, lab: fmt.Sprintf("a%d-%d", os.Getpid(), number)}
	file := filepath.Join(t.TempDir(), "world.yaml")
	if err := os.WriteFile(file, []byte("name: "+s.lab+yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.do("down") })
	s.do("up", "--detach", "-f", file)
	return s
}

// try runs fairway-lab.
func (s *site) try(args ...string) (string, error) {
	c := exec.Command(filepath.Join(programs, "fairway-lab"), append([]string{"--lab", s.lab}, args...)...)
	var out, complaint bytes.Buffer
	c.Stdout, c.Stderr = &out, &complaint
	if err := c.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w\n%s", c, err, complaint.String())
	}
	return out.String(), nil
}

func (s *site) do(args ...string) string {
	s.t.Helper()
	out, err := s.try(args...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// shell runs a script on the node.
func (s *site) shell(script string) { s.t.Helper(); s.do("exec", "node", "--", "sh", "-c", script) }

func (s *site) node() world.InstanceStatus {
	s.t.Helper()
	var status world.Status
	if err := json.Unmarshal([]byte(s.do("status", "-o", "json")), &status); err != nil {
		s.t.Fatal(err)
	}
	in, err := status.Find("node")
	if err != nil {
		s.t.Fatal(err)
	}
	return in
}

// until looks at the node, as Prometheus does, until the condition holds; each look
// counts.
func (s *site) until(what string, ok func(scrape) bool) {
	s.t.Helper()
	pid := s.node().PID
	for deadline := time.Now().Add(patience); ; {
		text, err := fetch(pid)
		if s.stuck || !bytes.Contains(text, []byte("\nfairway_node_loop_up 0\n")) {
			s.scrapes = append(s.scrapes, text)
			if ok(text) {
				return
			}
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s: not within %s: %v\n%s", what, patience, err, text)
		}
		<-time.After(500 * time.Millisecond)
	}
}

// says waits for a line of the metrics.
func (s *site) says(line string) {
	s.t.Helper()
	s.until(line, func(text scrape) bool { return bytes.Contains(text, []byte("\n"+line+"\n")) })
}

// fetch asks for the metrics from within a node's network.
func fetch(pid int) (scrape, error) {
	ns, err := os.Open(filepath.Join("/proc", strconv.Itoa(pid), "ns/net"))
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	client := http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
			err = netns.Do(ns, func() error {
				var d net.Dialer
				conn, err = d.DialContext(ctx, network, addr)
				return err
			})
			return conn, err
		}}}
	resp, err := client.Get("http://127.0.0.1:61678/metrics")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	return text, nil
}
