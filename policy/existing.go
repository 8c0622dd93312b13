package policy

import (
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
)

// AnnotationExistingConnections is the annotation by which a NetworkPolicy says
// what becomes of connections that it no longer allows: "cut" or "keep".
const AnnotationExistingConnections = "portcullis.dev/existing-connections"

// ExistingConnections is what a NetworkPolicy wants for connections that were
// allowed when they began and no longer are.
type ExistingConnections uint8

const (
	// ExistingUnset leaves it to the node's configuration.
	ExistingUnset ExistingConnections = iota
	// ExistingKeep lets them go on until they end.
	ExistingKeep
	// ExistingCut ends them.
	ExistingCut
)

// String returns the value as it stands in the annotation, "" for ExistingUnset.
func (e ExistingConnections) String() string {
	switch e {
	case ExistingKeep:
		return "keep"
	case ExistingCut:
		return "cut"
	}
	return ""
}

// parseExisting reads the annotation. A value that means nothing is reported and
// counts as none: the node's configuration is the safer guess.
func parseExisting(np *networkingv1.NetworkPolicy, report reporter) ExistingConnections {
	v, set := np.Annotations[AnnotationExistingConnections]
	switch {
	case !set:
		return ExistingUnset
	case v == ExistingKeep.String():
		return ExistingKeep
	case v == ExistingCut.String():
		return ExistingCut
	}
	report("metadata.annotations["+AnnotationExistingConnections+"]", "%q is neither cut nor keep", v)
	return ExistingUnset
}

// ExistingConnections returns what the policy called "namespace/name" wants as of
// now, whether or not a Flush has told of it; ExistingUnset if there is no such
// policy. It has no part in the State: a change of it changes nothing in the kernel.
func (x *Index) ExistingConnections(policy string) ExistingConnections {
	namespace, name, _ := strings.Cut(policy, "/")
	if ns := x.namespaces[namespace]; ns != nil && ns.policies[name] != nil {
		return ns.policies[name].existing
	}
	return ExistingUnset
}
