package agent

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairway-cni/fairway/internal/agent/ipamd"
)

// What the loop is sent fails with ctx only, and the tests end that last.

// TestExecutorGoesFirst: while the loop is busy and pods queue up, the executor's turn
// is the next one.
func TestExecutorGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		l := newNodeLoop(&nodeState{})
		go l.run(ctx)
		busy := make(chan struct{})
		var order []string
		go func() { _ = l.do(ctx, func(*nodeState) { <-busy }) }()
		synctest.Wait()
		for range 20 {
			go func() { _ = l.do(ctx, func(*nodeState) { order = append(order, "pod") }) }()
		}
		synctest.Wait()
		go func() { _ = l.doFirst(ctx, func(*ipamd.Book) { order = append(order, "executor") }) }()
		synctest.Wait()
		close(busy)
		synctest.Wait()
		if len(order) != 21 || order[0] != "executor" {
			t.Errorf("the executor's turn was number %d of %d", slices.Index(order, "executor")+1, len(order))
		}
		stop()
		synctest.Wait()
	})
}

// TestExecutorLeavesKernelBehind: what the executor's turn could not write is tried again
// as soon as if anybody else had failed.
func TestExecutorLeavesKernelBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		l := newNodeLoop(&nodeState{})
		var repaired time.Time
		l.repair = func(string) bool {
			repaired, l.state.behind = time.Now(), false
			return true
		}
		go l.run(ctx)
		busy := make(chan struct{})
		go func() { _ = l.do(ctx, func(*nodeState) { <-busy }) }()
		synctest.Wait()
		go func() { _ = l.doFirst(ctx, func(*ipamd.Book) { l.state.behind = true }) }()
		synctest.Wait()
		failed := time.Now()
		close(busy)
		time.Sleep(2 * retryDelay) // the loop's ticker has not come yet
		synctest.Wait()
		if took := repaired.Sub(failed); took != retryDelay {
			t.Errorf("tried again after %s, want %s", took, retryDelay)
		}
		stop()
		synctest.Wait()
	})
}
