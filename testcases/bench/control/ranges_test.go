package control

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/portcullis-netpol/portcullis/nft"
	"github.com/portcullis-netpol/portcullis/policy"
	"github.com/portcullis-netpol/portcullis/policy/ir"
	"github.com/portcullis-netpol/portcullis/testcases/bench/report"
	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// TestRanges: events of pods and namespaces leave sets of ranges alone, and the two
// clusters differ in these only.
func TestRanges(t *testing.T) {
	lab.Require(t, lab.NFTables)
	var r report.Report
	require.NoError(t, run(t.Context(), plan{ranges: rangesJob{Size: Size{400, 100, 6, 0}, Events: 1}}, Options{}, &r))
	require.Len(t, r.Tables, 2)
	times, sent := r.Tables[0], r.Tables[1]
	require.Len(t, times.Series, 2)
	require.Len(t, sent.Goals, 1)
	require.True(t, sent.Goals[0].Met())
	for _, s := range sent.Series {
		require.Len(t, s.Points, 14)
	}
	with, ranges, without := sent.Series[0].Points, sent.Series[1].Points, sent.Series[2].Points
	for i, p := range with {
		require.Equal(t, without[i].Label, p.Label)
		require.Equal(t, strings.HasPrefix(p.Label, "policy with 1000 blocks"), ranges[i].Samples[0] > 0, p.Label)
		if strings.Contains(p.Label, "pod ") {
			require.Equal(t, without[i].Samples, p.Samples, p.Label)
		}
	}
}

// TestRangesCluster: one cluster has hundreds of sets of ranges, the other next to none.
func TestRangesCluster(t *testing.T) {
	for ranged, enough := range map[bool]func(n int) bool{
		true:  func(n int) bool { return n > crowdOfBlocks },
		false: func(n int) bool { return n == 0 },
	} {
		e := (&toggled{cluster: rangesCluster(Size{400, 100, 6, 0}, ranged)}).fresh()
		table, err := nft.Build(nft.Config{}, "portcullis-a", e.index.State())
		require.NoError(t, err)
		n := 0
		for _, s := range slices.Concat(table.Sets, table.Maps) {
			if s.Interval {
				n++
			}
		}
		require.True(t, enough(n), "%d sets of ranges, ranges: %t", n, ranged)
	}
}

// toggled are objects of a cluster that come and go, each in one of some forms; form 0 is
// that it is not there.
type toggled struct {
	cluster *cluster
	forms   map[string][]any
	now     map[string]int
}

// newToggled takes policies and pods from a cluster with ranges and blocks. So many of
// the policies for one pod are there at first; about 35 make its group wide.
func newToggled(present int) *toggled {
	size := Size{30, 20, 6, 0}
	c, plain := rangesCluster(size, true), rangesCluster(size, false)
	x := &toggled{cluster: c, forms: map[string][]any{}, now: map[string]int{}}
	policies := append(c.extra[1:52:52], newPolicy(home, "more-blocks", ingress(*selector("app", "app-0"), numbered(9003), blocksFrom(30_000, 50)...)))
	c.extra = nil
	for i, p := range policies {
		other := p.DeepCopy()
		if i%2 == 0 {
			p = plain.extra[1+i] // its peers are folded into the group's set
			other = p.DeepCopy()
			other.Spec.Ingress[0].Ports[0].Port.IntVal++
		} else {
			widen(&other.Spec, i, blocksFrom(40_000, 2))
		}
		form := 0
		if i < present {
			form = 1 + i%2
		}
		x.add(p.Name, form, p, other)
	}
	remote, relabelled, local := eventPods()
	moved := local.DeepCopy()
	moved.Labels["app"] = "app-1"
	x.add("remote", 0, remote)
	x.add("relabelled", 1, relabelled[0], relabelled[1])
	x.add("local", 0, local, moved)
	for i := range 8 { // in the peers of one policy, and some in a block of another
		p := newPod(home, fmt.Sprintf("peer-%d", i), 1, "node-7", eventAddress4(100+i), eventAddress6(100+i))
		p.Labels["version"] = policies[1+i].Name
		other := newPod(home, p.Name, 1, "node-7", eventAddress4(100+i))
		x.add(p.Name, i%3, p, other)
	}
	return x
}

func (x *toggled) add(name string, now int, forms ...any) {
	x.forms[name] = append([]any{nil}, forms...)
	x.now[name] = now
}

// fresh returns an Index with all that there is.
func (x *toggled) fresh() *engine {
	e := &engine{cluster: x.cluster, index: policy.NewIndex(node)}
	x.cluster.objects(func(chunk []any) {
		for _, o := range chunk {
			e.set(o)
		}
	})
	for name, form := range x.now {
		if form > 0 {
			e.set(x.forms[name][form])
		}
	}
	e.index.Flush()
	return e
}

// change gives one object another form, and tells e.
func (x *toggled) change(r *rand.Rand, e *engine) (name string) {
	names := slices.Sorted(maps.Keys(x.forms))
	name = names[r.IntN(len(names))]
	forms := x.forms[name]
	was := x.now[name]
	x.now[name] = (was + 1 + r.IntN(len(forms)-1)) % len(forms)
	if is := x.now[name]; is > 0 {
		e.set(forms[is])
		return name
	}
	switch o := forms[was].(type) {
	case *corev1.Pod:
		e.index.DeletePod(o.Namespace, o.Name)
	case *networkingv1.NetworkPolicy:
		e.index.DeleteNetworkPolicy(o.Namespace, o.Name)
	}
	return name
}

// TestIncrementalAgainstFresh: what events lead to is what a fresh Index and a fresh
// table have, with peers that are ranges and a wide group that grows and shrinks in
// place.
func TestIncrementalAgainstFresh(t *testing.T) {
	ctx := context.Background()
	grown, wide, ranges := 0, 0, 0
	for seed := range uint64(3) {
		r := rand.New(rand.NewPCG(seed, 1))
		x := newToggled(30 + 4*int(seed))
		e := x.fresh()
		e.counter = &counter{Kernel: nft.NewFake()}
		e.enforcer = nft.NewEnforcer(nft.Config{PodToNode: true, Midstream: true, PodCIDRs: localBlocks(), Logger: slog.New(slog.DiscardHandler)}, e.counter)
		require.NoError(t, e.enforcer.Takeover(ctx, e.index.State()))
		for step := range 60 {
			var names []string
			for range 1 + r.IntN(3)/2 {
				names = append(names, x.change(r, e))
			}
			before := e.counter.now()
			c := e.index.Flush()
			if !c.Empty() {
				require.NoError(t, e.enforcer.Apply(ctx, c), "seed %d, step %d: %v", seed, step, names)
			}
			sent := e.counter.now().minus(before)
			if r.IntN(2) == 0 {
				require.NoError(t, e.enforcer.Tidy(ctx))
			}
			want := x.fresh().index.State()
			requireSame(t, want, e.index.State(), "seed %d, step %d: %v", seed, step, names)
			for _, g := range c.AddGroups {
				if g.Wide {
					wide++
					if sent.Chains == 0 {
						grown++
					}
				}
			}
			ranges += sent.Intervals
			if e.enforcer.Untidy() {
				continue // what remains is no difference
			}
			d, err := e.enforcer.Verify(ctx, want)
			require.NoError(t, err)
			require.Empty(t, d, "seed %d, step %d: %v", seed, step, names)
		}
	}
	t.Logf("%d wide groups, %d of them grown in place, %d messages to sets of ranges", wide, grown, ranges)
	require.Greater(t, grown, 20)
	require.Greater(t, wide-grown, 5)
	require.Greater(t, ranges, 100)
}

func requireSame(t *testing.T, want, have ir.State, about ...any) {
	t.Helper()
	if !reflect.DeepEqual(want, have) { // far cheaper than to explain that there is no difference
		require.Equal(t, want, have, about...)
	}
}
