package nft

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// crowd returns a state in which n policies, each with peers and a port of its own,
// are the wide group of 10.0.0.1 and of its IPv6 twin. Policy i has two pods of each
// family as peers.
func crowd(n int) ir.State {
	g := ir.Group{ID: ir.GroupID(fmt.Sprintf("gi-%d", n)), Direction: ir.Ingress, Wide: true, Steps: []ir.Step{{Tier: ir.TierNetworkPolicy, Miss: ir.Deny}}}
	var s ir.State
	for i := range n {
		id := fmt.Sprintf("p-%05d", i)
		g.Policies = append(g.Policies, fmt.Sprintf("ns/%05d", i))
		g.Steps[0].Rules = append(g.Steps[0].Rules, rule(ir.TCP, uint16(1+i), uint16(1+i), id))
		s.PeerSets = append(s.PeerSets, ir.PeerSet{ID: ir.PeerSetID(id), Selects: true, Addrs: crowdPeers(i)})
	}
	s.Groups = []ir.Group{g}
	for _, a := range addrs("10.0.0.1", "fd00::1") {
		s.Endpoints = append(s.Endpoints, ir.Endpoint{Addr: a, Pod: "ns/crowd", Ingress: g.ID})
	}
	return s
}

func crowdPeers(i int) []netip.Addr {
	hi, lo := byte(i>>8), byte(i)
	return []netip.Addr{
		netip.AddrFrom4([4]byte{10, 1, hi, lo}), netip.AddrFrom4([4]byte{10, 2, hi, lo}),
		netip.AddrFrom16([16]byte{0: 0xfd, 13: 1, 14: hi, 15: lo}), netip.AddrFrom16([16]byte{0: 0xfd, 13: 2, 14: hi, 15: lo}),
	}
}

// TestWideGroupHasAsManyObjectsAsASmallOne: what grows with the policies is elements.
func TestWideGroupHasAsManyObjectsAsASmallOne(t *testing.T) {
	count := func(n int) (objects, elements int) {
		table, err := Build(Config{}, "portcullis-a", crowd(n))
		require.NoError(t, err)
		for _, s := range slices.Concat(table.Sets, table.Maps) {
			elements += len(s.Elements)
		}
		return len(table.Sets) + len(table.Maps) + len(table.Chains), elements
	}
	few, elements := count(1)
	many, more := count(500)
	require.Equal(t, few, many)
	require.Equal(t, 499*4, more-elements)
}

// sent counts operations by kind.
func sent(batches []Batch) map[string]int {
	out := map[string]int{}
	for _, b := range batches {
		for _, op := range b.Ops {
			out[strings.TrimPrefix(fmt.Sprintf("%T", op), "nft.")]++
		}
	}
	return out
}

// sends keeps the batches that a Fake is sent.
func sends(f *Fake) *[]Batch {
	var list []Batch
	f.OnSend = func(b Batch) error {
		list = append(list, b)
		return nil
	}
	return &list
}

// TestWideGroupGrowsInPlace adds a policy to a wide group, takes it back, and changes
// the peers of one, each in one batch of elements; and a Repair finds nothing to do.
func TestWideGroupGrowsInPlace(t *testing.T) {
	ctx := context.Background()
	f := NewFake()
	e := NewEnforcer(everything, f)
	require.NoError(t, e.Takeover(ctx, crowd(40)))
	list := sends(f)
	from := crowd(40)
	for _, tc := range []struct {
		to   ir.State
		want map[string]int
	}{
		{crowd(41), map[string]int{"AddElements": 2}},
		{crowd(43), map[string]int{"AddElements": 2}},
		{other(crowd(43), 7, "p-00008"), map[string]int{"AddElements": 2, "DelElements": 2}},
		{crowd(40), map[string]int{"AddElements": 2, "DelElements": 2}},
	} {
		*list = nil
		require.NoError(t, applyAll(ctx, e, between(from, tc.to)))
		require.Equal(t, tc.want, sent(*list))
		require.Len(t, *list, 1)
		d, err := e.Verify(ctx, tc.to)
		require.NoError(t, err)
		require.Empty(t, d)
		require.NoError(t, e.Repair(ctx, tc.to))
		require.Equal(t, 1, e.Takeovers())
		from = tc.to
	}
}

// other gives the port of policy i other peers.
func other(s ir.State, i int, set string) ir.State {
	g := s.Groups[0]
	g.ID += "-other"
	g.Steps = []ir.Step{{Tier: g.Steps[0].Tier, Miss: g.Steps[0].Miss, Rules: slices.Clone(g.Steps[0].Rules)}}
	g.Steps[0].Rules[i].Peers.Set = ir.PeerSetID(set)
	s.Groups = []ir.Group{g}
	for i := range s.Endpoints {
		s.Endpoints[i].Ingress = g.ID
	}
	return s
}

// TestNameOfAGrownGroupIsNotGivenTwice: a pod comes that has the policies that the
// group had before it grew, and the name.
func TestNameOfAGrownGroupIsNotGivenTwice(t *testing.T) {
	ctx := context.Background()
	f := NewFake()
	e := NewEnforcer(Config{}, f)
	require.NoError(t, e.Takeover(ctx, crowd(4)))
	require.NoError(t, applyAll(ctx, e, between(crowd(4), crowd(5))))
	both := crowd(5)
	both.Groups = append(both.Groups, crowd(4).Groups...)
	both.Endpoints = append(both.Endpoints, ir.Endpoint{Addr: addr("10.0.0.2"), Pod: "ns/late", Ingress: "gi-4"})
	both = sorted(both)
	require.NoError(t, applyAll(ctx, e, between(crowd(5), both)))
	require.NoError(t, e.Repair(ctx, both))
	require.Equal(t, 1, e.Takeovers(), "it is as it should be")
	for i, p := range probes(both) {
		if p.Protocol == ir.TCP && i%3 == 0 {
			require.Equal(t, outcome(both.Verdict(ir.Ingress, p)), f.Snapshot()[e.Table()].Verdict(packet(p)), "%+v", p)
		}
	}
	// The late one goes again, and then the first one shrinks into its old name.
	require.NoError(t, applyAll(ctx, e, between(both, crowd(5))))
	require.NoError(t, applyAll(ctx, e, between(crowd(5), crowd(4))))
	require.Empty(t, e.named)
	require.NoError(t, e.Repair(ctx, crowd(4)))
	require.Equal(t, 1, e.Takeovers())
}

// TestMembersAreRememberedWhileFolded: a set that a wide group folds is known, also
// where another group has had it for itself; afterwards it is forgotten.
func TestMembersAreRememberedWhileFolded(t *testing.T) {
	ctx := context.Background()
	e := NewEnforcer(Config{}, NewFake())
	narrow := ir.State{
		Endpoints: []ir.Endpoint{{Addr: addr("10.0.0.2"), Pod: "ns/narrow", Ingress: "gi-narrow"}},
		Groups:    []ir.Group{np(ir.Ingress, "gi-narrow", nil, rule(ir.TCP, 1, 1, "p-00003"))},
		PeerSets:  crowd(4).PeerSets[3:],
	}
	require.NoError(t, e.Takeover(ctx, narrow))
	require.Nil(t, e.book.sets["p-00003"].members)
	both := crowd(40)
	both.Groups, both.Endpoints = append(both.Groups, narrow.Groups...), append(both.Endpoints, narrow.Endpoints...)
	both = sorted(both)
	c := between(narrow, both)
	require.Equal(t, narrow.PeerSets, c.Members)
	forgotten := c
	forgotten.Members = nil
	require.ErrorContains(t, applyAll(ctx, e, forgotten), "p-00003 are not known")
	require.NoError(t, e.Repair(ctx, narrow))
	require.NoError(t, applyAll(ctx, e, c))
	require.ElementsMatch(t, crowdPeers(3), slices.Collect(maps.Keys(e.book.sets["p-00003"].members)))

	moved := both
	moved.PeerSets = slices.Clone(both.PeerSets)
	moved.PeerSets[3].Addrs = addrs("10.9.9.9")
	require.NoError(t, applyAll(ctx, e, between(both, moved)))
	require.Equal(t, addrs("10.9.9.9"), slices.Collect(maps.Keys(e.book.sets["p-00003"].members)))
	d, err := e.Verify(ctx, moved)
	require.NoError(t, err)
	require.Empty(t, d)

	narrow.PeerSets = moved.PeerSets[3:4]
	require.NoError(t, applyAll(ctx, e, between(moved, narrow)))
	require.Nil(t, e.book.sets["p-00003"].members)
	d, err = e.Verify(ctx, narrow)
	require.NoError(t, err)
	require.Empty(t, d)
}

// TestFewAddressesOfBlocksAreFolded: a peer set with small blocks is folded like one of
// pods, and a pod whose address is in a block may come and go without it.
func TestFewAddressesOfBlocksAreFolded(t *testing.T) {
	ctx := context.Background()
	state := func(blocks []netip.Prefix, pods ...string) ir.State {
		s := crowd(3)
		s.PeerSets[1] = ir.PeerSet{ID: "p-00001", Selects: true, Blocks: blocks, Addrs: addrs(pods...)}
		s.PeerSets[2] = ir.PeerSet{ID: "p-00002", Blocks: blocks}
		return s
	}
	few := []netip.Prefix{block("192.0.2.7/32"), block("192.0.2.8/29"), block("2001:db8::/127")}
	pass := func(e *Enforcer, f *Fake, src string) bool {
		return f.Snapshot()[e.Table()].Verdict(Packet{Src: addr(src), Dst: addr("10.0.0.1"), Protocol: 6, DstPort: 2}) == Accept
	}
	f := NewFake()
	e := NewEnforcer(Config{}, f)
	require.NoError(t, e.Takeover(ctx, state(few)))
	from := state(few)
	for _, pods := range [][]string{{"192.0.2.15", "10.7.7.7"}, {"10.7.7.7"}, {"192.0.2.7"}, nil} {
		to := state(few, pods...)
		require.NoError(t, applyAll(ctx, e, between(from, to)))
		d, err := e.Verify(ctx, to)
		require.NoError(t, err)
		require.Empty(t, d)
		for src, want := range map[string]bool{"192.0.2.15": true, "192.0.2.7": true, "192.0.2.16": false, "10.7.7.7": slices.Contains(pods, "10.7.7.7")} {
			require.Equal(t, want, pass(e, f, src), "%s with pods %v", src, pods)
		}
		from = to
	}
	names := func(blocks ...netip.Prefix) (out []string) {
		table, err := Build(Config{}, "portcullis-a", state(blocks))
		require.NoError(t, err)
		for _, s := range table.Sets {
			if strings.HasPrefix(s.Name, "u_") {
				out = append(out, s.Name)
			}
		}
		return out
	}
	require.Empty(t, names(few...))
	require.Empty(t, names(block("192.0.2.0/26")), "64 addresses")
	require.Len(t, names(block("192.0.2.0/26"), block("192.0.3.0/32")), 4, "one more")
	require.Len(t, names(block("0.0.0.0/0")), 4)
	require.Len(t, names(block("::/0")), 4)
}

// TestWideGroupInTheKernel loads one, lets it grow, and has nft list it and load the
// listing.
func TestWideGroupInTheKernel(t *testing.T) {
	ctx := context.Background()
	netns := newNetNS(t)
	e := NewEnforcer(everything, openTestKernel(t, netns))
	require.NoError(t, e.Takeover(ctx, crowd(1000)))
	require.NoError(t, applyAll(ctx, e, between(crowd(1000), crowd(1001))))
	d, err := e.Verify(ctx, crowd(1001))
	require.NoError(t, err)
	require.Empty(t, d)
	listing := runNFT(t, netns, "", "list", "ruleset")
	require.Contains(t, listing, "ip saddr . meta l4proto . th dport @g_gi-1000_peers4 accept")
	require.Contains(t, listing, "10.1.3.232 . tcp . 1001")
	again := newNetNS(t)
	runNFT(t, again, listing, "-f", "-")
	k := openTestKernel(t, again)
	have, _, err := k.Read(ctx, e.Table())
	require.NoError(t, err)
	want, err := build(everything, e.Table(), crowd(1001), e.named)
	require.NoError(t, err)
	require.Empty(t, Diff(want, have))
}
