package control

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	quantity "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// dress gives an object of the cluster what policies do not ask for but the API
// server keeps and sends: an ordinary Deployment's pod with one container and a
// sidecar, as admission and the kubelet leave it, has about 5 KiB in protobuf.
func dress(o any) runtime.Object {
	switch o := o.(type) {
	case *corev1.Pod:
		dressMeta(&o.ObjectMeta, podFields)
		dressPod(o)
		return o
	case *corev1.Namespace:
		dressMeta(&o.ObjectMeta, objectFields)
		o.Spec.Finalizers = []corev1.FinalizerName{corev1.FinalizerKubernetes}
		o.Status.Phase = corev1.NamespaceActive
		return o
	case *networkingv1.NetworkPolicy:
		dressMeta(&o.ObjectMeta, objectFields)
		return o
	}
	return o.(runtime.Object)
}

// The fields that managers own are a good part of an object: these have the length
// that they have in a live cluster.
var (
	podFields    = managed("kube-controller-manager", 1500, "kubelet", 900)
	objectFields = managed("kubectl", 350)
)

// managed takes names and lengths.
func managed(list ...any) (out []metav1.ManagedFieldsEntry) {
	for i := 0; i < len(list); i += 2 {
		const begin, part, end = `{"f:spec":"`, `f:containers.f:image.`, `"}`
		length := list[i+1].(int) - len(begin) - len(end)
		text := begin + strings.Repeat(part, 1+length/len(part))[:length] + end
		out = append(out, metav1.ManagedFieldsEntry{
			Manager: list[i].(string), Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1", FieldsType: "FieldsV1",
			Time: &born, FieldsV1: metav1.NewFieldsV1(text),
		})
	}
	return out
}

func dressMeta(m *metav1.ObjectMeta, fields []metav1.ManagedFieldsEntry) {
	m.ResourceVersion, m.ManagedFields, m.Generation = "123456789", fields, 1
	m.Annotations = map[string]string{"example.com/checksum": "3f786850e387550fdab836ed7e6dc881de23001b3f786850e387550fdab836ed"}
}

func dressPod(p *corev1.Pod) {
	yes := true
	p.GenerateName = p.Name + "-"
	p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: p.Name + "-owner", UID: p.UID, Controller: &yes, BlockOwnerDeletion: &yes}}
	p.Spec.Containers[0] = container(p.Spec.Containers[0], 12)
	p.Spec.Containers = append(p.Spec.Containers, container(corev1.Container{Name: "sidecar"}, 4))
	p.Spec.ServiceAccountName, p.Spec.DeprecatedServiceAccount, p.Spec.SchedulerName = "default", "default", "default-scheduler"
	p.Spec.RestartPolicy, p.Spec.DNSPolicy, p.Spec.SecurityContext = corev1.RestartPolicyAlways, corev1.DNSClusterFirst, &corev1.PodSecurityContext{}
	for _, key := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable} {
		seconds := int64(300)
		p.Spec.Tolerations = append(p.Spec.Tolerations, corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &seconds})
	}
	for _, name := range []string{"kube-api-access-x7k2p", "config", "data"} {
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: name}}}})
	}
	p.Status.HostIP, p.Status.QOSClass, p.Status.StartTime = "192.0.2.1", corev1.PodQOSBurstable, &born
	p.Status.HostIPs = []corev1.HostIP{{IP: "192.0.2.1"}}
	for _, t := range []corev1.PodConditionType{corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.PodReady, corev1.ContainersReady, corev1.PodScheduled} {
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: t, Status: corev1.ConditionTrue, LastTransitionTime: born})
	}
	for _, c := range p.Spec.Containers {
		p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{
			Name: c.Name, Ready: true, Started: &yes, Image: c.Image, ImageID: c.Image + "@sha256:" + strings.Repeat("9f", 32), ContainerID: "containerd://" + strings.Repeat("4e", 32),
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: born}},
		})
	}
}

func container(c corev1.Container, variables int) corev1.Container {
	c.Image, c.ImagePullPolicy = "registry.example.com/team/application:v1.42.7", corev1.PullIfNotPresent
	c.TerminationMessagePath, c.TerminationMessagePolicy = "/dev/termination-log", corev1.TerminationMessageReadFile
	for i := range variables {
		c.Env = append(c.Env, corev1.EnvVar{Name: fmt.Sprintf("APPLICATION_SETTING_%d", i), Value: "the-value-of-a-setting"})
	}
	c.Resources = corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: quantity.MustParse("100m"), corev1.ResourceMemory: quantity.MustParse("128Mi")},
		Limits:   corev1.ResourceList{corev1.ResourceMemory: quantity.MustParse("256Mi")},
	}
	c.VolumeMounts = []corev1.VolumeMount{{Name: "config", MountPath: "/etc/application", ReadOnly: true}, {Name: "data", MountPath: "/var/lib/application"}, {Name: "kube-api-access-x7k2p", MountPath: "/var/run/secrets/kubernetes.io/serviceaccount", ReadOnly: true}}
	probe := &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromString("http"), Scheme: corev1.URISchemeHTTP}},
		PeriodSeconds: 10, TimeoutSeconds: 1, SuccessThreshold: 1, FailureThreshold: 3,
	}
	c.LivenessProbe, c.ReadinessProbe = probe, probe
	return c
}
