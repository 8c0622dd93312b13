package nft

import (
	"cmp"
	"net/netip"
	"slices"
)

// Outcome is what becomes of a packet.
type Outcome uint8

// The outcomes of Table.Verdict.
const (
	Drop Outcome = iota
	Accept
	Reject // dropped and answered
)

// String returns the outcome in lower case.
func (o Outcome) String() string {
	switch o {
	case Accept:
		return "accept"
	case Reject:
		return "reject"
	}
	return "drop"
}

// Packet is a packet as a hook of the node sees it: the destination after DNAT, but
// on HookPrerouting before it, the source before SNAT.
type Packet struct {
	// Hook is the one hook whose verdict is asked for; HookNone means HookForward.
	Hook     Hook
	Src, Dst netip.Addr
	// Protocol is the IANA number.
	Protocol uint8
	// SrcPort and DstPort are 0 for protocols without ports.
	SrcPort, DstPort uint16
	// TCPFlags of a TCP packet; 0 stands for TCPSyn.
	TCPFlags uint8
	// ICMPType is the type of an ICMP or ICMPv6 packet.
	ICMPType uint8
	// CTState 0 stands for CTNew: the first packet of a flow.
	CTState CTState
	// Loopback is set for what the node sends to itself, on HookInput.
	Loopback bool
}

// Verdict walks p through the table's base chains as the kernel does: chain by
// chain in the order of their priorities, where accept ends only its base chain
// and everything else that is final ends the packet's way. The table must not be
// changed after the first call; it may be called concurrently.
func (t *Table) Verdict(p Packet) Outcome {
	ix := t.indexed()
	return walker{p: p, now: func() *index { return ix }}.walk()
}

// index finds a table's objects by name.
type index struct {
	base   []*Chain
	chains map[string]*Chain
	sets   map[string]*Set
}

func (t *Table) indexed() *index {
	t.once.Do(func() {
		ix := &index{chains: map[string]*Chain{}, sets: map[string]*Set{}}
		for _, c := range t.Chains {
			ix.chains[c.Name] = c
			if c.base() {
				ix.base = append(ix.base, c)
			}
		}
		slices.SortStableFunc(ix.base, func(a, b *Chain) int { return cmp.Compare(a.Priority, b.Priority) })
		for _, s := range slices.Concat(t.Sets, t.Maps) {
			ix.sets[s.Name] = s
		}
		t.index = ix
	})
	return t.index
}

// maxJumps is the kernel's bound for the depth of jumps.
const maxJumps = 16

// walker is a packet on its way. now returns the state of the table and is asked
// anew for every chain that is entered and every set that is looked into, because
// that is when the kernel looks which generation is in force.
type walker struct {
	p   Packet
	now func() *index
	// counted is called for what counts the packet, if it is not nil: the condition at
	// i, or the action where that is -1, of a rule of a chain.
	counted func(chain string, rule, i int)
}

func (w walker) walk() Outcome {
	p := &w.p
	if p.Hook == HookNone {
		p.Hook = HookForward
	}
	if p.CTState == 0 {
		p.CTState = CTNew
	}
	if p.TCPFlags == 0 {
		p.TCPFlags = TCPSyn
	}
	for _, base := range w.now().base {
		if base.Hook != p.Hook {
			continue
		}
		if out, final := w.chain(base.Name, 0); final && out != Accept {
			return out
		}
	}
	return Accept
}

// chain returns what the rules of a chain decide; final is false if they return.
func (w walker) chain(name string, depth int) (out Outcome, final bool) {
	c := w.now().chains[name]
	if c == nil && depth == 0 {
		return Accept, true // a base chain that was deleted meanwhile
	}
	if c == nil || depth > maxJumps {
		return Drop, true // the kernel lets neither be loaded
	}
	for i, r := range c.Rules {
		if !w.matches(name, i, r) {
			continue
		}
		if _, ok := r.Action.(Tally); ok && w.counted != nil {
			w.counted(name, i, -1)
		}
		v, ok := w.action(r.Action)
		if !ok {
			continue
		}
		switch v.Kind {
		case VerdictAccept:
			return Accept, true
		case VerdictReturn:
			return Accept, false
		case VerdictJump:
			if out, final := w.chain(v.Chain, depth+1); final {
				return out, true
			}
		case VerdictGoto:
			return w.chain(v.Chain, depth+1)
		case verdictReject:
			return Reject, true
		default:
			return Drop, true
		}
	}
	return Accept, false
}

// verdictReject is the simulator's verdict for RejectWith.
const verdictReject VerdictKind = 255

// action returns the verdict of a rule that matches; ok is false if a map has none.
func (w walker) action(a Action) (v Verdict, ok bool) {
	switch a := a.(type) {
	case Verdict:
		return a, true
	case RejectWith:
		return Verdict{Kind: verdictReject}, true
	case Vmap:
		e, ok := w.lookup(a.Field, a.Map)
		return e.Verdict, ok
	case nil, Log, Tally:
		return Verdict{}, false
	}
	return Verdict{Kind: VerdictDrop}, true
}

// matches reports whether the conditions of a rule hold, of the one at a place in a chain.
func (w walker) matches(chain string, at int, r Rule) bool {
	for i, m := range r.Match {
		switch m := m.(type) {
		case CTState:
			if w.p.CTState&m == 0 {
				return false
			}
		case ICMPv6Type:
			if Protocol(w.p.Protocol) != protoICMPv6 || !w.p.Src.Is6() || w.p.ICMPType < m.First || w.p.ICMPType > m.Last {
				return false
			}
		case Family:
			if (m == familyIPv6) != w.p.Src.Is6() {
				return false
			}
		case Protocol:
			if Protocol(w.p.Protocol) != m {
				return false
			}
		case TCPFlags:
			if Protocol(w.p.Protocol) != protoTCP || w.p.TCPFlags&m.Mask == m.Not {
				return false
			}
		case Loopback:
			if !w.p.Loopback {
				return false
			}
		case Counter:
			if w.counted != nil {
				w.counted(chain, at, i)
			}
		case Limit:
		case Within:
			key, ok := m.Field.key(w.p)
			if !ok || !m.Block.Contains(keyAddr(key)) {
				return false
			}
		case In:
			if _, ok := w.lookup(m.Field, m.Set); !ok {
				return false
			}
		default:
			return false
		}
	}
	return true
}

func (w walker) lookup(f Field, set string) (Element, bool) {
	key, ok := f.key(w.p)
	if !ok {
		return Element{}, false
	}
	s := w.now().sets[set]
	if s == nil {
		return Element{}, false
	}
	return s.find(key)
}

// key returns what the field of p is in a set; ok is false if p has no such field.
func (f Field) key(p Packet) (key string, ok bool) {
	switch f {
	case FieldSaddr4, FieldDaddr4, FieldPair4, FieldTuple4, FieldSaddrPort4, FieldDaddrPort4:
		ok = p.Src.Is4() && p.Dst.Is4()
	case FieldSaddr6, FieldDaddr6, FieldPair6, FieldTuple6, FieldSaddrPort6, FieldDaddrPort6:
		ok = p.Src.Is6() && p.Dst.Is6()
	default:
		ok = true
	}
	if !ok {
		return "", false
	}
	switch f {
	case FieldSaddr4, FieldSaddr6:
		return addrKey(p.Src), true
	case FieldDaddr4, FieldDaddr6:
		return addrKey(p.Dst), true
	case FieldPair4, FieldPair6:
		return addrKey(p.Src) + addrKey(p.Dst), true
	case FieldProtoPort:
		return protoPortKey(p.Protocol, p.DstPort), true
	case FieldPort:
		return portKey(p.DstPort), true
	case FieldTuple4, FieldTuple6:
		return Tuple{p.Src, p.Dst, p.Protocol, p.SrcPort, p.DstPort}.key(), true
	case FieldSaddrPort4, FieldSaddrPort6:
		return addrKey(p.Src) + protoPortKey(p.Protocol, p.DstPort), true
	case FieldDaddrPort4, FieldDaddrPort6:
		return addrKey(p.Dst) + protoPortKey(p.Protocol, p.DstPort), true
	}
	return "", false
}
