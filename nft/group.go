package nft

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// fullRange reports whether a rule matches every port of its protocol.
func fullRange(r ir.Rule) bool { return r.First == 0 && r.Last == 65535 }

// groupObjects returns the chain of a group and the maps that it looks ports up in.
func (b *book) groupObjects(e *groupEntry) (maps []*Set, chain *Chain, err error) {
	g := e.group
	chain = &Chain{Name: e.chain, Rules: foldedRules(e)}
	for _, step := range g.Steps {
		if step.Tier != ir.TierNetworkPolicy {
			return nil, nil, fmt.Errorf("group %s: tier %d is not known", g.ID, step.Tier)
		}
		m, rules, err := b.networkPolicyStep(e, step)
		if err != nil {
			return nil, nil, fmt.Errorf("group %s: %w", g.ID, err)
		}
		maps = append(maps, m...)
		chain.Rules = append(chain.Rules, rules...)
	}
	chain.Rules = append(chain.Rules, Rule{
		Action:  Verdict{VerdictGoto, groupEnd(g)},
		Comment: policiesComment(e.named),
	})
	return maps, chain, nil
}

// groupEnd returns the chain for what no step of g accepts.
func groupEnd(g ir.Group) string {
	if g.Audit {
		return endChain(LogAudit, g.Direction)
	}
	return endChain(LogPolicy, g.Direction)
}

// networkPolicyStep turns one step into rules that accept. The port intervals
// are disjoint and the peers of each include those of the rule for any protocol,
// so the order of the rules carries no meaning.
func (b *book) networkPolicyStep(e *groupEntry, step ir.Step) (maps []*Set, rules []Rule, err error) {
	if step.Miss != ir.Deny {
		return nil, nil, fmt.Errorf("miss action %s", step.Miss)
	}
	g, id := e.group, e.named.ID
	exact := &Set{Name: groupPorts(id), Type: TypeProtoPort, Map: true}
	ranges := map[ir.Protocol]*Set{}
	var whole, last []Rule
	for _, r := range step.Rules {
		if r.Action != ir.Accept {
			return nil, nil, fmt.Errorf("rule with action %s", r.Action)
		}
		to := allow(g.Direction, r.Peers)
		s := b.sets[r.Peers.Set]
		switch {
		case s != nil && s.folds(g, r):
		case r.Protocol == ir.AnyProtocol:
			last = append(last, Rule{Action: to})
		case fullRange(r):
			whole = append(whole, Rule{Match: []Match{Protocol(r.Protocol)}, Action: to})
		case r.First > r.Last:
			return nil, nil, fmt.Errorf("ports %d-%d", r.First, r.Last)
		case r.First == r.Last:
			key := protoPortKey(uint8(r.Protocol), r.First)
			exact.Elements = append(exact.Elements, Element{Key: key, Last: key, Verdict: to})
		default:
			if ranges[r.Protocol] == nil {
				ranges[r.Protocol] = &Set{Name: groupRanges(id, r.Protocol), Type: TypePort, Map: true, Interval: true}
			}
			m := ranges[r.Protocol]
			m.Elements = append(m.Elements, Element{Key: portKey(r.First), Last: portKey(r.Last), Verdict: to})
		}
	}
	if len(exact.Elements) > 0 {
		maps = append(maps, exact)
		rules = append(rules, Rule{Action: Vmap{FieldProtoPort, exact.Name}})
	}
	for _, p := range []ir.Protocol{ir.TCP, ir.UDP, ir.SCTP} {
		if m := ranges[p]; m != nil {
			maps = append(maps, m)
			rules = append(rules, Rule{Match: []Match{Protocol(p)}, Action: Vmap{FieldPort, m.Name}})
			delete(ranges, p)
		}
	}
	for p := range ranges {
		return nil, nil, fmt.Errorf("protocol %d has no ports", p)
	}
	for _, m := range maps {
		if err := m.disjoint(); err != nil {
			return nil, nil, err
		}
	}
	return maps, slices.Concat(rules, whole, last), nil
}

// disjoint sorts the elements and reports whether two of them overlap.
func (s *Set) disjoint() error {
	s.sort()
	for i := 1; i < len(s.Elements); i++ {
		if s.Elements[i].Key <= s.Elements[i-1].Last {
			return fmt.Errorf("%s: %s overlaps %s", s.Name, s.elementText(s.Elements[i]), s.elementText(s.Elements[i-1]))
		}
	}
	return nil
}

// allow returns where a packet goes whose protocol and port match: to accept, or
// to the chain that accepts the peers and else returns.
func allow(d ir.Direction, p ir.Peers) Verdict {
	if p.Any {
		return Verdict{Kind: VerdictAccept}
	}
	return Verdict{VerdictJump, peerChainName(p.Set, d)}
}

// peerSetHeaders returns the sets of a peer set without elements: hash sets for
// the addresses that pods join and leave, interval sets for the blocks, each only
// where there can be any.
func peerSetHeaders(p ir.PeerSet) []*Set {
	var sets []*Set
	for _, f := range families {
		if p.Selects {
			sets = append(sets, f.memberSet(p.ID))
		}
	}
	for _, f := range families {
		if slices.ContainsFunc(p.Blocks, func(b netip.Prefix) bool { return f.is(b.Addr()) }) {
			sets = append(sets, &Set{Name: peerName(p.ID) + "_c" + f.digit, Type: f.addr, Interval: true})
		}
	}
	return sets
}

func (f family) memberSet(id ir.PeerSetID) *Set {
	return &Set{Name: peerName(id) + "_" + f.digit, Type: f.addr}
}

// peerSets returns the sets of a peer set with their elements.
func peerSets(p ir.PeerSet) ([]*Set, error) {
	sets := peerSetHeaders(p)
	for _, s := range sets {
		f := families[0]
		if s.Type == TypeAddr6 {
			f = families[1]
		}
		if !s.Interval {
			s.Elements = addrElements(ofFamily(f, p.Addrs))
		} else {
			for _, b := range p.Blocks {
				if f.is(b.Addr()) {
					s.addRange(blockElement(b))
				}
			}
		}
		if err := s.disjoint(); err != nil {
			return nil, err
		}
	}
	return sets, nil
}

// peerChain accepts the peers of p in one direction and returns on all others.
func peerChain(p ir.PeerSet, d ir.Direction) *Chain {
	c := &Chain{Name: peerChainName(p.ID, d)}
	for _, s := range peerSetHeaders(p) {
		field := families[0].peer(d)
		if s.Type == TypeAddr6 {
			field = families[1].peer(d)
		}
		c.Rules = append(c.Rules, Rule{Match: []Match{In{field, s.Name}}, Action: Verdict{Kind: VerdictAccept}})
	}
	if len(c.Rules) > 0 {
		c.Rules[0].Comment = comment(p.About)
	}
	return c
}

// addRange appends a range behind those that are there; one that begins where the
// last one ends makes it longer. A block without its excepts is many prefixes and
// few ranges.
func (s *Set) addRange(e Element) {
	if n := len(s.Elements); n > 0 {
		if next, ok := successor(s.Elements[n-1].Last); ok && next == e.Key {
			s.Elements[n-1].Last = e.Last
			return
		}
	}
	s.Elements = append(s.Elements, e)
}

// blockElement returns the range of a block.
func blockElement(p netip.Prefix) Element {
	p = p.Masked()
	last := p.Addr().AsSlice()
	for i := range last {
		if bits := p.Bits() - 8*i; bits <= 0 {
			last[i] = 0xff
		} else if bits < 8 {
			last[i] |= 0xff >> bits
		}
	}
	return Element{Key: addrKey(p.Addr()), Last: string(last)}
}

func single(key string) Element { return Element{Key: key, Last: key} }

func addrKey(a netip.Addr) string { return string(a.AsSlice()) }

func portKey(p uint16) string { return string([]byte{byte(p >> 8), byte(p)}) }

func protoPortKey(proto uint8, port uint16) string {
	return string([]byte{proto, 0, 0, 0, byte(port >> 8), byte(port), 0, 0})
}

// find returns the element that holds key.
func (s *Set) find(key string) (Element, bool) {
	i, ok := slices.BinarySearchFunc(s.Elements, key, func(e Element, key string) int { return cmp.Compare(e.Key, key) })
	if !ok {
		i--
	}
	if i < 0 || s.Elements[i].Last < key {
		return Element{}, false
	}
	return s.Elements[i], true
}
