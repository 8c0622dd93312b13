package control

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
)

// rangesJob is what a child of the sort "ranges" is asked for: the events of two
// clusters that differ in ranges of ports and in blocks only, in turn.
type rangesJob struct {
	Size   Size          `json:"size"`
	Events int           `json:"events"`
	Budget time.Duration `json:"budget"`
	// Profiles is a directory for a profile of both together, or empty.
	Profiles string `json:"profiles,omitempty"`
}

// rangesResult is its answer, in each field first with ranges and blocks, then without.
type rangesResult struct {
	Loaded [2]traffic  `json:"loaded"`
	Events [2][]timing `json:"events"`
}

const (
	// manyBlocks are those of one policy.
	manyBlocks = 1000
	// crowdOfBlocks policies are for one pod. Each has a port of its own, and a block
	// with too many addresses for it to be put into a set address by address.
	crowdOfBlocks = 300
)

// plainKinds stand in for all kinds of policies in a cluster without ranges and blocks.
var plainKinds = [policyKinds]int{2, 3, 2, 3, 6, 5, 6, 5, 2, 3}

// rangesCluster returns a cluster in which every policy has a range of ports and some
// blocks with exceptions, one has a thousand of these, and hundreds of others are for
// the same pod; or, if ranged is false, the same policies without.
func rangesCluster(s Size, ranged bool) *cluster {
	c := newCluster(s)
	blocks := func(first, n int) []networkingv1.NetworkPolicyPeer {
		if !ranged {
			return nil
		}
		return blocksFrom(first, n)
	}
	c.spec = func(n, kind int) networkingv1.NetworkPolicySpec {
		kind = plainKinds[kind]
		spec := policySpec(n, kind)
		if ranged {
			widen(&spec, n, blocks(3*sharedBy(n, kind), 3))
		}
		return spec
	}
	forOne := func(name string, port int32, more []networkingv1.NetworkPolicyPeer) *networkingv1.NetworkPolicy {
		peers := append(more, networkingv1.NetworkPolicyPeer{PodSelector: selector("version", name)})
		return newPolicy(home, name, ingress(*selector("app", "app-0"), numbered(port), peers...))
	}
	const behind = 3 * mostShared // the blocks of ordinary policies
	c.extra = append(c.extra, forOne("many-blocks", 9001, blocks(behind, manyBlocks)))
	for k := range crowdOfBlocks {
		c.extra = append(c.extra, forOne(fmt.Sprintf("blocks-%d", k), int32(10_000+2*k), blocks(behind+manyBlocks+k, 1)))
	}
	c.more = []pair{policyPair(policyClass, fmt.Sprintf("policy with %d blocks", manyBlocks), forOne("more-blocks", 9003, blocks(behind+2*manyBlocks, manyBlocks)))}
	return c
}

// mostShared bounds sharedBy.
const mostShared = 6000

// sharedBy returns a number that policies of a kind have in common if they have the same
// pods as peers. With blocks of their own they would have sets of peers of their own, and
// an event of a pod would be about more sets than in the cluster without blocks.
func sharedBy(n, kind int) int {
	who := namespaceName(n)
	switch kind {
	case 3:
		who = teamOf(n)
	case 5:
		who = envOf(n)
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(who)) // a hash takes everything
	return int(h.Sum32() % mostShared)
}

// blocksFrom returns n blocks that are next to no other, each with an exception. Every
// third is of IPv6.
func blocksFrom(first, n int) (out []networkingv1.NetworkPolicyPeer) {
	for i := first; i < first+n; i++ {
		if i%3 == 2 {
			out = append(out, block(fmt.Sprintf("2001:db8:%x::/48", 2*i), fmt.Sprintf("2001:db8:%x:1::/64", 2*i)))
			continue
		}
		a, b := 11+i>>15, 2*i
		out = append(out, block(fmt.Sprintf("%d.%d.%d.0/24", a, b>>8&0xff, b&0xff), fmt.Sprintf("%d.%d.%d.64/28", a, b>>8&0xff, b&0xff)))
	}
	return out
}

// widen gives every rule a range of ports and more peers.
func widen(s *networkingv1.NetworkPolicySpec, n int, peers []networkingv1.NetworkPolicyPeer) {
	first := int32(20_000 + n%100*100)
	ports := numbered(first)
	ports[0].EndPort = new(first + 50)
	for i := range s.Ingress {
		r := &s.Ingress[i]
		r.Ports, r.From = append(r.Ports, ports...), append(r.From, peers...)
	}
	for i := range s.Egress {
		r := &s.Egress[i]
		r.Ports, r.To = append(r.Ports, ports...), append(r.To, peers...)
	}
}

// runRanges is the body of a child of the sort "ranges".
func runRanges(ctx context.Context, job rangesJob) (r *rangesResult, err error) {
	r = &rangesResult{}
	var engines []*engine
	defer func() {
		for _, e := range engines {
			err = errors.Join(err, e.close())
		}
	}()
	for i, ranged := range []bool{true, false} {
		e, err := newEngine(rangesCluster(job.Size, ranged))
		if err != nil {
			return nil, err
		}
		engines = append(engines, e)
		s, err := e.start(ctx)
		if err != nil {
			return nil, err
		}
		r.Loaded[i] = s.Sent
	}
	profiles := &profiler{dir: job.Profiles, name: "ranges-" + job.Size.file()}
	err = profiles.during("events", func() error {
		events, err := timeEvents(ctx, engines, job.Events, job.Budget)
		copy(r.Events[:], events)
		return err
	})
	return r, err
}

// measureRanges runs a child of the sort "ranges".
func measureRanges(ctx context.Context, job rangesJob) (*rangesResult, error) {
	var r rangesResult
	if err := askChild(ctx, "ranges", job, &r); err != nil {
		return nil, fmt.Errorf("ranges, %s: %w", job.Size, err)
	}
	return &r, nil
}
