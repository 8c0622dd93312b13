package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/clock"

	"github.com/portcullis-netpol/portcullis/nft"
	"github.com/portcullis-netpol/portcullis/policy"
	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// index is what the loop asks of policy.Index.
type index interface {
	SetPod(*corev1.Pod)
	DeletePod(namespace, name string)
	SetNamespace(*corev1.Namespace)
	DeleteNamespace(name string)
	SetNetworkPolicy(*networkingv1.NetworkPolicy) []policy.Problem
	DeleteNetworkPolicy(namespace, name string)
	Flush() ir.Change
	State() ir.State
}

// enforcer is what the loop asks of nft.Enforcer.
type enforcer interface {
	Takeover(context.Context, ir.State) error
	Apply(context.Context, ir.Change) error
	Repair(context.Context, ir.State) error
}

// loop carries what the queue holds into the kernel. Its fields belong to the
// goroutine that runs it.
type loop struct {
	queue    *queue
	index    index
	enforcer enforcer
	health   *health
	log      *slog.Logger
	clock    clock.Clock

	synced    bool // the index holds everything that was there at the start
	taken     bool // the first write has succeeded
	uncertain bool // the last write has failed: the kernel holds something unknown
	backoff   wait.Backoff
	// revision is the source's name for what the index holds, "" if it has none;
	// announced says that it was logged as in force.
	revision  string
	announced bool
	// problems are those that were logged last for each policy.
	problems map[key][]policy.Problem
	warnings *warnings // nil: nobody takes Events
}

// retries returns the pauses between attempts at a repair: 100 ms doubling up to
// 30 s, each up to half as long again, so that the agents of a cluster do not keep
// step.
func retries() wait.Backoff {
	return wait.Backoff{Duration: 100 * time.Millisecond, Factor: 2, Jitter: 0.5, Steps: 100, Cap: 30 * time.Second}
}

// run works until ctx ends, and returns nil then. A panic becomes an error: the
// process is to end with the rules in force, and a new one to take them over.
func (l *loop) run(ctx context.Context) (err error) {
	defer func() {
		if r := recover(); r != nil {
			l.log.Error("panic in the agent's loop; the rules stay in force", "panic", r, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic in the agent's loop: %v", r)
		}
	}()
	l.problems = map[key][]policy.Problem{}
	l.backoff = retries()
	var retry <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.queue.wake:
			l.absorb(l.queue.take())
			if retry != nil {
				continue // what came in will be part of the repair
			}
		case <-retry:
		}
		if retry = l.turn(ctx); ctx.Err() != nil {
			return nil
		}
	}
}

// absorb takes b into the index.
func (l *loop) absorb(b batch) {
	l.health.doing("compiling policies")
	defer l.health.doing("")
	for _, e := range b.events {
		switch o := e.object.(type) {
		case *corev1.Pod:
			l.index.SetPod(o)
			l.warnings.setPod(o)
		case *corev1.Namespace:
			l.index.SetNamespace(o)
		case *networkingv1.NetworkPolicy:
			problems := l.index.SetNetworkPolicy(o)
			l.report(e.key, problems)
			l.warnings.setProblems(o, problems)
		case nil:
			l.remove(e.key)
			l.warnings.remove(e.key)
		}
	}
	l.synced = l.synced || b.synced
	if b.marked {
		l.revision, l.announced = b.revision, false
	}
}

func (l *loop) remove(k key) {
	switch k.kind {
	case podKind:
		l.index.DeletePod(k.namespace, k.name)
	case namespaceKind:
		l.index.DeleteNamespace(k.name)
	case policyKind:
		l.index.DeleteNetworkPolicy(k.namespace, k.name)
		delete(l.problems, k)
	}
}

// report logs the problems of a policy where they are not those it had before.
func (l *loop) report(k key, problems []policy.Problem) {
	if slices.Equal(problems, l.problems[k]) {
		return
	}
	delete(l.problems, k)
	if len(problems) > 0 {
		l.problems[k] = problems
	}
	for _, p := range problems {
		l.log.Warn("part of a policy cannot be enforced as written; it allows nothing",
			"object", p.Object, "field", p.Field, "reason", p.Reason)
	}
}

// turn brings the kernel to what the index holds. It returns nil, or what to wait
// for before the next attempt.
func (l *loop) turn(ctx context.Context) <-chan time.Time {
	if !l.synced {
		return nil
	}
	l.health.notReady(aboutObjects, "")
	defer l.health.doing("")
	l.health.doing("writing rules")
	err := l.write(ctx)
	if err == nil {
		l.succeeded()
		return nil
	}
	if ctx.Err() != nil {
		return nil // told to stop half way, at a point where every state is legal
	}
	return l.failed(err)
}

// write sends what has to be sent: everything the first time and after a failure,
// otherwise what has changed.
func (l *loop) write(ctx context.Context) error {
	change := l.index.Flush()
	l.warnings.flushed(change)
	switch {
	case !l.taken:
		return l.enforcer.Takeover(ctx, l.index.State())
	case l.uncertain:
		return l.enforcer.Repair(ctx, l.index.State())
	case change.Empty():
		return nil
	}
	return l.enforcer.Apply(ctx, change)
}

func (l *loop) succeeded() {
	if l.uncertain {
		l.log.Info("repaired: the kernel holds what it should")
	}
	l.taken, l.uncertain, l.backoff = true, false, retries()
	l.health.notReady(aboutRules, "")
	l.health.unhealthy(aboutRules, "")
	if l.revision != "" && !l.announced {
		l.log.Info("in force", "revision", l.revision)
	}
	l.announced = true
}

func (l *loop) failed(err error) <-chan time.Time {
	l.uncertain = true
	l.health.unhealthy(aboutRules, err.Error())
	pause := l.backoff.Step()
	msg := "the rules could not be written; what was in force stays in force"
	if errors.Is(err, nft.ErrUncertain) {
		msg = "the outcome of a write to the kernel is unknown; looking at what it holds"
	}
	l.log.Error(msg, "error", err, "retryIn", pause)
	return l.clock.After(pause)
}
