package evaluate_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/portcullis-netpol/portcullis/policy/evaluate"
)

// scenario is a cluster with policies, and what becomes of flows: "flow => egress | ingress".
type scenario struct {
	name     string
	change   func(c *evaluate.Cluster)
	policies map[string]string // spec by "namespace/name"
	flows    map[string]string
}

func run(t *testing.T, scenarios []scenario) {
	t.Helper()
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			c := shop()
			if s.change != nil {
				s.change(&c)
			}
			for name, spec := range s.policies {
				c.Policies = append(c.Policies, parsePolicy(t, name, spec))
			}
			for flow, want := range s.flows {
				v := evaluate.Evaluate(c, parseFlow(t, c, flow))
				assert.Equal(t, want, say(v), flow)
				assert.Equal(t, v.Egress.Allowed && v.Ingress.Allowed, v.Allowed(), flow)
			}
		})
	}
}

const (
	open     = "+not isolated"
	noPod    = "+not a pod"
	denied   = "-no rule of shop/p allows it"
	nothing  = "-shop/p allows nothing"
	inRule   = "+allowed by ingress[0] of shop/p"
	outRule  = "+allowed by egress[0] of shop/p"
	selected = "podSelector: {matchLabels: {app: web}}\n"
)

func TestIsolation(t *testing.T) {
	run(t, []scenario{
		{
			name:  "without policies everything passes",
			flows: map[string]string{"shop/web shop/db TCP/80": open + " | " + open, "192.0.2.9 192.0.2.8 TCP/80": noPod + " | " + noPod},
		},
		{
			name:     "an ingress policy leaves egress open",
			policies: map[string]string{"shop/p": selected + "policyTypes: [Ingress]"},
			flows: map[string]string{
				"shop/db shop/web TCP/80":   open + " | " + nothing,
				"shop/web shop/db TCP/80":   open + " | " + open,
				"192.0.2.9 shop/web TCP/80": noPod + " | " + nothing,
			},
		},
		{
			name:     "an egress policy leaves ingress open",
			policies: map[string]string{"shop/p": selected + "policyTypes: [Egress]"},
			flows: map[string]string{
				"shop/web shop/db TCP/80":   nothing + " | " + open,
				"shop/db shop/web TCP/80":   open + " | " + open,
				"shop/web 192.0.2.9 TCP/80": nothing + " | " + noPod,
			},
		},
		{
			name:     "rules of a direction that policyTypes does not name do nothing",
			policies: map[string]string{"shop/p": selected + "policyTypes: [Ingress]\negress: [{}]\ningress: []"},
			flows:    map[string]string{"shop/web shop/db TCP/80": open + " | " + open, "shop/db shop/web TCP/80": open + " | " + nothing},
		},
		{
			name: "both ends have to agree",
			policies: map[string]string{
				"shop/out": "podSelector: {matchLabels: {app: web}}\negress: [{to: [{podSelector: {}}]}]\npolicyTypes: [Egress]",
				"shop/in":  "podSelector: {matchLabels: {app: db}}\ningress: [{ports: [{port: 5432}]}]",
			},
			flows: map[string]string{
				"shop/web shop/db TCP/5432": "+allowed by egress[0] of shop/out | +allowed by ingress[0] of shop/in",
				"shop/web shop/db TCP/80":   "+allowed by egress[0] of shop/out | -no rule of shop/in allows it",
				"shop/web ops/mon TCP/80":   "-no rule of shop/out allows it | " + open,
			},
		},
		{
			name:     "an empty podSelector selects the policy's namespace",
			policies: map[string]string{"shop/p": "podSelector: {}"},
			flows: map[string]string{
				"ops/mon shop/web TCP/80": open + " | " + nothing,
				"ops/mon shop/db TCP/80":  open + " | " + nothing,
				"shop/web ops/mon TCP/80": open + " | " + open,
			},
		},
		{
			name:     "a podSelector that is left out does too",
			policies: map[string]string{"shop/p": "policyTypes: [Ingress]"},
			flows:    map[string]string{"ops/mon shop/db TCP/80": open + " | " + nothing, "shop/db ops/mon TCP/80": open + " | " + open},
		},
	})
}

func TestPolicyTypes(t *testing.T) {
	both := map[string]string{"shop/web shop/db TCP/80": nothing + " | " + open, "shop/db shop/web TCP/80": open + " | " + nothing}
	in := map[string]string{"shop/web shop/db TCP/80": open + " | " + open, "shop/db shop/web TCP/80": open + " | " + nothing}
	run(t, []scenario{
		{name: "unset without egress rules", policies: map[string]string{"shop/p": selected}, flows: in},
		{name: "unset with an empty egress list", policies: map[string]string{"shop/p": selected + "egress: []"}, flows: in},
		{name: "an empty list is unset", policies: map[string]string{"shop/p": selected + "policyTypes: []"}, flows: in},
		{
			name:     "unset with an egress rule",
			policies: map[string]string{"shop/p": selected + "egress: [{ports: [{port: 1}]}]"},
			flows:    map[string]string{"shop/web shop/db TCP/80": denied + " | " + open, "shop/db shop/web TCP/80": open + " | " + nothing},
		},
		{name: "both", policies: map[string]string{"shop/p": selected + "policyTypes: [Egress, Ingress]"}, flows: both},
		{name: "an unknown one beside a known one", policies: map[string]string{"shop/p": selected + "policyTypes: [Ingress, Sideways]"}, flows: in},
		{name: "only unknown ones", policies: map[string]string{"shop/p": selected + "policyTypes: [ingress]"}, flows: both},
	})
}

func TestRules(t *testing.T) {
	run(t, []scenario{
		{
			name:     "no rule denies all",
			policies: map[string]string{"shop/p": selected + "ingress: []\negress: []\npolicyTypes: [Ingress, Egress]"},
			flows: map[string]string{
				"shop/db shop/web TCP/80": open + " | " + nothing, "shop/web shop/db ICMP": nothing + " | " + open,
			},
		},
		{
			name:     "an empty rule allows all",
			policies: map[string]string{"shop/p": selected + "ingress: [{}]\negress: [{}]"},
			flows: map[string]string{
				"192.0.2.9 shop/web SCTP/9": noPod + " | " + inRule, "192.0.2.9 shop/web ICMP": noPod + " | " + inRule,
				"shop/web 2001:db8::9 UDP/9": outRule + " | " + noPod, "shop/web shop/db GRE": outRule + " | " + open,
			},
		},
		{
			name:     "empty lists of peers and ports allow all",
			policies: map[string]string{"shop/p": selected + "ingress: [{from: [], ports: []}]\negress: [{to: [], ports: []}]"},
			flows: map[string]string{
				"192.0.2.9 shop/web ICMP": noPod + " | " + inRule, "shop/web 192.0.2.9 TCP/1": outRule + " | " + noPod,
			},
		},
		{
			name: "policies add up",
			policies: map[string]string{
				"shop/deny": selected,
				"shop/a":    selected + "ingress: [{from: [{podSelector: {matchLabels: {app: db}}}]}]",
				"shop/b":    selected + "ingress: [{ports: [{port: 1}]}, {ports: [{port: 443}]}]",
			},
			flows: map[string]string{
				"shop/db shop/web TCP/80":  open + " | +allowed by ingress[0] of shop/a",
				"shop/db shop/web TCP/443": open + " | +allowed by ingress[0] of shop/a, ingress[1] of shop/b",
				"ops/mon shop/web TCP/443": open + " | +allowed by ingress[1] of shop/b",
				"ops/mon shop/web TCP/80":  open + " | -no rule of shop/a, shop/b, shop/deny allows it",
			},
		},
		{
			name: "peers and ports of one rule must match together",
			policies: map[string]string{"shop/p": selected +
				"ingress: [{from: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: 80}]}, {from: [{ipBlock: {cidr: 192.0.2.0/24}}], ports: [{port: 443}]}]"},
			flows: map[string]string{
				"shop/db shop/web TCP/80":    open + " | " + inRule,
				"shop/db shop/web TCP/443":   open + " | " + denied,
				"192.0.2.9 shop/web TCP/443": noPod + " | +allowed by ingress[1] of shop/p",
				"192.0.2.9 shop/web TCP/80":  noPod + " | " + denied,
			},
		},
	})
}

func TestNodeAndSelf(t *testing.T) {
	const deny = selected + "policyTypes: [Ingress, Egress]"
	run(t, []scenario{
		{
			name:     "a pod's own node always reaches it, others do not",
			policies: map[string]string{"shop/p": deny},
			flows: map[string]string{
				"10.0.0.1 shop/web TCP/80":        noPod + " | +own node",
				"::ffff:10.0.0.1 shop/web TCP/80": noPod + " | +own node",
				"fd00::1 6:shop/web UDP/53":       noPod + " | +own node",
				"shop/agent shop/web ICMP":        noPod + " | +own node",
				"10.0.0.2 shop/web TCP/80":        noPod + " | " + nothing,
			},
		},
		{
			name:     "a pod to its own node is egress like any other",
			policies: map[string]string{"shop/p": deny},
			flows:    map[string]string{"shop/web 10.0.0.1 TCP/53": nothing + " | " + noPod},
		},
		{
			name: "external addresses of a node count, its name does not",
			change: func(c *evaluate.Cluster) {
				c.Nodes[0].Status.Addresses = []corev1.NodeAddress{
					{Type: corev1.NodeExternalIP, Address: "198.51.100.1"},
					{Type: corev1.NodeHostName, Address: "10.9.9.9"},
				}
			},
			policies: map[string]string{"shop/p": deny},
			flows: map[string]string{
				"198.51.100.1 shop/web TCP/80": noPod + " | +own node", "10.9.9.9 shop/web TCP/80": noPod + " | " + nothing,
			},
		},
		{
			name:     "a pod reaches itself",
			policies: map[string]string{"shop/p": deny},
			flows: map[string]string{
				"shop/web shop/web TCP/80":     "+to itself | +to itself",
				"6:shop/web 6:shop/web UDP/80": "+to itself | +to itself",
				"shop/db shop/db TCP/80":       open + " | " + open,
			},
		},
	})
}

func TestDecisionFields(t *testing.T) {
	c := shop()
	c.Policies = append(c.Policies,
		parsePolicy(t, "shop/b", selected+"ingress: [{from: [{podSelector: {matchLabels: {app: none}}}, {podSelector: {}}], ports: [{port: 1}, {port: 80}]}]"),
		parsePolicy(t, "shop/a", selected+"ingress: [{ports: [{port: 1}]}, {}]"),
		parsePolicy(t, "shop/other", "podSelector: {matchLabels: {app: db}}"))
	v := evaluate.Evaluate(c, parseFlow(t, c, "shop/db shop/web TCP/80"))
	require.Equal(t, evaluate.Verdict{
		Egress: evaluate.Decision{Allowed: true, Pod: "shop/db", Reason: "not isolated"},
		Ingress: evaluate.Decision{
			Allowed:  true,
			Pod:      "shop/web",
			Isolated: []string{"shop/a", "shop/b"},
			By:       []evaluate.Match{{Policy: "shop/a", Rule: 1, Peer: -1, Port: -1}, {Policy: "shop/b", Rule: 0, Peer: 1, Port: 1}},
			Reason:   "allowed by ingress[1] of shop/a, ingress[0] of shop/b",
		},
	}, v)

	v = evaluate.Evaluate(c, parseFlow(t, c, "shop/web shop/web TCP/80"))
	assert.Empty(t, v.Ingress.By, "no rule is needed to reach itself")
	assert.Equal(t, []string{"shop/a", "shop/b"}, v.Ingress.Isolated)
}

func TestOrderOfObjectsDoesNotMatter(t *testing.T) {
	c := shop()
	for name, spec := range map[string]string{"shop/a": selected + "ingress: [{ports: [{port: 80}]}]", "shop/b": selected + "ingress: [{}]", "shop/c": selected} {
		c.Policies = append(c.Policies, parsePolicy(t, name, spec))
	}
	f := parseFlow(t, c, "shop/db shop/web TCP/80")
	want := evaluate.Evaluate(c, f)
	for range len(c.Policies) {
		c.Policies = append(c.Policies[1:], c.Policies[0])
		c.Pods = append(c.Pods[1:], c.Pods[0])
		require.Equal(t, want, evaluate.Evaluate(c, f))
	}
}
