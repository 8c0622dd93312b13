package nft

import (
	"fmt"
	"net/netip"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// Priorities of the base chains: behind what kube-proxy filters (0) and
// translates (-100), in front of what only looks on.
const (
	priorityEgress  = 10
	priorityIngress = 11
	priorityHost    = 10
)

// family is one of the two address families, with everything whose name or type
// depends on it.
type family struct {
	digit        string
	addr, pair   SetType
	saddr, daddr Field
	both         Field
	is           func(netip.Addr) bool
}

var families = [2]family{
	{"4", TypeAddr4, TypePair4, FieldSaddr4, FieldDaddr4, FieldPair4, netip.Addr.Is4},
	{"6", TypeAddr6, TypePair6, FieldSaddr6, FieldDaddr6, FieldPair6, netip.Addr.Is6},
}

func familyOf(a netip.Addr) family {
	if a.Is4() {
		return families[0]
	}
	return families[1]
}

// own returns the field that holds the address of the pod that is judged, peer
// the one that holds the far end.
func (f family) own(d ir.Direction) Field {
	if d == ir.Egress {
		return f.saddr
	}
	return f.daddr
}

func (f family) peer(d ir.Direction) Field {
	if d == ir.Egress {
		return f.daddr
	}
	return f.saddr
}

func (f family) selfSet() *Set { return &Set{Name: "self" + f.digit, Type: f.pair} }

func (f family) dispatchMap(d ir.Direction) *Set {
	return &Set{Name: short(d) + f.digit, Type: f.addr, Map: true}
}

func (f family) isolatedSet(d ir.Direction) *Set {
	return &Set{Name: "iso" + short(d) + f.digit, Type: f.addr}
}

var directions = [2]ir.Direction{ir.Egress, ir.Ingress}

// Build lays a State out as the table with the given name. It fails if s is not
// what the contract of ir.State says, or has a tier that this package does not
// know.
func Build(cfg Config, name string, s ir.State) (*Table, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	b, err := bookOf(s)
	if err != nil {
		return nil, err
	}
	t := &Table{Name: name}
	t.Chains = append(t.Chains, denyChain(cfg.Deny))
	for _, p := range s.PeerSets {
		sets, err := peerSets(p)
		if err != nil {
			return nil, err
		}
		t.Sets = append(t.Sets, sets...)
		for _, d := range directions {
			if b.sets[p.ID].uses[d] > 0 {
				t.Chains = append(t.Chains, peerChain(p, d))
			}
		}
	}
	for _, g := range s.Groups {
		maps, chain, err := groupObjects(g)
		if err != nil {
			return nil, err
		}
		t.Maps = append(t.Maps, maps...)
		t.Chains = append(t.Chains, chain)
	}
	if err := b.endpoints(t, s.Endpoints); err != nil {
		return nil, err
	}
	t.Chains = append(t.Chains, baseChains(cfg)...)
	t.sort()
	return t, nil
}

// endpoints adds the sets and maps that pods are elements of.
func (b *book) endpoints(t *Table, ends []ir.Endpoint) error {
	byName := map[string]*Set{}
	for _, f := range families {
		t.Sets = append(t.Sets, f.selfSet())
		for _, d := range directions {
			t.Sets = append(t.Sets, f.isolatedSet(d))
			t.Maps = append(t.Maps, f.dispatchMap(d))
		}
	}
	for _, s := range t.Sets {
		byName[s.Name] = s
	}
	for _, s := range t.Maps {
		byName[s.Name] = s
	}
	put := func(s *Set, e Element) {
		s = byName[s.Name]
		s.Elements = append(s.Elements, e)
	}
	seen := map[netip.Addr]bool{}
	for _, e := range ends {
		if err := b.check(e); err != nil {
			return err
		}
		if seen[e.Addr] {
			return fmt.Errorf("address %s has two endpoints", e.Addr)
		}
		seen[e.Addr] = true
		f := familyOf(e.Addr)
		put(f.selfSet(), selfElement(e.Addr))
		for _, d := range directions {
			if id := e.Group(d); id != "" {
				put(f.dispatchMap(d), b.dispatchElement(e.Addr, id))
				put(f.isolatedSet(d), addrElement(e.Addr))
			}
		}
	}
	return nil
}

func selfElement(a netip.Addr) Element { return single(addrKey(a) + addrKey(a)) }

func addrElement(a netip.Addr) Element { return single(addrKey(a)) }

func addrElements(addrs []netip.Addr) []Element {
	out := make([]Element, len(addrs))
	for i, a := range addrs {
		out[i] = addrElement(a)
	}
	return out
}

// ofFamily returns the addresses that belong to f.
func ofFamily(f family, addrs []netip.Addr) (out []netip.Addr) {
	for _, a := range addrs {
		if f.is(a) {
			out = append(out, a)
		}
	}
	return out
}

func (b *book) dispatchElement(a netip.Addr, id ir.GroupID) Element {
	e := addrElement(a)
	e.Verdict = Verdict{Kind: VerdictJump, Chain: b.groups[id].chain}
	return e
}

// denyChain says no. It always ends the packet's way.
func denyChain(m DenyMode) *Chain {
	c := &Chain{Name: chainDeny}
	if m == DenyReject {
		c.Rules = append(c.Rules,
			Rule{Match: []Match{protoTCP}, Action: RejectTCPReset},
			Rule{Action: RejectProhibited})
	}
	c.Rules = append(c.Rules, Rule{Action: Verdict{Kind: VerdictDrop}})
	return c
}

// baseChains returns the chains through which packets enter the table.
func baseChains(cfg Config) []*Chain {
	chains := []*Chain{
		{Name: chainEgress, Hook: HookForward, Priority: priorityEgress, Rules: baseRules(ir.Egress, true)},
		{Name: chainIngress, Hook: HookForward, Priority: priorityIngress, Rules: baseRules(ir.Ingress, true)},
	}
	if cfg.PodToNode {
		// A packet to the node is never one of a pod to itself.
		chains = append(chains, &Chain{Name: chainHost, Hook: HookInput, Priority: priorityHost, Rules: baseRules(ir.Egress, false)})
	}
	return chains
}

func baseRules(d ir.Direction, self bool) []Rule {
	accept := Verdict{Kind: VerdictAccept}
	rules := []Rule{
		{Match: []Match{CTEstablished | CTRelated}, Action: accept},
		// Neighbour discovery: on bridged pods it crosses the forward hook, and
		// without it no IPv6 packet would ever find its way.
		{Match: []Match{ICMPv6Type{133, 137}}, Action: accept},
	}
	each := func(rule func(family) Rule) {
		for _, f := range families {
			rules = append(rules, rule(f))
		}
	}
	if self {
		each(func(f family) Rule {
			return Rule{Match: []Match{In{f.both, f.selfSet().Name}}, Action: accept}
		})
	}
	each(func(f family) Rule { return Rule{Action: Vmap{f.own(d), f.dispatchMap(d).Name}} })
	// Every group's chain ends the packet's way. What comes back from the map
	// all the same met something incomplete, and fails closed.
	each(func(f family) Rule {
		return Rule{Match: []Match{In{f.own(d), f.isolatedSet(d).Name}}, Action: Verdict{VerdictGoto, chainDeny}}
	})
	return rules
}
