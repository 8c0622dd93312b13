package policy

import (
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// The methods of this file give back what the Index holds, as objects of the API
// that are made for the caller. They tell of how things are now, whether or not a
// Flush has told of it. Policies mean the same to these objects as to those that
// were set; what policies cannot ask for is not in them.

// Pod returns the pod that the address stands for: namespace, name, UID, creation
// time, labels, named ports (those of all containers in one), addresses, and
// spec.nodeName if it is a pod of this node. ok is false if the address is no pod's.
func (x *Index) Pod(a netip.Addr) (p *corev1.Pod, ok bool) {
	owner := x.owners[a]
	if owner == nil {
		return nil, false
	}
	return x.object(owner), true
}

// Namespaces returns the names of the namespaces that have an object or pods, sorted.
func (x *Index) Namespaces() []string {
	names := make([]string, 0, len(x.namespaces))
	for name, ns := range x.namespaces {
		if ns.known || len(ns.pods) > 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Namespace returns the namespace with its labels and, if it is audit, its mode; ok
// is false if its object is not known.
func (x *Index) Namespace(name string) (n *corev1.Namespace, ok bool) {
	ns := x.namespaces[name]
	if ns == nil || !ns.known {
		return nil, false
	}
	n = &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: ns.labels.strings()}}
	if ns.mode != ModeEnforce {
		n.Annotations = map[string]string{AnnotationMode: ns.mode.String()}
	}
	return n, true
}

// PodNames returns the names of the pods of a namespace that list an address, in any
// order. It costs the pods of the namespace; PodNamed has them one by one.
func (x *Index) PodNames(namespace string) []string {
	ns := x.namespaces[namespace]
	if ns == nil {
		return nil
	}
	names := make([]string, 0, len(ns.pods))
	for name := range ns.pods {
		names = append(names, name)
	}
	return names
}

// PodNamed returns the pod of that name as Pod does; ok is false if there is none that
// lists an address.
func (x *Index) PodNamed(namespace, name string) (p *corev1.Pod, ok bool) {
	ns := x.namespaces[namespace]
	if ns == nil || ns.pods[name] == nil {
		return nil, false
	}
	return x.object(ns.pods[name]), true
}

// Selected returns how many pods of this node the policy called "namespace/name"
// selects; 0 if there is no such policy. It costs the local pods of the namespace.
func (x *Index) Selected(policy string) int {
	namespace, name, _ := strings.Cut(policy, "/")
	ns := x.namespaces[namespace]
	if ns == nil || ns.policies[name] == nil {
		return 0
	}
	n := 0
	for p := range ns.local {
		if ns.policies[name].subject.matches(p.labels) {
			n++
		}
	}
	return n
}

// object makes a Pod of what is known.
func (x *Index) object(p *pod) *corev1.Pod {
	o := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: p.ns.name, Name: p.name, UID: types.UID(p.uid), CreationTimestamp: metav1.NewTime(p.created), Labels: p.labels.strings(),
	}}
	if p.local {
		o.Spec.NodeName = x.node
	}
	if len(p.ports) > 0 {
		c := corev1.Container{Ports: make([]corev1.ContainerPort, 0, len(p.ports))}
		for _, n := range p.ports {
			c.Ports = append(c.Ports, corev1.ContainerPort{
				Name: n.name, ContainerPort: int32(n.number), Protocol: corev1.Protocol(strings.ToUpper(n.protocol.String())),
			})
		}
		o.Spec.Containers = []corev1.Container{c}
	}
	for _, a := range p.claims {
		o.Status.PodIPs = append(o.Status.PodIPs, corev1.PodIP{IP: a.String()})
	}
	o.Status.PodIP = o.Status.PodIPs[0].IP
	return o
}
