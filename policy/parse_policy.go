package policy

import (
	"fmt"
	"net/netip"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// reporter takes one problem: the field and the reason as for fmt.Sprintf.
type reporter func(field, format string, args ...any)

// parsePolicy reads a policy. What is invalid is reported and matches nothing,
// so that it can only close.
func parsePolicy(np *networkingv1.NetworkPolicy) (policySpec, []Problem) {
	spec := policySpec{name: np.Namespace + "/" + np.Name, subject: selectAll}
	var problems []Problem
	report := func(field, format string, args ...any) {
		problems = append(problems, Problem{"NetworkPolicy " + spec.name, field, fmt.Sprintf(format, args...)})
	}
	subject, known := parseSelector(&np.Spec.PodSelector, "spec.podSelector", report)
	if known {
		spec.subject = subject
	}
	spec.existing = parseExisting(np, report)
	spec.mode, spec.saysMode = parseMode(np.Annotations, report)
	in, eg := parseTypes(np, report)
	spec.sides[ir.Ingress].isolates, spec.sides[ir.Egress].isolates = in, eg

	var ingress, egress []rule
	for i, r := range np.Spec.Ingress {
		field := fmt.Sprintf("spec.ingress[%d]", i)
		ingress = append(ingress, parseRule(np.Namespace, r.From, r.Ports, field, ".from", report))
	}
	for i, r := range np.Spec.Egress {
		field := fmt.Sprintf("spec.egress[%d]", i)
		egress = append(egress, parseRule(np.Namespace, r.To, r.Ports, field, ".to", report))
	}
	// A policy that cannot say whom it selects may mean any pod of its
	// namespace: all of them are isolated, and none gets what was for some.
	if known && in {
		spec.sides[ir.Ingress].rules = ingress
	}
	if known && eg {
		spec.sides[ir.Egress].rules = egress
	}
	for d := range spec.sides {
		digestSide(&spec.sides[d])
	}
	return spec, problems
}

// parseTypes returns the directions in which the policy isolates. The API
// server fills in policyTypes; objects from files come without.
func parseTypes(np *networkingv1.NetworkPolicy, report reporter) (ingress, egress bool) {
	if len(np.Spec.PolicyTypes) == 0 {
		return true, len(np.Spec.Egress) > 0
	}
	for i, t := range np.Spec.PolicyTypes {
		switch t {
		case networkingv1.PolicyTypeIngress:
			ingress = true
		case networkingv1.PolicyTypeEgress:
			egress = true
		default:
			report(fmt.Sprintf("spec.policyTypes[%d]", i), "%q is neither Ingress nor Egress", t)
		}
	}
	if !ingress && !egress {
		return true, true
	}
	return ingress, egress
}

func parseRule(namespace string, peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort,
	field, peerField string, report reporter) rule {
	r := rule{anyPeer: len(peers) == 0, anyPort: len(ports) == 0}
	for i, p := range peers {
		if q, ok := parsePeer(namespace, p, fmt.Sprintf("%s%s[%d]", field, peerField, i), report); ok {
			r.peers = append(r.peers, q)
		}
	}
	for i, p := range ports {
		parsePort(&r, p, fmt.Sprintf("%s.ports[%d]", field, i), report)
	}
	return r
}

func parsePeer(namespace string, p networkingv1.NetworkPolicyPeer, field string, report reporter) (peer, bool) {
	if p.IPBlock != nil {
		block, ok := parseBlock(p.IPBlock, field+".ipBlock", report)
		if p.PodSelector != nil || p.NamespaceSelector != nil {
			report(field, "an ipBlock and a selector exclude each other")
			ok = false
		}
		return peer{block: block}, ok
	}
	if p.PodSelector == nil && p.NamespaceSelector == nil {
		report(field, "none of podSelector, namespaceSelector and ipBlock is set")
		return peer{}, false
	}
	s, pods, ok := scope{kind: scopeNamespace, namespace: namespace}, selectAll, true
	parse := func(ls *metav1.LabelSelector, field string) selector {
		sel, valid := parseSelector(ls, field, report)
		ok = ok && valid
		return sel
	}
	if p.NamespaceSelector != nil {
		s = scope{kind: scopeSelector, namespaces: parse(p.NamespaceSelector, field+".namespaceSelector")}
	}
	if p.PodSelector != nil {
		pods = parse(p.PodSelector, field+".podSelector")
	}
	return peer{pods: newPodSelector(s, pods)}, ok
}

// parseBlock returns cidr without its excepts. An except that cannot be read
// would open what it was to close: then the whole block is invalid.
func parseBlock(b *networkingv1.IPBlock, field string, report reporter) ([]netip.Prefix, bool) {
	cidr, ok := parseCIDR(b.CIDR, field+".cidr", report)
	var excepts []netip.Prefix
	for i, s := range b.Except {
		f := fmt.Sprintf("%s.except[%d]", field, i)
		e, valid := parseCIDR(s, f, report)
		if valid && ok && (e.Bits() <= cidr.Bits() || !cidr.Contains(e.Addr())) {
			report(f, "%s is not a part of %s", s, b.CIDR)
			valid = false
		}
		if !valid {
			ok = false
			continue
		}
		excepts = append(excepts, e)
	}
	if !ok {
		return nil, false
	}
	return cidrMinus(cidr, excepts), true
}

// parseCIDR reads a CIDR, which means its network whatever its host bits. Two
// readings that differ between programs are refused: leading zeros (octal or
// not) and IPv4-mapped IPv6 (which family).
func parseCIDR(s, field string, report reporter) (netip.Prefix, bool) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		report(field, "%q is no CIDR", s)
		return netip.Prefix{}, false
	}
	if p.Addr().Is4In6() {
		report(field, "%q is an IPv4 address in IPv6 form", s)
		return netip.Prefix{}, false
	}
	return p.Masked(), true
}

// parsePort adds one entry of a rule's ports to r.
func parsePort(r *rule, p networkingv1.NetworkPolicyPort, field string, report reporter) {
	protocol := ir.TCP
	if p.Protocol != nil {
		var ok bool
		if protocol, ok = parseProtocol(*p.Protocol); !ok || *p.Protocol == corev1.Protocol("") {
			report(field+".protocol", "%q is not one of TCP, UDP, SCTP", *p.Protocol)
			return
		}
	}
	if p.Port == nil {
		if p.EndPort != nil {
			report(field+".endPort", "endPort without port")
			return
		}
		r.ranges = append(r.ranges, portRange{protocol, 0, 65535})
		return
	}
	switch p.Port.Type {
	case intstr.Int:
		first, last := p.Port.IntVal, p.Port.IntVal
		if p.EndPort != nil {
			last = *p.EndPort
		}
		if first < 1 || first > 65535 {
			report(field+".port", "%d is not between 1 and 65535", first)
			return
		}
		if last < first || last > 65535 {
			report(field+".endPort", "%d is not between %d and 65535", last, first)
			return
		}
		r.ranges = append(r.ranges, portRange{protocol, uint16(first), uint16(last)})
	case intstr.String:
		if p.EndPort != nil {
			report(field+".endPort", "endPort with the named port %q", p.Port.StrVal)
			return
		}
		if errs := validation.IsValidPortName(p.Port.StrVal); len(errs) > 0 {
			report(field+".port", "%q is no port name: %s", p.Port.StrVal, errs[0])
			return
		}
		r.names = append(r.names, portName{p.Port.StrVal, protocol})
	default:
		report(field+".port", "neither a number nor a name")
	}
}
