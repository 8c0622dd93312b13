package agent

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"runtime/debug"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/clock"

	"github.com/portcullis-netpol/portcullis/agent/node"
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
	Elsewhere(netip.Prefix) (pod string, found bool)
	Verdict(src, dst netip.Addr, p ir.Protocol, port uint16) policy.Verdict
	Pod(netip.Addr) (*corev1.Pod, bool)
	Namespaces() []string
	Namespace(name string) (*corev1.Namespace, bool)
	PodNames(namespace string) []string
	PodNamed(namespace, name string) (*corev1.Pod, bool)
	Selected(policy string) int
	Mode(policy string) policy.Mode
}

// enforcer is what the loop asks of nft.Enforcer.
type enforcer interface {
	Takeover(context.Context, ir.State) error
	Apply(context.Context, ir.Change) error
	Repair(context.Context, ir.State) error
	SetPodCIDRs([]netip.Prefix)
	SetMidstream(bool)
	SetBridged(bool)
	Takeovers() int
	Untidy() bool
	Tidy(context.Context) error
	Forbidding() bool
	Lapse(context.Context) (time.Duration, error)
}

// loop carries what the queue holds into the kernel. Its fields belong to the
// goroutine that runs it.
type loop struct {
	node     string
	queue    *queue
	index    index
	enforcer enforcer
	health   *health
	log      *slog.Logger
	clock    clock.Clock
	// ask brings functions that the loop is to run; what follows from them is
	// written.
	ask chan func(*loop)
	// visits brings functions that only look: nothing is written because of them.
	visits      chan func(*loop)
	attachments *attachments
	connections *connections // nil: those that exist are left alone
	senders     *senders     // nil: they may send with any address
	conditions  *conditions  // nil: the node is not looked at
	// inspect ticks when the node is to be looked at.
	inspect <-chan time.Time
	// audit ticks when the table is to be read for what nobody told of.
	audit <-chan time.Time
	// bridged says that pods are, or were, attached to a bridge.
	bridged bool
	// untracked says that the node tracked no connections before the first write.
	// settled ticks once when they can be taken to be known.
	untracked bool
	settled   <-chan time.Time

	// tidy ticks once when what changes left behind, since untidySince, is to be
	// removed; nil if there is nothing.
	tidy        <-chan time.Time
	untidySince time.Time
	// lapse ticks when nothing may be forbidden any more; nil if nothing is.
	lapse <-chan time.Time

	// quarantine holds back pods that the agent does not know yet, whose
	// addresses are in blocks: fixedCIDRs, or those that the own Node named, and
	// where it named none those that were reported.
	quarantine                bool
	fixedCIDRs, named, blocks []netip.Prefix
	reports                   *reports // nil: none are taken
	advance                   *advance // nil: nothing is written before synced

	begun     bool // the source is at work
	synced    bool // the index holds everything that was there at the start
	taken     bool // the first write has succeeded
	uncertain bool // the last write has failed: the kernel holds something unknown
	rebuild   bool // the table is to be laid out otherwise
	disturbed bool // somebody else may have changed the table
	audited   bool // the table is to be read although nobody is known to have
	repairs   int  // how often somebody else's changes were undone
	backoff   wait.Backoff
	// local are the pods of this node by their addresses, "namespace/name".
	local map[netip.Addr]string
	// revision is the source's name for what the index holds, "" if it has none;
	// announced says that it was logged as in force.
	revision  string
	announced bool
	// problems are those that were logged last for each policy and namespace.
	problems map[key][]policy.Problem
	policies policyRecords
	warnings *warnings // nil: nobody takes Events
	meters   *meters   // nil: nobody counts
	counted  counted   // the table in force; nil: it is not counted
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
	l.problems, l.local, l.policies = map[key][]policy.Problem{}, map[netip.Addr]string{}, newPolicyRecords()
	l.backoff = retries()
	var retry <-chan time.Time
	for {
		l.lapseLater()
		select {
		case <-ctx.Done():
			return nil
		case <-l.queue.wake:
			l.absorb(l.queue.take())
		case f := <-l.ask:
			f(l)
		case f := <-l.visits:
			f(l)
			continue
		case <-l.connections.again():
			l.connections.lookAgain(ctx)
			continue
		case <-l.inspect:
			l.lookAtNode(ctx)
			if l.taken {
				l.bindSenders(ctx) // if that has failed
			}
			if !l.rebuild {
				continue
			}
		case <-l.audit:
			l.audited = true
		case <-l.settled:
			l.settled = nil
			l.enforcer.SetMidstream(true)
			l.rebuild = true
		case <-l.tidy:
			l.tidy = nil
			if retry == nil {
				retry = l.tidyUp(ctx)
			}
			continue
		case <-l.lapse:
			l.lapse = l.lapsed(ctx)
			continue
		case <-l.advance.again():
			l.advance.rest()
		case <-retry:
			retry = nil
		}
		if retry != nil {
			continue // what came in will be part of the repair
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
	l.meters.took(b.events, b.since)
	for _, e := range b.events {
		switch o := e.object.(type) {
		case *corev1.Pod:
			l.index.SetPod(l.attachments.describe(e.key, o))
			l.warnings.setPod(o)
			l.meet(o)
		case *corev1.Namespace:
			l.index.SetNamespace(o)
			problems := policy.CheckNamespace(o)
			l.report(e.key, problems)
			l.warnings.setNamespace(o, problems)
		case *networkingv1.NetworkPolicy:
			l.policies.set(o)
			problems := l.index.SetNetworkPolicy(o)
			l.report(e.key, problems)
			l.warnings.setProblems(o, problems)
		case *corev1.Node:
			l.ownNode(o)
		case nil:
			l.remove(e.key)
			l.warnings.remove(e.key)
		}
	}
	l.disturbed = l.disturbed || b.disturbed
	if b.interfaces {
		l.senders.disturbed()
	}
	l.begun = l.begun || b.begun
	if b.synced && !l.synced {
		l.synced = true
		l.takeOffers()
	}
	if b.marked {
		l.revision, l.announced = b.revision, false
	}
}

func (l *loop) remove(k key) {
	switch k.kind {
	case podKind:
		l.attachments.forget(k)
		l.index.DeletePod(k.namespace, k.name)
	case namespaceKind:
		l.index.DeleteNamespace(k.name)
		l.report(k, nil)
	case policyKind:
		l.policies.remove(k.namespace, k.name)
		l.index.DeleteNetworkPolicy(k.namespace, k.name)
		l.report(k, nil)
	}
}

// report logs the problems of a policy, or of a namespace, where they are not those it
// had before.
func (l *loop) report(k key, problems []policy.Problem) {
	if slices.Equal(problems, l.problems[k]) {
		return
	}
	l.meters.policyProblems(l.problems[k], problems)
	delete(l.problems, k)
	if len(problems) > 0 {
		l.problems[k] = problems
	}
	for _, p := range problems {
		message := "part of a policy cannot be enforced as written; it allows nothing"
		if !closes(p) {
			message = "an annotation means nothing; policies are enforced as if it were not there"
		}
		l.log.Warn(message, "object", p.Object, "field", p.Field, "reason", p.Reason)
	}
}

// turn brings the kernel to what the index holds. It returns nil, or what to wait
// for before the next attempt.
func (l *loop) turn(ctx context.Context) <-chan time.Time {
	if !l.synced {
		if l.begun && l.advance.hold(ctx, l.blocks, l.disturbed || l.audited) {
			l.disturbed, l.audited = false, false
		}
		return nil
	}
	l.health.notReady(aboutObjects, "")
	defer l.health.doing("")
	l.health.doing("writing rules")
	began := l.clock.Now()
	operation, err := l.write(ctx)
	if operation != "" && ctx.Err() == nil {
		l.meters.committed(operation, began, err)
	}
	if err == nil {
		l.succeeded()
		l.bindSenders(ctx)
		l.attachments.answer()
		l.connections.look(ctx)
		return nil
	}
	if ctx.Err() != nil {
		return nil // told to stop half way, at a point where every state is legal
	}
	return l.failed(err)
}

// write sends what has to be sent: everything the first time and where the layout
// changes, what is not as it should be after a failure and where that is possible,
// otherwise what has changed. It says what that was, "" if there was nothing to send.
func (l *loop) write(ctx context.Context) (operation string, err error) {
	change := l.index.Flush()
	l.warnings.flushed(change)
	l.connections.changed(change)
	l.localPods(ctx, change)
	switch {
	case !l.taken || l.rebuild:
		l.connections.everything(false)
		return opTakeover, l.enforcer.Takeover(ctx, l.index.State())
	case l.uncertain || l.disturbed || l.audited:
		l.senders.disturbed() // whoever flushes our table flushes that of the devices, too
		return opRepair, l.repair(ctx)
	case change.Empty():
		return "", nil
	}
	err = l.enforcer.Apply(ctx, change)
	l.tidySoon()
	return opApply, err
}

// lookAtNode looks for settings of the node that let packets past the rules.
func (l *loop) lookAtNode(ctx context.Context) {
	local := node.Local{PodCIDRs: l.blocks, Addrs: slices.SortedFunc(maps.Keys(l.local), netip.Addr.Compare)}
	for _, at := range l.attachments.list {
		if at.device != "" {
			local.Devices = append(local.Devices, at.device)
		}
	}
	if l.conditions.inspect(ctx, local, l.warnings) && !l.bridged {
		l.bridged, l.rebuild = true, true
		l.enforcer.SetBridged(true)
	}
}

// repair looks at what the kernel holds and makes it what it should be.
func (l *loop) repair(ctx context.Context) error {
	before := l.enforcer.Takeovers()
	if err := l.enforcer.Repair(ctx, l.index.State()); err != nil {
		return err
	}
	if l.enforcer.Takeovers() == before {
		return nil // it is what it should be
	}
	l.connections.everything(!l.uncertain)
	if !l.uncertain {
		l.repaired(ofTable, "another program has changed or removed the rules; they are in force again")
	}
	return nil
}

// repaired tells that something of what others did was undone.
func (l *loop) repaired(what, message string) {
	l.repairs++
	l.meters.repaired(what)
	l.log.Warn(message, "repairs", l.repairs)
	l.warnings.ofNode(repairedReason, message)
}

// bindSenders writes the rules of the pods' interfaces, if anything has changed.
func (l *loop) bindSenders(ctx context.Context) {
	if l.senders.sync(ctx, l.local) {
		l.repaired(ofInterfaces, "another program has changed or removed the rules of pods' interfaces; they are in force again")
	}
}
