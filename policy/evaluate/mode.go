package evaluate

import networkingv1 "k8s.io/api/networking/v1"

// modeAnnotation says what a policy is for: "enforce" it, or only "audit" what it would deny.
const modeAnnotation = "portcullis.dev/mode"

// audits tells whether a policy is in audit mode. What the policy says itself counts; if it says nothing, what its
// namespace says. Whatever is not the word "audit" enforces.
func (c Cluster) audits(policy *networkingv1.NetworkPolicy) bool {
	if mode, says := policy.Annotations[modeAnnotation]; says {
		return mode == "audit"
	}
	for _, ns := range c.Namespaces {
		if ns.Name == policy.Namespace {
			return ns.Annotations[modeAnnotation] == "audit"
		}
	}
	return false
}
