package ipam

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairway-cni/fairway/internal/core/vpc"
	"github.com/google/go-cmp/cmp"
)

const settle = 30 * time.Second

// story is what happens to a Belief, at so many seconds.
type story struct {
	b   *Belief
	now time.Time
}

func tell() *story { return &story{b: NewBelief(settle), now: t0} }

func (s *story) at(seconds int) *story {
	s.now = t0.Add(time.Duration(seconds) * time.Second)
	return s
}

func (s *story) ec2(enis ...vpc.ENI) *story { s.b.SawEC2(enis, s.now, s.now); return s }

// imds lists ENIs as the metadata service does: without what only EC2 knows.
func (s *story) imds(enis ...vpc.ENI) *story {
	var plain []vpc.ENI
	for _, e := range enis {
		e.Tags, e.Status, e.AttachmentID, e.DeleteOnTermination, e.CreatedAt, e.Zone = nil, "", "", false, time.Time{}, ""
		plain = append(plain, e)
	}
	s.b.SawIMDS(plain, s.now, s.now)
	return s
}

func (s *story) wrote(c Change, r Result) *story { s.b.Wrote(c, r, s.now); return s }
func (s *story) unsure(c Change) *story          { s.b.Unsure(c, s.now); return s }

// says writes a view in few words: "eni-0: .10 .11? | loose eni-5: .10 | ask 0s",
// where "?" is disputed. The time to ask is from now.
func (s *story) says() string {
	v := s.b.View(s.now)
	var parts []string
	for _, e := range v.Attached {
		parts = append(parts, describe(e, v.Disputed))
	}
	for _, e := range v.Detached {
		parts = append(parts, "loose "+describe(e, v.Disputed))
	}
	if v.Ask {
		parts = append(parts, "ask "+v.AskAt.Sub(s.now).String())
	}
	return strings.Join(parts, " | ")
}

func describe(e vpc.ENI, disputed map[netip.Addr]bool) string {
	text := e.ID
	if e.Status != "" && e.Status != "attached" {
		text += " " + e.Status
	}
	text += ":"
	for _, u := range unitsOf(e.Secondary, e.Prefixes) {
		if u.IsSingleIP() {
			text += fmt.Sprintf(" .%d", u.Addr().As4()[3])
		} else {
			text += " " + u.String()
		}
		if disputed[u.Addr()] {
			text += "?"
		}
	}
	return text
}

func assign(id string, addrs ...netip.Addr) (Change, Result) {
	return Change{Kind: AssignAddresses, ENI: id, Count: len(addrs)}, Result{Addrs: addrs}
}

func unassign(id string, addrs ...netip.Addr) Change {
	return Change{Kind: UnassignAddresses, ENI: id, Addrs: addrs}
}

func TestBelief(t *testing.T) {
	e0, e1 := made(eni(0, 2)), made(eni(1, 1))
	free := loose(eni(1, 1)) // eni-1 before it is attached
	off := Change{Kind: DetachENI, ENI: "eni-1"}
	cases := []struct {
		name string
		tell func() *story
		want string
	}{
		{"nothing", tell, ""},
		{"EC2 alone", func() *story { return tell().ec2(e0) }, "eni-0: .10 .11"},
		{"IMDS alone", func() *story { return tell().imds(e0) }, "eni-0: .10 .11"},
		{"both", func() *story { return tell().ec2(e0).imds(e0) }, "eni-0: .10 .11"},
		{"IMDS has less", func() *story { return tell().ec2(e0).imds(made(eni(0, 1))) }, "eni-0: .10 .11? | ask 0s"},
		{"IMDS has more", func() *story { return tell().ec2(made(eni(0, 1))).imds(e0) }, "eni-0: .10 .11? | ask 0s"},
		{"both have less", func() *story { return tell().ec2(e0).imds(e0).at(60).ec2(made(eni(0, 1))).imds(made(eni(0, 1))) }, "eni-0: .10"},
		{"IMDS lacks an ENI", func() *story { return tell().ec2(e0, e1).imds(e0) }, "eni-0: .10 .11 | eni-1: .10? | ask 0s"},
		{"EC2 lacks an ENI", func() *story { return tell().ec2(e0).imds(e0, e1) }, "eni-0: .10 .11 | eni-1: .10? | ask 0s"},
		{"EC2 was asked in vain: later again", func() *story { return tell().ec2(e0).imds(e0).at(60).imds(made(eni(0, 1))).at(61).ec2(e0) }, "eni-0: .10 .11? | ask 7.5s"},
		{"and later still", func() *story {
			return tell().ec2(e0).imds(e0).at(60).imds(made(eni(0, 1))).at(61).ec2(e0).at(69).ec2(e0).at(84).ec2(e0)
		}, "eni-0: .10 .11? | ask 30s"},
		{"an old listing says nothing", func() *story {
			s := tell().at(60).ec2(e0)
			s.b.SawEC2(nil, t0, s.now)
			return s
		}, "eni-0: .10 .11"},

		{"assigned, and both lag", func() *story {
			return tell().ec2(e0).imds(e0).at(60).wrote(assign("eni-0", addr(0, 12))).at(80).ec2(e0).imds(e0)
		}, "eni-0: .10 .11 .12"},
		{"assigned, and EC2 has not been asked since", func() *story {
			return tell().ec2(e0).imds(e0).at(60).wrote(assign("eni-0", addr(0, 12))).at(4000).imds(made(eni(0, 3)))
		}, "eni-0: .10 .11 .12"},
		{"assigned, and IMDS never has it", func() *story {
			return tell().ec2(e0).imds(e0).at(60).wrote(assign("eni-0", addr(0, 12))).at(100).imds(e0)
		}, "eni-0: .10 .11 .12? | ask 0s"},
		{"assigned, and taken away by another", func() *story {
			return tell().ec2(e0).imds(e0).at(60).wrote(assign("eni-0", addr(0, 12))).at(100).imds(e0).ec2(e0)
		}, "eni-0: .10 .11"},
		{"unassigned, and both lag", func() *story {
			return tell().ec2(e0).imds(e0).at(60).wrote(unassign("eni-0", addr(0, 11)), Result{}).at(89).ec2(e0).imds(e0)
		}, "eni-0: .10"},
		{"unassigned, and EC2 has not been asked since", func() *story {
			return tell().ec2(e0).imds(e0).at(60).wrote(unassign("eni-0", addr(0, 11)), Result{}).at(4000).imds(made(eni(0, 1)))
		}, "eni-0: .10"},
		{"unassigned, and IMDS lags for ever", func() *story {
			return tell().ec2(e0).imds(e0).at(60).wrote(unassign("eni-0", addr(0, 11)), Result{}).at(4000).imds(e0)
		}, "eni-0: .10 .11? | ask 0s"},
		{"unassigned before the start", func() *story {
			return tell().wrote(unassign("eni-0", addr(0, 11)), Result{}).at(5).ec2(e0).imds(e0)
		}, "eni-0: .10"},
		{"unassigned and assigned again", func() *story {
			return tell().ec2(e0).imds(e0).wrote(unassign("eni-0", addr(0, 11)), Result{}).at(5).wrote(assign("eni-0", addr(0, 11))).at(9).ec2(made(eni(0, 1)))
		}, "eni-0: .10 .11"},
		{"a prefix", func() *story {
			return tell().ec2(e0).wrote(Change{Kind: AssignPrefixes, ENI: "eni-0"}, Result{Prefixes: []netip.Prefix{prefix(0, 1)}})
		}, "eni-0: .10 .11 10.1.0.16/28"},

		{"created", func() *story {
			return tell().ec2(e0).imds(e0).wrote(Change{Kind: CreateENI}, Result{ENI: free}).at(9).ec2(e0)
		}, "eni-0: .10 .11 | loose eni-1: .10"},
		{"created and attached", func() *story {
			return tell().ec2(e0).imds(e0).wrote(Change{Kind: CreateENI}, Result{ENI: free}).at(1).
				wrote(Change{Kind: AttachENI, ENI: "eni-1", DeviceIndex: 1}, Result{AttachmentID: "a"}).at(2).ec2(e0, free).imds(e0)
		}, "eni-0: .10 .11 | eni-1 attaching: .10"},
		{"created, attached, and IMDS has it", func() *story {
			return tell().ec2(e0).imds(e0).wrote(Change{Kind: CreateENI}, Result{ENI: free}).at(1).
				wrote(Change{Kind: AttachENI, ENI: "eni-1", DeviceIndex: 1}, Result{AttachmentID: "a"}).at(9).imds(e0, eni(1, 0))
		}, "eni-0: .10 .11 | eni-1: .10"},
		{"EC2 is attaching one", func() *story { return tell().ec2(e0, attaching(e1)).imds(e0) }, "eni-0: .10 .11 | eni-1 attaching: .10? | ask 7.5s"},
		{"detached, and both lag", func() *story {
			return tell().ec2(e0, e1).imds(e0, e1).at(60).wrote(off, Result{}).at(61).ec2(e0, e1).imds(e0, e1)
		},
			"eni-0: .10 .11 | loose eni-1: .10"},
		{"detached, and EC2 is at it", func() *story {
			return tell().ec2(e0, e1).imds(e0, e1).at(60).wrote(off, Result{}).at(61).ec2(e0, detaching(e1))
		},
			"eni-0: .10 .11 | eni-1 detaching: .10? | ask 7.5s"},
		{"detached, attached again, and EC2 has it nowhere", func() *story {
			return tell().ec2(e0, e1).imds(e0, e1).at(60).wrote(assign("eni-1", addr(1, 11))).at(3600).ec2(e0, made(eni(1, 2))).imds(e0, made(eni(1, 2))).
				at(3660).wrote(off, Result{}).at(3662).wrote(Change{Kind: AttachENI, ENI: "eni-1", DeviceIndex: 1}, Result{AttachmentID: "b"}).ec2(e0)
		}, "eni-0: .10 .11 | eni-1: .10 .11"},
		{"detached and deleted", func() *story {
			return tell().ec2(e0, e1).imds(e0, e1).at(60).wrote(off, Result{}).at(63).wrote(Change{Kind: DeleteENI, ENI: "eni-1"}, Result{}).at(64).ec2(e0, e1).imds(e0, e1)
		}, "eni-0: .10 .11"},
		{"detached by another", func() *story { return tell().ec2(e0, e1).imds(e0, e1).at(60).imds(e0).ec2(e0, free) }, "eni-0: .10 .11 | loose eni-1: .10"},

		{"perhaps unassigned", func() *story { return tell().ec2(e0).imds(e0).at(60).unsure(unassign("eni-0", addr(0, 11))) }, "eni-0: .10 .11? | ask 0s"},
		{"perhaps unassigned: too early to tell", func() *story {
			return tell().ec2(e0).imds(e0).at(60).unsure(unassign("eni-0", addr(0, 11))).at(62).ec2(e0).imds(e0)
		}, "eni-0: .10 .11? | ask 28s"},
		{"perhaps unassigned: it was not", func() *story {
			return tell().ec2(e0).imds(e0).at(60).unsure(unassign("eni-0", addr(0, 11))).at(90).ec2(e0)
		}, "eni-0: .10 .11"},
		{"perhaps assigned", func() *story {
			c, _ := assign("eni-0", addr(0, 12))
			return tell().ec2(e0).imds(e0).at(60).unsure(c).at(61).ec2(made(eni(0, 3)))
		}, "eni-0: .10 .11 .12? | ask 7.5s"},
		{"perhaps detached", func() *story { return tell().ec2(e0, e1).imds(e0, e1).at(60).unsure(off) }, "eni-0: .10 .11 | eni-1: .10? | ask 0s"},
		{"the node's own address is no pod's", func() *story {
			wrong := eni(0, 2)
			wrong.Secondary[0] = wrong.Primary
			return tell().ec2(made(eni(0, 0))).imds(wrong)
		}, "eni-0: .11? | ask 0s"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.tell().says(); got != tc.want {
				t.Errorf("\n got %s\nwant %s", got, tc.want)
			}
		})
	}
}

func attaching(e vpc.ENI) vpc.ENI { e.Status = "attaching"; return e }

// TestBeliefKeepsWhatOnlyEC2Knows through reads that do not have it.
func TestBeliefKeepsWhatOnlyEC2Knows(t *testing.T) {
	s := tell().ec2(made(eni(0, 1))).wrote(Change{Kind: CreateENI}, Result{ENI: loose(eni(1, 1))})
	s.at(1).wrote(Change{Kind: AttachENI, ENI: "eni-1", DeviceIndex: 1}, Result{AttachmentID: "attach-1"})
	s.at(2).wrote(Change{Kind: MarkENI, ENI: "eni-1"}, Result{})
	s.wrote(Change{Kind: TagENI, ENI: "eni-0", Tags: map[string]string{"team": "a"}}, Result{})
	s.at(3).ec2(made(eni(0, 1)), loose(eni(1, 1))) // lags behind all of it
	s.at(9).imds(eni(0, 1), eni(1, 1))
	v := s.b.View(s.now)
	if len(v.Attached) != 2 {
		t.Fatalf("attached: %+v", v.Attached)
	}
	want := loose(eni(1, 1))
	want.DeviceIndex, want.AttachmentID, want.Status, want.DeleteOnTermination = 1, "attach-1", "attached", true
	if d := cmp.Diff(want, v.Attached[1], cmpAddr); d != "" {
		t.Errorf("eni-1 (-want +got):\n%s", d)
	}
	if tags := v.Attached[0].Tags; tags["team"] != "a" || tags[InstanceTag] != "i-1" {
		t.Errorf("tags of eni-0: %v", tags)
	}

	// The view is the caller's own.
	v.Attached[0].Tags["team"], v.Attached[0].Secondary[0], v.Attached[0].Groups[0] = "x", netip.Addr{}, "x"
	again := s.b.View(s.now)
	if e := again.Attached[0]; e.Tags["team"] != "a" || e.Secondary[0] != addr(0, 10) || e.Groups[0] != "sg-a" {
		t.Errorf("the caller changed the belief: %+v", e)
	}

	// Once EC2's word is late enough it is the last one.
	changed := made(eni(1, 1))
	changed.DeleteOnTermination = false
	s.at(60).ec2(made(eni(0, 1)), changed)
	v = s.b.View(s.now)
	if v.Attached[1].DeleteOnTermination || slices.ContainsFunc(v.Attached, func(e vpc.ENI) bool { return e.Tags["team"] != "" }) {
		t.Errorf("not EC2's last word: %+v", v.Attached)
	}
}

// TestUnlistedENIIsMarkedOnce: an ENI that EC2's listing has lost and the metadata
// service has not was marked and tagged all the same. To ask again would be refused,
// and read as if the right were missing.
func TestUnlistedENIIsMarkedOnce(t *testing.T) {
	s := tell().ec2(made(eni(0, 1))).wrote(Change{Kind: CreateENI}, Result{ENI: loose(eni(1, 1))})
	s.at(1).wrote(Change{Kind: AttachENI, ENI: "eni-1", DeviceIndex: 1}, Result{AttachmentID: "attach-1"})
	s.at(2).wrote(Change{Kind: MarkENI, ENI: "eni-1"}, Result{})
	s.wrote(Change{Kind: TagENI, ENI: "eni-1", Tags: map[string]string{"team": "a"}}, Result{})
	for _, after := range []int{9, 60, 3600} {
		s.at(after).ec2(made(eni(0, 1))).imds(eni(0, 1), eni(1, 1))
		v := s.b.View(s.now)
		if len(v.Attached) != 2 || !v.Attached[1].DeleteOnTermination || v.Attached[1].Tags["team"] != "a" {
			t.Fatalf("after %d s: %+v", after, v.Attached)
		}
		for _, c := range Plan(State{InstanceID: "i-1", Limits: m5large, ENIs: v.Attached}, DefaultTargets(), s.now) {
			if c.Kind == MarkENI || c.Kind == TagENI {
				t.Errorf("after %d s: %s", after, c)
			}
		}
	}
	s.at(3700).ec2(made(eni(0, 1))).imds(eni(0, 1))
	if len(s.b.marked)+len(s.b.tagged)+len(s.b.known) != 1 {
		t.Errorf("what is gone is kept: %v %v %v", s.b.marked, s.b.tagged, s.b.known)
	}
}
