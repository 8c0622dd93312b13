package matrix

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// nodeGroup is nodes that no policy can tell apart, by the first address of each family.
type nodeGroup struct {
	node  *corev1.Node // one of them
	addrs [families]netip.Addr
	names map[string]bool
}

// nodeGroups groups the nodes of the first side that have an address.
func nodeGroups(sides []*side) []*nodeGroup {
	var out []*nodeGroup
	bySignature := map[string]*nodeGroup{}
	for _, n := range sides[0].in.Cluster.Nodes {
		var addrs [families]netip.Addr
		for _, a := range nodeAddrs(n) {
			if f := familyOf(a); !addrs[f].IsValid() {
				addrs[f] = a
			}
		}
		if !addrs[0].IsValid() && !addrs[1].IsValid() {
			continue
		}
		var sig []byte
		for _, s := range sides {
			sig = append(s.facts.appendAddrs(sig, addrs), 0)
		}
		g := bySignature[string(sig)]
		if g == nil {
			g = &nodeGroup{node: n, addrs: addrs, names: map[string]bool{}}
			bySignature[string(sig)] = g
			out = append(out, g)
		}
		g.names[n.Name] = true
	}
	return out
}

// nodeAddrs are the addresses by which a node's own packets can be known.
func nodeAddrs(n *corev1.Node) []netip.Addr {
	var out []netip.Addr
	for _, a := range n.Status.Addresses {
		if a.Type != corev1.NodeInternalIP && a.Type != corev1.NodeExternalIP {
			continue
		}
		if addr, err := netip.ParseAddr(a.Address); err == nil && !addr.Unmap().IsUnspecified() {
			out = append(out, addr.Unmap())
		}
	}
	return out
}

// has tells whether a pod on a node has a node of the group as its own, or as another one.
func (g *nodeGroup) has(node string, kind Kind) bool {
	if kind == OwnNode {
		return g.names[node]
	}
	return len(g.names) > 1 || !g.names[node]
}

// ownNode is the node of a group as the pod's own.
func (g *nodeGroup) ownNode(pod *corev1.Pod) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: pod.Spec.NodeName}, Status: g.node.Status}
}
