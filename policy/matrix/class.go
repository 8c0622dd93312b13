package matrix

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/portcullis-netpol/portcullis/policy/evaluate"
)

// class is pods that no policy of any side can tell apart.
type class struct {
	members []*subject
	sides   []classSide
}

// classSide is what isolates the pods of a class.
type classSide struct {
	egress, ingress view
}

func (c classSide) view(egress bool) *view {
	if egress {
		return &c.egress
	}
	return &c.ingress
}

// view is what the policies that isolate a pod in one direction, or would, can see of a flow.
type view struct {
	policies []*networkingv1.NetworkPolicy
	cuts     cuts
	facts    facts // about the peer
}

// concerned are the policies that say something of the pod in a direction: those that isolate it, or those in audit mode.
func concerned(d evaluate.Decision) []string { return slices.Concat(d.Isolated, d.Audit) }

// newView reads the policies with the names that evaluate gave, out of those of one namespace.
func newView(of []*networkingv1.NetworkPolicy, names []string, egress bool) view {
	var v view
	for _, p := range of {
		if slices.Contains(names, p.Namespace+"/"+p.Name) {
			v.policies = append(v.policies, p)
			for _, r := range rulesOf(p, egress, !egress) {
				v.cuts.add(r.ports)
			}
		}
	}
	v.cuts.sort()
	v.facts = peerFacts(v.policies, egress, !egress)
	if !egress {
		v.facts.names = nil // of the pod itself
	}
	return v
}

// classify puts subjects into classes, in the order of their first members.
func classify(all []*subject, sides []*side) []*class {
	var out []*class
	bySignature := map[string]int{}
	for _, s := range all {
		var sig strings.Builder
		for i, state := range sides {
			sig.WriteString(state.facts.signature(s.sides[i]))
			sig.WriteByte(0)
		}
		id, known := bySignature[sig.String()]
		if !known {
			id = len(out)
			bySignature[sig.String()] = id
			out = append(out, newClass(s, sides))
		}
		s.class = id
		out[id].members = append(out[id].members, s)
	}
	return out
}

func newClass(s *subject, sides []*side) *class {
	c := &class{}
	for i, state := range sides {
		policies := state.policies[s.namespace]
		pod := s.sides[i]
		self := pod.addrs[0]
		if !self.IsValid() {
			self = pod.addrs[1]
		}
		v := evaluate.Decide(
			evaluate.Cluster{Pods: []*corev1.Pod{pod.pod}, Policies: policies, Namespaces: state.namespace(s.namespace)},
			evaluate.Flow{Src: self, Dst: self, Protocol: "ICMP"})
		c.sides = append(c.sides, classSide{
			egress:  newView(policies, concerned(v.Egress), true),
			ingress: newView(policies, concerned(v.Ingress), false),
		})
	}
	return c
}
