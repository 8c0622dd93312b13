package testcases

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/portcullis-netpol/portcullis/policy/manifest"
	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

const hostilePods = `
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{apiVersion: v1, kind: Pod, metadata: {name: client, namespace: shop, labels: {app: client}}, spec: {nodeName: node-2, containers: [{name: c}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: victim, namespace: shop, labels: {app: victim}}, spec: {nodeName: node-1, containers: [{name: c}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: bystander, namespace: shop, labels: {app: bystander}}, spec: {nodeName: node-1, containers: [{name: c}]}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: own, namespace: shop}
spec: {podSelector: {matchLabels: {app: bystander}}, ingress: [{ports: [{port: 7001}]}]}
`

// hostile are policies that an API server refuses, or that nobody in their right mind
// writes. Each selects the pod victim, to which it allows the client's way to port
// 7001 if opens is set, and nothing at 7002.
var hostile = map[string]struct {
	opens bool
	spec  func() networkingv1.NetworkPolicySpec
}{
	"10,000 blocks": {true, func() networkingv1.NetworkPolicySpec {
		r := networkingv1.NetworkPolicyIngressRule{Ports: []networkingv1.NetworkPolicyPort{portOf(7001)}}
		for i := range 10_000 {
			r.From = append(r.From, blockOf(fmt.Sprintf("10.%d.%d.%d/31", 128+i>>14, i>>6&0xff, i<<2&0xff)))
		}
		r.From = append(r.From, blockOf("10.244.0.0/16"), blockOf("fd00::/16"))
		return ingressOf(r)
	}},
	"10,000 selectors": {true, func() networkingv1.NetworkPolicySpec {
		r := networkingv1.NetworkPolicyIngressRule{Ports: []networkingv1.NetworkPolicyPort{portOf(7001)}}
		for i := range 10_000 {
			r.From = append(r.From, podsOf("app", fmt.Sprint("nobody-", i)))
		}
		r.From = append(r.From, podsOf("app", "client"))
		return ingressOf(r)
	}},
	"every second port": {true, func() networkingv1.NetworkPolicySpec {
		r := networkingv1.NetworkPolicyIngressRule{}
		for p := int32(1); p < 65536; p += 2 {
			r.Ports = append(r.Ports, portOf(p))
		}
		return ingressOf(r)
	}},
	"65,535 ports but one": {true, func() networkingv1.NetworkPolicySpec {
		r := networkingv1.NetworkPolicyIngressRule{}
		for p := int32(1); p < 65536; p++ {
			if p != 7002 {
				r.Ports = append(r.Ports, portOf(p))
			}
		}
		return ingressOf(r)
	}},
	"contradictory ranges": {false, func() networkingv1.NetworkPolicySpec {
		backward, beyond, named := portOf(7003), portOf(7001), portOf(0)
		backward.EndPort, beyond.EndPort = new(int32(7000)), new(int32(70000))
		named.Port, named.EndPort = new(intstr.FromString("web")), new(int32(7002))
		return ingressOf(networkingv1.NetworkPolicyIngressRule{Ports: []networkingv1.NetworkPolicyPort{backward, beyond, named, portOf(-1), portOf(1 << 30)}})
	}},
	"contradictory blocks": {false, func() networkingv1.NetworkPolicySpec {
		all, reverse, both := blockOf("0.0.0.0/0"), blockOf("10.244.0.0/24"), podsOf("app", "client")
		all.IPBlock.Except = []string{"0.0.0.0/1", "128.0.0.0/1"}
		reverse.IPBlock.Except = []string{"10.0.0.0/8"}
		both.IPBlock = &networkingv1.IPBlock{CIDR: "::/0"}
		return ingressOf(networkingv1.NetworkPolicyIngressRule{From: []networkingv1.NetworkPolicyPeer{all, reverse, both, blockOf("fd00::/129"), blockOf("10.244.0.0/16 } accept")}})
	}},
	"labels that are none": {false, func() networkingv1.NetworkPolicySpec {
		long := podsOf(strings.Repeat("k", 1<<16), strings.Repeat("v", 1<<16))
		return ingressOf(networkingv1.NetworkPolicyIngressRule{From: []networkingv1.NetworkPolicyPeer{
			long, podsOf("", ""), podsOf("ключ/имя", "值\x00\n\"; flush ruleset"),
			{PodSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: "Like", Values: []string{"client"}}}}},
		}})
	}},
}

func ingressOf(rules ...networkingv1.NetworkPolicyIngressRule) networkingv1.NetworkPolicySpec {
	return networkingv1.NetworkPolicySpec{
		PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "victim"}}, Ingress: rules,
	}
}

func portOf(n int32) networkingv1.NetworkPolicyPort {
	return networkingv1.NetworkPolicyPort{Protocol: new(corev1.ProtocolTCP), Port: new(intstr.FromInt32(n))}
}

func blockOf(cidr string) networkingv1.NetworkPolicyPeer {
	return networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: cidr}}
}

func podsOf(key, value string) networkingv1.NetworkPolicyPeer {
	return networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{key: value}}}
}

// TestHostilePolicies has the kernel take policies that are too large or make no sense:
// no one opens more than it says or concerns pods that it does not select.
func TestHostilePolicies(t *testing.T) {
	lab.Require(t, needs...)
	s := newSite(t, lab.Routed, tableConfig)
	c := &cluster{}
	s.become(c, hostilePods)
	for _, pod := range []string{"shop/victim", "shop/bystander"} {
		for _, port := range []uint16{7001, 7002} {
			require.NoError(t, s.serve(pod, protoPort{"tcp", port}))
		}
	}
	for name, h := range hostile {
		t.Run(name, func(t *testing.T) {
			bad := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{
				Namespace: "shop", Name: "bad", Labels: map[string]string{"имя": "\" } table x {"},
			}, Spec: h.spec()}
			events, err := c.apply(step{Applies: &manifest.Objects{Policies: []*networkingv1.NetworkPolicy{bad}}})
			require.NoError(t, err)
			s.enforce(events)
			for i, client := range s.pods["shop/victim"].addrs() {
				s.reaches(t, client, map[uint16]bool{7001: h.opens, 7002: false})
				s.reaches(t, s.pods["shop/bystander"].addrs()[i], map[uint16]bool{7001: true, 7002: false})
			}
		})
	}
	ref := objectRef{"NetworkPolicy", "shop", "bad"}
	events, err := c.apply(step{Deletes: []objectRef{ref}, Applies: &manifest.Objects{}})
	require.NoError(t, err)
	s.enforce(events)
	for _, a := range s.pods["shop/victim"].addrs() {
		s.reaches(t, a, map[uint16]bool{7001: true, 7002: true})
	}
}

// reaches connects the client to ports of an address.
func (s *site) reaches(t *testing.T, to netip.Addr, want map[uint16]bool) {
	t.Helper()
	var probes []lab.Probe
	for port, passes := range want {
		probes = append(probes, lab.Probe{From: "shop/client", To: to, Protocol: "tcp", Port: port, Deny: !passes})
	}
	for i, r := range s.Probe(t.Context(), probes, timing) {
		assert.Equal(t, !probes[i].Deny, r.OK, "%v: %v", probes[i], r.Err)
	}
}
