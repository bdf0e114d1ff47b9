package world

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// settleTimeout bounds how long a control request waits for the loop: an
// instance that was asked for boots meanwhile.
const settleTimeout = 30 * time.Second

// closed says whether there has been a change since the channel was taken.
func closed(changed <-chan struct{}) bool {
	select {
	case <-changed:
		return true
	default:
		return false
	}
}

// Settle returns when guests and fabric are what EC2 said when it was called, or
// says later: a pass of the loop has succeeded, and nothing has changed since
// that pass began.
//
//	CreateRoute --> EC2's state --> changed --> pass: fabric.Sync, reports to EC2
//	                                   ^                          |
//	                                   '--- attached, running ----'
//	Settle <------------------------------ a pass after which all is quiet
func (l *Lab) Settle(ctx context.Context) error {
	quiet := make(chan struct{})
	select {
	case l.settling <- quiet:
	case <-l.done:
		return ErrNotRunning
	case <-ctx.Done():
		return l.unsettled(ctx)
	}
	select {
	case <-quiet:
		return nil
	case <-l.done:
		return ErrNotRunning
	case <-ctx.Done():
		return l.unsettled(ctx)
	}
}

func (l *Lab) unsettled(ctx context.Context) error {
	return fmt.Errorf("wait until the lab is as EC2 says: %w", errors.Join(ctx.Err(), l.Failure()))
}

func (l *Lab) settle(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), settleTimeout)
	defer cancel()
	answer(w, l.Settle(ctx))
}

// Settle is that of [Lab], for at most half a minute.
func (r *Remote) Settle(ctx context.Context) error {
	_, err := r.call(ctx, http.MethodPost, "/settle")
	return err
}
