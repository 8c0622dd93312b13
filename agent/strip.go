package agent

import (
	"slices"
	"unique"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portcullis-netpol/portcullis/policy"
)

// strip takes from an object, in place, what policies cannot ask for, so that it is
// garbage when the object waits or is kept. What it does not know it leaves as it is.
func strip(object any) any {
	switch o := object.(type) {
	case *corev1.Pod:
		stripPod(o)
	case *corev1.Namespace:
		m := stripMeta(&o.ObjectMeta)
		m.Annotations = annotations(o.Annotations, policy.AnnotationMode)
		*o = corev1.Namespace{ObjectMeta: m}
	case *networkingv1.NetworkPolicy:
		m := stripMeta(&o.ObjectMeta)
		m.Generation = o.Generation
		m.Annotations = annotations(o.Annotations, policy.AnnotationExistingConnections, policy.AnnotationMode)
		*o = networkingv1.NetworkPolicy{ObjectMeta: m, Spec: o.Spec}
	case *corev1.Node:
		m := stripMeta(&o.ObjectMeta)
		m.Labels = nil
		*o = corev1.Node{ObjectMeta: m, Spec: corev1.NodeSpec{PodCIDR: o.Spec.PodCIDR, PodCIDRs: o.Spec.PodCIDRs}}
	}
	return object
}

func stripPod(p *corev1.Pod) {
	m := stripMeta(&p.ObjectMeta)
	m.Annotations = annotations(p.Annotations, staticUID)
	*p = corev1.Pod{
		ObjectMeta: m,
		Spec: corev1.PodSpec{
			NodeName:       p.Spec.NodeName,
			HostNetwork:    p.Spec.HostNetwork,
			Containers:     stripContainers(p.Spec.Containers),
			InitContainers: stripContainers(p.Spec.InitContainers),
		},
		Status: corev1.PodStatus{Phase: p.Status.Phase, PodIP: p.Status.PodIP, PodIPs: p.Status.PodIPs},
	}
}

func stripMeta(m *metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace:         m.Namespace,
		Name:              m.Name,
		UID:               m.UID,
		ResourceVersion:   m.ResourceVersion,
		CreationTimestamp: m.CreationTimestamp,
		Labels:            m.Labels,
	}
}

// annotations returns those of all that count, nil if there are none.
func annotations(all map[string]string, names ...string) map[string]string {
	var out map[string]string
	for _, name := range names {
		if v, ok := all[name]; ok {
			if out == nil {
				out = map[string]string{}
			}
			out[name] = v
		}
	}
	return out
}

// stripContainers keeps the containers that name ports, and those ports of them: only
// they can be asked for. Most names are those of many pods, and there once.
func stripContainers(containers []corev1.Container) []corev1.Container {
	var out []corev1.Container
	for _, c := range containers {
		ports := slices.DeleteFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.Name == "" })
		for i, p := range ports {
			ports[i] = corev1.ContainerPort{Name: unique.Make(p.Name).Value(), ContainerPort: p.ContainerPort, Protocol: p.Protocol}
		}
		if len(ports) > 0 {
			out = append(out, corev1.Container{RestartPolicy: c.RestartPolicy, Ports: ports})
		}
	}
	return out
}
