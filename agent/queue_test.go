package agent

import (
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/utils/clock"
)

func pod(name string) key { return key{podKind, "shop", name} }

// TestQueueKeepsTheLastState puts two states of one object and takes only the last,
// in the place of the first.
func TestQueueKeepsTheLastState(t *testing.T) {
	q := newQueue(clock.RealClock{})
	q.put(batch{events: []event{{pod("a"), 1}, {pod("b"), 1}}})
	q.put(batch{events: []event{{pod("a"), 2}, {pod("c"), nil}}})
	require.Equal(t, []event{{pod("a"), 2}, {pod("b"), 1}, {pod("c"), nil}}, q.take().events)
	require.Empty(t, q.take().events)
}

// TestQueueTakesRevisionWithItsEvents takes the last revision once, with everything
// that leads to it.
func TestQueueTakesRevisionWithItsEvents(t *testing.T) {
	q := newQueue(clock.RealClock{})
	q.put(batch{events: []event{{pod("a"), 1}}, marked: true, revision: "one"})
	q.put(batch{events: []event{{pod("b"), 1}}, marked: true, revision: "two"})
	q.put(batch{events: []event{{pod("c"), 1}}})
	b := q.take()
	require.True(t, b.marked)
	require.Equal(t, "two", b.revision)
	require.Len(t, b.events, 3)
	require.False(t, q.take().marked)
}

// TestQueueStaysSynced reports synced from the first time on.
func TestQueueStaysSynced(t *testing.T) {
	q := newQueue(clock.RealClock{})
	q.put(batch{events: []event{{pod("a"), 1}}})
	require.False(t, q.take().synced)
	q.put(batch{synced: true})
	require.True(t, q.take().synced)
	q.put(batch{events: []event{{pod("a"), 2}}})
	require.True(t, q.take().synced)
}

// TestQueueLosesNothing lets many writers race with one reader, who must see the
// last state of every key.
func TestQueueLosesNothing(t *testing.T) {
	const writers, keys, rounds = 4, 8, 200
	q := newQueue(clock.RealClock{})
	done := make(chan struct{})
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range rounds {
				for k := range keys {
					q.put(batch{events: []event{{pod(fmt.Sprintf("%d-%d", w, k)), i}}})
				}
			}
		})
	}
	go func() { wg.Wait(); close(done) }()
	last := map[key]any{}
	take := func() {
		for _, e := range q.take().events {
			last[e.key] = e.object
		}
	}
	for running := true; running; {
		select {
		case <-q.wake:
			take()
		case <-done:
			running = false
		}
	}
	take()
	require.Len(t, last, writers*keys)
	for k, v := range last {
		require.Equal(t, rounds-1, v, k)
	}
}
