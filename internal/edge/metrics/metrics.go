// Package metrics counts what the agent does, and serves it to Prometheus.
//
//	CNI calls, EC2 requests,   methods    +---------+
//	changes, repairs  ------------------> | Metrics | --- counters ---+
//	                                      +---------+                 v
//	the node loop  <--- "how is the pool?", once a scrape --- Handler, on /metrics
//
// What happens is counted when it happens, by a method of [Metrics]. What is, such
// as how many addresses are free, is asked for by each scrape, with a limit: a node
// loop that is stuck costs the scrape its gauges, and fairway_node_loop_up says so.
//
// Names that begin with awscni_ are those of the AWS VPC CNI, with its meaning, for
// the dashboards that people have; all others begin with fairway_. The number of
// series is bounded by the code, but for those of EC2's error codes, which are
// bounded by a number, and those of a node's ENIs and subnets, which come and go
// with them. No pod, container or address is a label.
//
// A Metrics is safe for concurrent use. A nil one counts nothing. There are no
// globals: each has its own registry.
package metrics

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Result of a CNI call.
type Result string

const (
	OK         Result = "ok"
	NoAddress  Result = "no_address" // CNI error 100: none, and nothing to wait for
	TryAgain   Result = "try_again"  // 11: waited too long, a device that is missing, the agent ends
	Unknown    Result = "unknown"    // 3: a CHECK of what the node does not have
	NameTaken  Result = "name_taken" // 101
	BadRequest Result = "bad_request"
	Failed     Result = "failed" // 999 and all others
)

// Request is one request to EC2 that is over.
type Request struct {
	Action  string        // of the API, such as "AttachNetworkInterface"
	Result  string        // "ok", "throttled", "unauthorized", ...: a word of the agent's
	Code    string        // EC2's error code; empty if there was none
	Latency time.Duration // without signing
}

// Metrics is the agent's counters.
type Metrics struct {
	calls     *prometheus.HistogramVec
	requests  *prometheus.CounterVec
	changes   *prometheus.CounterVec
	reads     *prometheus.CounterVec
	repairs   prometheus.Counter
	unmended  prometheus.Counter
	orphans   *prometheus.CounterVec
	leaked    prometheus.Counter
	addCalls  prometheus.Counter
	delCalls  *prometheus.CounterVec
	noAddress prometheus.Counter
	apiCalls  *prometheus.CounterVec
	apiErrors *prometheus.CounterVec
	awsErrors *prometheus.CounterVec
	latency   *prometheus.SummaryVec
	reconcile *prometheus.CounterVec
	cluster   *prometheus.CounterVec

	codes codes
}

// callBuckets are seconds. An ADD with an address at hand takes some milliseconds;
// one that waits for an ENI takes some seconds, and 60 at most.
var callBuckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20, 45, 60}

// New makes counters that are all zero.
func New() *Metrics {
	m := &Metrics{
		calls: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "fairway_cni_duration_seconds", Buckets: callBuckets,
			Help: "Time that the agent took for a CNI call, the wait for an address included."}, []string{"command", "result"}),
		requests:  counters("fairway_ec2_requests_total", "Requests made to EC2.", "action", "result"),
		changes:   counters("fairway_ec2_changes_total", "Changes that the planner asked of EC2, by what came of them.", "kind", "result"),
		reads:     counters("fairway_reads_total", "Complete readings of what the node has or may use.", "what", "result"),
		repairs:   counter("fairway_kernel_repairs_total", "Times that the kernel differed from what it should hold, and was mended."),
		unmended:  counter("fairway_kernel_repair_failures_total", "Times that the kernel could not be compared or mended."),
		orphans:   counters("fairway_orphans_released_total", "Addresses released without a DEL.", "reason"),
		leaked:    counter("fairway_leaked_enis_deleted_total", "ENIs deleted that other nodes of the cluster had left."),
		addCalls:  counter("awscni_add_ip_req_count", "ADD calls."),
		delCalls:  counters("awscni_del_ip_req_count", "DEL calls.", "reason"),
		noAddress: counter("awscni_no_available_ip_addresses", "ADD calls that failed for want of an address."),
		apiCalls:  counters("awscni_ec2api_req_count", "Requests made to EC2.", "fn"),
		apiErrors: counters("awscni_ec2api_error_count", "Requests to EC2 that failed.", "fn"),
		awsErrors: counters("awscni_aws_api_error_count", "Requests to EC2 that EC2 refused, by its error code.", "api", "error"),
		latency: prometheus.NewSummaryVec(prometheus.SummaryOpts{Name: "awscni_aws_api_latency_ms",
			Help: "Time that requests to EC2 took, in milliseconds."}, []string{"api", "error", "status"}),
		reconcile: counters("awscni_reconcile_count", "Times that the pool was compared with what EC2 or instance metadata say.", "fn"),
		cluster:   counters("fairway_cluster_requests_total", "Requests made to the Kubernetes API server; a watch is counted when it begins.", "verb", "what", "result"),
		codes:     codes{known: make(map[string]bool)},
	}
	// Those that dashboards compute with are there from the first scrape on.
	m.delCalls.WithLabelValues(podDeleted)
	m.reconcile.WithLabelValues(poolReconcile)
	m.calls.WithLabelValues(add, string(OK))
	m.calls.WithLabelValues(del, string(OK))
	return m
}

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

func (m *Metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.calls, m.requests, m.changes, m.reads, m.repairs, m.unmended, m.orphans, m.leaked,
		m.addCalls, m.delCalls, m.noAddress, m.apiCalls, m.apiErrors, m.awsErrors, m.latency, m.reconcile, m.cluster}
}

// The CNI commands that are counted apart; one that is not known is "other".
const (
	add   = "ADD"
	del   = "DEL"
	other = "other"
)

// What dashboards for the VPC CNI look for.
const (
	podDeleted    = "PodDeleted"
	poolReconcile = "nodeIPPoolReconcile"
)

// Call counts a CNI call that took d. Of a DEL the reason is always that the pod is
// deleted: what an ADD undoes itself is no call.
func (m *Metrics) Call(command string, r Result, d time.Duration) {
	if m == nil {
		return
	}
	switch command {
	case add:
		m.addCalls.Inc()
	case del:
		m.delCalls.WithLabelValues(podDeleted).Inc()
	case "CHECK", "GC", "STATUS":
	default:
		command = other
	}
	m.calls.WithLabelValues(command, string(r)).Observe(d.Seconds())
}

// Exhausted counts an ADD that failed for want of an address, whether it waited
// for one or not.
func (m *Metrics) Exhausted() {
	if m != nil {
		m.noAddress.Inc()
	}
}

// Request counts a request to EC2.
func (m *Metrics) Request(r Request) {
	if m == nil {
		return
	}
	m.requests.WithLabelValues(r.Action, r.Result).Inc()
	m.apiCalls.WithLabelValues(r.Action).Inc()
	failed, status := "false", "200"
	if r.Result != string(OK) {
		failed, status = "true", "" // not known here
		m.apiErrors.WithLabelValues(r.Action).Inc()
	}
	if r.Code != "" {
		m.awsErrors.WithLabelValues(r.Action, m.codes.label(r.Code)).Inc()
	}
	m.latency.WithLabelValues(r.Action, failed, status).Observe(float64(r.Latency) / float64(time.Millisecond))
}

// Change counts a change that was asked of EC2. The kinds are the planner's, such
// as "attach eni".
func (m *Metrics) Change(kind, result string) {
	if m != nil {
		m.changes.WithLabelValues(kind, result).Inc()
	}
}

// Read counts a reading, such as "subnets".
func (m *Metrics) Read(what string, ok bool) {
	if m == nil {
		return
	}
	result := string(OK)
	if !ok {
		result = string(Failed)
	}
	m.reads.WithLabelValues(what, result).Inc()
}

// ClusterRequest counts a request to the API server: list, watch, patch or create, of
// one of the kinds that the agent knows.
func (m *Metrics) ClusterRequest(verb, what string, ok bool) {
	if m == nil {
		return
	}
	result := string(OK)
	if !ok {
		result = string(Failed)
	}
	m.cluster.WithLabelValues(verb, what, result).Inc()
}

// Reconciled counts a comparison of the pool with what EC2 or IMDS say.
func (m *Metrics) Reconciled() {
	if m != nil {
		m.reconcile.WithLabelValues(poolReconcile).Inc()
	}
}

// Repaired counts a comparison that found and mended changes.
func (m *Metrics) Repaired() {
	if m != nil {
		m.repairs.Inc()
	}
}

// Unmended counts a comparison or a repair that failed.
func (m *Metrics) Unmended() {
	if m != nil {
		m.unmended.Inc()
	}
}

// Orphan counts an address that was released without a DEL. The reason is a word
// of the agent's.
func (m *Metrics) Orphan(reason string) {
	if m != nil {
		m.orphans.WithLabelValues(reason).Inc()
	}
}

// LeakedDeleted counts an ENI of another node that was deleted.
func (m *Metrics) LeakedDeleted() {
	if m != nil {
		m.leaked.Inc()
	}
}

// codes bounds the label that EC2 writes.
type codes struct {
	mu    sync.Mutex
	known map[string]bool
}

const (
	// maxCodes is how many error codes get a label; EC2's list has some hundred,
	// of which the calls of a node can meet a few dozen.
	maxCodes = 64
	// maxCode is bytes; the longest of EC2's has about 60.
	maxCode = 80
)

// label is the code, or "other" for one that does not look like one, or comes
// after too many.
func (c *codes) label(code string) string {
	if len(code) > maxCode {
		return other
	}
	for _, r := range code {
		if r != '.' && r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') {
			return other
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.known[code] {
		if len(c.known) >= maxCodes {
			return other
		}
		c.known[code] = true
	}
	return code
}
