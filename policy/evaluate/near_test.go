package evaluate_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/portcullis-netpol/portcullis/policy/evaluate"
)

// TestNearWords has one rule each, and says what is missing.
func TestNearWords(t *testing.T) {
	in := func(rule string) string { return selected + "ingress: [{" + rule + "}]" }
	out := func(rule string) string { return selected + "policyTypes: [Egress]\negress: [{" + rule + "}]" }
	const db, far = "shop/db shop/web TCP/80", "192.0.2.9 shop/web TCP/80"
	for _, tc := range []struct{ policy, flow, want string }{
		{in("ports: [{port: 5432}, {port: 53, protocol: UDP}]"), db, "port tcp/80: it allows tcp/5432, udp/53"},
		{in("ports: [{port: 8000, endPort: 8100}]"), db, "port tcp/80: it allows tcp/8000-8100"},
		{in("ports: [{protocol: UDP}]"), db, "port tcp/80: it allows every udp port"},
		{in("ports: [{port: 80}]"), "shop/db shop/web ICMP", "protocol icmp: it allows tcp/80"},
		{in("ports: [{port: http}]"), db, "port tcp/80: it allows tcp/http (which is 8080 there)"},
		{in("ports: [{port: https}]"), db, "port tcp/80: it allows tcp/https (which is no port there)"},
		{in("ports: [{port: http, protocol: UDP}]"), db, "port tcp/80: it allows udp/http (which is no port there)"},
		{out("ports: [{port: http}]"), "shop/web 192.0.2.9 TCP/80", "port tcp/80: it allows tcp/http (a name, of pods only)"},
		{in("ports: [{port: 0}, {port: 9, endPort: 8}, {protocol: 'x<y'}, {port: 'A B'}]"), db,
			"port tcp/80: it allows nothing (a malformed port), nothing (a malformed port), nothing (a malformed port), nothing (a malformed port)"},
		{in("ports: [{endPort: 9}, {port: 1}, {port: 2}, {port: 3}, {port: 4}, {port: 5}]"), db,
			"port tcp/80: it allows nothing (a malformed port), tcp/1, tcp/2, tcp/3, 2 more"},

		{in("from: [{podSelector: {matchLabels: {app: api}}}]"), db, "from pod shop/db: it allows pods app=api in namespace shop"},
		{in("from: [{podSelector: {}}]"), "ops/mon shop/web TCP/80", "from pod ops/mon: it allows all pods in namespace shop"},
		{in("from: [{namespaceSelector: {}}]"), far, "from 192.0.2.9: it allows all pods in all namespaces"},
		{out("to: [{namespaceSelector: {matchLabels: {team: b}}}]"), "shop/web shop/db TCP/80", "to pod shop/db: it allows all pods in namespaces team=b"},
		{in("from: [{namespaceSelector: {matchLabels: {team: b}}, podSelector: {matchLabels: {tier: x, app: ''}}}]"), db,
			"from pod shop/db: it allows pods app=,tier=x in namespaces team=b"},
		{in("from: [{podSelector: {matchExpressions: [{key: a, operator: In, values: [x, z]}, {key: b, operator: NotIn, values: [z]}, {key: c, operator: Exists}, {key: d, operator: DoesNotExist}]}}]"), db,
			"from pod shop/db: it allows pods a in (x,z),b notin (z),c,!d in namespace shop"},
		{in("from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]"), db, "from pod shop/db (10.1.0.2): it allows 10.0.0.0/8 but not 10.1.0.0/16"},
		{in("from: [{ipBlock: {cidr: 192.0.0.0/8, except: [192.0.2.0/25, 192.1.0.0/16]}}]"), far, "from 192.0.2.9: it allows 192.0.0.0/8 but not 192.0.2.0/25 and 192.1.0.0/16"},
		{in("from: [{ipBlock: {cidr: 198.51.100.7/24}}]"), far, "from 192.0.2.9: it allows 198.51.100.0/24"},
		{in("from: [{ipBlock: {cidr: 0.0.0.0/0}}]"), "6:shop/db 6:shop/web TCP/80", "from pod shop/db (fd01::2): it allows 0.0.0.0/0 (IPv4 only)"},
		{out("to: [{ipBlock: {cidr: '2001:db8::/32'}}]"), "shop/web 192.0.2.9 TCP/80", "to 192.0.2.9: it allows 2001:db8::/32 (IPv6 only)"},
		{in("from: [{ipBlock: {cidr: '<script>'}}, {ipBlock: {cidr: 10.0.0.0/8, except: ['x']}}, {}]"), far,
			"from 192.0.2.9: it allows nothing (a malformed ipBlock), nothing (a malformed ipBlock), nothing (an empty peer)"},
		{in("from: [{ipBlock: {cidr: 0.0.0.0/0}, podSelector: {}}, {podSelector: {matchLabels: {'a b': c}}}]"), far,
			"from 192.0.2.9: it allows nothing (an ipBlock beside a selector), nothing (a malformed selector)"},

		{in("from: [{podSelector: {matchLabels: {app: api}}}], ports: [{port: 81}]"), db,
			"from pod shop/db: it allows pods app=api in namespace shop; port tcp/80: it allows tcp/81"},
	} {
		t.Run(tc.want, func(t *testing.T) {
			c := shop()
			port(c.Pods[0], "http=8080")
			c.Policies = append(c.Policies, parsePolicy(t, "shop/p", tc.policy))
			v := evaluate.Evaluate(c, parseFlow(t, c, tc.flow))
			d := v.Ingress
			if v.Ingress.Allowed {
				d = v.Egress
			}
			require.False(t, d.Allowed)
			require.NotNil(t, d.Near)
			require.Equal(t, tc.want, d.Near.Missing)
			require.Equal(t, "shop/p", d.Near.Policy)
		})
	}
}

// TestNearest: peers count for more than ports, and of equals the first comes.
func TestNearest(t *testing.T) {
	const peers, ports = "from: [{podSelector: {matchLabels: {app: db}}}]", "ports: [{port: 80}]"
	const noPeer, noPort = "from: [{podSelector: {matchLabels: {app: api}}}]", "ports: [{port: 81}]"
	for _, tc := range []struct {
		name     string
		policies map[string]string // rules by policy
		want     evaluate.Near
	}{
		{"peers before ports", map[string]string{"shop/a": "{" + noPeer + "," + ports + "}", "shop/b": "{" + noPeer + "}, {" + peers + "," + noPort + "}"},
			evaluate.Near{Policy: "shop/b", Rule: 1, Peer: true}},
		{"ports before neither", map[string]string{"shop/a": "{" + noPeer + "," + noPort + "}", "shop/b": "{" + noPeer + "," + noPort + "}, {" + noPeer + "}"},
			evaluate.Near{Policy: "shop/b", Rule: 1, Port: true}},
		{"neither", map[string]string{"shop/a": "", "shop/b": "{" + noPeer + "," + noPort + "}"}, evaluate.Near{Policy: "shop/b"}},
		{"by policy", map[string]string{"shop/b": "{" + noPort + "}", "shop/a": "{" + noPeer + "}, {" + noPort + "}, {" + noPort + "}"},
			evaluate.Near{Policy: "shop/a", Rule: 1, Peer: true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := shop()
			for name, rules := range tc.policies {
				c.Policies = append(c.Policies, parsePolicy(t, name, selected+"ingress: ["+rules+"]"))
			}
			f := parseFlow(t, c, "shop/db shop/web TCP/80")
			for range len(c.Policies) {
				have := evaluate.Evaluate(c, f).Ingress.Near
				require.NotNil(t, have)
				assert.NotEmpty(t, have.Missing)
				have.Missing = ""
				assert.Equal(t, &tc.want, have)
				c.Policies = append(c.Policies[1:], c.Policies[0])
			}
		})
	}
}

// TestNoNear: what is allowed needs none, and without rules there is none.
func TestNoNear(t *testing.T) {
	c := shop()
	c.Policies = append(c.Policies,
		parsePolicy(t, "shop/p", selected+"ingress: [{ports: [{port: 80}]}]"),
		parsePolicy(t, "shop/q", selected+"policyTypes: [Egress]"),
		parsePolicy(t, "ops/p", "podSelector: {matchLabels: {'a b': c}}\ningress: [{}]"))
	for flow, egress := range map[string]bool{
		"shop/db shop/web TCP/80": false, "10.0.0.1 shop/web TCP/1": false, "shop/web shop/web TCP/1": false, "shop/web shop/db TCP/1": true,
		"shop/db ops/mon TCP/1": false, "shop/web 192.0.2.9 TCP/1": true,
	} {
		v := evaluate.Evaluate(c, parseFlow(t, c, flow))
		d := v.Ingress
		if egress {
			d = v.Egress
		}
		require.Nil(t, d.Near, flow)
	}
}

// TestNearIsBounded: what strangers write is cut, and nothing of it is passed on that is not plain text.
func TestNearIsBounded(t *testing.T) {
	long := strings.Repeat("x", 63)
	evil := "\x1b[31m<b>\n\"é" + strings.Repeat("y", 5000)
	labels := map[string]string{}
	var peers []networkingv1.NetworkPolicyPeer
	var ports []networkingv1.NetworkPolicyPort
	for i := range 50 {
		labels[fmt.Sprintf("%s.example/%s%d", strings.Repeat("a", 60), long[:50], i)] = long
		number := intstr.FromInt(1000 + i)
		peers = append(peers, networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchLabels: labels}},
			networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{evil: evil}}},
			networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: evil}})
		ports = append(ports, networkingv1.NetworkPolicyPort{Port: &number}, networkingv1.NetworkPolicyPort{Port: &intstr.IntOrString{Type: intstr.String, StrVal: evil}})
	}
	for _, name := range []string{"db", strings.Repeat("n", 253), evil} {
		for _, protocol := range []corev1.Protocol{"TCP", corev1.Protocol(evil)} {
			c := shop()
			c.Pods[1].Name = name
			p := parsePolicy(t, "shop/p", selected)
			p.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: peers, Ports: ports}}
			c.Policies = append(c.Policies, p)
			f := parseFlow(t, c, "10.1.0.2 shop/web TCP/80")
			f.Protocol = protocol
			missing := evaluate.Evaluate(c, f).Ingress.Near.Missing
			require.LessOrEqual(t, len(missing), 500)
			require.Contains(t, missing, "; ", "nothing pushes the ports out")
			if name == "db" {
				require.Contains(t, missing, "nothing (a malformed selector)", "no entry pushes the next one out")
			}
			for _, r := range missing {
				require.True(t, ' ' <= r && r <= '~', "%q", missing)
			}
		}
	}
}
