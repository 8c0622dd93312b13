package nft

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// A wide group (ir.Group.Wide) has peer sets for many single ports. A set of the
// kernel's and a chain for each of them would be too many: the kernel finds a set by
// walking a list. So a wide group has one set of its own, by family, that holds
// peer, protocol and port together, for all its single ports whose peers are pods and
// blocks of few addresses: they are folded into it. That takes as many elements as
// sets of their own would, as long as one group and port has the peers.

// fewAddresses is how many addresses the blocks of a peer set may have to be folded.
const fewAddresses = 64

// addressesOf returns all addresses of blocks, nil if they are more than few.
func addressesOf(blocks []netip.Prefix) []netip.Addr {
	n := 0
	for _, p := range blocks {
		bits := p.Addr().BitLen() - p.Bits()
		if bits > 8 {
			return nil
		}
		if n += 1 << bits; n > fewAddresses {
			return nil
		}
	}
	var out []netip.Addr
	for _, p := range blocks {
		for a := p.Masked().Addr(); p.Contains(a); a = a.Next() {
			out = append(out, a)
		}
	}
	return out
}

// folds reports whether r, a rule of g whose peers are s, is folded.
func (s *setEntry) folds(g ir.Group, r ir.Rule) bool {
	return g.Wide && r.Action == ir.Accept && r.Protocol != ir.AnyProtocol && r.First == r.Last &&
		!r.Peers.Any && (s.set.Selects && len(s.set.Blocks) == 0 || len(s.fixed) > 0)
}

// addrs returns the addresses of a set that is folded.
func (s *setEntry) addrs() []netip.Addr {
	return append(s.varying(slices.Collect(maps.Keys(s.members))), s.fixed...)
}

// varying returns those of addrs that are in the set for their pods' sake only.
func (s *setEntry) varying(addrs []netip.Addr) []netip.Addr {
	if len(s.fixed) == 0 {
		return addrs
	}
	return without(addrs, s.fixed)
}

// fold notes, or with -1 no longer notes, that e has the set s at the port of r.
func (b *book) fold(s *setEntry, e *groupEntry, r ir.Rule, n int) error {
	at := portAt{r.Protocol, r.First}
	if n < 0 {
		if s.folded[e] = slices.DeleteFunc(s.folded[e], func(x portAt) bool { return x == at }); len(s.folded[e]) == 0 {
			delete(s.folded, e)
		}
		b.unsettled = append(b.unsettled, s)
		return nil
	}
	if s.members == nil {
		if !s.known && s.set.Selects {
			return fmt.Errorf("group %s: the addresses of peer set %s are not known", e.group.ID, s.set.ID)
		}
		s.remember(s.set.Addrs)
	}
	if s.folded == nil {
		s.folded = map[*groupEntry][]portAt{}
	}
	s.folded[e] = append(s.folded[e], at)
	return nil
}

func (s *setEntry) remember(addrs []netip.Addr) {
	s.members = make(map[netip.Addr]struct{}, len(addrs))
	for _, a := range addrs {
		s.members[a] = struct{}{}
	}
}

// recall takes in the addresses of sets that were there before, for groups that fold
// them from now on.
func (b *book) recall(sets []ir.PeerSet) error {
	for _, p := range sets {
		s := b.sets[p.ID]
		if s == nil || !s.set.Selects {
			return fmt.Errorf("peer set %s has addresses but is not there or selects no pods", p.ID)
		}
		if s.members == nil {
			s.remember(p.Addrs) // at once: they may change before they are folded
			b.unsettled = append(b.unsettled, s)
		}
	}
	return nil
}

// shift carries a change of the set's addresses into what is remembered of them.
func (s *setEntry) shift(c ir.PeerSetChange) {
	if s.members == nil {
		return
	}
	for _, a := range c.Leave {
		delete(s.members, a)
	}
	for _, a := range c.Join {
		s.members[a] = struct{}{}
	}
}

// foldedSet is the set that a wide group folds peers into.
func (f family) foldedSet(named ir.Group) *Set {
	return &Set{Name: groupName(named.ID) + "_peers" + f.digit, Type: f.peerPort}
}

// foldedField is what of a packet is looked up there.
func (f family) foldedField(d ir.Direction) Field {
	if d == ir.Egress {
		return f.daddrPort
	}
	return f.saddrPort
}

// foldedElements returns the elements for each of the addresses of f at each port.
func foldedElements(f family, addrs []netip.Addr, ports []portAt) []Element {
	var out []Element
	for _, a := range ofFamily(f, addrs) {
		for _, at := range ports {
			out = append(out, foldedElement(a, at))
		}
	}
	return out
}

func foldedElement(a netip.Addr, at portAt) Element {
	return single(addrKey(a) + protoPortKey(uint8(at.protocol), at.port))
}

// foldedSets returns the two sets of a wide group without elements, or none.
func foldedSets(e *groupEntry) []*Set {
	if !e.group.Wide {
		return nil
	}
	return []*Set{families[0].foldedSet(e.named), families[1].foldedSet(e.named)}
}

// folded returns them with their elements.
func (b *book) folded(e *groupEntry) []*Set {
	sets := foldedSets(e)
	if sets == nil {
		return nil
	}
	for _, step := range e.group.Steps {
		for _, r := range step.Rules {
			s := b.sets[r.Peers.Set]
			if r.Peers.Any || s == nil || !s.folds(e.group, r) {
				continue
			}
			for i, f := range families {
				sets[i].Elements = append(sets[i].Elements, foldedElements(f, s.addrs(), []portAt{{r.Protocol, r.First}})...)
			}
		}
	}
	return sets
}

// foldedRules are those that look into them.
func foldedRules(e *groupEntry) (rules []Rule) {
	if !e.group.Wide {
		return nil
	}
	return each(func(f family) Rule {
		return Rule{Match: []Match{In{f.foldedField(e.group.Direction), f.foldedSet(e.named).Name}}, Action: accept}
	})
}
