package control

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/portcullis-netpol/portcullis/testcases/bench/report"
)

// lists tells what the watches of one node take from the API server: computed from the
// serialized size of objects, and as the API server has counted.
func (t *tables) lists() {
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
	t.listNotes(&table)
	t.give(table)
}

// listNotes tells what is watched, and what events cost.
func (t *tables) listNotes(table *report.Table) {
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

// loadTable is the name of the table of the load on the API server.
const loadTable = "control-load"

// load tells what an agent was sent, and what follows from it for the size of the goals.
func (t *tables) load() {
	r := t.loaded
	table := report.Table{Name: loadTable, Title: "What a node reads from the API server until it is in step", Unit: "MB", XName: "objects", Better: report.Lower}
	counted, computed := fmt.Sprintf("counted, %d pods", r.Size.Pods), fmt.Sprintf("computed, %d pods, %d policies", goalPods, goalPolicies)
	goal := newCluster(Size{Pods: goalPods, Policies: goalPolicies})
	number := map[resource]int{pods: goal.Pods, namespaces: goal.namespaces, policies: goal.Policies}
	all, sum := volume{}, 0.0
	for i, kind := range []resource{pods, namespaces, policies} {
		v := r.Listed[kind]
		each := float64(v.Bytes) / float64(max(1, v.Objects))
		table.Record(counted, float64(i), string(kind), float64(v.Bytes)/megabyte)
		table.Record(computed, float64(i), string(kind), each*float64(number[kind])/megabyte)
		table.Notes = append(table.Notes, fmt.Sprintf("%s: %d counted, %.0f bytes each in protobuf", kind, v.Objects, each))
		all = volume{all.Objects + v.Objects, all.Bytes + v.Bytes}
		sum += each * float64(number[kind])
	}
	table.Record(counted, 3, "all", float64(all.Bytes)/megabyte)
	table.Record(computed, 3, "all", sum/megabyte)
	table.Notes = append(table.Notes,
		fmt.Sprintf("an ordinary pod has %d bytes in JSON, %d in protobuf; with HTTP the agent has read %.3f times what was counted", r.JSON, r.Protobuf, float64(r.Received)/float64(all.Bytes)),
		fmt.Sprintf("%d more pods (%d for each 100 have ended, %d are in their node's network) were not sent", r.Withheld, endedShare, hostShare),
		fmt.Sprintf("computed for %d nodes: %.0f GB when all start at once", nodes+1, sum*(nodes+1)/1e9))
	for _, l := range r.Lives {
		rate := float64(livesPerSecond * l.Sent.Bytes)
		table.Notes = append(table.Notes, fmt.Sprintf("life of a %s: %d events, %d bytes; sent to a node: %d events, %d bytes; with %d such lives a second %.1f MB/s a node, %.1f GB/s for %d nodes",
			l.Name, l.All.Objects, l.All.Bytes, l.Sent.Objects, l.Sent.Bytes, livesPerSecond, rate/megabyte, rate*(nodes+1)/1e9, nodes+1))
	}
	t.checkLoad(&table, sum/megabyte)
	t.give(table)
}

// livesPerSecond is how many pods of a large cluster come and go.
const livesPerSecond = 100

// checkLoad compares what was computed, in megabytes, with what an agent was sent at that
// size, if there was one.
func (t *tables) checkLoad(table *report.Table, computed float64) {
	for s, m := range t.agents {
		if !s.hasGoals() {
			continue
		}
		counted := 0.0
		for _, kind := range []resource{pods, namespaces, policies} {
			counted += float64(m.Listed[kind].Bytes) / megabyte
		}
		table.AtMost(fmt.Sprintf("%s: difference of what was computed and what was counted there, as a share", s), math.Abs(computed/counted-1), 0.02)
	}
}
