package policy

import (
	"testing"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

func (w *world) policyName() string {
	if w.crowded {
		return pick(w, "a", "b", "c", "d", "e", "f", "g", "h")
	}
	return pick(w, "a", "b")
}

// join makes p one of many policies for the same pods, with single ports for the most
// part, and peers and blocks that other policies may have as well.
func (w *world) join(p *networkingv1.NetworkPolicy) {
	if w.chance(20) {
		p.Spec.PodSelector.MatchLabels = map[string]string{"app": pick(w, "a", "b")}
	}
	for range 1 + w.IntN(2) {
		port := intstr.FromInt32(80 + 2*int32(w.IntN(8)))
		ports := []networkingv1.NetworkPolicyPort{{Port: &port}}
		if w.chance(10) {
			ports[0].EndPort = new(port.IntVal + 1)
		}
		peers := []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{pick(w, "app", "tier"): pick(w, "a", "b", "c", "")}}}}
		if w.chance(30) {
			b := &networkingv1.IPBlock{CIDR: pick(w, "10.0.0.0/29", "10.0.0.4/30", "10.0.0.0/16", "fd00::/126", "fd00::/64")}
			peers = append(peers, networkingv1.NetworkPolicyPeer{IPBlock: b})
		}
		if w.chance(10) {
			peers = peers[1:] // blocks alone, or everybody
		}
		if w.chance(70) {
			p.Spec.PolicyTypes = append(p.Spec.PolicyTypes, networkingv1.PolicyTypeIngress)
			p.Spec.Ingress = append(p.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: peers, Ports: ports})
			continue
		}
		p.Spec.PolicyTypes = append(p.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
		p.Spec.Egress = append(p.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: peers, Ports: ports})
	}
}

// met counts what random changes have come across, of what is compiled or carried out in
// a way of its own.
type met struct {
	wide    int // new groups that are wide
	grown   int // pods whose wide group was replaced by another wide one
	narrow  int // pods whose group became wide, or ceased to be
	blocks  int // new peer sets with blocks, used by a wide group
	mixed   int // those with blocks and pods, in which pods came or went
	members int // sets that a wide group came to have after another
	ranges  int // rules of new groups that are for a range of ports
	audits  int // new audit groups
	modes   int // pods that went from an audit group to another, or the other way
}

// note looks at a change.
func (m *met) note(before ir.State, c ir.Change, after ir.State) {
	m.members += len(c.Members)
	for _, e := range c.Endpoints {
		if e.Old == nil || e.New == nil {
			continue
		}
		for _, d := range []ir.Direction{ir.Ingress, ir.Egress} {
			was, ok := before.Group(e.Old.Group(d))
			is, still := after.Group(e.New.Group(d))
			if ok && still && was.Audit != is.Audit {
				m.modes++
			}
			switch {
			case !ok || !still || was.ID == is.ID:
			case was.Wide && is.Wide:
				m.grown++
			case was.Wide != is.Wide:
				m.narrow++
			}
		}
	}
	for _, g := range c.AddGroups {
		if g.Wide {
			m.wide++
		}
		if g.Audit {
			m.audits++
		}
		for _, r := range g.Steps[0].Rules {
			if r.First != r.Last {
				m.ranges++
			}
			if p, ok := after.PeerSet(r.Peers.Set); ok && g.Wide && len(p.Blocks) > 0 {
				m.blocks++
			}
		}
	}
	for _, s := range c.PeerSets {
		if p, _ := after.PeerSet(s.ID); len(p.Blocks) > 0 {
			m.mixed++
		}
	}
}

func (m *met) add(o met) {
	m.wide += o.wide
	m.grown += o.grown
	m.narrow += o.narrow
	m.blocks += o.blocks
	m.mixed += o.mixed
	m.members += o.members
	m.ranges += o.ranges
	m.audits += o.audits
	m.modes += o.modes
}

// require fails if anything was come across less often than once in three worlds.
func (m met) require(t *testing.T, worlds int) {
	t.Helper()
	t.Logf("%d worlds: %+v", worlds, m)
	for what, n := range map[string]int{
		"wide groups": m.wide, "wide groups replaced": m.grown, "groups that became wide or narrow": m.narrow, "blocks for wide groups": m.blocks,
		"pods among blocks": m.mixed, "known sets for wide groups": m.members, "ranges of ports": m.ranges,
		"audit groups": m.audits, "modes": m.modes,
	} {
		require.GreaterOrEqual(t, n, worlds/3, what)
	}
}
