package control

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// policySpec returns a policy of one of the kinds for namespace n:
//
//	0  nothing comes in
//	1  only DNS goes out, for all pods
//	2  from an app of the same namespace to a named port
//	3  from all pods of the team's namespaces
//	4  to the world without the private blocks
//	5  from the frontends of all namespaces with the same env, to a named port
//	6  to the database of the same namespace
//	7  from two tiers of the same namespace, to a range of ports
//	8  from Prometheus
//	9  from a block without a part of it
//
// All but 0 and 1 are for one app of the namespace.
func policySpec(n, kind int) networkingv1.NetworkPolicySpec {
	app := selector("app", fmt.Sprintf("app-%d", kind%apps))
	other := &networkingv1.NetworkPolicyPeer{PodSelector: selector("app", fmt.Sprintf("app-%d", (kind+1)%apps))}
	switch kind {
	case 0:
		return networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}}
	case 1:
		dns := networkingv1.NetworkPolicyPeer{NamespaceSelector: selector(corev1.LabelMetadataName, "kube-system"), PodSelector: selector("k8s-app", "kube-dns")}
		return egress(metav1.LabelSelector{}, []networkingv1.NetworkPolicyPort{port(corev1.ProtocolUDP, 53), port(corev1.ProtocolTCP, 53)}, dns)
	case 2:
		return ingress(*app, named("http"), *other)
	case 3:
		return ingress(*app, numbered(9443), networkingv1.NetworkPolicyPeer{NamespaceSelector: selector("team", teamOf(n))})
	case 4:
		return egress(*app, numbered(443), block("0.0.0.0/0", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"), block("2000::/3"))
	case 5:
		return ingress(*app, named("http"), networkingv1.NetworkPolicyPeer{NamespaceSelector: selector("env", envOf(n)), PodSelector: selector("tier", "frontend")})
	case 6:
		return egress(*app, numbered(5432), networkingv1.NetworkPolicyPeer{PodSelector: selector("tier", "db")})
	case 7:
		two := &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "tier", Operator: metav1.LabelSelectorOpIn, Values: []string{"frontend", "api"}}}}
		ports := numbered(8000)
		ports[0].EndPort = new(int32)
		*ports[0].EndPort = 8100
		return ingress(*app, ports, networkingv1.NetworkPolicyPeer{PodSelector: two})
	case 8:
		return ingress(*app, named("metrics"), networkingv1.NetworkPolicyPeer{NamespaceSelector: selector(corev1.LabelMetadataName, "monitoring"), PodSelector: selector("app", "prometheus")})
	}
	return ingress(*app, numbered(8443), block(fmt.Sprintf("192.168.%d.0/24", n%256), fmt.Sprintf("192.168.%d.64/28", n%256)))
}

func selector(key, value string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{key: value}}
}

func block(cidr string, except ...string) networkingv1.NetworkPolicyPeer {
	return networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: cidr, Except: except}}
}

func port(protocol corev1.Protocol, number int32) networkingv1.NetworkPolicyPort {
	p := intstr.FromInt32(number)
	return networkingv1.NetworkPolicyPort{Protocol: &protocol, Port: &p}
}

func numbered(n int32) []networkingv1.NetworkPolicyPort {
	return []networkingv1.NetworkPolicyPort{port(corev1.ProtocolTCP, n)}
}

func named(name string) []networkingv1.NetworkPolicyPort {
	p := intstr.FromString(name)
	return []networkingv1.NetworkPolicyPort{{Port: &p}}
}

func ingress(subject metav1.LabelSelector, ports []networkingv1.NetworkPolicyPort, from ...networkingv1.NetworkPolicyPeer) networkingv1.NetworkPolicySpec {
	return networkingv1.NetworkPolicySpec{
		PodSelector: subject, PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
		Ingress: []networkingv1.NetworkPolicyIngressRule{{Ports: ports, From: from}},
	}
}

func egress(subject metav1.LabelSelector, ports []networkingv1.NetworkPolicyPort, to ...networkingv1.NetworkPolicyPeer) networkingv1.NetworkPolicySpec {
	return networkingv1.NetworkPolicySpec{
		PodSelector: subject, PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress},
		Egress: []networkingv1.NetworkPolicyEgressRule{{Ports: ports, To: to}},
	}
}
