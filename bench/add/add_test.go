package add

import (
	"encoding/binary"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/vpc"
)

func ms(v ...float64) []time.Duration {
	var ds []time.Duration
	for _, x := range v {
		ds = append(ds, time.Duration(x*float64(time.Millisecond)))
	}
	return ds
}

// TestFigures: which rounds a metric is made of, also when they came as JSON.
func TestFigures(t *testing.T) {
	text, err := json.Marshal([]round{
		{Turn: 0, Parallel: 1, Floor: ms(2, 2, 2), Add: ms(3, 3, 3), Del: ms(1, 1, 1)},
		{Turn: 0, Parallel: 16, Floor: ms(10, 20), Add: ms(15, 30), Del: ms(5, 5)},
		{Turn: 0, Parallel: 1, Pods: 250, Floor: ms(2, 2, 2), Add: ms(6, 6, 6), Del: ms(9, 9, 9)},
		{Turn: 1, Parallel: 1, Floor: ms(4, 4, 4), Add: ms(6, 6, 6), Del: ms(1, 1, 1)},
		{Turn: 1, Parallel: 1, Pods: 250, Floor: ms(4, 4, 4), Add: ms(12, 12, 12), Del: ms(9, 9, 9)},
	})
	if err != nil {
		t.Fatal(err)
	}
	var rounds []round
	if err := json.Unmarshal(text, &rounds); err != nil {
		t.Fatal(err)
	}
	f := figures(rounds)
	got := map[string][3]float64{}
	for _, r := range f.Report().Rows {
		got[r.Metric] = [3]float64{r.Value, r.P10, r.P90}
	}
	want := map[string][3]float64{
		"add_p50_ms":           {4.5, 3.3, 5.7},
		"add_p50_over_floor":   {1.5, 1.5, 1.5},
		"add16_p99_over_floor": {1.5, 1.5, 1.5},
		"add_p50_250_over_0":   {2, 2, 2},
		"del_p50_ms":           {1, 1, 1},
		"floor_p50_ms":         {3, 2.2, 3.8},
		"floor_p50_250_over_0": {1, 1, 1},
		"add16_p99_ms":         {29.85, 29.85, 29.85},
		"floor16_p99_ms":       {19.9, 19.9, 19.9},
	}
	near := cmp.Comparer(func(a, b float64) bool { return a-b < 1e-9 && b-a < 1e-9 })
	if d := cmp.Diff(want, got, near); d != "" {
		t.Errorf("metrics (-want +got):\n%s", d)
	}
	var b strings.Builder
	if err := f.WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"0, one after the other", "250, one after the other", "0, 16 at a time", "  1.50"} {
		if !strings.Contains(b.String(), part) {
			t.Errorf("the table lacks %q:\n%s", part, b.String())
		}
	}
}

// TestFrame reads back what the floor gets: whole messages, each of which is
// known to write something, and the pod in all that name it.
func TestFrame(t *testing.T) {
	p := floorPod{model: model{mtu: 9001, prefSrc: netip.MustParseAddr("10.0.0.4"), chain: "eni-1", ipv6: true},
		index: floorFirstIndex, veth: "flr00000000001", addr: floorFirst}
	want := [][]uint16{
		{unix.RTM_NEWLINK, unix.RTM_SETLINK, unix.RTM_SETLINK},
		{unix.RTM_SETLINK, unix.RTM_SETLINK, unix.RTM_NEWADDR, unix.RTM_NEWROUTE, unix.RTM_NEWROUTE, unix.RTM_NEWNEIGH},
		{unix.RTM_NEWROUTE, unix.RTM_NEWNEIGH},
		{unix.NFNL_MSG_BATCH_BEGIN, unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWSETELEM, unix.NFNL_MSG_BATCH_END},
	}
	b := p.frame()
	var got [][]uint16
	for len(b) > 0 {
		n := binary.NativeEndian.Uint32(b)
		batch := b[4 : 4+n]
		b = b[4+n:]
		var kinds []uint16
		for len(batch) > 0 {
			length := binary.NativeEndian.Uint32(batch)
			if length < unix.NLMSG_HDRLEN || length%4 != 0 {
				t.Fatalf("message of %d bytes", length)
			}
			kind, flags := binary.NativeEndian.Uint16(batch[4:]), binary.NativeEndian.Uint16(batch[6:])
			// A transaction's begin has the number that RTM_NEWLINK has.
			edge := len(got) == 3 && (kind == unix.NFNL_MSG_BATCH_BEGIN || kind == unix.NFNL_MSG_BATCH_END)
			if acked := flags&unix.NLM_F_ACK != 0; acked == edge || flags&unix.NLM_F_REQUEST == 0 {
				t.Errorf("message %#x has flags %#x", kind, flags)
			}
			kinds = append(kinds, kind)
			batch = batch[length:]
		}
		got = append(got, kinds)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("batches (-want +got):\n%s", d)
	}
	if n := strings.Count(string(p.frame()), p.veth+"\x00"); n != 2 {
		t.Errorf("the device is named %d times, want 2: at its creation and in the map", n)
	}
}

func TestDifference(t *testing.T) {
	for _, tt := range []struct {
		name       string
		want, have []string
		out        string
	}{
		{"same", []string{"a", "b"}, []string{"a", "b"}, ""},
		{"other", []string{"a", "b"}, []string{"a", "c"}, "- b\n+ c\n"},
		{"twice", []string{"a"}, []string{"a", "a"}, "2 things, want 1\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if d := cmp.Diff(tt.out, difference(tt.want, tt.have)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestNetworkConfig(t *testing.T) {
	dir := t.TempDir()
	if _, err := networkConfig(dir); !os.IsNotExist(err) {
		t.Errorf("without a file: %v, want one that says so", err)
	}
	file := filepath.Join(dir, "10-fairway.conflist")
	for _, tt := range []struct{ name, list, want, err string }{
		{"one plugin", `{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"t","socket":"/s"}]}`,
			`{"cniVersion":"1.0.0","name":"n","socket":"/s","type":"t"}`, ""},
		{"two plugins", `{"plugins":[{},{}]}`, "", "2 plugins"},
		{"torn", `{"plugins":[{`, "", "read " + file},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.WriteFile(file, []byte(tt.list), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := networkConfig(dir)
			if string(got) != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got %s, %v; want %s, %q", got, err, tt.want, tt.err)
			}
		})
	}
}

// TestLaunch: a program that fails fails the bench, with what it said.
func TestLaunch(t *testing.T) {
	sh := func(script string) program {
		return program{argv: []string{"/bin/sh", "-c", script}, stdin: []byte("in")}
	}
	for _, tt := range []struct {
		name      string
		p         program
		out, fail string
	}{
		{"prints", sh("cat; printf ' out'"), "in out", ""},
		{"fails", sh("echo why; exit 3"), "why\n", "exit status 3"},
		{"is killed", sh("kill -9 $$"), "", "signal killed"},
		{"is not there", program{argv: []string{"/nowhere"}}, "", "no such file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, o := range append(all([]program{tt.p, tt.p}), one(tt.p)) {
				if string(o.stdout) != tt.out {
					t.Errorf("printed %q, want %q", o.stdout, tt.out)
				}
				if o.err == nil && (tt.fail != "" || o.took <= 0) || o.err != nil && (tt.fail == "" || !strings.Contains(o.err.Error(), tt.fail)) {
					t.Errorf("took %s, error %v, want %q", o.took, o.err, tt.fail)
				}
				if _, err := times([]outcome{o}); (err == nil) != (tt.fail == "") {
					t.Errorf("times: %v", err)
				}
			}
		})
	}
}

// TestWorld: the instance that the bench describes can be started, and has room
// for the pods that it makes.
func TestWorld(t *testing.T) {
	limits, ok := vpc.LimitsOf(instanceType)
	if !ok || limits.ENIs < enis {
		t.Fatalf("%s has %d ENIs, want %d", instanceType, limits.ENIs, enis)
	}
	warm := enis * (limits.IPv4PerENI - 1)
	if err := describe(warm).Validate(); err != nil {
		t.Error(err)
	}
	if most := fullNode + max(roundPairs, parallel); warm < most {
		t.Errorf("%d addresses, want %d", warm, most)
	}
}
