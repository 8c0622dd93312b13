package matrix_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/portcullis-netpol/portcullis/policy/evaluate"
	"github.com/portcullis-netpol/portcullis/policy/matrix"
)

// world is a cluster with its matrix by pod, and what evaluate says of it.
type world struct {
	t  *testing.T
	in matrix.Input
	m  *matrix.Matrix
	// single says that all pods of an end are of one class, so that parts tell apart which addresses they cover.
	single bool
	known  map[evaluate.Flow]evaluate.Verdict
}

var (
	asked      = []int32{1, 2, 52, 53, 54, 79, 80, 81, 82, 8079, 8080, 8081, 9000, 9001, 20000, 65534, 65535}
	protocols  = []corev1.Protocol{"TCP", "UDP", "SCTP", "ICMP"}
	strangers  = addrs("192.0.2.9", "198.51.100.3", "198.51.100.200", "10.77.0.1", "1.1.1.1", "2001:db8::9", "2a00::1", "fd00:1::1")
	nodeOfName = map[string][]netip.Addr{"node-0": addrs("10.0.0.1", "fd00::1"), "node-1": addrs("10.0.0.2", "fd00::2")}
)

// askedOf are the ports to ask about: those that the generator names, those beside them, and some that nobody names.
func askedOf(protocol corev1.Protocol) []int32 {
	if protocol == "ICMP" {
		return []int32{0}
	}
	return asked
}

func addrs(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, text := range texts {
		out = append(out, netip.MustParseAddr(text))
	}
	return out
}

// TestRandomClusters compares every cell with what evaluate says of the whole cluster, flow by flow.
func TestRandomClusters(t *testing.T) {
	cells, flows, tried := 0, 0, 0
	for seed := range uint64(25) {
		in := generator{rand.New(rand.NewPCG(seed, 1))}.input()
		m, err := matrix.Compute(t.Context(), in, matrix.Options{Views: []matrix.By{matrix.ByPod, matrix.ByWorkload, matrix.ByNamespace}})
		require.NoError(t, err)
		known := map[evaluate.Flow]evaluate.Verdict{}
		for _, d := range m.Decisions {
			if d.WouldDeny {
				tried++
			}
		}
		for _, view := range m.Views {
			w := world{t, in, m, view.By == matrix.ByPod, known}
			for i, from := range view.Ends {
				for j, to := range view.Ends {
					pairs := w.pairs(from, to)
					name := fmt.Sprintf("seed %d, by %s: %s -> %s", seed, view.By, from.FullName(), to.FullName())
					id := view.Cells[i][j]
					if len(pairs) == 0 {
						require.Equal(t, matrix.Blank, id, name)
						continue
					}
					require.NotEqual(t, matrix.Blank, id, name)
					flows += w.compare(name, m.Variants[id], pairs)
					cells++
				}
			}
		}
	}
	t.Logf("%d cells, %d flows", cells, flows)
	require.Greater(t, flows, 50_000)
	require.Greater(t, tried, 10, "decisions that would deny")
}

// pair is two members of two ends, with the addresses by family.
type pair struct {
	src, dst [2]netip.Addr
	outside  netip.Addr // the end that is outside, if one is
}

// pairs are all members of one end with all of another, as evaluate knows them.
func (w world) pairs(from, to matrix.End) []pair {
	var out []pair
	for _, a := range w.members(from) {
		for _, b := range w.members(to) {
			switch {
			case a.pod == nil && b.pod == nil, a.pod != nil && a.pod == b.pod:
			case a.pod == nil && from.Kind != matrix.Outside && (from.Kind == matrix.OwnNode) != (a.node == b.pod.Spec.NodeName):
			case b.pod == nil && to.Kind != matrix.Outside && (to.Kind == matrix.OwnNode) != (b.node == a.pod.Spec.NodeName):
			default:
				p := pair{src: a.addrs, dst: b.addrs, outside: a.outside}
				if b.outside.IsValid() {
					p.outside = b.outside
				}
				if p.outside.IsValid() && (!a.has(p.outside) || !b.has(p.outside)) {
					continue // no family in common
				}
				out = append(out, p)
			}
		}
	}
	return out
}

type member struct {
	pod     *corev1.Pod
	node    string
	addrs   [2]netip.Addr
	outside netip.Addr
}

func (m member) has(family netip.Addr) bool {
	if family.Is4() {
		return m.addrs[0].IsValid()
	}
	return m.addrs[1].IsValid()
}

func (m *member) put(a netip.Addr) {
	i := 1
	if a.Is4() {
		i = 0
	}
	if !m.addrs[i].IsValid() {
		m.addrs[i] = a
	}
}

func (w world) members(e matrix.End) []member {
	var out []member
	switch e.Kind {
	case matrix.Outside:
		for _, a := range strangers {
			m := member{outside: a}
			m.put(a)
			out = append(out, m)
		}
	case matrix.OwnNode, matrix.OtherNode:
		for name, list := range nodeOfName {
			m := member{node: name}
			for _, a := range list {
				m.put(a)
			}
			out = append(out, m)
		}
	default:
		for _, p := range w.in.Cluster.Pods {
			if p.Namespace != e.Namespace || !slices.Contains(e.Pods, p.Name) {
				continue
			}
			m := member{pod: p}
			for _, ip := range p.Status.PodIPs {
				a := netip.MustParseAddr(ip.IP)
				if w.ask(a, a, "ICMP", 0).Egress.Pod == p.Namespace+"/"+p.Name {
					m.put(a)
				}
			}
			out = append(out, m)
		}
	}
	return out
}

func (w world) ask(src, dst netip.Addr, protocol corev1.Protocol, port int32) evaluate.Verdict {
	f := evaluate.Flow{Src: src, Dst: dst, Protocol: protocol, Port: port}
	v, known := w.known[f]
	if !known {
		v = evaluate.Evaluate(w.in.Cluster, f)
		w.known[f] = v
	}
	return v
}

// compare asks for every port in every family: what every pair and some pair may do, and that some part gives the
// reasons that evaluate gives.
func (w world) compare(name string, v matrix.Variant, pairs []pair) int {
	flows := 0
	for f, family := range []string{"IPv4", "IPv6"} {
		has := slices.ContainsFunc(pairs, func(p pair) bool { return p.src[f].IsValid() && p.dst[f].IsValid() })
		require.Equal(w.t, has, v.Reach.Has[f], "%s %s", name, family)
		if !has {
			continue
		}
		for _, protocol := range protocols {
			for _, port := range askedOf(protocol) {
				every, some := true, false
				for _, p := range pairs {
					if !p.src[f].IsValid() || !p.dst[f].IsValid() {
						continue
					}
					is := w.ask(p.src[f], p.dst[f], protocol, port)
					flows++
					every, some = every && is.Allowed(), some || is.Allowed()
					if !w.explained(v, p, f, protocol, port, is) {
						require.Fail(w.t, "no part says so", "%s %s %v %s/%d: %+v", name, family, p, protocol, port, is)
					}
				}
				gotEvery, gotSome := v.Reach.Every[f].Contains(protocol, port), v.Reach.Some[f].Contains(protocol, port)
				right := gotEvery == every && gotSome == some
				if pairs[0].outside.IsValid() { // there are more addresses outside than the test has
					right = (every || !gotEvery) && (gotSome || !some)
				}
				if !right {
					require.Fail(w.t, "wrong", "%s %s %s/%d: every %v, some %v, and not %v, %v", name, family, protocol, port, every, some, gotEvery, gotSome)
				}
			}
		}
	}
	return flows
}

// explained finds the verdict of a flow, reasons included, in the part that is for it.
func (w world) explained(v matrix.Variant, p pair, f int, protocol corev1.Protocol, port int32, is evaluate.Verdict) bool {
	bits := -1
	if w.single && p.outside.IsValid() {
		bits = longest(v.Parts, p.outside)
	}
	return slices.ContainsFunc(v.Parts, func(part matrix.Part) bool {
		if bits >= 0 && !covers(part, p.outside, bits) {
			return false
		}
		egress := decision(w.m, part.Egress, f, protocol, port)
		ingress := decision(w.m, part.Ingress, f, protocol, port)
		return egress != nil && ingress != nil && agrees(*egress, is.Egress) && agrees(*ingress, is.Ingress)
	})
}

// decision is what a profile says of one port, or nil if it does not have the family.
func decision(m *matrix.Matrix, profile, f int, protocol corev1.Protocol, port int32) *matrix.Decision {
	for _, s := range m.Profiles[profile].Families[f] {
		if protocols[s.Protocol] == protocol && (s.Protocol == 3 || s.Ports.First <= port && port <= s.Ports.Last) {
			return &m.Decisions[s.Decision]
		}
	}
	return nil
}

// longest is the length of the longest block of any part that an address is in.
func longest(parts []matrix.Part, a netip.Addr) int {
	best := -1
	for _, part := range parts {
		for _, b := range part.Blocks {
			if b.Contains(a) {
				best = max(best, b.Bits())
			}
		}
	}
	return best
}

func covers(part matrix.Part, a netip.Addr, bits int) bool {
	return slices.ContainsFunc(part.Blocks, func(b netip.Prefix) bool { return b.Contains(a) && b.Bits() == bits })
}

func agrees(d matrix.Decision, is evaluate.Decision) bool {
	if d.Allowed != is.Allowed || d.WouldDeny != is.WouldDeny || d.Reason != is.Reason || len(d.AllowedBy) != len(is.By) {
		return false
	}
	same := func(p matrix.Policy, name string) bool { return p.Name == name }
	if !slices.EqualFunc(d.IsolatedBy, is.Isolated, same) || !slices.EqualFunc(d.AuditedBy, is.Audit, same) {
		return false
	}
	for i, m := range is.By {
		r := d.AllowedBy[i]
		peer, port := "", ""
		if m.Peer >= 0 {
			peer = fmt.Sprintf("[%d]", m.Peer)
		}
		if m.Port >= 0 {
			port = fmt.Sprintf("ports[%d]", m.Port)
		}
		if r.Policy != m.Policy || !hasSuffix(r.Rule, fmt.Sprintf("[%d]", m.Rule)) || !hasSuffix(r.Peer, peer) || r.Port != port {
			return false
		}
	}
	return true
}

func hasSuffix(s, suffix string) bool {
	return len(s) >= len(suffix) && s[len(s)-len(suffix):] == suffix && (suffix != "" || s == "")
}
