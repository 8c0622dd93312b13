package nft

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// TestOrder pins in front of which moves, or behind which, members change.
func TestOrder(t *testing.T) {
	groups := []ir.Group{
		np(ir.Ingress, "gi-p", nil, rule(ir.TCP, 80, 80, "p-1")),
		np(ir.Ingress, "gi-q", nil, rule(ir.TCP, 80, 80, "p-2")),
		np(ir.Ingress, "gi-pq", nil, rule(ir.TCP, 80, 80, "p-1"), rule(ir.TCP, 81, 81, "p-2")),
		np(ir.Ingress, "gi-qp", nil, rule(ir.TCP, 80, 80, "p-2"), rule(ir.TCP, 81, 81, "p-1")),
		np(ir.Ingress, "gi-range", nil, rule(ir.TCP, 1, 79, "*"), rule(ir.TCP, 80, 80, "p-1"), rule(ir.UDP, 0, 65535, "p-2")),
		np(ir.Ingress, "gi-any", nil, rule(ir.AnyProtocol, 0, 0, "p-1")),
	}
	b := newBook()
	require.NoError(t, b.addSets([]ir.PeerSet{{ID: "p-1", Selects: true}, {ID: "p-2", Selects: true}}))
	for _, g := range groups {
		require.NoError(t, b.addGroup(g))
	}
	const (
		free     = "free"
		early    = "early"
		late     = "late"
		conflict = "conflict"
	)
	word := func(w when) string {
		return map[when]string{{}: free, {true, false}: early, {false, true}: late, {true, true}: conflict}[w]
	}
	pod, other := "10.0.0.1", "10.0.0.2"
	for name, tc := range map[string]struct {
		from, to, who string
		want          [4]string // p-1 join, leave; p-2 join, leave
	}{
		"no move":                      {"gi-p", "gi-p", other, [4]string{free, free, free, free}},
		"to a group with another set":  {"gi-p", "gi-q", other, [4]string{late, late, early, early}},
		"the sets change their ports":  {"gi-pq", "gi-qp", other, [4]string{conflict, conflict, conflict, conflict}},
		"a port more":                  {"gi-p", "gi-pq", other, [4]string{free, free, early, early}},
		"other ports more":             {"gi-p", "gi-range", other, [4]string{free, free, early, early}},
		"any port":                     {"gi-p", "gi-any", other, [4]string{early, early, free, free}},
		"isolated":                     {"", "gi-p", other, [4]string{early, free, free, free}},
		"opened":                       {"gi-p", "", other, [4]string{free, late, free, free}},
		"the pod itself":               {"gi-p", "gi-q", pod, [4]string{free, free, free, free}},
		"a member of the other family": {"gi-p", "gi-q", "fd00::1", [4]string{free, free, free, free}},
	} {
		t.Run(name, func(t *testing.T) {
			var list []move
			if tc.from != tc.to {
				list = append(list, move{families[0], ir.Endpoint{Addr: addr(pod)}, ir.GroupID(tc.from), ir.GroupID(tc.to)})
			}
			for half, c := range []ir.PeerSetChange{{Join: addrs(tc.who)}, {Leave: addrs(tc.who)}} {
				p, q := c, c
				p.ID, q.ID = "p-1", "p-2"
				at, err := b.order([]ir.PeerSetChange{p, q}, list)
				require.NoError(t, err)
				got := []when{at["p-1"].join, at["p-2"].join}
				if half == 1 {
					got = []when{at["p-1"].leave, at["p-2"].leave}
				}
				require.Equal(t, tc.want[half], word(got[0]), "p-1, half %d", half)
				require.Equal(t, tc.want[2+half], word(got[1]), "p-2, half %d", half)
			}
		})
	}
}

// TestConflictIsRebuilt changes a set that a pod's old group has on one port and
// its new group on another.
func TestConflictIsRebuilt(t *testing.T) {
	ctx := context.Background()
	state := func(group string, members ...string) ir.State {
		g := np(ir.Ingress, "gi-old", nil, rule(ir.TCP, 80, 80, "p-1"))
		if group == "gi-new" {
			g = np(ir.Ingress, "gi-new", nil, rule(ir.TCP, 81, 81, "p-1"))
		}
		return ir.State{
			Endpoints: []ir.Endpoint{{Addr: addr("10.0.0.1"), Ingress: g.ID}},
			Groups:    []ir.Group{g},
			PeerSets:  []ir.PeerSet{{ID: "p-1", Selects: true, Addrs: addrs(members...)}},
		}
	}
	for _, tc := range [][2]ir.State{
		{state("gi-old"), state("gi-new", "10.0.0.2")},
		{state("gi-old", "10.0.0.2"), state("gi-new")},
	} {
		e, f := takenOver(t, tc[0])
		require.ErrorIs(t, applyAll(ctx, e, between(tc[0], tc[1])), ErrUncertain)
		require.Empty(t, f.History())
		require.NoError(t, e.Repair(ctx, tc[1]))
		requireVerified(t, e, tc[1])
	}
}
