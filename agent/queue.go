package agent

import (
	"sync"
	"time"

	"k8s.io/utils/clock"
)

// kind is a kind of object that the loop knows.
type kind uint8

const (
	podKind kind = iota
	namespaceKind
	policyKind
	nodeKind
)

// String returns the kind as the API writes it.
func (k kind) String() string {
	switch k {
	case podKind:
		return "Pod"
	case namespaceKind:
		return "Namespace"
	case nodeKind:
		return "Node"
	}
	return "NetworkPolicy"
}

// key names an object. Namespace is empty for a Namespace and for a Node.
type key struct {
	kind            kind
	namespace, name string
}

// String returns the key as messages name objects: "Pod shop/web-0".
func (k key) String() string {
	if k.namespace == "" {
		return k.kind.String() + " " + k.name
	}
	return k.kind.String() + " " + k.namespace + "/" + k.name
}

// event is the newest state of one object: a *corev1.Pod, a *corev1.Namespace, a
// *networkingv1.NetworkPolicy, a *corev1.Node, or nil if it is gone.
type event struct {
	key    key
	object any
}

// batch is what the loop takes in one turn.
type batch struct {
	events []event
	// since is when the first of events came; the queue says it.
	since time.Time
	// begun is set once the source is at work: it delivers objects, and may take any
	// time until it has delivered all.
	begun bool
	// synced is set once everything that was there at the start has been
	// delivered, in this batch or before it.
	synced bool
	// marked says that revision is new: the events up to here lead to it. An
	// empty revision says that they lead to no revision of the source's.
	marked   bool
	revision string
	// disturbed says that another program may have changed our table.
	disturbed bool
	// interfaces says the same of the rules of the pods' interfaces.
	interfaces bool
}

// queue holds what the sources have delivered and the loop has not taken yet. Of
// each object only the newest state is kept: the index is a function of the
// objects' present states, so nothing is lost, and a burst costs what it ends in.
type queue struct {
	// wake holds a token while there may be something to take.
	wake  chan struct{}
	clock clock.PassiveClock

	mu      sync.Mutex
	pending map[key]any
	order   []key // keys of pending, oldest first
	synced  bool
	since   time.Time // when the first of order came; zero if there is none
	news    batch     // all but the events
}

func newQueue(c clock.PassiveClock) *queue {
	return &queue{wake: make(chan struct{}, 1), clock: c, pending: map[key]any{}}
}

// put delivers b; its events and its revision are taken together or not at all.
func (q *queue) put(b batch) {
	q.mu.Lock()
	if len(b.events) > 0 && q.since.IsZero() {
		q.since = q.clock.Now()
	}
	for _, e := range b.events {
		if _, ok := q.pending[e.key]; !ok {
			q.order = append(q.order, e.key)
		}
		q.pending[e.key] = e.object
	}
	q.synced = q.synced || b.synced
	q.news.begun = q.news.begun || b.begun
	q.news.disturbed = q.news.disturbed || b.disturbed
	q.news.interfaces = q.news.interfaces || b.interfaces
	if b.marked {
		q.news.marked, q.news.revision = true, b.revision
	}
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take returns everything that is there and leaves the queue empty.
func (q *queue) take() batch {
	q.mu.Lock()
	defer q.mu.Unlock()
	b := q.news
	b.synced, b.since = q.synced, q.since
	for _, k := range q.order {
		b.events = append(b.events, event{k, q.pending[k]})
	}
	q.news, q.since = batch{}, time.Time{}
	q.order = nil
	clear(q.pending)
	if len(b.events) > 1024 {
		q.pending = map[key]any{} // a map never shrinks
	}
	return b
}

// oldest returns when the oldest event came that was not taken yet, or the zero time.
func (q *queue) oldest() time.Time {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.since
}
