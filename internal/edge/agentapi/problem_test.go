package agentapi

import (
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// fine is a status that nothing is wrong with.
func fine() Status {
	return Status{
		At:   noon,
		Node: Node{InstanceID: "i-1", InstanceType: "m5.large", MaxENIs: 3, MaxPods: 29, MaxPodsFit: 29, LimitsKnown: true},
		Pool: Pool{Free: 5, Assigned: 4, Total: 9, Capacity: 27},
		ENIs: []ENI{{ID: "eni-1", State: Attached}},
		EC2:  EC2{Used: true, ListedAt: noon.Add(-time.Minute)},
	}
}

func TestDiagnose(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Status)
		want   []string // severity, a colon, and words of the text in their order
	}{
		{"nothing", func(*Status) {}, nil},
		{"imds only", func(s *Status) { s.EC2 = EC2{} }, nil},
		{"a pod without its address", func(s *Status) {
			s.Pods = []Pod{{Namespace: "a", Name: "b", Address: "10.0.0.9", Lost: true}, {Name: "c"}}
		}, []string{"wrong: pod a/b 10.0.0.9 delete the pod"}},
		{"one that has no name", func(s *Status) { s.Pods = []Pod{{ContainerID: "f00", Address: "10.0.0.9", Lost: true}} }, []string{"wrong: pod of container f00"}},
		{"the kernel", func(s *Status) { s.Kernel.Behind = true }, []string{"wrong: the kernel may lack"}},
		{"a short wait", func(s *Status) { s.Waiting = []Waiting{{Since: noon.Add(-29 * time.Second)}} }, nil},
		{"a long wait", func(s *Status) {
			s.Waiting, s.Outlook = []Waiting{{Since: noon.Add(-time.Minute)}, {Since: noon}}, "because"
		}, []string{"wrong: 2 pods wait the first for 1m00s: because"}},
		{"ec2 is away", func(s *Status) { s.EC2.Offline = true }, []string{"wrong: EC2 does not answer endpoint"}},
		{"ec2 has not spoken", func(s *Status) { s.EC2.ListedAt = time.Time{} }, []string{"warning: EC2 has not listed"}},
		{"no eniconfig", func(s *Status) { s.Node.CustomFault = "no ENIConfig \"x\"" }, []string{`wrong: custom networking no ENIConfig "x"`}},
		{"a refusal", func(s *Status) {
			s.Refused = []Refused{{Kind: "attach eni", Target: "eni-2", Until: noon.Add(8 * time.Second), Times: 4, Reason: "no"}}
		}, []string{"wrong: attach eni (eni-2) is refused, 4 times again in 8s: no"}},
		{"throttling", func(s *Status) {
			s.Refused = []Refused{{Kind: "attach eni", Until: noon.Add(time.Second), Throttled: true, Reason: "EC2 throttles it"}}
		}, []string{"warning: EC2 throttles it; again in 1s"}},
		{"a pause that nobody refused", func(s *Status) {
			s.Refused = []Refused{{Kind: "delete eni", Target: "eni-2", Until: noon.Add(time.Second), Reason: "eni-2 is being detached"}}
		}, nil},
		{"an attach", func(s *Status) { s.ENIs[0].State, s.ENIs[0].Since = Attaching, noon.Add(-2*time.Minute) }, nil},
		{"a device that is gone", func(s *Status) {
			s.ENIs[0].State, s.ENIs[0].Since, s.ENIs[0].Pods = Missing, noon.Add(-5*time.Second), 0
		},
			[]string{"warning: the device of eni-1 is gone since 5s: has"}},
		{"a device that pods had", func(s *Status) {
			s.ENIs[0].State, s.ENIs[0].Since, s.ENIs[0].Pods = Missing, noon.Add(-5*time.Second), 2
		},
			[]string{"wrong: the device of eni-1 is gone since 5s; 2 pods on it have no network"}},
		{"an attach that lasts", func(s *Status) { s.ENIs[0].State, s.ENIs[0].Since = Attaching, noon.Add(-3*time.Minute) }, []string{"wrong: eni-1 is being attached for 3m00s"}},
		{"reserved addresses", func(s *Status) { s.Pool.Reserved = 2 }, []string{"warning: 2 addresses are out of use"}},
		{"full", func(s *Status) { s.Pool.Assigned, s.Pool.Free = 27, 0 }, []string{"warning: the node is full 27 addresses that m5.large can have"}},
		{"more pods than addresses", func(s *Status) { s.Node.MaxPods = 110 }, []string{"warning: kubelet may run 110 pods --max-pods to 29"}},
		{"fewer pods than addresses", func(s *Status) { s.Node.MaxPods = 11 }, []string{"warning: kubelet runs 11 pods at most can be 29"}},
		{"a kubelet that nobody knows", func(s *Status) { s.Node.MaxPods = 0 }, nil},
		{"a type that nobody knows", func(s *Status) { s.Node.LimitsKnown, s.Node.MaxPodsFit, s.Pool.Capacity = false, 2, 0 },
			[]string{"warning: the limits of the instance type m5.large are not known"}},
		{"the worst first", func(s *Status) { s.Pool.Reserved, s.EC2.Offline = 1, true }, []string{"wrong: EC2 does not answer", "warning: 1 address is out of use"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := fine()
			tt.change(&s)
			got := s.Diagnose()
			if len(got) != len(tt.want) {
				t.Fatalf("got %v, want %d", got, len(tt.want))
			}
			for i, want := range tt.want {
				rest := string(got[i].Severity) + ": " + got[i].Text
				for _, word := range strings.Fields(want) {
					_, after, ok := strings.Cut(rest, word)
					if !ok {
						t.Fatalf("got %s: %s, want %q in it", got[i].Severity, got[i].Text, want)
					}
					rest = after
				}
			}
		})
	}
}

// TestWithoutContainers: nothing that is left names a container, and the status
// itself keeps them.
func TestWithoutContainers(t *testing.T) {
	s := fine()
	s.Pods = []Pod{{ContainerID: "c0ffee", Interface: "eth0", Lost: true}}
	s.Waiting = []Waiting{{ContainerID: "c0ffee", Interface: "eth0", Since: noon}}
	s.Problems = s.Diagnose()
	got := s.WithoutContainers()
	if got.Pods[0].ContainerID != "" || got.Waiting[0].ContainerID != "" || len(got.Problems) != 1 || strings.Contains(got.Problems[0].Text, "c0ffee") {
		t.Errorf("a container is named in %+v", got)
	}
	if s.Pods[0].ContainerID == "" || s.Waiting[0].ContainerID == "" || !strings.Contains(s.Problems[0].Text, "c0ffee") {
		t.Errorf("the status itself has lost its containers: %+v", s)
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", time.Millisecond: "<1s", 59 * time.Second: "59s", time.Minute: "1m00s",
		9*time.Minute + 59*time.Second: "9m59s", 10*time.Minute + 59*time.Second: "10m", 59 * time.Minute: "59m", time.Hour: "1h00m", 26 * time.Hour: "1d02h",
	} {
		if got := Span(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}
