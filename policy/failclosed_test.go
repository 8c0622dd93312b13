package policy

import (
	"testing"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// TestFailClosed has one invalid part each. The part matches nothing (the flows
// say so), the rest of the policy and other policies stay in force, and the
// problem names the field.
func TestFailClosed(t *testing.T) {
	peer := func(s string) string {
		return `{podSelector: {matchLabels: {app: web}}, ingress: [{from: [` + s + `]}]}`
	}
	port := func(s string) string {
		return `{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [` + s + `]}]}`
	}
	closed := []string{"!out>web tcp/80", "!db>web tcp/80", "!out>web tcp/8080", "!out>web tcp/443", "!out>web icmp", "!out>web udp/80", "web>out tcp/80", "out>db tcp/80"}
	const from0, ports0 = "spec.ingress[0].from[0]", "spec.ingress[0].ports[0]"
	for _, c := range []struct {
		name, spec string
		fields     []string
		expect     []string
	}{
		{"no CIDR", peer(`{ipBlock: {cidr: nonsense}}`), []string{from0 + ".ipBlock.cidr"}, closed},
		{"address without length", peer(`{ipBlock: {cidr: 0.0.0.0}}`), []string{from0 + ".ipBlock.cidr"}, closed},
		{"empty CIDR", peer(`{ipBlock: {cidr: ""}}`), []string{from0 + ".ipBlock.cidr"}, closed},
		{"length too great", peer(`{ipBlock: {cidr: 0.0.0.0/33}}`), []string{from0 + ".ipBlock.cidr"}, closed},
		{"leading zero", peer(`{ipBlock: {cidr: 192.000.2.0/1}}`), []string{from0 + ".ipBlock.cidr"}, closed},
		{"4-in-6", peer(`{ipBlock: {cidr: "::ffff:192.0.2.0/100"}}`), []string{from0 + ".ipBlock.cidr"}, closed},
		{"no except", peer(`{ipBlock: {cidr: 0.0.0.0/0, except: [nonsense]}}`), []string{from0 + ".ipBlock.except[0]"}, closed},
		{"except outside", peer(`{ipBlock: {cidr: 192.0.0.0/8, except: [192.1.0.0/16, 10.0.0.0/9]}}`), []string{from0 + ".ipBlock.except[1]"}, closed},
		{"except around", peer(`{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.0.0/8]}}`), []string{from0 + ".ipBlock.except[0]"}, closed},
		{"except around from the same address", peer(`{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.0/23]}}`), []string{from0 + ".ipBlock.except[0]"}, closed},
		{"except of the other family", peer(`{ipBlock: {cidr: 0.0.0.0/0, except: ["::1/128"]}}`), []string{from0 + ".ipBlock.except[0]"}, closed},
		{"cidr and except both", peer(`{ipBlock: {cidr: x, except: [y]}}`), []string{from0 + ".ipBlock.cidr", from0 + ".ipBlock.except[0]"}, closed},
		{"block and selector", peer(`{ipBlock: {cidr: 0.0.0.0/0}, podSelector: {}}`), []string{from0}, closed},
		{"block and namespaces", peer(`{ipBlock: {cidr: 0.0.0.0/0}, namespaceSelector: {}}`), []string{from0}, closed},
		{"empty peer", peer(`{}`), []string{from0}, closed},
		{"bad operator", peer(`{podSelector: {matchExpressions: [{key: a, operator: Gt, values: ["1"]}]}}`), []string{from0 + ".podSelector.matchExpressions[0].operator"}, closed},
		{"In without values", peer(`{podSelector: {matchExpressions: [{key: a, operator: NotIn}]}}`), []string{from0 + ".podSelector.matchExpressions[0].values"}, closed},
		{"DoesNotExist with values", peer(`{podSelector: {matchExpressions: [{key: a, operator: DoesNotExist, values: [x]}]}}`), []string{from0 + ".podSelector.matchExpressions[0].values"}, closed},
		{"bad key", peer(`{podSelector: {matchExpressions: [{key: "a b", operator: DoesNotExist}]}}`), []string{from0 + ".podSelector.matchExpressions[0].key"}, closed},
		{"bad value", peer(`{podSelector: {matchExpressions: [{key: a, operator: NotIn, values: ["a b"]}]}}`), []string{from0 + ".podSelector.matchExpressions[0].values"}, closed},
		{"bad namespaceSelector beside a good podSelector", peer(`{podSelector: {}, namespaceSelector: {matchLabels: {"-": x}}}`), []string{from0 + ".namespaceSelector.matchLabels[-].key"}, closed},
		{"one bad peer of two", peer(`{ipBlock: {cidr: x}}, {podSelector: {matchLabels: {app: db}}}`), []string{from0 + ".ipBlock.cidr"}, []string{"db>web tcp/80", "!out>web tcp/80"}},

		{"unknown protocol", port(`{port: 80, protocol: ICMP}`), []string{ports0 + ".protocol"}, closed},
		{"lower case protocol", port(`{port: 80, protocol: tcp}`), []string{ports0 + ".protocol"}, closed},
		{"empty protocol", port(`{port: 80, protocol: ""}`), []string{ports0 + ".protocol"}, closed},
		{"port 0", port(`{port: 0}`), []string{ports0 + ".port"}, closed},
		{"port 0 to the end", port(`{port: 0, endPort: 65535}`), []string{ports0 + ".port"}, closed},
		{"negative port", port(`{port: -80}`), []string{ports0 + ".port"}, closed},
		{"port modulo 65536", port(`{port: 65616}`), []string{ports0 + ".port"}, closed},
		{"endPort first", port(`{port: 443, endPort: 80}`), []string{ports0 + ".endPort"}, closed},
		{"endPort too great", port(`{port: 80, endPort: 65536}`), []string{ports0 + ".endPort"}, closed},
		{"endPort with a name", port(`{port: http, endPort: 9000}`), []string{ports0 + ".endPort"}, closed},
		{"endPort alone", port(`{endPort: 9000}`), []string{ports0 + ".endPort"}, closed},
		{"bad name", port(`{port: "80"}`), []string{ports0 + ".port"}, closed},
		{"empty name", port(`{port: ""}`), []string{ports0 + ".port"}, closed},
		{"one bad port of two", port(`{port: 0}, {port: 443}`), []string{ports0 + ".port"}, []string{"!out>web tcp/80", "out>web tcp/443"}},

		{"bad subject isolates the namespace", `{podSelector: {matchExpressions: [{key: app, operator: Foo}]}, ingress: [{}]}`,
			[]string{"spec.podSelector.matchExpressions[0].operator"}, []string{"!out>web tcp/80", "!out>db tcp/80", "out>prom tcp/80", "db>out tcp/80"}},
		{"bad subject, egress", `{podSelector: {matchLabels: {"a b": x}}, policyTypes: [Egress], egress: [{}]}`,
			[]string{"spec.podSelector.matchLabels[a b].key"}, []string{"out>web tcp/80", "!db>out tcp/80", "prom>out tcp/80"}},
		{"unknown type", `{podSelector: {matchLabels: {app: web}}, policyTypes: [Both]}`, []string{"spec.policyTypes[0]"},
			[]string{"!out>web tcp/80", "!web>out tcp/80", "out>db tcp/80"}},
		{"unknown type beside a known one", `{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress, Both]}`, []string{"spec.policyTypes[1]"},
			[]string{"out>web tcp/80", "!web>out tcp/80"}},
		{"egress", `{podSelector: {matchLabels: {app: web}}, egress: [{}, {to: [{ipBlock: {cidr: x}}], ports: [{port: 0}]}]}`,
			[]string{"spec.egress[1].to[0].ipBlock.cidr", "spec.egress[1].ports[0].port"}, []string{"web>out tcp/80", "!out>web tcp/80"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := mirror{x: NewIndex(node)}
			fleet(m.x)
			p := makePolicy(t, "shop/bad", c.spec)
			problems := m.x.SetNetworkPolicy(p)
			var fields []string
			for _, q := range problems {
				require.Equal(t, "NetworkPolicy shop/bad", q.Object)
				require.NotEmpty(t, q.Reason)
				require.Equal(t, q.Object+": "+q.Field+": "+q.Reason, q.Error())
				fields = append(fields, q.Field)
			}
			require.Equal(t, c.fields, fields)
			m.flush(t)
			expect(t, m.state, c.expect...)
			require.Equal(t, problems, m.x.SetNetworkPolicy(p), "the problems are those of the object")
			require.True(t, m.flush(t).Empty())

			// The others go on.
			require.Empty(t, m.x.SetNetworkPolicy(makePolicy(t, "shop/good", `{podSelector: {}, ingress: [{from: [{podSelector: {}}], ports: [{port: 7}]}]}`)))
			m.flush(t)
			for _, p := range flows(t, "db>web tcp/7") {
				require.Equal(t, ir.Accept, m.state.Verdict(ir.Ingress, p))
			}
			expect(t, m.state, "!out>db tcp/80")
		})
	}
}

// TestUnknownPortType: an IntOrString that is neither cannot come from YAML.
func TestUnknownPortType(t *testing.T) {
	m := mirror{x: NewIndex(node)}
	fleet(m.x)
	p := makePolicy(t, "shop/bad", `{podSelector: {}}`)
	p.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{Ports: []networkingv1.NetworkPolicyPort{{Port: &intstr.IntOrString{Type: 7, IntVal: 80}}}}}
	require.Len(t, m.x.SetNetworkPolicy(p), 1)
	m.flush(t)
	expect(t, m.state, "!out>web tcp/80")
}
