package policy

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

// bigCluster has namespaces of 100 pods and 10 policies each: every policy
// lets the pods of one application of the namespace and of the "monitoring"
// namespaces reach another application. The node has one pod of each of the
// first local namespaces.
func bigCluster(t testing.TB, namespaces, local int) *Index {
	t.Helper()
	x := NewIndex(node)
	for n := range namespaces {
		name := fmt.Sprintf("ns-%d", n)
		x.SetNamespace(makeNamespace(name, "kubernetes.io/metadata.name="+name))
		for i := range 100 {
			p := bigPod(n, i)
			if i == 0 && n < local {
				p.Spec.NodeName = node
			}
			x.SetPod(p)
		}
		for i := range 10 {
			x.SetNetworkPolicy(bigPolicy(t, n, i))
		}
	}
	return x
}

func bigPod(n, i int) *corev1.Pod {
	p := makePod(fmt.Sprintf("ns-%d/pod-%d", n, i), fmt.Sprintf("app=app-%d,pod-template-hash=%d,tier=backend", i%10, n), []string{
		netip.AddrFrom4([4]byte{10, byte(n >> 8), byte(n), byte(i)}).String(),
		fmt.Sprintf("fd00::%x:%x", n, i),
	}, "http=8080/TCP")
	p.Spec.NodeName = fmt.Sprintf("node-%d", 2+i)
	return p
}

const bigSpec = `
podSelector: {matchLabels: {app: app-0}}
policyTypes: [Ingress, Egress]
ingress:
- from: [{podSelector: {matchLabels: {app: app-I, tier: backend}}}]
  ports: [{port: 80I}]
- from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ns-N}}, podSelector: {matchLabels: {app: app-I}}}]
  ports: [{port: http}]
egress:
- to: [{podSelector: {matchLabels: {app: app-I}}}]
  ports: [{port: http}]
`

func bigPolicy(t testing.TB, n, i int) *networkingv1.NetworkPolicy {
	spec := strings.NewReplacer("app-I", fmt.Sprint("app-", i), "80I", fmt.Sprint(8000+i), "ns-N", fmt.Sprint("ns-", n/10*10)).Replace(bigSpec)
	return makePolicy(t, fmt.Sprintf("ns-%d/policy-%d", n, i), spec)
}

// TestBoundedWork: an event costs the same in a cluster of four times the size.
func TestBoundedWork(t *testing.T) {
	measure := func(namespaces int, event func(*Index)) work {
		x := bigCluster(t, namespaces, namespaces)
		x.Flush()
		x.work = work{}
		event(x)
		x.Flush()
		return x.work
	}
	relabelled := bigPod(3, 7)
	relabelled.Labels["app"] = "app-1"
	moved := bigPod(3, 7)
	moved.Status.PodIPs = []corev1.PodIP{{IP: "10.200.0.1"}}
	local := bigPod(3, 10)
	local.Spec.NodeName = node
	for _, c := range []struct {
		name  string
		event func(*Index)
		most  work
	}{
		{"status without news", func(x *Index) { x.SetPod(bigPod(3, 7)) }, work{}},
		{"remote pod comes", func(x *Index) { p := bigPod(3, 7); p.Name = "new"; p.Status.PodIPs = moved.Status.PodIPs; x.SetPod(p) }, work{evaluated: 5, moved: 10}},
		{"remote pod goes", func(x *Index) { x.DeletePod("ns-3", "pod-7") }, work{evaluated: 5, moved: 10}},
		{"remote pod is relabelled", func(x *Index) { x.SetPod(relabelled) }, work{evaluated: 10, moved: 20}},
		{"remote pod has another address", func(x *Index) { x.SetPod(moved) }, work{evaluated: 5, moved: 15}},
		{"local pod comes", func(x *Index) { x.SetPod(local) }, work{evaluated: 20, moved: 10}},
		{"policy edited", func(x *Index) {
			p := bigPolicy(t, 3, 7)
			p.Spec.Ingress = p.Spec.Ingress[:1]
			x.SetNetworkPolicy(p)
		}, work{evaluated: 20, compiled: 1}},
		{"policy comes", func(x *Index) {
			p := bigPolicy(t, 3, 11)
			p.Spec.Ingress[0].From[0].PodSelector.MatchLabels = map[string]string{"app": "app-3"}
			x.SetNetworkPolicy(p)
		}, work{evaluated: 600, scanned: 500, compiled: 2}},
		{"policy that selects no pod here", func(x *Index) {
			p := bigPolicy(t, 3, 12)
			p.Spec.PodSelector.MatchLabels["app"] = "app-5"
			x.SetNetworkPolicy(p)
		}, work{evaluated: 1}},
		{"namespace is audited", func(x *Index) {
			n := makeNamespace("ns-10", "kubernetes.io/metadata.name=ns-10")
			n.Annotations = map[string]string{AnnotationMode: "audit"}
			x.SetNamespace(n)
		}, work{evaluated: 20, compiled: 2}},
		{"policy is audited", func(x *Index) {
			p := bigPolicy(t, 3, 7)
			p.Annotations = map[string]string{AnnotationMode: "audit"}
			x.SetNetworkPolicy(p)
		}, work{evaluated: 20, compiled: 2}},
		{"namespace is relabelled", func(x *Index) { x.SetNamespace(makeNamespace("ns-10", "a=b")) }, work{evaluated: 2, scanned: 100, moved: 300}},
	} {
		t.Run(c.name, func(t *testing.T) {
			small, big := measure(20, c.event), measure(80, c.event)
			require.Equal(t, small, big, "work grows with the cluster")
			require.LessOrEqual(t, big.evaluated, c.most.evaluated, "evaluated")
			require.LessOrEqual(t, big.scanned, c.most.scanned, "scanned")
			require.LessOrEqual(t, big.moved, c.most.moved, "moved")
			require.LessOrEqual(t, big.compiled, c.most.compiled, "compiled")
			if c.name != "status without news" {
				require.NotZero(t, big.evaluated+big.moved)
			}
		})
	}
}
