package control

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// churnResult is what pods that come and go cost, and whether anything went wrong.
type churnResult struct {
	Events int
	Took   time.Duration
	// Delays are from when the API server has an event to when the kernel has what
	// follows from it, in milliseconds, in the order of the events.
	Delays []float64
	// Coalesced is the number of events that had no commit of their own, because a
	// later event of the same pod was there when the agent looked.
	Coalesced int
	// Backlog is the largest number of events that were not in the kernel yet.
	Backlog int
	// CPU is the share of one processor that the agent took.
	CPU float64
	// Bytes is what was sent to the agent for each event.
	Bytes float64
	// Packets were sent in all, and Wrong met a wrong verdict.
	Packets, Wrong int64
	Sent           traffic
}

// event is a change of a pod that was announced.
type event struct {
	kind int // 0: the pod is there, 1: it was relabelled, 2: it is gone
	at   time.Time
}

// lastPod is the number of a pod that comes behind all others.
const lastPod = 60_000

// lag is how many other pods come between two events of one.
const lag = 100

// churn lets pods of another node come, be relabelled and go, and sends packets whose
// verdict does not depend on it all the while.
func (s *scene) churn(ctx context.Context, plan agentPlan) (*churnResult, error) {
	before, err := s.status(agentRequest{Profile: "churn"})
	if err != nil {
		return nil, err
	}
	traffic, err := s.startProbing(ctx)
	if err != nil {
		return nil, err
	}
	sent := s.api.sent(s.api.live, pods)
	begin := time.Now()
	life, n, err := s.events(ctx, int(plan.Churn.Seconds()*float64(plan.Rate)), plan.Rate)
	took := time.Since(begin)
	if err != nil {
		return nil, errors.Join(err, traffic.stop(nil))
	}
	r := &churnResult{Events: n, Took: took}
	after, err := s.status(agentRequest{})
	if err != nil {
		return nil, errors.Join(err, traffic.stop(nil))
	}
	r.CPU = (after.CPU - before.CPU).Seconds() / took.Seconds()
	commits := after.Commits
	// The last pod of all: when it is in the kernel, everything is.
	s.api.set(churnPod(lastPod))
	for last := eventAddress4(1000 + lastPod); !slices.ContainsFunc(after.Commits, func(c commit) bool { return c.Addr == last }); {
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), traffic.stop(nil))
		case <-time.After(10 * time.Millisecond):
		}
		if after, err = s.status(agentRequest{}); err != nil {
			return nil, errors.Join(err, traffic.stop(nil))
		}
		commits = append(commits, after.Commits...)
	}
	r.Sent = after.Sent.minus(before.Sent)
	r.Bytes = float64(s.api.sent(s.api.live, pods).Bytes-sent.Bytes) / float64(n)
	r.match(life, commits)
	return r, traffic.stop(r)
}

// events makes n events at a rate, and returns when each pod's were acknowledged.
func (s *scene) events(ctx context.Context, n, rate int) (life map[netip.Addr][]event, made int, err error) {
	life = map[netip.Addr][]event{}
	begin := time.Now()
	for i := 0; made < n; i++ {
		kind := i % 3
		k := i/3 - kind*lag
		if k < 0 {
			continue // the pod is not there yet
		}
		p := churnPod(k)
		addr := eventAddress4(1000 + k)
		var at time.Time
		switch kind {
		case 0:
			at = s.api.set(p)
		case 1:
			p.Labels["app"] = "other"
			at = s.api.set(p)
		case 2:
			p.Labels["app"] = "other"
			at = s.api.remove(p)
		}
		life[addr] = append(life[addr], event{kind, at})
		made++
		due := begin.Add(time.Duration(made) * time.Second / time.Duration(rate))
		select {
		case <-ctx.Done():
			return life, made, ctx.Err()
		case <-time.After(time.Until(due)):
		}
	}
	return life, made, nil
}

func churnPod(k int) *corev1.Pod {
	p := probePod(fmt.Sprintf("churn-%d", k), "client", "node-1000", eventAddress4(1000+k), eventAddress6(1000+k))
	p.UID = uid("churn", k)
	dress(p)
	return p
}

// match finds the commit of each event. Those of a pod that had all three are: it
// joins, it leaves one set and joins another in any order, it leaves.
func (r *churnResult) match(life map[netip.Addr][]event, commits []commit) {
	var joins, leaves = map[netip.Addr][]time.Time{}, map[netip.Addr][]time.Time{}
	for _, c := range commits {
		if c.Join {
			joins[c.Addr] = append(joins[c.Addr], c.At)
		} else {
			leaves[c.Addr] = append(leaves[c.Addr], c.At)
		}
	}
	var done []interval
	for addr, events := range life {
		for _, e := range events {
			list := joins[addr]
			i := e.kind
			if e.kind == 2 {
				list, i = leaves[addr], 1
			}
			if i >= len(list) || len(joins[addr]) < min(2, len(events)) {
				r.Coalesced++
				continue
			}
			done = append(done, interval{e.at, list[i]})
		}
	}
	r.Delays, r.Backlog = summarize(done)
}
