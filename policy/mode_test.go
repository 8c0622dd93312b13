package policy

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// inMode returns the policy with the annotation; "-" is none.
func inMode(p *networkingv1.NetworkPolicy, mode string) *networkingv1.NetworkPolicy {
	p = p.DeepCopy()
	p.Annotations = nil
	if mode != "-" {
		p.Annotations = map[string]string{AnnotationMode: mode, AnnotationExistingConnections: "keep"}
	}
	return p
}

func shopInMode(mode string) *corev1.Namespace {
	n := makeNamespace("shop", "team=shop")
	if mode != "-" {
		n.Annotations = map[string]string{AnnotationMode: mode}
	}
	return n
}

// TestModes has each mode of a policy and of its namespace, in every order.
func TestModes(t *testing.T) {
	np := makePolicy(t, "shop/p", `{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 80}]}]}`)
	want := map[[2]string]Mode{ // of the policy, of the namespace
		{"-", "audit"}: ModeAudit, {"audit", "-"}: ModeAudit, {"audit", "enforce"}: ModeAudit, {"audit", "audit"}: ModeAudit, {"audit", "?"}: ModeAudit,
	}
	said := []string{"-", "enforce", "audit", "?"}
	m := mirror{x: NewIndex(node)}
	fleet(m.x)
	for _, namespace := range said {
		for _, own := range said {
			for _, first := range []bool{true, false} {
				m.x.SetNamespace(shopInMode("-"))
				m.x.SetNetworkPolicy(inMode(np, "-"))
				m.flush(t)
				if first {
					m.x.SetNamespace(shopInMode(namespace))
				}
				m.x.SetNetworkPolicy(inMode(np, own))
				if !first {
					m.x.SetNamespace(shopInMode(namespace))
				}
				m.flush(t)
				mode := want[[2]string{own, namespace}]
				require.Equal(t, mode, m.x.Mode("shop/p"), "%s %s", own, namespace)
				require.Equal(t, mode == ModeAudit, m.state.Groups[0].Audit)
				require.Equal(t, []string{"shop/p"}, m.state.Groups[0].Policies)
				p := flows(t, "db>web tcp/81")[0]
				require.Equal(t, mode == ModeAudit, m.state.Verdict(ir.Ingress, p) == ir.Accept)
				require.Equal(t, mode == ModeAudit, m.state.WouldDeny(ir.Ingress, p))
				require.Equal(t, Judgement{mode == ModeAudit, mode == ModeAudit, []string{"shop/p"}}, m.x.Verdict(p.Src, p.Dst, p.Protocol, p.DstPort).Ingress)
				p.DstPort = 80
				require.False(t, m.state.WouldDeny(ir.Ingress, p))
				require.Equal(t, Judgement{Allowed: true, Policies: []string{"shop/p"}}, m.x.Verdict(p.Src, p.Dst, p.Protocol, p.DstPort).Ingress)
			}
		}
	}
	m.x.SetNetworkPolicy(inMode(np, "-"))
	m.x.SetNamespace(shopInMode("audit"))
	require.Equal(t, ModeAudit, m.x.Mode("shop/p"))
	m.x.DeleteNamespace("shop")
	require.Equal(t, ModeEnforce, m.x.Mode("shop/p"), "of a namespace that is not known")
	m.flush(t)
	require.False(t, m.state.Groups[0].Audit)
	for _, name := range []string{"shop/none", "none/p", "shop", ""} {
		require.Equal(t, ModeEnforce, m.x.Mode(name), name)
		require.Zero(t, m.x.Selected(name), name)
	}
}

// TestAuditBesideEnforced: what is tried counts only where nothing is enforced, each
// direction for itself.
func TestAuditBesideEnforced(t *testing.T) {
	m := mirror{x: NewIndex(node)}
	fleet(m.x)
	m.x.SetNetworkPolicy(inMode(makePolicy(t, "shop/both", `{podSelector: {}, policyTypes: [Ingress, Egress], egress: [{ports: [{port: 53}]}]}`), "audit"))
	m.flush(t)
	require.Len(t, m.state.Groups, 2)
	alone := m.state

	m.x.SetNetworkPolicy(makePolicy(t, "shop/in", `{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 80}]}]}`))
	m.flush(t)
	expect(t, m.state, "db>web tcp/80", "!db>web tcp/81", "web>out tcp/81", "out>db tcp/1")
	e, _ := m.state.Endpoint(flows(t, "db>web tcp/80")[0].Dst)
	g, _ := m.state.Group(e.Ingress)
	require.False(t, g.Audit)
	require.Equal(t, []string{"shop/in"}, g.Policies, "what is tried is not named either: it takes no part")
	g, _ = m.state.Group(e.Egress)
	require.True(t, g.Audit)
	require.Equal(t, []string{"shop/both"}, g.Policies)

	// An enforced policy that allows less is not helped by one that is tried.
	m.x.SetNetworkPolicy(makePolicy(t, "shop/out", `{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress]}`))
	m.flush(t)
	expect(t, m.state, "!web>out tcp/53", "!web>out udp/53")
	m.x.DeleteNetworkPolicy("shop", "in")
	m.x.DeleteNetworkPolicy("shop", "out")
	m.flush(t)
	requireSame(t, alone, m.state)
}

// TestModeIsInTheName: the same policies make groups of two names, and those of the
// enforced one are what they were before there were modes.
func TestModeIsInTheName(t *testing.T) {
	np := makePolicy(t, "shop/p", `{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 80}]}]}`)
	ids := map[string]ir.Group{}
	for _, mode := range []string{"-", "enforce", "audit"} {
		x := NewIndex(node)
		fleet(x)
		x.SetNetworkPolicy(inMode(np, mode))
		x.Flush()
		ids[mode] = x.State().Groups[0]
		require.Equal(t, map[string]ExistingConnections{"-": ExistingUnset, "enforce": ExistingKeep, "audit": ExistingKeep}[mode], x.ExistingConnections("shop/p"))
	}
	require.Equal(t, ids["-"], ids["enforce"])
	require.NotEqual(t, ids["-"].ID, ids["audit"].ID)
	require.Equal(t, ir.GroupID("gi-2ahpt5frmhkr43ehh6kphqkm4r"), ids["-"].ID)
	require.Equal(t, ids["-"].Steps, ids["audit"].Steps)
}

// TestModeProblems names what is wrong with the object that it is given.
func TestModeProblems(t *testing.T) {
	x := NewIndex(node)
	fleet(x)
	np := makePolicy(t, "shop/p", `{podSelector: {}}`)
	const field = "metadata.annotations[portcullis.dev/mode]"
	for mode, reason := range map[string]string{
		"-": "", "audit": "", "enforce": "", "": `"" is neither audit nor enforce`, "Audit": `"Audit" is neither audit nor enforce`, "audit ": `"audit " is neither audit nor enforce`,
	} {
		var ofPolicy, ofNamespace []Problem
		if reason != "" {
			ofPolicy = []Problem{{"NetworkPolicy shop/p", field, reason}}
			ofNamespace = []Problem{{"Namespace shop", field, reason}}
		}
		require.Equal(t, ofPolicy, x.SetNetworkPolicy(inMode(np, mode)))
		require.Equal(t, ofNamespace, CheckNamespace(shopInMode(mode)))
	}
}
