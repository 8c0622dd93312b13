package agent

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ordinaryPod is a pod as a Deployment makes it: annotations, managed fields,
// environment, volumes, probes, conditions.
func ordinaryPod(i int) *corev1.Pod {
	p := &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"},
		ObjectMeta: meta("shop", fmt.Sprintf("web-5d8f7c9b4-%05d", i), fmt.Sprintf("6d1f3c0a-0000-4000-8000-%012d", i)),
		Spec: corev1.PodSpec{
			NodeName: "node-1",
			Volumes:  []corev1.Volume{{Name: "data"}, {Name: "kube-api-access-x7k2p"}},
			Containers: []corev1.Container{
				{Name: "web", Image: "registry.example/shop/web:1.2.3", Ports: []corev1.ContainerPort{
					{Name: "http", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}, {ContainerPort: 9000}}},
				{Name: "sidecar", Image: "registry.example/proxy:4"},
			},
			Tolerations: []corev1.Toleration{{Key: "node.kubernetes.io/not-ready"}, {Key: "node.kubernetes.io/unreachable"}},
		},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, HostIP: "192.0.2.1", PodIP: "10.244.1.7",
			PodIPs: []corev1.PodIP{{IP: "10.244.1.7"}, {IP: "fd00:10:244:1::7"}},
			ContainerStatuses: []corev1.ContainerStatus{
				{Name: "web", Image: "registry.example/shop/web:1.2.3", ImageID: fmt.Sprintf("sha256:%064d", i), ContainerID: fmt.Sprintf("containerd://%064d", i)},
				{Name: "sidecar", Image: "registry.example/proxy:4", ImageID: fmt.Sprintf("sha256:%064d", i), ContainerID: fmt.Sprintf("containerd://%064d", i)},
			},
		},
	}
	p.ResourceVersion = fmt.Sprint(1000 + i)
	p.Labels = map[string]string{"app": "web", "pod-template-hash": "5d8f7c9b4"}
	p.Annotations = map[string]string{"checksum/config": fmt.Sprintf("%064d", i), "prometheus.io/scrape": "true"}
	p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web-5d8f7c9b4", UID: "u"}}
	for _, manager := range []string{"kube-controller-manager", "kubelet"} {
		p.ManagedFields = append(p.ManagedFields, metav1.ManagedFieldsEntry{Manager: manager, FieldsV1: metav1.NewFieldsV1(strings.Repeat("x", 1500))})
	}
	for c := range p.Spec.Containers {
		for e := range 8 {
			p.Spec.Containers[c].Env = append(p.Spec.Containers[c].Env, corev1.EnvVar{Name: fmt.Sprintf("SETTING_%d_%d", i, e), Value: fmt.Sprintf("value %d", i)})
		}
		p.Spec.Containers[c].Resources.Requests = corev1.ResourceList{"cpu": resource.MustParse("100m"), "memory": resource.MustParse("64Mi")}
		p.Spec.Containers[c].VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	}
	for _, c := range []corev1.PodConditionType{"PodScheduled", "Initialized", "ContainersReady", "Ready"} {
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: c, Status: corev1.ConditionTrue})
	}
	return p
}

// TestStripKeeps keeps what policies can ask for, and can be called again.
func TestStripKeeps(t *testing.T) {
	p := ordinaryPod(1)
	always := corev1.ContainerRestartPolicyAlways
	p.Spec.HostNetwork = true
	p.Spec.InitContainers = []corev1.Container{
		{Name: "init", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 1}}},
		{Name: "mesh", RestartPolicy: &always, Ports: []corev1.ContainerPort{{Name: "admin", ContainerPort: 2, Protocol: corev1.ProtocolUDP, HostPort: 3}}},
	}
	stripped, err := strip(p)
	require.NoError(t, err)
	require.Equal(t, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name, UID: p.UID, ResourceVersion: p.ResourceVersion, Labels: p.Labels},
		Spec: corev1.PodSpec{
			NodeName: "node-1", HostNetwork: true,
			Containers: []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}}}},
			InitContainers: []corev1.Container{
				{Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 1}}},
				{RestartPolicy: &always, Ports: []corev1.ContainerPort{{Name: "admin", ContainerPort: 2, Protocol: corev1.ProtocolUDP}}},
			},
		},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.244.1.7", PodIPs: p.Status.PodIPs},
	}, stripped.(*podRecord).pod())
	again, err := strip(stripped)
	require.NoError(t, err)
	require.Equal(t, stripped, again)

	np := &networkingv1.NetworkPolicy{ObjectMeta: meta("shop", "deny", "1"), Spec: networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{"Ingress"}}}
	np.ManagedFields = p.ManagedFields
	stripped, err = strip(np)
	require.NoError(t, err)
	require.Equal(t, np.Spec, stripped.(*networkingv1.NetworkPolicy).Spec)
	require.Nil(t, stripped.(*networkingv1.NetworkPolicy).ManagedFields)
	n := testNode("node-1")
	n.Status.Images = make([]corev1.ContainerImage, 50)
	stripped, err = strip(n)
	require.NoError(t, err)
	require.Equal(t, testNode("node-1"), stripped)
	other, err := strip("a tombstone")
	require.NoError(t, err)
	require.Equal(t, "a tombstone", other)
}

// podBytes returns what one ordinary pod takes in memory, as it comes and stripped.
func podBytes() (full, stripped int) {
	const n = 2000
	measure := func(one func(int) any) int {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		kept := make([]any, n)
		for i := range kept {
			kept[i] = one(i)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		runtime.KeepAlive(kept)
		return int(after.HeapAlloc-before.HeapAlloc) / n
	}
	full = measure(func(i int) any { return ordinaryPod(i) })
	stripped = measure(func(i int) any { s, _ := strip(ordinaryPod(i)); return s })
	return full, stripped
}

// TestStripSaves keeps the informers' store at a sixteenth of what the pods take, at most.
func TestStripSaves(t *testing.T) {
	full, stripped := podBytes()
	t.Logf("bytes per pod: %d as it comes, %d stripped", full, stripped)
	require.Less(t, 16*stripped, full)
}

func BenchmarkStrip(b *testing.B) {
	full, stripped := podBytes()
	p := ordinaryPod(1)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := strip(p); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(full), "full-B/pod")
	b.ReportMetric(float64(stripped), "stripped-B/pod")
}
