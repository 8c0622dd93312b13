package agent

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/portcullis-netpol/portcullis/agent/admin"
	"github.com/portcullis-netpol/portcullis/policy"
)

// policyRecord is a policy as the loop has it, and what of it is in force.
type policyRecord struct {
	object  *networkingv1.NetworkPolicy // nobody changes it
	inForce *networkingv1.NetworkPolicy // nil if the kernel has not held it yet
	since   time.Time                   // when inForce came to be
}

// policyRecords are all policies, by namespace and name, and those of them whose newest
// state the kernel may not hold yet.
type policyRecords struct {
	all       map[string]map[string]*policyRecord
	unwritten map[*policyRecord]bool
}

func newPolicyRecords() policyRecords {
	return policyRecords{map[string]map[string]*policyRecord{}, map[*policyRecord]bool{}}
}

// find returns the policy called "namespace/name", nil if there is none.
func (r policyRecords) find(policy string) *policyRecord {
	namespace, name, _ := strings.Cut(policy, "/")
	return r.all[namespace][name]
}

// keys returns those of all policies, in any order.
func (r policyRecords) keys() (out []key) {
	for namespace, in := range r.all {
		for name := range in {
			out = append(out, key{policyKind, namespace, name})
		}
	}
	return out
}

// set takes in the newest state of a policy.
func (r policyRecords) set(p *networkingv1.NetworkPolicy) {
	in := r.all[p.Namespace]
	if in == nil {
		in = map[string]*policyRecord{}
		r.all[p.Namespace] = in
	}
	if in[p.Name] == nil {
		in[p.Name] = &policyRecord{}
	}
	in[p.Name].object = p
	r.unwritten[in[p.Name]] = true
}

// remove forgets a policy.
func (r policyRecords) remove(namespace, name string) {
	in := r.all[namespace]
	delete(r.unwritten, in[name])
	if delete(in, name); len(in) == 0 {
		delete(r.all, namespace)
	}
}

// written is called when the kernel holds what the loop has taken in.
func (r policyRecords) written(now time.Time) {
	for p := range r.unwritten {
		if p.inForce == nil || !sameRules(p.inForce, p.object) {
			p.since = now
		}
		p.inForce = p.object
	}
	clear(r.unwritten)
}

// sameRules reports whether nothing is new but what policies do not depend on.
func sameRules(a, b *networkingv1.NetworkPolicy) bool {
	return a == b || a.UID == b.UID && a.Generation == b.Generation && a.Generation != 0 && maps.Equal(a.Annotations, b.Annotations)
}

// status describes the loop's part of the agent's state.
func (l *loop) status(s *admin.State) {
	if l.announced {
		s.Revision = l.revision
	}
	if l.counted != nil {
		s.Table = l.counted.Table()
		s.Rules, s.Sets, s.Elements = l.counted.Size()
	}
	s.Pods, s.Quarantined = l.ownPods()
	slices.Sort(s.Quarantined)
}

// policyStatus describes a policy; not ok if it has gone.
func (l *loop) policyStatus(k key) (status admin.PolicyStatus, ok bool) {
	r, full := l.policies.all[k.namespace][k.name], k.namespace+"/"+k.name
	if r == nil {
		return status, false
	}
	status = admin.PolicyStatus{
		Namespace: k.namespace, Name: k.name, Generation: r.object.Generation, Since: r.since,
		Mode: l.index.Mode(full).String(), Pods: l.index.Selected(full),
	}
	if r.inForce != nil {
		status.InForce = r.inForce.Generation
	}
	for _, p := range l.problems[k] {
		status.Problems = append(status.Problems, admin.Problem{Field: p.Field, Reason: p.Reason})
	}
	if _, says := r.object.Annotations[policy.AnnotationMode]; !says {
		for _, p := range l.problems[key{namespaceKind, "", k.namespace}] {
			status.Problems = append(status.Problems, admin.Problem{Field: p.Object + ": " + p.Field, Reason: p.Reason})
		}
	}
	return status, true
}

const (
	// statusWithin is how long State waits for the loop.
	statusWithin = 5 * time.Second
	// perVisit is how many policies are described, or objects copied, in one visit to the
	// loop.
	perVisit = 200
)

// State returns what the agent is and what it has in force. The loop is asked for some
// policies at a time. While it is busy, what is told is less, and says so.
func (b *backend) State(ctx context.Context) (admin.State, error) {
	s := admin.State{Node: b.node, Version: b.version, Started: b.started, Policies: []admin.PolicyStatus{}}
	ctx, cancel := context.WithTimeout(ctx, statusWithin)
	defer cancel()
	// First, so that what an agent says that calls itself ready is what it has in force.
	s.Obstacles = b.health.obstacles()
	var keys []key
	err := b.visits.do(ctx, func(l *loop) {
		l.status(&s)
		keys = l.policies.keys()
	})
	slices.SortFunc(keys, compareKeys)
	for some := range slices.Chunk(keys, perVisit) {
		if err != nil {
			break
		}
		err = b.visits.do(ctx, func(l *loop) {
			for _, k := range some {
				if status, ok := l.policyStatus(k); ok {
					s.Policies = append(s.Policies, status)
				}
			}
		})
	}
	if err != nil {
		s.Obstacles = append(s.Obstacles, "this is not all: "+err.Error())
	}
	s.Ready = len(s.Obstacles) == 0
	return s, nil
}
