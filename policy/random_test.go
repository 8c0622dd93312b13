package policy

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// load sets every object of the world in an order of rng's, some of them twice,
// and flushes now and then.
func (w *world) load(rng choice, x *Index) {
	var sets []func()
	for _, k := range slices.Sorted(maps.Keys(w.pods)) {
		sets = append(sets, func() { x.SetPod(w.pods[k]) })
	}
	for _, k := range slices.Sorted(maps.Keys(w.namespaces)) {
		sets = append(sets, func() { x.SetNamespace(w.namespaces[k]) })
	}
	for _, k := range slices.Sorted(maps.Keys(w.policies)) {
		sets = append(sets, func() { x.SetNetworkPolicy(w.policies[k]) })
	}
	for i := range sets {
		j := i + rng.IntN(len(sets)-i)
		sets[i], sets[j] = sets[j], sets[i]
		sets[i]()
		switch rng.IntN(8) {
		case 0:
			sets[rng.IntN(i+1)]()
		case 1:
			x.Flush()
		}
	}
	x.Flush()
}

// run plays events, and compares what they lead to with a fresh Index each time.
func (w *world) run(t testing.TB, events int, flushPercent int, oracle bool) {
	t.Helper()
	m := mirror{x: NewIndex(node)}
	if w.crowded = w.chance(50); w.crowded {
		m.x.wideAbove = pick(w, 1, 2, 3)
	} else {
		m.x.wideAbove = pick(w, wideAbove, 1, 0)
	}
	var log []string
	defer func() {
		if t.Failed() {
			t.Logf("after:\n%s", strings.Join(log, "\n"))
		}
	}()
	for range events {
		log = append(log, w.event(m.x))
		if !w.chance(flushPercent) {
			continue
		}
		before := m.state
		w.met.note(before, m.flush(t), m.state)
		fresh := NewIndex(node)
		fresh.wideAbove = m.x.wideAbove
		w.load(w, fresh)
		requireSame(t, fresh.State(), m.state)
		if oracle {
			w.checkOracle(t, m.x, m.state)
		}
	}
	w.empty(m.x)
	m.flush(t)
	requireIdle(t, m.x)
	require.Empty(t, m.x.namespaces)
	require.Empty(t, m.x.owners)
	require.Empty(t, m.x.rivals)
}

func (w *world) empty(x *Index) {
	for k := range w.pods {
		ns, name, _ := strings.Cut(k, "/")
		x.DeletePod(ns, name)
	}
	for k := range w.namespaces {
		x.DeleteNamespace(k)
	}
	for k := range w.policies {
		ns, name, _ := strings.Cut(k, "/")
		x.DeleteNetworkPolicy(ns, name)
	}
}

// TestRandomEvents is the proof of incremental = from scratch = by the book.
func TestRandomEvents(t *testing.T) {
	seeds := uint64(150)
	if testing.Short() {
		seeds = 20
	}
	var all met
	for seed := range seeds {
		w := newWorld(rand.New(rand.NewPCG(seed, 1)))
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w.run(t, 80, []int{100, 60, 20}[seed%3], true)
		})
		all.add(w.met)
	}
	all.require(t, int(seeds))
}

// TestOrders sets the same objects in many orders.
func TestOrders(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 2))
		w := newWorld(rng)
		x := NewIndex(node)
		for range 120 {
			w.event(x)
		}
		x.Flush()
		want := x.State()
		for range 20 {
			y := NewIndex(node)
			w.load(rng, y)
			requireSame(t, want, y.State())
		}
	}
}
