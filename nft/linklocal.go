package nft

import "net/netip"

// linkLocalBlock holds the addresses that mean something on one link only. Every pod
// has one and no pod's status names it, so that no policy can speak of them.
var linkLocalBlock = netip.MustParsePrefix("fe80::/10")

// nearBlock holds linkLocalBlock and hardly anything beside: site-local addresses, which
// nobody has any more. To compare one byte takes a packet a third of the time that ten
// bits of an address take.
var nearBlock = netip.MustParsePrefix("fe00::/8")

// linkLocal keeps pods of one bridge from going past every policy by these addresses.
// A router never forwards them, so they are in the forward hook only where a bridge
// brings them there. It cannot be told which pod has which of them, hence nobody has
// the use of them, be the pods selected by a policy or not.
//
// Between a pod and its own node they go through other hooks, where this is not said:
// the gateway of a pod may be such an address.
func (f family) linkLocal() []Rule {
	if !f.is(linkLocalBlock.Addr()) {
		return nil
	}
	var rules []Rule
	for _, end := range []Field{f.saddr, f.daddr} {
		rules = append(rules, Rule{Match: []Match{Within{end, nearBlock}}, Action: Verdict{VerdictJump, chainNear}})
	}
	return rules
}

// nearChain drops what has a link-local address at either end, for good: but for what
// linkLocalChain accepts.
func nearChain() *Chain {
	f := families[1]
	return &Chain{Name: chainNear, Rules: []Rule{
		{Match: []Match{Within{f.saddr, linkLocalBlock}}, Action: Verdict{VerdictGoto, chainLinkLocal}},
		{Match: []Match{Within{f.daddr, linkLocalBlock}, Counter{}}, Action: Verdict{Kind: VerdictDrop}},
	}}
}

// linkLocalChain lets hosts and routers tell which multicast groups they listen to,
// which they do from link-local addresses: a bridge that follows it would starve pods
// of the groups by which they find their neighbours. It is a chain of its own because
// nft looks for the family once in a rule, and so would write these conditions behind
// the source in another way than the two of them alone.
func linkLocalChain() *Chain {
	return &Chain{Name: chainLinkLocal, Rules: []Rule{
		{Match: []Match{ICMPv6Type{130, 132}}, Action: accept},
		{Match: []Match{ICMPv6Type{143, 143}}, Action: accept},
		{Match: []Match{Counter{}}, Action: Verdict{Kind: VerdictDrop}},
	}}
}
