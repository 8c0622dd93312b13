package policy

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// Verdict is what this node's policies say of a flow, by the end that each
// direction belongs to: Egress is what the source pod's say, Ingress what the
// destination pod's say. A flow may pass if both allow it.
type Verdict struct {
	Ingress, Egress Judgement
}

// Allowed reports whether both directions allow the flow.
func (v Verdict) Allowed() bool { return v.Ingress.Allowed && v.Egress.Allowed }

// Judgement is what one direction says of a flow.
type Judgement struct {
	Allowed bool
	// WouldDeny is set if policies in audit mode would deny the flow if they were
	// enforced. Allowed is true then.
	WouldDeny bool
	// Policies are the "namespace/name" of all policies that isolate the pod in
	// this direction, sorted, whether or not they allow the flow; where none does,
	// of those in audit mode that would. None if the address is that of no pod here
	// or no policy is about the pod: then Allowed is true. The list is shared with
	// the Index and must not be changed.
	Policies []string
}

// Verdict judges a flow by the state that the last Flush left, as what that
// returned does when it is in force; events since then do not count. The source
// is the one before SNAT, the destination and its port those after DNAT. The
// port is 0 for a protocol that has none.
//
// The answer is that of ir.State.Verdict, without the cost of making a State: a
// few look-ups in maps and two binary searches, however many pods and policies
// there are.
//
// What a node sends to its own pods is never judged in the kernel, and the Index
// does not know the node's addresses: flows whose source is one are not for it.
func (x *Index) Verdict(src, dst netip.Addr, protocol ir.Protocol, port uint16) Verdict {
	if src == dst {
		return Verdict{Ingress: Judgement{Allowed: true}, Egress: Judgement{Allowed: true}}
	}
	return Verdict{
		Ingress: x.judge(x.endpoints[dst].Ingress, src, protocol, port),
		Egress:  x.judge(x.endpoints[src].Egress, dst, protocol, port),
	}
}

// judge asks a group, or none, about a flow from or to peer.
func (x *Index) judge(id ir.GroupID, peer netip.Addr, protocol ir.Protocol, port uint16) Judgement {
	if id == "" {
		return Judgement{Allowed: true}
	}
	g := x.groups[id]
	for _, step := range g.Steps {
		if a := x.askStep(step, peer, protocol, port); a != ir.Pass {
			deny := a == ir.Deny
			return Judgement{Allowed: !deny || g.Audit, WouldDeny: deny && g.Audit, Policies: g.Policies}
		}
	}
	return Judgement{Allowed: true, Policies: g.Policies}
}

func (x *Index) askStep(step ir.Step, peer netip.Addr, protocol ir.Protocol, port uint16) ir.Action {
	rules := step.Rules
	if step.Tier == ir.TierNetworkPolicy {
		rules = decidingRule(rules, protocol, port)
	}
	for _, r := range rules {
		if covers(r, protocol, port) && (r.Peers.Any || x.sets[r.Peers.Set].contained(peer)) {
			return r.Action
		}
	}
	return step.Miss
}

func covers(r ir.Rule, protocol ir.Protocol, port uint16) bool {
	return r.Protocol == ir.AnyProtocol || r.Protocol == protocol && r.First <= port && port <= r.Last
}

// decidingRule returns the one rule of a TierNetworkPolicy step that covers the
// protocol and port first, or none. There may be tens of thousands of them.
func decidingRule(rules []ir.Rule, protocol ir.Protocol, port uint16) []ir.Rule {
	n := len(rules)
	ported := rules
	if n > 0 && rules[n-1].Protocol == ir.AnyProtocol {
		ported = rules[:n-1]
	}
	i, _ := slices.BinarySearchFunc(ported, port, func(r ir.Rule, port uint16) int {
		return cmp.Or(cmp.Compare(r.Protocol, protocol), cmp.Compare(r.Last, port))
	})
	if i < len(ported) && covers(ported[i], protocol, port) {
		return ported[i : i+1]
	}
	return rules[len(ported):]
}

// contained reports whether a was in the set when Flush last told of it.
func (s *peerSet) contained(a netip.Addr) bool {
	in, moved := s.was[a]
	if !moved {
		in = s.counts[a] > 0
	}
	return in || inPrefixes(s.fixed.Blocks, a)
}
