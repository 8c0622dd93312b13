package policy

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// peers are the far ends that some rules allow together.
type peers struct {
	any    bool
	terms  []termSpec
	blocks []netip.Prefix
	// name is the id where the peers are canonical and it has been found.
	name ir.PeerSetID
}

// allowed returns the canonical peers of a rule.
func (r *rule) allowed() *peers {
	if r.union == nil {
		all := &peers{any: r.anyPeer}
		for _, p := range r.peers {
			if p.pods != nil {
				all.terms = append(all.terms, plainTerm(p.pods))
			}
			all.blocks = append(all.blocks, p.block...)
		}
		u := union([]*peers{all})
		u.name = u.id()
		r.union = &u
	}
	return r.union
}

// empty reports whether the peers match nothing, now and for ever.
func (p peers) empty() bool { return !p.any && len(p.terms) == 0 && len(p.blocks) == 0 }

// union returns the peers of all of list in canonical form.
func union(list []*peers) peers {
	var u peers
	for _, p := range list {
		if p.any {
			return peers{any: true}
		}
		u.terms = append(u.terms, p.terms...)
		u.blocks = append(u.blocks, p.blocks...)
	}
	slices.SortFunc(u.terms, func(a, b termSpec) int { return strings.Compare(a.key, b.key) })
	u.terms = slices.CompactFunc(u.terms, func(a, b termSpec) bool { return a.key == b.key })
	u.blocks = mergePrefixes(u.blocks)
	return u
}

// id returns the name of canonical peers, which is empty for every address.
func (p peers) id() ir.PeerSetID {
	if p.any || p.name != "" {
		return p.name
	}
	var e encoder
	e.num(uint64(len(p.terms)))
	for _, t := range p.terms {
		e.str(t.key)
	}
	e.prefixes(p.blocks)
	return ir.PeerSetID(e.id("p-"))
}

// aboutLen bounds PeerSet.About: it has to fit a comment of the kernel's.
const aboutLen = 100

// about says in words what the peers are.
func (p peers) about() string {
	var b strings.Builder
	if len(p.blocks) > 0 {
		b.WriteString(joinPrefixes(p.blocks))
	}
	for _, t := range p.terms {
		if b.Len() > aboutLen {
			break
		}
		if b.Len() > 0 {
			b.WriteString("; ")
		}
		b.WriteString(t.String())
	}
	return bounded(b.String(), aboutLen)
}

// joinPrefixes lists the first of many prefixes.
func joinPrefixes(ps []netip.Prefix) string {
	const most = 4
	var b strings.Builder
	for i, p := range ps {
		if i == most {
			b.WriteString(" and " + strconv.Itoa(len(ps)-most) + " more")
			break
		}
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(p.String())
	}
	return b.String()
}

// bounded returns s in printable ASCII and at most n bytes.
func bounded(s string, n int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
	if len(s) > n {
		s = s[:n-3] + "..."
	}
	return s
}

// peerSet is a set of peers that a group in force has.
type peerSet struct {
	// fixed is the set without its addresses.
	fixed ir.PeerSet
	terms []*term
	// counts says how many of the terms select an address.
	counts map[netip.Addr]int32
	// was says, of each address that moved since the last Flush, whether it was
	// in the set then.
	was map[netip.Addr]bool
	// told is set once a Flush has told of the set.
	told bool
	// wide counts the groups that have the set, are Wide, and were told of.
	wide int
	refs int
}

func (x *Index) join(s *peerSet, a netip.Addr) { x.move(s, a, 1) }

func (x *Index) leave(s *peerSet, a netip.Addr) { x.move(s, a, -1) }

func (x *Index) move(s *peerSet, a netip.Addr, n int32) {
	x.work.moved++
	old := s.counts[a]
	if old+n == 0 {
		delete(s.counts, a)
	} else {
		s.counts[a] = old + n
	}
	if (old == 0) == (old+n == 0) {
		return
	}
	if _, noted := s.was[a]; noted {
		return
	}
	if s.was == nil {
		s.was = map[netip.Addr]bool{}
	}
	s.was[a] = old > 0
	x.dirtySets[s] = struct{}{}
}

// useSet returns the set of canonical peers and their id, made if need be, for one more user.
func (x *Index) useSet(id ir.PeerSetID, p peers) *peerSet {
	s := x.sets[id]
	if s == nil {
		s = &peerSet{
			fixed:  ir.PeerSet{ID: id, About: p.about(), Selects: len(p.terms) > 0, Blocks: p.blocks},
			counts: map[netip.Addr]int32{},
		}
		for _, spec := range p.terms {
			t := x.useTerm(spec, s)
			s.terms = append(s.terms, t)
			t.each(func(a netip.Addr) { s.counts[a]++ })
		}
		x.sets[id] = s
	}
	s.refs++
	return s
}

func (x *Index) dropSet(s *peerSet, f *flush) {
	if s.refs--; s.refs > 0 {
		return
	}
	delete(x.sets, s.fixed.ID)
	delete(x.dirtySets, s)
	for _, t := range s.terms {
		x.dropTerm(t, s)
	}
	f.goneSets = append(f.goneSets, s)
}

// compiled returns the set as it is now or, where before is set, as it was at
// the last Flush.
func (s *peerSet) compiled(before bool) ir.PeerSet {
	p := s.fixed
	for a := range s.counts {
		if was, moved := s.was[a]; before && moved && !was {
			continue
		}
		p.Addrs = append(p.Addrs, a)
	}
	for a, was := range s.was {
		if before && was && s.counts[a] == 0 {
			p.Addrs = append(p.Addrs, a)
		}
	}
	slices.SortFunc(p.Addrs, netip.Addr.Compare)
	return p
}

// flushed returns what happened to a set's addresses, and starts anew.
func (s *peerSet) flushed() ir.PeerSetChange {
	c := ir.PeerSetChange{ID: s.fixed.ID}
	for a, was := range s.was {
		switch is := s.counts[a] > 0; {
		case is && !was:
			c.Join = append(c.Join, a)
		case was && !is:
			c.Leave = append(c.Leave, a)
		}
	}
	s.was = nil
	slices.SortFunc(c.Join, netip.Addr.Compare)
	slices.SortFunc(c.Leave, netip.Addr.Compare)
	return c
}
