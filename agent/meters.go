package agent

import (
	"net/http"
	"regexp"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/utils/clock"

	"github.com/portcullis-netpol/portcullis/agent/admin"
	"github.com/portcullis-netpol/portcullis/policy"
)

// The kinds of writes to the kernel, as the label "operation" names them.
const (
	opTakeover = "takeover" // the whole table, beside the one in force
	opApply    = "apply"    // what has changed
	opRepair   = "repair"   // what is not as it should be, after reading the table
	opTidy     = "tidy"     // the remains of earlier changes
)

// meters are what the agent counts and measures, for Prometheus. There are no labels
// by pod, address or policy: their number would grow with the cluster. That of the
// namespaces of denied packets is bounded by the node's pods.
//
// All methods of the nil *meters do nothing.
type meters struct {
	clock    clock.PassiveClock
	registry *prometheus.Registry

	sync     prometheus.Histogram
	commits  *prometheus.HistogramVec // by operation
	failures *prometheus.CounterVec   // by operation
	events   *prometheus.CounterVec   // by kind
	repairs  *prometheus.CounterVec   // by what
	ended    prometheus.Counter
	problems *prometheus.GaugeVec   // by field
	logged   *prometheus.CounterVec // by reason
	lost     prometheus.Counter

	pods, quarantined, addresses prometheus.Gauge

	// since is when the oldest event came that the loop has taken and the kernel
	// does not hold yet, in nanoseconds since 1970; 0 if there is none.
	since atomic.Int64
}

// latencies are buckets for what takes from microseconds to, for the first write in a
// large cluster, seconds.
var latencies = prometheus.ExponentialBuckets(0.0001, 2.5, 14)

// newMeters makes meters of an agent of a version, whose queue and health they look at.
func newMeters(c clock.PassiveClock, version string, q *queue, h *health) *meters {
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Name: "portcullis_" + name, Help: help}
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts(opts(name, help)))
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts(opts(name, help)), labels)
	}
	m := &meters{
		clock: c, registry: prometheus.NewRegistry(),
		sync: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "portcullis_sync_duration_seconds", Buckets: latencies,
			Help: "Time from the arrival of an object's change to the moment when the kernel holds what follows from it; the oldest of those that were written together."}),
		commits: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "portcullis_commit_duration_seconds", Buckets: latencies,
			Help: "Time that a successful write to the kernel took."}, []string{"operation"}),
		failures:    counters("commit_failures_total", "Writes to the kernel that have failed; each is tried again.", "operation"),
		events:      counters("events_total", "Changes of objects that were taken in; several of one object in short time count once.", "kind"),
		repairs:     counters("repairs_total", "How often the rules were put in force again after another program had changed or removed them.", "what"),
		ended:       prometheus.NewCounter(prometheus.CounterOpts(opts("connections_ended_total", "Connections that were cut because they are no longer allowed."))),
		problems:    prometheus.NewGaugeVec(prometheus.GaugeOpts(opts("policy_problems", "Parts of NetworkPolicies that cannot be enforced as written and therefore allow nothing, by field.")), []string{"field"}),
		logged:      counters("logged_packets_total", "Denied packets that the kernel told of; it tells of a bounded number in a second.", "reason"),
		lost:        prometheus.NewCounter(prometheus.CounterOpts(opts("log_lost_packets_total", "Packets that the kernel told of and nobody was told of: there were too many."))),
		pods:        gauge("pods", "Pods of this node that are subject to NetworkPolicies."),
		quarantined: gauge("quarantined_pods", "Pods of this node without an address that is in force: what they send and what is sent to them is dropped, if the quarantine is on and has their address."),
		addresses:   gauge("pod_addresses", "Addresses of this node's pods that are in force."),
	}
	for _, op := range []string{opTakeover, opApply, opRepair, opTidy} {
		m.commits.WithLabelValues(op)
		m.failures.WithLabelValues(op)
	}
	for _, k := range []kind{podKind, namespaceKind, policyKind, nodeKind} {
		m.events.WithLabelValues(k.String())
	}
	m.repairs.WithLabelValues(ofTable)
	m.repairs.WithLabelValues(ofInterfaces)
	for _, r := range []admin.Reason{admin.ReasonPolicy, admin.ReasonAudit, admin.ReasonQuarantine, admin.ReasonCut} {
		m.logged.WithLabelValues(string(r))
	}
	m.registry.MustRegister(m.sync, m.commits, m.failures, m.events, m.repairs, m.ended, m.problems, m.logged, m.lost, m.pods, m.quarantined, m.addresses,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts(opts("queue_age_seconds", "How long the oldest change has been waiting that the kernel does not hold yet; 0 if there is none.")),
			func() float64 { return m.age(q).Seconds() }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts(opts("ready", "1 if /readyz says ok.")), func() float64 { return yes(len(h.obstacles()) == 0) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts(opts("healthy", "1 if /healthz says ok.")), func() float64 { return yes(len(h.sicknesses()) == 0) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "portcullis_build_info", Help: "1, with the version.", ConstLabels: prometheus.Labels{"version": version}}, func() float64 { return 1 }),
		obstacles{h})
	return m
}

// What repairs were about, as the label "what" names them.
const (
	ofTable      = "table"
	ofInterfaces = "interfaces"
)

func yes(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// handler serves /metrics.
func (m *meters) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 3, Timeout: 4 * time.Second}))
	return mux
}

// took notes events that the loop takes, the oldest of which came at since.
func (m *meters) took(events []event, since time.Time) {
	if m == nil || len(events) == 0 {
		return
	}
	for _, e := range events {
		m.events.WithLabelValues(e.key.kind.String()).Inc()
	}
	m.since.CompareAndSwap(0, since.UnixNano())
}

// committed notes a write that began at a time, and how it ended.
func (m *meters) committed(operation string, began time.Time, err error) {
	if m == nil {
		return
	}
	if err != nil {
		m.failures.WithLabelValues(operation).Inc()
		return
	}
	m.commits.WithLabelValues(operation).Observe(m.clock.Since(began).Seconds())
}

// synced notes that the kernel holds everything that the loop has taken.
func (m *meters) synced() {
	if m == nil {
		return
	}
	if at := m.since.Swap(0); at != 0 {
		m.sync.Observe(m.clock.Since(time.Unix(0, at)).Seconds())
	}
}

// age says how long the oldest change has been waiting that the kernel does not hold.
func (m *meters) age(q *queue) time.Duration {
	oldest := q.oldest()
	if at := m.since.Load(); at != 0 {
		oldest = time.Unix(0, at)
	}
	if oldest.IsZero() {
		return 0
	}
	return m.clock.Since(oldest)
}

// repaired notes that something of what others did was undone.
func (m *meters) repaired(what string) {
	if m != nil {
		m.repairs.WithLabelValues(what).Inc()
	}
}

// endedConnections notes connections that were cut.
func (m *meters) endedConnections(n int) {
	if m != nil {
		m.ended.Add(float64(n))
	}
}

// loggedPacket notes a packet that the kernel told of.
func (m *meters) loggedPacket(r admin.Reason) {
	if m != nil {
		m.logged.WithLabelValues(string(r)).Inc()
	}
}

// lostPackets notes packets that nobody will be told of.
func (m *meters) lostPackets(n uint64) {
	if m != nil {
		m.lost.Add(float64(n))
	}
}

// localPods says how many pods this node has, how many of them have an address that is
// in force, and how many such addresses there are.
func (m *meters) localPods(pods, known, addresses int) {
	if m == nil {
		return
	}
	m.pods.Set(float64(pods))
	m.quarantined.Set(float64(pods - known))
	m.addresses.Set(float64(addresses))
}

// brackets are what differs between two paths to the same field: indices, and the keys
// of labels, which are anybody's.
var brackets = regexp.MustCompile(`\[[^]]*]`)

// policyProblems takes a policy's problems in the place of those it had.
func (m *meters) policyProblems(old, now []policy.Problem) {
	if m == nil {
		return
	}
	for _, p := range old {
		m.problems.WithLabelValues(brackets.ReplaceAllString(p.Field, "[]")).Dec()
	}
	for _, p := range now {
		m.problems.WithLabelValues(brackets.ReplaceAllString(p.Field, "[]")).Inc()
	}
}

// obstacles tells what health is about, by topic.
type obstacles struct{ *health }

var obstacleDesc = prometheus.NewDesc("portcullis_obstacle", "1 for each reason why the agent is not ready, or (severity unhealthy) not healthy.", []string{"topic", "severity"}, nil)

// Describe tells Prometheus what there is.
func (o obstacles) Describe(ch chan<- *prometheus.Desc) { ch <- obstacleDesc }

// Collect tells what there is now.
func (o obstacles) Collect(ch chan<- prometheus.Metric) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for severity, topics := range map[string]map[string]string{"unready": o.unready, "unhealthy": o.sick} {
		for topic := range topics {
			ch <- prometheus.MustNewConstMetric(obstacleDesc, prometheus.GaugeValue, 1, topic, severity)
		}
	}
}
