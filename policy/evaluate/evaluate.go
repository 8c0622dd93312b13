package evaluate

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Cluster is every object that a decision may depend on. Nodes are read only for their addresses. The objects are
// not changed.
type Cluster struct {
	Namespaces []*corev1.Namespace
	Pods       []*corev1.Pod
	Policies   []*networkingv1.NetworkPolicy
	Nodes      []*corev1.Node
}

// Flow is the first packet of a connection, as it looks after destination NAT and before source NAT.
type Flow struct {
	Src, Dst netip.Addr
	// Protocol is TCP, UDP or SCTP. Everything else ("ICMP" by custom) is a protocol without ports.
	Protocol corev1.Protocol
	// Port is the destination port, 1 to 65535; it is ignored for a protocol without ports.
	Port int32
}

// Verdict is the decision of both ends of a flow.
type Verdict struct {
	Egress  Decision // of the pod that sends
	Ingress Decision // of the pod that receives
}

// Allowed tells whether the flow passes: both ends must agree.
func (v Verdict) Allowed() bool { return v.Egress.Allowed && v.Ingress.Allowed }

// Decision is what one direction says about a flow, and why.
type Decision struct {
	Allowed bool
	// Pod is the pod that this direction is about, as "namespace/name", or empty if that end of the flow is no pod.
	Pod string
	// Isolated lists the policies, as "namespace/name", that isolate Pod in this direction, sorted. Empty means that
	// the pod is not isolated.
	Isolated []string
	// By lists the rules that allow the flow, sorted by policy and rule. It is empty where no rule was needed.
	By []Match
	// Audit lists the policies in audit mode that would isolate Pod in this direction if they were enforced, sorted. It is
	// empty if Isolated is not: then they could only allow more.
	Audit []string
	// WouldDeny tells whether the policies of Audit would deny the flow if they were enforced. Allowed is true then.
	WouldDeny bool
	// Near is the rule that comes closest to allowing a flow that is denied, or would be. It is nil if the policies have
	// no rule, and for a flow that is allowed by what it needs.
	Near *Near
	// Reason says the same for people, in one short sentence.
	Reason string
}

// Match names the rule that allows a flow.
type Match struct {
	Policy string // "namespace/name"
	Rule   int    // index in spec.ingress or spec.egress
	Peer   int    // index of the first entry of from or to that matches, -1 if the rule has none and so matches every peer
	Port   int    // index of the first entry of ports that matches, -1 if the rule has none and so matches every port
}

// Evaluate decides one flow. An end of the flow that is no pod of the cluster allows everything; the pods of the host's
// network are no pods here.
func Evaluate(c Cluster, f Flow) Verdict { return c.judge(f, true) }

// Decide is Evaluate without Near, for those who ask about a great many flows.
func Decide(c Cluster, f Flow) Verdict { return c.judge(f, false) }

func (c Cluster) judge(f Flow, near bool) Verdict {
	// The kernel sees an IPv4 packet, whatever a program calls the address.
	f.Src, f.Dst = f.Src.Unmap(), f.Dst.Unmap()
	ends := conn{Flow: f, cluster: c, srcPod: c.podAt(f.Src), dstPod: c.podAt(f.Dst), near: near}
	return Verdict{Egress: ends.decide(egress), Ingress: ends.decide(ingress)}
}

// conn is a flow together with what the cluster says about its two ends.
type conn struct {
	Flow
	cluster        Cluster
	srcPod, dstPod *corev1.Pod // nil if that end is no pod
	near           bool        // Near is asked for
}

// subject is the pod that a direction is about.
func (x conn) subject(d direction) *corev1.Pod {
	if d == egress {
		return x.srcPod
	}
	return x.dstPod
}

// peer is the other end of the flow: its address, and its pod if it is one.
func (x conn) peer(d direction) (netip.Addr, *corev1.Pod) {
	if d == egress {
		return x.Dst, x.dstPod
	}
	return x.Src, x.srcPod
}

// decide judges one direction. A pod that no policy isolates is open; an isolated one can always reach itself and be
// reached by its own node; everything else needs a rule. Policies in audit mode isolate nobody; what they would do is
// found out where no other policy isolates the pod.
func (x conn) decide(d direction) Decision {
	pod := x.subject(d)
	if pod == nil {
		return Decision{Allowed: true, Reason: "not a pod"}
	}
	dec := Decision{Pod: fullName(pod)}
	policies, audited := x.policiesFor(pod, d)
	dec.Isolated = fullNames(policies)
	names := dec.Isolated
	if len(policies) == 0 {
		policies, dec.Audit = audited, fullNames(audited)
		names = dec.Audit
	}
	free := ""
	switch {
	case len(policies) == 0:
		free = "not isolated"
	case x.Src == x.Dst:
		free = "to itself"
	case d == ingress && x.cluster.nodeHas(pod.Spec.NodeName, x.Src):
		free = "own node"
	}
	if free != "" {
		dec.Allowed, dec.Reason = true, free
		return dec
	}
	var rules []reading
	for _, policy := range policies {
		rules = x.read(rules, policy, d)
	}
	by := allowing(rules)
	if len(by) > 0 {
		dec.Reason = "allowed by " + describe(by, d)
	} else {
		dec.Reason = denial(names, len(rules) > 0)
		if x.near {
			dec.Near = x.nearest(rules, d)
		}
	}
	if len(dec.Audit) > 0 {
		dec.Allowed, dec.WouldDeny, dec.Reason = true, len(by) == 0, "in audit mode: "+dec.Reason
		return dec
	}
	dec.Allowed, dec.By = len(by) > 0, by
	return dec
}

// policiesFor are the policies about a pod in a direction: those that isolate it, and those in audit mode.
func (x conn) policiesFor(pod *corev1.Pod, d direction) (enforced, audited []*networkingv1.NetworkPolicy) {
	for _, policy := range x.cluster.Policies {
		if policy.Namespace != pod.Namespace || !isolates(policy, d) || !selectsSubject(policy, pod) {
			continue
		}
		if x.cluster.audits(policy) {
			audited = append(audited, policy)
		} else {
			enforced = append(enforced, policy)
		}
	}
	return enforced, audited
}

// allowing lists the rules that allow the flow, sorted by policy and rule.
func allowing(rules []reading) []Match {
	var out []Match
	for _, r := range rules {
		if r.peerOK && r.portOK {
			out = append(out, r.Match)
		}
	}
	slices.SortStableFunc(out, func(a, b Match) int {
		return cmp.Or(strings.Compare(a.Policy, b.Policy), cmp.Compare(a.Rule, b.Rule))
	})
	return out
}

// denial says why policies do not allow a flow.
func denial(policies []string, haveRules bool) string {
	names := strings.Join(policies, ", ")
	switch {
	case haveRules:
		return "no rule of " + names + " allows it"
	case len(policies) == 1:
		return names + " allows nothing"
	}
	return names + " allow nothing"
}

// describe names rules the way their author would find them: "ingress[0] of shop/allow".
func describe(matches []Match, d direction) string {
	parts := make([]string, len(matches))
	for i, m := range matches {
		parts[i] = fmt.Sprintf("%s[%d] of %s", d, m.Rule, m.Policy)
	}
	return strings.Join(parts, ", ")
}

// fullName is the name that is unique for its kind in a cluster.
func fullName(o metav1.Object) string { return o.GetNamespace() + "/" + o.GetName() }

// fullNames are the names of policies, sorted.
func fullNames(policies []*networkingv1.NetworkPolicy) []string {
	var out []string
	for _, policy := range policies {
		out = append(out, fullName(policy))
	}
	slices.Sort(out)
	return out
}
