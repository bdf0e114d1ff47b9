package ipamd

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairway-cni/fairway/lab/ec2sim"
)

// fill gives the primary ENI what a launch template would.
func (r *region) fill(addrs, prefixes int) {
	r.t.Helper()
	attached, _ := r.enis()
	for _, in := range []ec2sim.AssignPrivateIPAddressesInput{{ID: attached[0].ID, Count: addrs}, {ID: attached[0].ID, PrefixCount: prefixes}} {
		if in.Count+in.PrefixCount == 0 {
			continue
		}
		if _, err := r.cloud.AssignPrivateIPAddresses(in); err != nil {
			r.t.Fatal(err)
		}
	}
	r.cloud.Propagate()
}

func (r *region) outage() {
	r.t.Helper()
	if err := r.cloud.SetOutage(ec2sim.OutageRefuse, 0); err != nil {
		r.t.Fatal(err)
	}
}

// hasAddress says whether EC2 has an address on the node.
func (r *region) hasAddress(a netip.Addr) bool {
	attached, _ := r.enis()
	for _, e := range attached {
		for _, has := range podAddresses(e) {
			if has == a {
				return true
			}
		}
	}
	return false
}

// counting counts requests by action, also those that reach nobody.
type counting struct {
	rt http.RoundTripper
	mu sync.Mutex
	n  map[string]int
}

func (c *counting) RoundTrip(r *http.Request) (*http.Response, error) {
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	r.Body = io.NopCloser(bytes.NewReader(text))
	_, rest, _ := strings.Cut(string(text), "Action=")
	action, _, _ := strings.Cut(rest, "&")
	c.mu.Lock()
	c.n[action]++
	c.mu.Unlock()
	return c.rt.RoundTrip(r)
}

// TestOffline: while EC2 does not answer, pods get what the pool has, and nothing
// is given back; after it what is too much goes.
func TestOffline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t, ec2sim.Config{}, "m5.large", "10.0.0.0/24")
		count := &counting{n: make(map[string]int)}
		r.wire = func(rt http.RoundTripper) http.RoundTripper { count.rt = rt; return count }
		r.cfg.Targets.WarmIPs = 4
		a := r.start()
		defer a.stop()
		for i := range 5 {
			if _, err := a.add(fmt.Sprint("early", i)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		r.outage()
		for i := range 4 { // these are there; more are asked for, in vain
			start := time.Now()
			if _, err := a.add(fmt.Sprint("late", i)); err != nil || time.Since(start) > 0 {
				t.Errorf("after %s: %v", time.Since(start), err)
			}
		}
		time.Sleep(time.Minute)
		had := a.stats().Total
		for i := range 5 {
			if err := a.del(fmt.Sprint("early", i)); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(2 * time.Hour)
		for action, n := range count.n {
			if strings.HasPrefix(action, "Unassign") || strings.HasPrefix(action, "Detach") {
				t.Errorf("%d requests of %s while EC2 did not answer", n, action)
			}
		}
		if st := a.stats(); st.Total != had || st.Assigned != 4 || st.Free != had-4 {
			t.Errorf("pool %+v, want %d addresses, four of them held", st, had)
		}
		r.cloud.ClearOutage()
		time.Sleep(2 * time.Hour)
		if st := a.stats(); st.Total != 8 {
			t.Errorf("pool %+v two hours after the outage, want 8 addresses", st)
		}
	})
}

// TestReadyAtOnce: what a launch template has put on the primary ENI serves pods
// from the start, without a word of EC2.
func TestReadyAtOnce(t *testing.T) {
	for _, imdsOnly := range []bool{true, false} {
		t.Run(fmt.Sprint("IMDS only ", imdsOnly), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRegion(t, ec2sim.Config{}, "m5.large", "10.0.0.0/24")
				r.fill(0, 3)
				r.outage()
				r.cfg.IMDSOnly, r.cfg.Targets.Prefixes = imdsOnly, true
				start := time.Now()
				a := r.start()
				defer a.stop()
				for i := range 48 {
					if _, err := a.add(fmt.Sprint("pod", i)); err != nil {
						t.Fatalf("pod %d: %v", i, err)
					}
				}
				if took := time.Since(start); took > 0 {
					t.Errorf("48 pods took %s", took)
				}
				if !imdsOnly {
					return
				}
				time.Sleep(3 * time.Hour)
				if calls := r.cloud.Calls(start); len(calls) > 0 {
					t.Errorf("%d calls, such as %+v", len(calls), calls[0])
				}
			})
		})
	}
}

// TestRestartOffline: an agent that starts while EC2 does not answer knows its
// pods, serves more, and loses nothing.
func TestRestartOffline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t, ec2sim.Config{Attach: 2 * time.Second}, "m5.large", "10.0.0.0/24")
		a := r.start()
		had := make(map[string]netip.Addr)
		for i := range 12 {
			name := fmt.Sprint("pod", i)
			addr, err := a.add(name)
			if err != nil {
				t.Fatal(err)
			}
			had[name] = addr
		}
		if err := a.del("pod0"); err != nil {
			t.Fatal(err)
		}
		r.outage()
		for range 3 {
			a.stop()
			time.Sleep(10 * time.Second)
			a = r.start()
			for name, addr := range had {
				if name == "pod0" {
					continue
				}
				if again, err := a.add(name); err != nil || again != addr {
					t.Errorf("%s has %s (%v) after the restart, had %s", name, again, err, addr)
				}
			}
			time.Sleep(time.Hour)
			if st := a.stats(); st.Assigned != len(had)-1 || st.Orphaned > 0 {
				t.Errorf("pool %+v", st)
			}
		}
		start := time.Now()
		addr, err := a.add("new")
		if err != nil || time.Since(start) > 0 || !r.hasAddress(addr) {
			t.Errorf("%s after %s: %v", addr, time.Since(start), err)
		}
		a.stop()
	})
}

// TestTaken: a pod whose address was taken away is named, once, and keeps it until
// it goes.
func TestTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t, ec2sim.Config{}, "m5.large", "10.0.0.0/24")
		var log bytes.Buffer
		r.log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
		a := r.start()
		defer a.stop()
		addr, err := a.add("victim")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		if err := r.cloud.TakeAddress(addr, ""); err != nil {
			t.Fatal(err)
		}
		if _, err := r.cloud.CreateNetworkInterface(ec2sim.CreateNetworkInterfaceInput{SubnetID: r.subnet, Addresses: ec2sim.Addressing{Primary: addr}}); err != nil {
			t.Fatal(err) // else the node might get it again
		}
		time.Sleep(2 * Settle)
		lost := func() (n int) {
			a.must(func(b *Book) { n = len(b.Lost()) })
			return n
		}
		if n := lost(); n != 1 {
			t.Errorf("%d pods have lost their address after %s, want 1", n, 2*Settle)
		}
		time.Sleep(3 * time.Hour)
		var named []string
		for line := range strings.Lines(log.String()) {
			if strings.Contains(line, "victim") {
				named = append(named, line)
			}
		}
		if len(named) != 1 || !strings.Contains(named[0], "default/victim") || !strings.Contains(named[0], addr.String()) {
			t.Errorf("%d lines about the pod: %q", len(named), named)
		}
		if again, err := a.add("victim"); err != nil || again != addr {
			t.Errorf("the pod has %s (%v), want %s", again, err, addr)
		}
		if err := a.del("victim"); err != nil {
			t.Error(err)
		}
		if n := lost(); n != 0 {
			t.Errorf("%d pods have lost their address when it has gone", n)
		}
	})
}
