package matrix

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/portcullis-netpol/portcullis/policy/evaluate"
)

// side is one state of a cluster, prepared for questions.
type side struct {
	in         Input
	facts      facts
	policies   map[string][]*networkingv1.NetworkPolicy // by namespace
	namespaces map[string][]*corev1.Namespace           // by name
	nodes      map[string]*corev1.Node
}

func newSide(in Input) *side {
	s := &side{
		in: in, facts: factsOf(in.Cluster.Policies), policies: map[string][]*networkingv1.NetworkPolicy{},
		namespaces: map[string][]*corev1.Namespace{}, nodes: map[string]*corev1.Node{},
	}
	for _, p := range in.Cluster.Policies {
		s.policies[p.Namespace] = append(s.policies[p.Namespace], p)
	}
	for _, ns := range in.Cluster.Namespaces {
		s.namespaces[ns.Name] = append(s.namespaces[ns.Name], ns)
	}
	for _, n := range in.Cluster.Nodes {
		s.nodes[n.Name] = n
	}
	return s
}

func (s *side) namespace(name string) []*corev1.Namespace { return s.namespaces[name] }

// terminal is one end of a flow: a pod, or addresses that are no pod's.
type terminal struct {
	pod   *corev1.Pod // nil if it is none
	addrs [families]netip.Addr
	view  *view        // what isolates the pod in the direction that is asked about; nil if it is no pod
	node  *corev1.Node // the pod's own node, if the flow comes from it
}

// stretch is one range of ports of which a direction says one thing.
type stretch struct {
	protocol int
	ports    Range
	decision evaluate.Decision
}

// probed is what one direction says of all traffic, by family; nil where the ends have no addresses.
type probed [families][]stretch

// probe asks what one direction says of all traffic from one end to another. The cluster that it asks about is cut down
// to what can matter: the two pods, and the policies that isolate the one that decides.
func (s *side) probe(from, to terminal, egress bool) probed {
	var c evaluate.Cluster
	for _, t := range []terminal{from, to} {
		if t.pod != nil {
			c.Pods = append(c.Pods, t.pod)
			c.Namespaces = append(c.Namespaces, s.namespace(t.pod.Namespace)...)
		}
	}
	if to.node != nil {
		c.Nodes = []*corev1.Node{to.node}
	}
	decides := to.view
	if egress {
		decides = from.view
	}
	if decides == nil {
		decides = &view{}
	}
	c.Policies = decides.policies
	ranges := decides.cuts.stretches(to.pod)
	var out probed
	for f := range out {
		src, dst := from.addrs[f], to.addrs[f]
		if !src.IsValid() || !dst.IsValid() {
			continue
		}
		if f > 0 && out[0] != nil && len(decides.facts.blocks) == 0 {
			out[f] = out[0] // no policy sees addresses
			continue
		}
		out[f] = ask(c, src, dst, egress, ranges)
	}
	return out
}

// ask evaluates one flow of each range, and joins neighbours that get the same answer.
func ask(c evaluate.Cluster, src, dst netip.Addr, egress bool, ranges [len(protocols)][]Range) []stretch {
	var out []stretch
	for i, list := range ranges {
		for _, r := range list {
			v := evaluate.Decide(c, evaluate.Flow{Src: src, Dst: dst, Protocol: protocols[i], Port: r.First})
			d := v.Ingress
			if egress {
				d = v.Egress
			}
			if n := len(out); n > 0 && out[n-1].protocol == i && same(out[n-1].decision, d) {
				out[n-1].ports.Last = r.Last
				continue
			}
			out = append(out, stretch{protocol: i, ports: r, decision: d})
		}
	}
	return out
}

func same(a, b evaluate.Decision) bool {
	return a.Allowed == b.Allowed && a.WouldDeny == b.WouldDeny && a.Reason == b.Reason && slices.Equal(a.By, b.By) &&
		slices.Equal(a.Isolated, b.Isolated) && slices.Equal(a.Audit, b.Audit)
}
