package matrix_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/portcullis-netpol/portcullis/policy/evaluate"
	"github.com/portcullis-netpol/portcullis/policy/matrix"
)

// generator makes small clusters in which much collides: few labels, few ports, blocks around the pods' own addresses.
type generator struct{ *rand.Rand }

func pick[T any](g generator, from ...T) T { return from[g.IntN(len(from))] }

var (
	genNamespaces = []string{"a", "b", "c"}
	genNodes      = []string{"node-0", "node-1", "node-2"}
	genPodCIDRs   = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd01::/64")}
)

func (g generator) labels() map[string]string {
	out := map[string]string{}
	for _, key := range []string{"app", "tier", "hash"} {
		if g.IntN(3) > 0 {
			out[key] = pick(g, "x", "y", "")
		}
	}
	return out
}

func (g generator) input() matrix.Input {
	var c evaluate.Cluster
	for i, name := range genNodes {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if i < 2 {
			n.Status.Addresses = []corev1.NodeAddress{
				{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("10.0.0.%d", i+1)},
				{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("fd00::%d", i+1)},
			}
		}
		c.Nodes = append(c.Nodes, n)
	}
	for _, name := range genNamespaces[:2+g.IntN(2)] { // the last one may not be known
		c.Namespaces = append(c.Namespaces, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: g.labels(), Annotations: g.mode()}})
	}
	for i := range 4 + g.IntN(6) {
		c.Pods = append(c.Pods, g.pod(i))
	}
	c.Policies = g.policies()
	return matrix.Input{Cluster: c, PodCIDRs: genPodCIDRs}
}

// mode is the annotations of an object, most often none.
func (g generator) mode() map[string]string {
	if g.IntN(5) > 1 {
		return nil
	}
	return map[string]string{"portcullis.dev/mode": pick(g, "audit", "audit", "audit", "enforce", "?")}
}

func (g generator) pod(i int) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: pick(g, genNamespaces...), Name: fmt.Sprintf("p%d", i), Labels: g.labels()},
		Spec:       corev1.PodSpec{NodeName: pick(g, genNodes...), HostNetwork: g.IntN(12) == 0},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning},
	}
	if g.IntN(12) == 0 {
		p.Status.Phase = corev1.PodSucceeded
	}
	if g.IntN(3) == 0 {
		p.OwnerReferences = []metav1.OwnerReference{{Kind: "StatefulSet", Name: pick(g, "s", "t"), Controller: new(true)}}
	}
	last := i
	if g.IntN(10) == 0 {
		last = g.IntN(4) // another pod's address
		p.CreationTimestamp = metav1.Unix(int64(g.IntN(3)), 0)
	}
	if g.IntN(5) > 0 {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: fmt.Sprintf("10.1.%d.%d", last%2, last+2)})
	}
	if g.IntN(3) > 0 {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: fmt.Sprintf("fd01::%x", last+2)})
	}
	var ports []corev1.ContainerPort
	for _, name := range []string{"http", "dns", "http"} {
		if g.IntN(2) == 0 {
			ports = append(ports, corev1.ContainerPort{Name: name, ContainerPort: pick[int32](g, 80, 81, 8080, 53), Protocol: pick(g, "", corev1.ProtocolTCP, corev1.ProtocolUDP)})
		}
	}
	if g.IntN(4) == 0 {
		p.Spec.InitContainers = []corev1.Container{{Ports: ports, RestartPolicy: pick(g, nil, new(corev1.ContainerRestartPolicyAlways))}}
	} else {
		p.Spec.Containers = []corev1.Container{{Ports: ports}}
	}
	return p
}

func (g generator) policies() []*networkingv1.NetworkPolicy {
	var out []*networkingv1.NetworkPolicy
	for i := range g.IntN(6) {
		p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: pick(g, genNamespaces...), Name: fmt.Sprintf("n%d", i), Annotations: g.mode()}}
		p.Spec.PodSelector = *g.selector()
		p.Spec.PolicyTypes = pick(g, nil, []networkingv1.PolicyType{"Ingress"}, []networkingv1.PolicyType{"Egress"},
			[]networkingv1.PolicyType{"Ingress", "Egress"}, []networkingv1.PolicyType{"Sideways"})
		for range g.IntN(3) {
			p.Spec.Ingress = append(p.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: g.peers(), Ports: g.ports()})
		}
		for range g.IntN(3) {
			p.Spec.Egress = append(p.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: g.peers(), Ports: g.ports()})
		}
		out = append(out, p)
	}
	return out
}

func (g generator) selector() *metav1.LabelSelector {
	s := &metav1.LabelSelector{}
	if g.IntN(2) == 0 {
		s.MatchLabels = map[string]string{pick(g, "app", "tier"): pick(g, "x", "y", "")}
	}
	if g.IntN(3) == 0 {
		e := metav1.LabelSelectorRequirement{Key: pick(g, "app", "tier"), Operator: pick(g, metav1.LabelSelectorOpIn,
			metav1.LabelSelectorOpNotIn, metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist, "Like")}
		if e.Operator == metav1.LabelSelectorOpIn || e.Operator == metav1.LabelSelectorOpNotIn {
			e.Values = []string{pick(g, "x", "y")}
		}
		s.MatchExpressions = append(s.MatchExpressions, e)
	}
	return s
}

func (g generator) peers() []networkingv1.NetworkPolicyPeer {
	var out []networkingv1.NetworkPolicyPeer
	for range g.IntN(3) {
		var p networkingv1.NetworkPolicyPeer
		switch g.IntN(5) {
		case 0:
			p.PodSelector = g.selector()
		case 1:
			p.NamespaceSelector = g.selector()
		case 2:
			p.PodSelector, p.NamespaceSelector = g.selector(), g.selector()
		default:
			p.IPBlock = pick(g,
				&networkingv1.IPBlock{CIDR: "0.0.0.0/0", Except: []string{"10.1.0.0/24", "198.51.100.0/24"}},
				&networkingv1.IPBlock{CIDR: "198.51.100.7/25"},
				&networkingv1.IPBlock{CIDR: "10.0.0.0/8"},
				&networkingv1.IPBlock{CIDR: "10.0.0.1/32"},
				&networkingv1.IPBlock{CIDR: "10.1.0.2/31"},
				&networkingv1.IPBlock{CIDR: "::/0"},
				&networkingv1.IPBlock{CIDR: "fd00::/16", Except: []string{"fd01::4/126"}},
				&networkingv1.IPBlock{CIDR: "2001:db8::/32"},
				&networkingv1.IPBlock{CIDR: "everywhere"})
		}
		out = append(out, p)
	}
	return out
}

func (g generator) ports() []networkingv1.NetworkPolicyPort {
	var out []networkingv1.NetworkPolicyPort
	for range g.IntN(3) {
		p := networkingv1.NetworkPolicyPort{Protocol: pick(g, nil, new(corev1.ProtocolTCP), new(corev1.ProtocolUDP), new(corev1.ProtocolSCTP), new(corev1.Protocol("tcp")))}
		switch g.IntN(5) {
		case 0:
		case 1:
			p.Port = new(intstr.FromString(pick(g, "http", "dns", "nobody", "HTTP")))
		case 2:
			p.Port, p.EndPort = new(intstr.FromInt32(pick[int32](g, 1, 80, 8080))), new(pick[int32](g, 79, 81, 9000, 65535, 70000))
		default:
			p.Port = new(intstr.FromInt32(pick[int32](g, 0, 1, 53, 80, 81, 8080, 65535)))
		}
		out = append(out, p)
	}
	return out
}
