package metrics

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Pool is how things are at the moment of a scrape.
type Pool struct {
	ENIs    int // that give pods addresses
	MaxENIs int // that could, by the instance type, the user's limit and ENIs of others

	Addresses    map[string]int // by state
	Total        int            // that the node's ENIs have for pods
	Assigned     int
	MaxAddresses int            // that the ENIs could have, as many as MaxENIs
	Prefixes     int            // /28s
	AssignedOf   map[string]int // by ENI

	Pods       int // that have an address
	Lost       int // of these, those whose address no ENI has
	Waiting    int // ADDs
	OldestWait time.Duration

	Growing, Shrinking int // changes under way, towards more and less
	Blocked            int // what EC2 refused and is left alone for now
	Offline            bool
	Behind             bool           // the kernel lacks something
	Proved             int            // classes of ways that were looked at
	Broken, Unproven   int            // of these
	SubnetFree         map[string]int // free addresses by subnet ID
}

// patience is how long a scrape waits for the answer. Prometheus itself gives a
// scrape ten seconds.
const patience = 2 * time.Second

// gauges asks for the pool at each scrape.
type gauges struct {
	ask func(context.Context) (Pool, error)
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

var (
	loopUp = desc("fairway_node_loop_up", "Whether the node loop answered this scrape; 0: it is busy or stuck, and the pool's gauges are missing.")

	eniAllocated = desc("awscni_eni_allocated", "ENIs that give pods addresses.")
	eniMax       = desc("awscni_eni_max", "Most ENIs that could, those of others counted off.")
	ipMax        = desc("awscni_ip_max", "Most addresses for pods that these could have.")
	totalIPs     = desc("awscni_total_ip_addresses", "Addresses for pods that the ENIs have.")
	assignedIPs  = desc("awscni_assigned_ip_addresses", "Addresses that pods have.")
	perENI       = desc("awscni_assigned_ip_per_eni", "Addresses that pods have, by ENI.", "eni")
	prefixes     = desc("awscni_total_ipv4_prefixes", "Prefixes (/28) that the ENIs have.")
	inProgress   = desc("awscni_ipamd_action_inprogress", "Changes asked of EC2 that are under way.", "fn")

	addresses    = desc("fairway_addresses", "Addresses of the node, by state. Those of orphaned are on none of its ENIs any more.", "state")
	pods         = desc("fairway_pods", "Pod interfaces that have an address.")
	lost         = desc("fairway_pods_lost", "Of these, those whose address is on none of the node's ENIs: they have no network until they are replaced.")
	waiting      = desc("fairway_waiting_pods", "ADD calls that wait for an address.")
	oldestWait   = desc("fairway_waiting_oldest_seconds", "How long the first of them has waited.")
	blocked      = desc("fairway_ec2_refusals", "Things that EC2 refused or throttled, and that are left alone for now.")
	offline      = desc("fairway_ec2_unreachable", "Whether EC2 has not answered lately.")
	behind       = desc("fairway_kernel_behind", "Whether the kernel may lack something, as the last attempt to write it failed.")
	pathClasses  = desc("fairway_path_classes", "Classes of pods' ways that the last proof looked at: an ENI, a destination, a direction.")
	pathBroken   = desc("fairway_path_asymmetric", "Classes of ways whose packets or replies are lost or pass another ENI.")
	pathUnproven = desc("fairway_path_unproven", "Classes of ways that cannot be computed.")

	subnetFree = desc("fairway_subnet_free_addresses", "Free addresses of a subnet, as EC2 last counted them.", "subnet")
)

// Describe says nothing of the gauges: which there are is known at the scrape.
func (g gauges) Describe(ch chan<- *prometheus.Desc) { ch <- loopUp }

func (g gauges) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	p, err := g.ask(ctx)
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(loopUp, truth(err == nil))
	if err != nil {
		return
	}
	gauge(eniAllocated, float64(p.ENIs))
	gauge(eniMax, float64(p.MaxENIs))
	gauge(ipMax, float64(p.MaxAddresses))
	gauge(totalIPs, float64(p.Total))
	gauge(assignedIPs, float64(p.Assigned))
	gauge(prefixes, float64(p.Prefixes))
	gauge(inProgress, float64(p.Growing), "increaseIPPool")
	gauge(inProgress, float64(p.Shrinking), "decreaseIPPool")
	for eni, n := range p.AssignedOf {
		gauge(perENI, float64(n), eni)
	}
	for state, n := range p.Addresses {
		gauge(addresses, float64(n), state)
	}
	gauge(pods, float64(p.Pods))
	gauge(lost, float64(p.Lost))
	gauge(waiting, float64(p.Waiting))
	gauge(oldestWait, p.OldestWait.Seconds())
	gauge(blocked, float64(p.Blocked))
	gauge(offline, truth(p.Offline))
	gauge(behind, truth(p.Behind))
	gauge(pathClasses, float64(p.Proved))
	gauge(pathBroken, float64(p.Broken))
	gauge(pathUnproven, float64(p.Unproven))
	for subnet, n := range p.SubnetFree {
		gauge(subnetFree, float64(n), subnet)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
