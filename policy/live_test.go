package policy

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

func endpoint(t testing.TB, s ir.State, addr string) ir.Endpoint {
	t.Helper()
	e, ok := s.Endpoint(netip.MustParseAddr(addr))
	require.True(t, ok, "no endpoint %s", addr)
	return e
}

func newMirror(t testing.TB, policies ...string) *mirror {
	m := &mirror{x: NewIndex(node)}
	fleet(m.x)
	for i := 0; i < len(policies); i += 2 {
		require.Empty(t, m.x.SetNetworkPolicy(makePolicy(t, policies[i], policies[i+1])))
	}
	m.flush(t)
	return m
}

func TestSelectorsAreLive(t *testing.T) {
	m := newMirror(t, "shop/a", `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{namespaceSelector: {matchLabels: {purpose: monitoring}}}, {podSelector: {matchLabels: {app: web}}}]}]}`)
	expect(t, m.state, "web>db tcp/1", "prom>db tcp/1", "out>web tcp/1")

	m.x.SetPod(makePod("shop/web", "app=db", addrs["web"], "http=8080/TCP")) // as peer and as subject
	m.flush(t)
	expect(t, m.state, "!web>db tcp/1", "!out>web tcp/1", "prom>web tcp/1")

	m.x.SetNamespace(makeNamespace("mon", "purpose=other"))
	c := m.flush(t)
	require.Empty(t, c.AddGroups)
	require.Empty(t, c.Endpoints)
	require.Len(t, c.PeerSets, 1)
	expect(t, m.state, "!prom>db tcp/1")

	m.x.SetNamespace(makeNamespace("bare", "purpose=monitoring")) // after its pods
	m.flush(t)
	expect(t, m.state, "x>db tcp/1")
	m.x.DeleteNamespace("bare") // its pod is still there
	m.flush(t)
	expect(t, m.state, "!x>db tcp/1")
}

func TestNamespaceAfterPolicyAndPods(t *testing.T) {
	m := newMirror(t, "shop/a", `{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}`)
	expect(t, m.state, "!x>db tcp/1")
	m.x.SetNamespace(makeNamespace("bare", ""))
	m.flush(t)
	expect(t, m.state, "x>db tcp/1")
}

func TestNamespaceDeletedFirst(t *testing.T) {
	m := newMirror(t, "shop/a", `{podSelector: {}, policyTypes: [Ingress, Egress]}`)
	m.x.DeleteNamespace("shop")
	require.True(t, m.flush(t).Empty(), "policies outlive the namespace object")
	m.x.DeletePod("shop", "web")
	m.x.DeletePod("shop", "db")
	m.x.DeleteNetworkPolicy("shop", "a")
	m.flush(t)
	require.NotContains(t, m.x.namespaces, "shop")
	require.Empty(t, m.state.Groups)
}

// TestTransitions walks between all sets of policies that a pod can have.
func TestTransitions(t *testing.T) {
	policies := map[string]string{
		"shop/in":   `{podSelector: {matchLabels: {app: db}}, ingress: [{ports: [{port: 1}]}]}`,
		"shop/eg":   `{podSelector: {matchLabels: {app: db}}, policyTypes: [Egress], egress: [{ports: [{port: 2}]}]}`,
		"shop/both": `{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{ports: [{port: 3}]}], egress: [{ports: [{port: 3}]}]}`,
	}
	names := []string{"shop/in", "shop/eg", "shop/both"}
	m := newMirror(t)
	clear := m.state
	set := func(bits int) {
		for i, n := range names {
			ns, name, _ := strings.Cut(n, "/")
			if bits&(1<<i) != 0 {
				m.x.SetNetworkPolicy(makePolicy(t, n, policies[n]))
			} else {
				m.x.DeleteNetworkPolicy(ns, name)
			}
		}
		m.flush(t)
		in, eg := bits&5 != 0, bits&6 != 0
		e := endpoint(t, m.state, "10.0.0.2")
		require.Equal(t, in, e.Ingress != "")
		require.Equal(t, eg, e.Egress != "")
		for _, p := range flows(t, "out>db tcp/1") {
			require.Equal(t, !in || bits&1 != 0, passes(m.state, p))
		}
		for _, p := range flows(t, "db>out tcp/2") {
			require.Equal(t, !eg || bits&2 != 0, passes(m.state, p))
		}
	}
	for from := range 8 {
		for to := range 8 {
			set(from)
			set(to)
		}
	}
	set(0)
	require.Equal(t, clear, m.state)
}

func TestEgressNamedPortsAppear(t *testing.T) {
	m := newMirror(t, "shop/a", `{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}}], ports: [{port: http}]}]}`)
	expect(t, m.state, "web>db tcp/9090", "!web>prom tcp/1234")

	m.x.SetPod(makePod("mon/prom", "app=prom", addrs["prom"], "http=1234/TCP"))
	c := m.flush(t)
	require.Len(t, c.AddGroups, 1)
	require.Len(t, c.RemoveGroups, 1)
	expect(t, m.state, "web>prom tcp/1234", "!web>prom tcp/9090", "!web>db tcp/1234")

	m.x.SetPod(makePod("mon/prom", "app=prom", addrs["prom"], "http=9090/TCP")) // a number that is there already
	m.flush(t)
	expect(t, m.state, "web>prom tcp/9090", "!web>prom tcp/1234")

	m.x.SetPod(makePod("mon/prom2", "app=prom", []string{"10.0.0.9"}, "http=9090/TCP"))
	c = m.flush(t)
	require.Empty(t, c.AddGroups)
	require.Len(t, c.PeerSets, 1)

	m.x.DeletePod("mon", "prom")
	m.x.DeletePod("mon", "prom2")
	m.flush(t)
	expect(t, m.state, "!web>prom tcp/9090", "web>db tcp/9090")
}

func TestIngressNamedPortChanges(t *testing.T) {
	m := newMirror(t, "shop/a", `{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: http}]}]}`)
	m.x.SetPod(makePod("shop/web", "app=web", addrs["web"], "http=81/TCP"))
	m.flush(t)
	expect(t, m.state, "out>web tcp/81", "!out>web tcp/8080")
	m.x.SetPod(makePod("shop/web", "app=web", addrs["web"]))
	m.flush(t)
	expect(t, m.state, "!out>web tcp/81")
}

func TestContainerPorts(t *testing.T) {
	always, never := corev1.ContainerRestartPolicyAlways, corev1.ContainerRestartPolicyNever
	p := makePod("shop/web", "app=web", addrs["web"], "http=80/TCP", "http=81/TCP", "plain=82/", "http=83/UDP", "zero=0/TCP", "zero=84/TCP", "big=65624/TCP", "big=88/TCP")
	p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Ports: []corev1.ContainerPort{makePort("http=85/TCP"), makePort("second=86/TCP")}})
	p.Spec.InitContainers = []corev1.Container{
		{Ports: []corev1.ContainerPort{makePort("init=90/TCP")}},
		{RestartPolicy: &never, Ports: []corev1.ContainerPort{makePort("init=93/TCP")}},
		{RestartPolicy: &always, Ports: []corev1.ContainerPort{makePort("side=91/TCP"), makePort("http=92/TCP")}},
	}
	m := newMirror(t, "shop/a", `{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: http}, {port: plain}, {port: zero}, {port: second}, {port: init}, {port: big}, {port: side}, {port: http, protocol: UDP}]}]}`)
	m.x.SetPod(p)
	m.flush(t)
	expect(t, m.state, "out>web tcp/80", "!out>web tcp/81", "out>web tcp/82", "out>web udp/83", "!out>web tcp/83", "!out>web tcp/84",
		"!out>web tcp/85", "out>web tcp/86", "!out>web tcp/90", "!out>web tcp/93", "!out>web tcp/88", "out>web tcp/91", "!out>web tcp/92")
}

func TestOtherNodes(t *testing.T) {
	m := newMirror(t, "shop/a", `{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}`)
	for _, where := range []string{"node-2", ""} {
		p := makePod("shop/web", "app=web", []string{"10.0.0.1", "fd00::1"})
		p.Spec.NodeName = where
		m.x.SetPod(p)
		m.flush(t)
		_, ok := m.state.Endpoint(netip.MustParseAddr("10.0.0.1"))
		require.False(t, ok)
		expect(t, m.state, "web>db tcp/1", "!out>db tcp/1")

		p.Spec.NodeName, p.Status.PodIPs = node, []corev1.PodIP{{IP: "10.0.0.1"}, {IP: "10.0.0.77"}}
		m.x.SetPod(p)
		m.flush(t)
		require.NotEmpty(t, endpoint(t, m.state, "10.0.0.77").Ingress)
		p.Spec.NodeName, p.Status.PodIPs = "node-2", []corev1.PodIP{{IP: "10.0.0.78"}} // moves node and address at once
		m.x.SetPod(p)
		m.flush(t)
		require.Len(t, m.state.Endpoints, 6)
	}
	var unnamed = NewIndex("")
	p := makePod("shop/web", "", []string{"10.0.0.1"})
	p.Spec.NodeName = ""
	unnamed.SetPod(p)
	require.True(t, unnamed.Flush().Empty())
}

// TestUnchanged: what is set again as it was changes nothing and costs nothing.
func TestUnchanged(t *testing.T) {
	spec := `{podSelector: {}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}], ports: [{port: http}]}], egress: [{ports: [{port: http}]}]}`
	m := newMirror(t, "shop/a", spec)
	before := m.x.work
	fleet(m.x)
	m.x.SetNetworkPolicy(makePolicy(t, "shop/a", spec))
	m.x.DeletePod("shop", "nobody")
	m.x.DeletePod("nowhere", "nobody")
	m.x.DeleteNamespace("nowhere")
	m.x.DeleteNetworkPolicy("nowhere", "nothing")
	m.x.DeleteNetworkPolicy("shop", "nothing")
	require.Empty(t, m.x.dirtyPods)
	require.True(t, m.flush(t).Empty())
	require.Equal(t, before, m.x.work)
	require.NotContains(t, m.x.namespaces, "nowhere")
}

// TestOneDirectionChanges: an edit of egress leaves the ingress group alone.
func TestOneDirectionChanges(t *testing.T) {
	m := newMirror(t, "shop/a", `{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{}]}`)
	m.x.SetNetworkPolicy(makePolicy(t, "shop/a", `{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}]}`))
	c := m.flush(t)
	require.Len(t, c.AddGroups, 1)
	require.Equal(t, ir.Egress, c.AddGroups[0].Direction)
	require.Len(t, c.RemoveGroups, 1)
}

// TestEveryEditCounts replaces a policy by one that differs in a single thing.
func TestEveryEditCounts(t *testing.T) {
	specs := []string{
		`{podSelector: {}}`,
		`{podSelector: {matchLabels: {app: web}}}`,
		`{podSelector: {matchLabels: {app: db}}}`,
		`{podSelector: {}, policyTypes: [Egress]}`,
		`{podSelector: {}, policyTypes: [Ingress, Egress]}`,
	}
	for _, s := range []string{
		``, `from: [{podSelector: {}}]`, `from: [{podSelector: {matchLabels: {app: web}}}]`, `from: [{podSelector: {matchLabels: {app: db}}}]`,
		`from: [{namespaceSelector: {}}]`, `from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}]`,
		`from: [{ipBlock: {cidr: 10.0.0.0/8}}]`, `from: [{ipBlock: {cidr: 10.0.0.0/9}}]`, `from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/9]}}]`,
		`from: [{ipBlock: {cidr: 10.0.0.0/8}}, {podSelector: {}}]`, `from: [{}]`,
		`ports: [{}]`, `ports: [{port: 1}]`, `ports: [{port: 2}]`, `ports: [{port: 1, endPort: 2}]`, `ports: [{port: 1, protocol: UDP}]`,
		`ports: [{port: http}]`, `ports: [{port: http}, {port: dns, protocol: UDP}]`, `ports: [{port: dns, protocol: UDP}]`, `ports: [{port: 0}]`,
	} {
		specs = append(specs, `{podSelector: {}, ingress: [{`+s+`}]}`,
			`{podSelector: {}, policyTypes: [Egress], egress: [{`+strings.Replace(s, "from", "to", 1)+`}]}`)
	}
	for _, a := range specs {
		for _, b := range specs {
			m, fresh := mirror{x: NewIndex(node)}, mirror{x: NewIndex(node)}
			fleet(m.x)
			fleet(fresh.x)
			m.x.SetNetworkPolicy(makePolicy(t, "shop/a", a))
			m.flush(t)
			m.x.SetNetworkPolicy(makePolicy(t, "shop/a", b))
			m.flush(t)
			fresh.x.SetNetworkPolicy(makePolicy(t, "shop/a", b))
			fresh.flush(t)
			require.Equal(t, fresh.state, m.state, "%s to %s", a, b)
		}
	}
}

// TestCoalesced: what comes and goes between two flushes is never told.
func TestCoalesced(t *testing.T) {
	m := newMirror(t, "shop/a", `{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}`)
	m.x.SetPod(makePod("shop/new", "", []string{"10.0.0.60"}))
	m.x.SetNetworkPolicy(makePolicy(t, "shop/b", `{podSelector: {}, egress: [{}]}`))
	m.x.DeletePod("shop", "web")
	m.x.DeletePod("shop", "new")
	m.x.DeleteNetworkPolicy("shop", "b")
	m.x.SetPod(makePod("shop/web", "app=web", addrs["web"], "http=8080/TCP"))
	require.True(t, m.flush(t).Empty())
}

// TestNamesDoNotCollide: neither by joining nor by length.
func TestNamesDoNotCollide(t *testing.T) {
	long := strings.Repeat("n", 253)
	m := mirror{x: NewIndex(node)}
	for i, n := range []string{"a-b/c", "a/b-c", long + "/" + long, long + "/" + long[:252]} {
		m.x.SetPod(makePod(n, "", []string{netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}).String()}))
		m.x.SetNetworkPolicy(makePolicy(t, n, `{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}`))
	}
	m.flush(t)
	// The two of the long namespace are one group with two policies.
	require.Len(t, m.state.Groups, 3)
	require.Len(t, m.state.PeerSets, 3)
	for _, g := range m.state.Groups {
		require.Len(t, g.ID, 3+26)
		require.Regexp(t, `^gi-[a-z2-7]{26}$`, string(g.ID))
	}
	for _, p := range m.state.PeerSets {
		require.Regexp(t, `^p-[a-z2-7]{26}$`, string(p.ID))
	}
}

// TestEverythingGoes: an Index that is emptied holds nothing.
func TestEverythingGoes(t *testing.T) {
	m := newMirror(t,
		"shop/a", `{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {a: b}}, podSelector: {}}, {podSelector: {}}], ports: [{port: http}]}], egress: [{ports: [{port: http}]}, {to: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: http}, {port: 80}]}]}`,
		"bare/a", `{podSelector: {}, egress: [{to: [{namespaceSelector: {}}], ports: [{port: http}]}]}`)
	require.NotEmpty(t, m.x.resolvers)
	for _, n := range []string{"shop/web", "shop/db", "mon/prom", "bare/x"} {
		ns, name, _ := strings.Cut(n, "/")
		m.x.DeletePod(ns, name)
	}
	m.flush(t)
	requireIdle(t, m.x)
	for _, ns := range []string{"shop", "mon", "bare"} {
		m.x.DeleteNetworkPolicy(ns, "a")
		m.x.DeleteNamespace(ns)
	}
	m.flush(t)
	require.Equal(t, ir.State{}, m.state)
	require.Empty(t, m.x.namespaces)
}

// requireIdle checks that nothing compiled is left over.
func requireIdle(t testing.TB, x *Index) {
	t.Helper()
	require.Empty(t, x.recipes)
	require.Empty(t, x.groups)
	require.Empty(t, x.sets)
	require.Empty(t, x.terms)
	require.Empty(t, x.resolvers)
	require.Empty(t, x.selections)
	require.Empty(t, x.places)
	require.True(t, x.bySelector.empty())
	require.Empty(t, x.bySelector.labels)
	require.Empty(t, x.bySelector.keys)
	for _, ns := range x.namespaces {
		require.Empty(t, ns.places)
	}
}
