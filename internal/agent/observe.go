package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/agent/ipamd"
	"github.com/fairway-cni/fairway/internal/core/ipam"
	"github.com/fairway-cni/fairway/internal/edge/agentapi"
	"github.com/fairway-cni/fairway/internal/edge/cniapi"
	"github.com/fairway-cni/fairway/internal/edge/cniapi/cniserver"
	"github.com/fairway-cni/fairway/internal/edge/ec2"
	"github.com/fairway-cni/fairway/internal/edge/metrics"
)

// sight is what others see of the agent:
//
//	fairway status, plan ---- admin socket (root only) ---+
//	curl, support scripts --- introspection --------------+--> sight --> node loop
//	Prometheus -------------- metrics --------------------+
//
// It changes nothing. Those who may not be root share an answer of the node loop
// for a while, so that they cannot keep it from its work.
type sight struct {
	cfg     Config
	log     *slog.Logger
	loop    *nodeLoop
	metrics *metrics.Metrics
	recent  *shared[agentapi.Status]
	retry   time.Duration // the wait after an address could not be had
}

// loopPatience is how long the node loop may take to answer the introspection.
const loopPatience = 5 * time.Second

func newSight(cfg Config, log *slog.Logger, loop *nodeLoop, m *metrics.Metrics) *sight {
	return &sight{cfg: cfg, log: log, loop: loop, metrics: m, recent: share(loop.status), retry: listenRetry}
}

// shared is an answer that is given to everybody who asks within answerAge.
type shared[T any] struct {
	ask  func(context.Context) (T, error)
	turn chan struct{} // holds one; who has put it there owns the rest
	last T
	at   time.Time // zero: none yet
}

const answerAge = time.Second

func share[T any](ask func(context.Context) (T, error)) *shared[T] {
	return &shared[T]{ask: ask, turn: make(chan struct{}, 1)}
}

// get answers, or waits for its turn and asks.
func (s *shared[T]) get(ctx context.Context) (answer T, err error) {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return answer, ctx.Err()
	}
	if !s.at.IsZero() && time.Since(s.at) < answerAge {
		return s.last, nil
	}
	answer, err = s.ask(ctx)
	if err == nil {
		s.last, s.at = answer, time.Now()
	}
	return answer, err
}

// pool is the status as the metrics have it.
func (s *sight) pool(ctx context.Context) (metrics.Pool, error) {
	status, err := s.recent.get(ctx)
	if err != nil {
		return metrics.Pool{}, err
	}
	return poolOf(status), nil
}

func poolOf(s agentapi.Status) metrics.Pool {
	n := s.Pool
	p := metrics.Pool{
		MaxENIs: s.Node.MaxENIs,
		Addresses: map[string]int{"free": n.Free, "assigned": n.Assigned, "cooling": n.Cooling, "reserved": n.Reserved,
			"leaving": n.Leaving, "arriving": n.Arriving, "disputed": n.Disputed, "orphaned": n.Orphaned},
		Total: n.Total, Assigned: n.Assigned, MaxAddresses: n.Capacity, Prefixes: n.Prefixes,
		AssignedOf: make(map[string]int), Pods: len(s.Pods), Waiting: len(s.Waiting),
		Blocked: len(s.Refused), Offline: s.EC2.Offline, Behind: s.Kernel.Behind,
		Proved: s.Paths.Classes, Broken: len(s.Paths.Broken), Unproven: s.Paths.Unknown, SubnetFree: make(map[string]int),
	}
	for _, e := range s.ENIs {
		if e.State == agentapi.Attached && e.Why == "" {
			p.ENIs++
			p.AssignedOf[e.ID] = e.Pods
		}
	}
	for _, pod := range s.Pods {
		if pod.Lost {
			p.Lost++
		}
	}
	if len(s.Waiting) > 0 {
		p.OldestWait = s.At.Sub(s.Waiting[0].Since)
	}
	for _, f := range s.InFlight {
		switch ipam.Kind(f.Kind) {
		case ipam.CreateENI, ipam.AttachENI, ipam.AssignAddresses, ipam.AssignPrefixes:
			p.Growing++
		case ipam.UnassignAddresses, ipam.UnassignPrefixes, ipam.DetachENI, ipam.DeleteENI:
			p.Shrinking++
		case ipam.MarkENI, ipam.TagENI: // neither
		}
	}
	for _, n := range s.Subnets {
		if n.Free >= 0 {
			p.SubnetFree[n.ID] = n.Free
		}
	}
	return p
}

// serve runs the listeners that the configuration asks for, until ctx ends. One
// that cannot be had is logged, and stops nothing.
func (s *sight) serve(ctx context.Context) {
	var listeners sync.WaitGroup
	defer listeners.Wait()
	if s.cfg.Metrics != "" {
		listeners.Go(func() {
			s.listen(ctx, "metrics", s.cfg.Metrics, s.metrics.Handler(s.pool))
		})
	}
	if s.cfg.Introspection != "" {
		onSocket := strings.HasPrefix(s.cfg.Introspection, unixScheme)
		listeners.Go(func() {
			s.listen(ctx, "introspection", s.cfg.Introspection, s.introspection(onSocket))
		})
	}
	if s.cfg.Admin != "" {
		listeners.Go(func() {
			err := agentapi.Serve(ctx, s.cfg.Admin, agentapi.Answers{Plan: s.loop.plan, Status: s.loop.status, Other: s.rootOnly()})
			if err != nil {
				s.log.Error("serve the admin socket", "error", err)
			}
		})
	}
}

// unixScheme is before the path of a socket, where an address may be one.
const unixScheme = "unix:"

// listenRetry is how soon an address is tried again that could not be had: who has
// it may be an agent or a VPC CNI that is about to end.
const listenRetry = 15 * time.Second

// listen answers requests to an address until ctx ends. The same failure is logged
// once.
func (s *sight) listen(ctx context.Context, what, address string, h http.Handler) {
	said := ""
	for {
		err := s.listenOnce(ctx, address, h)
		if ctx.Err() != nil {
			return
		}
		if text := err.Error(); text != said {
			said = text
			s.log.Error("cannot be asked", "for", what, "address", address, "error", err, "advice", listenAdvice(what, err), "retry", s.retry)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(s.retry):
		}
	}
}

// listenAdvice says what a person can do about an address that cannot be had.
func listenAdvice(what string, err error) string {
	flag := "--" + what + "-address"
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return "another process listens there: end it (is the VPC CNI's aws-node still on this node?), or choose another address with " + flag
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return "the node does not have this address: choose one of its own with " + flag
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return "the agent may not use it: choose a port above 1023, or a path that it may write, with " + flag
	}
	return "choose another address with " + flag
}

// Limits on who asks over the network. The agent's descriptors are what its CNI
// socket needs too.
const (
	maxConnections = 32
	maxHeader      = 8 << 10          // bytes
	readTimeout    = 5 * time.Second  // of a whole request; there are no bodies
	writeTimeout   = 15 * time.Second // from its header's end to the answer's
	idleTimeout    = 30 * time.Second
)

func (s *sight) listenOnce(ctx context.Context, address string, h http.Handler) error {
	var ln net.Listener
	var err error
	if path, isUnix := strings.CutPrefix(address, unixScheme); isUnix {
		ln, err = agentapi.Listen(path)
	} else {
		ln, err = (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	}
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler: h, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog:    slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), // of what callers do wrong
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	return server.Serve(&fewListener{Listener: ln, places: make(chan struct{}, maxConnections)})
}

// fewListener accepts no more connections than it has places; more wait in the
// socket's backlog.
type fewListener struct {
	net.Listener
	places chan struct{}
}

func (l *fewListener) Accept() (net.Conn, error) {
	l.places <- struct{}{}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.places
		return nil, err
	}
	return &placedConn{Conn: c, leave: sync.OnceFunc(func() { <-l.places })}, nil
}

type placedConn struct {
	net.Conn
	leave func()
}

func (c *placedConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

// observer has the executor's deeds counted.
func observer(m *metrics.Metrics) ipamd.Observer {
	return ipamd.Observer{
		Change: func(c ipam.Change, err error) { m.Change(string(c.Kind), changeResult(err)) },
		Read: func(what ipamd.Reading, err error) {
			m.Read(string(what), err == nil)
			if err == nil && (what == ipamd.FromEC2 || what == ipamd.FromMetadata) {
				m.Reconciled()
			}
		},
		LeakedDeleted: m.LeakedDeleted,
	}
}

// observeEC2 has the requests to EC2 counted.
func observeEC2(m *metrics.Metrics) func(ec2.Call) {
	return func(c ec2.Call) {
		m.Request(metrics.Request{Action: c.Action, Result: requestResult(c.Err), Code: c.Code, Latency: c.Latency})
	}
}

// requestResult is a word for the class of an error.
func requestResult(err error) string {
	for _, class := range []struct {
		err  error
		word string
	}{
		{ec2.ErrThrottled, "throttled"},
		{ec2.ErrUnauthorized, "unauthorized"},
		{ec2.ErrSubnetFull, "subnet_full"},
		{ec2.ErrLimit, "limit"},
		{ec2.ErrNotFound, "not_found"},
		{ec2.ErrState, "state"},
		{ec2.ErrUnreachable, "unreachable"},
		{context.Canceled, "canceled"},
	} {
		if errors.Is(err, class.err) {
			return class.word
		}
	}
	if err != nil {
		return "failed"
	}
	return "ok"
}

// changeResult is what came of a change: "ok", "unknown" where EC2 may have made it
// although the call failed, else why it was refused.
func changeResult(err error) string {
	if err != nil && ipamd.Undecided(err) {
		return "unknown"
	}
	return requestResult(err)
}

// callResult is a word for a plugin's answer.
func callResult(r cniserver.Reply) metrics.Result {
	if r.Err == nil {
		return metrics.OK
	}
	switch r.Err.Code {
	case cniapi.CodeNoAddress:
		return metrics.NoAddress
	case cniapi.CodeTryAgainLater, cniapi.CodeUnavailable, cniapi.CodeLimited:
		return metrics.TryAgain
	case cniapi.CodeUnknownContainer:
		return metrics.Unknown
	case cniapi.CodeInterfaceTaken:
		return metrics.NameTaken
	case cniapi.CodeInternal, cniapi.CodeIO:
		return metrics.Failed
	}
	return metrics.BadRequest
}

// orphan is why an address is released without a DEL.
type orphan struct {
	word string // for the metrics
	text string
}

var (
	deviceGone    = orphan{"device_gone", "its device has gone with its namespace"}
	containerGone = orphan{"container_gone", "the runtime does not have the container"}
)

// inLoop is an error of the node loop, for those who ask over the network.
func inLoop(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("the node loop has not answered within %s: it is busy or stuck", loopPatience)
	}
	return err
}
