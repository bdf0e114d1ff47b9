package fabric

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vishvananda/netlink"

	"github.com/fairway-cni/fairway/bench/result"
	lab "github.com/fairway-cni/fairway/lab/fabric"
	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

func TestFrame(t *testing.T) {
	f := frame(eniOf(0, 0), eniOf(1, 1), 1024)
	if len(f) != 60 {
		t.Errorf("%d bytes, want 60", len(f))
	}
	var sum uint32
	for i := 14; i < 34; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(f[i:]))
	}
	if sum = sum&0xffff + sum>>16; sum != 0xffff {
		t.Errorf("header sum %#x, want 0xffff", sum)
	}
}

func TestVPC(t *testing.T) {
	v := vpcOf(kinds[acls], full)
	got := []int{len(v.ENIs), len(v.Groups[0].Ingress), len(v.Groups[0].Egress), len(v.Subnets)}
	if diff := cmp.Diff([]int{200, 1000, 1000, 4}, got); diff != "" {
		t.Errorf("ENIs, rules in and out, subnets (-want +got):\n%s", diff)
	}
	seen := map[string]bool{}
	for _, e := range v.ENIs {
		for _, s := range []string{e.ID, e.MAC.String(), e.Primary.String(), lab.DeviceName(e.ID), e.Guest + " " + e.Device} {
			if seen[s] {
				t.Errorf("%s is there twice", s)
			}
			seen[s] = true
		}
	}
}

func figuresOf(packets, bulk float64) Figures {
	f := Figures{starts: [][]float64{{5}, {7}, {6}}}
	for i := range kinds {
		f.packets[i], f.bulk[i] = [][]float64{{1000, 1000}}, [][]float64{{1e9}}
	}
	f.packets[groups], f.bulk[groups] = [][]float64{{1000 * packets, 1000 * packets}}, [][]float64{{1e9 * bulk}}
	return f
}

func TestReport(t *testing.T) {
	want := []result.Row{
		{Metric: "fabric_bulk_ratio", Value: 0.9, P10: 0.9, P90: 0.9, AtLeast: 0.85},
		{Metric: "fabric_pps_ratio", Value: 0.8, P10: 0.8, P90: 0.8, AtLeast: 0.75},
		{Metric: "instances_50_s", Value: 6, P10: 5.2, P90: 6.8, AtMost: 20},
	}
	got := figuresOf(0.8, 0.9).Report().Rows
	if diff := cmp.Diff(want, got[:3], cmpopts.EquateApprox(0, 1e-9)); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

func TestTableTellsMetFromMissed(t *testing.T) {
	var out strings.Builder
	if err := figuresOf(0.7, 0.9).Report().WriteTable(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"at least 0.75: MISSED", "at least 0.85: met"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
}

// TestSites has a small VPC of each kind carry a little of everything.
func TestSites(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces (CAP_SYS_ADMIN)")
	}
	if err := lab.Probe(); errors.Is(err, errors.ErrUnsupported) || errors.Is(err, os.ErrPermission) {
		t.Skip(err) // it names the feature
	} else if err != nil {
		t.Fatal(err)
	}
	small := size{instances: 2, enis: 4, rules: 10, flows: 100}
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			s, err := open(context.Background(), k, small)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := s.close(); err != nil {
					t.Error(err)
				}
			}()
			if rate, err := s.packetTurn(small.flows); err != nil || rate <= 0 {
				t.Errorf("packets: %v in a second, %v", rate, err)
			}
			if rate, err := s.stream.turn(10 << 20); err != nil || rate <= 0 {
				t.Errorf("bulk: %v bytes in a second, %v", rate, err)
			}
			if err := s.drops(); err != nil {
				t.Error(err)
			}
			// A turn whose packets are lost has no rate.
			if err := netns.Do(s.guests[1], setDown(eniOf(1, 1).Device)); err != nil {
				t.Fatal(err)
			}
			if rate, err := s.packetTurn(small.flows); err == nil || !strings.Contains(err.Error(), "0 of 100 packets arrived") {
				t.Errorf("packets to a device that is down: %v in a second, %v", rate, err)
			}
		})
	}
}

func setDown(device string) func() error {
	return func() error {
		l, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		return netlink.LinkSetDown(l)
	}
}
