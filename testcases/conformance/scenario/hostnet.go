package scenario

import "fmt"

// hostNetwork has pods in the network of their node: policies that select them leave
// them and the node alone, and as peers only an ipBlock means them.
func hostNetwork(s *stage) {
	const ns, other, port = "hostnet", "hostnet-other", 18080
	s.step("start pods")
	s.pods(
		pod{as: "host", namespace: ns, node: "node-1", labels: app("host"), hostNetwork: true, ports: []uint16{port}},
		pod{as: "plain", namespace: ns, node: "node-1", labels: app("plain")},
		pod{as: "near", namespace: other, node: "node-1", labels: app("near")},
		pod{as: "far", namespace: other, node: "node-2", labels: app("far")},
	)
	around := []string{"near>host:18080", "far>host:18080", "outside>host:18080", "node-2>host:18080",
		"host>near:80", "host>far:80", "node-1>plain:80"}
	s.expect(append(around, "near>plain:80", "far>plain:80", "plain>near:80", "plain>far:80", "plain>host:18080")...)

	s.step("deny all in the namespace of the hostNetwork pod")
	s.policy(ns, "none", `{podSelector: {}, policyTypes: [Ingress, Egress]}`)
	s.expect(append(around, "!near>plain:80", "!far>plain:80", "!plain>near:80", "!plain>far:80", "!plain>host:18080")...)

	s.step("deny all to the hostNetwork pod by its label")
	s.policy(ns, "none", `{podSelector: {matchLabels: {app: host}}, policyTypes: [Ingress, Egress]}`)
	s.expect(append(around, "near>plain:80", "far>plain:80", "plain>near:80", "plain>far:80", "plain>host:18080")...)
	s.deletePolicy(ns, "none")

	s.step("as a peer of a podSelector it is not meant")
	s.policy(other, "far", `{podSelector: {matchLabels: {app: far}}, policyTypes: [Ingress], ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: hostnet}}, podSelector: {}}]}]}`)
	s.policy(ns, "plain", `{podSelector: {matchLabels: {app: plain}}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}, {namespaceSelector: {}}]}]}`)
	s.expect("plain>far:80", "!host>far:80", "!near>far:80", "plain>near:80", "!plain>host:18080", "node-2>far:80")

	s.step("an ipBlock of its node means it")
	node := s.target("node-1").addrs
	blocks := fmt.Sprintf(`[{ipBlock: {cidr: "%v/32"}}, {ipBlock: {cidr: "%v/128"}}]`, node[0], node[1])
	s.policy(other, "far", `{podSelector: {matchLabels: {app: far}}, policyTypes: [Ingress], ingress: [{from: `+blocks+`}]}`)
	s.policy(ns, "plain", `{podSelector: {matchLabels: {app: plain}}, policyTypes: [Egress], egress: [{to: `+blocks+`}]}`)
	s.expect("!plain>far:80", "host>far:80", "!near>far:80", "!plain>near:80", "plain>host:18080", "near>host:18080")
}
