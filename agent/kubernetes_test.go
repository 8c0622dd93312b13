package agent

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/utils/clock"
)

func meta(namespace, name, uid string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(uid)}
}

func testPod(name, uid string) *corev1.Pod { return &corev1.Pod{ObjectMeta: meta("shop", name, uid)} }

func testNode(name string) *corev1.Node { return &corev1.Node{ObjectMeta: meta("", name, name)} }

// clusterTest runs the Kubernetes source against a fake API server and gathers what
// it delivers.
type clusterTest struct {
	client *fake.Clientset
	queue  *queue
	health *health
	log    *logbook

	synced bool
	last   map[key]any // last state of every key, nil for deleted
}

func startCluster(t *testing.T, client *fake.Clientset) *clusterTest {
	book, logger := newLogbook()
	c := &clusterTest{client: client, queue: newQueue(clock.RealClock{}), health: newHealth(clock.RealClock{}), log: book, last: map[key]any{}}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- Kubernetes(client).run(ctx, sink{node: "node-1", queue: c.queue, health: c.health, log: logger, clock: clock.RealClock{}})
	}()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
	})
	return c
}

func (c *clusterTest) take() {
	b := c.queue.take()
	c.synced = c.synced || b.synced
	for _, e := range b.events {
		c.last[e.key] = e.object
	}
}

func (c *clusterTest) wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	eventually(t, what, func() bool { c.take(); return ok() })
}

func (c *clusterTest) waitSynced(t *testing.T) {
	t.Helper()
	c.wait(t, "synced", func() bool { return c.synced })
}

func (c *clusterTest) has(k key) bool { return c.last[k] != nil }

func (c *clusterTest) gone(k key) bool {
	o, ok := c.last[k]
	return ok && o == nil
}

// watches replaces the watches of a resource by ones that the test feeds.
func watches(client *fake.Clientset, resource string) func() *watch.RaceFreeFakeWatcher {
	var mu sync.Mutex
	var made []*watch.RaceFreeFakeWatcher
	client.PrependWatchReactor(resource, func(clienttesting.Action) (bool, watch.Interface, error) {
		mu.Lock()
		defer mu.Unlock()
		w := watch.NewRaceFreeFake()
		made = append(made, w)
		return true, w, nil
	})
	return func() *watch.RaceFreeFakeWatcher { // the newest, nil if there is none
		mu.Lock()
		defer mu.Unlock()
		if len(made) == 0 {
			return nil
		}
		return made[len(made)-1]
	}
}

// TestClusterDelivers delivers what is there at the start, then what changes, and the
// word "synced" only once every kind has been listed.
func TestClusterDelivers(t *testing.T) {
	client := fake.NewClientset(testNode("node-1"), testNode("node-2"), testPod("a", "1"),
		&corev1.Namespace{ObjectMeta: meta("", "shop", "2")},
		&networkingv1.NetworkPolicy{ObjectMeta: meta("shop", "deny", "3")})
	var released atomic.Bool
	client.PrependReactor("list", "networkpolicies", func(clienttesting.Action) (bool, runtime.Object, error) {
		return !released.Load(), nil, errors.New("not yet")
	})
	c := startCluster(t, client)
	c.wait(t, "pods and namespaces", func() bool { return c.has(pod("a")) && c.has(key{namespaceKind, "", "shop"}) })
	require.False(t, c.synced)
	released.Store(true)
	c.waitSynced(t)
	require.True(t, c.has(key{policyKind, "shop", "deny"}))
	require.Len(t, c.last, 4)

	pods := client.CoreV1().Pods("shop")
	_, err := pods.Create(t.Context(), testPod("b", "4"), metav1.CreateOptions{})
	require.NoError(t, err)
	c.wait(t, "b", func() bool { return c.has(pod("b")) })
	changed := testPod("b", "4")
	changed.Labels = map[string]string{"role": "db"}
	_, err = pods.Update(t.Context(), changed, metav1.UpdateOptions{})
	require.NoError(t, err)
	c.wait(t, "b's label", func() bool { return c.last[pod("b")].(*corev1.Pod).Labels["role"] == "db" })
	require.NoError(t, pods.Delete(t.Context(), "a", metav1.DeleteOptions{}))
	c.wait(t, "no a", func() bool { return c.gone(pod("a")) })
}

// TestClusterMissedDeletion loses the watch, in both ways in which watches end; the
// list that follows tells of a pod that is gone, one that is new, and one that was
// made again under the same name.
func TestClusterMissedDeletion(t *testing.T) {
	for name, end := range map[string]func(*watch.RaceFreeFakeWatcher){
		"closed": func(w *watch.RaceFreeFakeWatcher) { w.Stop() },
		"expired": func(w *watch.RaceFreeFakeWatcher) {
			w.Error(&metav1.Status{Status: metav1.StatusFailure, Code: 410, Reason: metav1.StatusReasonExpired})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := fake.NewClientset(testNode("node-1"), testPod("gone", "1"), testPod("again", "2"), testPod("stays", "3"))
			newest := watches(client, "pods")
			c := startCluster(t, client)
			c.waitSynced(t)
			eventually(t, "a watch", func() bool { return newest() != nil })

			tracker := client.Tracker()
			resource := corev1.SchemeGroupVersion.WithResource("pods")
			require.NoError(t, tracker.Delete(resource, "shop", "gone"))
			require.NoError(t, tracker.Update(resource, testPod("again", "4"), "shop"))
			require.NoError(t, tracker.Create(resource, testPod("new", "5"), "shop"))
			end(newest())

			c.wait(t, "the new list", func() bool { return c.gone(pod("gone")) && c.has(pod("new")) })
			c.wait(t, "the new pod of the old name", func() bool {
				return c.last[pod("again")].(*corev1.Pod).UID == "4"
			})
			require.True(t, c.has(pod("stays")))
			require.Empty(t, c.health.sicknesses())
		})
	}
}

// TestClusterOtherUID sees a pod deleted and made again under the same name; the last
// state is the new pod, even if nobody looked in between.
func TestClusterOtherUID(t *testing.T) {
	client := fake.NewClientset(testNode("node-1"), testPod("a", "1"))
	newest := watches(client, "pods")
	c := startCluster(t, client)
	c.waitSynced(t)
	eventually(t, "a watch", func() bool { return newest() != nil })
	newest().Delete(testPod("a", "1"))
	newest().Add(testPod("a", "2"))
	newest().Add(testPod("b", "3"))
	// One turn takes all of it: only the order within the queue matters.
	eventually(t, "b is in the queue", func() bool {
		c.queue.mu.Lock()
		defer c.queue.mu.Unlock()
		return slices.Contains(c.queue.order, pod("b"))
	})
	c.take()
	require.Equal(t, types.UID("2"), c.last[pod("a")].(*corev1.Pod).UID)
}

// TestClusterListFails fails to list at first: not ready, with the reason; then it
// recovers by itself.
func TestClusterListFails(t *testing.T) {
	client := fake.NewClientset(testNode("node-1"), testPod("a", "1"))
	var working atomic.Bool
	client.PrependReactor("list", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
		return !working.Load(), nil, errors.New("pods is forbidden: no such luck")
	})
	c := startCluster(t, client)
	c.wait(t, "the reason", func() bool {
		return strings.Contains(strings.Join(c.health.obstacles(), "\n"), "pods cannot be listed: ")
	})
	c.log.wait(t, "watch ended; trying again", "resource=pods", "no such luck")
	require.False(t, c.synced)
	working.Store(true)
	c.waitSynced(t)
	require.True(t, c.has(pod("a")))
}

// TestClusterWithoutOwnNode is not ready and does not start while no Node has the
// agent's name, says so, and starts when it comes. If it goes, the agent goes on, and
// is not ready.
func TestClusterWithoutOwnNode(t *testing.T) {
	client := fake.NewClientset(testNode("node-2"), testPod("a", "1"))
	c := startCluster(t, client)
	line := c.log.wait(t, "level=ERROR", "node=node-1")
	require.Contains(t, line, `the cluster has no Node named \"node-1\"; is --node-name right?`)
	c.wait(t, "a", func() bool { return c.has(pod("a")) })
	require.False(t, c.synced)
	require.Contains(t, c.health.obstacles(), "objects: waiting for the own node")
	require.Contains(t, c.health.obstacles(), `node: the cluster has no Node named "node-1"; is --node-name right?`)

	nodes := client.CoreV1().Nodes()
	_, err := nodes.Create(t.Context(), testNode("node-1"), metav1.CreateOptions{})
	require.NoError(t, err)
	c.waitSynced(t)
	require.NotContains(t, strings.Join(c.health.obstacles(), "\n"), "no Node named")

	require.NoError(t, nodes.Delete(t.Context(), "node-1", metav1.DeleteOptions{}))
	c.wait(t, "not ready", func() bool {
		return strings.Contains(strings.Join(c.health.obstacles(), "\n"), "no Node named")
	})
	require.True(t, c.has(pod("a")))
}

// TestClusterAsksForNoMore lists and watches the own Node and pods that can have addresses
// of their own, and changes nothing.
func TestClusterAsksForNoMore(t *testing.T) {
	client := fake.NewClientset(testNode("node-1"))
	c := startCluster(t, client)
	c.waitSynced(t)
	asked := map[string][]string{} // field selectors by resource, of a list and a watch
	eventually(t, "a list and a watch of each", func() bool {
		clear(asked)
		for _, a := range client.Actions() {
			r := a.GetResource().Resource
			switch a := a.(type) {
			case clienttesting.ListAction:
				asked[r] = append(asked[r], a.GetListRestrictions().Fields.String())
			case clienttesting.WatchAction:
				asked[r] = append(asked[r], a.GetWatchRestrictions().Fields.String())
			}
		}
		return !slices.ContainsFunc([]string{"nodes", "pods", "namespaces", "networkpolicies"}, func(r string) bool { return len(asked[r]) < 2 })
	})
	pods := "spec.hostNetwork=false,spec.nodeName!=,status.phase!=Failed,status.phase!=Succeeded" // sorted by the fake
	require.Equal(t, map[string][]string{
		"nodes": {"metadata.name=node-1", "metadata.name=node-1"}, "pods": {pods, pods}, "namespaces": {"", ""}, "networkpolicies": {"", ""},
	}, asked)
	for _, a := range client.Actions() {
		require.Contains(t, []string{"list", "watch"}, a.GetVerb())
	}
}

// TestClusterEndsWhileWaiting ends at once when told to, also before it has synced.
func TestClusterEndsWhileWaiting(t *testing.T) {
	client := fake.NewClientset()
	_, logger := newLogbook()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- Kubernetes(client).run(ctx, sink{node: "n", queue: newQueue(clock.RealClock{}), health: newHealth(clock.RealClock{}), log: logger})
	}()
	cancel()
	select {
	case err := <-ended:
		require.NoError(t, err)
	case <-time.After(patience):
		t.Fatal("it does not end")
	}
}
