package nft

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// barrier is the chains that look for what is forbidden. Packets of every flow enter a
// base chain, which costs them something, and hardly ever is anything forbidden. So these
// chains are there only while something is: all of them, or none. No element comes
// without them, and none of them goes before the last element.
type barrier struct {
	// chains are those that the table in force has while it is up.
	chains []*Chain
	// up says that they are there. Where doubtful is set that is not known, or packets
	// may be on their way that came by before they were there.
	up, doubtful bool
	// until is when the last timeout has passed.
	until time.Time
}

// CutChains returns the chains that a table has beside those of Build while something is
// forbidden.
func CutChains(cfg Config) []*Chain {
	chains := []*Chain{{Name: chainCut, Hook: HookForward, Priority: priorityCut, Rules: forwardCutRules()}}
	if cfg.PodToNode {
		chains = append(chains, &Chain{Name: chainFromHost, Hook: HookOutput, Priority: priorityFromHost, Rules: fromHostRules()})
	}
	if cfg.Midstream && cfg.Bridged {
		chains = append(chains, &Chain{Name: chainBeforeNAT, Hook: HookPrerouting, Priority: priorityBeforeNAT, Rules: beforeNATRules()})
	}
	return chains
}

// outlasts notes that something is forbidden for a time.
func (b *barrier) outlasts(now time.Time, timeout time.Duration) {
	if end := now.Add(timeout); end.After(b.until) {
		b.until = end
	}
}

// bar adds elements to the sets of what is forbidden, behind a barrier. Connection
// tracking is asked at the hooks of the node's own packets and of those that arrive as
// well. A packet that came there before the barrier would pass by it although its flow is
// forgotten later on: hence the wait, which takes milliseconds, and only here.
func (e *Enforcer) bar(ctx context.Context, elements []unit, timeout time.Duration) error {
	if err := e.findBarrier(ctx); err != nil {
		return err
	}
	fresh := !e.barrier.up || e.barrier.doubtful
	if !e.barrier.up {
		elements = slices.Concat([]unit{createBase(e.barrier.chains)}, elements)
	}
	e.barrier.doubtful = fresh
	if err := e.send(ctx, e.table, []step{{units: elements}}); err != nil {
		// Some may be there.
		e.barrier.outlasts(e.now(), timeout)
		return err
	}
	e.barrier.up = true
	e.barrier.outlasts(e.now(), timeout)
	if fresh {
		if err := e.kernel.Grace(ctx); err != nil {
			return err
		}
	}
	e.barrier.doubtful = false
	return nil
}

// findBarrier finds out whether the barrier is up, if that is not known. Chains and rules
// of it come in one batch, and go in one.
func (e *Enforcer) findBarrier(ctx context.Context) error {
	if !e.barrier.doubtful {
		return nil
	}
	base, err := e.kernel.BaseChains(ctx, e.table)
	if err != nil {
		return err
	}
	there := 0
	for _, c := range e.barrier.chains {
		if slices.Contains(base, c.Name) {
			there++
		}
	}
	e.barrier.up, e.barrier.doubtful = there > 0, there > 0
	if there > 0 && there < len(e.barrier.chains) {
		return fmt.Errorf("%w: %d of %d chains for what is forbidden", ErrUncertain, there, len(e.barrier.chains))
	}
	return nil
}

// Forbidding reports whether the chains are, or may be, in force that look for what is
// forbidden: since a Forbid, or a Takeover of a table that had something forbidden.
func (e *Enforcer) Forbidding() bool { return e.barrier.up || e.barrier.doubtful }

// Lapse takes these chains away if nothing is forbidden any more, and otherwise returns
// how long to wait before it is called again. It changes no verdict. After an error
// nothing that is forbidden passes, and Lapse may be called again.
func (e *Enforcer) Lapse(ctx context.Context) (rest time.Duration, err error) {
	if e.table == "" || !e.Forbidding() {
		return 0, nil
	}
	if rest = e.barrier.until.Sub(e.now()); rest > 0 {
		return rest, nil
	}
	if err := e.findBarrier(ctx); err != nil {
		return 0, fmt.Errorf("lapse: %w", err)
	}
	// The kernel has the last word, which is about its own clock.
	for _, f := range families {
		list, err := e.kernel.Elements(ctx, e.table, f.cutSet())
		if err != nil {
			return 0, fmt.Errorf("lapse: %w", err)
		}
		if len(list) > 0 {
			return time.Second, nil
		}
	}
	if e.barrier.up {
		var names []string
		for _, c := range e.barrier.chains {
			names = append(names, c.Name)
		}
		e.barrier.doubtful = true
		if err := e.send(ctx, e.table, []step{{units: []unit{removeBase(names)}}}); err != nil {
			return 0, fmt.Errorf("lapse: %w", err)
		}
	}
	e.barrier.up, e.barrier.doubtful = false, false
	return 0, nil
}
