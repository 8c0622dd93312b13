package policy

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// choice is where random decisions come from: a seed, or the bytes of a fuzzer.
type choice interface{ IntN(n int) int }

// world is a set of objects as an API server would have it, with few names and
// values, so that random events meet.
type world struct {
	choice
	pods       map[string]*corev1.Pod
	namespaces map[string]*corev1.Namespace
	policies   map[string]*networkingv1.NetworkPolicy
	// crowded is set if pods have many policies with ports and peers of their own.
	crowded bool
	met     met
}

func newWorld(c choice) *world {
	return &world{choice: c, pods: map[string]*corev1.Pod{}, namespaces: map[string]*corev1.Namespace{}, policies: map[string]*networkingv1.NetworkPolicy{}}
}

func pick[T any](c choice, list ...T) T { return list[c.IntN(len(list))] }

func (w *world) chance(percent int) bool { return w.IntN(100) < percent }

func (w *world) labels() map[string]string {
	m := map[string]string{}
	for _, k := range []string{"app", "tier"} {
		if w.chance(70) {
			m[k] = pick(w, "a", "b", "c", "")
		}
	}
	return m
}

func (w *world) pod(ns, name string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: ns, Name: name, Labels: w.labels(),
			UID: types.UID(pick(w, "u1", "u2", "u3")), CreationTimestamp: at(int64(w.IntN(3))),
		},
		Spec: corev1.PodSpec{NodeName: pick(w, node, node, "node-2", ""), HostNetwork: w.chance(5)},
		Status: corev1.PodStatus{
			Phase: pick(w, corev1.PodRunning, corev1.PodRunning, corev1.PodRunning, corev1.PodPending, corev1.PodSucceeded, corev1.PodFailed),
		},
	}
	if w.chance(85) {
		n := 1 + w.IntN(12)
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: fmt.Sprintf("10.0.0.%d", n)})
		if w.chance(60) {
			p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: fmt.Sprintf("fd00::%d", n)})
		}
		p.Status.PodIP = p.Status.PodIPs[0].IP
	}
	c := corev1.Container{Name: "c"}
	for range w.IntN(3) {
		c.Ports = append(c.Ports, corev1.ContainerPort{
			Name: pick(w, "http", "dns", ""), ContainerPort: pick(w, int32(80), 81, 53),
			Protocol: pick(w, corev1.ProtocolTCP, corev1.ProtocolUDP, ""),
		})
	}
	if w.chance(20) {
		always := corev1.ContainerRestartPolicyAlways
		c.RestartPolicy = pick(w, &always, nil)
		p.Spec.InitContainers = []corev1.Container{c}
	} else {
		p.Spec.Containers = []corev1.Container{c}
	}
	return p
}

func (w *world) selector() *metav1.LabelSelector {
	s := &metav1.LabelSelector{}
	for _, k := range []string{"app", "tier"} {
		switch w.IntN(10) {
		case 0, 1, 2:
			s.MatchLabels = map[string]string{k: pick(w, "a", "b", "c", "")}
		case 3:
			s.MatchExpressions = append(s.MatchExpressions, metav1.LabelSelectorRequirement{
				Key: k, Operator: pick(w, metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn), Values: []string{"a", pick(w, "b", "", "a")},
			})
		case 4:
			s.MatchExpressions = append(s.MatchExpressions, metav1.LabelSelectorRequirement{
				Key: k, Operator: pick(w, metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist),
			})
		case 5:
			if w.chance(20) {
				s.MatchExpressions = append(s.MatchExpressions, metav1.LabelSelectorRequirement{Key: k, Operator: "Near"})
			}
		}
	}
	return s
}

func (w *world) peers() []networkingv1.NetworkPolicyPeer {
	var out []networkingv1.NetworkPolicyPeer
	for range w.IntN(4) {
		var p networkingv1.NetworkPolicyPeer
		switch w.IntN(8) {
		case 0, 1:
			p.PodSelector = w.selector()
		case 2:
			p.NamespaceSelector = w.selector()
		case 3, 4:
			p.PodSelector, p.NamespaceSelector = w.selector(), w.selector()
		case 5, 6:
			p.IPBlock = &networkingv1.IPBlock{CIDR: pick(w, "0.0.0.0/0", "10.0.0.0/29", "10.0.0.9/30", "fd00::/124", "::/0", "10.0.0/8")}
			if w.chance(40) {
				p.IPBlock.Except = []string{pick(w, "10.0.0.2/32", "10.0.0.4/30", "fd00::4/126", "x")}
			}
		case 7:
			if w.chance(20) {
				p.IPBlock, p.PodSelector = &networkingv1.IPBlock{CIDR: "0.0.0.0/0"}, w.selector()
			}
		}
		out = append(out, p)
	}
	return out
}

func (w *world) ports() []networkingv1.NetworkPolicyPort {
	var out []networkingv1.NetworkPolicyPort
	for range w.IntN(3) {
		var p networkingv1.NetworkPolicyPort
		if w.chance(60) {
			proto := pick(w, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP, corev1.ProtocolTCP, "tcp")
			p.Protocol = &proto
		}
		switch w.IntN(5) {
		case 0, 1:
			v := intstr.FromInt32(pick(w, int32(53), 80, 81, 1, 65535, 0))
			p.Port = &v
			if w.chance(40) {
				p.EndPort = pick(w, new(int32(81)), new(int32(65535)), new(int32(79)))
			}
		case 2, 3:
			v := intstr.FromString(pick(w, "http", "dns", "none", "http", "NO"))
			p.Port = &v
		}
		out = append(out, p)
	}
	return out
}

// modes returns the annotations of an object, which most often say nothing of a mode.
func (w *world) modes() map[string]string {
	switch w.IntN(8) {
	case 0, 1:
		return map[string]string{AnnotationMode: "audit"}
	case 2:
		return map[string]string{AnnotationMode: pick(w, "enforce", "Audit", "")}
	}
	return nil
}

func (w *world) policy(ns, name string) *networkingv1.NetworkPolicy {
	p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, Annotations: w.modes()}}
	if w.crowded && w.chance(85) {
		w.join(p)
		return p
	}
	p.Spec.PodSelector = *w.selector()
	p.Spec.PolicyTypes = pick(w, nil, []networkingv1.PolicyType{"Ingress"}, []networkingv1.PolicyType{"Egress"}, []networkingv1.PolicyType{"Ingress", "Egress"})
	if w.chance(3) {
		p.Spec.PolicyTypes = []networkingv1.PolicyType{"Sideways"}
	}
	for range w.IntN(3) {
		p.Spec.Ingress = append(p.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: w.peers(), Ports: w.ports()})
	}
	for range w.IntN(3) {
		p.Spec.Egress = append(p.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: w.peers(), Ports: w.ports()})
	}
	return p
}

// event changes the world and tells the Index.
func (w *world) event(x *Index) string {
	ns := pick(w, "n1", "n2", "n3")
	kind := w.IntN(12)
	if w.crowded && w.chance(50) {
		kind = 2 + w.IntN(3)
	}
	switch kind {
	case 0:
		n := makeNamespace(ns, "")
		n.Labels, n.Annotations = w.labels(), w.modes()
		if old := w.namespaces[ns]; old != nil && w.chance(60) { // a change of one thing
			if w.chance(50) {
				n.Labels = old.Labels
			} else {
				n.Annotations = old.Annotations
			}
		}
		w.namespaces[ns] = n
		x.SetNamespace(n)
		return fmt.Sprintf("namespace %s %v %v", ns, n.Labels, n.Annotations)
	case 1:
		if w.chance(50) {
			delete(w.namespaces, ns)
			x.DeleteNamespace(ns)
		}
		return "delete namespace " + ns
	case 2, 3:
		name := w.policyName()
		p := w.policy(ns, name)
		if old := w.policies[ns+"/"+name]; old != nil && w.chance(60) { // a change of one thing
			q := old.DeepCopy()
			switch w.IntN(5) {
			case 0:
				q.Spec.PodSelector = p.Spec.PodSelector
			case 1:
				q.Spec.PolicyTypes = p.Spec.PolicyTypes
			case 2:
				q.Spec.Ingress = p.Spec.Ingress
			case 3:
				if len(q.Spec.Egress) > 0 {
					q.Spec.Egress[0].To = w.peers()
				}
			case 4:
				q.Annotations = p.Annotations
			}
			p = q
		}
		w.policies[ns+"/"+name] = p
		x.SetNetworkPolicy(p)
		return fmt.Sprintf("policy %s/%s", ns, name)
	case 4:
		name := w.policyName()
		delete(w.policies, ns+"/"+name)
		x.DeleteNetworkPolicy(ns, name)
		return fmt.Sprintf("delete policy %s/%s", ns, name)
	case 5, 6:
		name := pick(w, "p1", "p2", "p3", "p4")
		delete(w.pods, ns+"/"+name)
		x.DeletePod(ns, name)
		return fmt.Sprintf("delete pod %s/%s", ns, name)
	default:
		name := pick(w, "p1", "p2", "p3", "p4")
		p := w.pod(ns, name)
		if old := w.pods[ns+"/"+name]; old != nil && w.chance(50) { // a change of one thing
			q := old.DeepCopy()
			switch w.IntN(4) {
			case 0:
				q.Labels = p.Labels
			case 1:
				q.Status = p.Status
			case 2:
				q.Spec = p.Spec
			case 3:
				q.UID, q.CreationTimestamp = p.UID, p.CreationTimestamp
			}
			p = q
		}
		w.pods[ns+"/"+name] = p
		x.SetPod(p)
		return fmt.Sprintf("pod %s/%s", ns, name)
	}
}
