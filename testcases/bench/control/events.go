package control

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"runtime/pprof"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

// timing is what an event takes. Durations are in milliseconds, one a sample.
type timing struct {
	Name string `json:"name"`
	// Class says which goal is about the event: see the constants.
	Class string `json:"class"`
	// MS is the whole time; Compile that in the index, Sending that in the kernel,
	// Waiting that for packets on their way.
	MS      []float64 `json:"ms"`
	Compile []float64 `json:"compile"`
	Sending []float64 `json:"sending"`
	Waiting []float64 `json:"waiting"`
	// Sent is what the event sent that sent most messages; its Intervals is the most
	// that any sent, what it left to be tidied up included.
	Sent traffic `json:"sent"`
	// Allocs and AllocBytes are what one event allocates on Go's heap.
	Allocs     float64 `json:"allocs"`
	AllocBytes float64 `json:"alloc_bytes"`
}

// Classes of events.
const (
	podClass       = "pod"
	policyClass    = "policy"
	wideClass      = "wide"
	namespaceClass = "namespace"
)

// half is one of two events that undo each other.
type half struct {
	name string
	set  func(*engine)
}

// pair is an event and the one that undoes it.
type pair struct {
	class  string
	halves [2]half
}

// home is the namespace where events happen: in every size with six local pods or
// more it has a policy of kind 5 in force for a local pod with app-0.
const home = firstLocal + 5

// pairs returns the events that are measured. Their objects are made once.
func (c *cluster) pairs() []pair {
	remote, relabelled, local := eventPods()
	out := []pair{
		{podClass, [2]half{
			{"remote pod added", func(e *engine) { e.index.SetPod(remote) }},
			{"remote pod deleted", func(e *engine) { e.index.DeletePod(remote.Namespace, remote.Name) }},
		}},
		{podClass, [2]half{
			{"remote pod relabelled into a set", func(e *engine) { e.index.SetPod(relabelled[1]) }},
			{"remote pod relabelled out of it", func(e *engine) { e.index.SetPod(relabelled[0]) }},
		}},
		{podClass, [2]half{
			{"local pod added", func(e *engine) { e.index.SetPod(local) }},
			{"local pod deleted", func(e *engine) { e.index.DeletePod(local.Namespace, local.Name) }},
		}},
		policyPair(policyClass, "policy", newPolicy(home, "event", ingress(*selector("app", "app-0"), numbered(8443), toApp("app-1")))),
		policyPair(policyClass, "policy for other nodes' pods", newPolicy(home, "event-elsewhere", ingress(*selector("app", "nobody"), numbered(8443), toApp("app-1")))),
	}
	if c.widePods() > 0 {
		wide := networkingv1.NetworkPolicyPeer{NamespaceSelector: selector("wide", "yes")}
		out = append(out, policyPair(wideClass, fmt.Sprintf("policy over %d pods", c.widePods()), newPolicy(home, "event-wide", ingress(*selector("app", "app-0"), numbered(9444), wide))))
	}
	if c.big > 0 {
		// The namespace of the policy of kind 3 that is in force in every size.
		out = append(out, c.namespacePair(teamOf(firstLocal+3)))
	}
	return append(out, c.more...)
}

func toApp(app string) networkingv1.NetworkPolicyPeer {
	return networkingv1.NetworkPolicyPeer{PodSelector: selector("app", app)}
}

func policyPair(class, name string, p *networkingv1.NetworkPolicy) pair {
	return pair{class, [2]half{
		{name + " created", func(e *engine) { e.index.SetNetworkPolicy(p) }},
		{name + " deleted", func(e *engine) { e.index.DeleteNetworkPolicy(p.Namespace, p.Name) }},
	}}
}

// namespacePair moves the big namespace to another team and back.
func (c *cluster) namespacePair(team string) pair {
	was := c.namespace(0)
	is := was.DeepCopy()
	is.Labels["team"] = team
	return pair{namespaceClass, [2]half{
		{fmt.Sprintf("namespace of %d pods relabelled into a set", c.big), func(e *engine) { e.index.SetNamespace(is) }},
		{fmt.Sprintf("namespace of %d pods relabelled out of it", c.big), func(e *engine) { e.index.SetNamespace(was) }},
	}}
}

// eventPods returns a pod of another node that comes and goes, one in two versions,
// and a local one. The second is in the index from then on.
func eventPods() (remote *corev1.Pod, relabelled [2]*corev1.Pod, local *corev1.Pod) {
	remote = newPod(home, "event-remote", 0, "node-1000", eventAddress4(1), eventAddress6(1))
	relabelled[0] = newPod(home, "event-relabelled", 0, "node-1000", eventAddress4(2), eventAddress6(2))
	relabelled[1] = relabelled[0].DeepCopy()
	relabelled[1].Labels = maps.Clone(relabelled[0].Labels)
	relabelled[0].Labels["tier"] = "cache"
	local = newPod(home, "event-local", 0, node, address4(1, 254), address6(1, 254))
	return remote, relabelled, local
}

// fewest events of each kind are measured however long they take.
const fewest = 5

// timeEvents measures the events of engines that have the same ones, in rounds: in each
// of them every pair that has some of its budget left has its turn, on every engine.
func timeEvents(ctx context.Context, engines []*engine, rounds int, budget time.Duration) ([][]timing, error) {
	pairs := make([][]pair, len(engines))
	timings := make([][]timing, len(engines))
	for k, e := range engines {
		pairs[k] = e.pairs()
		timings[k] = make([]timing, 2*len(pairs[k]))
	}
	spent := make([]time.Duration, len(pairs[0]))
	for round := -1; round < rounds; round++ { // the first is for warming up
		done := true
		for i := range pairs[0] {
			if round >= fewest && spent[i] > budget {
				continue
			}
			done = false
			begin := time.Now()
			for k := range engines {
				k = (k + round + 1) % len(engines) // nobody is always the first
				if err := engines[k].pair(ctx, pairs[k][i], timings[k][2*i:2*i+2], round >= 0); err != nil {
					return nil, err
				}
			}
			spent[i] += time.Since(begin)
		}
		if done {
			break
		}
	}
	for k, e := range engines {
		for i, p := range pairs[k] {
			if err := e.allocations(ctx, p, timings[k][2*i:2*i+2]); err != nil {
				return nil, err
			}
		}
	}
	return timings, nil
}

// pair makes both events of a pair happen.
func (e *engine) pair(ctx context.Context, p pair, timings []timing, keep bool) error {
	for h, half := range p.halves {
		timings[h].Name, timings[h].Class = half.name, p.class
		if err := e.event(ctx, half, &timings[h], keep); err != nil {
			return fmt.Errorf("%s: %w", half.name, err)
		}
	}
	return nil
}

// event makes one event happen and notes what it takes if keep is set.
func (e *engine) event(ctx context.Context, h half, t *timing, keep bool) (err error) {
	before := e.counter.now()
	var compiled, took time.Duration
	pprof.Do(ctx, pprof.Labels("event", h.name), func(ctx context.Context) {
		begin := time.Now()
		h.set(e)
		c := e.index.Flush()
		compiled = time.Since(begin)
		if !c.Empty() {
			err = e.enforcer.Apply(ctx, c)
		}
		took = time.Since(begin)
	})
	sent := e.counter.now().minus(before)
	if err == nil {
		err = e.enforcer.Tidy(ctx) // which an agent does later, and not after every event
	}
	intervals := max(t.Sent.Intervals, e.counter.now().minus(before).Intervals)
	if sent.Messages > t.Sent.Messages {
		t.Sent = sent
	}
	t.Sent.Intervals = intervals
	if keep {
		t.MS = append(t.MS, milliseconds(took))
		t.Compile = append(t.Compile, milliseconds(compiled))
		t.Sending = append(t.Sending, milliseconds(sent.Sending))
		t.Waiting = append(t.Waiting, milliseconds(sent.Waiting))
	}
	return err
}

// allocations counts what events allocate. Reading the counts stops the world, so
// it is not done while time is measured.
func (e *engine) allocations(ctx context.Context, p pair, timings []timing) error {
	const times = 3
	var before, after runtime.MemStats
	for range times {
		for h, half := range p.halves {
			t := &timings[h]
			runtime.ReadMemStats(&before)
			if err := e.event(ctx, half, t, false); err != nil {
				return fmt.Errorf("%s: %w", half.name, err)
			}
			runtime.ReadMemStats(&after)
			t.Allocs += float64(after.Mallocs-before.Mallocs) / times
			t.AllocBytes += float64(after.TotalAlloc-before.TotalAlloc) / times
		}
	}
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
