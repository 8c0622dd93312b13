package agent

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/utils/clock"

	"github.com/portcullis-netpol/portcullis/nft"
	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// counted is what the loop asks of nft.Enforcer about the table in force.
type counted interface {
	Table() string
	Takeovers() int
	Counters(context.Context) (nft.Counters, error)
	Size() (rules, sets, elements int)
}

const (
	// tallyFor is how long what was read is good enough.
	tallyFor = time.Second
	// tallyWithin is how long a reader waits for the loop. Without an answer it makes do
	// with what was read last.
	tallyWithin = time.Second
)

// tally counts denied packets beyond the life of tables and pods: the kernel's counters
// begin at 0 in each table and for each address that comes. What a table or an address
// has counted since the last time that anybody asked goes with it.
//
// Only what is asked for is read. It is safe for concurrent use.
type tally struct {
	visits visits
	clock  clock.PassiveClock

	mu     sync.Mutex
	at     time.Time // of the last reading
	totals totals
	last   readings
}

// totals are what was counted since the agent began, and what the table is made of.
type totals struct {
	denied               map[ir.Direction]map[string]uint64 // by the pod's namespace
	audited, quarantined [2]uint64
	cut                  uint64

	table                 string
	rules, sets, elements int
}

// readings are what the kernel's counters said last.
type readings struct {
	takeovers int
	counters  nft.Counters
	pods      map[netip.Addr]string
}

func newTally(v visits, c clock.PassiveClock) *tally {
	return &tally{visits: v, clock: c, totals: totals{denied: map[ir.Direction]map[string]uint64{ir.Ingress: {}, ir.Egress: {}}}}
}

// read returns what f makes of the totals, which it must not keep.
func (t *tally) read(ctx context.Context, f func(*totals)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	defer f(&t.totals)
	if !t.at.IsZero() && t.clock.Since(t.at) < tallyFor {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, tallyWithin)
	defer cancel()
	// A reading that fails leaves things as they are.
	_ = t.visits.do(ctx, func(l *loop) {
		t.at = t.clock.Now()
		table := l.counted
		if table == nil || !l.taken {
			return
		}
		t.totals.table = table.Table()
		t.totals.rules, t.totals.sets, t.totals.elements = table.Size()
		if c, err := table.Counters(ctx); err == nil {
			t.take(c, table.Takeovers(), l.local)
		}
	})
}

// take adds what was counted since the last reading. pods are this node's, by address.
func (t *tally) take(c nft.Counters, takeovers int, pods map[netip.Addr]string) {
	was := t.last
	if was.takeovers != takeovers {
		was = readings{}
	}
	now := readings{takeovers: takeovers, counters: c, pods: map[netip.Addr]string{}}
	for a, n := range c.Denied {
		pod := pods[a]
		if now.pods[a] = pod; pod == "" {
			continue
		}
		old := was.counters.Denied[a]
		if was.pods[a] != pod {
			old = [2]uint64{}
		}
		namespace, _, _ := strings.Cut(pod, "/")
		for d, by := range t.totals.denied {
			if more := since(n[d], old[d]); more > 0 {
				by[namespace] += more
			}
		}
	}
	for d := range c.Audited {
		t.totals.audited[d] += since(c.Audited[d], was.counters.Audited[d])
		t.totals.quarantined[d] += since(c.Quarantined[d], was.counters.Quarantined[d])
	}
	t.totals.cut += since(c.Cut, was.counters.Cut)
	t.last = now
}

// since says how far a counter has come. One that is lower than it was is a new one.
func since(now, was uint64) uint64 {
	if now < was {
		return now
	}
	return now - was
}

// What a tally tells Prometheus.
var (
	deniedDesc      = tallyDesc("denied_packets_total", "Packets that no policy allows, of this node's pods that policies isolate, by the pod's namespace.", "direction", "namespace")
	auditedDesc     = tallyDesc("audited_packets_total", "Packets that policies in audit mode would deny.", "direction")
	quarantinedDesc = tallyDesc("quarantined_packets_total", "Packets that were dropped because no pod is known to have the address of this node's.", "direction")
	cutDesc         = tallyDesc("cut_packets_total", "Packets of connections that were cut a moment ago.")
	rulesDesc       = tallyDesc("table_rules", "Rules of the table in force.")
	setsDesc        = tallyDesc("table_sets", "Sets and maps of the table in force.")
	elementsDesc    = tallyDesc("table_elements", "Elements of the sets and maps of the table in force.")
)

func tallyDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("portcullis_"+name, help, labels, nil)
}

// Describe tells Prometheus what there is.
func (t *tally) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{deniedDesc, auditedDesc, quarantinedDesc, cutDesc, rulesDesc, setsDesc, elementsDesc} {
		ch <- d
	}
}

// Collect tells what there is now.
func (t *tally) Collect(ch chan<- prometheus.Metric) {
	count := func(d *prometheus.Desc, n uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	gauge := func(d *prometheus.Desc, n int) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n))
	}
	t.read(context.Background(), func(n *totals) {
		for d, by := range n.denied {
			for namespace, packets := range by {
				count(deniedDesc, packets, d.String(), namespace)
			}
		}
		for _, d := range []ir.Direction{ir.Ingress, ir.Egress} {
			count(auditedDesc, n.audited[d], d.String())
			count(quarantinedDesc, n.quarantined[d], d.String())
		}
		count(cutDesc, n.cut)
		gauge(rulesDesc, n.rules)
		gauge(setsDesc, n.sets)
		gauge(elementsDesc, n.elements)
	})
}
