package policy

import (
	"fmt"
	"runtime"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// The benchmarks run in a cluster of 1,000 namespaces, 100,000 pods with two
// addresses each and 10,000 policies. In "some", 110 pods are on the node, in
// "all" one of each namespace, so that every policy is in force on it.
func benchSizes(b *testing.B, run func(b *testing.B, x *Index)) {
	for _, c := range []struct {
		name  string
		local int
	}{{"some", 110}, {"all", 1000}} {
		b.Run(c.name, func(b *testing.B) {
			x := bigCluster(b, 1000, c.local)
			x.Flush()
			run(b, x)
		})
	}
}

// takeTurns makes two events that undo each other.
func takeTurns(b *testing.B, x *Index, events ...func()) {
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		events[i%len(events)]()
		if x.Flush().Empty() {
			b.Fatal("nothing changed")
		}
	}
}

// BenchmarkPodEvent relabels a remote pod that three peer sets are about.
func BenchmarkPodEvent(b *testing.B) {
	benchSizes(b, func(b *testing.B, x *Index) {
		one, two := bigPod(3, 7), bigPod(3, 7)
		two.Labels["app"] = "app-1"
		takeTurns(b, x, func() { x.SetPod(two) }, func() { x.SetPod(one) })
	})
}

// BenchmarkLocalPod lets a pod with ten policies come and go.
func BenchmarkLocalPod(b *testing.B) {
	benchSizes(b, func(b *testing.B, x *Index) {
		p := bigPod(3, 10)
		p.Name = "new"
		p.Spec.NodeName = node
		p.Status.PodIPs = []corev1.PodIP{{IP: "10.200.0.1"}}
		takeTurns(b, x, func() { x.SetPod(p) }, func() { x.DeletePod(p.Namespace, p.Name) })
	})
}

// BenchmarkPolicy adds and removes a policy for a local pod.
func BenchmarkPolicy(b *testing.B) {
	benchSizes(b, func(b *testing.B, x *Index) {
		comeAndGo(b, x, bigPolicy(b, 3, 11))
	})
}

// comeAndGo adds and removes a policy.
func comeAndGo(b *testing.B, x *Index, p *networkingv1.NetworkPolicy) {
	takeTurns(b, x, func() { x.SetNetworkPolicy(p) }, func() { x.DeleteNetworkPolicy(p.Namespace, p.Name) })
}

// BenchmarkCrowd adds and removes a policy for a pod that many others select, each with
// peers and a port of its own.
func BenchmarkCrowd(b *testing.B) {
	for _, n := range []int{100, 1000, 10_000} {
		b.Run(fmt.Sprintf("policies=%d", n), func(b *testing.B) {
			x := NewIndex(node)
			x.SetNamespace(makeNamespace("crowd", ""))
			x.SetPod(&corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Namespace: "crowd", Name: "pod"},
				Spec:       corev1.PodSpec{NodeName: node},
				Status:     corev1.PodStatus{PodIPs: []corev1.PodIP{{IP: "10.200.0.1"}}},
			})
			policy := func(i int) *networkingv1.NetworkPolicy {
				port := intstr.FromInt(1 + i)
				return &networkingv1.NetworkPolicy{
					ObjectMeta: metav1.ObjectMeta{Namespace: "crowd", Name: fmt.Sprintf("p%05d", i)},
					Spec: networkingv1.NetworkPolicySpec{Ingress: []networkingv1.NetworkPolicyIngressRule{{
						From:  []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"peer": fmt.Sprint(i)}}}},
						Ports: []networkingv1.NetworkPolicyPort{{Port: &port}},
					}}},
				}
			}
			for i := range n {
				x.SetNetworkPolicy(policy(i))
			}
			x.Flush()
			comeAndGo(b, x, policy(n))
		})
	}
}

// BenchmarkLoad builds the whole cluster, and says how much memory it takes.
// The time is mostly that of making the objects.
func BenchmarkLoad(b *testing.B) {
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		x := bigCluster(b, 1000, 110)
		if n := len(x.Flush().Endpoints); n != 220 {
			b.Fatal(n)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "MB")
		runtime.KeepAlive(x)
	}
}
