package main

import (
	"fmt"
	"net/netip"
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
	where   string               // the objects are from, within a sentence
	partial bool                 // an agent's: without Services, and without the nodes of pods elsewhere
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
	add := func(name string, cidrs []netip.Prefix) {
		n := manifest.PlaceNode{Name: name, PodCIDRs: cidrs}
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
		add(n.Name, podCIDRs(n))
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

// podCIDRs returns the blocks of a node that are well formed.
func podCIDRs(n *corev1.Node) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range n.Spec.PodCIDRs {
		if p, err := netip.ParsePrefix(text); err == nil {
			out = append(out, p.Masked())
		}
	}
	return out
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
	if strings.HasPrefix(name, "svc/") && strings.Count(name, "/") > 1 {
		return end{}, fmt.Errorf("%s: a Service does not send; name a pod", which)
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
	return end{}, fmt.Errorf("%s: no pod %s in %s%s", which, name, c.where, c.similar(namespace, podName))
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

// worldOf is what decides about flows between these addresses: of the pods only those that
// may own one, and of the policies those of their namespaces.
func (c *cluster) worldOf(addrs map[netip.Addr]bool) evaluate.Cluster {
	w := evaluate.Cluster{Namespaces: c.objects.Namespaces, Nodes: c.nodes()}
	namespaces := map[string]bool{}
	for _, p := range c.objects.Pods {
		if slices.ContainsFunc(podAddrs(p), func(a netip.Addr) bool { return addrs[a] }) {
			w.Pods, namespaces[p.Namespace] = append(w.Pods, p), true
		}
	}
	for _, p := range c.objects.Policies {
		if namespaces[p.Namespace] {
			w.Policies = append(w.Policies, p)
		}
	}
	return w
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
