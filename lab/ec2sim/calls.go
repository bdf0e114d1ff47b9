package ec2sim

import (
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Call is one request over HTTP and what became of it.
type Call struct {
	ID        string        `json:"id"`     // as the answer has it
	Start     time.Time     `json:"start"`  // when it came
	Action    string        `json:"action"` // empty: the request had none that could be read
	Caller    string        `json:"caller"` // ROLE/INSTANCE, "administrator" or an access key; empty: unsigned
	Region    string        `json:"region"`
	Took      time.Duration `json:"took"`           // nanoseconds until the answer was ready
	Code      string        `json:"code,omitempty"` // of the error; empty: it succeeded
	Throttled bool          `json:"throttled,omitempty"`
}

// NoAnswer is the code of a call that was not answered: its client had gone, or
// the connection was broken off on purpose.
const NoAnswer = "NoAnswer"

// maxCalls is how many calls are kept: some megabytes.
const maxCalls = 10_000

// callLog keeps the last calls, under the account's mutex.
type callLog struct {
	ring []Call
	next int // the oldest, once the ring is full
}

func (l *callLog) add(call Call) {
	if len(l.ring) < maxCalls {
		l.ring = append(l.ring, call)
		return
	}
	l.ring[l.next] = call
	l.next = (l.next + 1) % maxCalls
}

// Calls gives the requests over HTTP that came since a time, of the last ten
// thousand, in the order in which they were done with.
func (c *Cloud) Calls(since time.Time) []Call {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := slices.Concat(c.calls.ring[c.calls.next:], c.calls.ring[:c.calls.next])
	return slices.DeleteFunc(all, func(call Call) bool { return call.Start.Before(since) })
}

// request is what serving one has to know of it.
type request struct {
	Call
	number uint64 // from 1
}

// maxActionName bounds what is kept of an action that there is not, in bytes.
const maxActionName = 64

// begin numbers a request, and begins to log it.
func (c *Cloud) begin(r *http.Request) *request {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests++
	return &request{number: c.requests, Call: Call{
		ID:    requestID(c.state.cfg.Seed, c.requests),
		Start: c.state.cfg.Now(), Caller: signer(r), Region: scope(r, c.region),
	}}
}

// finish logs a call with its outcome.
func (c *Cloud) finish(req *request, err error) {
	call := req.Call
	var refused *Error
	switch {
	case errors.As(err, &refused):
		call.Code, call.Throttled = refused.Code, refused.Code == "RequestLimitExceeded"
	case err != nil:
		call.Code = NoAnswer
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	call.Took = c.state.cfg.Now().Sub(call.Start)
	c.calls.add(call)
}

// signer is the access key that a request is signed with.
func signer(r *http.Request) string {
	credential := r.URL.Query().Get("X-Amz-Credential")
	if _, rest, ok := strings.Cut(r.Header.Get("Authorization"), "Credential="); ok {
		credential = rest
	}
	key, _, _ := strings.Cut(credential, "/")
	const most = 128 // of an access key, as IAM has it
	return key[:min(len(key), most)]
}

// logName is how the log calls a caller.
func (c *Cloud) logName(who Caller) string {
	if c.admin {
		return "administrator"
	}
	if who.Role != "" {
		return who.Role + "/" + who.InstanceID
	}
	return who.AccessKeyID
}

// Actions are all that the API has, sorted.
func Actions() []string { return slices.Sorted(maps.Keys(actions)) }

// KnownAction tells whether the API has an action.
func KnownAction(name string) bool { _, ok := actions[name]; return ok }
