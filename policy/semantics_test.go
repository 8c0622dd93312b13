package policy

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// TestSemantics has the rules of NetworkPolicy v1 one by one, as flows between
// the pods of fleet.
func TestSemantics(t *testing.T) {
	for _, c := range []struct {
		name     string
		policies map[string]string
		expect   []string
	}{
		{"no policy", nil, []string{"web>db tcp/80", "out>db icmp", "db>out udp/53"}},

		// Isolation.
		{"ingress policy does not isolate egress", map[string]string{"shop/a": `{podSelector: {matchLabels: {app: db}}}`},
			[]string{"!web>db tcp/80", "!out>db icmp", "db>web tcp/80", "db>out icmp", "web>prom tcp/1"}},
		{"egress policy does not isolate ingress", map[string]string{"shop/a": `{podSelector: {matchLabels: {app: db}}, policyTypes: [Egress]}`},
			[]string{"web>db tcp/80", "!db>web tcp/80", "!db>out icmp"}},
		{"both directions", map[string]string{"shop/a": `{podSelector: {}, policyTypes: [Ingress, Egress]}`},
			[]string{"!web>db tcp/80", "!db>out tcp/80", "!out>db tcp/80", "web>web tcp/80", "prom>x tcp/80"}},
		{"union of policies", map[string]string{
			"shop/deny": `{podSelector: {}}`,
			"shop/a":    `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 80}]}]}`,
			"shop/b":    `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 192.0.2.0/24}}, {ipBlock: {cidr: "2001:db8::/32"}}]}]}`},
			[]string{"web>db tcp/80", "!web>db tcp/81", "out>db tcp/1", "out>web icmp", "!prom>db tcp/80", "!db>web tcp/80"}},
		{"source and destination both judge", map[string]string{
			"shop/eg": `{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}], ports: [{port: 80}]}]}`,
			"shop/in": `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {}}], ports: [{port: 81}]}]}`},
			[]string{"!web>db tcp/80", "!web>db tcp/81"}},
		{"a pod reaches itself", map[string]string{"shop/a": `{podSelector: {}, policyTypes: [Ingress, Egress]}`}, []string{"web>web tcp/80"}},

		// Defaults and emptiness.
		{"subject {} is the own namespace", map[string]string{"shop/a": `{podSelector: {}}`},
			[]string{"!out>web tcp/80", "!out>db tcp/80", "out>prom tcp/80", "out>x tcp/80"}},
		{"types unset without egress", map[string]string{"shop/a": `{podSelector: {}}`}, []string{"web>out tcp/80", "!out>web tcp/80"}},
		{"types unset with egress", map[string]string{"shop/a": `{podSelector: {}, egress: [{}]}`}, []string{"web>out tcp/80", "!out>web tcp/80"}},
		{"types unset with egress that allows little", map[string]string{"shop/a": `{podSelector: {}, egress: [{ports: [{port: 53}]}]}`},
			[]string{"!web>out tcp/80", "web>out tcp/53", "!out>web tcp/53"}},
		{"egress rules without type Egress", map[string]string{"shop/a": `{podSelector: {}, policyTypes: [Ingress], egress: [{ports: [{port: 53}]}]}`},
			[]string{"web>out tcp/80"}},
		{"empty list of rules", map[string]string{"shop/a": `{podSelector: {}, ingress: []}`}, []string{"!out>web tcp/80", "!out>web icmp"}},
		{"empty rule", map[string]string{"shop/a": `{podSelector: {}, ingress: [{}]}`}, []string{"out>web tcp/80", "out>web icmp", "out>web sctp/5"}},
		{"empty from", map[string]string{"shop/a": `{podSelector: {}, ingress: [{from: [], ports: [{port: 80}]}]}`},
			[]string{"out>web tcp/80", "prom>web tcp/80", "!prom>web tcp/81"}},
		{"empty ports", map[string]string{"shop/a": `{podSelector: {}, ingress: [{from: [{podSelector: {}}], ports: []}]}`},
			[]string{"db>web tcp/80", "db>web icmp", "!prom>web tcp/80"}},

		// Ports.
		{"protocol is TCP by default", map[string]string{"shop/a": `{podSelector: {}, ingress: [{ports: [{port: 80}]}]}`},
			[]string{"out>web tcp/80", "!out>web udp/80", "!out>web sctp/80", "!out>web icmp"}},
		{"protocol without port", map[string]string{"shop/a": `{podSelector: {}, ingress: [{ports: [{protocol: UDP}]}]}`},
			[]string{"out>web udp/0", "out>web udp/65535", "!out>web tcp/80", "!out>web icmp"}},
		{"empty port entry is all of TCP", map[string]string{"shop/a": `{podSelector: {}, ingress: [{ports: [{}]}]}`},
			[]string{"out>web tcp/1", "!out>web udp/1"}},
		{"range", map[string]string{"shop/a": `{podSelector: {}, ingress: [{ports: [{port: 80, endPort: 90}]}]}`},
			[]string{"!out>web tcp/79", "out>web tcp/80", "out>web tcp/85", "out>web tcp/90", "!out>web tcp/91"}},
		{"range of one", map[string]string{"shop/a": `{podSelector: {}, ingress: [{ports: [{port: 80, endPort: 80}]}]}`},
			[]string{"!out>web tcp/79", "out>web tcp/80", "!out>web tcp/81"}},
		{"full range", map[string]string{"shop/a": `{podSelector: {}, ingress: [{ports: [{port: 1, endPort: 65535, protocol: SCTP}]}]}`},
			[]string{"out>web sctp/1", "out>web sctp/65535", "!out>web sctp/0", "!out>web tcp/1"}},
		{"overlapping ranges with different peers", map[string]string{"shop/a": `{podSelector: {}, ingress: [
			{from: [{podSelector: {}}], ports: [{port: 80, endPort: 90}]},
			{from: [{ipBlock: {cidr: 0.0.0.0/0}}, {ipBlock: {cidr: "::/0"}}], ports: [{port: 85, endPort: 95}, {port: 96}]}]}`},
			[]string{"!out>web tcp/84", "out>web tcp/85", "out>web tcp/95", "out>web tcp/96", "!out>web tcp/97", "db>web tcp/80", "db>web tcp/90", "!db>web tcp/97"}},
		{"any port peers also on named ports", map[string]string{"shop/a": `{podSelector: {}, ingress: [
			{from: [{podSelector: {}}]}, {from: [{namespaceSelector: {}}], ports: [{port: 80}]}]}`},
			[]string{"db>web tcp/80", "db>web tcp/81", "db>web icmp", "prom>web tcp/80", "!prom>web tcp/81", "!prom>web icmp"}},

		// Named ports.
		{"ingress named port is the pod's own", map[string]string{"shop/a": `{podSelector: {}, ingress: [{ports: [{port: http}]}]}`},
			[]string{"out>web tcp/8080", "!out>web tcp/9090", "out>db tcp/9090", "!out>db tcp/8080", "!out>web udp/8080"}},
		{"ingress named port of another protocol", map[string]string{"shop/a": `{podSelector: {}, ingress: [{ports: [{port: http, protocol: UDP}]}]}`},
			[]string{"!out>web udp/8080", "!out>web tcp/8080"}},
		{"named port that nobody has", map[string]string{"shop/a": `{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{ports: [{port: nope}]}], egress: [{ports: [{port: nope}]}]}`},
			[]string{"!out>web tcp/8080", "!out>web icmp", "!web>out tcp/80", "!web>db tcp/9090"}},
		{"egress named port is the peer's", map[string]string{"shop/a": `{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}], ports: [{port: http}, {port: dns, protocol: UDP}]}]}`},
			[]string{"web>db tcp/9090", "!web>db tcp/8080", "web>db udp/53", "!web>out tcp/9090", "!web>x tcp/7070"}},
		{"egress named port to anything", map[string]string{"shop/a": `{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{ports: [{port: http}]}]}`},
			[]string{"web>db tcp/9090", "!web>db tcp/7070", "web>x tcp/7070", "!web>out tcp/9090", "!web>prom tcp/9090"}},
		{"egress named port in a block", map[string]string{"shop/a": `{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.0.0.0/24, except: [10.0.0.4/32]}}], ports: [{port: http}]}]}`},
			[]string{"10.0.0.1>10.0.0.2 tcp/9090", "!10.0.0.1>10.0.0.4 tcp/7070", "!fd00::1>fd00::2 tcp/9090", "!10.0.0.1>10.0.0.9 tcp/9090", "!10.0.0.1>10.0.0.2 tcp/8080"}},
		{"egress named port in a block that is empty, and to anything", map[string]string{
			"shop/a": `{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.0.0.2/31, except: [10.0.0.2/32, 10.0.0.3/32]}}], ports: [{port: http}]}]}`,
			"bare/a": `{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: http}]}]}`},
			[]string{"!web>db tcp/9090", "x>db tcp/9090"}},
		{"egress named and numbered ports together", map[string]string{"shop/a": `{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}], ports: [{port: http}]}, {to: [{namespaceSelector: {}}], ports: [{port: 9090}]}]}`},
			[]string{"web>db tcp/9090", "web>prom tcp/9090", "!web>prom tcp/80"}},

		// Peers.
		{"podSelector means the own namespace", map[string]string{"shop/a": `{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}`},
			[]string{"web>db tcp/1", "!x>db tcp/1", "!prom>db tcp/1"}},
		{"namespaceSelector means all its pods", map[string]string{"shop/a": `{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {purpose: monitoring}}}]}]}`},
			[]string{"prom>db tcp/1", "!web>db tcp/1", "!x>db tcp/1"}},
		{"both selectors", map[string]string{"shop/a": `{podSelector: {}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}]}]}`},
			[]string{"web>db tcp/1", "!prom>db tcp/1", "!x>db tcp/1"}},
		{"two peers", map[string]string{"shop/a": `{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {purpose: monitoring}}}, {podSelector: {matchLabels: {app: web}}}]}]}`},
			[]string{"web>db tcp/1", "prom>db tcp/1", "!db>web tcp/1"}},
		{"a namespace that is not known", map[string]string{
			"shop/a": `{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}`,
			"bare/a": `{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}`},
			[]string{"!x>web tcp/1", "prom>web tcp/1", "!web>x tcp/1", "web>db tcp/1"}},
		{"NotIn and DoesNotExist match without the key", map[string]string{"shop/a": `{podSelector: {}, ingress: [
			{from: [{podSelector: {matchExpressions: [{key: tier, operator: DoesNotExist}]}}], ports: [{port: 1}]},
			{from: [{podSelector: {matchExpressions: [{key: tier, operator: NotIn, values: [x]}]}}], ports: [{port: 2}]},
			{from: [{podSelector: {matchExpressions: [{key: tier, operator: NotIn, values: [""]}]}}], ports: [{port: 3}]},
			{from: [{podSelector: {matchExpressions: [{key: tier, operator: In, values: [""]}]}}], ports: [{port: 4}]},
			{from: [{podSelector: {matchExpressions: [{key: tier, operator: Exists}]}}], ports: [{port: 5}]},
			{from: [{podSelector: {matchLabels: {tier: ""}}}], ports: [{port: 6}]}]}`},
			[]string{"web>db tcp/1", "!db>web tcp/1", "web>db tcp/2", "db>web tcp/2", "web>db tcp/3", "!db>web tcp/3",
				"!web>db tcp/4", "db>web tcp/4", "!web>db tcp/5", "db>web tcp/5", "!web>db tcp/6", "db>web tcp/6"}},

		// Blocks.
		{"except takes from its own peer only", map[string]string{"shop/a": `{podSelector: {}, ingress: [{from: [
			{ipBlock: {cidr: 192.0.0.0/8, except: [192.0.2.0/24]}}, {ipBlock: {cidr: 192.0.2.1/32}}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/24]}}, {podSelector: {matchLabels: {app: db}}}]}]}`},
			[]string{"192.0.2.1>10.0.0.1 tcp/1", "!192.0.2.2>10.0.0.1 tcp/1", "192.0.3.0>10.0.0.1 tcp/1", "db>web tcp/1", "!prom>web tcp/1", "10.0.1.0>10.0.0.1 icmp"}},
		{"except of one rule and block of another", map[string]string{
			"shop/a": `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [192.0.2.0/24]}}]}]}`,
			"shop/b": `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 192.0.2.0/30}}]}]}`},
			[]string{"192.0.2.1>10.0.0.1 tcp/1", "!192.0.2.4>10.0.0.1 tcp/1", "192.0.3.0>10.0.0.1 tcp/1", "!2001:db8::1>fd00::1 tcp/1"}},
		{"host bits", map[string]string{"shop/a": `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 192.1.2.3/8}}]}]}`},
			[]string{"192.0.2.1>10.0.0.1 tcp/1", "!193.0.2.1>10.0.0.1 tcp/1"}},
		{"whole family matches pods and nothing of the other", map[string]string{"shop/a": `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}`},
			[]string{"10.0.0.3>10.0.0.1 tcp/1", "!fd00::3>fd00::1 tcp/1", "255.255.255.255>10.0.0.1 tcp/1"}},
		{"end of the family", map[string]string{"shop/a": `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 255.0.0.0/8, except: [255.255.255.255/32]}}, {ipBlock: {cidr: "ffff::/16"}}]}]}`},
			[]string{"255.255.255.254>10.0.0.1 tcp/1", "!255.255.255.255>10.0.0.1 tcp/1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff>fd00::1 tcp/1"}},
		{"block with a family of 4-in-6 form nearby", map[string]string{"shop/a": `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: "::/0"}}]}]}`},
			[]string{"!192.0.2.1>10.0.0.1 tcp/1", "2001:db8::1>fd00::1 tcp/1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := mirror{x: NewIndex(node)}
			fleet(m.x)
			for name, spec := range c.policies {
				require.Empty(t, m.x.SetNetworkPolicy(makePolicy(t, name, spec)))
			}
			m.flush(t)
			expect(t, m.state, c.expect...)
		})
	}
}

// TestGroupsAreShared: pods that are judged alike have one group, and those
// that give a named port other numbers have another.
func TestGroupsAreShared(t *testing.T) {
	m := mirror{x: NewIndex(node)}
	fleet(m.x)
	m.x.SetPod(makePod("shop/web2", "app=web", []string{"10.0.0.11"}, "http=8080/TCP"))
	m.x.SetNetworkPolicy(makePolicy(t, "shop/a", `{podSelector: {}, ingress: [{ports: [{port: http}]}]}`))
	m.flush(t)
	require.Len(t, m.state.Groups, 2)
	require.Equal(t, []string{"shop/a"}, m.state.Groups[0].Policies)
	group := func(s string) ir.GroupID { return endpoint(t, m.state, s).Ingress }
	require.Equal(t, group("10.0.0.1"), group("10.0.0.11"))
	require.NotEqual(t, group("10.0.0.1"), group("10.0.0.2"))
	require.Empty(t, endpoint(t, m.state, "10.0.0.1").Egress)
}
