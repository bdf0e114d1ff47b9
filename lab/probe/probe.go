// Package probe answers who reaches whom: it opens real TCP connections between
// network namespaces, from one process, and draws the answers as a matrix.
//
//	source namespace                            target namespace
//	socket, connect --- whatever is between ---> listener on Addr:Port
//	   nonce         ------------------------->
//	                 <-------------------------  nonce, who I am, who I saw
//
// A flow is ok when the nonce comes back, from the endpoint that was meant, and
// that one saw the source's own address. So a flow that was delivered to
// somebody else, or was translated on the way, is not ok.
//
// A [Talk] is a single conversation, by TCP, UDP or ICMP, with more to choose,
// and tells more of how it ended. [Kernel] is what a namespace's own kernel
// counts, and so where a packet was lost that the network had delivered. A [Tap]
// sees the frames at the devices of a namespace, and sends some.
//
// Sockets are made inside a namespace and are used from outside of it: a socket
// stays in the namespace that it was made in, and waits in the process's own
// netpoller like any other. Run and Converse have their own sockets and
// goroutines, and all of them are gone when they return; several may run at once
// on different ports. A Tap is for one goroutine that reads and one that sends.
package probe

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"
)

// Endpoint is one end of flows: an address in a namespace.
type Endpoint struct {
	Name  string
	Addr  netip.Addr // IPv4 or IPv6: what it listens on, and what others see of it
	NetNS *os.File   // the namespace, open; Run does not close it
}

// Pair is one flow to try: indexes of the endpoints.
type Pair struct{ From, To int }

// AllPairs gives every pair of n different endpoints.
func AllPairs(n int) []Pair {
	var pairs []Pair
	for from := range n {
		for to := range n {
			if from != to {
				pairs = append(pairs, Pair{from, to})
			}
		}
	}
	return pairs
}

// Options of Run. The zero value of each means its default.
type Options struct {
	Port     uint16        // that every target listens on; 7070
	Timeout  time.Duration // of a flow, from its connect to its answer; 3 s
	Parallel int           // flows at a time; 64
}

// Kind says how a flow ended.
type Kind string

// How a flow can end.
const (
	OK          Kind = "ok"
	Timeout     Kind = "timeout"      // no answer in time
	Refused     Kind = "refused"      // a RST answered the SYN
	Unreachable Kind = "unreachable"  // no route, or an ICMP error
	WrongSource Kind = "wrong source" // the target saw another address than the source's
	WrongAnswer Kind = "wrong answer" // somebody else answered, or something else
	NoListener  Kind = "no listener"  // the target could not listen
	Failed      Kind = "failed"       // anything else
	NotTried    Kind = "not tried"    // Run was cancelled before
)

// Result is how one flow went.
type Result struct {
	Pair
	Kind   Kind
	Detail string        // for a person; empty where OK
	RTT    time.Duration // the kernel's estimate (TCP_INFO), where OK
}

// Report is how all flows went, in the order in which they were asked for.
type Report struct {
	Endpoints []Endpoint
	Results   []Result
}

// Run tries every pair once. A flow that fails is a Result; the error is for
// what cannot be asked, and for ctx, with the Report as far as it came.
func Run(ctx context.Context, endpoints []Endpoint, pairs []Pair, o Options) (Report, error) {
	if o.Port == 0 {
		o.Port = 7070
	}
	if o.Timeout <= 0 {
		o.Timeout = 3 * time.Second
	}
	if o.Parallel <= 0 {
		o.Parallel = 64
	}
	report := Report{Endpoints: endpoints, Results: make([]Result, len(pairs))}
	if err := check(endpoints, pairs); err != nil {
		return Report{}, err
	}
	servers := listen(endpoints, pairs, o)
	defer servers.close()

	slots := make(chan struct{}, o.Parallel)
	var wg sync.WaitGroup
	for i, p := range pairs {
		report.Results[i] = Result{Pair: p, Kind: NotTried, Detail: "cancelled before"}
		select {
		case <-ctx.Done():
			continue
		case slots <- struct{}{}:
		}
		wg.Go(func() {
			defer func() { <-slots }()
			report.Results[i] = try(ctx, endpoints, p, servers.refused[p.To], o)
		})
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return report, fmt.Errorf("probe %d flows: %w", len(pairs), err)
	}
	return report, nil
}

func check(endpoints []Endpoint, pairs []Pair) error {
	for i, e := range endpoints {
		switch {
		case e.NetNS == nil:
			return fmt.Errorf("endpoint %d %q has no namespace", i, e.Name)
		case !e.Addr.IsValid() || e.Addr.Is4In6() || e.Addr.Zone() != "":
			return fmt.Errorf("endpoint %d %q: address %q: want IPv4 or IPv6 without a zone", i, e.Name, e.Addr)
		}
	}
	for i, p := range pairs {
		if min(p.From, p.To) < 0 || max(p.From, p.To) >= len(endpoints) {
			return fmt.Errorf("pair %d is %d to %d: there are %d endpoints", i, p.From, p.To, len(endpoints))
		}
		if endpoints[p.From].Addr.Is4() != endpoints[p.To].Addr.Is4() {
			return fmt.Errorf("pair %d is from %s to %s: want one address family", i, endpoints[p.From].Addr, endpoints[p.To].Addr)
		}
	}
	return nil
}

// try tries one flow. refused is why its target does not listen, nil where it does.
func try(ctx context.Context, endpoints []Endpoint, p Pair, refused error, o Options) Result {
	from, to := endpoints[p.From], endpoints[p.To]
	if refused != nil {
		return Result{Pair: p, Kind: NoListener, Detail: refused.Error()}
	}
	a, err := ask(ctx, from, netip.AddrPortFrom(to.Addr, o.Port), o.Timeout)
	switch {
	case err != nil && ctx.Err() != nil:
		return Result{Pair: p, Kind: NotTried, Detail: "cancelled meanwhile"}
	case err != nil:
		return Result{Pair: p, Kind: kindOf(err), Detail: err.Error()}
	case a.server != p.To:
		return Result{Pair: p, Kind: WrongAnswer, Detail: fmt.Sprintf("answered by %s", nameOf(endpoints, a.server))}
	case a.seen != from.Addr:
		return Result{Pair: p, Kind: WrongSource, Detail: fmt.Sprintf("source seen %s, want %s", a.seen, from.Addr)}
	}
	return Result{Pair: p, Kind: OK, RTT: a.rtt}
}

func nameOf(endpoints []Endpoint, i int) string {
	if i < 0 || i >= len(endpoints) {
		return fmt.Sprintf("an endpoint %d, which is not of this probe", i)
	}
	return endpoints[i].Name
}
