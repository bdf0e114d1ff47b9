package chart

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

// rule is an alert of alerts.yaml.
type rule struct {
	Alert, Expr, For    string
	Labels, Annotations map[string]string
	wait                time.Duration
}

func rules(t *testing.T) []rule {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(chartDir, "alerts.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Groups []struct{ Rules []rule } }
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	var all []rule
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			if r.For != "" {
				if r.wait, err = time.ParseDuration(r.For); err != nil {
					t.Errorf("%s: %v", r.Alert, err)
				}
			}
			all = append(all, r)
		}
	}
	return all
}

// oneNode is a world of one node with an agent, and of what else is told.
func oneNode(instanceType, subnet, role, more string, options ...string) string {
	command := `"` + strings.Join(append([]string{"fairway-agent"}, options...), `", "`) + `"`
	return `
vpcs:
  - {name: main, cidr: 10.0.0.0/16, subnets: [{name: a, cidr: ` + subnet + `}]}
instances:
  - {name: node, type: ` + instanceType + `, subnet: a, ` + role + `daemons: [{name: agent, command: [` + command + `], capabilities: [NET_ADMIN]}]}
` + more
}

// reader may look, and change nothing.
const reader = `roles:
  - {name: reader, policy: {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "ec2:Describe*", "Resource": "*"}}}
`

// otherSwitches puts the kernel's beside the one that /run/bad has, and has the agent
// look there.
const otherSwitches = "for f in /proc/sys/net/ipv4/*; do ln -s $f /run/bad/net/ipv4/ 2>/dev/null || true; done && ln -sfn /run/bad /run/sys"

// TestAlerts: what happens to a real agent in the lab makes the alert fire that says so,
// and no other one.
//
// The agent's metrics are looked at twice a second while it happens. For Prometheus' own
// evaluation these looks are half a minute apart, behind an hour of the first and before
// half an hour of the last: what took minutes in reality is stood for by what it looks like.
func TestAlerts(t *testing.T) {
	if testing.Short() {
		t.Skip("takes two minutes: `make e2e` runs it")
	}
	const wide = "10.0.1.0/24"
	for number, tt := range []struct {
		alert, world string
		also         []string // follow from the same
		happens      func(*site)
	}{
		{"", oneNode("t3.small", wide, "", ""), nil, func(s *site) {
			s.do("pod", "add", "node", "p1", "p2")
			s.says("fairway_pods 2")
			s.do("pod", "del", "node", "p1")
			s.says("fairway_pods 1")
		}},
		{"FairwayAgentDown", oneNode("t3.small", wide, "", ""), nil, func(s *site) {
			s.kill("KILL")
			s.until("the agent is away", func(text scrape) bool { return text == nil })
		}},
		{"FairwayNodeLoopStuck", oneNode("t3.small", wide, "", "", "--sysctl-dir=/run/sys"), nil, func(s *site) {
			s.stuck = true
			// A switch that never answers who reads it, as a file system that hangs.
			s.shell("mkdir -p /run/bad/net/ipv4 && mkfifo /run/bad/net/ipv4/ip_forward && " + otherSwitches)
			s.says("fairway_node_loop_up 0")
		}},
		{"FairwayPodsLost", oneNode("t3.small", wide, "", "  - {name: vm, type: t3.nano, subnet: a}\n"), nil, func(s *site) {
			out := s.do("pod", "add", "node", "p1")
			s.do("ec2", "AssignPrivateIpAddresses", "NetworkInterfaceId=@vm", "PrivateIpAddress.1="+address(s.t, out), "AllowReassignment=true")
			s.says("fairway_pods_lost 1")
		}},
		{"FairwayPodsWithoutAddress", oneNode("t3.nano", wide, "", "", "--max-enis=1", "--add-wait=1s"), nil, func(s *site) {
			s.do("pod", "add", "node", "p1")
			for i := range 15 { // as a runtime does, for minutes
				if _, err := s.try("pod", "add", "node", "q"); err == nil {
					s.t.Fatalf("try %d: a second pod has an address", i)
				}
				s.says(`fairway_cni_duration_seconds_count{command="ADD",result="no_address"} ` + strconv.Itoa(i+1))
			}
		}},
		{"FairwayKernelBehind", oneNode("t3.small", wide, "", "", "--sysctl-dir=/run/sys"), nil, func(s *site) {
			// A switch that can be neither read nor written.
			s.shell("mkdir -p /run/bad/net/ipv4/ip_forward && " + otherSwitches)
			s.says("fairway_kernel_behind 1")
		}},
		{"FairwayKernelRepairs", oneNode("t3.small", wide, "", ""), nil, func(s *site) {
			for range 12 {
				s.do("ip", "node", "rule", "del", "pref", "20")
				s.untilRule()
			}
			s.until("repairs are counted", func(text scrape) bool { return bytes.Contains(text, []byte("\nfairway_kernel_repairs_total 1")) })
		}},
		{"FairwayPathAsymmetric", oneNode("t3.small", wide, "", ""), nil, func(s *site) {
			s.do("pod", "add", "node", "p1", "p2", "p3", "p4", "p5") // some on a secondary ENI
			// Somebody's rule sends what they say by the primary one.
			s.do("ip", "node", "rule", "add", "pref", "5", "from", wide, "lookup", "main")
			s.until("a way is broken", func(text scrape) bool {
				return bytes.Contains(text, []byte("\nfairway_path_asymmetric ")) && !bytes.Contains(text, []byte("\nfairway_path_asymmetric 0\n"))
			})
		}},
		{"FairwayEC2Unreachable", oneNode("t3.small", wide, "", "", "--native=vpc"), nil, func(s *site) {
			s.says("awscni_total_ip_addresses 6")
			s.do("fault", "ec2", "--outage", "refuse")
			s.do("pod", "add", "node", "p1", "p2", "p3", "p4") // the last needs another ENI warm
			s.says("fairway_ec2_unreachable 1")
		}},
		{"FairwayEC2Unreachable", oneNode("t3.small", wide, "", "", "--vpc-poll=1s"), nil, func(s *site) {
			s.do("fault", "ec2", "--outage", "refuse") // while no pod wants anything of EC2
			s.until("calls find nobody", func(text scrape) bool { return count(text, `result="unreachable"`) > 30 })
		}},
		{"FairwayEC2Unauthorized", oneNode("t3.small", wide, "role: reader, ", reader), nil, func(s *site) {
			s.until("a right is missed twice", func(text scrape) bool {
				return most(text, `result="unauthorized"`) >= 2
			})
		}},
		{"FairwayEC2Throttled", oneNode("t3.small", wide, "", "", "--vpc-poll=1s"), nil, func(s *site) {
			s.do("fault", "ec2", "*", "--error", "RequestLimitExceeded")
			s.until("calls are throttled", func(text scrape) bool { return count(text, `result="throttled"`) > 12 })
		}},
		{"FairwayAgentRestarts", oneNode("t3.small", wide, "", ""), nil, func(s *site) {
			for range 4 {
				before := started(s.scrapes[len(s.scrapes)-1])
				s.again("")
				s.until("another agent answers", func(text scrape) bool { return text != nil && started(text) != before })
			}
		}},
		{"FairwayAPIServerFails", oneNode("t3.small", wide, "", ""), nil, func(s *site) {
			// Nobody listens there.
			s.shell("printf '%s' '" + `{"apiVersion": "v1", "kind": "Config", "current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "c"}}], ` +
				`"clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}]}` + "' >/run/kubeconfig")
			s.again("--node-name=node --kubeconfig=/run/kubeconfig")
			s.until("requests fail", func(text scrape) bool { return failed(text, "pods") > 4 })
		}},
		{"FairwaySubnetFills", oneNode("t3.small", "10.0.1.0/27", "", ""), nil, func(s *site) {
			s.until("the subnet is known", func(text scrape) bool { return bytes.Contains(text, []byte("\nfairway_subnet_free_addresses{")) })
		}},
	} {
		name := tt.alert
		if name == "" {
			name = "none"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startSite(t, number, tt.world)
			if strings.Contains(tt.world, "--sysctl-dir") { // whose switches are elsewhere, from the start
				s.kill("KILL")
				s.shell("ln -s /proc/sys /run/sys; setsid fairway-agent --sysctl-dir=/run/sys </dev/null >/run/agent.log 2>&1 &")
			}
			s.scrapes = nil
			s.until("the agent answers", func(text scrape) bool { return bytes.Contains(text, []byte("\nfairway_node_loop_up 1\n")) })
			s.scrapes = s.scrapes[len(s.scrapes)-1:] // before it, there was no target
			tt.happens(s)
			s.fire(append(tt.also, tt.alert)...)
		})
	}
}

// kill sends a signal to the agent.
func (s *site) kill(signal string) {
	s.t.Helper()
	s.shell(`for d in /proc/[0-9]*; do read name <$d/comm; test $name = fairway-agent && kill -` + signal + ` ${d#/proc/}; done; true`)
}

// again ends the agent, and starts one with other options.
func (s *site) again(options string) {
	s.t.Helper()
	s.kill("KILL")
	s.until("the agent is away", func(text scrape) bool { return text == nil })
	s.shell("setsid fairway-agent " + options + " </dev/null >/run/agent.log 2>&1 &")
	s.until("an agent answers", func(text scrape) bool { return bytes.Contains(text, []byte("\nfairway_node_loop_up 1\n")) })
}

// started is when the process began that was looked at.
func started(text scrape) string {
	_, rest, _ := strings.Cut(string(text), "\nprocess_start_time_seconds ")
	line, _, _ := strings.Cut(rest, "\n")
	return line
}

// failed is how many requests for a kind the API server has not answered.
func failed(text scrape, what string) (sum float64) {
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "fairway_cluster_requests_total") && strings.Contains(line, `what="`+what+`"`) && strings.Contains(line, `result="failed"`) {
			v, _ := strconv.ParseFloat(strings.Fields(line)[1], 64)
			sum += v
		}
	}
	return sum
}

// untilRule waits for the rule that leads to pods.
func (s *site) untilRule() {
	s.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		out := s.do("ip", "node", "rule", "show", "pref", "20")
		if strings.Contains(out, "lookup 100") {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("the rule is not there again within %s: %q", patience, out)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// address is the one that a table of pods has.
func address(t *testing.T, table string) string {
	t.Helper()
	for _, word := range strings.Fields(table) {
		if a, err := netip.ParseAddr(word); err == nil {
			return a.String()
		}
	}
	t.Fatalf("no address in %q", table)
	return ""
}

// requests are the values of the requests to EC2 with a label.
func requests(text scrape, label string) (values []float64) {
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "fairway_ec2_requests_total") && strings.Contains(line, label) {
			v, _ := strconv.ParseFloat(strings.Fields(line)[1], 64)
			values = append(values, v)
		}
	}
	return values
}

// count adds them, most is the greatest.
func count(text scrape, label string) (sum float64) {
	for _, v := range requests(text, label) {
		sum += v
	}
	return sum
}

func most(text scrape, label string) float64 { return slices.Max(append(requests(text, label), 0)) }

// fire holds what alerts fire, by all looks at the node, to those that should.
func (s *site) fire(want ...string) {
	s.t.Helper()
	h := history{}
	first := time.Unix(1_700_000_000, 0)
	at := first
	look := func(text scrape, times int) {
		for range times {
			h.store(s.t, text, at)
			at = at.Add(interval)
		}
	}
	look(s.scrapes[0], int(time.Hour/interval))
	for _, text := range s.scrapes {
		look(text, 1)
	}
	look(s.scrapes[len(s.scrapes)-1], int(30*time.Minute/interval))
	for _, r := range rules(s.t) {
		fires := h.fires(s.t, r, first, at)
		if should := slices.Contains(want, r.Alert); fires != should {
			s.t.Errorf("%s fires: %v, want %v; the last look:\n%s", r.Alert, fires, should, s.scrapes[len(s.scrapes)-1])
		}
	}
}
