package ir

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

func addr(s string) netip.Addr    { return netip.MustParseAddr(s) }
func block(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func peers(id PeerSetID) Peers    { return Peers{Set: id} }
func addrs(ss ...string) (out []netip.Addr) {
	for _, s := range ss {
		out = append(out, addr(s))
	}
	return out
}

// shop is one pod, isolated for ingress: TCP 80 from the set p-web, everything
// from the set p-all.
func shop() State {
	return State{
		Endpoints: []Endpoint{{Addr: addr("10.0.0.1"), Pod: "shop/api", Ingress: "gi-1"}, {Addr: addr("10.0.0.2"), Pod: "shop/web"}},
		Groups: []Group{{ID: "gi-1", Direction: Ingress, Policies: []string{"shop/p"}, Steps: []Step{{
			Tier: TierNetworkPolicy, Miss: Deny,
			Rules: []Rule{
				{Action: Accept, Protocol: TCP, First: 80, Last: 81, Peers: peers("p-web")},
				{Action: Accept, Protocol: UDP, First: 53, Last: 53, Peers: Peers{Any: true}},
				{Action: Accept, Peers: peers("p-all")},
			},
		}}}},
		PeerSets: []PeerSet{
			{ID: "p-all", Blocks: []netip.Prefix{block("192.0.2.0/24")}},
			{ID: "p-web", Selects: true, Addrs: addrs("10.0.0.2"), Blocks: []netip.Prefix{block("192.0.2.0/24")}},
		},
	}
}

func TestVerdict(t *testing.T) {
	s := shop()
	for name, tc := range map[string]struct {
		d    Direction
		p    Packet
		want Action
	}{
		"port and peer":          {Ingress, Packet{addr("10.0.0.2"), addr("10.0.0.1"), TCP, 80}, Accept},
		"end of the range":       {Ingress, Packet{addr("10.0.0.2"), addr("10.0.0.1"), TCP, 81}, Accept},
		"behind the range":       {Ingress, Packet{addr("10.0.0.2"), addr("10.0.0.1"), TCP, 82}, Deny},
		"other protocol":         {Ingress, Packet{addr("10.0.0.2"), addr("10.0.0.1"), UDP, 80}, Deny},
		"other peer":             {Ingress, Packet{addr("10.0.0.3"), addr("10.0.0.1"), TCP, 80}, Deny},
		"any peer":               {Ingress, Packet{addr("10.0.0.3"), addr("10.0.0.1"), UDP, 53}, Accept},
		"any port, ICMP":         {Ingress, Packet{addr("192.0.2.9"), addr("10.0.0.1"), 1, 0}, Accept},
		"any port from a block":  {Ingress, Packet{addr("192.0.2.9"), addr("10.0.0.1"), TCP, 80}, Accept},
		"the pod itself":         {Ingress, Packet{addr("10.0.0.1"), addr("10.0.0.1"), TCP, 9}, Accept},
		"not isolated direction": {Egress, Packet{addr("10.0.0.1"), addr("10.0.0.9"), TCP, 9}, Accept},
		"not isolated pod":       {Ingress, Packet{addr("10.0.0.9"), addr("10.0.0.2"), TCP, 9}, Accept},
		"an address of nobody":   {Ingress, Packet{addr("10.0.0.2"), addr("10.0.0.9"), TCP, 9}, Accept},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, tc.want, s.Verdict(tc.d, tc.p)) })
	}
}

func TestVerdictOfOrderedSteps(t *testing.T) {
	s := shop()
	np := s.Groups[0].Steps[0]
	deny := Step{Tier: 1, Miss: Pass, Rules: []Rule{
		{Action: Pass, Protocol: TCP, First: 80, Last: 80, Peers: Peers{Any: true}},
		{Action: Deny, Peers: Peers{Any: true}},
	}}
	accept := Step{Tier: 200, Miss: Pass, Rules: []Rule{{Action: Accept, Protocol: TCP, First: 9, Last: 9, Peers: Peers{Any: true}}}}
	from := func(port uint16) Packet { return Packet{addr("10.0.0.2"), addr("10.0.0.1"), TCP, port} }

	s.Groups[0].Steps = []Step{deny, np}
	require.Equal(t, Accept, s.Verdict(Ingress, from(80)), "Pass leaves the rest of its step out")
	require.Equal(t, Deny, s.Verdict(Ingress, from(81)), "Deny of an earlier step is final")
	s.Groups[0].Steps = []Step{accept}
	require.Equal(t, Accept, s.Verdict(Ingress, from(8)), "Accept stands behind the last step")
}

func TestVerdictOfAuditGroups(t *testing.T) {
	s := shop()
	allowed, denied := Packet{addr("10.0.0.2"), addr("10.0.0.1"), TCP, 80}, Packet{addr("10.0.0.3"), addr("10.0.0.1"), TCP, 80}
	require.False(t, s.WouldDeny(Ingress, denied), "it is denied")
	s.Groups[0].Audit = true
	for p, would := range map[Packet]bool{allowed: false, denied: true, {addr("10.0.0.1"), addr("10.0.0.1"), TCP, 9}: false} {
		require.Equal(t, Accept, s.Verdict(Ingress, p))
		require.Equal(t, would, s.WouldDeny(Ingress, p))
		require.False(t, s.WouldDeny(Egress, p), "no group")
	}
	s.Groups = nil
	require.Equal(t, Deny, s.Verdict(Ingress, allowed), "what is missing is not taken for tried")
	require.False(t, s.WouldDeny(Ingress, allowed))
}

func TestVerdictFailsClosedOnMissingParts(t *testing.T) {
	s := shop()
	s.PeerSets = nil
	require.Equal(t, Deny, s.Verdict(Ingress, Packet{addr("10.0.0.2"), addr("10.0.0.1"), TCP, 80}))
	s.Groups = nil
	require.Equal(t, Deny, s.Verdict(Ingress, Packet{addr("10.0.0.2"), addr("10.0.0.1"), UDP, 53}))
}

func TestApply(t *testing.T) {
	s := shop()
	again, err := State{}.Apply(s.Initial())
	require.NoError(t, err)
	require.Equal(t, s, again)

	moved := s.Endpoints[1]
	moved.Ingress = "gi-1"
	n, err := s.Apply(Change{
		PeerSets:       []PeerSetChange{{ID: "p-web", Join: addrs("10.0.0.1", "10.0.0.3"), Leave: addrs("10.0.0.2")}},
		RemovePeerSets: []PeerSetID{"p-all"},
		Endpoints:      []EndpointChange{{Old: &s.Endpoints[0]}, {Old: &s.Endpoints[1], New: &moved}},
	})
	require.NoError(t, err)
	require.Equal(t, []Endpoint{moved}, n.Endpoints)
	require.Len(t, n.PeerSets, 1)
	require.Equal(t, addrs("10.0.0.1", "10.0.0.3"), n.PeerSets[0].Addrs)
	require.Equal(t, addrs("10.0.0.2"), s.PeerSets[1].Addrs, "the old state stays as it was")
}

func TestApplyRefusesWhatDoesNotFit(t *testing.T) {
	s := shop()
	stranger := Endpoint{Addr: addr("10.0.0.9"), Pod: "x/y"}
	for name, c := range map[string]Change{
		"add a set twice":        {AddPeerSets: []PeerSet{{ID: "p-all"}}},
		"remove a missing set":   {RemovePeerSets: []PeerSetID{"p-none"}},
		"change a missing set":   {PeerSets: []PeerSetChange{{ID: "p-none", Join: addrs("10.0.0.1")}}},
		"join twice":             {PeerSets: []PeerSetChange{{ID: "p-web", Join: addrs("10.0.0.2")}}},
		"leave without joining":  {PeerSets: []PeerSetChange{{ID: "p-web", Leave: addrs("10.0.0.9")}}},
		"add a group twice":      {AddGroups: []Group{{ID: "gi-1"}}},
		"remove a missing group": {RemoveGroups: []GroupID{"gi-none"}},
		"add an endpoint twice":  {Endpoints: []EndpointChange{{New: &s.Endpoints[0]}}},
		"old endpoint differs":   {Endpoints: []EndpointChange{{Old: &stranger}}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.Apply(c)
			require.Error(t, err)
		})
	}
}
