package evaluate

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
)

// direction is seen from the pod that a policy selects. Its text is the name of the field that holds the rules.
type direction string

const (
	ingress direction = "ingress"
	egress  direction = "egress"
)

// policyType is the direction as policyTypes spells it.
func (d direction) policyType() networkingv1.PolicyType {
	if d == egress {
		return networkingv1.PolicyTypeEgress
	}
	return networkingv1.PolicyTypeIngress
}

// isolates tells whether a policy isolates the pods it selects in a direction. Without policyTypes it is an ingress
// policy, and also an egress policy if it has an egress rule. Unknown types are passed over; if there is nothing else,
// the author wanted some isolation that we do not know, and gets both.
func isolates(policy *networkingv1.NetworkPolicy, d direction) bool {
	types := policy.Spec.PolicyTypes
	if len(types) == 0 {
		return d == ingress || len(policy.Spec.Egress) > 0
	}
	known := func(t networkingv1.PolicyType) bool {
		return t == networkingv1.PolicyTypeIngress || t == networkingv1.PolicyTypeEgress
	}
	return slices.Contains(types, d.policyType()) || !slices.ContainsFunc(types, known)
}

// selectsSubject tells whether a policy applies to a pod of its own namespace.
func selectsSubject(policy *networkingv1.NetworkPolicy, pod *corev1.Pod) bool {
	return !valid(&policy.Spec.PodSelector) || matches(&policy.Spec.PodSelector, pod.Labels)
}

// rule is an ingress or an egress rule; they differ only in the name of the list of peers.
type rule struct {
	peers []networkingv1.NetworkPolicyPeer
	ports []networkingv1.NetworkPolicyPort
}

func rules(policy *networkingv1.NetworkPolicy, d direction) []rule {
	var out []rule
	if d == egress {
		for _, r := range policy.Spec.Egress {
			out = append(out, rule{r.To, r.Ports})
		}
		return out
	}
	for _, r := range policy.Spec.Ingress {
		out = append(out, rule{r.From, r.Ports})
	}
	return out
}

// reading is one rule, held against the flow. The rule allows the flow if both its peers and its ports match; Match says
// which of them.
type reading struct {
	Match
	policy         *networkingv1.NetworkPolicy
	rule           rule
	peerOK, portOK bool
}

// read holds the rules of one policy for a direction against the flow, and adds them to a list. The rules of a policy
// that cannot say for whom they are count for nobody.
func (x conn) read(to []reading, policy *networkingv1.NetworkPolicy, d direction) []reading {
	if !valid(&policy.Spec.PodSelector) {
		return to
	}
	name := fullName(policy)
	for i, r := range rules(policy, d) {
		peer, peerOK := firstOf(r.peers, func(p networkingv1.NetworkPolicyPeer) bool { return x.matchesPeer(policy, p, d) })
		port, portOK := firstOf(r.ports, x.matchesPort)
		to = append(to, reading{Match{Policy: name, Rule: i, Peer: peer, Port: port}, policy, r, peerOK, portOK})
	}
	return to
}

// firstOf finds the first entry of a list that matches. An empty or missing list matches everything and answers -1.
func firstOf[T any](list []T, match func(T) bool) (int, bool) {
	if len(list) == 0 {
		return -1, true
	}
	i := slices.IndexFunc(list, match)
	return i, i >= 0
}

// matchesPeer tells whether the other end of the flow is among the peers that one entry of from or to describes: a block of
// addresses, or pods by their labels, their namespace's labels, or both.
func (x conn) matchesPeer(policy *networkingv1.NetworkPolicy, p networkingv1.NetworkPolicyPeer, d direction) bool {
	addr, pod := x.peer(d)
	bySelector := p.PodSelector != nil || p.NamespaceSelector != nil
	switch {
	case p.IPBlock != nil && bySelector:
		return false // The API allows one or the other.
	case p.IPBlock != nil:
		return inBlock(*p.IPBlock, addr)
	case !bySelector:
		return false // An entry that says nothing, or something that is newer than we are.
	case pod == nil:
		return false
	}
	if p.PodSelector != nil && !(valid(p.PodSelector) && matches(p.PodSelector, pod.Labels)) {
		return false
	}
	if p.NamespaceSelector == nil {
		return pod.Namespace == policy.Namespace
	}
	nsLabels, known := x.cluster.namespaceLabels(pod.Namespace)
	return known && valid(p.NamespaceSelector) && matches(p.NamespaceSelector, nsLabels)
}

// inBlock tells whether an address is in a block and in none of its exceptions. A block that is not well formed, or that
// has an exception which is not, or which lies outside of it, contains nothing; nor does one with an exception as wide as itself.
func inBlock(b networkingv1.IPBlock, addr netip.Addr) bool {
	block, ok := parseBlock(b.CIDR)
	if !ok {
		return false
	}
	in := block.Contains(addr)
	for _, text := range b.Except {
		except, ok := parseBlock(text)
		if !ok || !block.Contains(except.Addr()) {
			return false
		}
		if except.Contains(addr) {
			in = false
		}
	}
	return in
}

// parseBlock reads a CIDR, of which only the network counts. IPv4-mapped IPv6 blocks are refused, as the API does: they
// mean different things to different programs.
func parseBlock(text string) (netip.Prefix, bool) {
	block, err := netip.ParsePrefix(text)
	if err != nil || block.Addr().Is4In6() {
		return netip.Prefix{}, false
	}
	return block.Masked(), true
}

// matchesPort tells whether one entry of ports describes the flow.
func (x conn) matchesPort(p networkingv1.NetworkPolicyPort) bool {
	protocol := portProtocol(p)
	if !hasPorts(protocol) || protocol != x.Protocol {
		return false
	}
	switch {
	case p.Port == nil:
		return p.EndPort == nil // An end without a start is not well formed; otherwise all ports of the protocol.
	case p.Port.Type == intstr.Int && p.EndPort == nil:
		return isPort(p.Port.IntVal) && x.Port == p.Port.IntVal
	case p.Port.Type == intstr.Int:
		first, last := p.Port.IntVal, *p.EndPort
		return isPort(first) && isPort(last) && first <= x.Port && x.Port <= last
	case p.Port.Type == intstr.String:
		if p.EndPort != nil || len(validation.IsValidPortName(p.Port.StrVal)) != 0 || x.dstPod == nil {
			return false
		}
		number := namedPort(x.dstPod, p.Port.StrVal, protocol)
		return isPort(number) && x.Port == number
	}
	return false
}

// portProtocol is the protocol of an entry of ports, TCP where it says none.
func portProtocol(p networkingv1.NetworkPolicyPort) corev1.Protocol {
	if p.Protocol != nil {
		return *p.Protocol
	}
	return corev1.ProtocolTCP
}

func hasPorts(p corev1.Protocol) bool {
	return p == corev1.ProtocolTCP || p == corev1.ProtocolUDP || p == corev1.ProtocolSCTP
}

func isPort(n int32) bool { return 1 <= n && n <= 65535 }

// namedPort is the number that a pod gives to a name, or 0. A name belongs to the pod at the destination, whichever end
// the policy is about. If a pod has it twice for one protocol, the first one counts. An init container counts if it
// keeps running next to the regular ones.
func namedPort(pod *corev1.Pod, name string, protocol corev1.Protocol) int32 {
	containers := slices.Clone(pod.Spec.Containers)
	for _, c := range pod.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			containers = append(containers, c)
		}
	}
	for _, c := range containers {
		for _, p := range c.Ports {
			is := p.Protocol
			if is == "" {
				is = corev1.ProtocolTCP
			}
			if p.Name == name && is == protocol {
				return p.ContainerPort
			}
		}
	}
	return 0
}
