package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// Kubernetes lists and watches Pods, Namespaces, NetworkPolicies and the own Node of
// a cluster. It needs get, list and watch on them; to tell about policies that cannot
// be enforced as written, the agent needs create and patch on Events.
func Kubernetes(client kubernetes.Interface) Source {
	return &clusterSource{client: client}
}

type clusterSource struct {
	client kubernetes.Interface
}

func (s *clusterSource) run(ctx context.Context, to sink) error {
	w := &clusterWatch{sink: to, nodeSeen: make(chan struct{})}
	all := informers.NewSharedInformerFactoryWithOptions(s.client, 0, informers.WithTransform(strip))
	own := informers.NewSharedInformerFactoryWithOptions(s.client, 0, informers.WithTransform(strip),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, to.node).String()
		}))
	to.queue.put(batch{begun: true})
	var synced []cache.DoneChecker
	for _, watched := range []struct {
		what     string
		informer cache.SharedIndexInformer
		handler  cache.ResourceEventHandler
	}{
		{"pods", all.Core().V1().Pods().Informer(), w.handler(podKind)},
		{"namespaces", all.Core().V1().Namespaces().Informer(), w.handler(namespaceKind)},
		{"networkpolicies", all.Networking().V1().NetworkPolicies().Informer(), w.handler(policyKind)},
		{"nodes", own.Core().V1().Nodes().Informer(), w.nodeHandler()},
	} {
		if err := watched.informer.SetWatchErrorHandlerWithContext(w.watchFailed(watched.what)); err != nil {
			return fmt.Errorf("watch %s: %w", watched.what, err)
		}
		registration, err := watched.informer.AddEventHandler(watched.handler)
		if err != nil {
			return fmt.Errorf("watch %s: %w", watched.what, err)
		}
		// The informer's own HasSynced would not do: its store is full before
		// the handler has seen what is in it.
		synced = append(synced, registration.HasSyncedChecker())
	}
	// The own Node first: what it says is of use before all else is there.
	for _, f := range []informers.SharedInformerFactory{own, all} {
		f.StartWithContext(ctx)
		defer f.Shutdown() // waits for the informers, which ctx has ended
	}
	if cache.WaitFor(ctx, "", synced...) {
		w.listed(ctx)
	}
	<-ctx.Done()
	return nil
}

// clusterWatch turns what informers say into events.
type clusterWatch struct {
	sink     sink
	nodeSeen chan struct{} // closed once the own Node has been there

	mu        sync.Mutex
	nodeKnown bool // nodeSeen is closed
	node      bool // the own Node is there
	complete  bool // everything has been delivered once
}

// listed is called once every handler has seen what was there at the start.
func (w *clusterWatch) listed(ctx context.Context) {
	w.mu.Lock()
	w.complete = true
	missing := !w.node
	if missing {
		w.sink.health.notReady(aboutObjects, "waiting for the own node")
		w.nodeMissingLocked()
	}
	w.mu.Unlock()
	if missing {
		select {
		case <-w.nodeSeen:
		case <-ctx.Done():
			return
		}
	}
	w.sink.queue.put(batch{synced: true})
}

// handler delivers the objects of one kind.
func (w *clusterWatch) handler(k kind) cache.ResourceEventHandler {
	set := func(object any) { w.deliver(k, object) }
	return cache.ResourceEventHandlerFuncs{
		AddFunc: set,
		UpdateFunc: func(old, object any) {
			if !same(old, object) {
				set(object)
			}
		},
		DeleteFunc: func(object any) {
			// Also takes the tombstone of an object whose deletion was missed,
			// which may hold a state older than the last one, or none.
			name, err := cache.DeletionHandlingObjectToName(object)
			if err != nil {
				w.sink.log.Error("a deletion without a name", "kind", k, "error", err)
				return
			}
			w.sink.queue.put(batch{events: []event{{key{k, name.Namespace, name.Name}, nil}}})
		},
	}
}

// deliver queues the newest state of an object.
func (w *clusterWatch) deliver(k kind, object any) {
	m, ok := object.(metav1.Object)
	if !ok {
		w.sink.log.Error("the API server delivered something that is no object", "kind", k, "type", fmt.Sprintf("%T", object))
		return
	}
	if r, ok := object.(*podRecord); ok {
		object = r.pod()
	}
	w.sink.queue.put(batch{events: []event{{key{k, m.GetNamespace(), m.GetName()}, object}}})
}

// same reports whether a re-list has delivered again what was known.
func same(old, object any) bool {
	o, ok1 := old.(metav1.Object)
	n, ok2 := object.(metav1.Object)
	return ok1 && ok2 && o.GetUID() == n.GetUID() &&
		n.GetResourceVersion() != "" && o.GetResourceVersion() == n.GetResourceVersion()
}

// nodeHandler watches whether the own Node is there, and delivers it: it has the
// blocks that the node's pods get their addresses from.
func (w *clusterWatch) nodeHandler() cache.ResourceEventHandler {
	own := func(object any) bool {
		name, err := cache.DeletionHandlingObjectToName(object)
		return err == nil && name.Name == w.sink.node
	}
	return cache.FilteringResourceEventHandler{FilterFunc: own, Handler: cache.ResourceEventHandlerFuncs{
		AddFunc: func(object any) {
			w.deliver(nodeKind, object)
			w.mu.Lock()
			defer w.mu.Unlock()
			w.node = true
			if !w.nodeKnown {
				w.nodeKnown = true
				close(w.nodeSeen)
			}
			w.sink.health.notReady(aboutNode, "")
		},
		UpdateFunc: func(_, object any) { w.deliver(nodeKind, object) },
		DeleteFunc: func(any) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.node = false
			if w.complete {
				w.nodeMissingLocked()
			}
		},
	}}
}

func (w *clusterWatch) nodeMissingLocked() {
	reason := fmt.Sprintf("the cluster has no Node named %q; is --node-name right?", w.sink.node)
	w.sink.health.notReady(aboutNode, reason)
	w.sink.log.Error(reason, "node", w.sink.node)
}

// watchFailed reports a list or watch that ended with an error. The informer tries
// again by itself and lists anew where it has to; what is in force stays in force.
func (w *clusterWatch) watchFailed(what string) cache.WatchErrorHandlerWithContext {
	return func(ctx context.Context, _ *cache.Reflector, err error) {
		level := slog.LevelWarn
		if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) || errors.Is(err, io.EOF) {
			level = slog.LevelDebug // the ordinary end of an old watch
		}
		w.sink.log.Log(ctx, level, "watch ended; trying again", "resource", what, "error", err)
		w.mu.Lock()
		defer w.mu.Unlock()
		if !w.complete {
			w.sink.health.notReady(aboutObjects, fmt.Sprintf("%s cannot be listed: %v", what, err))
		}
	}
}
