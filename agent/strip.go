package agent

import (
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portcullis-netpol/portcullis/policy"
)

// strip returns of an object what policies can ask for. The informers call it before
// they store an object, so the rest is garbage at once. Pods become podRecords, for
// there can be 100,000 of them, and an empty corev1.Pod with one container takes 1.6
// KiB. It may be given what it has made, and returns what it does not know as it is.
func strip(object any) (any, error) {
	switch o := object.(type) {
	case *corev1.Pod:
		return newPodRecord(o), nil
	case *corev1.Namespace:
		return &corev1.Namespace{ObjectMeta: stripMeta(&o.ObjectMeta)}, nil
	case *networkingv1.NetworkPolicy:
		m := stripMeta(&o.ObjectMeta)
		if v, ok := o.Annotations[policy.AnnotationExistingConnections]; ok {
			m.Annotations = map[string]string{policy.AnnotationExistingConnections: v}
		}
		return &networkingv1.NetworkPolicy{ObjectMeta: m, Spec: o.Spec}, nil
	case *corev1.Node:
		m := stripMeta(&o.ObjectMeta)
		m.Labels = nil
		return &corev1.Node{ObjectMeta: m, Spec: corev1.NodeSpec{PodCIDR: o.Spec.PodCIDR, PodCIDRs: o.Spec.PodCIDRs}}, nil
	}
	return object, nil
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

// podRecord is a pod as the informer keeps it.
type podRecord struct {
	metav1.ObjectMeta
	node        string
	hostNetwork bool
	phase       corev1.PodPhase
	ip          string
	ips         []corev1.PodIP
	// containers and init are those that name ports, in their order.
	containers, init []containerRecord
}

// containerRecord is the named ports of a container: only they can be asked for.
type containerRecord struct {
	restart *corev1.ContainerRestartPolicy
	ports   []portRecord
}

type portRecord struct {
	name     string
	number   int32
	protocol corev1.Protocol
}

func newPodRecord(p *corev1.Pod) *podRecord {
	m := stripMeta(&p.ObjectMeta)
	if v, ok := p.Annotations[staticUID]; ok {
		m.Annotations = map[string]string{staticUID: v}
	}
	return &podRecord{
		ObjectMeta:  m,
		node:        p.Spec.NodeName,
		hostNetwork: p.Spec.HostNetwork,
		phase:       p.Status.Phase,
		ip:          p.Status.PodIP,
		ips:         p.Status.PodIPs,
		containers:  recordContainers(p.Spec.Containers),
		init:        recordContainers(p.Spec.InitContainers),
	}
}

func recordContainers(containers []corev1.Container) []containerRecord {
	var records []containerRecord
	for i := range containers {
		var ports []portRecord
		for _, p := range containers[i].Ports {
			if p.Name != "" {
				ports = append(ports, portRecord{p.Name, p.ContainerPort, p.Protocol})
			}
		}
		if len(ports) > 0 {
			records = append(records, containerRecord{containers[i].RestartPolicy, ports})
		}
	}
	return records
}

// pod returns the pod that the record is of, without what strip left out.
func (r *podRecord) pod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: r.ObjectMeta,
		Spec: corev1.PodSpec{
			NodeName:       r.node,
			HostNetwork:    r.hostNetwork,
			Containers:     containersOf(r.containers),
			InitContainers: containersOf(r.init),
		},
		Status: corev1.PodStatus{Phase: r.phase, PodIP: r.ip, PodIPs: r.ips},
	}
}

func containersOf(records []containerRecord) []corev1.Container {
	var containers []corev1.Container
	for _, r := range records {
		c := corev1.Container{RestartPolicy: r.restart}
		for _, p := range r.ports {
			c.Ports = append(c.Ports, corev1.ContainerPort{Name: p.name, ContainerPort: p.number, Protocol: p.protocol})
		}
		containers = append(containers, c)
	}
	return containers
}
