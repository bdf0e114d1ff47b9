package ipamd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairway-cni/fairway/internal/core/ipam"
	"github.com/fairway-cni/fairway/internal/edge/ec2"
	"github.com/fairway-cni/fairway/internal/edge/store"
	"github.com/fairway-cni/fairway/lab/ec2sim"
)

// TestLooks: who waits looks when it may be served, and not at all that happens; they
// are served in their order all the same.
func TestLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t, ec2sim.Config{Delay: 5 * time.Second, Attach: time.Second}, "m5.4xlarge", "10.0.0.0/20")
		a := r.start()
		const pods = 120
		var adds sync.WaitGroup
		looks := 0                        // the owner's
		served := make([]time.Time, pods) // who is free to go at one moment may do so in any order
		for i := range pods {
			adds.Go(func() {
				name := fmt.Sprint(i)
				err := a.book.Await(t.Context(), pod(name), 45*time.Second, a.do, func(b *Book) error {
					looks++
					_, err := b.Hold(store.Record{ContainerID: name, IfName: "eth0"})
					if err == nil {
						served[i] = time.Now()
					}
					return err
				})
				if err != nil {
					t.Errorf("pod %d: %v", i, err)
				}
			})
			synctest.Wait() // so that they come in this order
		}
		looked := func() (n int) {
			a.must(func(*Book) { n = looks })
			return n
		}
		for range 100 { // things that happen while nothing is free
			a.must((*Book).tell)
			synctest.Wait()
		}
		before := looked()
		if most := pods + 150; before > most {
			t.Errorf("%d looks while nothing was free, want at most %d", before, most)
		}
		adds.Wait()
		if most := before + 2*pods; looked() > most {
			t.Errorf("%d looks until all were served, want at most %d", looked(), most)
		}
		if !slices.IsSortedFunc(served, time.Time.Compare) {
			t.Errorf("somebody was overtaken: served at %v", served)
		}
		a.stop()
	})
}

// TestNoHope: where EC2 says that no more can be had, all who wait are told at once.
func TestNoHope(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t, ec2sim.Config{Delay: 5 * time.Second}, "t3.nano", "10.0.1.0/24") // two ENIs of one address
		a := r.start()
		if _, err := a.add("first"); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		var adds sync.WaitGroup
		for i := range 10 {
			adds.Go(func() {
				_, err := a.add(fmt.Sprint("pod", i))
				// One gets the address of the second ENI; the others hear that this is all.
				var empty *EmptyError
				if err != nil && (!errors.As(err, &empty) || empty.Waited != 0 || time.Since(start) > 30*time.Second) {
					t.Errorf("pod %d after %s: %v", i, time.Since(start), err)
				}
			})
		}
		adds.Wait()
		a.stop()
	})
}

// TestSameOwnerTwice: a runtime asks again while its first call still waits. Both are
// answered as soon as there is an address, which is the same.
func TestSameOwnerTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t, ec2sim.Config{Delay: 5 * time.Second}, "m5.large", "10.0.0.0/20")
		a := r.start()
		start := time.Now()
		var adds sync.WaitGroup
		for range 2 {
			adds.Go(func() {
				if _, err := a.add("twin"); err != nil || time.Since(start) > 11*time.Second {
					t.Errorf("after %s: %v", time.Since(start), err)
				}
			})
		}
		adds.Wait()
		if s := a.stats(); s.Assigned != 1 {
			t.Errorf("%d addresses for one interface", s.Assigned)
		}
		a.must(func(b *Book) {
			if b.Waiting() != 0 {
				t.Errorf("%d still wait", b.Waiting())
			}
		})
		a.stop()
	})
}

// TestLastLook: who has waited in vain is told how it is then, not how it was when it
// looked last.
func TestLastLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t, ec2sim.Config{Delay: 2 * time.Second}, "m5.large", "10.0.0.0/20")
		for _, action := range []string{"AssignPrivateIpAddresses", "CreateNetworkInterface"} {
			if err := r.cloud.SetFault(ec2sim.Fault{Action: action, Code: "RequestLimitExceeded"}); err != nil {
				t.Fatal(err)
			}
		}
		a := r.start()
		var adds sync.WaitGroup
		errs := make([]error, 3)
		for i := range errs {
			adds.Go(func() { _, errs[i] = a.add(fmt.Sprint(i)) })
			synctest.Wait()
		}
		adds.Wait()
		for i, err := range errs {
			var empty *EmptyError
			if !errors.As(err, &empty) || empty.Waited == 0 || !strings.Contains(err.Error(), "RequestLimitExceeded") {
				t.Errorf("ADD %d: %v, want what EC2 says", i, err)
			}
		}
		a.stop()
	})
}

// TestFailedADD: an ADD that fails for another reason counted as one that comes, and does
// no more; the executor hears of it.
func TestFailedADD(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t, ec2sim.Config{}, "m5.large", "10.0.0.0/20")
		a := r.start()
		time.Sleep(time.Minute)
		a.end() // so that nobody else takes the news
		<-a.ended
		<-a.idle
		b := a.book
		for range 2 { // with and without news before
			select {
			case <-b.kick:
			default:
			}
		}
		broken := errors.New("broken")
		err := b.Await(t.Context(), pod("a"), time.Minute, func(_ context.Context, f func(*Book)) error { f(b); return nil },
			func(*Book) error { return broken })
		if !errors.Is(err, broken) || b.expected() != 0 {
			t.Errorf("error %v, %d expected", err, b.expected())
		}
		select {
		case <-b.kick:
		default:
			t.Error("nobody plans again")
		}
		if err := a.records.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestDated: when an ENI was made is by the clock of who made it.
func TestDated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t, ec2sim.Config{}, "m5.large", "10.0.0.0/20")
		x := &Executor{Cloud: r.client(), At: func(at time.Time) time.Time { return at.Add(time.Hour) }}
		result, err := x.call(t.Context(), order{spec: ec2.Spec{InstanceID: r.instance, SubnetID: r.subnet, Addresses: 1}, Change: ipam.Change{Kind: ipam.CreateENI, SubnetID: r.subnet}})
		if err != nil {
			t.Fatal(err)
		}
		if got := time.Until(result.ENI.CreatedAt); got < 59*time.Minute || got > 61*time.Minute {
			t.Errorf("made in %s by the book's clock, want in an hour", got)
		}
	})
}
