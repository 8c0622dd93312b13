package nft

import (
	"net/netip"
	"slices"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// podBlocks returns the blocks of Config.PodCIDRs, masked, sorted and without
// those that lie in another.
func (c Config) podBlocks() []netip.Prefix {
	var out []netip.Prefix
	for _, p := range c.PodCIDRs {
		out = append(out, p.Masked())
	}
	slices.SortFunc(out, netip.Prefix.Compare) // by family and address, the larger block first
	var kept []netip.Prefix
	for _, p := range out {
		if !slices.ContainsFunc(kept, func(k netip.Prefix) bool { return k.Overlaps(p) }) {
			kept = append(kept, p)
		}
	}
	return kept
}

// quarantine drops what has an address of pods that is no endpoint: it stands behind
// the map that has all endpoints. A packet of a known flow never gets here, which
// costs nothing: an address in quarantine has no flow yet, and those of a pod that
// is gone are to be deleted.
//
// The node has addresses in these blocks as well, such as that of its bridge. They
// are no endpoints and need not be: a packet that is forwarded has the node's
// address neither as its source, before SNAT, nor as its destination, after DNAT
// and after the node took back what it had translated. Packets between the node
// and a pod are not forwarded.
func (f family) quarantine(blocks []netip.Prefix, d ir.Direction) (rules []Rule) {
	for _, b := range blocks {
		if f.is(b.Addr()) {
			rules = append(rules, Rule{Match: []Match{Within{f.own(d), b}}, Action: Verdict{VerdictGoto, endChain(LogQuarantine, d)}})
		}
	}
	return rules
}

// holds reports whether a is in quarantine while it is no endpoint.
func (b *book) holds(a netip.Addr) bool {
	return slices.ContainsFunc(b.blocks, func(p netip.Prefix) bool { return p.Contains(a) })
}

// opensNone matches TCP packets that open no connection.
var opensNone = TCPFlags{TCPFin | TCPSyn | TCPRst | TCPAck, TCPSyn}

// midstream is what matches TCP packets that belong to no known connection and
// open none.
var midstream = []Match{opensNone, CTNew}

// midstreamChains reset the connections of isolated pods. A packet in midstream
// does not tell which end opened the connection, so that either end may be the one
// whose policies have to be asked and cannot be: whoever still has a right to the
// connection opens another one.
func midstreamChains() []*Chain {
	c := &Chain{Name: chainMidstream}
	for _, f := range families {
		for _, field := range []Field{f.saddr, f.daddr} {
			for _, d := range directions {
				c.Rules = append(c.Rules, resetIsolated(f, field, d))
			}
		}
	}
	return []*Chain{c, {Name: chainReset, Rules: []Rule{
		{Match: []Match{protoTCP}, Action: RejectTCPReset},
		{Action: Verdict{Kind: VerdictDrop}},
	}}}
}

func resetIsolated(f family, field Field, d ir.Direction, more ...Match) Rule {
	return Rule{Match: append(slices.Clone(more), In{field, f.isolatedSet(d).Name}), Action: Verdict{VerdictGoto, chainReset}}
}
