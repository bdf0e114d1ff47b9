package ipamd

import "time"

// Budgets adapt to how much of an EC2 action this account has left: the API
// throttles by action, for all callers of an account and region together, so a
// node can only find out. A refusal doubles the pause between two calls, from
// firstGap to longestGap; each success takes a quarter off.
type budget struct {
	gap  time.Duration
	next time.Time // no call before it
	why  string    // what EC2 said last, for people
}

const (
	firstGap   = 200 * time.Millisecond
	longestGap = 30 * time.Second
	smallGap   = 50 * time.Millisecond // not worth a pause any more
)

func (b *budget) succeeded(now time.Time) {
	if b.gap -= b.gap / 4; b.gap < smallGap {
		b.gap = 0
	}
	b.next = now.Add(b.gap)
}

// throttled counts the calls of one moment as one refusal: those that were sent
// together say the same thing.
func (b *budget) throttled(now time.Time) {
	if now.Before(b.next) {
		return
	}
	b.gap = min(max(2*b.gap, firstGap), longestGap)
	b.next = now.Add(b.gap)
}
