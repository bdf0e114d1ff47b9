package ipamd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing/synctest"
	"time"

	goruntime "runtime"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/fairway-cni/fairway/internal/core/ipam"
	"github.com/fairway-cni/fairway/internal/core/vpc"
	"github.com/fairway-cni/fairway/internal/edge/bootclock"
	"github.com/fairway-cni/fairway/internal/edge/imds"
	"github.com/fairway-cni/fairway/internal/edge/store"
	labimds "github.com/fairway-cni/fairway/lab/imds"
)

// simLife is one life of the agent.
type simLife struct {
	s       *sim
	no      int
	over    bool // under sim.mu
	ctx     context.Context
	end     context.CancelFunc
	book    *Book
	records *store.Store
	cfg     Config
	work    chan func(*Book)
	done    chan struct{}
	died    chan struct{} // the owner's goroutine has ended
	idle    chan struct{} // the executor has
	waiters []*call       // in the order in which they found nothing
	steps   int           // durable steps until the agent dies; 0: it does not
	op      operation     // what a death would interrupt
}

// executorKey is the executor's loop among the items.
const executorKey = "executor"

// start begins a life, unless IMDS is away.
func (s *sim) start() {
	if s.life != nil || s.bad != "" {
		return
	}
	meta := imds.New(s.imdsConfig(nil))
	asked := time.Now()
	enis, err := meta.ENIs(context.Background())
	if err != nil {
		s.event("no metadata at start", "")
		s.in(time.Second+s.upTo(time.Second), s.start)
		return
	}
	records, err := store.Open(s.r.dir)
	if err != nil {
		s.wrong("open the records: %v", err)
		return
	}
	s.checkRecords(records)
	s.setClock(8)
	clock, err := bootclock.Open(filepath.Join(filepath.Dir(s.r.dir), "clock"), s.machine())
	if err != nil {
		s.wrong("open the clock: %v", err)
	}
	s.lives++
	l := &simLife{s: s, no: s.lives, records: records, cfg: s.world.cfg, work: make(chan func(*Book)), done: make(chan struct{}),
		died: make(chan struct{}), idle: make(chan struct{})}
	l.ctx, l.end = context.WithCancel(context.Background())
	if s.spoil.config != nil {
		s.spoil.config(&l.cfg)
	}
	id := s.world.self
	limits, _ := vpc.LimitsOf(id.InstanceType)
	l.book = NewBook(l.cfg, Identity{InstanceID: id.InstanceID, InstanceType: id.InstanceType, Limits: limits, VPCID: id.VPCID, Zone: id.AZ, Groups: id.Groups},
		records, s.r.log, clock.Now)
	l.book.Drives(s.devices)
	if err := l.book.Restore(); err != nil {
		s.wrong("restore: %v", err)
	}
	l.book.SawMetadata(enis, clock.At(asked.Add(s.skew)))
	s.truth.heard(asked, s.truth.metadataAt, true)
	records.Step = l.step
	s.life = l
	s.event("start", "")
	go l.own()
	s.r.wire = func(rt http.RoundTripper) http.RoundTripper { return &simWire{l, rt} }
	x := &Executor{Log: s.r.log, Now: clock.Now, Cloud: s.r.client(), Meta: imds.New(s.imdsConfig(l)), Do: l.doExecutor,
		Rand: func(d time.Duration) time.Duration {
			return time.Duration(mixed(s.seed, uint64(l.no), uint64(time.Since(s.began))) % uint64(d))
		},
		Observe: Observer{
			Change: func(c ipam.Change, err error) { s.changed(l, c, err) },
			Read:   func(what Reading, err error) { s.read(l, what, err) },
		}}
	x.Cloud.Know(enis)
	if l.cfg.IMDSOnly {
		x.Cloud = nil
	}
	go func() { defer close(l.idle); x.Run(l.ctx) }()
	s.in(time.Second, l.tick)
}

// setClock has the node's clock set, one time in so many: while no agent runs, and while
// one does, which writes down times after it. No invariant is the weaker for it.
func (s *sim) setClock(oneIn int) {
	if s.calm || s.lives == 0 || !s.chance(oneIn) {
		return
	}
	set := s.upTo(2*time.Hour) - time.Hour
	s.skew += set
	s.tally.fault("clock set")
	s.event("clock set", set.String())
}

// machine is the node's clock, and its boot, which is one all the time.
func (s *sim) machine() bootclock.Source {
	return bootclock.Source{Now: func() time.Time { return time.Now().Add(s.skew) },
		Boot: func() (string, error) { return "boot", nil },
		Age:  func() (time.Duration, error) { return time.Since(s.began), nil }}
}

// mixed makes one number of several, the same each time.
func mixed(of ...uint64) uint64 {
	h := uint64(14695981039346656037)
	for _, x := range of {
		h = (h ^ x) * 1099511628211
		h ^= h >> 29
	}
	return h
}

func (l *simLife) tick() {
	if l.over {
		return
	}
	l.s.setClock(200)
	l.s.op(l, operation{kind: "tick"}, func(b *Book) { b.Tick() })
	if !l.over {
		l.s.in(time.Second, l.tick)
	}
}

// own is the goroutine that owns the book. A death in the middle of something ends
// it there.
func (l *simLife) own() {
	defer close(l.died)
	defer func() {
		if p := recover(); p != nil {
			l.s.wrong("panic: %v\n%s", p, debug.Stack())
		}
	}()
	for f := range l.work {
		f(l.book)
		l.done <- struct{}{}
	}
}

func (l *simLife) step(string) {
	if l.steps > 0 {
		if l.steps--; l.steps == 0 {
			goruntime.Goexit()
		}
	}
}

// op runs f in the owner's goroutine, where the agent may die. False: it has.
func (s *sim) op(l *simLife, op operation, f func(*Book)) bool {
	if s.dies(atStep) {
		l.steps = 1 + s.draw.IntN(8)
	}
	l.op = op
	l.work <- f
	select {
	case <-l.done:
		l.steps = 0
		l.op = operation{}
		return true
	case <-l.died:
		s.crash("in the middle of " + op.kind)
		return false
	}
}

// How rarely the agent dies at each place: it comes to some much oftener than to
// others.
const (
	atHandOver = 150
	atStep     = 25
	atWire     = 10
)

// dies draws whether the agent dies here.
func (s *sim) dies(at int) bool { return !s.calm && s.world.crash > 0 && s.chance(at*s.world.crash) }

// crash ends the life at once: nothing of it goes on, but for requests that are
// on their way to EC2.
func (s *sim) crash(where string) {
	l := s.life
	s.event("crash", where)
	s.tally.crash(where)
	s.interrupted = l.op
	s.bury(l)
	s.truth.disturbed = time.Now()
	pause := s.upTo(3 * time.Second)
	if s.chance(10) {
		pause += s.upTo(time.Minute)
	}
	s.in(pause, s.start)
}

// bury ends a life and lets all of it come to rest.
func (s *sim) bury(l *simLife) {
	s.mu.Lock()
	l.over = true
	s.mu.Unlock()
	s.diedAt = time.Now()
	s.life = nil
	select {
	case <-l.died:
	default:
		close(l.work)
	}
	for _, it := range s.find(func(it *item) bool { return it.life == l }) {
		if it.place == request && !s.calm && s.chance(2) {
			s.late(it.wire)
		}
		s.let(it, dead)
	}
	l.end()
	synctest.Wait()
	select {
	case <-l.idle:
	default:
		s.wrong("the executor goes on after its end")
	}
	if err := l.records.Close(); err != nil {
		s.wrong("close the records: %v", err)
	}
	if s.spoil.records != nil {
		s.spoil.records(s.r.dir)
	}
}

// restart ends the life in order, and may come back in another mode.
func (s *sim) restart() {
	if s.life == nil {
		return
	}
	s.event("restart", "")
	l := s.life
	s.interrupted = operation{}
	s.bury(l)
	s.truth.disturbed = time.Now()
	if s.chance(2) && !s.calm {
		s.world.switchMode(s)
	}
	s.in(s.upTo(5*time.Second), s.start)
}

// doExecutor is the executor's hand-over. What its loop hands over has no deadline;
// what its calls do has one, and only reads.
func (l *simLife) doExecutor(ctx context.Context, f func(*Book)) error {
	it := &item{place: handOver, key: executorKey, life: l}
	if _, ok := ctx.Deadline(); ok {
		it.place = reading
	}
	it.run = func() { f(l.book) }
	if l.s.park(it) == dead {
		return context.Canceled
	}
	return nil
}

// exchange is one request to EC2.
type exchange struct {
	action, text string
	form         url.Values
	request      *http.Request
	body         []byte
	rt           http.RoundTripper
	response     *http.Response
	err          error
}

// send makes the request, whatever becomes of who sent it.
func (e *exchange) send() (*http.Response, error) {
	r := e.request.Clone(context.WithoutCancel(e.request.Context()))
	r.Body = io.NopCloser(bytes.NewReader(e.body))
	return e.rt.RoundTrip(r)
}

// simWire is between an agent and EC2.
type simWire struct {
	l  *simLife
	rt http.RoundTripper
}

func (w *simWire) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	e := &exchange{request: r, body: body, rt: w.rt}
	if e.form, err = url.ParseQuery(string(body)); err != nil {
		return nil, err
	}
	e.action = e.form.Get("Action")
	e.text = e.describe()
	switch w.l.s.park(&item{place: request, key: e.text, life: w.l, wire: e}) {
	case dead, gaveUp:
		return nil, context.Canceled
	case refused:
		return nil, fmt.Errorf("dial: %w", syscall.ECONNREFUSED)
	case broken:
		return nil, fmt.Errorf("%w: %w", errWire, syscall.ECONNRESET)
	}
	came := make(chan reply, 1)
	go func() {
		response, err := e.send()
		came <- reply{response, err}
	}()
	select {
	case got := <-came:
		e.response, e.err = got.response, got.err
	case <-r.Context().Done():
		e.err = r.Context().Err()
	}
	switch w.l.s.park(&item{place: answer, key: e.text, life: w.l, wire: e}) {
	case dead:
		return nil, context.Canceled
	case broken:
		return nil, fmt.Errorf("%w: %w", errWire, syscall.ECONNRESET)
	}
	return e.response, e.err
}

type reply struct {
	response *http.Response
	err      error
}

// describe is the request without what is different each time.
func (e *exchange) describe() string {
	var b strings.Builder
	b.WriteString(e.action)
	for _, k := range slices.Sorted(maps.Keys(e.form)) {
		switch {
		case k == "Action", k == "Version", k == "ClientToken", k == "MaxResults", strings.HasPrefix(k, "Tag"), k == "Description", strings.HasPrefix(k, "SecurityGroup"):
		default:
			b.WriteString(" " + e.form.Get(k))
		}
	}
	return b.String()
}

// changes reports whether the request changes anything.
func (e *exchange) changes() bool { return !strings.HasPrefix(e.action, "Describe") }

// late has a request of a dead agent reach EC2 after all.
func (s *sim) late(e *exchange) {
	if !e.changes() {
		return
	}
	s.in(s.upTo(8*time.Second), func() {
		s.event("late request", e.text)
		s.checkRequest(e)
		go func() { _, _ = e.send() }()
		s.truth.disturbed = time.Now()
	})
}

// code is EC2's error code of an answer; empty: none.
func (e *exchange) code() string {
	if e.response == nil || e.response.StatusCode == http.StatusOK {
		return ""
	}
	body, err := io.ReadAll(e.response.Body)
	if err != nil {
		return ""
	}
	e.response.Body = io.NopCloser(bytes.NewReader(body))
	_, rest, _ := strings.Cut(string(body), "<Code>")
	code, _, _ := strings.Cut(rest, "</Code>")
	return code
}

// imdsConfig is a client of the node's metadata service; one of a life's executor
// stops before the list.
func (s *sim) imdsConfig(l *simLife) aws.Config {
	return aws.Config{HTTPClient: &http.Client{Transport: &simMetadata{s, l, handlerTransport{s.imds}}},
		Retryer: func() aws.Retryer { return aws.NopRetryer{} }}
}

type simMetadata struct {
	s  *sim
	l  *simLife
	rt http.RoundTripper
}

func (m *simMetadata) RoundTrip(r *http.Request) (*http.Response, error) {
	if m.l != nil && strings.HasSuffix(r.URL.Path, "/macs/") {
		if m.s.park(&item{place: metadata, key: "imds", life: m.l}) == dead {
			return nil, context.Canceled
		}
	}
	if m.s.world.noMetadata {
		return nil, errors.New("no route to the metadata service")
	}
	return m.rt.RoundTrip(r)
}

// labMetadata is what the service says: of a while ago, or frozen.
func (s *sim) labMetadata() (labimds.Metadata, bool) {
	if !s.world.frozenUntil.After(time.Now()) {
		if at := time.Now(); s.said.at != at || s.said.version != s.truth.version {
			s.r.imdsLag = s.world.imdsLag
			m, _ := s.r.metadata()
			s.said.m, s.said.at, s.said.version = m, at, s.truth.version
			s.truth.metadataAt = at.Add(-s.world.imdsLag)
		}
	}
	return s.said.m, true
}

// metadataSaid is the service's last word.
type metadataSaid struct {
	m       labimds.Metadata
	at      time.Time
	version int
}

// devices is the kernel of the node.
func (s *sim) devices(managed, _ []vpc.ENI) (map[string]bool, error) {
	t := s.look()
	ready := make(map[string]bool)
	for _, e := range managed {
		if a := t.enis[e.ID].Attachment; a != nil && a.InstanceID == s.r.instance && !a.DeviceAt.After(time.Now()) {
			ready[e.ID] = true
		}
		if s.spoil.devices != nil {
			s.spoil.devices(ready, e.ID)
		}
	}
	return ready, nil
}
