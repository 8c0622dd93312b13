package agent

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"
)

// versioned returns a pod of shop.
func versioned(name, uid, version string) *corev1.Pod {
	p := testPod(name, uid)
	p.ResourceVersion = version
	return p
}

// taken returns the keys of what is in the queue, and whether they are there.
func taken(q *queue) map[string]bool {
	out := map[string]bool{}
	for _, e := range q.take().events {
		out[e.key.name] = e.object != nil
	}
	return out
}

// stream has arrivals take pods as a streaming list brings them, and returns what a
// reflector keeps of them until the end of the list.
func stream(t *testing.T, a *arrivals, pods ...any) (kept []any) {
	t.Helper()
	var one cache.TransformFunc = a.Transformer()
	for _, p := range pods {
		is, err := one(p)
		require.NoError(t, err)
		again, err := one(is)
		require.NoError(t, err)
		require.Equal(t, is, again)
		kept = append(kept, is)
	}
	return kept
}

// TestArrivalsDoNotWait delivers what is read before the list is complete, and says
// once that it is.
func TestArrivalsDoNotWait(t *testing.T) {
	lists := 0
	a := newArrivals(podKind, newQueue(clock.RealClock{}))
	a.listed = func() { lists++ }
	kept := stream(t, a, versioned("a", "1", "1"), versioned("b", "2", "2"))
	require.Equal(t, map[string]bool{"a": true, "b": true}, taken(a.queue))
	require.Zero(t, lists)
	require.NoError(t, a.Replace(kept, "2"))
	require.Empty(t, taken(a.queue))
	require.NoError(t, a.Replace(kept, "2"))
	require.Equal(t, 1, lists)
}

// TestArrivalsOfABrokenList takes back what only a list has said that was not complete.
func TestArrivalsOfABrokenList(t *testing.T) {
	a := newArrivals(podKind, newQueue(clock.RealClock{}))
	stream(t, a, versioned("a", "1", "1"), versioned("b", "2", "2"))
	taken(a.queue)
	kept := stream(t, a, versioned("b", "2", "2"), versioned("c", "3", "3"))
	require.Equal(t, map[string]bool{"c": true}, taken(a.queue))
	require.NoError(t, a.Replace(kept, "3"))
	require.Equal(t, map[string]bool{"a": false}, taken(a.queue))
}

// TestArrivalsOfLists takes lists that do not stream: what they lack is gone, what they
// repeat is no news, and a new object under an old name is.
func TestArrivalsOfLists(t *testing.T) {
	a := newArrivals(podKind, newQueue(clock.RealClock{}))
	require.NoError(t, a.Replace([]any{versioned("a", "1", "1"), versioned("b", "2", "2"), versioned("c", "3", "3"), testPod("d", "4")}, "3"))
	require.Len(t, taken(a.queue), 4)
	require.NoError(t, a.Replace([]any{versioned("b", "2", "2"), versioned("c", "5", "3"), testPod("d", "4")}, "5"))
	require.Equal(t, map[string]bool{"a": false, "c": true, "d": true}, taken(a.queue), "d has no version to know it by")
	require.NoError(t, a.Add(versioned("e", "6", "6")))
	require.NoError(t, a.Update(versioned("b", "2", "7")))
	require.NoError(t, a.Delete(versioned("c", "5", "8")))
	require.Equal(t, map[string]bool{"e": true, "b": true, "c": false}, taken(a.queue))
	require.NoError(t, a.Add(versioned("c", "5", "3")), "it has come back as it was")
	require.NoError(t, a.Replace(nil, "9"))
	require.Equal(t, map[string]bool{"b": false, "c": false, "d": false, "e": false}, taken(a.queue))
}

// TestArrivalsOfOneName passes over what has another name.
func TestArrivalsOfOneName(t *testing.T) {
	there := 0
	a := newArrivals(nodeKind, newQueue(clock.RealClock{}))
	a.only, a.came, a.went = "node-1", func() { there++ }, func() { there-- }
	require.NoError(t, a.Replace([]any{testNode("node-2")}, "1"))
	require.NoError(t, a.Delete(testNode("node-2")))
	require.Zero(t, there)
	require.Empty(t, taken(a.queue))
	require.NoError(t, a.Replace([]any{testNode("node-2"), testNode("node-1")}, "2"))
	require.Equal(t, 1, there)
	require.NoError(t, a.Delete(testNode("node-1")))
	require.Zero(t, there)
	require.Equal(t, map[string]bool{"node-1": false}, taken(a.queue))
}

// TestArrivalsOfRubbish refuses what is no object.
func TestArrivalsOfRubbish(t *testing.T) {
	a := newArrivals(podKind, newQueue(clock.RealClock{}))
	require.Error(t, a.Add("rubbish"))
	require.Error(t, a.Delete("rubbish"))
	require.Error(t, a.Replace([]any{"rubbish"}, "1"))
	require.False(t, a.complete)
	require.Empty(t, taken(a.queue))
}
