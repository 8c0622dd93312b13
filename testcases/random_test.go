package testcases

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/portcullis-netpol/portcullis/policy/ir"
	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// seeds lists the seeds to run: n of them, or as many as PORTCULLIS_SEEDS says, or
// the one that PORTCULLIS_SEED names.
func seeds(t testing.TB, n uint64) []uint64 {
	t.Helper()
	number := func(name string) (uint64, bool) {
		text, ok := os.LookupEnv(name)
		if !ok || text == "" {
			return 0, false
		}
		v, err := strconv.ParseUint(text, 10, 64)
		require.NoError(t, err, name)
		return v, true
	}
	if one, ok := number("PORTCULLIS_SEED"); ok {
		return []uint64{one}
	}
	if many, ok := number("PORTCULLIS_SEEDS"); ok {
		n = max(1, n*many/defaultSeeds)
	}
	out := make([]uint64, n)
	for i := range out {
		out[i] = uint64(i) + 1
	}
	return out
}

// defaultSeeds is the number of random clusters. The tests that cost more for each
// use a share of it.
const defaultSeeds = 2000

// TestRandomClusters compares the three heights without packets.
func TestRandomClusters(t *testing.T) {
	t.Parallel()
	allowed, denied, audited := 0, 0, 0
	for _, seed := range seeds(t, defaultSeeds) {
		m := newMaker(seed)
		c := m.cluster()
		checks := m.flows(c, 120)
		if bad, err := compare(c, checks); err != nil {
			reportSmaller(t, seed, c, bad, err, func(c *cluster, ch check) error {
				_, err := compare(c, []check{ch})
				return err
			})
			return
		}
		for _, ch := range checks {
			switch want := expectation(t, c, ch); {
			case want == allow:
				allowed++
			case want.allowed():
				audited++
			default:
				denied++
			}
		}
	}
	t.Logf("%d flows allowed, %d denied, %d only because of audit mode not", allowed, denied, audited)
	require.Greater(t, audited, denied/20, "next to nothing is in audit mode")
	require.Greater(t, allowed, denied/9, "the clusters say no to nearly everything")
	require.Greater(t, denied, allowed/9, "the clusters allow nearly everything")
}

// expectation is what package evaluate says.
func expectation(t testing.TB, c *cluster, ch check) verdict {
	t.Helper()
	d, err := c.decide(ch)
	require.NoError(t, err)
	return d[0].verdict()
}

// compare holds the compiled form and the simulated table against package
// evaluate. It returns the first check on which they differ, and how.
func compare(c *cluster, checks []check) (check, error) {
	states := map[string]ir.State{}
	for _, n := range nodeNames {
		states[n] = c.fresh(n)
	}
	tables, err := build(states)
	if err != nil {
		return check{}, err
	}
	for _, ch := range checks {
		want, err := c.decide(ch)
		if err != nil {
			return ch, err
		}
		paths, err := c.paths(ch)
		if err != nil {
			return ch, err
		}
		have := compiled(states, paths, ch)
		arrive := simulated(tables, paths, ch)
		for i, w := range want {
			h := have[i]
			if h.Why = w.Why; h != w {
				return ch, fmt.Errorf("evaluate says %s, the compiled form %s (%+v)%s", w.verdict(), h.verdict(), h, w.Why)
			}
			if (w.Egress && w.Ingress) != arrive[i] {
				return ch, fmt.Errorf("evaluate says %s, the table says %v%s", w.verdict(), arrive[i], w.Why)
			}
		}
	}
	return check{}, nil
}

// TestRandomPackets sends real packets through random clusters.
func TestRandomPackets(t *testing.T) {
	for _, seed := range seeds(t, defaultSeeds/100) {
		topo := topologies[seed%2]
		t.Run(fmt.Sprintf("%d/%s", seed, topo), func(t *testing.T) {
			t.Parallel()
			m := newMaker(seed)
			c := m.cluster()
			checks := m.flows(c, 150)
			for i := range checks {
				checks[i].At = "seed " + strconv.FormatUint(seed, 10)
				checks[i].Want = expectation(t, c, checks[i])
				checks[i].NoPackets = c.nobodys(checks[i].Src) || c.nobodys(checks[i].Dst)
			}
			lab.Require(t, needs...)
			s := newSite(t, topo, tableConfig)
			s.populate(c)
			s.enforce(c.everything())
			s.run(c, checks)
			if t.Failed() {
				t.Logf("the cluster:\n%s", c.yaml())
			}
		})
	}
}

// nobodys says whether an end is an address for pods that no pod has. The outside
// host cannot have it, either.
func (c *cluster) nobodys(e end) bool {
	for _, a := range []netip.Addr{e.V4, e.V6} {
		for _, cidrs := range podCIDRs {
			for _, cidr := range cidrs {
				if name, _ := c.owner(a); name == "" && cidr.Contains(a) {
					return true
				}
			}
		}
	}
	return false
}
