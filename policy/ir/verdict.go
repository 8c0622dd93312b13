package ir

import (
	"net/netip"
	"slices"
)

// Packet is the first packet of a flow, as the node's forward hook sees it: the
// destination after DNAT, the source before SNAT.
type Packet struct {
	Src, Dst netip.Addr
	// Protocol is the IANA number; any protocol, not only those of rules.
	Protocol Protocol
	// DstPort is 0 for protocols without ports.
	DstPort uint16
}

// Verdict says what the direction d of the pod that owns the packet's end
// decides: Accept or Deny. An address without an endpoint here is not ours to
// judge, and is accepted, as is a packet from an address to itself, and all that an
// Audit group judges.
func (s State) Verdict(d Direction, p Packet) Action {
	if a, audit := s.judge(d, p); !audit {
		return a
	}
	return Accept
}

// WouldDeny reports whether Verdict would be Deny if the group that judges the packet
// was not an Audit group. It is false where Verdict is Deny.
func (s State) WouldDeny(d Direction, p Packet) bool {
	a, audit := s.judge(d, p)
	return audit && a == Deny
}

// judge returns what the group says, and whether it is an Audit group.
func (s State) judge(d Direction, p Packet) (a Action, audit bool) {
	pod, peer := p.Dst, p.Src
	if d == Egress {
		pod, peer = p.Src, p.Dst
	}
	if pod == peer {
		return Accept, false
	}
	e, ok := s.Endpoint(pod)
	if !ok || e.Group(d) == "" {
		return Accept, false
	}
	g, ok := s.Group(e.Group(d))
	if !ok {
		return Deny, false
	}
	for _, step := range g.Steps {
		if a := s.step(step, p, peer); a != Pass {
			return a, g.Audit
		}
	}
	return Accept, g.Audit
}

func (s State) step(step Step, p Packet, peer netip.Addr) Action {
	for _, r := range step.Rules {
		if r.Protocol != AnyProtocol && (r.Protocol != p.Protocol || p.DstPort < r.First || p.DstPort > r.Last) {
			continue
		}
		if s.match(r.Peers, peer) {
			return r.Action
		}
		if step.Tier == TierNetworkPolicy {
			return step.Miss // the rule's peers include those of the rules behind it
		}
	}
	return step.Miss
}

func (s State) match(p Peers, peer netip.Addr) bool {
	if p.Any {
		return true
	}
	set, ok := s.PeerSet(p.Set)
	return ok && set.Contains(peer)
}

// Contains reports whether a is one of the set's addresses or in one of its blocks.
func (p PeerSet) Contains(a netip.Addr) bool {
	if _, ok := slices.BinarySearchFunc(p.Addrs, a, netip.Addr.Compare); ok {
		return true
	}
	return slices.ContainsFunc(p.Blocks, func(b netip.Prefix) bool { return b.Contains(a) })
}
