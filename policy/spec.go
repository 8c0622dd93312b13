package policy

import (
	"net/netip"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// The types of this file are a NetworkPolicy after parsing: defaults filled in,
// invalid parts gone, selectors and blocks in canonical form. "Everything" is a
// flag of its own in each of them, never an empty list: what had only invalid
// entries is an empty list, and matches nothing.

// policySpec is one NetworkPolicy.
type policySpec struct {
	// name is "namespace/name".
	name    string
	subject selector
	sides   [2]side // by ir.Direction
	// existing stands apart from what the policy allows: it is in no digest.
	existing ExistingConnections
	// mode counts if saysMode is set, and that of the namespace otherwise. It is in no
	// digest: it decides which policies a recipe is made of.
	mode     Mode
	saysMode bool
}

// side is what a policy says about one direction.
type side struct {
	isolates bool
	rules    []rule
	// digest is equal for two sides if and only if they say the same.
	digest string
}

// rule allows every one of its peers on every one of its ports.
type rule struct {
	anyPeer bool
	peers   []peer
	anyPort bool
	ranges  []portRange
	names   []portName
	// union is what allowed returns, once it was asked for.
	union *peers
}

// portRange is a range of destination ports, both ends inclusive.
type portRange struct {
	protocol    ir.Protocol
	first, last uint16
}

// peer is a selector of pods, or a block of addresses (nil pods).
type peer struct {
	pods  *podSelector
	block []netip.Prefix
}

// podSelector selects pods of the cluster by namespace and label.
type podSelector struct {
	scope scope
	pods  selector
	key   string
}

// everyPod selects all pods, also those of namespaces that are not known.
var everyPod = newPodSelector(scope{kind: scopeCluster}, selectAll)

func newPodSelector(s scope, pods selector) *podSelector {
	var e encoder
	e.str(s.key())
	e.str(pods.key)
	return &podSelector{scope: s, pods: pods, key: e.String()}
}

// String says in words which pods are selected.
func (s *podSelector) String() string {
	return "pods " + s.pods.text + " " + s.scope.String()
}

type scopeKind uint8

const (
	scopeNamespace scopeKind = iota
	scopeSelector
	scopeCluster
)

// scope says in which namespaces pods are looked for. A scope with a selector
// covers only namespaces that are known, even if it selects all.
type scope struct {
	kind       scopeKind
	namespace  string
	namespaces selector
}

func (s scope) key() string {
	var e encoder
	e.num(uint64(s.kind))
	e.str(s.namespace)
	e.str(s.namespaces.key)
	return e.String()
}

// String says in words which namespaces are meant.
func (s scope) String() string {
	switch s.kind {
	case scopeNamespace:
		return "in namespace " + s.namespace
	case scopeSelector:
		return "in namespaces " + s.namespaces.text
	default:
		return "in the cluster"
	}
}

// digestSide sets the side's digest.
func digestSide(s *side) {
	var e encoder
	e.bool(s.isolates)
	e.num(uint64(len(s.rules)))
	for _, r := range s.rules {
		e.bool(r.anyPeer)
		e.num(uint64(len(r.peers)))
		for _, p := range r.peers {
			e.bool(p.pods != nil)
			if p.pods != nil {
				e.str(p.pods.key)
			}
			e.prefixes(p.block)
		}
		e.bool(r.anyPort)
		e.num(uint64(len(r.ranges)))
		for _, p := range r.ranges {
			e.num(uint64(p.protocol))
			e.num(uint64(p.first))
			e.num(uint64(p.last))
		}
		e.num(uint64(len(r.names)))
		for _, n := range r.names {
			e.portName(n)
		}
	}
	s.digest = e.id("")
}
