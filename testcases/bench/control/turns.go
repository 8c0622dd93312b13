package control

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sort"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// train is a row of numbered packets, and when each was sent and which came through.
type train struct {
	mu       sync.Mutex
	sent     []time.Time
	last     int // the number of the last that came through, -1 for none
	arrivals []int
}

// run sends numbered packets over f until ctx ends.
func (t *train) run(ctx context.Context, f *flood) error {
	go func() {
		buf := make([]byte, 16)
		for {
			n, err := f.server.Read(buf)
			if err != nil {
				return // closed
			}
			if n == 4 {
				t.mu.Lock()
				t.last = int(binary.BigEndian.Uint32(buf))
				t.arrivals = append(t.arrivals, t.last)
				t.mu.Unlock()
			}
		}
	}()
	tick := time.NewTicker(pause / 5)
	defer tick.Stop()
	for n := uint32(0); ; n++ {
		t.mu.Lock()
		t.sent = append(t.sent, time.Now())
		t.mu.Unlock()
		if _, err := f.client.Write(binary.BigEndian.AppendUint32(nil, n)); err != nil {
			return fmt.Errorf("train: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// closedAfter returns the time from at to the first packet that did not come through
// any more, once none has for a while.
func (t *train) closedAfter(at time.Time) (time.Duration, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	first := t.last + 1
	if first >= len(t.sent) || time.Since(t.sent[first]) < 100*time.Millisecond {
		return 0, false
	}
	return max(0, t.sent[first].Sub(at)), true
}

// openedAfter returns the time from at to the first packet that came through.
func (t *train) openedAfter(at time.Time) (time.Duration, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := sort.Search(len(t.arrivals), func(i int) bool { return t.sent[t.arrivals[i]].After(at) })
	if i < len(t.arrivals) {
		return t.sent[t.arrivals[i]].Sub(at), true
	}
	return 0, false
}

// turn is two events of which one closes a pod to a sender and one opens it again.
type turn struct {
	closing, opening string
	prepare          func()
	close, open      func() time.Time
}

// turnsOf returns the events that are measured.
func (s *scene) turnsOf() []turn {
	door := *selector("app", "door")
	deny := probePolicy("gate", ingress(door, nil))
	deny.Spec.Ingress = nil
	from := func(p networkingv1.NetworkPolicyPeer) func() {
		return func() { s.api.set(probePolicy("gate", ingress(door, nil, p))) }
	}
	client := func(app string) *corev1.Pod { return probePod("client", app, node, s.addrs("client")...) }
	space := func(mood string) *corev1.Namespace {
		return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: probes, UID: probes, Labels: map[string]string{"mood": mood}}}
	}
	set := func(o runtime.Object) func() time.Time { return func() time.Time { return s.api.set(o) } }
	remove := func(o runtime.Object) func() time.Time { return func() time.Time { return s.api.remove(o) } }
	return []turn{
		{"policy created", "policy deleted", func() {}, set(deny), remove(deny)},
		{"pod relabelled, closing", "pod relabelled, opening", from(toApp("client")), set(client("away")), set(client("client"))},
		{"pod deleted", "pod added", func() {}, remove(client("client")), set(client("client"))},
		{"namespace relabelled, closing", "namespace relabelled, opening", func() {
			s.api.set(space("good"))
			from(networkingv1.NetworkPolicyPeer{NamespaceSelector: selector("mood", "good")})()
		}, set(space("bad")), set(space("good"))},
	}
}

// turns closes a pod and opens it again, and returns how long it takes from the API
// server to the first packet that obeys, in milliseconds, by the names of the events.
func (s *scene) turns(ctx context.Context, n int) (obeyed map[string][]float64, err error) {
	f, err := s.flood("door", openPort)
	if err != nil {
		return nil, err
	}
	defer f.close()
	all := s.turnsOf()
	ctx, cancel := context.WithTimeout(ctx, time.Duration((n+1)*len(all))*10*time.Second)
	t := &train{last: -1}
	ended := make(chan error, 1)
	go func() { ended <- t.run(ctx, f) }()
	defer func() {
		cancel()
		err = errors.Join(err, <-ended)
	}()
	if _, err := obeys(ctx, time.Time{}, t.openedAfter); err != nil {
		return nil, err
	}
	obeyed = map[string][]float64{}
	for _, turn := range all {
		turn.prepare()
		for i := -1; i < n; i++ { // the first may have to wait for what was prepared
			c, err := obeys(ctx, turn.close(), t.closedAfter)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", turn.closing, err)
			}
			o, err := obeys(ctx, turn.open(), t.openedAfter)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", turn.opening, err)
			}
			if i >= 0 {
				obeyed[turn.closing] = append(obeyed[turn.closing], c)
				obeyed[turn.opening] = append(obeyed[turn.opening], o)
			}
		}
	}
	s.api.remove(probePolicy("gate", networkingv1.NetworkPolicySpec{}))
	return obeyed, nil
}

// obeys waits until what says how long it took, and returns that in milliseconds.
func obeys(ctx context.Context, at time.Time, what func(time.Time) (time.Duration, bool)) (float64, error) {
	for {
		if d, ok := what(at); ok {
			return milliseconds(d), nil
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("no packet has obeyed: %w", ctx.Err())
		case <-time.After(pause):
		}
	}
}
