package nft

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// shopWithout returns shop without the endpoints of a pod, and what only they lead to.
func shopWithout(pod string) ir.State {
	s, groups, sets := ir.State{}, map[ir.GroupID]ir.Group{}, map[ir.PeerSetID]ir.PeerSet{}
	for _, e := range shop().Endpoints {
		if e.Pod != pod {
			s.Endpoints = append(s.Endpoints, e)
		}
	}
	for _, g := range shop().Groups {
		groups[g.ID] = g
	}
	for _, p := range shop().PeerSets {
		sets[p.ID] = p
	}
	return complete(s, groups, sets)
}

// otherPolicy returns shop with another group for shop/db.
func otherPolicy() ir.State {
	other := np(ir.Ingress, "gi-other", []string{"shop/other"}, rule(ir.TCP, 80, 80, "*"))
	changed := shop()
	for i, e := range changed.Endpoints {
		if e.Pod == "shop/db" {
			changed.Endpoints[i].Ingress = other.ID
		}
	}
	changed.Groups[2] = other
	return sorted(changed)
}

// TestNothingWaitsForPackets: to remove a pod with its policies, or to change the
// policies of one, takes no grace period; what is superfluous goes with Tidy.
func TestNothingWaitsForPackets(t *testing.T) {
	changed := otherPolicy()
	for name, to := range map[string]ir.State{"a pod goes": shopWithout("shop/api"), "another policy": changed} {
		t.Run(name, func(t *testing.T) {
			f := NewFake()
			e := NewEnforcer(heldConfig, f)
			require.NoError(t, e.Takeover(t.Context(), shop()))
			require.False(t, e.Untidy())
			f.Forget()
			require.NoError(t, e.Apply(t.Context(), between(shop(), to)))
			require.NotContains(t, told(f), "grace")
			require.True(t, e.Untidy())
			f.Forget()
			require.NoError(t, e.Tidy(t.Context()))
			require.Equal(t, []string{"grace", "---"}, told(f)[:2])
			require.False(t, e.Untidy())
			d, err := e.Verify(t.Context(), to)
			require.NoError(t, err)
			require.Empty(t, d)
		})
	}
}

// TestWhatComesBackIsTidiedFirst: an address or a group that returns while something of
// it is still to go must not lose what it gets now.
func TestWhatComesBackIsTidiedFirst(t *testing.T) {
	f := NewFake()
	e := NewEnforcer(heldConfig, f)
	require.NoError(t, e.Takeover(t.Context(), shop()))
	for range 3 {
		require.NoError(t, e.Apply(t.Context(), between(shop(), shopWithout("shop/api"))))
		require.NoError(t, e.Apply(t.Context(), between(shopWithout("shop/api"), shopWithout("shop/free"))))
		require.NoError(t, e.Apply(t.Context(), between(shopWithout("shop/free"), shop())))
		require.NoError(t, e.Tidy(t.Context()))
		d, err := e.Verify(t.Context(), shop())
		require.NoError(t, err)
		require.Empty(t, d)
	}
	// A group of one chain, while its pods stay.
	require.NoError(t, e.Apply(t.Context(), between(shop(), otherPolicy())))
	require.NoError(t, e.Apply(t.Context(), between(otherPolicy(), shop())))
	// Another pod without any policies gets the address: it must not stay isolated.
	late := shopWithout("shop/db")
	late.Endpoints = append(late.Endpoints, ir.Endpoint{Addr: addr("10.244.1.3"), Pod: "shop/late"})
	late = sorted(late)
	require.NoError(t, e.Apply(t.Context(), between(shop(), shopWithout("shop/db"))))
	require.NoError(t, e.Apply(t.Context(), between(shopWithout("shop/db"), late)))
	p := Packet{Src: addr("10.244.1.4"), Dst: addr("10.244.1.3"), Protocol: 6, DstPort: 9}
	require.Equal(t, Accept, f.Snapshot()[e.Table()].Verdict(p))
	require.Equal(t, 1, e.Takeovers())
}

// TestTidyThatFails leaves it to Repair, which finds out what is there.
func TestTidyThatFails(t *testing.T) {
	f := NewFake()
	e := NewEnforcer(heldConfig, f)
	require.NoError(t, e.Takeover(t.Context(), shop()))
	to := shopWithout("shop/api")
	require.NoError(t, e.Apply(t.Context(), between(shop(), to)))
	f.OnSend = func(Batch) error { return errors.New("lost") }
	require.ErrorIs(t, e.Tidy(t.Context()), ErrUncertain)
	f.OnSend = nil
	require.ErrorIs(t, e.Apply(t.Context(), between(to, shop())), ErrUncertain)
	require.NoError(t, e.Repair(t.Context(), to))
	require.Equal(t, 2, e.Takeovers())

	require.NoError(t, e.Apply(t.Context(), between(to, shopWithout("shop/free"))))
	require.NoError(t, e.Repair(t.Context(), shopWithout("shop/free")), "a Repair tidies up")
	require.Equal(t, 2, e.Takeovers())
	require.False(t, e.Untidy())
}

// TestRemainsPileUp applies many events before anything is tidied. After each of them the
// table decides as the state does.
func TestRemainsPileUp(t *testing.T) {
	most := 0
	for seed := range uint64(150) {
		r := rand.New(rand.NewPCG(seed, 9))
		cfg := applyConfigs[seed%3]
		s := randomState(r)
		f := NewFake()
		e := NewEnforcer(cfg, f)
		require.NoError(t, e.Takeover(t.Context(), s))
		for range 10 {
			next := nextState(r, s)
			switch r.IntN(3) {
			case 0:
				next = podEvent(r, s)
			case 1:
				next = policyEvent(r, s)
			}
			if err := e.Apply(t.Context(), between(s, next)); err != nil {
				require.ErrorIs(t, err, ErrUncertain)
				require.NoError(t, e.Repair(t.Context(), next))
			}
			s = next
			most = max(most, len(e.remains.units))
			now := moment{tables: f.Snapshot()}
			list := probes(s)
			r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
			for _, p := range list[:min(len(list), 40)] {
				got, _ := throughAll(now, now, 1000, p)
				require.Equal(t, passes(cfg, s, p), got, "seed %d: %+v", seed, p)
			}
		}
		require.NoError(t, e.Tidy(t.Context()))
		d, err := e.Verify(t.Context(), s)
		require.NoError(t, err)
		require.Empty(t, d, "seed %d", seed)
	}
	require.Greater(t, most, 10)
}
