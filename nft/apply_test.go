package nft

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// recorder keeps every state that a Fake was in.
type recorder struct {
	*Fake
	states []moment
}

// moment is a state of all tables. Packets that entered in front of a grace
// period are gone behind it.
type moment struct {
	grace  bool
	tables map[string]*Table
}

func record(f *Fake) *recorder {
	return &recorder{f, []moment{{tables: f.Snapshot()}}}
}

func (r *recorder) Send(ctx context.Context, b Batch) error {
	err := r.Fake.Send(ctx, b)
	if len(b.Ops) > 0 {
		r.states = append(r.states, moment{tables: r.Snapshot()})
	}
	return err
}

func (r *recorder) Grace(ctx context.Context) error {
	last := r.states[len(r.states)-1]
	r.states = append(r.states, moment{true, last.tables})
	return r.Fake.Grace(ctx)
}

// direction decides about a packet in one direction, in a table that may change
// after the packet looked n times; changed is false if it did not look so often.
func direction(d ir.Direction, table string, before, after moment, n int, p ir.Packet) (out Outcome, changed bool) {
	chain := map[ir.Direction]string{ir.Egress: chainEgress, ir.Ingress: chainIngress}[d]
	w := walker{p: packet(p), now: func() *index {
		m := before
		if n--; n < 0 {
			m = after
		}
		return m.tables[table].indexed()
	}}
	if out, final := w.chain(chain, 0); final {
		return out, n < 0
	}
	return Accept, n < 0
}

// requireLegal checks every state that was recorded, and every packet that met
// two of them, for one verdict of each direction.
func requireLegal(t *testing.T, cfg Config, r *recorder, table string, from, to ir.State, list []ir.Packet) {
	t.Helper()
	for _, d := range directions {
		for _, p := range list {
			own := p.Src
			if d == ir.Ingress {
				own = p.Dst
			}
			straddles := !isNew(cfg, from, to, p)
			if p.Src == p.Dst && !straddles {
				continue
			}
			was, is := outcome(from.Verdict(d, p)), outcome(to.Verdict(d, p))
			if held(cfg, from, own) {
				was = Drop
			}
			if held(cfg, to, own) {
				is = Drop
			}
			flipped := was
			for i, m := range r.states {
				got, _ := direction(d, table, m, m, 0, p)
				if got != was && got != is {
					t.Fatalf("%s %+v: %s in state %d of %d", d, p, got, i, len(r.states))
				}
				if was != is && flipped == is && got != is {
					t.Fatalf("%s %+v: goes back in state %d of %d", d, p, i, len(r.states))
				}
				flipped = got
				for j := i + 1; straddles && j < len(r.states) && !r.states[j].grace; j++ {
					for n := 1; ; n++ {
						got, changed := direction(d, table, m, r.states[j], n, p)
						if !changed {
							break
						}
						if got != was && got != is {
							t.Fatalf("%s %+v: %s from state %d to %d of %d after %d lookups", d, p, got, i, j, len(r.states), n)
						}
					}
				}
			}
			require.Equal(t, is, flipped, "%s %+v in the end", d, p)
		}
	}
}

func outcome(a ir.Action) Outcome {
	if a == ir.Accept {
		return Accept
	}
	return Drop
}

// TestEveryStateInBetweenIsLegal applies random changes, large ones and such as
// pods and policies make, in batches of all sizes.
func TestEveryStateInBetweenIsLegal(t *testing.T) {
	rebuilt, applied := 0, 0 // where everything changes at once, not all can be had in parts
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		cfg := applyConfigs[seed/3%3]
		from := randomState(r)
		to := nextState(r, from)
		fake := NewFake()
		if seed%3 == 0 {
			fake.Limit.Messages = 1 + r.IntN(4)
		}
		rec := record(fake)
		e := NewEnforcer(cfg, rec)
		require.NoError(t, e.Takeover(context.Background(), from))
		rec.states = rec.states[len(rec.states)-1:]
		err := applyAll(context.Background(), e, between(from, to))
		if errors.Is(err, ErrUncertain) {
			rebuilt++
			require.Len(t, rec.states, 1, "nothing was sent")
			require.NoError(t, e.Repair(context.Background(), to))
		} else {
			applied++
			require.NoError(t, err, "seed %d", seed)
			list := probes(to)
			if r.IntN(2) == 0 {
				list = probes(from)
			}
			r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
			requireLegal(t, cfg, rec, e.Table(), from, to, list[:min(len(list), 60)])
			requireHeld(t, cfg, rec, from, to, list[:min(len(list), 60)])
		}
		requireVerified(t, e, to)
	}
	t.Logf("%d changes applied, %d rebuilt", applied, rebuilt)
	require.Less(t, rebuilt, applied)
}

// TestSingleEventsAreLegal applies what one pod or one policy changes. That never
// takes a rebuild, and a pod's event is legal for both directions together.
func TestSingleEventsAreLegal(t *testing.T) {
	grown := 0
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 3))
		cfg := applyConfigs[seed/2%3]
		from := randomState(r)
		var to ir.State
		pod := seed%2 == 0
		if pod {
			to = podEvent(r, from)
		} else {
			to = policyEvent(r, from)
		}
		rec := record(NewFake())
		e := NewEnforcer(cfg, rec)
		require.NoError(t, e.Takeover(context.Background(), from))
		rec.states = rec.states[len(rec.states)-1:]
		c := between(from, to)
		require.NoError(t, applyAll(context.Background(), e, c), "seed %d", seed)
		list := concerned(append(probes(from), probes(to)...), c)
		r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		list = list[:min(len(list), 40)]
		requireLegal(t, cfg, rec, e.Table(), from, to, list)
		requireHeld(t, cfg, rec, from, to, list[:min(len(list), 60)])
		if pod {
			requireJointlyLegal(t, cfg, rec, from, to, list)
		}
		if len(e.named) > 0 {
			grown++
		}
		requireVerified(t, e, to)
	}
	require.Greater(t, grown, 3, "wide groups that have grown in place")
}

// isNew reports whether p is a packet of a pod that does not run yet, and so is
// on its way at no time between two states. A pod in quarantine may run.
func isNew(cfg Config, from, to ir.State, p ir.Packet) bool {
	for _, a := range []netip.Addr{p.Src, p.Dst} {
		_, was := from.Endpoint(a)
		_, is := to.Endpoint(a)
		if is && !was && !held(cfg, from, a) {
			return true
		}
	}
	return false
}

// requireJointlyLegal checks that no packet gets through that neither state lets
// through, nor the other way round, with both directions taken together.
func requireJointlyLegal(t *testing.T, cfg Config, r *recorder, from, to ir.State, list []ir.Packet) {
	t.Helper()
	for _, p := range list {
		was, is := passes(cfg, from, p), passes(cfg, to, p)
		if was != is || isNew(cfg, from, to, p) {
			continue
		}
		for i, m := range r.states {
			for j := i; j < len(r.states) && (j == i || !r.states[j].grace); j++ {
				for n := 0; ; n++ {
					got, changed := throughAll(m, r.states[j], n, p)
					if n > 0 && !changed {
						break
					}
					if got != is {
						t.Fatalf("%+v: %s from state %d to %d of %d after %d lookups", p, got, i, j, len(r.states), n)
					}
				}
			}
		}
	}
}

// TestTakeoverHasNoWrongVerdict takes over from tables of an earlier process, one
// or both names in use, while packets pass.
func TestTakeoverHasNoWrongVerdict(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 2))
		from := randomState(r)
		to := nextState(r, from)
		fake := NewFake()
		require.NoError(t, NewEnforcer(Config{}, fake).Takeover(context.Background(), from))
		if seed%2 == 0 { // an interrupted takeover
			n := 0
			fake.OnSend = func(Batch) error {
				if n++; n > int(seed%5) {
					return fmt.Errorf("killed")
				}
				return nil
			}
			require.Error(t, NewEnforcer(Config{}, fake).Takeover(context.Background(), from))
			fake.OnSend = nil
		}
		rec := record(fake)
		require.NoError(t, NewEnforcer(Config{}, rec).Takeover(context.Background(), to))
		require.Len(t, fake.Snapshot(), 1)
		list := probes(to)
		r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		for _, p := range list[:min(len(list), 50)] {
			was, is := outcomeOf(allowed(from, p)), outcomeOf(allowed(to, p))
			for i, m := range rec.states {
				for j := i; j < len(rec.states) && (j == i || !rec.states[j].grace); j++ {
					for n := 0; ; n++ {
						got, changed := throughAll(m, rec.states[j], n, p)
						if n > 0 && !changed {
							break
						}
						if got != was && got != is {
							t.Fatalf("seed %d: %+v: %s from state %d to %d after %d lookups", seed, p, got, i, j, n)
						}
					}
				}
			}
		}
	}
}

func outcomeOf(ok bool) Outcome {
	if ok {
		return Accept
	}
	return Drop
}

// throughAll sends a packet through all tables that were hooked when it came, and
// that may change after it looked n times; changed is false if it did not look so often.
func throughAll(before, after moment, n int, p ir.Packet) (out Outcome, changed bool) {
	looks := 0
	for _, chain := range []string{chainEgress, chainIngress} {
		for name, t := range before.tables {
			if t.indexed().chains[chain] == nil {
				continue
			}
			w := walker{p: packet(p), now: func() *index {
				m := before
				if looks++; looks > n {
					m = after
				}
				if m.tables[name] == nil {
					return &index{}
				}
				return m.tables[name].indexed()
			}}
			if out, final := w.chain(chain, 0); final && out != Accept {
				return out, looks > n
			}
		}
	}
	return Accept, looks > n
}
