package nft

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// decides is what becomes of a forwarded packet, one direction after the other.
func decides(cfg Config, s ir.State, p ir.Packet, no Outcome) Outcome {
	for _, own := range []struct {
		d ir.Direction
		a netip.Addr
	}{{ir.Egress, p.Src}, {ir.Ingress, p.Dst}} {
		switch {
		case held(cfg, s, own.a):
			return Drop
		case s.Verdict(own.d, p) == ir.Deny:
			return no
		}
	}
	return Accept
}

// allowed is what the compiled form says of a forwarded packet.
func allowed(s ir.State, p ir.Packet) bool {
	return s.Verdict(ir.Egress, p) == ir.Accept && s.Verdict(ir.Ingress, p) == ir.Accept
}

func requireSameVerdicts(t *testing.T, s ir.State, table *Table, cfg Config) {
	t.Helper()
	no := Drop
	if cfg.Deny == DenyReject {
		no = Reject
	}
	for _, p := range probes(s) {
		want := decides(cfg, s, p, no)
		require.Equal(t, want, table.Verdict(packet(p)), "%+v", p)
		arrives := packet(p)
		arrives.Hook, arrives.TCPFlags = HookPrerouting, TCPAck
		if out := table.Verdict(arrives); out != Accept {
			t.Fatalf("arrives: %+v: %s", p, out)
		}
		if p.Src == p.Dst {
			continue // never arrives at the node
		}
		toNode := packet(p)
		toNode.Hook = HookInput
		if want = Accept; cfg.PodToNode && s.Verdict(ir.Egress, p) == ir.Deny {
			want = no
		}
		if cfg.PodToNode && held(cfg, s, p.Src) {
			want = Drop
		}
		require.Equal(t, want, table.Verdict(toNode), "to the node: %+v", p)
	}
}

func TestTableDecidesAsTheCompiledForm(t *testing.T) {
	configs := []Config{
		{}, {Deny: DenyReject}, {PodToNode: true}, {Deny: DenyReject, PodToNode: true}, {Midstream: true},
		{PodCIDRs: podBlocks}, {PodCIDRs: podBlocks, PodToNode: true, Midstream: true, Bridged: true, Deny: DenyReject},
		everything, // has blocks with addresses that are no pods'
	}
	for i, cfg := range configs {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			table, err := Build(cfg, "portcullis-a", shop())
			require.NoError(t, err)
			requireSameVerdicts(t, shop(), table, cfg)
		})
	}
	for seed := range uint64(300) {
		s := randomState(rand.New(rand.NewPCG(seed, 0)))
		cfg := configs[seed%uint64(len(configs))]
		table, err := Build(cfg, "portcullis-a", s)
		require.NoError(t, err)
		requireSameVerdicts(t, s, table, cfg)
	}
}

func TestAlwaysAccepted(t *testing.T) {
	table, err := Build(Config{PodToNode: true}, "portcullis-a", shop())
	require.NoError(t, err)
	db4, db6, out4, out6 := addr("10.244.1.3"), addr("fd00:10:244:1::3"), addr("198.51.100.1"), addr("2001:db9::1")
	for name, tc := range map[string]struct {
		p    Packet
		want Outcome
	}{
		"new":                       {Packet{Src: out4, Dst: db4, Protocol: 6, DstPort: 1}, Drop},
		"reply":                     {Packet{Src: out4, Dst: db4, Protocol: 6, DstPort: 1, CTState: CTEstablished}, Accept},
		"related":                   {Packet{Src: out4, Dst: db4, Protocol: 1, CTState: CTRelated}, Accept},
		"echo":                      {Packet{Src: out6, Dst: db6, Protocol: 58, ICMPType: 128}, Drop},
		"router solicitation":       {Packet{Src: out6, Dst: db6, Protocol: 58, ICMPType: 133}, Accept},
		"redirect":                  {Packet{Src: out6, Dst: db6, Protocol: 58, ICMPType: 137}, Accept},
		"in front of discovery":     {Packet{Src: out6, Dst: db6, Protocol: 58, ICMPType: 132}, Drop},
		"behind discovery":          {Packet{Src: out6, Dst: db6, Protocol: 58, ICMPType: 138}, Drop},
		"ICMPv4 of the same number": {Packet{Src: out4, Dst: db4, Protocol: 1, ICMPType: 135}, Drop},
		"itself":                    {Packet{Src: db4, Dst: db4, Protocol: 6, DstPort: 1}, Accept},
		"itself, IPv6":              {Packet{Src: db6, Dst: db6, Protocol: 6, DstPort: 1}, Accept},
		"the node to the pod":       {Packet{Hook: HookInput, Src: out4, Dst: db4, Protocol: 6, DstPort: 1}, Accept},
		"the pod to the node":       {Packet{Hook: HookInput, Src: addr("10.244.1.2"), Dst: out4, Protocol: 6, DstPort: 1}, Drop},
		"solicits the node":         {Packet{Hook: HookInput, Src: addr("fd00:10:244:1::2"), Dst: out6, Protocol: 58, ICMPType: 135}, Accept},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, tc.want, table.Verdict(tc.p)) })
	}
}

// TestIncompleteGroupFailsClosed empties a group's chain, as a packet may find it.
func TestIncompleteGroupFailsClosed(t *testing.T) {
	for _, cfg := range []Config{{}, heldConfig} {
		table, err := Build(cfg, "portcullis-a", shop())
		require.NoError(t, err)
		for _, c := range table.Chains {
			if c.Name == groupChain(shop().Groups[1]) {
				c.Rules = nil
			}
		}
		p := Packet{Src: addr("10.244.2.2"), Dst: addr("10.244.1.2"), Protocol: 6, DstPort: 9090}
		require.Equal(t, Drop, table.Verdict(p))
	}
}

func TestBuildRefuses(t *testing.T) {
	for name, spoil := range map[string]func(*ir.State){
		"missing group":      func(s *ir.State) { s.Groups = s.Groups[1:] },
		"missing peer set":   func(s *ir.State) { s.PeerSets = s.PeerSets[1:] },
		"wrong direction":    func(s *ir.State) { s.Endpoints[0].Egress = "gi-api" },
		"two endpoints":      func(s *ir.State) { s.Endpoints = append(s.Endpoints, s.Endpoints[0]) },
		"invalid address":    func(s *ir.State) { s.Endpoints[0].Addr = ir.Endpoint{}.Addr },
		"unknown tier":       func(s *ir.State) { s.Groups[0].Steps[0].Tier = 1 },
		"deny rule":          func(s *ir.State) { s.Groups[0].Steps[0].Rules[0].Action = ir.Deny },
		"miss that passes":   func(s *ir.State) { s.Groups[0].Steps[0].Miss = ir.Pass },
		"overlapping ranges": func(s *ir.State) { s.Groups[1].Steps[0].Rules[0].Last = 81 },
		"the same port twice": func(s *ir.State) {
			s.Groups[1].Steps[0].Rules[1].First, s.Groups[1].Steps[0].Rules[1].Last = 9090, 9090
		},
		"reversed range":      func(s *ir.State) { s.Groups[0].Steps[0].Rules[1].Last = 1 },
		"ports without ports": func(s *ir.State) { s.Groups[0].Steps[0].Rules[1].Protocol = 47 },
		"overlapping blocks":  func(s *ir.State) { s.PeerSets[0].Blocks = append(s.PeerSets[0].Blocks, block("192.0.2.128/25")) },
		"the same set twice":  func(s *ir.State) { s.PeerSets = append(s.PeerSets, s.PeerSets[0]) },
		"the same group twice": func(s *ir.State) {
			s.Groups = append(s.Groups, s.Groups[0])
		},
		"members without selectors": func(s *ir.State) { s.PeerSets[1].Selects = false },
	} {
		t.Run(name, func(t *testing.T) {
			s := shop()
			spoil(&s)
			_, err := Build(Config{}, "portcullis-a", s)
			require.Error(t, err)
		})
	}
	_, err := Build(Config{Deny: 7}, "portcullis-a", shop())
	require.Error(t, err)
}

// TestSimulatorWalksAsTheKernel has what the layout does not use: return, goto
// out of a chain that was jumped to, and priorities against the order of names.
func TestSimulatorWalksAsTheKernel(t *testing.T) {
	drop, accept := Rule{Action: Verdict{Kind: VerdictDrop}}, Rule{Action: Verdict{Kind: VerdictAccept}}
	to := func(k VerdictKind, chain string) Rule { return Rule{Action: Verdict{k, chain}} }
	for name, tc := range map[string]struct {
		chains map[string][]Rule
		want   Outcome
	}{
		"return goes on behind the jump":       {map[string][]Rule{"base": {to(VerdictJump, "a"), drop}, "a": {{Action: Verdict{Kind: VerdictReturn}}, accept}}, Drop},
		"the end of a chain returns":           {map[string][]Rule{"base": {to(VerdictJump, "a"), drop}, "a": {}}, Drop},
		"goto does not come back":              {map[string][]Rule{"base": {to(VerdictGoto, "a"), drop}, "a": {}}, Accept},
		"goto comes back to the jump above it": {map[string][]Rule{"base": {to(VerdictJump, "a"), drop}, "a": {to(VerdictGoto, "b"), accept}, "b": {}}, Drop},
		"return from a base chain":             {map[string][]Rule{"base": {{Action: Verdict{Kind: VerdictReturn}}, drop}}, Accept},
		"accept ends one base chain only":      {map[string][]Rule{"base": {accept}, "a-later": {drop}}, Drop},
		"reject is final":                      {map[string][]Rule{"base": {{Action: RejectProhibited}}, "a-later": {drop}}, Reject},
		"what is unknown does not match":       {map[string][]Rule{"base": {{Match: []Match{Unknown("x")}, Action: Verdict{Kind: VerdictDrop}}}}, Accept},
		"too deep":                             {map[string][]Rule{"base": {to(VerdictJump, "a")}, "a": {to(VerdictJump, "a")}}, Drop},
	} {
		t.Run(name, func(t *testing.T) {
			table := &Table{}
			for name, rules := range tc.chains {
				c := &Chain{Name: name, Rules: rules}
				switch name {
				case "base":
					c.Hook, c.Priority = HookForward, 1
				case "a-later":
					c.Hook, c.Priority = HookForward, 2
				}
				table.Chains = append(table.Chains, c)
			}
			require.Equal(t, tc.want, table.Verdict(Packet{Src: addr("10.0.0.1"), Dst: addr("10.0.0.2")}))
		})
	}
}
