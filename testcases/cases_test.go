package testcases

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/portcullis-netpol/portcullis/nft"
	"github.com/portcullis-netpol/portcullis/policy"
	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// TestCases runs every case at every height. One case:
//
//	go test ./testcases -run 'Cases/hairpin'
func TestCases(t *testing.T) {
	cases, err := readCases("cases")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(cases), 120)
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			t.Run("evaluate", func(t *testing.T) { runEvaluate(t, c) })
			t.Run("compiled", func(t *testing.T) { runCompiled(t, c) })
			t.Run("simulated", func(t *testing.T) { runSimulated(t, c) })
			t.Run("incremental", func(t *testing.T) { runIncremental(t, c) })
			for _, topo := range topologies {
				t.Run(topo.String(), func(t *testing.T) {
					t.Parallel()
					runPackets(t, c, topo)
				})
			}
		})
	}
}

// stage is a step that has been carried out.
type stage struct {
	*cluster
	Name   string
	Events []event
	Checks []check
}

// play carries out the steps of a case, one after the other.
func play(t *testing.T, c testCase, each func(*testing.T, stage)) {
	t.Helper()
	world := &cluster{}
	for i, s := range c.Steps {
		events, err := world.apply(s)
		require.NoError(t, err, s.Name)
		if i == 0 {
			assert.ElementsMatch(t, c.Absent, world.missingNamespaces(), "namespaces that are used and not there: header absent")
		}
		checks, err := world.checks(s.Flows)
		require.NoError(t, err, s.Name)
		each(t, stage{cluster: world, Name: s.Name, Events: events, Checks: checks})
	}
}

func runEvaluate(t *testing.T, c testCase) {
	play(t, c, func(t *testing.T, s stage) {
		for _, ch := range s.Checks {
			decisions, err := s.decide(ch)
			require.NoError(t, err, ch)
			for _, d := range decisions {
				assert.True(t, ch.Want.agrees(d), "%v: want %s, have %s%s", ch, ch.Want, d.verdict(), d.Why)
			}
		}
	})
}

func runCompiled(t *testing.T, c testCase) {
	indexes := map[string]*policy.Index{}
	states := map[string]ir.State{}
	for _, n := range nodeNames {
		indexes[n] = policy.NewIndex(n)
	}
	reports := map[string]bool{}
	play(t, c, func(t *testing.T, s stage) {
		for _, n := range nodeNames {
			for _, r := range feed(indexes[n], s.Events) {
				reports[r] = true
			}
			before := states[n]
			change := indexes[n].Flush()
			states[n] = indexes[n].State()
			after, err := before.Apply(change)
			require.NoError(t, err, "%s on %s: the change does not fit", s.Name, n)
			requireSameState(t, states[n], after, "%s on %s: what the change leads to", s.Name, n)
			requireSameState(t, s.fresh(n), states[n], "%s on %s: incremental against fresh", s.Name, n)
		}
		checkCompiled(t, s, states)
	})
	assert.ElementsMatch(t, c.Reports, slices.Collect(maps.Keys(reports)), "what the compiler complains about: header reports")
}

func checkCompiled(t *testing.T, s stage, states map[string]ir.State) {
	t.Helper()
	for _, ch := range s.Checks {
		paths, err := s.paths(ch)
		require.NoError(t, err, ch)
		for _, d := range compiled(states, paths, ch) {
			assert.True(t, ch.Want.agrees(d), "%v: want %s, have %s", ch, ch.Want, d.verdict())
		}
	}
}

// requireSameState compares states; a list that is empty equals one that is nil.
func requireSameState(t require.TestingT, want, have ir.State, msg string, args ...any) {
	if err := sameState(want, have); err != nil {
		require.NoError(t, fmt.Errorf(msg+": %w", append(args, err)...))
	}
}

func sameState(want, have ir.State) error {
	if !reflect.DeepEqual(norm(want), norm(have)) {
		return fmt.Errorf("want %+v\nhave %+v", norm(want), norm(have))
	}
	return nil
}

func norm(s ir.State) ir.State {
	n := ir.State{Endpoints: append([]ir.Endpoint{}, s.Endpoints...)}
	for _, p := range s.PeerSets {
		p.Blocks = append(p.Blocks[:0:0], p.Blocks...)
		p.Addrs = append(p.Addrs[:0:0], p.Addrs...)
		n.PeerSets = append(n.PeerSets, p)
	}
	for _, g := range s.Groups {
		g.Steps = slices.Clone(g.Steps)
		for i := range g.Steps {
			g.Steps[i].Rules = append([]ir.Rule{}, g.Steps[i].Rules...)
		}
		n.Groups = append(n.Groups, g)
	}
	return n
}

func runSimulated(t *testing.T, c testCase) {
	play(t, c, func(t *testing.T, s stage) {
		states := map[string]ir.State{}
		for _, n := range nodeNames {
			states[n] = s.fresh(n)
		}
		tables, err := build(states)
		require.NoError(t, err)
		checkSimulated(t, s, tables)
	})
}

func checkSimulated(t *testing.T, s stage, tables map[string]*nft.Table) {
	t.Helper()
	for _, ch := range s.Checks {
		paths, err := s.paths(ch)
		require.NoError(t, err, ch)
		for _, ok := range simulated(tables, paths, ch) {
			assert.Equal(t, ch.Want.allowed(), ok, "%v: want %s", ch, ch.Want)
		}
	}
}

// runIncremental changes the table of a kernel in memory after every single event.
func runIncremental(t *testing.T, c testCase) {
	followers := map[string]*follower{}
	for _, n := range nodeNames {
		f, err := newFollower(t.Context(), n, nft.NewFake(), tableConfig)
		require.NoError(t, err)
		followers[n] = f
	}
	play(t, c, func(t *testing.T, s stage) {
		tables := map[string]*nft.Table{}
		for _, n := range nodeNames {
			for _, e := range s.Events {
				require.NoError(t, followers[n].follow(t.Context(), []event{e}), s.Name)
			}
			require.NoError(t, followers[n].enforcer.Tidy(t.Context()))
			table, err := followers[n].table(t.Context())
			require.NoError(t, err, s.Name)
			// But for the names of groups that have grown, it is the table that a
			// takeover would build.
			d, err := followers[n].enforcer.Verify(t.Context(), s.fresh(n))
			require.NoError(t, err)
			require.Empty(t, d, "%s on %s: incremental against fresh", s.Name, n)
			tables[n] = table
		}
		checkSimulated(t, s, tables)
	})
}
