package main

import (
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// print writes the answer for people: once where the families agree.
func (a answer) print(w io.Writer) error {
	var b strings.Builder
	title := printable(a.Source) + " -> " + printable(a.Destination)
	audited := ""
	if a.WouldDeny {
		audited = "; audit mode would deny it"
	}
	if len(a.Backends) == 0 {
		fmt.Fprintf(&b, "%s %s: %s%s\n", title, serviceName(a.Protocol, a.Port), word(a.Flows), audited)
		printFlows(&b, a.Flows, a.Source, a.Destination)
	} else {
		fmt.Fprintf(&b, "%s: %s%s\n", title, a.tally(), audited)
	}
	for _, is := range a.Backends {
		fmt.Fprintf(&b, "-> %s %s: %s\n", printable(few(is.Pods)), serviceName(a.Protocol, is.Port), word(is.Flows))
		printFlows(&b, is.Flows, a.Source, is.Pods[0])
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func serviceName(protocol string, port int32) string {
	return portName(strings.ToLower(protocol), uint16(port)) // no port is larger
}

// tally sums up the pods behind a Service.
func (a answer) tally() string {
	denied := 0
	for _, is := range a.Backends {
		if !is.Allowed {
			denied += len(is.Pods)
		}
	}
	switch {
	case a.Pods == 1:
		return verdict(a.Allowed) + ", by the 1 pod behind it"
	case denied == 0 || denied == a.Pods:
		return fmt.Sprintf("%s, by all %d pods behind it", verdict(a.Allowed), a.Pods)
	}
	return fmt.Sprintf("denied by %d of the %d pods behind it", denied, a.Pods)
}

// word sums up the families.
func word(flows []flowAnswer) string {
	if len(flows) == 1 || flows[0].Allowed == flows[1].Allowed {
		return verdict(flows[0].Allowed)
	}
	for _, f := range flows {
		if !f.Allowed {
			return "denied in " + f.Family + " only"
		}
	}
	return ""
}

func verdict(allowed bool) string {
	if allowed {
		return "allowed"
	}
	return "denied"
}

func printFlows(b *strings.Builder, flows []flowAnswer, source, destination string) {
	each := len(flows) > 1
	if each && reflect.DeepEqual(flows[0].Egress, flows[1].Egress) && reflect.DeepEqual(flows[0].Ingress, flows[1].Ingress) {
		flows, each = flows[:1], false
	}
	for _, f := range flows {
		if each {
			fmt.Fprintf(b, "%s %s -> %s: %s\n", f.Family, f.Source, f.Destination, verdict(f.Allowed))
		}
		f.Egress.print(b, "egress", source)
		f.Ingress.print(b, "ingress", destination)
	}
}

// print writes the verdict and what decided it: rules, or a reason where no rule did.
func (d directionAnswer) print(b *strings.Builder, direction, end string) {
	lines := d.why(end)
	fmt.Fprintf(b, "  %-8s %-8s %s\n", direction, verdict(d.Allowed), printable(lines[0]))
	for _, more := range lines[1:] {
		fmt.Fprintf(b, "  %17s %s\n", "", printable(more))
	}
}

// why says what decided, in lines of bounded number.
func (d directionAnswer) why(end string) []string {
	const most = 5
	var lines []string
	for i, r := range d.AllowedBy {
		if i == most && len(d.AllowedBy) > most+1 {
			lines = append(lines, fmt.Sprintf("and %d further rules", len(d.AllowedBy)-most))
			break
		}
		lines = append(lines, map[bool]string{true: "and "}[i > 0]+r.String())
	}
	if len(lines) == 0 {
		lines = []string{strings.Replace(d.Reason, strings.Join(d.IsolatedBy, ", "), few(d.IsolatedBy), 1)}
	}
	switch {
	case d.WouldDeny:
		lines[0] = "would be denied by " + few(d.Audit) + " (audit mode)"
	case d.Pod == "":
		lines[0] += " (" + end + ")"
	case d.Allowed && len(d.IsolatedBy) > 0:
		lines = append(lines, "isolated by "+few(d.IsolatedBy))
	}
	if d.Closest != nil {
		lines = append(lines, closestText(d.Closest))
	}
	return lines
}

// String names the rule, and what of it matched.
func (r ruleAnswer) String() string {
	peer, port := "everyone", "all traffic"
	if r.Peer != "" {
		peer = r.Peer + " " + r.Whom
	}
	if r.Port != "" {
		port = r.Port + " " + r.What
	}
	return r.Rule + " of " + r.Policy + ": " + peer + ", " + port
}

// peerWords says an entry of from or to in the words of the API.
func peerWords(p networkingv1.NetworkPolicyPeer) string {
	var words []string
	if p.IPBlock != nil {
		words = append(words, "ipBlock "+p.IPBlock.CIDR)
		if len(p.IPBlock.Except) > 0 {
			words = append(words, "except "+few(p.IPBlock.Except))
		}
	}
	if p.PodSelector != nil {
		words = append(words, "podSelector "+selectorWords(p.PodSelector))
	}
	if p.NamespaceSelector != nil {
		words = append(words, "namespaceSelector "+selectorWords(p.NamespaceSelector))
	}
	return strings.Join(words, " ")
}

// selectorWords says a selector as kubectl takes it.
func selectorWords(s *metav1.LabelSelector) string {
	const most = 200
	if len(s.MatchLabels)+len(s.MatchExpressions) == 0 {
		return "{}"
	}
	return shorten(metav1.FormatLabelSelector(s), most)
}

// portWords says an entry of ports.
func portWords(p networkingv1.NetworkPolicyPort) string {
	text := "tcp"
	if p.Protocol != nil {
		text = strings.ToLower(string(*p.Protocol))
	}
	switch {
	case p.Port == nil:
		return text + "/*"
	case p.EndPort != nil:
		return text + "/" + p.Port.String() + "-" + strconv.Itoa(int(*p.EndPort))
	}
	return text + "/" + p.Port.String()
}
