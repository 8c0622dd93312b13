package agent

import (
	"slices"
	"strings"
	"unique"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

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

// podRecord is a pod as the informer keeps it. What many pods have in common, as most
// of their labels are, is there once.
type podRecord struct {
	*metav1.ObjectMeta // noMeta: the rest of what the informer may ask an object for

	namespace   unique.Handle[string]
	name        string
	uid         types.UID
	version     string
	created     metav1.Time
	labels      []labelRecord
	staticUID   *string
	node        unique.Handle[string]
	hostNetwork bool
	phase       corev1.PodPhase
	ip          string
	ips         []corev1.PodIP
	// containers and init are those that name ports, in their order.
	containers, init []containerRecord
}

// noMeta is what podRecords have of an object beyond their own fields: nothing.
var noMeta = &metav1.ObjectMeta{}

func (r *podRecord) GetNamespace() string       { return r.namespace.Value() }
func (r *podRecord) GetName() string            { return r.name }
func (r *podRecord) GetUID() types.UID          { return r.uid }
func (r *podRecord) GetResourceVersion() string { return r.version }

type labelRecord struct{ key, value unique.Handle[string] }

// containerRecord is the named ports of a container: only they can be asked for.
type containerRecord struct {
	restart *corev1.ContainerRestartPolicy
	ports   []portRecord
}

type portRecord struct {
	name     unique.Handle[string]
	number   int32
	protocol unique.Handle[corev1.Protocol]
}

func newPodRecord(p *corev1.Pod) *podRecord {
	r := &podRecord{
		ObjectMeta:  noMeta,
		namespace:   unique.Make(p.Namespace),
		name:        p.Name,
		uid:         p.UID,
		version:     p.ResourceVersion,
		created:     p.CreationTimestamp,
		node:        unique.Make(p.Spec.NodeName),
		hostNetwork: p.Spec.HostNetwork,
		phase:       unique.Make(p.Status.Phase).Value(),
		ip:          p.Status.PodIP,
		ips:         p.Status.PodIPs,
		containers:  recordContainers(p.Spec.Containers),
		init:        recordContainers(p.Spec.InitContainers),
	}
	if len(r.ips) > 0 && r.ips[0].IP == r.ip {
		r.ip = r.ips[0].IP // one copy of it will do
	}
	if v, ok := p.Annotations[staticUID]; ok {
		r.staticUID = &v
	}
	if len(p.Labels) > 0 {
		r.labels = make([]labelRecord, 0, len(p.Labels))
		for k, v := range p.Labels {
			r.labels = append(r.labels, labelRecord{unique.Make(k), unique.Make(v)})
		}
		slices.SortFunc(r.labels, func(a, b labelRecord) int { return strings.Compare(a.key.Value(), b.key.Value()) })
	}
	return r
}

func recordContainers(containers []corev1.Container) []containerRecord {
	var records []containerRecord
	for i := range containers {
		var ports []portRecord
		for _, p := range containers[i].Ports {
			if p.Name != "" {
				ports = append(ports, portRecord{unique.Make(p.Name), p.ContainerPort, unique.Make(p.Protocol)})
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
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:         r.namespace.Value(),
			Name:              r.name,
			UID:               r.uid,
			ResourceVersion:   r.version,
			CreationTimestamp: r.created,
		},
		Spec: corev1.PodSpec{
			NodeName:       r.node.Value(),
			HostNetwork:    r.hostNetwork,
			Containers:     containersOf(r.containers),
			InitContainers: containersOf(r.init),
		},
		Status: corev1.PodStatus{Phase: r.phase, PodIP: r.ip, PodIPs: r.ips},
	}
	if r.staticUID != nil {
		p.Annotations = map[string]string{staticUID: *r.staticUID}
	}
	if len(r.labels) > 0 {
		p.Labels = make(map[string]string, len(r.labels))
		for _, l := range r.labels {
			p.Labels[l.key.Value()] = l.value.Value()
		}
	}
	return p
}

func containersOf(records []containerRecord) []corev1.Container {
	var containers []corev1.Container
	for _, r := range records {
		c := corev1.Container{RestartPolicy: r.restart}
		for _, p := range r.ports {
			c.Ports = append(c.Ports, corev1.ContainerPort{Name: p.name.Value(), ContainerPort: p.number, Protocol: p.protocol.Value()})
		}
		containers = append(containers, c)
	}
	return containers
}
