package nft

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// applyConfigs are without and with everything that is beside policies, and with blocks
// that only some of the pods are in.
var applyConfigs = [3]Config{
	{},
	{PodCIDRs: podBlocks, Midstream: true, Bridged: true},
	{PodCIDRs: []netip.Prefix{block("10.244.1.2/31"), block("fd00::/125")}, Midstream: true},
}

// held reports whether an address is in quarantine.
func held(cfg Config, s ir.State, a netip.Addr) bool {
	_, is := s.Endpoint(a)
	return !is && slices.ContainsFunc(cfg.PodCIDRs, func(p netip.Prefix) bool { return p.Contains(a) })
}

// passes is what becomes of a packet in a state, quarantine and both directions
// taken together.
func passes(cfg Config, s ir.State, p ir.Packet) Outcome { return decides(cfg, s, p, Drop) }

// requireHeld checks the packets of pods that come or go: whatever else changes
// along with the pod, they are dropped until the new state is complete and from
// when the old one is not any more, and judged by that state otherwise.
func requireHeld(t *testing.T, cfg Config, r *recorder, from, to ir.State, list []ir.Packet) {
	t.Helper()
	for _, p := range list {
		if held(cfg, from, p.Src) == held(cfg, to, p.Src) && held(cfg, from, p.Dst) == held(cfg, to, p.Dst) {
			continue
		}
		was, is := passes(cfg, from, p), passes(cfg, to, p)
		for i, m := range r.states {
			for j := i; j < len(r.states) && (j == i || !r.states[j].grace); j++ {
				for n := 0; ; n++ {
					got, changed := throughAll(m, r.states[j], n, p)
					if n > 0 && !changed {
						break
					}
					if got != was && got != is {
						t.Fatalf("%+v: %s from state %d to %d of %d after %d lookups", p, got, i, j, len(r.states), n)
					}
				}
			}
		}
	}
}

// heldConfig is Config with a quarantine and nothing else.
var heldConfig = Config{PodCIDRs: podBlocks}

// TestOperationsOfQuarantine pins when pods enter and leave the dispatch maps: last
// when they come, first when they go.
func TestOperationsOfQuarantine(t *testing.T) {
	api, free := shop().Endpoints[0], shop().Endpoints[2]
	isolated := free
	isolated.Ingress = "gi-db"
	fresh := ir.Endpoint{Addr: addr("10.244.1.9"), Pod: "shop/new", Ingress: "gi-db"}
	open := ir.Endpoint{Addr: addr("10.244.1.8"), Pod: "shop/open"}
	abroad := ir.Endpoint{Addr: addr("10.9.0.8"), Pod: "shop/abroad", Ingress: "gi-db"}
	state := shop()
	state.PeerSets[2].Addrs = addrs("10.244.1.4", "10.244.1.8", "10.244.2.2")
	for name, tc := range map[string]struct {
		c    ir.Change
		want []string
	}{
		"a pod comes": {
			ir.Change{Endpoints: []ir.EndpointChange{{New: &fresh}}, PeerSets: []ir.PeerSetChange{{ID: "p-db", Join: addrs("10.244.1.9")}}},
			[]string{"---", "add 1 elements to self4", "add 1 elements to isoin4", "add 1 elements to u_p-db_4", "---", "add 1 elements to eg4", "add 1 elements to in4"},
		},
		"a pod comes that no policy selects": {
			ir.Change{Endpoints: []ir.EndpointChange{{New: &open}}},
			[]string{"---", "add 1 elements to self4", "---", "add 1 elements to eg4", "add 1 elements to in4"},
		},
		"a pod goes": {
			ir.Change{Endpoints: []ir.EndpointChange{{Old: &api}}},
			[]string{"---", "delete 1 elements of eg4", "delete 1 elements of in4",
				"---", "delete 1 elements of self4", "delete 1 elements of isoeg4", "delete 1 elements of isoin4"},
		},
		"a pod goes that no policy selects": {
			ir.Change{Endpoints: []ir.EndpointChange{{Old: &free}}, PeerSets: []ir.PeerSetChange{{ID: "p-web", Leave: addrs("10.244.1.4")}}},
			[]string{"---", "delete 1 elements of eg4", "delete 1 elements of in4", "---", "delete 1 elements of self4", "delete 1 elements of u_p-web_4"},
		},
		"one pod goes and another comes": {
			ir.Change{Endpoints: []ir.EndpointChange{{Old: &free}, {New: &open}}},
			[]string{"---", "delete 1 elements of eg4", "delete 1 elements of in4", "---", "add 1 elements to self4", "delete 1 elements of self4",
				"grace", "---", "add 1 elements to eg4", "add 1 elements to in4"},
		},
		"a pod comes that was a peer": {
			ir.Change{Endpoints: []ir.EndpointChange{{New: &open}}, PeerSets: []ir.PeerSetChange{{ID: "p-web", Leave: addrs("10.244.1.8", "10.244.2.2")}}},
			[]string{"---", "add 1 elements to self4", "delete 2 elements of u_p-web_4", "grace", "---", "add 1 elements to eg4", "add 1 elements to in4"},
		},
		"a pod of no block comes": {
			ir.Change{Endpoints: []ir.EndpointChange{{New: &abroad}}},
			[]string{"---", "add 1 elements to self4", "---", "add 1 elements to eg4", "add 1 elements to in4", "---", "add 1 elements to isoin4"},
		},
		"a pod is isolated": {
			ir.Change{Endpoints: []ir.EndpointChange{{Old: &free, New: &isolated}}},
			[]string{"---", "delete 1 elements of in4", "add 1 elements to in4", "add 1 elements to isoin4"},
		},
		"another pod has the address": {
			ir.Change{Endpoints: []ir.EndpointChange{{Old: &free, New: &ir.Endpoint{Addr: free.Addr, Pod: "shop/other"}}}},
			nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := NewFake()
			e := NewEnforcer(heldConfig, f)
			require.NoError(t, e.Takeover(t.Context(), state))
			f.Forget()
			require.NoError(t, applyAll(t.Context(), e, tc.c))
			require.Equal(t, tc.want, told(f))
		})
	}
}

// TestAddressThatGoesAndJoins has an address that stops being a pod's of this node
// and at the same time becomes a peer that may reach one. A packet that passed the
// quarantine before must not meet the new peers.
func TestAddressThatGoesAndJoins(t *testing.T) {
	from, to := shop(), shop()
	stranger := ir.Endpoint{Addr: addr("10.244.1.5"), Pod: "shop/stranger"}
	from.Endpoints = append(from.Endpoints, stranger)
	from = sorted(from)
	to.PeerSets[2].Addrs = addrs("10.244.1.4", "10.244.1.5", "10.244.2.2")
	rec := record(NewFake())
	e := NewEnforcer(heldConfig, rec)
	require.NoError(t, e.Takeover(t.Context(), from))
	rec.states = rec.states[len(rec.states)-1:]
	require.NoError(t, applyAll(t.Context(), e, between(from, to)))
	requireHeld(t, heldConfig, rec, from, to, []ir.Packet{{Src: stranger.Addr, Dst: addr("10.244.1.2"), Protocol: ir.TCP, DstPort: 9090}})
	require.Contains(t, told(rec.Fake), "grace")
}

// TestGroupThatShrinksAsAPodComes has a wide group that loses a port and keeps its
// chain, and a pod that comes and was reachable there but for its quarantine.
func TestGroupThatShrinksAsAPodComes(t *testing.T) {
	state := func(g ir.Group, more ...ir.Endpoint) ir.State {
		return sorted(ir.State{
			Endpoints: append(more, ir.Endpoint{Addr: addr("10.244.1.2"), Pod: "shop/api", Egress: g.ID}),
			Groups:    []ir.Group{g},
			PeerSets: []ir.PeerSet{
				{ID: "p-0", Selects: true, Addrs: addrs("10.244.2.2")},
				{ID: "p-1", Selects: true, Addrs: addrs("10.244.1.5", "10.244.2.2")},
			},
		})
	}
	both, one := rule(ir.TCP, 80, 80, "p-0"), rule(ir.TCP, 81, 81, "p-1")
	from := state(wideGroup(ir.Egress, "ge-wide", both, one))
	to := state(wideGroup(ir.Egress, "ge-less", both, rule(ir.TCP, 82, 82, "p-1")), ir.Endpoint{Addr: addr("10.244.1.5"), Pod: "shop/new"})
	rec := record(NewFake())
	e := NewEnforcer(heldConfig, rec)
	require.NoError(t, e.Takeover(t.Context(), from))
	rec.states = rec.states[len(rec.states)-1:]
	require.NoError(t, applyAll(t.Context(), e, between(from, to)))
	require.NotEmpty(t, e.named, "the group has grown")
	requireHeld(t, heldConfig, rec, from, to, []ir.Packet{{Src: addr("10.244.1.2"), Dst: addr("10.244.1.5"), Protocol: ir.TCP, DstPort: 81}})
}

// TestInFrontOfPolicies has packets that no policy is asked about.
func TestInFrontOfPolicies(t *testing.T) {
	table, err := Build(Config{PodCIDRs: podBlocks, PodToNode: true, Midstream: true}, "portcullis-a", shop())
	require.NoError(t, err)
	api4, db4, free4, held4, out4 := addr("10.244.1.2"), addr("10.244.1.3"), addr("10.244.1.4"), addr("10.244.1.9"), addr("198.51.100.1")
	db6, held6, out6 := addr("fd00:10:244:1::3"), addr("fd00:10:244:1::9"), addr("2001:db9::1")
	gateway, remote := addr("10.244.1.1"), addr("10.244.2.2")
	const ack, none = TCPAck, 0
	for name, tc := range map[string]struct {
		p    Packet
		want Outcome
	}{
		"held, out":                      {Packet{Src: held4, Dst: out4, Protocol: 17, DstPort: 53}, Drop},
		"held, in":                       {Packet{Src: out4, Dst: held4, Protocol: 6, DstPort: 80}, Drop},
		"held, out, IPv6":                {Packet{Src: held6, Dst: out6, Protocol: 6, DstPort: 80}, Drop},
		"held, in, IPv6":                 {Packet{Src: out6, Dst: held6, Protocol: 6, DstPort: 80}, Drop},
		"held, to a pod that is not":     {Packet{Src: held4, Dst: free4, Protocol: 1}, Drop},
		"held, from a pod that is not":   {Packet{Src: free4, Dst: held4, Protocol: 1}, Drop},
		"held, finds its neighbours":     {Packet{Src: held6, Dst: addr("ff02::1:ff00:3"), Protocol: 58, ICMPType: 135}, Accept},
		"held, what is known":            {Packet{Src: held4, Dst: out4, Protocol: 17, CTState: CTEstablished}, Accept},
		"held, in midstream":             {Packet{Src: held4, Dst: free4, Protocol: 6, TCPFlags: ack}, Drop},
		"held, midstream to isolated":    {Packet{Src: held4, Dst: db4, Protocol: 6, TCPFlags: ack}, Reject},
		"held, to the node":              {Packet{Hook: HookInput, Src: held4, Dst: gateway, Protocol: 17}, Drop},
		"held, to the node, IPv6":        {Packet{Hook: HookInput, Src: held6, Dst: out6, Protocol: 17}, Drop},
		"held, answers the node":         {Packet{Hook: HookInput, Src: held4, Dst: gateway, Protocol: 6, CTState: CTEstablished}, Accept},
		"not held":                       {Packet{Src: free4, Dst: out4, Protocol: 17, DstPort: 53}, Accept},
		"another node's pod":             {Packet{Src: remote, Dst: free4, Protocol: 17, DstPort: 53}, Accept},
		"the node to itself":             {Packet{Hook: HookInput, Src: gateway, Dst: gateway, Protocol: 6, Loopback: true}, Accept},
		"midstream, from isolated":       {Packet{Src: db4, Dst: out4, Protocol: 6, TCPFlags: ack}, Reject},
		"midstream, to isolated":         {Packet{Src: out4, Dst: db4, Protocol: 6, TCPFlags: ack}, Reject},
		"midstream, IPv6":                {Packet{Src: db6, Dst: out6, Protocol: 6, TCPFlags: ack}, Reject},
		"midstream, nobody isolated":     {Packet{Src: free4, Dst: out4, Protocol: 6, TCPFlags: ack}, Accept},
		"midstream, invalid":             {Packet{Src: db4, Dst: out4, Protocol: 6, TCPFlags: ack, CTState: CTInvalid}, Accept},
		"midstream, known":               {Packet{Src: out4, Dst: db4, Protocol: 6, TCPFlags: ack, CTState: CTEstablished}, Accept},
		"opens":                          {Packet{Src: db4, Dst: out4, Protocol: 6, TCPFlags: TCPSyn}, Accept},
		"opens with more bits":           {Packet{Src: db4, Dst: out4, Protocol: 6, TCPFlags: TCPSyn | 0xc0}, Accept},
		"answers what nobody opened":     {Packet{Src: db4, Dst: out4, Protocol: 6, TCPFlags: TCPSyn | ack}, Reject},
		"UDP":                            {Packet{Src: db4, Dst: out4, Protocol: 17, TCPFlags: ack}, Accept},
		"to the node, midstream":         {Packet{Hook: HookInput, Src: api4, Dst: gateway, Protocol: 6, TCPFlags: ack}, Reject},
		"to the node, may send":          {Packet{Hook: HookInput, Src: db4, Dst: gateway, Protocol: 6, TCPFlags: ack}, Accept},
		"outside to the node, midstream": {Packet{Hook: HookInput, Src: out4, Dst: gateway, Protocol: 6, TCPFlags: ack}, Accept},
		"without flags stands for a SYN": {Packet{Src: db4, Dst: out4, Protocol: 6, TCPFlags: none}, Accept},
		"without a state stands for new": {Packet{Src: db4, Dst: out4, Protocol: 6, TCPFlags: ack, CTState: 0}, Reject},
		"midstream, another node's pod":  {Packet{Src: remote, Dst: out4, Protocol: 6, TCPFlags: ack}, Accept},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, tc.want, table.Verdict(tc.p)) })
	}
}

func TestPodBlocks(t *testing.T) {
	list := func(texts ...string) (c Config) {
		for _, text := range texts {
			c.PodCIDRs = append(c.PodCIDRs, block(text))
		}
		return c
	}
	require.Equal(t, list("10.0.0.0/16", "192.0.2.0/24", "fd00::/64").PodCIDRs,
		list("fd00::1/64", "192.0.2.9/24", "10.0.0.0/16", "10.0.3.0/24", "10.0.0.0/16").podBlocks())
	require.Empty(t, Config{}.podBlocks())
	require.NoError(t, everything.Validate())
	for _, c := range []Config{
		list("0.0.0.0/0"), list("10.0.0.0/8", "::/0"), {PodCIDRs: make([]netip.Prefix, 1)}, list("::ffff:10.0.0.0/104"),
	} {
		require.Error(t, c.Validate())
	}
}

// TestConfigChangesWithRepair: what is set counts from the next Repair on, and
// Apply until then fits the table that is there.
func TestConfigChangesWithRepair(t *testing.T) {
	f := NewFake()
	e := NewEnforcer(Config{}, f)
	require.NoError(t, e.Takeover(t.Context(), shop()))
	held := Packet{Src: addr("10.244.1.9"), Dst: addr("198.51.100.1"), Protocol: 17}
	midway := Packet{Src: addr("10.244.1.3"), Dst: addr("198.51.100.1"), Protocol: 6, TCPFlags: TCPAck}
	verdict := func(p Packet) Outcome { return f.Snapshot()[e.Table()].Verdict(p) }
	s := shop()
	change := func(c ir.Change) {
		t.Helper()
		require.NoError(t, applyAll(t.Context(), e, c))
		next, err := s.Apply(c)
		require.NoError(t, err)
		s = next
	}
	blocks := slices.Clone(podBlocks)
	e.SetPodCIDRs(blocks)
	blocks[0] = netip.Prefix{} // the caller's
	e.SetMidstream(true)
	e.SetBridged(true)
	fresh := ir.Endpoint{Addr: addr("10.244.1.7"), Pod: "shop/new", Ingress: "gi-db"}
	change(ir.Change{Endpoints: []ir.EndpointChange{{New: &fresh}}})
	require.Equal(t, []Outcome{Accept, Accept}, []Outcome{verdict(held), verdict(midway)})

	require.NoError(t, e.Repair(t.Context(), s))
	require.Equal(t, []Outcome{Drop, Reject}, []Outcome{verdict(held), verdict(midway)})
	change(ir.Change{Endpoints: []ir.EndpointChange{{Old: &fresh}}})
	requireVerified(t, e, s)

	e.SetPodCIDRs(nil)
	e.SetMidstream(false)
	change(ir.Change{Endpoints: []ir.EndpointChange{{New: &fresh}}})
	require.NoError(t, e.Repair(t.Context(), s))
	require.Equal(t, []Outcome{Accept, Accept}, []Outcome{verdict(held), verdict(midway)})
	requireVerified(t, e, s)
	f.Forget()
	require.NoError(t, e.Repair(t.Context(), s))
	require.Empty(t, f.History())

	e.SetPodCIDRs([]netip.Prefix{block("::/0")})
	require.Error(t, e.Repair(t.Context(), s))
	require.Len(t, f.Snapshot(), 1, "the old table stays")
}
