package nft

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// sizes of the benchmarks: groups, members of the largest set, sets.
var sizes = [][3]int{{10, 1000, 10}, {250, 100_000, 200}, {250, 100_000, 1000}}

func sizeName(s [3]int) string {
	return fmt.Sprintf("groups=%d/members=%d/sets=%d", s[0], s[1], s[2])
}

// BenchmarkApplyPodEvent adds and removes one remote pod.
func BenchmarkApplyPodEvent(b *testing.B) {
	ctx := context.Background()
	for _, size := range sizes {
		b.Run(sizeName(size), func(b *testing.B) {
			e := NewEnforcer(Config{}, openTestKernel(b, newNetNS(b)))
			require.NoError(b, e.Takeover(ctx, bigState(size[0], size[1], size[2])))
			pod := addrs("192.0.2.1")
			for i := 0; b.Loop(); i++ {
				c := ir.PeerSetChange{ID: "p-big", Join: pod}
				if i%2 == 1 {
					c = ir.PeerSetChange{ID: "p-big", Leave: pod}
				}
				require.NoError(b, applyAll(ctx, e, ir.Change{PeerSets: []ir.PeerSetChange{c}}))
			}
		})
	}
}

// BenchmarkApplyPolicy isolates a pod with a new group and opens it again.
func BenchmarkApplyPolicy(b *testing.B) {
	ctx := context.Background()
	for _, size := range sizes {
		b.Run(sizeName(size), func(b *testing.B) {
			s := bigState(size[0], size[1], size[2])
			free := ir.Endpoint{Addr: addr("10.244.1.1"), Pod: "ns/free"}
			s.Endpoints = append(s.Endpoints, free)
			s = sorted(s)
			e := NewEnforcer(Config{}, openTestKernel(b, newNetNS(b)))
			require.NoError(b, e.Takeover(ctx, s))
			isolated := free
			isolated.Ingress = "gi-new"
			g := np(ir.Ingress, "gi-new", []string{"ns/new"}, rule(ir.TCP, 80, 80, "p-1"))
			for i := 0; b.Loop(); i++ {
				c := ir.Change{AddGroups: []ir.Group{g}, Endpoints: []ir.EndpointChange{{Old: &free, New: &isolated}}}
				if i%2 == 1 {
					c = ir.Change{RemoveGroups: []ir.GroupID{g.ID}, Endpoints: []ir.EndpointChange{{Old: &isolated, New: &free}}}
				}
				require.NoError(b, applyAll(ctx, e, c))
			}
		})
	}
}

// BenchmarkGrow adds a policy to a pod that many select, and takes it away again.
func BenchmarkGrow(b *testing.B) {
	ctx := context.Background()
	for _, n := range []int{100, 1000, 10_000} {
		b.Run(fmt.Sprintf("policies=%d", n), func(b *testing.B) {
			states := []ir.State{crowd(n), crowd(n + 1)}
			changes := []ir.Change{between(states[0], states[1]), between(states[1], states[0])}
			e := NewEnforcer(Config{}, openTestKernel(b, newNetNS(b)))
			require.NoError(b, e.Takeover(ctx, states[0]))
			for i := 0; b.Loop(); i++ {
				require.NoError(b, applyAll(ctx, e, changes[i%2]))
			}
		})
	}
}

// BenchmarkTakeoverWide replaces the whole table of a pod that many policies select.
func BenchmarkTakeoverWide(b *testing.B) {
	ctx := context.Background()
	for _, n := range []int{100, 1000, 10_000} {
		b.Run(fmt.Sprintf("policies=%d", n), func(b *testing.B) {
			s := crowd(n)
			e := NewEnforcer(Config{}, openTestKernel(b, newNetNS(b)))
			for b.Loop() {
				require.NoError(b, e.Takeover(ctx, s))
			}
		})
	}
}

// BenchmarkTakeover builds, loads, reads back and replaces the whole table.
func BenchmarkTakeover(b *testing.B) {
	ctx := context.Background()
	for _, size := range sizes {
		b.Run(sizeName(size), func(b *testing.B) {
			s := bigState(size[0], size[1], size[2])
			e := NewEnforcer(Config{}, openTestKernel(b, newNetNS(b)))
			for b.Loop() {
				require.NoError(b, e.Takeover(ctx, s))
			}
		})
	}
}

// BenchmarkVerify reads the whole table back and compares it.
func BenchmarkVerify(b *testing.B) {
	ctx := context.Background()
	for _, size := range sizes {
		b.Run(sizeName(size), func(b *testing.B) {
			s := bigState(size[0], size[1], size[2])
			e := NewEnforcer(Config{}, openTestKernel(b, newNetNS(b)))
			require.NoError(b, e.Takeover(ctx, s))
			for b.Loop() {
				d, err := e.Verify(ctx, s)
				require.NoError(b, err)
				require.Empty(b, d)
			}
		})
	}
}

// BenchmarkCounters reads what was counted.
func BenchmarkCounters(b *testing.B) {
	ctx := context.Background()
	for _, size := range sizes {
		b.Run(sizeName(size), func(b *testing.B) {
			e := NewEnforcer(Config{}, openTestKernel(b, newNetNS(b)))
			require.NoError(b, e.Takeover(ctx, bigState(size[0], size[1], size[2])))
			for b.Loop() {
				_, err := e.Counters(ctx)
				require.NoError(b, err)
			}
		})
	}
}
