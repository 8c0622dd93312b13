package main

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portcullis-netpol/portcullis/policy/evaluate"
	"github.com/portcullis-netpol/portcullis/policy/manifest"
)

// cluster is what explain and matrix ask.
type cluster struct {
	objects *manifest.Objects
	made    map[*corev1.Pod]bool // pods whose addresses were made up
}

// place gives every pod without addresses some, on the nodes that the manifests have
// or name.
func place(o *manifest.Objects) (*cluster, error) {
	c := &cluster{objects: o, made: map[*corev1.Pod]bool{}}
	for _, p := range o.Pods {
		if !p.Spec.HostNetwork && len(podAddrs(p)) == 0 {
			c.made[p] = true
		}
	}
	if err := o.Place(placeNodes(o)); err != nil {
		return nil, fmt.Errorf("give pods addresses: %w", err)
	}
	return c, nil
}

// placeNodes returns the nodes with their pod CIDRs, made up where there are none.
func placeNodes(o *manifest.Objects) []manifest.PlaceNode {
	var nodes []manifest.PlaceNode
	add := func(name string, cidrs []string) {
		n := manifest.PlaceNode{Name: name}
		for _, text := range cidrs {
			if p, err := netip.ParsePrefix(text); err == nil {
				n.PodCIDRs = append(n.PodCIDRs, p.Masked())
			}
		}
		if len(n.PodCIDRs) == 0 {
			i := len(nodes) + 1
			n.PodCIDRs = []netip.Prefix{
				netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(244 + i>>8), byte(i), 0}), 24),
				netip.MustParsePrefix(fmt.Sprintf("fd00:10:244:%x::/64", i)),
			}
		}
		nodes = append(nodes, n)
	}
	known := func(name string) bool {
		return slices.ContainsFunc(nodes, func(n manifest.PlaceNode) bool { return n.Name == name })
	}
	for _, n := range o.Nodes {
		add(n.Name, n.Spec.PodCIDRs)
	}
	for _, p := range o.Pods {
		if p.Spec.NodeName != "" && !known(p.Spec.NodeName) {
			add(p.Spec.NodeName, nil)
		}
	}
	if len(nodes) == 0 { // enough for all pods, as each has room for 253
		for i := range 1 + len(o.Pods)/250 {
			add(fmt.Sprintf("node-%d", i+1), nil)
		}
	}
	return nodes
}

// end is one end of the flow that explain is asked about.
type end struct {
	name  string // as the user wrote it
	pod   *corev1.Pod
	addrs []netip.Addr
}

// end finds what the user named: namespace/pod or an address.
func (c *cluster) end(which, name string) (end, error) {
	if addr, err := netip.ParseAddr(name); err == nil {
		if addr.Zone() != "" {
			return end{}, fmt.Errorf("%s %q: an address with a zone cannot be judged", which, name)
		}
		return end{name: name, addrs: []netip.Addr{addr.Unmap()}}, nil
	}
	namespace, podName, ok := strings.Cut(name, "/")
	if !ok || namespace == "" || podName == "" {
		return end{}, fmt.Errorf("%s %q: neither namespace/pod nor an IP address", which, name)
	}
	for _, p := range c.objects.Pods {
		if p.Namespace != namespace || p.Name != podName {
			continue
		}
		addrs := podAddrs(p)
		if len(addrs) == 0 && p.Spec.HostNetwork {
			addrs = c.nodeAddrs(p.Spec.NodeName)
		}
		if len(addrs) == 0 {
			return end{}, fmt.Errorf("%s: pod %s has no address, and none can be made up for it", which, name)
		}
		return end{name: name, pod: p, addrs: addrs}, nil
	}
	return end{}, fmt.Errorf("%s: no pod %s in these files%s", which, name, c.similar(namespace, podName))
}

// similar names pods that may have been meant.
func (c *cluster) similar(namespace, name string) string {
	var inNamespace, alike []string
	for _, p := range c.objects.Pods {
		if p.Namespace != namespace {
			continue
		}
		inNamespace = append(inNamespace, p.Namespace+"/"+p.Name)
		if strings.HasPrefix(p.Name, name) {
			alike = append(alike, p.Namespace+"/"+p.Name)
		}
	}
	if len(alike) > 0 {
		inNamespace = alike
	}
	if len(inNamespace) == 0 {
		return fmt.Sprintf("; namespace %s has none", namespace)
	}
	slices.Sort(inNamespace)
	if len(inNamespace) > 5 {
		inNamespace = append(inNamespace[:5], "…")
	}
	return "; there is " + strings.Join(inNamespace, ", ")
}

// nodeAddrs returns the addresses of a node.
func (c *cluster) nodeAddrs(node string) []netip.Addr {
	var addrs []netip.Addr
	for _, n := range c.nodes() {
		if n.Name != node {
			continue
		}
		for _, a := range n.Status.Addresses {
			if addr, err := netip.ParseAddr(a.Address); err == nil {
				addrs = append(addrs, addr.Unmap())
			}
		}
	}
	return addrs
}

// nodes returns the manifests' Nodes and, of nodes that they only name, what their pods
// know: the host's address, and those of pods in the host's network.
func (c *cluster) nodes() []*corev1.Node {
	nodes := slices.Clone(c.objects.Nodes)
	made := map[string]*corev1.Node{}
	for _, p := range c.objects.Pods {
		name := p.Spec.NodeName
		known := func(n *corev1.Node) bool { return n.Name == name }
		if name == "" || slices.ContainsFunc(c.objects.Nodes, known) {
			continue
		}
		if made[name] == nil {
			made[name] = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
			nodes = append(nodes, made[name])
		}
		var addrs []string
		if p.Status.HostIP != "" {
			addrs = append(addrs, p.Status.HostIP)
		}
		for _, ip := range p.Status.HostIPs {
			addrs = append(addrs, ip.IP)
		}
		if p.Spec.HostNetwork {
			for _, a := range podAddrs(p) {
				addrs = append(addrs, a.String())
			}
		}
		for _, a := range addrs {
			made[name].Status.Addresses = append(made[name].Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a})
		}
	}
	return nodes
}

// world is the cluster as evaluate takes it.
func (c *cluster) world() evaluate.Cluster {
	return evaluate.Cluster{
		Namespaces: c.objects.Namespaces,
		Pods:       c.objects.Pods,
		Policies:   c.objects.Policies,
		Nodes:      c.nodes(),
	}
}

// answer evaluates the flow in every family that both ends have.
func (c *cluster) answer(src, dst end, proto corev1.Protocol, port int32) (answer, error) {
	a := answer{Source: src.name, Destination: dst.name, Protocol: string(proto), Port: port, Allowed: true}
	world := c.world()
	for _, family := range []string{"IPv4", "IPv6"} {
		s, ok1 := src.addr(family)
		d, ok2 := dst.addr(family)
		if !ok1 || !ok2 {
			continue
		}
		v := evaluate.Evaluate(world, evaluate.Flow{Src: s, Dst: d, Protocol: proto, Port: port})
		a.Flows = append(a.Flows, flowAnswer{
			Family: family, Source: s, Destination: d, Allowed: v.Allowed(),
			Egress:  newDirectionAnswer(v.Egress, "egress", "to"),
			Ingress: newDirectionAnswer(v.Ingress, "ingress", "from"),
		})
		a.Allowed = a.Allowed && v.Allowed()
		a.doubt(src, v.Egress.Pod, s)
		a.doubt(dst, v.Ingress.Pod, d)
	}
	if len(a.Flows) == 0 {
		return answer{}, fmt.Errorf("%s and %s have no address family in common", src.name, dst.name)
	}
	for _, e := range []end{src, dst} {
		if c.made[e.pod] && c.hasBlocks() {
			a.warn(fmt.Sprintf("pod %s has no address in these files; ipBlocks are judged by one that was made up", e.name))
		}
	}
	return a, nil
}

// hasBlocks reports whether a policy asks for addresses.
func (c *cluster) hasBlocks() bool {
	isBlock := func(p networkingv1.NetworkPolicyPeer) bool { return p.IPBlock != nil }
	for _, p := range c.objects.Policies {
		for _, r := range p.Spec.Ingress {
			if slices.ContainsFunc(r.From, isBlock) {
				return true
			}
		}
		for _, r := range p.Spec.Egress {
			if slices.ContainsFunc(r.To, isBlock) {
				return true
			}
		}
	}
	return false
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

// agree reports whether every family has the same verdicts for the same reasons.
func (a answer) agree() bool {
	for _, f := range a.Flows[1:] {
		if !reflect.DeepEqual(f.Egress, a.Flows[0].Egress) || !reflect.DeepEqual(f.Ingress, a.Flows[0].Ingress) {
			return false
		}
	}
	return true
}
