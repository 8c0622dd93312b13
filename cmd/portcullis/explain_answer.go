package main

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/portcullis-netpol/portcullis/agent/admin"
	"github.com/portcullis-netpol/portcullis/policy/evaluate"
)

// answer is what explain prints: flows, or for a Service the pods behind it.
type answer struct {
	Source      string          `json:"source"`
	Destination string          `json:"destination"`
	Protocol    string          `json:"protocol"`
	Port        int32           `json:"port,omitempty"` // of a pod or an address
	Allowed     bool            `json:"allowed"`
	WouldDeny   bool            `json:"wouldDeny,omitempty"` // if policies in audit mode were enforced
	Flows       []flowAnswer    `json:"flows,omitempty"`
	Pods        int             `json:"pods,omitempty"` // behind the Service
	Backends    []backendAnswer `json:"backends,omitempty"`
	Warnings    []string        `json:"warnings,omitempty"`
}

// backendAnswer is the answer for pods behind a Service that are judged alike.
type backendAnswer struct {
	Pods    []string     `json:"pods"`
	Port    int32        `json:"port"`
	Allowed bool         `json:"allowed"`
	Flows   []flowAnswer `json:"flows"` // those of the first pod
}

// flowAnswer is the answer for one address family.
type flowAnswer struct {
	Family      string          `json:"family"`
	Source      netip.Addr      `json:"source"`
	Destination netip.Addr      `json:"destination"`
	Allowed     bool            `json:"allowed"`
	Egress      directionAnswer `json:"egress"`
	Ingress     directionAnswer `json:"ingress"`
}

// directionAnswer is what one end of a flow decides.
type directionAnswer struct {
	Allowed    bool         `json:"allowed"`
	Pod        string       `json:"pod,omitempty"`
	IsolatedBy []string     `json:"isolatedBy,omitempty"`
	AllowedBy  []ruleAnswer `json:"allowedBy,omitempty"`
	// Audit are the policies in audit mode that would isolate the pod, WouldDeny whether
	// they would deny the flow.
	Audit     []string `json:"audit,omitempty"`
	WouldDeny bool     `json:"wouldDeny,omitempty"`
	// Closest is the rule that almost allows what is denied, or would be.
	Closest *admin.Closest `json:"closest,omitempty"`
	Reason  string         `json:"reason"`
}

// ruleAnswer names a rule of a policy, as fields of the object, and what they say.
type ruleAnswer struct {
	Policy string `json:"policy"`
	Rule   string `json:"rule"`
	Peer   string `json:"peer,omitempty"`
	Whom   string `json:"whom,omitempty"` // what Peer says
	Port   string `json:"port,omitempty"`
	What   string `json:"what,omitempty"` // what Port says
}

// answer evaluates the flows to all targets.
func (c *cluster) answer(src end, to destination, targets []target) (answer, error) {
	a := answer{Source: src.name, Destination: to.String(), Protocol: string(targets[0].protocol), Allowed: true}
	addrs := map[netip.Addr]bool{}
	for _, t := range append([]target{{end: src}}, targets...) {
		for _, addr := range t.addrs {
			addrs[addr] = true
		}
	}
	world := c.worldOf(addrs)
	for _, t := range targets {
		flows, err := c.flows(&a, world, src, t)
		if err != nil {
			return answer{}, err
		}
		allowed := true
		for _, f := range flows {
			allowed = allowed && f.Allowed
			a.WouldDeny = a.WouldDeny || f.Egress.WouldDeny || f.Ingress.WouldDeny
		}
		a.Allowed = a.Allowed && allowed
		if !to.service {
			a.Flows, a.Port = flows, t.port
			break
		}
		a.Pods++
		i := slices.IndexFunc(a.Backends, func(b backendAnswer) bool { return b.Port == t.port && alikeFlows(b.Flows, flows, b.Pods[0], t.name) })
		if i < 0 {
			a.Backends = append(a.Backends, backendAnswer{Port: t.port, Allowed: allowed, Flows: flows})
			i = len(a.Backends) - 1
		}
		a.Backends[i].Pods = append(a.Backends[i].Pods, t.name)
	}
	if to.service {
		a.Destination += ":" + to.port
	}
	return a, nil
}

// flows evaluates the flow to one target in every family that both ends have.
func (c *cluster) flows(a *answer, world evaluate.Cluster, src end, t target) ([]flowAnswer, error) {
	var out []flowAnswer
	for _, family := range []string{"IPv4", "IPv6"} {
		s, ok1 := src.addr(family)
		d, ok2 := t.addr(family)
		if !ok1 || !ok2 {
			continue
		}
		v := evaluate.Evaluate(world, evaluate.Flow{Src: s, Dst: d, Protocol: t.protocol, Port: t.port})
		out = append(out, flowAnswer{
			Family: family, Source: s, Destination: d, Allowed: v.Allowed(),
			Egress:  c.direction(v.Egress, "egress", "to"),
			Ingress: c.direction(v.Ingress, "ingress", "from"),
		})
		a.doubt(src, v.Egress.Pod, s)
		a.doubt(t.end, v.Ingress.Pod, d)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s and %s have no address family in common", src.name, t.name)
	}
	for _, e := range []end{src, t.end} {
		if c.made[e.pod] && c.hasBlocks() {
			a.warn(fmt.Sprintf("pod %s has no address in %s; ipBlocks are judged by one that was made up", e.name, c.where))
		}
	}
	if mayBeNode := src.pod == nil || src.pod.Spec.HostNetwork; c.partial && mayBeNode && t.pod != nil && t.pod.Spec.NodeName == "" {
		a.warn(fmt.Sprintf("pod %s runs on another node, which this agent does not know: that the node itself may always connect is left out", t.name))
	}
	return out, nil
}

// direction words a decision.
func (c *cluster) direction(d evaluate.Decision, list, peers string) directionAnswer {
	a := directionAnswer{
		Allowed: d.Allowed, Pod: d.Pod, IsolatedBy: d.Isolated, Audit: d.Audit, WouldDeny: d.WouldDeny, Reason: d.Reason,
	}
	for _, m := range d.By {
		r := ruleAnswer{Policy: m.Policy, Rule: fmt.Sprintf("spec.%s[%d]", list, m.Rule)}
		rulePeers, rulePorts := c.rule(m, list)
		if m.Peer >= 0 && m.Peer < len(rulePeers) {
			r.Peer, r.Whom = fmt.Sprintf("%s[%d]", peers, m.Peer), peerWords(rulePeers[m.Peer])
		}
		if m.Port >= 0 && m.Port < len(rulePorts) {
			r.Port, r.What = fmt.Sprintf("ports[%d]", m.Port), portWords(rulePorts[m.Port])
		}
		a.AllowedBy = append(a.AllowedBy, r)
	}
	if n := d.Near; n != nil {
		a.Closest = &admin.Closest{Policy: n.Policy, Rule: fmt.Sprintf("spec.%s[%d]", list, n.Rule), Missing: n.Missing}
	}
	return a
}

// rule finds the rule of a match.
func (c *cluster) rule(m evaluate.Match, list string) ([]networkingv1.NetworkPolicyPeer, []networkingv1.NetworkPolicyPort) {
	i := slices.IndexFunc(c.objects.Policies, func(p *networkingv1.NetworkPolicy) bool { return p.Namespace+"/"+p.Name == m.Policy })
	switch p := c.objects.Policies[i]; list {
	case "egress":
		return p.Spec.Egress[m.Rule].To, p.Spec.Egress[m.Rule].Ports
	default:
		return p.Spec.Ingress[m.Rule].From, p.Spec.Ingress[m.Rule].Ports
	}
}

// alikeFlows tells whether two pods are judged alike, and by the same rules. Their names
// and addresses may stand in the words about the closest one.
func alikeFlows(a, b []flowAnswer, aName, bName string) bool {
	bare := func(d directionAnswer, f flowAnswer, name string) directionAnswer {
		d.Pod = ""
		if d.Closest != nil {
			missing := strings.NewReplacer(name, "pod", f.Destination.String(), "address").Replace(d.Closest.Missing)
			d.Closest = &admin.Closest{Policy: d.Closest.Policy, Rule: d.Closest.Rule, Missing: missing}
		}
		return d
	}
	return slices.EqualFunc(a, b, func(a, b flowAnswer) bool {
		return a.Family == b.Family &&
			reflect.DeepEqual(bare(a.Egress, a, aName), bare(b.Egress, b, bName)) &&
			reflect.DeepEqual(bare(a.Ingress, a, aName), bare(b.Ingress, b, bName))
	})
}

// addr returns the end's first address of a family.
func (e end) addr(family string) (netip.Addr, bool) {
	for _, a := range e.addrs {
		if a.Is4() == (family == "IPv4") {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// doubt warns where an address is not the named pod's to use.
func (a *answer) doubt(e end, owner string, addr netip.Addr) {
	switch {
	case e.pod == nil || owner == e.name:
	case e.pod.Spec.HostNetwork:
		a.warn(fmt.Sprintf("pod %s uses its node's network: no policy selects it, and only ipBlocks match it", e.name))
	case owner == "":
		a.warn(fmt.Sprintf("pod %s has ended and owns %s no longer", e.name, addr))
	default:
		a.warn(fmt.Sprintf("%s belongs to pod %s now, not to %s", addr, owner, e.name))
	}
}

func (a *answer) warn(text string) {
	if !slices.Contains(a.Warnings, text) {
		a.Warnings = append(a.Warnings, text)
	}
}
