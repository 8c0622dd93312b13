package policy

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// AnnotationMode is the annotation by which a NetworkPolicy says whether it is
// enforced or tried only: "enforce" or "audit". On a Namespace it says so for all
// policies in it that do not say it themselves. Any other value means "enforce".
const AnnotationMode = "portcullis.dev/mode"

// Mode is what is done with what a policy does not allow.
type Mode uint8

const (
	// ModeEnforce denies it.
	ModeEnforce Mode = iota
	// ModeAudit lets it pass, and tells of it: the policy isolates nobody.
	ModeAudit
)

// String returns the mode as it stands in the annotation.
func (m Mode) String() string {
	if m == ModeAudit {
		return "audit"
	}
	return "enforce"
}

// parseMode reads the annotation. A value that means nothing is reported, and
// enforces: whoever meant to deny must not be left open by a slip.
func parseMode(annotations map[string]string, report reporter) (m Mode, said bool) {
	v, said := annotations[AnnotationMode]
	switch {
	case v == ModeAudit.String():
		return ModeAudit, true
	case said && v != ModeEnforce.String():
		report("metadata.annotations["+AnnotationMode+"]", "%q is neither audit nor enforce", v)
	}
	return ModeEnforce, said
}

// CheckNamespace returns what is wrong with a Namespace: a mode that means nothing.
// The policies that go by it are enforced.
func CheckNamespace(n *corev1.Namespace) []Problem {
	var problems []Problem
	parseMode(n.Annotations, func(field, format string, args ...any) {
		problems = append(problems, Problem{"Namespace " + n.Name, field, fmt.Sprintf(format, args...)})
	})
	return problems
}

// modeOf returns the mode of a policy of the namespace.
func (ns *namespace) modeOf(s *policySpec) Mode {
	if s.saysMode {
		return s.mode
	}
	return ns.mode
}

// setMode replaces what the namespace says of its policies. What that means for the
// pods that they select is left to Flush.
func (x *Index) setMode(ns *namespace, m Mode) {
	if ns.mode == m {
		return
	}
	ns.mode = m
	for p := range ns.local {
		if slices.ContainsFunc(x.selecting(p), func(s *policySpec) bool { return !s.saysMode }) {
			x.dirtyPods[p] = struct{}{}
		}
	}
}

// Mode returns the mode of the policy called "namespace/name" as of now, whether or
// not a Flush has told of it; ModeEnforce if there is no such policy.
func (x *Index) Mode(policy string) Mode {
	namespace, name, _ := strings.Cut(policy, "/")
	if ns := x.namespaces[namespace]; ns != nil && ns.policies[name] != nil {
		return ns.modeOf(ns.policies[name])
	}
	return ModeEnforce
}
