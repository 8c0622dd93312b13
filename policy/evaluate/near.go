package evaluate

import (
	"cmp"
	"slices"
	"strings"
)

// Near is a rule that does not allow a flow, and what of it does not match.
type Near struct {
	Policy string // "namespace/name"
	Rule   int    // index in spec.ingress or spec.egress
	// Peer and Port tell which of the two match; never both.
	Peer, Port bool
	// Missing says in words what does not match, as "port tcp/80: it allows tcp/5432, udp/53" or "from pod shop/frontend:
	// it allows pods app=api in namespace shop". It is printable ASCII of at most 500 bytes, whatever the objects say.
	Missing string
}

// nearest finds, of rules that all do not allow the flow, the one that comes closest: first those whose peers match, for
// whom the author had in mind is the better hint, then those whose ports do. Of equals it is the first by policy and
// rule. There is none if the policies have no rules.
func (x conn) nearest(all []reading, d direction) *Near {
	if len(all) == 0 {
		return nil
	}
	distance := func(r reading) int {
		switch {
		case r.peerOK:
			return 0
		case r.portOK:
			return 1
		}
		return 2
	}
	// The rules of each policy come in order, and the first of equals is taken.
	best := slices.MinFunc(all, func(a, b reading) int {
		return cmp.Or(cmp.Compare(distance(a), distance(b)), strings.Compare(a.Policy, b.Policy))
	})
	return &Near{
		Policy: best.Policy, Rule: best.Rule, Peer: best.peerOK, Port: best.portOK,
		Missing: x.missing(best, d),
	}
}
