package policy

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func noReport(t testing.TB) reporter {
	return func(field, format string, args ...any) {
		t.Helper()
		t.Fatalf("%s: "+format, append([]any{field}, args...)...)
	}
}

func TestSelectorIsCanonical(t *testing.T) {
	parse := func(s metav1.LabelSelector) selector {
		sel, ok := parseSelector(&s, "f", noReport(t))
		require.True(t, ok)
		return sel
	}
	in := func(k string, vs ...string) metav1.LabelSelectorRequirement {
		return metav1.LabelSelectorRequirement{Key: k, Operator: metav1.LabelSelectorOpIn, Values: vs}
	}
	a := parse(metav1.LabelSelector{MatchLabels: map[string]string{"x": "1", "y": "2"}})
	b := parse(metav1.LabelSelector{MatchLabels: map[string]string{"y": "2"}, MatchExpressions: []metav1.LabelSelectorRequirement{in("x", "1", "1"), in("y", "2")}})
	require.Equal(t, a.key, b.key)
	require.Equal(t, "x=1,y=2", b.text)
	require.Equal(t, parse(metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{in("x", "1", "2")}}).key,
		parse(metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{in("x", "2", "1", "2")}}).key)
	require.NotEqual(t, parse(metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{in("x", "12")}}).key,
		parse(metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{in("x", "1", "2")}}).key)
	require.Equal(t, selectAll, parse(metav1.LabelSelector{}))
}

// TestLabelIndex compares the candidates that match with all that match.
func TestLabelIndex(t *testing.T) {
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 5))
		w := newWorld(rng)
		x := newLabelIndex[int]()
		held := map[int]selector{}
		for i := range 200 {
			if j := rng.IntN(i + 1); rng.IntN(3) == 0 {
				if s, ok := held[j]; ok {
					x.remove(j, s)
					delete(held, j)
				}
			} else if s, ok := parseSelector(w.selector(), "", func(string, string, ...any) {}); ok {
				held[i] = s
				x.add(i, s)
			}
			ls := newLabelSet(w.labels())
			seen := map[int]int{}
			x.candidates(ls, func(j int) { seen[j]++ })
			for j, s := range held {
				require.LessOrEqual(t, seen[j], 1, "visited twice")
				if s.matches(ls) {
					require.Equal(t, 1, seen[j], "%s does not see %v", s.text, ls)
				}
			}
		}
		for j, s := range held {
			x.remove(j, s)
		}
		require.Empty(t, x.labels)
		require.Empty(t, x.keys)
		require.Empty(t, x.rest)
		require.True(t, x.empty())
	}
}

// TestEncoder: where one string ends and the next begins is part of the bytes.
func TestEncoder(t *testing.T) {
	text := func(ss ...string) string {
		var e encoder
		for _, s := range ss {
			e.str(s)
		}
		return e.id("x-")
	}
	require.NotEqual(t, text("a", "bc"), text("ab", "c"))
	require.NotEqual(t, text("a", ""), text("a"))
	require.NotEqual(t, text("", "a"), text("a", ""))
}

// TestLabelIndexSpreads: a label that all selectors have in common is not where
// they are filed.
func TestLabelIndexSpreads(t *testing.T) {
	x := newLabelIndex[int]()
	for i := range 1000 {
		s, _ := parseSelector(&metav1.LabelSelector{MatchLabels: map[string]string{"a": "backend", "name": fmt.Sprint("n", i)}}, "", noReport(t))
		x.add(i, s)
	}
	n := 0
	x.candidates(newLabelSet(map[string]string{"a": "backend", "name": "n7"}), func(int) { n++ })
	require.LessOrEqual(t, n, 3)
}
