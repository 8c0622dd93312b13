package nft

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestRolloutsAreLegal has pods that go, pods that come and pods that change their
// labels at once, with and without policies, in blocks and in none.
func TestRolloutsAreLegal(t *testing.T) {
	rebuilt, came, went, moved := 0, 0, 0, 0
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 5))
		cfg := applyConfigs[seed%3]
		from := randomState(r)
		var pods []netip.Addr
		for i := range 5 {
			if a := addr(fmt.Sprintf("10.244.1.%d", 1+i)); i != 3 && r.IntN(2) == 0 {
				pods = append(pods, a)
			}
		}
		pods = pods[:min(len(pods), 3)]
		from = podEvents(r, from, pods...)
		to := podEvents(r, from, pods...)
		fake := NewFake()
		if seed/3%3 == 0 {
			fake.Limit.Messages = 1 + r.IntN(3)
		}
		rec := record(fake)
		e := NewEnforcer(cfg, rec)
		require.NoError(t, e.Takeover(t.Context(), from))
		rec.states = rec.states[len(rec.states)-1:]
		c := between(from, to)
		if err := applyAll(t.Context(), e, c); err != nil {
			require.ErrorIs(t, err, ErrUncertain)
			rebuilt++
			continue
		}
		for _, ec := range c.Endpoints {
			switch {
			case ec.Old == nil:
				came++
			case ec.New == nil:
				went++
			default:
				moved++
			}
		}
		list := concerned(append(probes(from), probes(to)...), c)
		r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		list = list[:min(len(list), 60)]
		requireLegal(t, cfg, rec, e.Table(), from, to, list)
		requireHeld(t, cfg, rec, from, to, list)
		requireVerified(t, e, to)
	}
	t.Logf("%d pods came, %d went, %d changed their groups; %d changes rebuilt", came, went, moved, rebuilt)
	require.Greater(t, min(came, went, moved), 50)
	require.Less(t, rebuilt, 50)
}
