package agent

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portcullis-netpol/portcullis/policy"
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

// TestStripKeeps keeps what policies can ask for, and what else the agent needs.
func TestStripKeeps(t *testing.T) {
	p := ordinaryPod(1)
	always := corev1.ContainerRestartPolicyAlways
	p.Spec.HostNetwork = true
	p.Spec.InitContainers = []corev1.Container{
		{Name: "init", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 1}}},
		{Name: "mesh", RestartPolicy: &always, Ports: []corev1.ContainerPort{{Name: "admin", ContainerPort: 2, Protocol: corev1.ProtocolUDP, HostPort: 3}}},
	}
	kept := metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name, UID: p.UID, ResourceVersion: p.ResourceVersion, Labels: p.Labels}
	p.Annotations[staticUID] = "abc"
	kept.Annotations = map[string]string{staticUID: "abc"}
	fields := p.ManagedFields
	want := &corev1.Pod{
		ObjectMeta: kept,
		Spec: corev1.PodSpec{
			NodeName: "node-1", HostNetwork: true,
			Containers: []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}}}},
			InitContainers: []corev1.Container{
				{Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 1}}},
				{RestartPolicy: &always, Ports: []corev1.ContainerPort{{Name: "admin", ContainerPort: 2, Protocol: corev1.ProtocolUDP}}},
			},
		},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.244.1.7", PodIPs: p.Status.PodIPs},
	}
	require.Equal(t, want, strip(p))
	require.Equal(t, want, strip(p), "once more")

	np := &networkingv1.NetworkPolicy{ObjectMeta: meta("shop", "deny", "1"), Spec: networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{"Ingress"}}}
	np.ManagedFields = fields
	np.Generation = 7
	np.Annotations = map[string]string{"a": "b", policy.AnnotationExistingConnections: "cut", policy.AnnotationMode: "audit"}
	stripped := strip(np).(*networkingv1.NetworkPolicy)
	require.Equal(t, []networkingv1.PolicyType{"Ingress"}, stripped.Spec.PolicyTypes)
	require.Equal(t, map[string]string{policy.AnnotationExistingConnections: "cut", policy.AnnotationMode: "audit"}, stripped.Annotations)
	require.EqualValues(t, 7, stripped.Generation)
	require.Nil(t, stripped.ManagedFields)

	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{"team": "a"}, ManagedFields: fields}}
	ns.Annotations = map[string]string{"a": "b", policy.AnnotationMode: "audit", policy.AnnotationExistingConnections: "cut"}
	left := metav1.ObjectMeta{Name: "shop", Labels: ns.Labels, Annotations: map[string]string{policy.AnnotationMode: "audit"}}
	require.Equal(t, &corev1.Namespace{ObjectMeta: left}, strip(ns))
	require.Nil(t, strip(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{"a": "b"}}}).(*corev1.Namespace).Annotations)
	n := testNode("node-1")
	n.Status.Images = make([]corev1.ContainerImage, 50)
	require.Equal(t, testNode("node-1"), strip(n))
	require.Equal(t, "something else", strip("something else"))
}
