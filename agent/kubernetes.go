package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"
)

// Kubernetes lists and watches Namespaces, NetworkPolicies, the own Node, and the Pods
// that have addresses of their own, of a cluster of Kubernetes 1.28 or newer. It needs
// get, list and watch on them; to tell about policies that cannot be enforced as written,
// the agent needs create and patch on Events. Clients of package lean take less memory
// and time than others.
func Kubernetes(client kubernetes.Interface) Source {
	return &clusterSource{client: client}
}

type clusterSource struct {
	client kubernetes.Interface
}

// addressed selects the pods that can have addresses of their own: policies are of no
// consequence for the others, nor they for policies. That is so for a pod that no node
// was found for, for one in its node's network, and for one that has ended, which the
// API server reports as deleted then.
var addressed = fields.AndSelectors(
	fields.OneTermNotEqualSelector("spec.nodeName", ""),
	fields.OneTermEqualSelector("spec.hostNetwork", "false"),
	fields.OneTermNotEqualSelector("status.phase", string(corev1.PodSucceeded)),
	fields.OneTermNotEqualSelector("status.phase", string(corev1.PodFailed)),
)

// watched is a kind of object that is listed and watched.
type watched struct {
	what    string
	kind    kind
	example runtime.Object
	from    *cache.ListWatch
}

// watches returns what is watched on behalf of a node.
func (s *clusterSource) watches(node string) []watched {
	core := s.client.CoreV1()
	nodes, pods, namespaces := core.Nodes(), core.Pods(metav1.NamespaceAll), core.Namespaces()
	policies := s.client.NetworkingV1().NetworkPolicies(metav1.NamespaceAll)
	own := fields.OneTermEqualSelector(metav1.ObjectNameField, node)
	return []watched{
		// The own Node first: what it says is of use before all else is there.
		{"nodes", nodeKind, &corev1.Node{}, listWatch(own, nodes.List, nodes.Watch)},
		{"namespaces", namespaceKind, &corev1.Namespace{}, listWatch(fields.Everything(), namespaces.List, namespaces.Watch)},
		{"networkpolicies", policyKind, &networkingv1.NetworkPolicy{}, listWatch(fields.Everything(), policies.List, policies.Watch)},
		{"pods", podKind, &corev1.Pod{}, listWatch(addressed, pods.List, pods.Watch)},
	}
}

// listWatch lists and watches what a selector selects.
func listWatch[List runtime.Object](
	selector fields.Selector,
	list func(context.Context, metav1.ListOptions) (List, error),
	follow func(context.Context, metav1.ListOptions) (watch.Interface, error),
) *cache.ListWatch {
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = selector.String()
			return list(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = selector.String()
			return follow(ctx, o)
		},
	}
}

func (s *clusterSource) run(ctx context.Context, to sink) error {
	to.queue.put(batch{begun: true})
	all := s.watches(to.node)
	w := &clusterWatch{sink: to, outstanding: len(all)}
	var group sync.WaitGroup
	for _, x := range all {
		from := cache.ToListWatcherWithWatchListSemantics(x.from, s.client)
		r := cache.NewReflectorWithOptions(from, x.example, w.arrivals(x.kind), cache.ReflectorOptions{Name: x.what})
		group.Go(func() { w.follow(ctx, x.what, r) })
	}
	group.Wait()
	return nil
}

// reconnects returns the pauses before a list or watch that has failed is tried again: 0.8
// to 1.6 s at first, doubling up to 30 to 60 s, and from the beginning after two minutes.
func reconnects() wait.DelayFunc {
	b := wait.Backoff{Duration: 800 * time.Millisecond, Factor: 2, Jitter: 1, Steps: 100, Cap: 30 * time.Second}
	return b.DelayWithReset(clock.RealClock{}, 2*time.Minute)
}

// clusterWatch knows how far the reflectors are.
type clusterWatch struct {
	sink sink

	mu          sync.Mutex
	outstanding int  // kinds that have not been listed yet
	node        bool // the own Node is there
	synced      bool // everything has been delivered once, and the own Node among it
}

// follow has a reflector list and watch until ctx ends.
func (w *clusterWatch) follow(ctx context.Context, what string, r *cache.Reflector) {
	// It ends with ctx, and has no other end.
	_ = reconnects().Until(ctx, true, true, func(ctx context.Context) (bool, error) {
		if err := r.ListAndWatchWithContext(ctx); err != nil && ctx.Err() == nil {
			w.failed(ctx, what, err)
		}
		return false, nil
	})
}

// arrivals returns what a reflector of a kind writes to.
func (w *clusterWatch) arrivals(k kind) *arrivals {
	a := newArrivals(k, w.sink.queue)
	a.listed = w.listed
	if k == nodeKind {
		a.only, a.came, a.went = w.sink.node, w.nodeCame, w.nodeWent
	}
	return a
}

// listed is called when all objects of a kind have been delivered for the first time.
func (w *clusterWatch) listed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.outstanding--; w.outstanding > 0 {
		return
	}
	if !w.node {
		w.sink.health.notReady(aboutObjects, "waiting for the own node")
		w.nodeMissingLocked()
	}
	w.syncLocked()
}

// syncLocked tells the loop, once, that it has everything that there was at the start.
func (w *clusterWatch) syncLocked() {
	if w.outstanding == 0 && w.node && !w.synced {
		w.synced = true
		w.sink.queue.put(batch{synced: true})
	}
}

// nodeCame is called when the own Node is there, or has changed.
func (w *clusterWatch) nodeCame() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.node = true
	w.sink.health.notReady(aboutNode, "")
	w.syncLocked()
}

func (w *clusterWatch) nodeWent() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.node = false
	if w.outstanding == 0 {
		w.nodeMissingLocked()
	}
}

func (w *clusterWatch) nodeMissingLocked() {
	reason := fmt.Sprintf("the cluster has no Node named %q; is --node-name right?", w.sink.node)
	w.sink.health.notReady(aboutNode, reason)
	w.sink.log.Error(reason, "node", w.sink.node)
}

// failed reports a list or watch that ended with an error. It is tried again; what is in
// force stays in force.
func (w *clusterWatch) failed(ctx context.Context, what string, err error) {
	level := slog.LevelWarn
	if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) || errors.Is(err, io.EOF) {
		level = slog.LevelDebug // the ordinary end of an old watch
	}
	w.sink.log.Log(ctx, level, "watch ended; trying again", "resource", what, "error", err)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.outstanding > 0 {
		w.sink.health.notReady(aboutObjects, fmt.Sprintf("%s cannot be listed: %v", what, err))
	}
}
