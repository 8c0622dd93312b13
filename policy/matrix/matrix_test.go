package matrix_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/portcullis-netpol/portcullis/policy/matrix"
)

type policyObject = networkingv1.NetworkPolicy

// input is a cluster of these objects, with the namespaces that they use.
func input(objects ...any) matrix.Input {
	in := matrix.Input{PodCIDRs: genPodCIDRs}
	have := map[string]bool{}
	for _, o := range objects {
		namespace := ""
		switch o := o.(type) {
		case *corev1.Pod:
			in.Cluster.Pods, namespace = append(in.Cluster.Pods, o), o.Namespace
		case *networkingv1.NetworkPolicy:
			in.Cluster.Policies, namespace = append(in.Cluster.Policies, o), o.Namespace
		case *corev1.Node:
			in.Cluster.Nodes = append(in.Cluster.Nodes, o)
		}
		if namespace != "" && !have[namespace] {
			have[namespace] = true
			in.Cluster.Namespaces = append(in.Cluster.Namespaces, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})
		}
	}
	return in
}

func pod(fullName, labels string, addrs ...string) *corev1.Pod {
	ns, name, _ := strings.Cut(fullName, "/")
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, Labels: map[string]string{}}, Spec: corev1.PodSpec{NodeName: "node-1"}}
	for pair := range strings.FieldsFuncSeq(labels, func(r rune) bool { return r == ',' }) {
		key, value, _ := strings.Cut(pair, "=")
		p.Labels[key] = value
	}
	for _, a := range addrs {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: a})
	}
	return p
}

func ownedBy(p *corev1.Pod, kind, name string) *corev1.Pod {
	p.OwnerReferences = []metav1.OwnerReference{{Kind: kind, Name: name, Controller: new(true)}}
	return p
}

func node(name string, addrs ...string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	for _, a := range addrs {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a})
	}
	return n
}

func policy(t testing.TB, fullName, spec string) *networkingv1.NetworkPolicy {
	t.Helper()
	ns, name, _ := strings.Cut(fullName, "/")
	p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
	require.NoError(t, yaml.UnmarshalStrict([]byte(spec), &p.Spec))
	return p
}

func names(v matrix.View) []string {
	var out []string
	for _, e := range v.Ends {
		out = append(out, e.FullName())
	}
	return out
}

// cell is what stands in one cell of a view.
func cell[T any](t testing.TB, v matrix.View, from, to string, list []T) T {
	t.Helper()
	for i, a := range v.Ends {
		for j, b := range v.Ends {
			if a.FullName() == from && b.FullName() == to {
				require.NotEqual(t, matrix.Blank, v.Cells[i][j], "%s -> %s", from, to)
				return list[v.Cells[i][j]]
			}
		}
	}
	require.Fail(t, "no such cell", "%s -> %s in %q", from, to, names(v))
	panic("unreachable")
}

func compute(t testing.TB, in matrix.Input, views ...matrix.By) *matrix.Matrix {
	t.Helper()
	m, err := matrix.Compute(t.Context(), in, matrix.Options{Views: views})
	require.NoError(t, err)
	return m
}

// TestRows puts pods into rows: those that no policy tells apart, if they belong together.
func TestRows(t *testing.T) {
	always := ownedBy(pod("a/web-1", "app=web,pod-template-hash=1", "10.1.0.1"), "ReplicaSet", "web-1")
	in := input(
		always, ownedBy(pod("a/web-2", "app=web,pod-template-hash=2", "10.1.0.2"), "ReplicaSet", "web-2"),
		ownedBy(pod("a/db-0", "app=db,nr=0", "10.1.0.3"), "StatefulSet", "db"),
		ownedBy(pod("a/db-1", "app=db,nr=1", "10.1.0.4"), "StatefulSet", "db"),
		ownedBy(pod("a/db-2", "app=db,nr=2", "10.1.0.5"), "StatefulSet", "db"),
		pod("a/solo", "x=1", "10.1.0.6"), pod("a/twin-1", "x=2", "10.1.0.7"), pod("a/twin-2", "x=2", "10.1.0.8"),
		ownedBy(pod("b/web", "", "10.1.0.9"), "DaemonSet", "web"), pod("b/web-x", "", "10.1.0.10"), ownedBy(pod("b/web-y", "", "10.1.0.11"), "Job", "web"),
		node("node-1", "10.0.0.1"), node("node-2", "10.0.0.2"),
		policy(t, "a/one", "podSelector: {matchLabels: {nr: '0'}}"),
	)
	m := compute(t, in, matrix.ByPod, matrix.ByWorkload, matrix.ByNamespace)
	require.Equal(t, []string{"a/db-0", "a/db-1 +1", "a/solo", "a/twin-1 +1", "a/web", "b/web (DaemonSet)", "b/web (Job)", "b/web-x", "outside", "own node", "other nodes"}, names(m.Views[0]))
	require.Equal(t, []string{"a/db", "a/solo", "a/twin-1", "a/twin-2", "a/web", "b/web (DaemonSet)", "b/web (Job)", "b/web-x", "outside", "own node", "other nodes"}, names(m.Views[1]))
	require.Equal(t, []string{"a/*", "b/*", "outside", "own node", "other nodes"}, names(m.Views[2]))
	require.Equal(t, []string{"web-1", "web-2"}, m.Views[0].Ends[4].Pods)
	require.Equal(t, "Deployment web", m.Views[0].Ends[4].Workload)
	require.Equal(t, matrix.Blank, m.Views[0].Cells[0][0], "a single pod and itself")
	require.True(t, cell(t, m.Views[0], "a/web", "a/web", m.Variants).Reach.Every[0].All())
	require.True(t, cell(t, m.Views[1], "a/web", "a/db", m.Variants).Reach.Mixed())
}

// TestAudit shows what policies in audit mode would deny as open, and says so.
func TestAudit(t *testing.T) {
	np := policy(t, "a/db", "podSelector: {matchLabels: {app: db}}\ningress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 5432}]}]")
	in := input(pod("a/web", "app=web", "10.1.0.1"), pod("a/db", "app=db", "10.1.0.2"), pod("b/x", "", "10.1.0.3"), np)
	denied := compute(t, in)
	np.Annotations = map[string]string{"portcullis.dev/mode": "audit"}
	m := compute(t, in)
	v := cell(t, m.Views[0], "a/web", "a/db", m.Variants)
	require.Equal(t, "all", v.Reach.Every[0].String())
	var would []string
	for _, s := range m.Profiles[v.Parts[0].Ingress].Families[0] {
		d := m.Decisions[s.Decision]
		require.True(t, d.Allowed)
		require.Empty(t, d.IsolatedBy)
		require.Equal(t, []matrix.Policy{{Name: "a/db", Selects: "pods app=db"}}, d.AuditedBy)
		if d.WouldDeny {
			would = append(would, s.Name())
		}
	}
	require.Equal(t, []string{"tcp/1-5431", "tcp/5433-65535", "udp/*", "sctp/*", "icmp"}, would)
	require.Equal(t, "none", cell(t, denied.Views[0], "b/x", "a/db", denied.Variants).Reach.Some[0].String())
	require.Equal(t, "all", cell(t, m.Views[0], "b/x", "a/db", m.Variants).Reach.Every[0].String())
}

// TestNamespaces shows the pods of one namespace and the others as one row each.
func TestNamespaces(t *testing.T) {
	in := input(pod("a/one", "", "10.1.0.1"), pod("a/two", "x=1", "10.1.0.2"), pod("b/one", "", "10.1.0.3"), pod("c/one", "", "10.1.0.4"))
	m, err := matrix.Compute(t.Context(), in, matrix.Options{Namespaces: []string{"a"}})
	require.NoError(t, err)
	require.Equal(t, []string{"a/one", "a/two", "b/*", "c/*", "outside"}, names(m.Views[0]))
	require.Equal(t, matrix.Blank, m.Views[0].Cells[2][3])
	require.NotEqual(t, matrix.Blank, m.Views[0].Cells[2][1])
	_, err = matrix.Compute(t.Context(), in, matrix.Options{Namespaces: []string{"d"}})
	require.ErrorContains(t, err, `"d"`)
}

// TestReasons names policy, rule and selectors, once.
func TestReasons(t *testing.T) {
	in := input(
		pod("a/web", "app=web", "10.1.0.1", "fd01::1"), pod("a/db", "app=db", "10.1.0.2", "fd01::2"),
		policy(t, "a/db", "podSelector: {matchLabels: {app: db}}\n"+
			"ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 5432}, {port: 5433, endPort: 5440}]},\n"+
			"  {from: [{ipBlock: {cidr: 198.51.100.0/24, except: [198.51.100.0/25]}}]}]"))
	m := compute(t, in)
	v := cell(t, m.Views[0], "a/web", "a/db", m.Variants)
	require.Equal(t, "tcp/5432-5440", v.Reach.Every[0].String())
	require.False(t, v.Reach.FamiliesDiffer() || v.Reach.Mixed())
	var rules []matrix.Rule
	for _, s := range m.Profiles[v.Parts[0].Ingress].Families[0] {
		require.Equal(t, []matrix.Policy{{Name: "a/db", Selects: "pods app=db"}}, m.Decisions[s.Decision].IsolatedBy)
		rules = append(rules, m.Decisions[s.Decision].AllowedBy...)
	}
	want := matrix.Rule{Policy: "a/db", Rule: "spec.ingress[0]", Peer: "from[0]", Whom: "pods app=web of the same namespace", Port: "ports[0]", What: "tcp/5432"}
	require.Equal(t, want, rules[0])
	require.Equal(t, "tcp/5433-5440", rules[1].What, "the next entry of ports, though the ports touch")

	out := cell(t, m.Views[0], "outside", "a/db", m.Variants)
	require.Equal(t, "none", out.Reach.Every[0].String())
	require.Equal(t, "all", out.Reach.Some[0].String())
	require.Equal(t, "none", out.Reach.Some[1].String())
	text := ""
	for _, p := range out.Parts {
		text += fmt.Sprintf("%v %v; ", p.Blocks, m.Profiles[p.Ingress].Allowed(0))
	}
	require.Equal(t, "[0.0.0.0/0 198.51.100.0/25] none; [198.51.100.0/24] all; [::/0] none; ", text)
}

// TestNodes lets a pod's own node in, whatever policies say, and judges the way to it.
func TestNodes(t *testing.T) {
	in := input(
		pod("a/web", "", "10.1.0.1"), node("node-1", "10.0.0.1"), node("node-2", "10.0.0.2"),
		policy(t, "a/none", "podSelector: {}\npolicyTypes: [Ingress, Egress]\negress: [{to: [{ipBlock: {cidr: 10.0.0.1/32}}], ports: [{port: 53, protocol: UDP}]}]"))
	m := compute(t, in)
	require.Equal(t, "all", cell(t, m.Views[0], "own node", "a/web", m.Variants).Reach.Every[0].String())
	require.Equal(t, "none", cell(t, m.Views[0], "other nodes", "a/web", m.Variants).Reach.Some[0].String())
	require.Equal(t, "udp/53", cell(t, m.Views[0], "a/web", "own node", m.Variants).Reach.Every[0].String())
	require.Equal(t, "none", cell(t, m.Views[0], "a/web", "other nodes", m.Variants).Reach.Some[0].String())
}

// TestLeftOut names the pods that take no part.
func TestLeftOut(t *testing.T) {
	host, done := pod("a/host", "", "10.0.0.1"), pod("a/done", "", "10.1.0.1")
	host.Spec.HostNetwork, done.Status.Phase = true, corev1.PodFailed
	m := compute(t, input(host, done, pod("a/new", "", "10.1.0.1"), pod("a/none", "")))
	require.Equal(t, []string{"a/host", "a/done", "a/none"}, m.LeftOut)
	require.Equal(t, []string{"a/new", "outside"}, names(m.Views[0]))
}

// TestCancel ends early.
func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := matrix.Compute(ctx, input(pod("a/web", "", "10.1.0.1")), matrix.Options{})
	require.ErrorIs(t, err, context.Canceled)
}

// big is a cluster of n workloads in ten namespaces, each with a policy of its own for both directions.
func big(t testing.TB, n int) matrix.Input {
	var objects []any
	for i := range n {
		ns := fmt.Sprintf("team-%d", i%10)
		objects = append(objects,
			pod(fmt.Sprintf("%s/app-%d", ns, i), fmt.Sprintf("app=app-%d", i), fmt.Sprintf("10.1.%d.%d", i/200, i%200+1), fmt.Sprintf("fd01::%x", i+1)),
			policy(t, fmt.Sprintf("%s/app-%d", ns, i), fmt.Sprintf("podSelector: {matchLabels: {app: app-%d}}\npolicyTypes: [Ingress, Egress]\n"+
				"ingress: [{from: [{podSelector: {matchLabels: {app: app-%d}}}, {ipBlock: {cidr: 10.1.0.0/24}}], ports: [{port: %d}]}]\n"+
				"egress: [{to: [{podSelector: {}}], ports: [{port: %d}]}, {to: [{namespaceSelector: {}}], ports: [{port: 53, protocol: UDP}]}]",
				i, (i+10)%n, 8000+i%7, 8000+(i+3)%7)))
	}
	for i := range 10 {
		objects = append(objects, policy(t, fmt.Sprintf("team-%d/default-deny", i), "podSelector: {}\npolicyTypes: [Ingress, Egress]"))
	}
	return input(objects...)
}

// BenchmarkCompute is 300 pods that all differ.
func BenchmarkCompute(b *testing.B) {
	in := big(b, 300)
	for b.Loop() {
		m := compute(b, in, matrix.ByPod, matrix.ByNamespace)
		b.ReportMetric(float64(len(m.Profiles)), "profiles")
		b.ReportMetric(float64(len(m.Variants)), "variants")
		b.ReportMetric(float64(len(m.Decisions)), "decisions")
	}
}
