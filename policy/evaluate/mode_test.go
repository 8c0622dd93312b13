package evaluate_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/portcullis-netpol/portcullis/policy/evaluate"
)

// mode sets the annotation of policies and namespaces, "shop" or "shop/p".
func mode(modes map[string]string) func(*evaluate.Cluster) {
	return func(c *evaluate.Cluster) {
		for _, ns := range c.Namespaces {
			if m, ok := modes[ns.Name]; ok {
				ns.Annotations = map[string]string{"portcullis.dev/mode": m}
			}
		}
		for _, p := range c.Policies {
			if m, ok := modes[p.Namespace+"/"+p.Name]; ok {
				p.Annotations = map[string]string{"portcullis.dev/mode": m}
			}
		}
	}
}

func TestAuditMode(t *testing.T) {
	const rules = selected + "policyTypes: [Ingress, Egress]\ningress: [{ports: [{port: 80}]}]"
	const other = selected + "policyTypes: [Egress]\negress: [{}]"
	tried := evaluate.Decision{
		Allowed: true, Pod: "shop/web", Audit: []string{"shop/p"}, WouldDeny: true, Reason: "in audit mode: no rule of shop/p allows it",
		Near: &evaluate.Near{Policy: "shop/p", Peer: true, Missing: "port tcp/81: it allows tcp/80"},
	}
	denied := evaluate.Decision{Pod: "shop/web", Isolated: []string{"shop/p"}, Reason: "no rule of shop/p allows it", Near: tried.Near}
	for _, tc := range []struct {
		name     string
		policies map[string]string
		modes    map[string]string
		flow     string
		egress   bool // which decision is looked at
		want     evaluate.Decision
	}{
		{"no annotation", map[string]string{"shop/p": rules}, nil, "shop/db shop/web TCP/81", false, denied},
		{"enforce", map[string]string{"shop/p": rules}, map[string]string{"shop/p": "enforce"}, "shop/db shop/web TCP/81", false, denied},
		{"audit", map[string]string{"shop/p": rules}, map[string]string{"shop/p": "audit"}, "shop/db shop/web TCP/81", false, tried},
		{"what means nothing enforces", map[string]string{"shop/p": rules}, map[string]string{"shop/p": "Audit", "shop": "audit"}, "shop/db shop/web TCP/81", false, denied},
		{"the namespace's", map[string]string{"shop/p": rules}, map[string]string{"shop": "audit"}, "shop/db shop/web TCP/81", false, tried},
		{"another namespace's", map[string]string{"shop/p": rules}, map[string]string{"ops": "audit"}, "shop/db shop/web TCP/81", false, denied},
		{"the namespace's means nothing", map[string]string{"shop/p": rules}, map[string]string{"shop": ""}, "shop/db shop/web TCP/81", false, denied},
		{"the policy's own wins", map[string]string{"shop/p": rules}, map[string]string{"shop": "audit", "shop/p": "enforce"}, "shop/db shop/web TCP/81", false, denied},
		{
			"a rule would allow it", map[string]string{"shop/p": rules}, map[string]string{"shop/p": "audit"}, "shop/db shop/web TCP/80", false,
			evaluate.Decision{Allowed: true, Pod: "shop/web", Audit: []string{"shop/p"}, Reason: "in audit mode: allowed by ingress[0] of shop/p"},
		},
		{
			"without rules", map[string]string{"shop/p": rules}, map[string]string{"shop/p": "audit"}, "shop/web shop/db TCP/80", true,
			evaluate.Decision{Allowed: true, Pod: "shop/web", Audit: []string{"shop/p"}, WouldDeny: true, Reason: "in audit mode: shop/p allows nothing"},
		},
		{
			"one that is enforced decides, and what is tried allows nothing", map[string]string{"shop/p": rules, "shop/o": other}, map[string]string{"shop/o": "audit"},
			"shop/web shop/db TCP/80", true,
			evaluate.Decision{Pod: "shop/web", Isolated: []string{"shop/p"}, Reason: "shop/p allows nothing"},
		},
		{
			"each direction for itself", map[string]string{"shop/p": rules, "shop/o": other}, map[string]string{"shop/p": "audit"},
			"shop/db shop/web TCP/81", false, tried,
		},
		{
			"itself", map[string]string{"shop/p": rules}, map[string]string{"shop/p": "audit"}, "shop/web shop/web TCP/81", false,
			evaluate.Decision{Allowed: true, Pod: "shop/web", Audit: []string{"shop/p"}, Reason: "to itself"},
		},
		{
			"own node", map[string]string{"shop/p": rules}, map[string]string{"shop/p": "audit"}, "10.0.0.1 shop/web TCP/81", false,
			evaluate.Decision{Allowed: true, Pod: "shop/web", Audit: []string{"shop/p"}, Reason: "own node"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := shop()
			for name, spec := range tc.policies {
				c.Policies = append(c.Policies, parsePolicy(t, name, spec))
			}
			mode(tc.modes)(&c)
			v := evaluate.Evaluate(c, parseFlow(t, c, tc.flow))
			have := v.Ingress
			if tc.egress {
				have = v.Egress
			}
			require.Equal(t, tc.want, have)
			brief := evaluate.Decide(c, parseFlow(t, c, tc.flow))
			require.Nil(t, brief.Ingress.Near)
			require.Nil(t, brief.Egress.Near)
			brief.Ingress.Near, brief.Egress.Near = v.Ingress.Near, v.Egress.Near
			require.Equal(t, v, brief)
			// One that is not selected has no part in it.
			c.Policies = append(c.Policies, parsePolicy(t, "shop/z", "podSelector: {matchLabels: {app: none}}"), parsePolicy(t, "ops/p", "{}"))
			w := evaluate.Evaluate(c, parseFlow(t, c, tc.flow))
			assert.Equal(t, v.Egress, w.Egress)
			assert.Equal(t, v.Ingress, w.Ingress)
		})
	}
}

func TestAuditOfManyPolicies(t *testing.T) {
	c := shop()
	for _, name := range []string{"shop/b", "shop/a"} {
		c.Policies = append(c.Policies, parsePolicy(t, name, selected))
	}
	c.Namespaces = append([]*corev1.Namespace{}, c.Namespaces...)
	mode(map[string]string{"shop": "audit"})(&c)
	f := parseFlow(t, c, "shop/db shop/web TCP/80")
	d := evaluate.Evaluate(c, f).Ingress
	require.Equal(t, []string{"shop/a", "shop/b"}, d.Audit)
	require.Equal(t, "in audit mode: shop/a, shop/b allow nothing", d.Reason)
	require.True(t, d.WouldDeny)

	c.Policies = append(c.Policies, &networkingv1.NetworkPolicy{})
	c.Namespaces = nil
	d = evaluate.Evaluate(c, f).Ingress
	require.Equal(t, []string{"shop/a", "shop/b"}, d.Isolated, "a namespace that is not known audits nothing")
	require.False(t, d.Allowed)
}
