package testcases

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/portcullis-netpol/portcullis/nft"
	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// TestRandomEvents changes clusters step by step and compares the incremental with
// the fresh, and every state of the table on the way with what was before the step
// and what is after it.
func TestRandomEvents(t *testing.T) {
	t.Parallel()
	var count counts
	for _, seed := range seeds(t, defaultSeeds/10) {
		m := newMaker(seed)
		c := m.cluster()
		start := c.copy()
		var steps [][]event
		for range 15 {
			var events []event
			for range pick(m, 1, 1, 1, 2, 4) {
				events = append(events, m.change(c))
			}
			steps = append(steps, events)
		}
		if err := followEvents(t.Context(), seed, start, steps, &count); err != nil {
			small := shrinkSteps(steps, func(s [][]event) bool { return followEvents(t.Context(), seed, start, s, &counts{}) != nil })
			err = followEvents(t.Context(), seed, start, small, &count)
			t.Fatalf("seed %d: %v\nbegin with\n%s\nthen\n%s", seed, err, start.yaml(), yamlOfSteps(small))
		}
	}
	t.Logf("%d changes applied in parts, %d repaired as a whole", count.applied, count.repaired)
	require.Less(t, count.repaired, max(2, count.applied/100), "what should be the exception is not")
}

// counts tells how changes were carried out.
type counts struct{ applied, repaired int }

// followEvents plays events from a cluster on.
func followEvents(ctx context.Context, seed uint64, start *cluster, steps [][]event, count *counts) error {
	c := start.copy()
	watchers := map[string]*watcher{}
	for _, n := range nodeNames {
		w, err := newWatcher(ctx, n)
		if err != nil {
			return err
		}
		watchers[n] = w
	}
	steps = append([][]event{c.everything()}, steps...)
	for i, events := range steps {
		for _, e := range events {
			c.replay(e)
		}
		probes := newMaker(seed).flows(c, 60)
		for _, n := range nodeNames {
			if err := watchers[n].step(ctx, c, events, probes); err != nil {
				return fmt.Errorf("step %d: %w", i, err)
			}
		}
	}
	for _, w := range watchers {
		count.applied += w.applied
		count.repaired += w.repaired
	}
	return nil
}

// watcher follows events on a node and looks at the table after every batch.
type watcher struct {
	*follower
	kernel *watchedKernel
	state  ir.State
}

// watchedKernel is a kernel in memory that tells when a batch was carried out.
type watchedKernel struct {
	*nft.Fake
	sent func()
}

func (k *watchedKernel) Send(ctx context.Context, b nft.Batch) error {
	err := k.Fake.Send(ctx, b)
	if err == nil && k.sent != nil {
		k.sent()
	}
	return err
}

func newWatcher(ctx context.Context, node string) (*watcher, error) {
	k := &watchedKernel{Fake: nft.NewFake()}
	f, err := newFollower(ctx, node, k, tableConfig)
	return &watcher{follower: f, kernel: k}, err
}

// step carries out events as one change.
func (w *watcher) step(ctx context.Context, c *cluster, events []event, probes []check) error {
	feed(w.index, events)
	change := w.index.Flush()
	next := w.index.State()
	if err := w.checkState(c, change, next); err != nil {
		return err
	}
	after, err := nft.Build(tableConfig, "portcullis-a", next)
	if err != nil {
		return err
	}
	before, err := w.table(ctx)
	if err != nil {
		return err
	}
	seen := newTransition(w.packets(c, probes), before, after, len(events) == 1)
	w.kernel.sent = func() { seen.look(w.kernel.Snapshot()) }
	if err = w.apply(ctx, change); err == nil {
		err = w.enforcer.Tidy(ctx)
	}
	w.kernel.sent = nil
	if err := errors.Join(err, seen.err); err != nil {
		return err
	}
	w.state = next
	table, err := w.table(ctx)
	if err != nil {
		return err
	}
	if diff := nft.Diff(after, table); len(diff) > 0 {
		return fmt.Errorf("%s: the table that grew differs from the fresh one: %v", w.node, diff)
	}
	return nil
}

func (w *watcher) checkState(c *cluster, change ir.Change, next ir.State) error {
	if err := sameState(c.fresh(w.node), next); err != nil {
		return fmt.Errorf("%s: incremental against fresh: %w", w.node, err)
	}
	applied, err := w.state.Apply(change)
	if err != nil {
		return fmt.Errorf("%s: the change does not fit: %w", w.node, err)
	}
	if err := sameState(next, applied); err != nil {
		return fmt.Errorf("%s: what the change leads to: %w", w.node, err)
	}
	if change.Empty() != (sameState(w.state, next) == nil) {
		return fmt.Errorf("%s: the change is empty: %v, and the states are not like that", w.node, change.Empty())
	}
	return nil
}

// packets are the probes as this node sees them.
func (w *watcher) packets(c *cluster, probes []check) []nft.Packet {
	var out []nft.Packet
	for _, ch := range probes {
		paths, err := c.paths(ch)
		if err != nil {
			continue
		}
		for _, p := range paths {
			for _, l := range p.Legs {
				if l.Node == w.node {
					out = append(out, packetOf(l, ch))
				}
			}
		}
	}
	return out
}

// transition watches the way from one table to another: every packet's outcome is
// the one of before until it is the one of after, and stays so.
//
// That is asked of each direction. A change of a single object must keep it for
// both together, too: then no packet passes that neither the old nor the new
// cluster lets pass. (Of several objects one may change before the other.)
type transition struct {
	packets []nft.Packet
	views   []*view
	err     error
}

// view is a part of the base chains, and what packets find there.
type view struct {
	name          string
	without       string // the base chain that it leaves out
	before, after []nft.Outcome
	switched      []bool
}

func newTransition(packets []nft.Packet, before, after *nft.Table, single bool) *transition {
	tr := &transition{packets: packets, views: []*view{{name: "egress", without: "ingress"}, {name: "ingress", without: "egress"}}}
	if single {
		tr.views = append(tr.views, &view{name: "both directions"})
	}
	for _, v := range tr.views {
		v.before, v.after = v.outcomes(before, packets), v.outcomes(after, packets)
		v.switched = make([]bool, len(packets))
	}
	return tr
}

func (v *view) outcomes(t *nft.Table, packets []nft.Packet) []nft.Outcome {
	part := &nft.Table{Name: t.Name, Sets: t.Sets, Maps: t.Maps}
	for _, c := range t.Chains {
		if c.Name != v.without {
			part.Chains = append(part.Chains, c)
		}
	}
	out := make([]nft.Outcome, len(packets))
	for i, p := range packets {
		out[i] = part.Verdict(p)
	}
	return out
}

// look compares what packets find in the tables at the moment.
func (tr *transition) look(tables map[string]*nft.Table) {
	for _, v := range tr.views {
		have := make([]nft.Outcome, len(tr.packets))
		for i := range have {
			have[i] = nft.Accept
		}
		for _, t := range tables {
			for i, o := range v.outcomes(t, tr.packets) {
				if o != nft.Accept {
					have[i] = o
				}
			}
		}
		for i, p := range tr.packets {
			switch {
			case tr.err != nil:
			case have[i] != v.before[i] && have[i] != v.after[i]:
				tr.err = fmt.Errorf("%+v: %s: %v on the way from %v to %v", p, v.name, have[i], v.before[i], v.after[i])
			case v.switched[i] && have[i] != v.after[i]:
				tr.err = fmt.Errorf("%+v: %s: back from %v to %v on the way", p, v.name, v.after[i], v.before[i])
			}
			v.switched[i] = v.switched[i] || have[i] != v.before[i]
		}
	}
}
