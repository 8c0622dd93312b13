package agent

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/portcullis-netpol/portcullis/agent/admin"
	"github.com/portcullis-netpol/portcullis/nft"
	"github.com/portcullis-netpol/portcullis/nft/nflog"
	"github.com/portcullis-netpol/portcullis/policy/evaluate"
	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// Bounds of what is told of one packet. Labels and the number of policies are anybody's.
const (
	maxNamed  = 100  // policies
	maxLabels = 4096 // bytes of the labels of a pod
)

// sighting is a packet that the kernel told of, and what the loop knows about it.
type sighting struct {
	packet    nflog.Packet
	reason    admin.Reason
	direction ir.Direction
	directed  bool // direction says something

	ends       [2]*corev1.Pod // source and destination; nil if it is no pod
	namespaces []*corev1.Namespace
	named      []string // policies that are about it
	policies   []*networkingv1.NetworkPolicy
}

// reasons are what people are told.
var reasons = map[nft.LogReason]admin.Reason{
	nft.LogPolicy: admin.ReasonPolicy, nft.LogAudit: admin.ReasonAudit, nft.LogQuarantine: admin.ReasonQuarantine, nft.LogCut: admin.ReasonCut,
}

// sight returns what a packet's log prefix says; not ok if it is not of our rules.
func sight(p nflog.Packet) (s *sighting, ok bool) {
	s = &sighting{packet: p}
	reason, direction, ok := nft.ParseLogPrefix(p.Prefix)
	s.reason, s.direction, s.directed = reasons[reason], direction, reason != nft.LogCut
	s.packet.Src, s.packet.Dst = p.Src.Unmap(), p.Dst.Unmap()
	return s, ok
}

// recognise looks for the pods and the policies of a packet. What is copied here does not
// change any more.
func (l *loop) recognise(s *sighting) {
	for i, a := range []netip.Addr{s.packet.Src, s.packet.Dst} {
		pod, ok := l.index.Pod(a)
		if !ok {
			continue
		}
		s.ends[i] = pod
		if ns, ok := l.index.Namespace(pod.Namespace); ok {
			s.namespaces = append(s.namespaces, ns)
		}
	}
	if !s.directed || s.reason != admin.ReasonPolicy && s.reason != admin.ReasonAudit {
		return
	}
	v := l.index.Verdict(s.packet.Src, s.packet.Dst, ir.Protocol(s.packet.Protocol), s.packet.DstPort)
	judgement := v.Egress
	if s.direction == ir.Ingress {
		judgement = v.Ingress
	}
	s.named = slices.Clone(judgement.Policies[:min(len(judgement.Policies), maxNamed)])
	for _, name := range s.named {
		if known := l.policies.find(name); known != nil {
			s.policies = append(s.policies, known.object)
		}
	}
}

// denial returns what people are told.
func (s *sighting) denial(node string, now time.Time) admin.Denial {
	if d := now.Sub(s.packet.Time).Abs(); d > time.Hour { // a clock that was set, or none
		s.packet.Time = now
	}
	d := admin.Denial{
		Time: s.packet.Time, Node: node, Reason: s.reason,
		Source: end(s.packet.Src, s.ends[0]), Destination: end(s.packet.Dst, s.ends[1]),
		Protocol: protocolName(s.packet.Protocol), SourcePort: s.packet.SrcPort, Port: s.packet.DstPort,
		Policies: s.named, Closest: s.closest(),
	}
	if s.directed {
		d.Direction = s.direction.String()
	}
	return d
}

// closest asks the specification which rule comes closest to allowing the packet.
func (s *sighting) closest() *admin.Closest {
	if len(s.policies) == 0 {
		return nil
	}
	c := evaluate.Cluster{Namespaces: s.namespaces, Policies: s.policies}
	for _, p := range s.ends {
		if p != nil {
			c.Pods = append(c.Pods, p)
		}
	}
	v := evaluate.Evaluate(c, evaluate.Flow{
		Src: s.packet.Src, Dst: s.packet.Dst, Protocol: portedProtocol(s.packet.Protocol), Port: int32(s.packet.DstPort),
	})
	if s.direction == ir.Ingress {
		return nearest(v.Ingress, "ingress")
	}
	return nearest(v.Egress, "egress")
}

// nearest names the rule that comes closest to allowing what a decision denies.
func nearest(d evaluate.Decision, direction string) *admin.Closest {
	if d.Near == nil {
		return nil
	}
	return &admin.Closest{Policy: d.Near.Policy, Rule: fmt.Sprintf("spec.%s[%d]", direction, d.Near.Rule), Missing: d.Near.Missing}
}

// end describes one end of a packet's way.
func end(a netip.Addr, p *corev1.Pod) admin.End {
	e := admin.End{Addr: a}
	if p != nil {
		e.Pod, e.Labels = p.Namespace+"/"+p.Name, someLabels(p.Labels)
	}
	return e
}

// someLabels returns labels, sorted first come first, as far as there is room.
func someLabels(labels map[string]string) map[string]string {
	size := 0
	for k, v := range labels {
		size += len(k) + len(v)
	}
	if size <= maxLabels {
		return labels
	}
	some, room := map[string]string{}, maxLabels
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		if room -= len(k) + len(labels[k]); room < 0 {
			break
		}
		some[k] = labels[k]
	}
	return some
}

// The protocols that people know by name.
var protocolNames = map[uint8]string{1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"}

func protocolName(number uint8) string {
	if name, ok := protocolNames[number]; ok {
		return name
	}
	return strconv.Itoa(int(number))
}

// portedProtocol returns the protocol as policies write it.
func portedProtocol(number uint8) corev1.Protocol {
	switch ir.Protocol(number) {
	case ir.TCP:
		return corev1.ProtocolTCP
	case ir.UDP:
		return corev1.ProtocolUDP
	case ir.SCTP:
		return corev1.ProtocolSCTP
	}
	return "ICMP" // one without ports
}
