package evaluate

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Bounds of Near.Missing: names and labels are strangers' text, and a rule can have thousands of entries.
const (
	mostEntries = 4   // of a list that are written out
	longestWord = 120 // bytes of one entry
	longestList = 240 // bytes of what is said of the peers, and of the ports
)

// missing words what of a rule does not match the flow.
func (x conn) missing(r reading, d direction) string {
	var parts []string
	if !r.peerOK {
		parts = append(parts, x.peerEnd(r.rule, d)+": it allows "+list(r.rule.peers, ", ", func(p networkingv1.NetworkPolicyPeer) string {
			addr, _ := x.peer(d)
			return peerWords(p, r.policy.Namespace, addr)
		}))
	}
	if !r.portOK {
		parts = append(parts, x.portEnd()+": it allows "+list(r.rule.ports, ", ", x.portWords))
	}
	for i := range parts {
		parts[i] = bounded(parts[i], longestList)
	}
	return strings.Join(parts, "; ")
}

// peerEnd words the other end of the flow. The address of a pod is of interest only to a rule that has blocks.
func (x conn) peerEnd(r rule, d direction) string {
	to := map[direction]string{ingress: "from ", egress: "to "}[d]
	addr, pod := x.peer(d)
	if pod == nil {
		return to + addr.String()
	}
	end := to + "pod " + bounded(fullName(pod), longestWord)
	if slices.ContainsFunc(r.peers, func(p networkingv1.NetworkPolicyPeer) bool { return p.IPBlock != nil }) {
		end += " (" + addr.String() + ")"
	}
	return end
}

// peerWords words one entry of from or to.
func peerWords(p networkingv1.NetworkPolicyPeer, namespace string, addr netip.Addr) string {
	bySelector := p.PodSelector != nil || p.NamespaceSelector != nil
	switch {
	case p.IPBlock != nil && bySelector:
		return "nothing (an ipBlock beside a selector)"
	case p.IPBlock != nil:
		return blockWords(*p.IPBlock, addr)
	case !bySelector:
		return "nothing (an empty peer)"
	case p.PodSelector != nil && !valid(p.PodSelector), p.NamespaceSelector != nil && !valid(p.NamespaceSelector):
		return "nothing (a malformed selector)"
	}
	pods := "all pods"
	if p.PodSelector != nil {
		pods = selectorWords(p.PodSelector, "pods ", pods)
	}
	if p.NamespaceSelector == nil {
		return pods + " in namespace " + namespace
	}
	return pods + " in " + selectorWords(p.NamespaceSelector, "namespaces ", "all namespaces")
}

// blockWords words a block; that it is of the other family than the address is easily overlooked.
func blockWords(b networkingv1.IPBlock, addr netip.Addr) string {
	block, ok := parseBlock(b.CIDR)
	var holes []netip.Prefix
	for _, text := range b.Except {
		except, is := parseBlock(text)
		ok = ok && is && block.Contains(except.Addr())
		holes = append(holes, except)
	}
	if !ok {
		return "nothing (a malformed ipBlock)"
	}
	words := block.String()
	if len(holes) > 0 {
		words += " but not " + list(holes, " and ", netip.Prefix.String)
	}
	if block.Addr().Is4() != addr.Is4() {
		words += map[bool]string{true: " (IPv4 only)", false: " (IPv6 only)"}[block.Addr().Is4()]
	}
	return words
}

// selectorWords words a valid selector the way kubectl takes it; all stands for one without requirements.
func selectorWords(s *metav1.LabelSelector, some, all string) string {
	var requirements []string
	for _, key := range slices.Sorted(maps.Keys(s.MatchLabels)) {
		requirements = append(requirements, key+"="+s.MatchLabels[key])
	}
	for _, e := range s.MatchExpressions {
		values := " (" + list(e.Values, ",", func(v string) string { return v }) + ")"
		requirements = append(requirements, map[metav1.LabelSelectorOperator]string{
			metav1.LabelSelectorOpIn:           e.Key + " in" + values,
			metav1.LabelSelectorOpNotIn:        e.Key + " notin" + values,
			metav1.LabelSelectorOpExists:       e.Key,
			metav1.LabelSelectorOpDoesNotExist: "!" + e.Key,
		}[e.Operator])
	}
	if len(requirements) == 0 {
		return all
	}
	return some + list(requirements, ",", func(r string) string { return r })
}

// portEnd words the port of the flow.
func (x conn) portEnd() string {
	protocol := strings.ToLower(bounded(string(x.Protocol), longestWord))
	if !hasPorts(x.Protocol) {
		return "protocol " + protocol
	}
	return fmt.Sprintf("port %s/%d", protocol, x.Port)
}

// portWords words one entry of ports.
func (x conn) portWords(p networkingv1.NetworkPolicyPort) string {
	const malformed = "nothing (a malformed port)"
	protocol := portProtocol(p)
	name := strings.ToLower(string(protocol))
	switch {
	case !hasPorts(protocol):
		return malformed
	case p.Port == nil && p.EndPort == nil:
		return "every " + name + " port"
	case p.Port == nil:
		return malformed
	case p.Port.Type == intstr.Int && isPort(p.Port.IntVal) && p.EndPort == nil:
		return fmt.Sprintf("%s/%d", name, p.Port.IntVal)
	case p.Port.Type == intstr.Int && isPort(p.Port.IntVal) && isPort(*p.EndPort) && p.Port.IntVal <= *p.EndPort:
		return fmt.Sprintf("%s/%d-%d", name, p.Port.IntVal, *p.EndPort)
	case p.Port.Type != intstr.String || p.EndPort != nil || len(validation.IsValidPortName(p.Port.StrVal)) != 0:
		return malformed
	case x.dstPod == nil:
		return name + "/" + p.Port.StrVal + " (a name, of pods only)"
	}
	if number := namedPort(x.dstPod, p.Port.StrVal, protocol); isPort(number) {
		return fmt.Sprintf("%s/%s (which is %d there)", name, p.Port.StrVal, number)
	}
	return name + "/" + p.Port.StrVal + " (which is no port there)"
}

// list words the first entries of a list, and counts the others.
func list[T any](entries []T, separator string, word func(T) string) string {
	var words []string
	for i, e := range entries {
		if i == mostEntries {
			words = append(words, fmt.Sprintf("%d more", len(entries)-i))
			break
		}
		words = append(words, bounded(word(e), longestWord))
	}
	return strings.Join(words, separator)
}

// bounded is the text in printable ASCII, and cut if it is longer than most bytes.
func bounded(text string, most int) string {
	cut := len(text) > most
	if cut {
		text = text[:most-len("...")]
	}
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, text)
	if cut {
		text += "..."
	}
	return text
}
