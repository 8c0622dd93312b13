package control

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/portcullis-netpol/portcullis/testcases/bench/report"
)

// parts of a churn whose delays are shown apart, so that a queue that grows is seen.
const churnParts = 10

// churn tells what pods that come and go cost.
func (t *tables) churn() {
	for _, a := range t.plan.agents {
		r := t.agents[a.Size]
		if r == nil || r.Churn == nil {
			continue
		}
		c := r.Churn
		table := report.Table{Name: "control-churn", Title: fmt.Sprintf("Churn of %d pod events a second: API server to kernel commit, %s", a.Rate, a.Size), Unit: "ms", XName: "tenth of the time", Better: report.Lower}
		for i, d := range c.Delays {
			table.Record("delay", float64(i*churnParts/len(c.Delays)), "", d)
		}
		table.Notes = []string{
			fmt.Sprintf("%d events in %.1f s (%.0f a second): median %.1f ms, 99th percentile %.1f ms, longest %.1f ms", c.Events, c.Took.Seconds(), float64(c.Events)/c.Took.Seconds(), report.Quantile(c.Delays, 0.5), report.Quantile(c.Delays, 0.99), report.Quantile(c.Delays, 1)),
			fmt.Sprintf("at most %d events at once were not in the kernel yet; %d were superseded before the agent looked", c.Backlog, c.Coalesced),
			fmt.Sprintf("the agent took %.1f %% of one processor; %.0f bytes an event from the API server; %d messages in %d batches to the kernel, %d grace periods", 100*c.CPU, c.Bytes, c.Sent.Messages, c.Sent.Batches, c.Sent.Graces),
			fmt.Sprintf("%d packets sent meanwhile, %d met a wrong verdict", c.Packets, c.Wrong),
		}
		table.AtMost("packets that met a wrong verdict", float64(c.Wrong), 0)
		if n := len(c.Delays); n >= 2*churnParts {
			early, late := report.Quantile(c.Delays[:n/2], 0.5), report.Quantile(c.Delays[n/2:], 0.5)
			table.AtMost("no growing queue: median delay of the second half / of the first", late/early, 1.5)
		}
		t.give(table)
	}
}

// load tells what the watches of one node take from the API server: computed from the
// serialized size of objects, and as the API server has counted.
func (t *tables) load() {
	table := report.Table{Name: "control-api", Title: "What one node's watches take from the API server until they are in step", Unit: "MB", XName: "pods",
		Notes: []string{"computed: the size of an object of each kind in protobuf, times their number; counted: what the API server has sent"}}
	sizes := []Size{{Pods: goalPods, Policies: goalPolicies}}
	for _, a := range t.plan.agents {
		sizes = append(sizes, a.Size)
	}
	for _, s := range sizes {
		c := newCluster(s)
		sum, counted := 0.0, 0.0
		for _, r := range []resource{pods, namespaces, policies} {
			v := c.computed(r)
			sum += float64(v.Bytes)
			if s.Local == 0 { // the size of the goals
				table.Notes = append(table.Notes, fmt.Sprintf("computed for 1,000 nodes, %d pods, %d policies: %d %s, %d bytes each, %.1f MB a node, %.1f GB for all nodes",
					s.Pods, s.Policies, v.Objects, r, v.Bytes/max(1, v.Objects), float64(v.Bytes)/megabyte, float64(v.Bytes)*(nodes+1)/1e9))
			}
		}
		if m := t.agents[s]; m != nil {
			for _, v := range m.Listed {
				counted += float64(v.Bytes)
			}
			table.Record("counted, "+s.series(), float64(s.Pods), "", counted/megabyte)
			table.Notes = append(table.Notes, fmt.Sprintf("%s: counted/computed = %.3f", s, counted/sum))
		}
		table.Record("computed, "+s.series(), float64(s.Pods), "", sum/megabyte)
	}
	t.loadNotes(&table)
	t.give(table)
}

// loadNotes tells what is watched, and what events cost.
func (t *tables) loadNotes(table *report.Table) {
	watched := map[string]bool{}
	for _, a := range t.plan.agents {
		r := t.agents[a.Size]
		if r == nil {
			continue
		}
		for kind, selector := range r.Selectors {
			if selector == "" {
				selector = "all"
			}
			watched[fmt.Sprintf("%s: %s", kind, selector)] = true
		}
		if c := r.Churn; c != nil {
			table.Notes = append(table.Notes, fmt.Sprintf("%d pod events a second of %.0f bytes: %.1f MB/s a node, %.2f GB/s for 1,000 nodes",
				a.Rate, c.Bytes, c.Bytes*float64(a.Rate)/megabyte, c.Bytes*float64(a.Rate)*(nodes+1)/1e9))
		}
	}
	table.Notes = append(table.Notes, "watched: "+strings.Join(slices.Sorted(maps.Keys(watched)), ", "))
}

// samples is how many objects of a kind computed looks at.
const samples = 100

// computed returns what the objects of a kind are in sum, from the serialized sizes of
// some of them.
func (c *cluster) computed(r resource) (v volume) {
	at := func(i int) any { return c.pod(i) }
	switch r {
	case pods:
		v.Objects = int64(c.Pods + c.Local)
		if c.Pods == 0 {
			at = func(i int) any { return c.localPod(i) }
		}
	case namespaces:
		v.Objects = int64(c.namespaces)
		at = func(i int) any { return c.namespace(i) }
	case policies:
		v.Objects = int64(c.Policies)
		at = func(i int) any { return c.policy(i) }
	}
	n := max(1, v.Objects/samples)
	taken := int64(0)
	limit := v.Objects
	if r == pods && c.Pods > 0 {
		limit = int64(c.Pods)
	}
	for i := int64(0); i < limit; i += n {
		v.Bytes += int64(serialized(dress(at(int(i))))) + eventOverhead
		taken++
	}
	if taken > 0 {
		v.Bytes = v.Bytes * v.Objects / taken
	}
	return v
}

// eventOverhead is what a watch puts around an object: a length, the type of the event,
// and the envelope with the object's kind.
const eventOverhead = 40

func serialized(o runtime.Object) int {
	switch o := o.(type) {
	case *corev1.Pod:
		return o.Size()
	case *corev1.Namespace:
		return o.Size()
	case *networkingv1.NetworkPolicy:
		return o.Size()
	}
	return 0
}
