package matrix

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// facts are what policies ask about pods. What is not among them makes no difference to any verdict.
type facts struct {
	labels map[string]map[string]bool // by key, the values that are named
	names  map[string]bool            // names of ports
	blocks []netip.Prefix             // cidr and except of all ipBlocks, sorted
}

// factsOf are the facts that matter for any pod, at either end and as the one that a policy selects.
func factsOf(policies []*networkingv1.NetworkPolicy) facts {
	f := peerFacts(policies, true, true)
	for _, p := range policies {
		f.addSelector(&p.Spec.PodSelector)
	}
	return f
}

// peerFacts are the facts that the rules of one direction, or of both, ask about their peers.
func peerFacts(policies []*networkingv1.NetworkPolicy, egress, ingress bool) facts {
	f := facts{labels: map[string]map[string]bool{}, names: map[string]bool{}}
	for _, p := range policies {
		for _, r := range rulesOf(p, egress, ingress) {
			for _, peer := range r.peers {
				f.addSelector(peer.PodSelector)
				f.addBlock(peer.IPBlock)
			}
			for _, port := range r.ports {
				if port.Port != nil && port.Port.Type == intstr.String {
					f.names[port.Port.StrVal] = true
				}
			}
		}
	}
	slices.SortFunc(f.blocks, netip.Prefix.Compare)
	f.blocks = slices.Compact(f.blocks)
	return f
}

func (f facts) addSelector(s *metav1.LabelSelector) {
	if s == nil {
		return
	}
	for key, value := range s.MatchLabels {
		f.addLabel(key, value)
	}
	for _, e := range s.MatchExpressions {
		f.addLabel(e.Key, e.Values...)
	}
}

func (f facts) addLabel(key string, values ...string) {
	if f.labels[key] == nil {
		f.labels[key] = map[string]bool{}
	}
	for _, v := range values {
		f.labels[key][v] = true
	}
}

// addBlock takes the networks that are well formed; others contain nothing.
func (f *facts) addBlock(b *networkingv1.IPBlock) {
	if b == nil {
		return
	}
	for _, text := range append([]string{b.CIDR}, b.Except...) {
		if p, err := netip.ParsePrefix(text); err == nil {
			f.blocks = append(f.blocks, p.Masked())
		}
	}
}

// signature is the same for two pods that no policy can tell apart. Values of labels that nobody names are all alike.
func (f facts) signature(s subjectSide) string {
	out := strconv.AppendQuote(nil, s.pod.Namespace)
	for _, key := range slices.Sorted(maps.Keys(f.labels)) {
		value, has := s.pod.Labels[key]
		switch {
		case !has:
			out = append(out, '-')
		case f.labels[key][value]:
			out = strconv.AppendQuote(out, value)
		default:
			out = append(out, '+')
		}
	}
	for _, c := range containers(s.pod) {
		for _, p := range c.Ports {
			if f.names[p.Name] {
				out = strconv.AppendQuote(append(strconv.AppendQuote(out, p.Name), ':'), string(p.Protocol))
				out = strconv.AppendInt(out, int64(p.ContainerPort), 10)
			}
		}
	}
	return string(f.appendAddrs(out, s.addrs))
}

// appendAddrs adds which families there are, and which blocks the addresses are in.
func (f facts) appendAddrs(out []byte, addrs [families]netip.Addr) []byte {
	for _, a := range addrs {
		out = append(out, '|')
		if !a.IsValid() {
			continue
		}
		out = append(out, 'x')
		for i, b := range f.blocks {
			if b.Contains(a) {
				out = append(strconv.AppendInt(out, int64(i), 10), ',')
			}
		}
	}
	return out
}

// containers are those whose ports can have names that count. Init containers are here even if they end: that may tell
// pods apart which are the same, or ask about a port too many, and does no harm.
func containers(pod *corev1.Pod) []corev1.Container {
	return append(slices.Clone(pod.Spec.Containers), pod.Spec.InitContainers...)
}

// rule is an ingress or an egress rule.
type rule struct {
	peers []networkingv1.NetworkPolicyPeer
	ports []networkingv1.NetworkPolicyPort
}

// rulesOf are the rules of one direction, or of both.
func rulesOf(p *networkingv1.NetworkPolicy, egress, ingress bool) []rule {
	var out []rule
	if egress {
		for _, r := range p.Spec.Egress {
			out = append(out, rule{r.To, r.Ports})
		}
	}
	if ingress {
		for _, r := range p.Spec.Ingress {
			out = append(out, rule{r.From, r.Ports})
		}
	}
	return out
}
