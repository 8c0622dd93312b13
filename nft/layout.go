package nft

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// Priorities of the base chains: behind what kube-proxy filters (0) and
// translates (-100), in front of what only looks on. Only before-nat is in front of
// what translates, but behind connection tracking (-200).
const (
	priorityEgress    = 10
	priorityIngress   = 11
	priorityHost      = 10
	priorityCut       = 12
	priorityFromHost  = 10
	priorityBeforeNAT = -150
)

// family is one of the two address families, with everything whose name or type
// depends on it.
type family struct {
	digit        string
	addr, pair   SetType
	tuple        SetType
	peerPort     SetType
	saddr, daddr Field
	both         Field
	flow         Field
	// saddrPort and daddrPort are an address, the protocol and the destination port.
	saddrPort, daddrPort Field
	is                   func(netip.Addr) bool
}

var families = [2]family{
	{"4", TypeAddr4, TypePair4, TypeTuple4, TypeAddrPort4, FieldSaddr4, FieldDaddr4, FieldPair4, FieldTuple4, FieldSaddrPort4, FieldDaddrPort4, netip.Addr.Is4},
	{"6", TypeAddr6, TypePair6, TypeTuple6, TypeAddrPort6, FieldSaddr6, FieldDaddr6, FieldPair6, FieldTuple6, FieldSaddrPort6, FieldDaddrPort6, netip.Addr.Is6},
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

// Build lays a State out as the table with the given name, as it is while nothing is
// forbidden. It fails if s is not
// what the contract of ir.State says, or has a tier that this package does not
// know.
func Build(cfg Config, name string, s ir.State) (*Table, error) { return build(cfg, name, s, nil) }

// build is Build for a table in which the groups of named have the names of others.
func build(cfg Config, name string, s ir.State, named map[ir.GroupID]ir.Group) (*Table, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	b, err := bookOf(cfg, s, named)
	if err != nil {
		return nil, err
	}
	t := &Table{Name: name}
	t.Chains = append(t.Chains, endChains(cfg)...)
	for _, p := range s.PeerSets {
		if !b.sets[p.ID].own() {
			continue
		}
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
		e := b.groups[g.ID]
		maps, chain, err := b.groupObjects(e)
		if err != nil {
			return nil, err
		}
		t.Maps = append(t.Maps, maps...)
		t.Sets = append(t.Sets, b.folded(e)...)
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
		t.Sets = append(t.Sets, f.selfSet(), f.cutSet())
		for _, d := range directions {
			t.Sets = append(t.Sets, f.isolatedSet(d), f.deniedSet(d))
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
			put(f.dispatchMap(d), b.dispatchElement(e.Addr, e.Group(d)))
			if b.isolates(e.Group(d)) {
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

// dispatchElement leads to the chain of a group, or past all of them: "" is no group.
func (b *book) dispatchElement(a netip.Addr, id ir.GroupID) Element {
	e := addrElement(a)
	e.Verdict = accept
	if id != "" {
		e.Verdict = Verdict{Kind: VerdictJump, Chain: b.groups[id].chain}
	}
	return e
}

// baseChains returns the chains through which packets enter the table, and those
// that only they lead to, but for those of the barrier.
func baseChains(cfg Config) []*Chain {
	chains := []*Chain{nearChain(), linkLocalChain()}
	if cfg.Midstream {
		chains = append(chains, midstreamChains()...)
	}
	egress := &Chain{Name: chainEgress, Hook: HookForward, Priority: priorityEgress, Rules: []Rule{established}}
	ingress := &Chain{Name: chainIngress, Hook: HookForward, Priority: priorityIngress, Rules: []Rule{established}}
	chains = append(chains, egress, byFamily(egress, func(f family) []Rule { return egressRules(cfg, f) }))
	chains = append(chains, ingress, byFamily(ingress, func(f family) []Rule {
		return slices.Concat(f.discovery(), f.dispatch(cfg, ir.Ingress))
	}))
	if cfg.PodToNode {
		host := &Chain{Name: chainHost, Hook: HookInput, Priority: priorityHost, Rules: []Rule{established}}
		if len(cfg.PodCIDRs) > 0 {
			// The node talks to itself from all its addresses, those in the blocks
			// of pods included.
			host.Rules = append(host.Rules, Rule{Match: []Match{Loopback{}}, Action: accept})
		}
		chains = append(chains, host, byFamily(host, func(f family) []Rule { return hostRules(cfg, f) }))
	}
	return chains
}

// byFamily appends the rules for IPv4 to a chain and returns the chain for IPv6, to
// which it leads: so no packet meets the rules for the other family.
func byFamily(c *Chain, rules func(family) []Rule) *Chain {
	six := &Chain{Name: c.Name + families[1].digit, Rules: rules(families[1])}
	c.Rules = append(c.Rules, Rule{Match: []Match{familyIPv6}, Action: Verdict{VerdictGoto, six.Name}})
	c.Rules = append(c.Rules, rules(families[0])...)
	return six
}

// egressRules are those of chain egress.
func egressRules(cfg Config, f family) []Rule {
	rules := slices.Concat(f.discovery(), f.linkLocal())
	if cfg.Midstream {
		rules = append(rules, Rule{Match: midstream, Action: Verdict{VerdictJump, chainMidstream}})
	}
	return append(rules, f.dispatch(cfg, ir.Egress)...)
}

// hostRules are those of chain egress as far as they concern packets from a pod to
// its own node. Such a packet is never one of a pod to itself.
func hostRules(cfg Config, f family) []Rule {
	rules := f.discovery()
	if cfg.Midstream {
		// What the pod may receive does not count here, nor does what it may
		// send where that is not restricted: the node may open connections to
		// every pod, and the pod may answer.
		rules = append(rules, resetIsolated(f, f.saddr, ir.Egress, midstream...))
	}
	return append(rules, f.dispatch(cfg, ir.Egress)...)
}

var accept = Verdict{Kind: VerdictAccept}

// established accepts what belongs to a flow that was judged before. Behind it packets
// are new, or invalid.
var established = Rule{Match: []Match{CTEstablished | CTRelated}, Action: accept}

// discovery accepts neighbour discovery: on bridged pods it crosses the forward hook,
// and without it no IPv6 packet would ever find its way.
func (f family) discovery() []Rule {
	if f.addr != TypeAddr6 {
		return nil
	}
	return []Rule{{Match: []Match{ICMPv6Type{133, 137}}, Action: accept}}
}

func each(rule func(family) Rule) (rules []Rule) {
	for _, f := range families {
		rules = append(rules, rule(f))
	}
	return rules
}

func self() []Rule {
	return each(func(f family) Rule {
		return Rule{Match: []Match{In{f.both, f.selfSet().Name}}, Action: accept}
	})
}

// dispatch leads to the chain of the pod's group, or accepts what an endpoint in no
// group sends or receives. Every group's chain ends the packet's way. What comes back
// from the map all the same met something incomplete, and fails closed: in a block by
// the quarantine, and elsewhere because the pod is isolated.
func (f family) dispatch(cfg Config, d ir.Direction) []Rule {
	return slices.Concat(
		[]Rule{{Action: Vmap{f.own(d), f.dispatchMap(d).Name}}},
		f.quarantine(cfg.podBlocks(), d),
		[]Rule{{Match: []Match{In{f.own(d), f.isolatedSet(d).Name}}, Action: Verdict{VerdictGoto, endChain(LogPolicy, d)}}},
	)
}
