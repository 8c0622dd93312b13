package policy

import (
	"runtime"
	"testing"

	corev1 "k8s.io/api/core/v1"
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
			b.ReportAllocs()
			b.ResetTimer()
			run(b, x)
		})
	}
}

// BenchmarkPodEvent relabels a remote pod that three peer sets are about.
func BenchmarkPodEvent(b *testing.B) {
	benchSizes(b, func(b *testing.B, x *Index) {
		one, two := bigPod(3, 7), bigPod(3, 7)
		two.Labels["app"] = "app-1"
		for i := 0; b.Loop(); i++ {
			x.SetPod([]*corev1.Pod{two, one}[i%2])
			if x.Flush().Empty() {
				b.Fatal("nothing changed")
			}
		}
	})
}

// BenchmarkLocalPod lets a pod with ten policies come and go.
func BenchmarkLocalPod(b *testing.B) {
	benchSizes(b, func(b *testing.B, x *Index) {
		p := bigPod(3, 10)
		p.Name = "new"
		p.Spec.NodeName = node
		p.Status.PodIPs = []corev1.PodIP{{IP: "10.200.0.1"}}
		for i := 0; b.Loop(); i++ {
			if i%2 == 0 {
				x.SetPod(p)
			} else {
				x.DeletePod(p.Namespace, p.Name)
			}
			if x.Flush().Empty() {
				b.Fatal("nothing changed")
			}
		}
	})
}

// BenchmarkPolicy adds and removes a policy for a local pod.
func BenchmarkPolicy(b *testing.B) {
	benchSizes(b, func(b *testing.B, x *Index) {
		p := bigPolicy(b, 3, 11)
		for i := 0; b.Loop(); i++ {
			if i%2 == 0 {
				x.SetNetworkPolicy(p)
			} else {
				x.DeleteNetworkPolicy(p.Namespace, p.Name)
			}
			if x.Flush().Empty() {
				b.Fatal("nothing changed")
			}
		}
	})
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
