package policy

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/portcullis-netpol/portcullis/policy/evaluate"
	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// choice is where random decisions come from: a seed, or the bytes of a fuzzer.
type choice interface{ IntN(n int) int }

// world is a set of objects as an API server would have it, with few names and
// values, so that random events meet.
type world struct {
	choice
	pods       map[string]*corev1.Pod
	namespaces map[string]*corev1.Namespace
	policies   map[string]*networkingv1.NetworkPolicy
	// crowded is set if pods have many policies with ports and peers of their own.
	crowded bool
	met     met
}

func newWorld(c choice) *world {
	return &world{choice: c, pods: map[string]*corev1.Pod{}, namespaces: map[string]*corev1.Namespace{}, policies: map[string]*networkingv1.NetworkPolicy{}}
}

func pick[T any](c choice, list ...T) T { return list[c.IntN(len(list))] }

func (w *world) chance(percent int) bool { return w.IntN(100) < percent }

func (w *world) labels() map[string]string {
	m := map[string]string{}
	for _, k := range []string{"app", "tier"} {
		if w.chance(70) {
			m[k] = pick(w, "a", "b", "c", "")
		}
	}
	return m
}

func (w *world) pod(ns, name string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: ns, Name: name, Labels: w.labels(),
			UID: types.UID(pick(w, "u1", "u2", "u3")), CreationTimestamp: at(int64(w.IntN(3))),
		},
		Spec: corev1.PodSpec{NodeName: pick(w, node, node, "node-2", ""), HostNetwork: w.chance(5)},
		Status: corev1.PodStatus{
			Phase: pick(w, corev1.PodRunning, corev1.PodRunning, corev1.PodRunning, corev1.PodPending, corev1.PodSucceeded, corev1.PodFailed),
		},
	}
	if w.chance(85) {
		n := 1 + w.IntN(12)
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: fmt.Sprintf("10.0.0.%d", n)})
		if w.chance(60) {
			p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: fmt.Sprintf("fd00::%d", n)})
		}
		p.Status.PodIP = p.Status.PodIPs[0].IP
	}
	c := corev1.Container{Name: "c"}
	for range w.IntN(3) {
		c.Ports = append(c.Ports, corev1.ContainerPort{
			Name: pick(w, "http", "dns", ""), ContainerPort: pick(w, int32(80), 81, 53),
			Protocol: pick(w, corev1.ProtocolTCP, corev1.ProtocolUDP, ""),
		})
	}
	if w.chance(20) {
		always := corev1.ContainerRestartPolicyAlways
		c.RestartPolicy = pick(w, &always, nil)
		p.Spec.InitContainers = []corev1.Container{c}
	} else {
		p.Spec.Containers = []corev1.Container{c}
	}
	return p
}

func (w *world) selector() *metav1.LabelSelector {
	s := &metav1.LabelSelector{}
	for _, k := range []string{"app", "tier"} {
		switch w.IntN(10) {
		case 0, 1, 2:
			s.MatchLabels = map[string]string{k: pick(w, "a", "b", "c", "")}
		case 3:
			s.MatchExpressions = append(s.MatchExpressions, metav1.LabelSelectorRequirement{
				Key: k, Operator: pick(w, metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn), Values: []string{"a", pick(w, "b", "", "a")},
			})
		case 4:
			s.MatchExpressions = append(s.MatchExpressions, metav1.LabelSelectorRequirement{
				Key: k, Operator: pick(w, metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist),
			})
		case 5:
			if w.chance(20) {
				s.MatchExpressions = append(s.MatchExpressions, metav1.LabelSelectorRequirement{Key: k, Operator: "Near"})
			}
		}
	}
	return s
}

func (w *world) peers() []networkingv1.NetworkPolicyPeer {
	var out []networkingv1.NetworkPolicyPeer
	for range w.IntN(4) {
		var p networkingv1.NetworkPolicyPeer
		switch w.IntN(8) {
		case 0, 1:
			p.PodSelector = w.selector()
		case 2:
			p.NamespaceSelector = w.selector()
		case 3, 4:
			p.PodSelector, p.NamespaceSelector = w.selector(), w.selector()
		case 5, 6:
			p.IPBlock = &networkingv1.IPBlock{CIDR: pick(w, "0.0.0.0/0", "10.0.0.0/29", "10.0.0.9/30", "fd00::/124", "::/0", "10.0.0/8")}
			if w.chance(40) {
				p.IPBlock.Except = []string{pick(w, "10.0.0.2/32", "10.0.0.4/30", "fd00::4/126", "x")}
			}
		case 7:
			if w.chance(20) {
				p.IPBlock, p.PodSelector = &networkingv1.IPBlock{CIDR: "0.0.0.0/0"}, w.selector()
			}
		}
		out = append(out, p)
	}
	return out
}

func (w *world) ports() []networkingv1.NetworkPolicyPort {
	var out []networkingv1.NetworkPolicyPort
	for range w.IntN(3) {
		var p networkingv1.NetworkPolicyPort
		if w.chance(60) {
			proto := pick(w, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP, corev1.ProtocolTCP, "tcp")
			p.Protocol = &proto
		}
		switch w.IntN(5) {
		case 0, 1:
			v := intstr.FromInt32(pick(w, int32(53), 80, 81, 1, 65535, 0))
			p.Port = &v
			if w.chance(40) {
				p.EndPort = pick(w, new(int32(81)), new(int32(65535)), new(int32(79)))
			}
		case 2, 3:
			v := intstr.FromString(pick(w, "http", "dns", "none", "http", "NO"))
			p.Port = &v
		}
		out = append(out, p)
	}
	return out
}

func (w *world) policy(ns, name string) *networkingv1.NetworkPolicy {
	p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
	if w.crowded && w.chance(85) {
		w.join(p)
		return p
	}
	p.Spec.PodSelector = *w.selector()
	p.Spec.PolicyTypes = pick(w, nil, []networkingv1.PolicyType{"Ingress"}, []networkingv1.PolicyType{"Egress"}, []networkingv1.PolicyType{"Ingress", "Egress"})
	if w.chance(3) {
		p.Spec.PolicyTypes = []networkingv1.PolicyType{"Sideways"}
	}
	for range w.IntN(3) {
		p.Spec.Ingress = append(p.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: w.peers(), Ports: w.ports()})
	}
	for range w.IntN(3) {
		p.Spec.Egress = append(p.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: w.peers(), Ports: w.ports()})
	}
	return p
}

// event changes the world and tells the Index.
func (w *world) event(x *Index) string {
	ns := pick(w, "n1", "n2", "n3")
	kind := w.IntN(12)
	if w.crowded && w.chance(50) {
		kind = 2 + w.IntN(3)
	}
	switch kind {
	case 0:
		w.namespaces[ns] = makeNamespace(ns, "")
		w.namespaces[ns].Labels = w.labels()
		x.SetNamespace(w.namespaces[ns])
		return fmt.Sprintf("namespace %s %v", ns, w.namespaces[ns].Labels)
	case 1:
		if w.chance(50) {
			delete(w.namespaces, ns)
			x.DeleteNamespace(ns)
		}
		return "delete namespace " + ns
	case 2, 3:
		name := w.policyName()
		p := w.policy(ns, name)
		if old := w.policies[ns+"/"+name]; old != nil && w.chance(60) { // a change of one thing
			q := old.DeepCopy()
			switch w.IntN(4) {
			case 0:
				q.Spec.PodSelector = p.Spec.PodSelector
			case 1:
				q.Spec.PolicyTypes = p.Spec.PolicyTypes
			case 2:
				q.Spec.Ingress = p.Spec.Ingress
			case 3:
				if len(q.Spec.Egress) > 0 {
					q.Spec.Egress[0].To = w.peers()
				}
			}
			p = q
		}
		w.policies[ns+"/"+name] = p
		x.SetNetworkPolicy(p)
		return fmt.Sprintf("policy %s/%s", ns, name)
	case 4:
		name := w.policyName()
		delete(w.policies, ns+"/"+name)
		x.DeleteNetworkPolicy(ns, name)
		return fmt.Sprintf("delete policy %s/%s", ns, name)
	case 5, 6:
		name := pick(w, "p1", "p2", "p3", "p4")
		delete(w.pods, ns+"/"+name)
		x.DeletePod(ns, name)
		return fmt.Sprintf("delete pod %s/%s", ns, name)
	default:
		name := pick(w, "p1", "p2", "p3", "p4")
		p := w.pod(ns, name)
		if old := w.pods[ns+"/"+name]; old != nil && w.chance(50) { // a change of one thing
			q := old.DeepCopy()
			switch w.IntN(4) {
			case 0:
				q.Labels = p.Labels
			case 1:
				q.Status = p.Status
			case 2:
				q.Spec = p.Spec
			case 3:
				q.UID, q.CreationTimestamp = p.UID, p.CreationTimestamp
			}
			p = q
		}
		w.pods[ns+"/"+name] = p
		x.SetPod(p)
		return fmt.Sprintf("pod %s/%s", ns, name)
	}
}

// load sets every object of the world in an order of rng's, some of them twice,
// and flushes now and then.
func (w *world) load(rng choice, x *Index) {
	var sets []func()
	for _, k := range slices.Sorted(maps.Keys(w.pods)) {
		sets = append(sets, func() { x.SetPod(w.pods[k]) })
	}
	for _, k := range slices.Sorted(maps.Keys(w.namespaces)) {
		sets = append(sets, func() { x.SetNamespace(w.namespaces[k]) })
	}
	for _, k := range slices.Sorted(maps.Keys(w.policies)) {
		sets = append(sets, func() { x.SetNetworkPolicy(w.policies[k]) })
	}
	for i := range sets {
		j := i + rng.IntN(len(sets)-i)
		sets[i], sets[j] = sets[j], sets[i]
		sets[i]()
		switch rng.IntN(8) {
		case 0:
			sets[rng.IntN(i+1)]()
		case 1:
			x.Flush()
		}
	}
	x.Flush()
}

// checkOracle asks the naive evaluation about flows between all that there is,
// in the directions that this node judges.
func (w *world) checkOracle(t testing.TB, s ir.State) {
	t.Helper()
	var c evaluate.Cluster
	for _, o := range w.pods {
		c.Pods = append(c.Pods, o)
	}
	for _, o := range w.namespaces {
		c.Namespaces = append(c.Namespaces, o)
	}
	for _, o := range w.policies {
		c.Policies = append(c.Policies, o)
	}
	ends := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("fd00::f")}
	for i := 1; i <= 12; i++ {
		ends = append(ends, netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), netip.MustParseAddr(fmt.Sprintf("fd00::%d", i)))
	}
	for range 150 {
		src, dst := pick(w, ends...), pick(w, ends...)
		if src.Is4() != dst.Is4() {
			continue
		}
		proto := pick(w, corev1.ProtocolTCP, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP, "ICMP")
		p := ir.Packet{Src: src, Dst: dst, Protocol: map[corev1.Protocol]ir.Protocol{"TCP": ir.TCP, "UDP": ir.UDP, "SCTP": ir.SCTP, "ICMP": 1}[proto]}
		if proto != "ICMP" {
			p.DstPort = pick(w, uint16(53), 80, 81, 1, 2, 65535, 82)
		}
		v := evaluate.Evaluate(c, evaluate.Flow{Src: src, Dst: dst, Protocol: proto, Port: int32(p.DstPort)})
		if _, local := s.Endpoint(src); local {
			require.Equal(t, v.Egress.Allowed, s.Verdict(ir.Egress, p) == ir.Accept, "egress %+v: %+v", p, v.Egress)
		}
		if _, local := s.Endpoint(dst); local {
			require.Equal(t, v.Ingress.Allowed, s.Verdict(ir.Ingress, p) == ir.Accept, "ingress %+v: %+v", p, v.Ingress)
		}
	}
}

// run plays events, and compares what they lead to with a fresh Index each time.
func (w *world) run(t testing.TB, events int, flushPercent int, oracle bool) {
	t.Helper()
	m := mirror{x: NewIndex(node)}
	if w.crowded = w.chance(50); w.crowded {
		m.x.wideAbove = pick(w, 1, 2, 3)
	} else {
		m.x.wideAbove = pick(w, wideAbove, 1, 0)
	}
	var log []string
	defer func() {
		if t.Failed() {
			t.Logf("after:\n%s", strings.Join(log, "\n"))
		}
	}()
	for range events {
		log = append(log, w.event(m.x))
		if !w.chance(flushPercent) {
			continue
		}
		before := m.state
		w.met.note(before, m.flush(t), m.state)
		fresh := NewIndex(node)
		fresh.wideAbove = m.x.wideAbove
		w.load(w, fresh)
		requireSame(t, fresh.State(), m.state)
		if oracle {
			w.checkOracle(t, m.state)
		}
	}
	w.empty(m.x)
	m.flush(t)
	requireIdle(t, m.x)
	require.Empty(t, m.x.namespaces)
	require.Empty(t, m.x.owners)
	require.Empty(t, m.x.rivals)
}

func (w *world) empty(x *Index) {
	for k := range w.pods {
		ns, name, _ := strings.Cut(k, "/")
		x.DeletePod(ns, name)
	}
	for k := range w.namespaces {
		x.DeleteNamespace(k)
	}
	for k := range w.policies {
		ns, name, _ := strings.Cut(k, "/")
		x.DeleteNetworkPolicy(ns, name)
	}
}

// TestRandomEvents is the proof of incremental = from scratch = by the book.
func TestRandomEvents(t *testing.T) {
	seeds := uint64(150)
	if testing.Short() {
		seeds = 20
	}
	var all met
	for seed := range seeds {
		w := newWorld(rand.New(rand.NewPCG(seed, 1)))
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w.run(t, 80, []int{100, 60, 20}[seed%3], true)
		})
		all.add(w.met)
	}
	all.require(t, int(seeds))
}

// TestOrders sets the same objects in many orders.
func TestOrders(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 2))
		w := newWorld(rng)
		x := NewIndex(node)
		for range 120 {
			w.event(x)
		}
		x.Flush()
		want := x.State()
		for range 20 {
			y := NewIndex(node)
			w.load(rng, y)
			requireSame(t, want, y.State())
		}
	}
}
