package matrix

import (
	"fmt"
	"strconv"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portcullis-netpol/portcullis/policy/evaluate"
)

// Decision is what one direction says, and why. It holds for every pod that it is used for.
type Decision struct {
	Allowed bool `json:"allowed"`
	// Reason is a short sentence, as explain prints it.
	Reason string `json:"reason"`
	// IsolatedBy lists the policies that isolate the pod in this direction.
	IsolatedBy []Policy `json:"isolatedBy,omitempty"`
	// AllowedBy lists the rules that allow the traffic; empty where no rule was needed.
	AllowedBy []Rule `json:"allowedBy,omitempty"`
	// AuditedBy lists the policies in audit mode that would isolate the pod in this direction; empty if IsolatedBy is not.
	AuditedBy []Policy `json:"auditedBy,omitempty"`
	// WouldDeny is set if AuditedBy would deny the traffic. It is allowed then.
	WouldDeny bool `json:"wouldDeny,omitempty"`
}

// Policy names a policy and whom it selects.
type Policy struct {
	Name    string `json:"policy"`  // "namespace/name"
	Selects string `json:"selects"` // its podSelector in words
}

// Rule names the rule that allows traffic, as fields of the policy, and what they say.
type Rule struct {
	Policy string `json:"policy"`         // "namespace/name"
	Rule   string `json:"rule"`           // "spec.ingress[0]"
	Peer   string `json:"peer,omitempty"` // "from[1]"; empty if the rule is for everyone
	Whom   string `json:"whom"`           // the peer in words
	Port   string `json:"port,omitempty"` // "ports[0]"; empty if the rule is for all ports
	What   string `json:"what"`           // the port in words
}

// newDecision words a decision of evaluate.
func (s *side) newDecision(d evaluate.Decision, egress bool) Decision {
	out := Decision{
		Allowed: d.Allowed, Reason: d.Reason, WouldDeny: d.WouldDeny,
		IsolatedBy: s.newPolicies(d.Isolated), AuditedBy: s.newPolicies(d.Audit),
	}
	for _, m := range d.By {
		out.AllowedBy = append(out.AllowedBy, s.newRule(m, egress))
	}
	return out
}

func (s *side) newPolicies(names []string) []Policy {
	var out []Policy
	for _, name := range names {
		p := Policy{Name: name}
		if policy := s.policy(name); policy != nil {
			p.Selects = selectorText(&policy.Spec.PodSelector, "all pods", "pods ")
		}
		out = append(out, p)
	}
	return out
}

func (s *side) policy(fullName string) *networkingv1.NetworkPolicy {
	namespace, name, _ := strings.Cut(fullName, "/")
	for _, p := range s.policies[namespace] {
		if p.Name == name {
			return p
		}
	}
	return nil
}

func (s *side) newRule(m evaluate.Match, egress bool) Rule {
	list, field := "ingress", "from"
	if egress {
		list, field = "egress", "to"
	}
	r := Rule{Policy: m.Policy, Rule: fmt.Sprintf("spec.%s[%d]", list, m.Rule), Whom: "everyone", What: "all traffic"}
	var peers []networkingv1.NetworkPolicyPeer
	var ports []networkingv1.NetworkPolicyPort
	switch policy := s.policy(m.Policy); {
	case policy == nil:
	case egress && m.Rule < len(policy.Spec.Egress):
		peers, ports = policy.Spec.Egress[m.Rule].To, policy.Spec.Egress[m.Rule].Ports
	case !egress && m.Rule < len(policy.Spec.Ingress):
		peers, ports = policy.Spec.Ingress[m.Rule].From, policy.Spec.Ingress[m.Rule].Ports
	}
	if m.Peer >= 0 && m.Peer < len(peers) {
		r.Peer, r.Whom = fmt.Sprintf("%s[%d]", field, m.Peer), peerText(peers[m.Peer])
	}
	if m.Port >= 0 && m.Port < len(ports) {
		r.Port, r.What = fmt.Sprintf("ports[%d]", m.Port), portText(ports[m.Port])
	}
	return r
}

// peerText words one entry of from or to.
func peerText(p networkingv1.NetworkPolicyPeer) string {
	if p.IPBlock != nil {
		text := "addresses of " + p.IPBlock.CIDR
		if len(p.IPBlock.Except) > 0 {
			text += " except " + strings.Join(p.IPBlock.Except, ", ")
		}
		return text
	}
	text := "all pods"
	if p.PodSelector != nil {
		text = selectorText(p.PodSelector, text, "pods ")
	}
	if p.NamespaceSelector == nil {
		return text + " of the same namespace"
	}
	return text + " of " + selectorText(p.NamespaceSelector, "all namespaces", "namespaces ")
}

// selectorText words a selector, as kubectl does; all stands for one without requirements.
func selectorText(s *metav1.LabelSelector, all, some string) string {
	if len(s.MatchLabels)+len(s.MatchExpressions) == 0 {
		return all
	}
	return some + metav1.FormatLabelSelector(s)
}

// portText words one entry of ports.
func portText(p networkingv1.NetworkPolicyPort) string {
	protocol := "tcp"
	if p.Protocol != nil {
		protocol = strings.ToLower(string(*p.Protocol))
	}
	switch {
	case p.Port == nil:
		return protocol + "/*"
	case p.EndPort != nil:
		return protocol + "/" + p.Port.String() + "-" + strconv.Itoa(int(*p.EndPort))
	}
	return protocol + "/" + p.Port.String()
}
