package testcases

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// maker makes random objects. It draws from few names, labels, ports and addresses,
// so that what it makes meets.
type maker struct {
	*rand.Rand
	addrs [2][]netip.Addr // that blocks are built around, by family
}

func newMaker(seed uint64) *maker {
	m := &maker{Rand: rand.New(rand.NewPCG(seed, 0x706f7274))}
	for _, text := range []string{
		"203.0.113.5", "203.0.113.200", "10.0.0.1", "192.168.77.11", "192.168.77.12", "192.168.78.10", "223.255.255.254",
		"2001:db8::5", "2001:db8:1::5", "fd00:77::11", "fd00:77::12", "fd00:78::10", "fd00:1::5",
	} {
		m.know(netip.MustParseAddr(text))
	}
	return m
}

func (m *maker) know(a netip.Addr) {
	i := 0
	if a.Is6() {
		i = 1
	}
	m.addrs[i] = append(m.addrs[i], a)
}

// chance is true once in n times.
func (m *maker) chance(n int) bool { return m.IntN(n) == 0 }

func pick[T any](m *maker, list ...T) T { return list[m.IntN(len(list))] }

var (
	randomNamespaces = []string{"a", "b", "a-b"}
	randomHomes      = []string{"a", "a", "a", "b", "a-b"}
	randomKeys       = []string{"app", "tier"}
	randomValues     = []string{"x", "y", "z", ""}
	randomPortNames  = []string{"http", "dns", "metrics"}
	randomPorts      = []int32{1, 53, 80, 80, 81, 81, 82, 8080, 65535}
	randomProtocols  = []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP}
)

// cluster makes a cluster of a few pods and policies.
func (m *maker) cluster() *cluster {
	c := &cluster{}
	for _, n := range randomNamespaces {
		if !m.chance(8) {
			c.objects.Namespaces = append(c.objects.Namespaces, m.namespace(n))
		}
	}
	for i := range 3 + m.IntN(5) {
		c.objects.Pods = append(c.objects.Pods, m.pod(pick(m, randomHomes...), fmt.Sprintf("p%d", i), i))
	}
	if err := c.place(); err != nil {
		panic(err)
	}
	for i := range 1 + m.IntN(6) {
		c.objects.Policies = append(c.objects.Policies, m.policy(pick(m, randomHomes...), fmt.Sprintf("np%d", i)))
	}
	return c
}

func (m *maker) namespace(name string) *corev1.Namespace {
	labels := m.labels()
	labels[corev1.LabelMetadataName] = name
	return &corev1.Namespace{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels, Annotations: m.modes()},
	}
}

func (m *maker) labels() map[string]string {
	out := map[string]string{}
	for _, k := range randomKeys {
		if !m.chance(3) {
			out[k] = pick(m, randomValues...)
		}
	}
	return out
}

// pod makes a pod whose addresses follow from its number, so that pods of one
// number are rivals for them.
func (m *maker) pod(namespace, name string, number int) *corev1.Pod {
	p := &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: m.labels()},
	}
	p.Spec.NodeName = pick(m, nodeNames...)
	p.Spec.Containers = []corev1.Container{{Name: "one", Image: "test", Ports: m.containerPorts()}}
	if m.chance(4) {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "two", Image: "test", Ports: m.containerPorts()})
	}
	if m.chance(4) {
		init := corev1.Container{Name: "init", Image: "test", Ports: m.containerPorts()}
		if m.chance(2) {
			always := corev1.ContainerRestartPolicyAlways
			init.RestartPolicy = &always
		}
		p.Spec.InitContainers = append(p.Spec.InitContainers, init)
	}
	p.Status.Phase = corev1.PodRunning
	if m.chance(10) {
		p.Spec.HostNetwork = true
		return p
	}
	if m.chance(10) {
		p.Status.Phase = pick(m, corev1.PodSucceeded, corev1.PodFailed)
	}
	if m.chance(10) {
		number = max(0, number-1)
		p.CreationTimestamp = metav1.Unix(int64(1700000000+m.IntN(3)), 0)
	}
	m.address(p, number)
	return p
}

func (m *maker) address(p *corev1.Pod, number int) {
	families := pick(m, 3, 3, 3, 1, 2)
	p.Status.PodIPs = nil
	for i, cidr := range podCIDRs[p.Spec.NodeName] {
		if families&(1<<i) == 0 {
			continue
		}
		a := cidr.Addr()
		for range 20 + number {
			a = a.Next()
		}
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: a.String()})
		m.know(a)
	}
	p.Status.PodIP = p.Status.PodIPs[0].IP
}

func (m *maker) containerPorts() []corev1.ContainerPort {
	var out []corev1.ContainerPort
	for range m.IntN(4) {
		p := corev1.ContainerPort{Name: pick(m, randomPortNames...), ContainerPort: pick(m, randomPorts...), Protocol: pick(m, randomProtocols...)}
		if slices.ContainsFunc(out, func(o corev1.ContainerPort) bool { return o.Name == p.Name }) {
			continue // unique in a container
		}
		if m.chance(6) {
			p.Protocol = ""
		}
		out = append(out, p)
	}
	return out
}

// policy makes a policy that may be malformed in every way, now and then.
func (m *maker) policy(namespace, name string) *networkingv1.NetworkPolicy {
	p := &networkingv1.NetworkPolicy{
		TypeMeta:   metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Annotations: m.modes()},
	}
	if m.chance(2) {
		p.Spec.PodSelector = *m.selector()
	}
	switch m.IntN(6) {
	case 0:
	case 1:
		p.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
	case 2:
		p.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}
	default:
		p.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}
	}
	if m.chance(30) {
		p.Spec.PolicyTypes = append(p.Spec.PolicyTypes[:m.IntN(len(p.Spec.PolicyTypes)+1)], "Sideways")
	}
	for range pick(m, 0, 1, 2, 2, 3, 4) {
		p.Spec.Ingress = append(p.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: m.peers(), Ports: m.policyPorts()})
	}
	for range pick(m, 0, 1, 2, 2, 3, 4) {
		p.Spec.Egress = append(p.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: m.peers(), Ports: m.policyPorts()})
	}
	return p
}

func (m *maker) selector() *metav1.LabelSelector {
	s := &metav1.LabelSelector{}
	if m.chance(3) {
		return s
	}
	if m.chance(2) {
		s.MatchLabels = map[string]string{pick(m, randomKeys...): pick(m, randomValues...)}
	}
	for range m.IntN(3) {
		e := metav1.LabelSelectorRequirement{Key: pick(m, randomKeys...)}
		e.Operator = pick(m, metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn, metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist)
		if e.Operator == metav1.LabelSelectorOpIn || e.Operator == metav1.LabelSelectorOpNotIn {
			for range 1 + m.IntN(2) {
				e.Values = append(e.Values, pick(m, randomValues...))
			}
		}
		switch m.IntN(80) {
		case 0:
			e.Operator = "Like"
		case 1:
			e.Values = append(e.Values, "not a value!")
		case 2:
			e.Values = nil
		case 3:
			e.Key = "-bad-"
		}
		s.MatchExpressions = append(s.MatchExpressions, e)
	}
	return s
}

func (m *maker) peers() []networkingv1.NetworkPolicyPeer {
	if m.chance(5) {
		return pick(m, nil, []networkingv1.NetworkPolicyPeer{})
	}
	var out []networkingv1.NetworkPolicyPeer
	for range 1 + m.IntN(3) {
		var p networkingv1.NetworkPolicyPeer
		switch m.IntN(6) {
		case 0:
			p.PodSelector = m.selector()
		case 1:
			p.NamespaceSelector = m.selector()
		case 2:
			p.PodSelector, p.NamespaceSelector = m.selector(), m.selector()
		default:
			p.IPBlock = m.block()
		}
		switch m.IntN(60) {
		case 0:
			p.PodSelector, p.IPBlock = m.selector(), m.block()
		case 1:
			p = networkingv1.NetworkPolicyPeer{}
		}
		out = append(out, p)
	}
	return out
}

// block makes an ipBlock around an address that somebody has.
func (m *maker) block() *networkingv1.IPBlock {
	family := m.IntN(2)
	around := pick(m, m.addrs[family]...)
	bits := pick(m, 0, 1, 8, 16, 22, 24, 26, 27, 28, 29, 30, 31, 32)
	if family == 1 {
		bits = pick(m, 0, 1, 8, 16, 32, 48, 64, 120, 122, 123, 124, 125, 126, 127, 128)
	}
	cidr := netip.PrefixFrom(around, bits)
	b := &networkingv1.IPBlock{CIDR: m.text(cidr)}
	for range pick(m, 0, 0, 0, 1, 2, 3) {
		inside := around
		if m.chance(2) {
			inside = pick(m, m.addrs[family]...)
		}
		if m.chance(3) {
			inside = last(cidr)
		}
		if !cidr.Masked().Contains(inside) && !m.chance(10) {
			continue
		}
		longer := min(around.BitLen(), bits+1+m.IntN(around.BitLen()-bits+1))
		b.Except = append(b.Except, m.text(netip.PrefixFrom(inside, longer)))
	}
	if m.chance(60) {
		b.CIDR = pick(m, "10.0.0.0/33", "nonsense", "", "10.0.0.0", "::/129", "::ffff:10.0.0.0/104")
	}
	if m.chance(60) {
		b.Except = append(b.Except, pick(m, "nonsense", "10.0.0.0/7", "::/0", ""))
	}
	return b
}

// text writes a prefix, with or without the bits behind it.
func (m *maker) text(p netip.Prefix) string {
	if m.chance(2) {
		return p.Masked().String()
	}
	return p.String()
}

// last is the last address of a block.
func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func (m *maker) policyPorts() []networkingv1.NetworkPolicyPort {
	if m.chance(3) {
		return pick(m, nil, []networkingv1.NetworkPolicyPort{})
	}
	var out []networkingv1.NetworkPolicyPort
	for range 1 + m.IntN(3) {
		var p networkingv1.NetworkPolicyPort
		if !m.chance(4) {
			protocol := pick(m, randomProtocols...)
			p.Protocol = &protocol
		}
		switch m.IntN(6) {
		case 0:
		case 1, 2:
			p.Port = ptr(intstr.FromString(pick(m, randomPortNames...)))
		case 3:
			p.Port = ptr(intstr.FromInt32(pick(m, randomPorts...)))
		default:
			a, b := pick(m, randomPorts...), pick(m, randomPorts...)
			p.Port, p.EndPort = ptr(intstr.FromInt32(min(a, b))), ptr(max(a, b))
		}
		m.spoil(&p)
		out = append(out, p)
	}
	return out
}

// spoil makes a port malformed, now and then.
func (m *maker) spoil(p *networkingv1.NetworkPolicyPort) {
	switch m.IntN(80) {
	case 0:
		p.Protocol = ptr(pick(m, corev1.Protocol("ICMP"), "tcp", ""))
	case 1:
		p.Port = ptr(pick(m, intstr.FromInt32(0), intstr.FromInt32(-1), intstr.FromInt32(65616), intstr.FromString(""), intstr.FromString("Not-A-Name"), intstr.FromString("80")))
	case 2:
		p.EndPort = ptr(pick(m, int32(0), 65536, 1))
	}
}

func ptr[T any](v T) *T { return &v }

// flows draws checks between all kinds of ends. Their expectation is still open.
func (m *maker) flows(c *cluster, n int) []check {
	var ends []end
	for _, p := range c.pods() {
		if !p.HostNetwork && len(p.addrs()) > 0 {
			ends = append(ends, end{Text: p.Name, V4: p.V4, V6: p.V6})
		}
	}
	if len(ends) == 0 {
		return nil
	}
	pods := len(ends)
	for _, node := range nodeNames {
		ends = append(ends, end{Text: node, V4: nodeAddrs[node][0], V6: nodeAddrs[node][1]})
	}
	for _, list := range m.addrs {
		for _, a := range list {
			if name, node := c.owner(a); name == "" && node == "" {
				found, _ := c.resolve(a.String())
				ends = append(ends, found...)
			}
		}
	}
	var out []check
	seen := map[string]bool{}
	for range n {
		// One end at least is a pod.
		ch := check{Src: ends[m.IntN(len(ends))], Dst: ends[m.IntN(pods)], V4: m.chance(2)}
		if m.chance(2) {
			ch.Src, ch.Dst = ch.Dst, ch.Src
		}
		ch.Port = protoPort{pick(m, "tcp", "tcp", "udp", "sctp"), uint16(pick(m, randomPorts...))}
		if m.chance(8) {
			ch.Port = protoPort{Protocol: "icmp"}
		}
		if ch.Src.addr(ch.V4).IsValid() && ch.Dst.addr(ch.V4).IsValid() && !seen[ch.String()] {
			seen[ch.String()] = true
			out = append(out, ch)
		}
	}
	return out
}
