package evaluate

import (
	"cmp"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// podAt is the pod that owns an address, or nil. Several pods can list one address for a while, because the kubelet
// reports late that an earlier pod has gone; then the newest pod has it.
func (c Cluster) podAt(addr netip.Addr) *corev1.Pod {
	var owner *corev1.Pod
	for _, pod := range c.Pods {
		if lists(pod, addr) && (owner == nil || newer(pod, owner) > 0) {
			owner = pod
		}
	}
	return owner
}

// newer orders two pods by age; the UID and the name only make the order total.
func newer(a, b *corev1.Pod) int {
	return cmp.Or(
		a.CreationTimestamp.Time.Compare(b.CreationTimestamp.Time),
		strings.Compare(string(a.UID), string(b.UID)),
		strings.Compare(fullName(a), fullName(b)))
}

// lists tells whether a pod claims an address. A pod in the host's network has only its node's addresses, which are the
// node's; a finished pod has none, even if its status still shows one.
func lists(pod *corev1.Pod, addr netip.Addr) bool {
	if pod.Spec.HostNetwork || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return false
	}
	texts := []string{pod.Status.PodIP}
	if len(pod.Status.PodIPs) > 0 {
		texts = nil
		for _, ip := range pod.Status.PodIPs {
			texts = append(texts, ip.IP)
		}
	}
	for _, text := range texts {
		if ip, ok := parseAddr(text); ok && ip == addr {
			return true
		}
	}
	return false
}

// nodeHas tells whether an address is one by which a node's own packets can be known.
func (c Cluster) nodeHas(name string, addr netip.Addr) bool {
	for _, node := range c.Nodes {
		if node.Name != name {
			continue
		}
		for _, a := range node.Status.Addresses {
			if a.Type != corev1.NodeInternalIP && a.Type != corev1.NodeExternalIP {
				continue
			}
			if ip, ok := parseAddr(a.Address); ok && ip == addr {
				return true
			}
		}
	}
	return false
}

// parseAddr reads an address that a packet can carry as its source. An IPv4-mapped IPv6 address is the IPv4 address.
func parseAddr(text string) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(text)
	addr = addr.Unmap()
	if err != nil || addr.IsUnspecified() {
		return netip.Addr{}, false
	}
	return addr, true
}

// namespaceLabels are the labels of a namespace, and whether the namespace is known at all.
func (c Cluster) namespaceLabels(name string) (map[string]string, bool) {
	for _, ns := range c.Namespaces {
		if ns.Name == name {
			return ns.Labels, true
		}
	}
	return nil, false
}
