package scenario

// relabel opens and closes flows by the labels of a namespace: of the one that the
// policy's pods are in, which changes nothing, and of the peers', which does.
func relabel(s *stage) {
	const subject, peer = "relabel-subject", "relabel-peer"
	s.step("start pods")
	s.pods(
		pod{as: "web", namespace: subject, node: "node-1", labels: app("web")},
		pod{as: "near", namespace: peer, node: "node-1", labels: app("near")},
		pod{as: "far", namespace: peer, node: "node-2", labels: app("far")},
	)
	s.expect("near>web:80", "far>web:80", "web>near:80", "web>far:80")

	s.step("allow namespaces with team=blue, of which there is none")
	s.policy(subject, "blue", `{podSelector: {}, policyTypes: [Ingress, Egress],
		ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}}]}],
		egress: [{to: [{namespaceSelector: {matchLabels: {team: blue}}}]}]}`)
	closed := []string{"!near>web:80", "!far>web:80", "!web>near:80", "!web>far:80"}
	s.expect(closed...)

	s.step("the peers' namespace gets the label")
	s.label(peer, "team", "blue")
	s.expect("near>web:80", "far>web:80", "web>near:80", "web>far:80")

	s.step("it gets another value")
	s.label(peer, "team", "red")
	s.expect(closed...)

	s.step("the policy asks for everything but red, which the subject's namespace has not")
	s.policy(subject, "blue", `{podSelector: {}, policyTypes: [Ingress, Egress],
		ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: team, operator: NotIn, values: [red]}]}, podSelector: {matchLabels: {app: far}}}]}],
		egress: [{to: [{namespaceSelector: {matchExpressions: [{key: team, operator: NotIn, values: [red]}]}}]}]}`)
	s.label(peer, "team", "")
	s.expect("!near>web:80", "far>web:80", "web>near:80", "web>far:80")

	s.step("the peers judge by the namespace of the subject, too")
	s.policy(peer, "green", `{podSelector: {matchLabels: {app: far}}, policyTypes: [Ingress],
		ingress: [{from: [{namespaceSelector: {matchLabels: {team: green}}}]}]}`)
	s.expect("!web>far:80", "web>near:80")
	s.label(subject, "team", "green")
	s.expect("web>far:80", "web>near:80", "far>web:80")
	s.label(subject, "team", "red")
	s.expect("!web>far:80", "web>near:80", "far>web:80")
}
