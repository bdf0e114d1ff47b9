package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairway-cni/fairway/internal/edge/agentapi"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func before(d time.Duration) time.Time { return noon.Add(-d) }

// quiet is a node on which all is well.
func quiet() agentapi.Status {
	s := agentapi.Status{
		At: noon,
		Node: agentapi.Node{InstanceID: "i-0aa", InstanceType: "m5.large", VPC: "vpc-1", Zone: "eu-central-1a",
			MaxENIs: 3, MaxPods: 29, MaxPodsFit: 29, LimitsKnown: true},
		Targets: agentapi.Targets{WarmENIs: 1, Provisioning: true, CoolDown: 30, ReturnAfter: 80},
		Pool:    agentapi.Pool{Free: 16, Assigned: 2, Total: 18, Capacity: 27},
		Wanted:  agentapi.Wanted{Addresses: 18, ENIs: 2, Why: "1 ENI for 2 used + 1 warm"},
		ENIs: []agentapi.ENI{
			{ID: "eni-0a", Device: "ens5", MAC: "02:00:00:00:00:01", Address: "10.0.1.4", Subnet: "subnet-1", State: agentapi.Attached, Addresses: 9, Pods: 2},
			{ID: "eni-0b", Device: "ens6", DeviceIndex: 1, MAC: "02:00:00:00:00:02", Address: "10.0.1.40", Subnet: "subnet-1", State: agentapi.Attached, Addresses: 9},
		},
		Pods: []agentapi.Pod{
			{Namespace: "default", Name: "web-1", ContainerID: "833b02bcfdbc2327dfb05371fed01100", Interface: "eth0", Address: "10.0.1.5", ENI: "eni-0a",
				Device: "fwyd077aa0eda0", Since: before(26*time.Hour + 5*time.Minute)},
			{Namespace: "kube-system", Name: "coredns-5d78c9869d-8xv2k", ContainerID: "0123456789abcdef", Interface: "eth0", Address: "10.0.1.11", ENI: "eni-0a",
				Device: "fwy5c1d2e3f4a5", Since: before(3 * time.Second)},
		},
		Subnets: []agentapi.Subnet{{ID: "subnet-1", Zone: "eu-central-1a", CIDR: "10.0.1.0/24", Free: 201}, {ID: "subnet-2", Zone: "eu-central-1a", CIDR: "10.0.128.0/17", Free: -1}},
		EC2:     agentapi.EC2{Used: true, ListedAt: before(12 * time.Minute)},
	}
	s.Problems = s.Diagnose()
	return s
}

// troubled is a node on which much is wrong at once.
func troubled() agentapi.Status {
	s := quiet()
	s.Node.MaxPods, s.Node.Custom = 110, "pods-a"
	s.Pool = agentapi.Pool{Assigned: 15, Cooling: 1, Reserved: 1, Arriving: 9, Disputed: 1, Total: 27, Orphaned: 1, Capacity: 27, Prefixes: 1, NextFree: noon.Add(7500 * time.Millisecond)}
	s.ENIs[1].State, s.ENIs[1].Device, s.ENIs[1].Since = agentapi.Attaching, "", before(4*time.Second)
	s.ENIs = append(s.ENIs,
		agentapi.ENI{ID: "eni-0c", Device: "ens7", DeviceIndex: 2, MAC: "02:00:00:00:00:03", Subnet: "subnet-2", State: agentapi.Unmanaged,
			Why: "tagged node.k8s.amazonaws.com/no_manage", Addresses: 1},
		agentapi.ENI{ID: "eni-0d", DeviceIndex: -1, MAC: "02:00:00:00:00:04", Subnet: "subnet-1", State: agentapi.Detached, Prefixes: 1})
	s.Pods[0].Lost = true
	s.Pods[1].Namespace, s.Pods[1].Name = "", "" // a runtime that names no pods
	s.Waiting = []agentapi.Waiting{{ContainerID: "feedfacefeedface", Interface: "eth0", Since: before(41 * time.Second)}, {ContainerID: "c", Interface: "eth0", Since: before(500 * time.Millisecond)}}
	s.Outlook = "no free address yet: 1 change under way, one to attach eni-0b as device 1: 2 ENIs wanted"
	s.InFlight = []agentapi.Flight{{Kind: "attach eni", ENI: "eni-0b", Text: "attach eni-0b as device 1", Why: "2 ENIs wanted", Since: before(4 * time.Second)}}
	s.Refused = []agentapi.Refused{
		{Kind: "assign addresses", Target: "subnet-1", Until: noon.Add(16 * time.Second), Times: 5, Fatal: true,
			Reason: "assign 4 addresses to eni-0a: EC2 refused AssignPrivateIpAddresses: InsufficientFreeAddressesInSubnet:\nno room\x1b[31m; free addresses in the subnet"},
		{Kind: "create eni", Until: noon.Add(200 * time.Millisecond), Throttled: true, Reason: "EC2 throttles CreateNetworkInterface; the call is made again when its budget allows"},
	}
	s.EC2.Offline, s.Kernel.Behind = true, true
	s.Problems = s.Diagnose()
	return s
}

func TestStatusText(t *testing.T) {
	prefixes := quiet()
	prefixes.Targets = agentapi.Targets{Prefixes: true, WarmPrefixes: 1, CoolDown: 30}
	prefixes.Pool.Prefixes, prefixes.Wanted = 2, agentapi.Wanted{Addresses: 32, Prefixes: 2, ENIs: 1, Why: "2 used + 1 prefix warm"}
	prefixes.EC2, prefixes.Pods, prefixes.Subnets = agentapi.EC2{}, nil, nil
	for name, s := range map[string]agentapi.Status{"quiet": quiet(), "troubled": troubled(), "prefixes": prefixes} {
		t.Run(name, func(t *testing.T) {
			var got bytes.Buffer
			if err := writeStatus(&got, s); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", "status-"+name+".txt")
			if os.Getenv("UPDATE") != "" {
				if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got.String()); d != "" {
				t.Errorf("%s (-want +got), UPDATE=1 writes it:\n%s", file, d)
			}
		})
	}
}

// serve is an agent that has this status.
func serve(t *testing.T, ask func(context.Context) (agentapi.Status, error)) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "fairway") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "agent.sock")
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- agentapi.Serve(ctx, socket, agentapi.Answers{Status: ask}) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	for {
		_, err := agentapi.NewClient(socket).Status(t.Context())
		if !errors.Is(err, agentapi.ErrNoAgent) && !errors.Is(err, os.ErrPermission) {
			return socket
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatal(err)
		default:
		}
	}
}

// fairway runs the program with the arguments.
func fairway(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, said bytes.Buffer
	cmd := command()
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(&said)
	code = end(&said, cmd.ExecuteContext(t.Context()))
	return code, out.String(), said.String()
}

func TestStatusExit(t *testing.T) {
	at := func(s agentapi.Status) string {
		return serve(t, func(context.Context) (agentapi.Status, error) { return s, nil })
	}
	warned := quiet()
	warned.Pool.Reserved = 1
	warned.Problems = warned.Diagnose()
	failing := serve(t, func(context.Context) (agentapi.Status, error) {
		return agentapi.Status{}, errors.New("the loop has ended")
	})
	for _, tt := range []struct {
		name           string
		args           []string
		code           int
		stdout, stderr string // parts
	}{
		{"all is well", []string{"status", "--socket", at(quiet())}, 0, "2 of 27 addresses in use, 16 free, nothing waits\n", ""},
		{"warnings", []string{"status", "--socket", at(warned)}, 0, "\nwarning: 1 address is out of use", ""},
		{"something is wrong", []string{"status", "--socket", at(troubled())}, 3, "\nwrong: pod default/web-1 has no network", ""},
		{"something is wrong, in json", []string{"status", "-o", "json", "--socket", at(troubled())}, 3, `"lost": true`, ""},
		{"no agent", []string{"status", "--socket", "/nowhere/agent.sock"}, 1, "", "no agent answers on /nowhere/agent.sock: is fairway-agent running"},
		{"the agent fails", []string{"status", "--socket", failing}, 1, "", "500 Internal Server Error: the loop has ended\n"},
		{"an argument", []string{"status", "x"}, 2, "", "status takes no arguments"},
		{"a form that is not there", []string{"status", "-o", "yaml"}, 2, "", `--output "yaml": must be text or json`},
		{"a flag that is not there", []string{"status", "--all"}, 2, "", "unknown flag"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, stdout, stderr := fairway(t, tt.args...)
			if code != tt.code || !strings.Contains(stdout, tt.stdout) || !strings.Contains(stderr, tt.stderr) || tt.stderr == "" && stderr != "" {
				t.Errorf("exit %d, want %d;\nstdout, to have %q:\n%s\nstderr, to have %q:\n%s", code, tt.code, tt.stdout, stdout, tt.stderr, stderr)
			}
		})
	}
}

// TestStatusJSON: what the agent said comes out again, nothing lost.
func TestStatusJSON(t *testing.T) {
	want := troubled()
	socket := serve(t, func(context.Context) (agentapi.Status, error) { return want, nil })
	code, stdout, _ := fairway(t, "status", "-o", "json", "--socket", socket)
	var got agentapi.Status
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || code != 3 {
		t.Fatalf("exit %d, %v in\n%s", code, err, stdout)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
