package policy

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// checkIndex checks that what the Index holds is what its parts ask for, no
// more and no less, and that each part knows who asks for it.
func checkIndex(t testing.TB, x *Index) {
	t.Helper()
	for _, r := range x.recipes {
		require.NotEmpty(t, r.pods)
		for p := range r.pods {
			require.Same(t, r, p.recipes[r.direction])
		}
		require.Same(t, x.groups[r.group.ID], r.group)
		for _, s := range r.resolvers {
			require.Contains(t, s.recipes, r)
		}
	}
	for _, g := range x.groups {
		n := 0
		for _, r := range x.recipes {
			if r.group == g {
				n++
			}
		}
		require.Equal(t, n, g.refs)
	}
	for _, s := range x.sets {
		n := 0
		for _, g := range x.groups {
			n += len(slices.DeleteFunc(slices.Clone(g.sets), func(o *peerSet) bool { return o != s }))
		}
		require.Equal(t, n, s.refs)
		for _, tm := range s.terms {
			require.Contains(t, tm.sets, s)
		}
	}
	checkTerms(t, x)
	checkMembers(t, x)
}

func checkTerms(t testing.TB, x *Index) {
	t.Helper()
	for _, tm := range x.terms {
		require.NotEmpty(t, tm.sets)
		for s := range tm.sets {
			require.Same(t, x.sets[s.fixed.ID], s)
			require.Contains(t, s.terms, tm)
		}
		if tm.resolvedBy != nil {
			require.Same(t, tm, tm.resolvedBy.terms[tm.number])
		} else {
			require.Same(t, tm, tm.selection.plain)
		}
	}
	for _, r := range x.resolvers {
		require.Contains(t, r.selection.resolvers, r)
		require.Equal(t, len(r.recipes)+len(r.terms), r.refs)
		for c := range r.recipes {
			require.Same(t, x.recipes[c.key], c)
			require.Contains(t, c.resolvers, r)
		}
		for _, tm := range r.terms {
			require.Same(t, x.terms[tm.key], tm)
		}
	}
}

func checkMembers(t testing.TB, x *Index) {
	t.Helper()
	for _, s := range x.selections {
		n := len(s.resolvers)
		if s.plain != nil {
			n++
			require.Same(t, x.terms[s.plain.key], s.plain)
		}
		require.Equal(t, n, s.refs)
		for r := range s.resolvers {
			require.Same(t, x.resolvers[r.key], r)
		}
		require.Same(t, x.places[s.place.key], s.place)
		members := 0
		x.eachNamespace(s.place, func(ns *namespace) {
			for _, p := range ns.pods {
				if len(p.owned) > 0 && s.spec.pods.matches(p.labels) {
					members++
					require.Contains(t, s.members, p)
				}
			}
		})
		require.Len(t, s.members, members)
	}
	for _, pl := range x.places {
		require.False(t, pl.selections.empty())
		for ns := range pl.namespaces {
			require.Contains(t, ns.places, pl)
		}
	}
}
