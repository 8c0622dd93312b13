package matrix_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/portcullis-netpol/portcullis/policy/evaluate"
	"github.com/portcullis-netpol/portcullis/policy/matrix"
)

// TestRandomChanges compares what a change opens and closes with what evaluate says before and after.
func TestRandomChanges(t *testing.T) {
	changed := 0
	for seed := range uint64(20) {
		g := generator{rand.New(rand.NewPCG(seed, 2))}
		before := g.input()
		after := before
		after.Cluster.Policies = slices.Concat(before.Cluster.Policies[min(1, len(before.Cluster.Policies)):], g.policies())
		old, now := newWorld(t, before), newWorld(t, after)
		for _, by := range []matrix.By{matrix.ByPod, matrix.ByNamespace} {
			d, err := matrix.Compare(t.Context(), before, after, matrix.Options{Views: []matrix.By{by}})
			require.NoError(t, err)
			require.Empty(t, slices.Concat(d.Gone, d.Added))
			for i, from := range d.View.Ends {
				for j, to := range d.View.Ends {
					var change matrix.Change
					if id := d.View.Cells[i][j]; id != matrix.Blank {
						change = d.Changes[id]
						changed++
					}
					name := fmt.Sprintf("seed %d, by %s: %s -> %s", seed, by, from.FullName(), to.FullName())
					compareChange(t, name, change, old, now, old.pairs(from, to))
				}
			}
		}
	}
	require.Greater(t, changed, 200)
}

func compareChange(t *testing.T, name string, change matrix.Change, old, now world, pairs []pair) {
	for f := range 2 {
		for _, protocol := range protocols {
			for _, port := range askedOf(protocol) {
				opened, closed := false, false
				for _, p := range pairs {
					if !p.src[f].IsValid() || !p.dst[f].IsValid() {
						continue
					}
					was := old.ask(p.src[f], p.dst[f], protocol, port).Allowed()
					is := now.ask(p.src[f], p.dst[f], protocol, port).Allowed()
					opened, closed = opened || is && !was, closed || was && !is
				}
				gotOpened, gotClosed := change.Opened.Some[f].Contains(protocol, port), change.Closed.Some[f].Contains(protocol, port)
				right := gotOpened == opened && gotClosed == closed
				if len(pairs) > 0 && pairs[0].outside.IsValid() { // there are more addresses outside than the test has
					right = (gotOpened || !opened) && (gotClosed || !closed)
				}
				if !right {
					require.Fail(t, "wrong", "%s family %d %s/%d: opened %v, closed %v, and not %v, %v", name, f, protocol, port, opened, closed, gotOpened, gotClosed)
				}
			}
		}
	}
}

func newWorld(t *testing.T, in matrix.Input) world {
	return world{t: t, in: in, known: map[evaluate.Flow]evaluate.Verdict{}}
}

// TestCompareNothing finds no difference between a cluster and itself, however its policies are ordered.
func TestCompareNothing(t *testing.T) {
	for seed := range uint64(20) {
		before := generator{rand.New(rand.NewPCG(seed, 3))}.input()
		after := before
		after.Cluster.Policies = slices.Clone(before.Cluster.Policies)
		slices.Reverse(after.Cluster.Policies)
		d, err := matrix.Compare(t.Context(), before, after, matrix.Options{})
		require.NoError(t, err)
		require.True(t, d.Same(), "seed %d: %+v", seed, d.Changes)
	}
}

// TestCompareSwap sees two changes in a cell that make up for each other.
func TestCompareSwap(t *testing.T) {
	before := input(
		pod("a/one", "app=one", "10.1.0.1"), pod("a/two", "app=two", "10.1.0.2"), pod("b/db", "", "10.1.0.3"),
		policy(t, "b/db", "podSelector: {}\ningress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: one}}}]}]"))
	after := before
	after.Cluster.Policies = []*policyObject{
		policy(t, "b/db", "podSelector: {}\ningress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: two}}}]}]")}
	d, err := matrix.Compare(t.Context(), before, after, matrix.Options{Views: []matrix.By{matrix.ByNamespace}})
	require.NoError(t, err)
	change := cell(t, d.View, "a/*", "b/*", d.Changes)
	require.Equal(t, "all", change.Opened.Some[0].String())
	require.Equal(t, "none", change.Opened.Every[0].String())
	require.Equal(t, "all", change.Closed.Some[0].String())
	require.True(t, change.Old.Reach.Mixed())
}

// TestComparePods names the pods that one side does not have, and says nothing of their traffic.
func TestComparePods(t *testing.T) {
	before := input(pod("a/one", "", "10.1.0.1"), pod("a/two", "", "10.1.0.2"))
	after := input(pod("a/two", "", "10.1.0.2"), pod("a/three", "", "10.1.0.3"))
	d, err := matrix.Compare(t.Context(), before, after, matrix.Options{})
	require.NoError(t, err)
	require.Equal(t, []string{"a/one"}, d.Gone)
	require.Equal(t, []string{"a/three"}, d.Added)
	require.Empty(t, d.Changes)
	require.False(t, d.Same())
	require.Equal(t, []string{"a/two", "outside"}, names(d.View))
}
