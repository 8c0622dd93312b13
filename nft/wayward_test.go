package nft

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// TestBarrierAtAnyTime lets everything happen in any order, with errors. What is
// forbidden is denied in every state that the kernel was in, and everything else is
// judged by the state.
func TestBarrierAtAnyTime(t *testing.T) {
	lapses, doubts := 0, 0
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 17))
		cfg := applyConfigs[seed%3]
		cfg.PodToNode = r.IntN(2) == 0
		w := &waywardWorld{t: t, r: r, cfg: cfg, state: randomState(r), rec: record(NewFake()), until: map[Tuple]time.Time{}}
		w.h = &hourglass{time.Unix(1e9, 0), w.rec.Fake}
		w.restart()
		for range 40 {
			w.step()
			w.check()
		}
		w.rec.OnSend = nil
		require.NoError(t, w.e.Repair(t.Context(), w.state))
		w.h.pass(time.Hour)
		requireLapse(t, w.e, 0)
		requireVerified(t, w.e, w.state)
		require.NotContains(t, w.rec.Snapshot()[w.e.Table()].indexed().chains, chainCut)
		lapses, doubts = lapses+w.lapses, doubts+w.doubts
	}
	t.Logf("%d lapses, %d errors", lapses, doubts)
	require.Greater(t, lapses, 10)
	require.Greater(t, doubts, 30)
}

// waywardWorld is an agent to which anything may happen.
type waywardWorld struct {
	t              *testing.T
	r              *rand.Rand
	cfg            Config
	rec            *recorder
	h              *hourglass
	e              *Enforcer
	state          ir.State
	until          map[Tuple]time.Time
	lapses, doubts int
}

func (w *waywardWorld) restart() {
	w.e = NewEnforcer(w.cfg, w.rec)
	w.e.now = w.h.now
	require.NoError(w.t, w.e.Takeover(w.t.Context(), w.state))
}

// well repairs if there was an error.
func (w *waywardWorld) well(err error) {
	w.rec.OnSend = nil
	if err == nil {
		return
	}
	w.doubts++
	if w.r.IntN(2) == 0 || errors.Is(err, ErrUncertain) && w.e.book == nil {
		require.NoError(w.t, w.e.Repair(w.t.Context(), w.state))
	}
}

func (w *waywardWorld) step() {
	ctx := w.t.Context()
	w.rec.states = w.rec.states[len(w.rec.states)-1:]
	if w.r.IntN(6) == 0 {
		countdown, lost := w.r.IntN(2), []error{errors.New("lost"), ErrUncertain}[w.r.IntN(2)]
		w.rec.OnSend = func(b Batch) error {
			add, ok := b.Ops[0].(AddElements)
			if ok && add.Set.Expires && b.Table != w.e.Table() {
				return nil // a takeover goes on without what cannot be carried over
			}
			if countdown--; countdown < 0 {
				return lost
			}
			return nil
		}
	}
	switch w.r.IntN(8) {
	case 0, 1:
		list := flows(4)[:w.r.IntN(8)]
		timeout := time.Duration(1+w.r.IntN(100)) * time.Second
		err := w.e.Forbid(ctx, list, timeout)
		w.check() // what was forbidden before
		w.rec.states = w.rec.states[len(w.rec.states)-1:]
		for _, x := range list {
			// The new timeout counts; after an error that or the old one.
			if end := w.h.now().Add(timeout); err == nil || end.Before(w.until[x]) {
				w.until[x] = end
			}
		}
		w.well(err)
	case 2:
		w.rec.OnSend = nil
		w.h.pass(time.Duration(w.r.IntN(120)) * time.Second)
	case 3:
		was := w.e.Forbidding()
		rest, err := w.e.Lapse(ctx)
		if was && err == nil && rest == 0 {
			w.lapses++
		}
		w.well(err)
	case 4:
		next := nextState(w.r, w.state)
		err := w.e.Apply(ctx, between(w.state, next))
		w.state = next
		w.rec.OnSend = nil
		if err != nil {
			require.NoError(w.t, w.e.Repair(ctx, next))
		}
	case 5:
		err := w.e.Takeover(ctx, w.state)
		w.well(err)
		if err != nil {
			require.NoError(w.t, w.e.Repair(ctx, w.state))
		}
	case 6:
		w.rec.OnSend = nil
		require.NoError(w.t, w.e.Repair(ctx, w.state))
	case 7:
		w.rec.OnSend = nil
		w.restart()
	}
}

// check sends packets into every state since the last step.
func (w *waywardWorld) check() {
	w.t.Helper()
	for _, m := range w.rec.states {
		var base []string
		for _, t := range m.tables {
			for _, c := range t.Chains {
				if c.base() {
					base = append(base, c.Name)
				}
			}
			requireBehindBarrier(w.t, w.cfg, t)
		}
		for x, until := range w.until {
			if !until.After(w.h.now()) {
				continue
			}
			require.Contains(w.t, base, chainCut)
			for _, hook := range []Hook{HookForward, HookOutput} {
				p, out := x.packet(), Accept
				p.Hook = hook
				for _, t := range m.tables {
					if v := t.Verdict(p); v != Accept {
						out = v
					}
				}
				if hook == HookForward || w.cfg.PodToNode {
					require.NotEqual(w.t, Accept, out, "%s at %s", x, hook)
				}
			}
		}
	}
	last := moment{tables: w.rec.Snapshot()}
	list := probes(w.state)
	for range 20 {
		p := list[w.r.IntN(len(list))]
		got, _ := throughAll(last, last, 1000, p)
		require.Equal(w.t, passes(w.cfg, w.state, p), got, "%+v", p)
	}
}

// requireBehindBarrier: what a table in force forbids stands behind all chains.
func requireBehindBarrier(t *testing.T, cfg Config, table *Table) {
	t.Helper()
	ix := table.indexed()
	if ix.chains[chainEgress] == nil {
		return // not in force, or not any more
	}
	for _, f := range families {
		if len(ix.sets[f.cutSet().Name].Elements) > 0 {
			for _, c := range CutChains(cfg) {
				require.NotNil(t, ix.chains[c.Name], c.Name)
			}
		}
	}
}
