package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// loadPlan is what to measure of what an agent takes from the API server.
type loadPlan struct {
	Size Size
	// Lives is how many pods of each sort come and go.
	Lives int
}

// loadResult is what was counted.
type loadResult struct {
	Size Size
	// Listed is what was sent at the start, and Withheld the pods that no watch asked
	// for.
	Listed   map[resource]volume
	Withheld int
	// Received is what the agent has read at the start, in bytes of HTTP.
	Received int64
	// JSON and Protobuf are the sizes of an ordinary pod in bytes.
	JSON, Protobuf int
	// Lives are those of a pod of each sort.
	Lives []lifeResult
}

// lifeResult is what the events of a pod's life are, and what of them an agent of
// another node is sent.
type lifeResult struct {
	Name      string
	All, Sent volume
}

// Of hundred pods that are the agent's concern there are in addition so many that have
// ended, and that are in the network of their node.
const endedShare, hostShare = 5, 8

// measureLoad starts an agent and counts what it is sent.
func measureLoad(ctx context.Context, plan loadPlan) (r *loadResult, err error) {
	s, err := newScene(plan.Size)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	r = &loadResult{Size: plan.Size, Listed: map[resource]volume{}}
	for i := range plan.Size.Pods * endedShare / 100 {
		p := lifePod("ended", i)
		p.Status.Phase = corev1.PodSucceeded
		s.api.set(p)
		r.Withheld++
	}
	for i := range plan.Size.Pods * hostShare / 100 {
		p := lifePod("host", i)
		p.Spec.HostNetwork = true
		s.api.set(p)
		r.Withheld++
	}
	if err := s.startAgent(ctx, agentPlan{Size: plan.Size}, "load-"); err != nil {
		return nil, err
	}
	defer func() {
		if e := s.agent.close(); err == nil && ctx.Err() == nil {
			err = e
		}
	}()
	status, err := s.status(agentRequest{Wait: true})
	if err != nil {
		return nil, err
	}
	r.Received = status.Received
	for kind := range paths {
		r.Listed[kind] = s.api.sent(s.api.initial, kind)
	}
	return r, s.lives(ctx, plan.Lives, r)
}

// lives has pods of each sort come and go.
func (s *scene) lives(ctx context.Context, n int, r *loadResult) error {
	ordinary := lifePod("ordinary", 0)
	text, err := json.Marshal(ordinary)
	if err != nil {
		return err
	}
	r.JSON, r.Protobuf = len(text), ordinary.Size()
	for _, name := range slices.Sorted(maps.Keys(lives)) {
		one := lifeResult{Name: name}
		before := s.api.sent(s.api.live, pods)
		for i := range n {
			states := lives[name](lifePod("life", i))
			for _, p := range states {
				s.api.set(p)
			}
			s.api.remove(states[len(states)-1])
			for _, p := range append(states, states[len(states)-1]) {
				one.All.Objects++
				one.All.Bytes += int64(serialized(p)) + eventOverhead
			}
		}
		for !s.api.delivered(pods) {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Millisecond):
			}
		}
		after := s.api.sent(s.api.live, pods)
		one.Sent = volume{after.Objects - before.Objects, after.Bytes - before.Bytes}
		for _, v := range []*volume{&one.All, &one.Sent} {
			v.Objects, v.Bytes = v.Objects/int64(n), v.Bytes/int64(n)
		}
		r.Lives = append(r.Lives, one)
	}
	return nil
}

func lifePod(what string, i int) *corev1.Pod {
	p := probePod(fmt.Sprintf("%s-%d", what, i), "client", "node-1000", eventAddress4(1000+i), eventAddress6(1000+i))
	p.UID = uid(what, i)
	return dress(p).(*corev1.Pod)
}

// lives are the states that the API server tells of until a pod is removed, of pods as
// they are when they run.
var lives = map[string]func(running *corev1.Pod) []*corev1.Pod{
	"pod of a Deployment": func(p *corev1.Pod) []*corev1.Pod {
		return append(begin(p), deleted(p), deleted(p))
	},
	"pod of a Job": func(p *corev1.Pod) []*corev1.Pod {
		done := p.DeepCopy()
		done.Status.Phase = corev1.PodSucceeded
		// The last two: its finalizer is removed, and it is deleted later.
		return append(begin(p), done, done, deleted(done))
	},
	"pod in its node's network": func(p *corev1.Pod) []*corev1.Pod {
		p.Spec.HostNetwork = true
		return append(begin(p), deleted(p), deleted(p))
	},
}

// begin is created, bound to a node, being started with conditions, running with
// addresses.
func begin(p *corev1.Pod) []*corev1.Pod {
	starting := p.DeepCopy()
	starting.Status.Phase, starting.Status.PodIP, starting.Status.PodIPs = corev1.PodPending, "", nil
	bound := starting.DeepCopy()
	bound.Status.ContainerStatuses, bound.Status.Conditions = nil, bound.Status.Conditions[:1]
	created := bound.DeepCopy()
	created.Spec.NodeName, created.Status.Conditions = "", nil
	return []*corev1.Pod{created, bound, starting, p}
}

// deleted is a pod that is to end.
func deleted(p *corev1.Pod) *corev1.Pod {
	p = p.DeepCopy()
	now := metav1.NewTime(born.Add(time.Hour))
	p.DeletionTimestamp = &now
	return p
}

// eventOverhead is what a watch puts around an object: a length, the type of the event,
// and the envelope with the object's kind.
const eventOverhead = 40

func serialized(o runtime.Object) int {
	if o, ok := o.(interface{ Size() int }); ok {
		return o.Size()
	}
	return 0
}
