package agent

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/fairway-cni/fairway/internal/agent/ipamd"
)

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
